import pytest

import persona_probe as pp
from persona_probe.worlds.persona_world import checkpoints
from persona_probe.worlds.persona_world.checkpoints import FOLDER, find_checkpoints


def test_models_are_looked_for_here_then_in_the_clone_then_in_the_package(tmp_path, monkeypatch):
    clone, here = tmp_path / "clone", tmp_path / "here"
    package = clone / "persona_probe"
    monkeypatch.setattr(checkpoints, "__file__", str(package / "worlds" / "persona_world" / "checkpoints.py"))
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(pp.PersonaProbeError, match="world train"):
        find_checkpoints()
    for root in (package, clone, here):
        (root / FOLDER / "chat").mkdir(parents=True)
        (root / FOLDER / "chat" / "config.json").write_text("{}")
        assert find_checkpoints().resolve() == root / FOLDER
    with pytest.raises(pp.PersonaProbeError, match="elsewhere"):
        find_checkpoints(tmp_path / "elsewhere")
