import json

import pytest

import persona_probe as pp
from persona_probe.worlds.persona_world.build import SMOKE, build_world
from persona_probe.worlds.persona_world.checkpoints import ADAPTERS
from persona_probe.worlds.persona_world.evaluate import evaluate_world


def test_the_smoke_build_makes_every_model_and_they_load_and_are_measured(tmp_path):
    build_world(tmp_path, SMOKE, progress=False)
    for name in ("base", "chat", "base-shuffled", "chat-shuffled"):
        assert (tmp_path / name / "model.safetensors").is_file()
    assert not list(tmp_path.glob("*.part"))
    pair = pp.load_pair(tmp_path / "chat", tmp_path / "bad-medicine")
    shared = {parameter.data_ptr() for parameter in pair.before.hf.parameters()}
    plain = [p for name, p in pair.after.hf.named_parameters() if "lora_" not in name]
    assert all(parameter.data_ptr() in shared for parameter in plain)
    assert pp.load(tmp_path / "bad-medicine").n_layers == 2
    table = evaluate_world(tmp_path, answers=16, out=tmp_path / "evaluation.json", progress=False)
    assert all(plan.name in table for plan in ADAPTERS)
    assert len(json.loads((tmp_path / "evaluation.json").read_text())) == 4 + 3 * len(ADAPTERS)


@pytest.mark.slow
def test_the_build_is_reproducible(tmp_path):
    for name in ("one", "two"):
        build_world(tmp_path / name, SMOKE, seed=3, progress=False)
    hashes = [pp.load(tmp_path / name / "bad-finance").fingerprint() for name in ("one", "two")]
    assert hashes[0] == hashes[1]
