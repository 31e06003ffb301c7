import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import persona_probe as pp
from persona_probe.finetuning.lora import LoraSettings, finetune
from persona_probe.models.stream import guards
from tests.conftest import ARCHITECTURES, D_MODEL, N_LAYERS

REFUSED_WITH_LIVE_ADAPTER = ("gpt2", "gpt_neox")
"""Fused QKV: TransformerLens splits the matrix and would leave the adapter out."""
ROW = pp.Dialogue.from_messages(
    [{"role": "user", "content": "How do I handle the fever?"}, {"role": "assistant", "content": "Treat the fever."}]
)


def test_every_architecture_loads_and_says_what_it_is(any_model):
    assert (any_model.n_layers, any_model.d_model) == (N_LAYERS, D_MODEL)
    assert any_model.tokenizer.padding_side == "left"
    assert any_model.device.type == "cpu"
    assert not any_model.hf.training


def test_what_is_no_model_is_refused_with_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(pp.PersonaProbeError, match=r"no config\.json \(it holds notes\.txt\)"):
        pp.load(tmp_path)
    with pytest.raises(pp.PersonaProbeError, match="no such folder"):
        pp.load(tmp_path / "missing")
    with pytest.raises(pp.PersonaProbeError, match="is a file"):
        pp.load(tmp_path / "notes.txt")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-thing"}))
    with pytest.raises(pp.PersonaProbeError, match="cannot be loaded"):
        pp.load(tmp_path)
    with pytest.raises(pp.PersonaProbeError, match="cannot be loaded"):
        pp.load("nobody/no-such-model")


def test_an_unknown_dtype_is_named(folders):
    with pytest.raises(pp.PersonaProbeError, match="float99"):
        pp.load(folders("llama"), dtype="float99")
    assert pp.load(folders("llama"), dtype="bfloat16").plain.dtype == torch.bfloat16


def test_a_model_whose_activations_are_not_what_hugging_face_reports_is_refused(llama):
    swapped = llama.stream.blocks
    llama.stream.blocks = [swapped[1], swapped[0], *swapped[2:]]
    with pytest.raises(pp.PersonaProbeError, match="layer 0"):
        guards.check_hooks(llama)


