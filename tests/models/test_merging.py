"""A merged model computes what the live adapter does, or it is refused."""

import shutil

import numpy as np
import pytest
import torch

import persona_probe as pp
from persona_probe.models.loading import merging
from tests.adapters import logits, lora, off, tied_llama, trained


@pytest.fixture
def tied(folders, tmp_path):
    return tied_llama(folders("llama"), tmp_path / "tied")


ON_TIED = {
    "head": lora(target_modules=["lm_head", "q_proj"]),
    "embedding": lora(target_modules=["embed_tokens", "q_proj"]),
    "both": lora(target_modules=["lm_head", "embed_tokens"]),
    "a head of its own": lora(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "an embedding of its own": lora(target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
}


@pytest.mark.parametrize("name", ON_TIED)
def test_a_tied_matrix_that_is_changed_in_one_place_is_untied(name, tied, tmp_path):
    adapter, expected = trained(tied, tmp_path / "a", ON_TIED[name])
    merged = pp.load(tied, adapter=adapter, merge=True)
    assert off(logits(merged.hf), expected) < 1e-4
    merged.hf.save_pretrained(tmp_path / "full")
    merged.tokenizer.save_pretrained(tmp_path / "full")
    assert off(logits(pp.load(tmp_path / "full").hf), expected) < 1e-4
    assert off(logits(pp.load_pair(tied, adapter).before.hf), logits(pp.load(tied).hf)) == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_differs_from_the_live_adapter_is_refused_in_any_precision(dtype, folders, tmp_path, monkeypatch):
    adapter, _ = trained(folders("llama"), tmp_path / "a", lora())
    merged = pp.load(folders("llama"), adapter=adapter, merge=True, dtype=dtype)
    assert merged.plain.dtype == getattr(torch, dtype)
    right = merging.merge_weights

    def wrong(carrying, name):
        hf = right(carrying, name)
        hf.lm_head.weight.data.mul_(1.2)
        return hf

    monkeypatch.setattr(merging, "merge_weights", wrong)
    with pytest.raises(pp.PersonaProbeError, match=r"other logits than as a live adapter: they differ by 0\.2"):
        pp.load(folders("llama"), adapter=adapter, merge=True, dtype=dtype)


def test_modules_that_pass_by_their_adapter_are_seen_when_it_is_merged(folders, tmp_path):
    """Jamba's Mamba multiplies with dt_proj's weight itself, so that a live LoRA on it does nothing."""
    adapter, expected = trained(folders("jamba"), tmp_path / "a", lora(target_modules=["dt_proj"]))
    assert off(logits(pp.load(folders("jamba"), adapter=adapter).hf), expected) == 0
    with pytest.raises(pp.PersonaProbeError, match="other logits than as a live adapter"):
        pp.load(folders("jamba"), adapter=adapter, merge=True)


def test_what_peft_cannot_merge_is_refused_in_words(folders, tmp_path):
    adapter, _ = trained(folders("llama"), tmp_path / "a", lora(lora_bias=True))
    with pytest.raises(pp.PersonaProbeError, match="cannot be merged into the weights: Impossible to merge LoRA"):
        pp.load(folders("llama"), adapter=adapter, merge=True)


def test_baking_merges_an_adapter_of_a_tied_head(tied, tmp_path):
    adapter, expected = trained(tied, tmp_path / "a", lora(target_modules=["lm_head"]))
    model = pp.load(tied, adapter=adapter)
    direction = pp.Direction.from_vectors(model, np.full((model.n_layers, model.d_model), 1e-6))
    pp.steering.bake(model, pp.Add(direction, layers=1, scope="all"), tmp_path / "baked", form="weights")
    assert off(logits(pp.load(tmp_path / "baked").hf), expected) < 1e-3
    shutil.rmtree(tmp_path / "baked")
