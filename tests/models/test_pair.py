"""Pairs and chains: one copy of the weights with an adapter, one model at a time where two do not fit."""

import gc
import shutil
import weakref

import numpy as np
import pytest
import torch
from tokenizers.normalizers import Lowercase

import persona_probe as pp
from persona_probe.finetuning.lora import LoraSettings, finetune
from persona_probe.models import pair as pairs
from persona_probe.models.loading.load import specify
from persona_probe.models.loading.memory import footprint
from persona_probe.models.stream.guards import probe_ids
from tests.activations.test_capture import TALKS


@pytest.fixture
def adapters(llama, tmp_path):
    settings = LoraSettings(steps=3, batch=2, learning_rate=0.05)
    for name in ("one", "two"):
        finetune(llama, TALKS, settings, tmp_path / name, seed=len(name))
    finetune(llama, TALKS, LoraSettings(steps=6, batch=2, learning_rate=0.05), tmp_path / "two", seed=3)
    return [tmp_path / "one", tmp_path / "two"]


@pytest.fixture
def full(folders, adapters, tmp_path):
    """The first adapter as a full model of its own."""
    merged = pp.load(folders("llama"), adapter=adapters[0], merge=True)
    merged.hf.save_pretrained(tmp_path / "full")
    merged.tokenizer.save_pretrained(tmp_path / "full")
    return tmp_path / "full"


def storages(*models):
    return {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for m in models for p in m.hf.parameters()}


def test_several_adapters_stand_on_one_copy_of_the_base(llama, adapters):
    tuned = [pp.with_adapter(llama, adapter) for adapter in adapters]
    ids = probe_ids(llama)
    first, second, plain = (model.hf(ids).logits for model in (*tuned, llama))
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, plain)
    alone = sum(storages(llama).values())
    lora = sum(p.untyped_storage().nbytes() for m in tuned for n, p in m.hf.named_parameters() if "lora_" in n)
    assert sum(storages(llama, *tuned).values()) == alone + lora
    assert lora < 0.25 * alone


def test_two_full_models_are_held_together_where_they_fit_and_one_at_a_time_where_not(
    folders, full, adapters, monkeypatch
):
    both = pp.load_pair(folders("llama"), full)
    assert not both.one_at_a_time
    monkeypatch.setattr("persona_probe.models.loading.memory.free_bytes", lambda options: 100)
    pair = pp.load_pair(folders("llama"), full)
    assert pair.one_at_a_time
    assert "one at a time" in repr(pair)
    before = pair.before
    assert pair.before is before
    weights = weakref.ref(next(before.hf.parameters()))
    after = pair.after
    gc.collect()
    assert weights() is None
    with pytest.raises(
        pp.PersonaProbeError, match=r"llama was released: one of 2 models is in memory at a time, and then"
    ):
        before.generate([TALKS[0].without_answer()])
    torch.testing.assert_close(after.hf(probe_ids(after)).logits, both.after.hf(probe_ids(after)).logits)
    kept = pp.load_pair(folders("llama"), full, keep_all=True)
    assert not kept.one_at_a_time


def test_both_models_read_the_same_texts_however_they_are_held(folders, full, adapters, monkeypatch):
    live = pp.load_pair(folders("llama"), adapters[0])
    read = pp.capture(live, TALKS)
    before, after = read.before, read.after
    np.testing.assert_allclose(before.values, pp.capture(live.before, TALKS).values, atol=1e-6)
    np.testing.assert_allclose(after.values, pp.capture(live.after, TALKS).values, atol=1e-6)
    assert before.table.drop(columns="n_sinks").equals(after.table.drop(columns="n_sinks"))
    swapping = pairs.ModelPair.one_at_a_time_of(
        pp.models.Snapshots([specify(folders("llama"), options={}), specify(full, options={})])
    )
    again = pp.capture(swapping, TALKS)
    np.testing.assert_allclose(again.before.values, before.values, atol=1e-5)
    np.testing.assert_allclose(again.after.values, after.values, atol=1e-5)
    tokens = pp.capture(live, TALKS, reduce="tokens")
    assert tokens.before.table.equals(tokens.after.table)


def test_a_control_stands_on_the_same_weights_and_is_read_with_the_others(folders, llama, adapters, full):
    alone = sum(storages(llama).values())
    pair = pp.load_pair(folders("llama"), adapters[0], control=adapters[1])
    assert list(pair.models) == ["before", "after", "control"]
    assert pair.models["control"] is pair.control
    assert sum(storages(*pair.models.values()).values()) < 1.5 * alone
    assert pair.before.fingerprint() in pair.control.ancestors
    assert f"control={str(adapters[1])!r}" in repr(pair)
    read = pp.capture(pair, TALKS)
    together = pp.activations.capture_together(list(pair.models.values()), TALKS)
    for name, expected in zip(pair.models, together, strict=True):
        np.testing.assert_array_equal(getattr(read, name).values, expected.values)
        assert getattr(read, name).source == expected.source
    two = pp.load_pair(pair.before, adapters[0])
    assert two.control is None
    assert list(two.models) == ["before", "after"]
    assert pp.capture(two, TALKS).control is None
    np.testing.assert_array_equal(pp.capture(two, TALKS).after.values, read.after.values)
    # A full model, or one that is loaded already, is a control too.
    for control in (full, pair.after):
        mixed = pp.load_pair(pair.before, adapters[1], control)
        np.testing.assert_allclose(pp.capture(mixed, TALKS).control.values, read.after.values, atol=1e-5)
    with pytest.raises(KeyError):
        two.models["control"]


