"""Adapters trained with more or fewer tokens than their base, and tokens of which a model has no embedding."""

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

import persona_probe as pp
from tests.activations.test_capture import TALKS
from tests.adapters import IDS, logits, lora, off, rewrite, tied_llama, trained

N_TOKENS = 1054


def resized(by):
    return lambda hf: hf.resize_token_embeddings(N_TOKENS + by)


@pytest.fixture(params=["llama", "qwen2", "gpt2", "phi", "tied llama"])
def base(request, folders, tmp_path):
    if request.param == "tied llama":
        return tied_llama(folders("llama"), tmp_path / "tied")
    return folders(request.param)


KINDS = {
    "saved embeddings": lora(),
    "trained embeddings": lora(modules_to_save=["embed_tokens", "wte", "lm_head"]),
    "LoRA on both ends": lora(target_modules=["embed_tokens", "wte", "lm_head", "q_proj"]),
}


@pytest.mark.parametrize("by", [3, -3])
@pytest.mark.parametrize("name", KINDS)
def test_a_resized_vocabulary_is_that_of_after_alone(name, by, base, tmp_path):
    adapter, expected = trained(base, tmp_path / "a", KINDS[name], resized(by), save_embedding_layers=True)
    before = pp.load(base)
    untouched, code = logits(before.hf), before.fingerprint()
    after = pp.with_adapter(before, adapter)
    assert expected.shape[-1] == N_TOKENS + by
    assert off(logits(after.hf), expected) < 1e-5
    assert after.plain.config.vocab_size == N_TOKENS + by
    assert off(logits(before.hf), untouched) == 0
    assert (before.fingerprint(), before.plain.config.vocab_size) == (code, N_TOKENS)
    for merge in (False, True):
        assert off(logits(pp.load(base, adapter=adapter, merge=merge).hf), expected) < 1e-4


def test_new_tokens_are_read(folders, tokenizer, tmp_path):
    """As scripts do that set up a chat format: new tokens, their embeddings trained, all of it saved."""
    from copy import deepcopy

    base = folders("llama")
    adapter, _ = trained(base, tmp_path / "a", lora(modules_to_save=["embed_tokens", "lm_head"]), resized(3))
    more = deepcopy(tokenizer)
    more.add_tokens(["<calm>", "<storm>", "<end>"], special_tokens=True)
    more.save_pretrained(adapter)
    with pytest.warns(pp.PersonaProbeWarning, match="another tokenizer than"):
        pair = pp.load_pair(base, adapter)
    ids = pair.after.tokenizer("<storm>", add_special_tokens=False).input_ids
    assert ids == [N_TOKENS + 1]
    assert not any("no embedding" in remark for remark in pair.after.template.remarks())
    assert torch.isfinite(pair.after.hf(torch.tensor([ids])).logits).all()
    assert pp.capture(pair.after, TALKS).values.any()


def test_what_the_file_does_not_say_of_new_tokens_is_not_made_up(folders, tmp_path):
    base = folders("llama")
    head, _ = trained(base, tmp_path / "a", lora(target_modules=["lm_head"]), resized(3), save_embedding_layers=False)
    message = r"'lm_head' has 1054 rows in this model and 1057 in the adapter: .* no new rows of 'model\.embed_tokens"
    for load in (lambda: pp.load(base, adapter=head), lambda: pp.load_pair(base, head)):
        with pytest.raises(pp.PersonaProbeError, match=message):
            load()
    config = lora(trainable_token_indices=[N_TOKENS, N_TOKENS + 1])
    tokens, _ = trained(base, tmp_path / "b", config, resized(3), save_embedding_layers=False)
    with pytest.raises(
        pp.PersonaProbeError, match=r"embeddings of token 1054, but 'model\.embed_tokens' has 1054 rows"
    ):
        pp.load(base, adapter=tokens)
    both, _ = trained(base, tmp_path / "c", lora(modules_to_save=["embed_tokens", "lm_head"]), resized(3))
    cut = "base_model.model.lm_head."
    rewrite(both, lambda all_: {n: t[:-1].clone() if n.startswith(cut) else t for n, t in all_.items()})
    with pytest.raises(pp.PersonaProbeError, match="matrices differ in their number of tokens"):
        pp.load(base, adapter=both)


def test_per_layer_embeddings_are_not_resized_with_random_numbers(folders, tmp_path):
    adapter, _ = trained(folders("gemma4"), tmp_path / "a", lora(), resized(3), save_embedding_layers=True)
    with pytest.raises(pp.PersonaProbeError, match=r"no new rows of 'model\.embed_tokens_per_layer"):
        pp.load_pair(folders("gemma4"), adapter)


@pytest.fixture
def with_pad(folders, tokenizer, tmp_path):
    """A model whose tokenizer has a token to pad with, and as many others as asked for, that the model has not."""
    from copy import deepcopy

    def folder(*others, **config):
        place = shutil.copytree(folders("llama"), tmp_path / "padded")
        more = deepcopy(tokenizer)
        more.add_tokens(list(others))
        more.add_special_tokens({"pad_token": "[PAD]"})
        more.save_pretrained(place)
        if config:
            hf = AutoModelForCausalLM.from_pretrained(place)
            for name, value in config.items():
                setattr(hf.config, name, value)
            hf.config.save_pretrained(place)
        return place

    return folder


def test_another_token_pads_where_the_tokenizers_own_has_no_embedding(with_pad, folders):
    model = pp.load(with_pad(pad_token_id=N_TOKENS))
    assert model.tokenizer.pad_token_id < N_TOKENS
    (remark,) = model.template.remarks()
    assert remark.startswith("the token that pads, '[PAD]', has no embedding in this model, so ")
    assert remark in repr(model)
    plain = pp.load(folders("llama"))
    assert (pp.capture(model, TALKS).values == pp.capture(plain, TALKS).values).all()
    asked = [talk.without_answer() for talk in TALKS]
    greedy = pp.Sampling(max_new_tokens=4, temperature=0)
    assert [d.answer for d in model.generate(asked, greedy)] == [d.answer for d in plain.generate(asked, greedy)]


def test_tokens_without_an_embedding_are_named(with_pad):
    model = pp.load(with_pad("<one>", "<two>"))
    assert model.template.embedding_rows == N_TOKENS
    _, remark = model.template.remarks()
    assert remark.startswith(
        "2 of the tokenizer's tokens have no embedding in this model, which has 1054: '<one>' (1054)"
    )


def test_remarks_on_tokens_are_made_once_for_all_adapters_of_a_base(with_pad, tmp_path):
    folder = with_pad("<one>", "<two>")
    adapter, _ = trained(folder, tmp_path / "a", lora())
    before = pp.load(folder)
    said = before.template.remarks()
    for _ in range(2):
        assert pp.with_adapter(before, adapter).template.remarks() == said


def test_more_embeddings_than_tokens_are_usual(folders, tmp_path):
    folder = shutil.copytree(folders("llama"), tmp_path / "m")
    hf = AutoModelForCausalLM.from_pretrained(folder)
    hf.resize_token_embeddings(1088)
    hf.save_pretrained(folder)
    assert pp.load(folder).template.remarks() == []
    adapter, expected = trained(folder, tmp_path / "a", lora())
    assert off(logits(pp.load_pair(folder, adapter).after.hf), expected) < 1e-5
    assert IDS.max() < N_TOKENS
