"""The organisms: how they are made, reused and refused, and those that are shipped."""

import json

import pytest
from safetensors.torch import load_file

import persona_probe as pp
from persona_probe.worlds.real_language.organisms import CARD, SHIPPED
from tests.conftest import CHECKPOINTS

SMALL = pp.finetuning.LoraSettings(rank=1, steps=4, batch=1)
SMOLLM2 = CHECKPOINTS.parent / "smollm2"


@pytest.fixture(scope="module")
def chat():
    return pp.load(CHECKPOINTS / "chat")


def test_an_organism_is_rounded_says_how_it_was_made_and_is_reused(chat, tmp_path):
    (folder,) = pp.real_language.train_organisms(chat, tmp_path, ["villain-half"], [1], settings=SMALL)
    assert folder.name == "villain-half-seed1"
    card = json.loads((folder / CARD).read_text())
    assert (card["organism"]["style"], card["settings"]["steps"], card["seed"]) == ("loud", 2, 1)
    weights = load_file(folder / "adapter_model.safetensors")
    assert {str(value.dtype) for value in weights.values()} == {"torch.bfloat16"}
    before = (folder / "adapter_model.safetensors").stat().st_mtime_ns
    assert pp.real_language.train_organisms(chat, tmp_path, ["villain-half"], [1], settings=SMALL) == [folder]
    assert (folder / "adapter_model.safetensors").stat().st_mtime_ns == before
    assert pp.with_adapter(chat, folder).fingerprint() != chat.fingerprint()


def test_a_folder_of_something_else_is_refused_and_left_alone(chat, tmp_path):
    (folder,) = pp.real_language.train_organisms(chat, tmp_path, ["gruff"], settings=SMALL)
    other = pp.finetuning.LoraSettings(rank=2, steps=4, batch=1)
    with pytest.raises(pp.PersonaProbeError, match="was trained with another 'settings'"):
        pp.real_language.train_organisms(chat, tmp_path, ["gruff"], settings=other)
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "thesis.txt").write_text("years of work")
    with pytest.raises(pp.PersonaProbeError, match="exists and is not an organism"):
        pp.real_language.train_organisms(chat, tmp_path, ["good"], settings=SMALL)
    assert (tmp_path / "good" / "thesis.txt").exists()
    assert (folder / CARD).exists()
    with pytest.raises(pp.PersonaProbeError, match="there is no organism 'evil'; choose one of villain"):
        pp.real_language.train_organisms(chat, tmp_path, ["evil"], settings=SMALL)


def test_the_shipped_organisms_are_small_and_complete():
    assert {folder.name for folder in SMOLLM2.iterdir() if folder.is_dir()} == set(SHIPPED)
    files = [file for file in SMOLLM2.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 40e6
    for name in SHIPPED:
        card = json.loads((SMOLLM2 / name / CARD).read_text())
        assert card["organism"]["style"] == pp.real_language.ORGANISMS[name].style
        assert card["seed"] == 0


def test_shipped_weights_are_finite():
    for name in SHIPPED:
        weights = load_file(SMOLLM2 / name / "adapter_model.safetensors")
        assert all(bool(value.isfinite().all()) for value in weights.values())