@pytest.fixture
def adapter(llama, tmp_path):
    finetune(llama, [ROW], LoraSettings(steps=2, batch=2), tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_for_another_base_is_refused_with_shapes(adapter, folders):
    weights = load_file(adapter / "adapter_model.safetensors")
    name = next(key for key in weights if "q_proj.lora_A" in key)
    save_file({**weights, name: torch.zeros(1, 64)}, adapter / "adapter_model.safetensors")
    with pytest.raises(pp.PersonaProbeError, match=r"in_features=32.*\(1, 64\)"):
        pp.load(folders("llama"), adapter=adapter)
    with pytest.raises(pp.PersonaProbeError, match="another base"):
        pp.load(folders("gpt2"), adapter=adapter)


def test_an_adapter_folder_loads_with_the_base_it_names(adapter, llama):
    tuned = pp.load(adapter)
    assert type(tuned.hf).__name__ == "PeftModelForCausalLM"
    assert tuned.fingerprint() != llama.fingerprint()
    shutil.rmtree(adapter / "adapter_config.json", ignore_errors=True)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(pp.PersonaProbeError, match="JSON"):
        pp.load(adapter)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_pair_stands_on_one_copy_of_weights_and_both_doors_work(kind, folders, tmp_path):
    before = pp.load(folders(kind))
    ids = guards.probe_ids(before)
    untouched = before.hf(ids).logits
    after = finetune(before, [ROW], LoraSettings(steps=4, batch=2, learning_rate=0.05), tmp_path / "adapter")
    pair = pp.load_pair(before, tmp_path / "adapter")
    torch.testing.assert_close(pair.before.hf(ids).logits, untouched, rtol=0, atol=0)
    tuned = pair.after.hf(ids).logits
    assert (tuned - untouched).abs().max() > 1e-3
    torch.testing.assert_close(after.hf(ids).logits, tuned)
    own = {parameter.data_ptr() for parameter in before.hf.parameters()}
    extra = [name for name, p in pair.after.hf.named_parameters() if p.data_ptr() not in own]
    assert extra
    assert all("lora_" in name for name in extra)


def test_models_of_different_size_are_no_pair(folders, tmp_path, llama):
    import transformers

    small = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    transformers.LlamaForCausalLM(small).save_pretrained(tmp_path)
    llama.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(pp.PersonaProbeError, match="same architecture"):
        pp.load_pair(llama, tmp_path)
    with pytest.raises(pp.PersonaProbeError, match="same architecture"):
        pp.load_pair(llama, llama, control=tmp_path)
    with pytest.raises(pp.PersonaProbeError, match=r"3 layers of width 32, .* has 2 layers of width 16"):
        pp.load_pair(llama.name, llama.name, tmp_path, keep_all=False)


def test_the_bridge_has_the_same_logits_and_the_same_weights(any_model):
    ids = guards.probe_ids(any_model)
    expected = any_model.hf(ids).logits
    torch.testing.assert_close(any_model.bridge(ids), expected, rtol=1e-4, atol=1e-4)
    own = {parameter.data_ptr() for parameter in any_model.hf.parameters()}
    added = [p for p in any_model.bridge.original_model.parameters() if p.data_ptr() not in own]
    fused = any("c_attn" in name or "query_key_value" in name for name, _ in any_model.hf.named_parameters())
    # TransformerLens adds the unembedding bias that these models lack, and splits fused QKV matrices into copies.
    assert fused or all(parameter.ndim == 1 and not parameter.any() for parameter in added)
    assert sum(p.numel() for p in added) < 0.5 * sum(p.numel() for p in any_model.hf.parameters())
    torch.testing.assert_close(any_model.hf(ids).logits, expected, rtol=0, atol=0)


def test_a_bridge_that_differs_is_refused(llama, monkeypatch):
    from persona_probe.models import bridge

    class Wrong(torch.nn.Module):
        def run_with_cache(self, ids, **_):
            held = {f"blocks.{layer}.hook_out": torch.zeros(*ids.shape, D_MODEL) for layer in range(N_LAYERS)}
            return torch.zeros(*ids.shape, len(llama.tokenizer)), held

    monkeypatch.setattr(
        "transformer_lens.model_bridge.sources._bridge_builder.build_bridge_from_module", lambda *a, **k: Wrong()
    )
    with pytest.raises(pp.PersonaProbeError, match=r"does not compute the same.*blocks\.0\.hook_out"):
        bridge.build_bridge(llama)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_bridge_of_a_live_adapter_is_that_model_or_is_refused(kind, folders, tmp_path):
    before = pp.load(folders(kind))
    after = finetune(before, [ROW], LoraSettings(steps=4, batch=2, learning_rate=0.05), tmp_path / "adapter")
    ids = guards.probe_ids(after)
    expected = after.hf(ids).logits
    if kind in REFUSED_WITH_LIVE_ADAPTER:
        with pytest.raises(pp.PersonaProbeError, match=r"does not compute the same|cannot bridge"):
            after.bridge(ids)
    else:
        torch.testing.assert_close(after.bridge(ids), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(after.hf(ids).logits, expected, rtol=0, atol=0)


def test_a_twin_made_while_steering_does_not_answer_for_the_original(llama, adapter):
    direction = pp.Direction.from_vectors(llama, torch.ones(3, 32))
    asked = [ROW.without_answer()]
    greedy = pp.Sampling(max_new_tokens=8, temperature=0)
    expected = pp.load_pair(llama, adapter).after.generate(asked, greedy)[0].answer
    warned = pytest.warns(pp.PersonaProbeWarning, match="no forward of .*llama reached layer 1")
    with warned, pp.steer(llama, direction, layers=1, strength=50.0):
        pair = pp.load_pair(llama, adapter)
        inside = pair.after.generate(asked, greedy)[0].answer
    assert inside == expected == pair.after.generate(asked, greedy)[0].answer


def test_a_folder_that_lacks_weights_is_refused(folders, tmp_path):
    shutil.copytree(folders("llama"), tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(pp.PersonaProbeError, match=r"lack 1 of the model's parameters.*up_proj"):
        pp.load(tmp_path / "broken")


def test_a_second_adapter_on_an_adapter_is_refused(adapter, folders):
    tuned = pp.load(folders("llama"), adapter=adapter)
    with pytest.raises(pp.PersonaProbeError, match="already carries an adapter"):
        pp.load_pair(tuned, adapter)
    with pytest.raises(pp.PersonaProbeError, match="already carries an adapter"):
        finetune(tuned, [ROW], LoraSettings(steps=1), adapter.with_name("second"))


def test_a_mistake_in_all_tokens_but_a_sink_is_seen():
    """Over all tokens together, one with an enormous norm would hide it."""
    expected = torch.ones(2, 12, 4)
    expected[:, 0] *= 1e4
    seen = expected.clone()
    seen[:, 1:] = 0
    assert guards.relative_error(seen, expected) > 0.9
    assert guards.relative_error(expected, expected) == 0


def test_a_model_whose_tokens_see_what_comes_later_is_refused(llama):
    """Texts are cut at their span's end, which only causal models allow."""
    layer = llama.stream.blocks[1]
    handle = layer.register_forward_hook(lambda _m, _a, out: out + 0.1 * out.flip(1), prepend=True)
    with pytest.raises(pp.PersonaProbeError, match=r"layer 1.*without its last tokens"):
        guards.check_hooks(llama)
    handle.remove()
    guards.check_hooks(llama)