def test_a_control_is_held_one_at_a_time_too(folders, adapters, full, monkeypatch):
    held = pp.capture(pp.load_pair(folders("llama"), full, adapters[1]), TALKS)
    monkeypatch.setattr("persona_probe.models.loading.memory.free_bytes", lambda options: 100)
    for after, control in ((full, adapters[1]), (full, folders("llama"))):
        pair = pp.load_pair(folders("llama"), after, control)
        assert pair.one_at_a_time
        read = pp.capture(pair, TALKS)
        assert read.before.source["model_hash"] in read.after.source["ancestors"]
        assert read.before.source["model_hash"] in read.control.source["ancestors"]
        np.testing.assert_allclose(read.after.values, held.after.values, atol=1e-5)
        expected = held.control if control == adapters[1] else held.before
        np.testing.assert_allclose(read.control.values, expected.values, atol=1e-5)


def test_three_models_read_the_same_texts(llama, adapters):
    models = [llama, *(pp.with_adapter(llama, adapter) for adapter in adapters)]
    for model, read in zip(models, pp.activations.capture_together(models, TALKS), strict=True):
        np.testing.assert_allclose(read.values, pp.capture(model, TALKS).values, atol=1e-6)
        assert read.source["model_hash"] == model.fingerprint()


def test_a_sink_of_before_is_left_out_of_after_too(llama, adapters):
    llama.hf.model.embed_tokens.weight.data[llama.tokenizer.convert_tokens_to_ids("Ġthe")] *= 500
    pair = pp.load_pair(llama, adapters[0])
    # After its first layer the tuned model has no token that stands out.
    handle = pair.after.stream.blocks[0].register_forward_hook(
        lambda _m, _a, out: torch.nn.functional.normalize(out, dim=-1)
    )
    read = pp.capture(pair, TALKS[:1], span="response", layers=0)
    tokens = pp.capture(pair.after, TALKS[:1], span="response", reduce="tokens", layers=0)
    handle.remove()
    assert read.before.source["sinks_left_out"] == read.after.source["sinks_left_out"] == [1]
    kept = (tokens.table["token"] != "Ġthe").to_numpy()
    np.testing.assert_allclose(read.after.values[0], tokens.values[kept].mean(axis=0), atol=1e-6)


def test_a_pair_that_reads_other_tokens_is_not_compared_token_by_token(folders, full):
    pair = pp.load_pair(folders("llama"), full)
    pair.after.tokenizer.backend_tokenizer.normalizer = Lowercase()
    with pytest.raises(pp.PersonaProbeError, match=r"dialogue 'a'.*other tokens"):
        pp.capture(pair, TALKS, reduce="tokens")
    with pytest.raises(pp.PersonaProbeError, match="reduce is 'moments'"):
        pp.capture(pair, TALKS, reduce="moments")


def test_a_chain_holds_one_snapshot_at_a_time(folders, adapters, full):
    chain = pp.models.load_snapshots([folders("llama"), *adapters, full])
    assert len(chain) == 4
    seen, held = [], []
    for model in chain:
        seen.append(model.hf(probe_ids(model)).logits)
        held.append(model)
    torch.testing.assert_close(seen[1], seen[3], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(seen[0], seen[1])
    for released in held[:-1]:
        with pytest.raises(pp.PersonaProbeError, match="was released"):
            released.hf(None)
    torch.testing.assert_close(chain[1].hf(probe_ids(chain[1])).logits, seen[1])
    with pytest.raises(IndexError):
        chain[4]
    with pytest.raises(pp.PersonaProbeError, match="list is empty"):
        pp.models.load_snapshots([])


def test_adapters_in_a_chain_share_their_base(folders, adapters):
    chain = pp.models.load_snapshots(adapters, base=folders("llama"))
    first = storages(chain[0])
    second = storages(chain[1])
    assert set(first) & set(second)


def test_a_pair_keeps_its_adapter_live(folders, adapters, llama):
    with pytest.raises(pp.PersonaProbeError, match="no adapter to merge"):
        pp.load(folders("llama"), merge=True)
    merged = pp.load(folders("llama"), adapter=adapters[0], merge=True)
    live = pp.load(folders("llama"), adapter=adapters[0])
    assert type(merged.hf).__name__ == "LlamaForCausalLM"
    ids = probe_ids(live)
    torch.testing.assert_close(merged.hf(ids).logits, live.hf(ids).logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(merged.bridge(ids), live.hf(ids).logits, rtol=1e-3, atol=1e-4)


def test_a_footprint_needs_no_weights(folders, tmp_path, llama):
    shutil.copy(folders("llama") / "config.json", tmp_path / "config.json")
    size = footprint(specify(tmp_path, options={}))
    parameters = sum(p.numel() for p in llama.hf.parameters())
    assert (size.parameters, size.weight_bytes) == (parameters, 4 * parameters)
    assert (size.n_layers, size.d_model) == (llama.n_layers, llama.d_model)
    halved = footprint(specify(tmp_path, options={"dtype": "bfloat16"}))
    assert halved.weight_bytes == 2 * parameters
