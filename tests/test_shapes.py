"""The shapes that annotations promise hold while tests run."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("linear", "directions", "probes", "amplification")
QUICK = ("directions", "probes/test_layer_probes.py")
LONG = ("linear/test_linear_fit.py", "amplification/test_recipes.py")


@pytest.mark.parametrize("tests", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)])
def test_arrays_have_the_shapes_that_annotations_say(tests):
    packages = ",".join([*(f"persona_probe.{room}" for room in ROOMS), "tests.shapes.check"])
    root = Path(__file__).parents[1]
    # What is refused on purpose would be refused by the checker first.
    chosen = [f"tests/{name}" for name in tests] + ["-k", "not refused and not whole_numbers"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.shapes", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--jaxtyping-packages={packages}", *chosen], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
