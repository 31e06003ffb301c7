"""The shapes that annotations promise hold while tests run."""

import subprocess
import sys
from pathlib import Path

ROOMS = ("linear", "directions", "probes", "amplification")
TESTS = ("linear/test_linear_fit.py", "directions", "probes/test_layer_probes.py", "amplification/test_recipes.py")


def test_arrays_have_the_shapes_that_annotations_say():
    packages = ",".join([*(f"persona_probe.{room}" for room in ROOMS), "tests.shapes.check"])
    root = Path(__file__).parents[1]
    # What is refused on purpose would be refused by the checker first.
    chosen = [f"tests/{name}" for name in TESTS] + ["-k", "not refused and not whole_numbers"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.shapes", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--jaxtyping-packages={packages}", *chosen], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
