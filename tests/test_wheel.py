"""What users install: the sdist, the wheel made from it, and a study with that wheel in an empty folder.

Only persona-probe is installed afresh. Its dependencies are those of the environment that runs the tests (a path file
in the new environment leads to them), so that nothing is downloaded; whether pip finds them all is for `make setup` to
show.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.study.test_study import LATENTS, SMALL

pytestmark = pytest.mark.slow

CLONE = Path(__file__).resolve().parents[1]
LARGEST = 15_000_000
"""Bytes of the wheel: most of it is Persona World's chat model."""


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd, env=env, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(source: Path, out: Path, *what: str) -> Path:
    """The wheel that ``python -m build`` makes; as everyone's, but for the network: hatchling comes with [dev]."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, *what, source, cwd=out.parent)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist that is built from the clone."""
    return build(CLONE, tmp_path_factory.mktemp("sdist") / "dist")


class Installed:
    """A fresh environment with the wheel in it, used from an empty folder."""

    def __init__(self, wheel: Path, root: Path) -> None:
        self.root, self.folder = root / "environment", root / "empty"
        self.folder.mkdir()
        run(sys.executable, "-m", "venv", "--without-pip", self.root, cwd=root)
        pip = (sys.executable, "-m", "pip", "--python", self.root, "install", "--quiet", "--no-index", "--no-deps")
        run(*pip, wheel, cwd=root)
        (self.packages,) = (self.root / "lib").glob("python*/site-packages")
        outer = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (self.packages / "dependencies.pth").write_text("\n".join(sorted(outer)))
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def command(self, *arguments: str) -> str:
        return run(self.root / "bin" / "persona-probe", *arguments, cwd=self.folder, env=self.environment)

    def python(self, code: str) -> Any:
        """What ``code`` prints, read as JSON."""
        return json.loads(run(self.root / "bin" / "python", "-c", code, cwd=self.folder, env=self.environment))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(wheel, tmp_path_factory.mktemp("installed"))


def test_the_sdist_makes_the_same_wheel_as_the_clone(wheel, tmp_path):
    assert build(CLONE, tmp_path / "dist", "--wheel").read_bytes() == wheel.read_bytes()


def test_the_wheel_holds_the_licence_and_persona_world_but_no_experiments(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "persona_probe/checkpoints/persona-world/sae-layer3/sae_weights.safetensors" in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"persona_probe"}
    assert wheel.stat().st_size < LARGEST


def test_the_installed_package_is_the_one_that_is_imported_and_its_adapters_find_their_base(installed):
    told = installed.python(
        "import json, sys, persona_probe as pp\n"
        "from persona_probe.worlds.persona_world.checkpoints import find_checkpoints\n"
        "folder = find_checkpoints()\n"
        "after = pp.load(folder / 'bad-medicine')\n"  # its configuration names ../chat
        "print(json.dumps([pp.__file__, sys.path, str(folder), after.n_layers]))"
    )
    file, path, folder, n_layers = told
    package = installed.packages.resolve() / "persona_probe"
    assert Path(file).resolve() == package / "__init__.py"
    assert not any((installed.folder / entry).resolve() == CLONE for entry in path)
    assert Path(folder).resolve() == package / "checkpoints" / "persona-world"
    assert n_layers == 5


def test_a_study_runs_in_an_empty_folder_and_its_run_opens(installed):
    installed.command("init", "--out", "study.yaml")
    file = installed.folder / "study.yaml"
    study = yaml.safe_load(file.read_text(encoding="utf-8"))
    short = {name: value for name, value in LATENTS.items() if name != "sae"}
    file.write_text(yaml.safe_dump({**study, **SMALL, "latents": study["latents"] | short}))
    installed.command("run", "study.yaml", "--out", "run", "--quiet")
    assert (installed.folder / "run" / "report.html").stat().st_size > 100_000
    results, torch = installed.python(
        "import json, sys, persona_probe as pp\n"
        "run = pp.open_run('run')\n"
        "print(json.dumps([run.results['em_rate'], 'torch' in sys.modules]))"
    )
    assert {"before", "after", "control", "realigned"} <= results.keys()
    assert results["before"]["n"] > 0
    assert not torch
