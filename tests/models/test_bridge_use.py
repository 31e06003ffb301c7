"""What docs/models.md says about the TransformerLens bridge: the same weights, our directions at its hook names."""

import pytest
import torch

import persona_probe as pp
from persona_probe.finetuning.lora import LoraSettings, finetune
from persona_probe.models.stream.guards import probe_ids
from tests.activations.test_capture import TALKS
from tests.conftest import D_MODEL, N_LAYERS

LAYER = 1


@pytest.fixture
def vector():
    return 3 * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0))


def streams(bridge, ids):
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(N_LAYERS)]
    with torch.inference_mode():
        _, cache = bridge.run_with_cache(ids)
    return torch.stack([cache[name] for name in names])


def test_a_direction_added_at_a_hook_name_is_steering(any_model, vector):
    ids = probe_ids(any_model)
    direction = pp.Direction.from_vectors(any_model, vector.expand(N_LAYERS, -1))
    add = [(f"blocks.{LAYER}.hook_out", lambda stream, hook: stream + torch.from_numpy(direction.at(LAYER)))]
    with torch.inference_mode():
        by_hook = any_model.bridge.run_with_hooks(ids, fwd_hooks=add)
        with pp.steer(any_model, direction, layers=LAYER, scope="all"):
            ours = any_model.hf(ids).logits
            through_bridge = any_model.bridge(ids)
    torch.testing.assert_close(by_hook, ours, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(through_bridge, ours, rtol=1e-3, atol=1e-4)


def test_compatibility_mode_leaves_our_weights_alone_and_centres_the_stream_of_layer_norm_models(any_model):
    """With LayerNorm nothing reads the mean over d_model, and TransformerLens takes it out; with RMSNorm it stays."""
    ids = probe_ids(any_model)
    expected, plain = any_model.hf(ids).logits, streams(any_model.bridge, ids)
    weights = {name: parameter.clone() for name, parameter in any_model.hf.named_parameters()}
    any_model.bridge.enable_compatibility_mode()
    folded = streams(any_model.bridge, ids)
    layer_norm = any(isinstance(module, torch.nn.LayerNorm) for module in any_model.hf.modules())
    seen = plain - plain.mean(dim=-1, keepdim=True) if layer_norm else plain
    torch.testing.assert_close(folded, seen, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in any_model.hf.named_parameters())
    torch.testing.assert_close(any_model.hf(ids).logits, expected, rtol=0, atol=0)


def test_compatibility_mode_leaves_a_live_adapter_out_and_so_is_refused(llama, tmp_path):
    tuned = finetune(llama, TALKS, LoraSettings(steps=4, batch=2, learning_rate=0.05), tmp_path / "a")
    with pytest.raises(pp.PersonaProbeError, match=r"live adapter.*merge=True"):
        tuned.bridge.enable_compatibility_mode()
    merged = pp.load(llama.spec.source, adapter=tmp_path / "a", merge=True)
    ids = probe_ids(tuned)
    merged.bridge.enable_compatibility_mode()
    expected = torch.log_softmax(tuned.hf(ids).logits, dim=-1)
    torch.testing.assert_close(torch.log_softmax(merged.bridge(ids), dim=-1), expected, rtol=1e-3, atol=1e-3)
