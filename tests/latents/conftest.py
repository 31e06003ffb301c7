"""Small SAEs with random weights, of every kind that SAELens reads."""

import pytest
import torch

from persona_probe.latents.loading import quiet_sae_lens
from persona_probe.latents.sae import Sae
from tests.conftest import D_MODEL

LAYER, WIDTH = 1, 48
KINDS = {
    "standard": {},
    "gated": {},
    "jumprelu": {},
    "topk": {"k": 6},
    "topk in decoder norms": {"k": 6, "rescale_acts_by_decoder_norm": True},
    "abstopk": {"k": 6},
    "matching_pursuit": {"max_iterations": 6},
}


def make_inner(kind="standard", *, d_in=D_MODEL, width=WIDTH, hook_name=f"blocks.{LAYER}.hook_resid_post", **config):
    """An SAELens object whose weights are all random, so that each matters."""
    with quiet_sae_lens():
        import sae_lens  # noqa: F401  (fills the registry)
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

    sae_class, config_class = get_sae_class(kind.split()[0])
    metadata = SAEMetadata(hook_name=hook_name, model_name=None)
    inner = sae_class(config_class(d_in, width, metadata=metadata, **(KINDS.get(kind, {}) | config)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in inner.named_parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * (0.3 if name.startswith("W_") else 0.1))
        if kind == "jumprelu":
            inner.threshold.abs_().mul_(5)
    return inner


def make_sae(kind="standard", **config):
    return Sae(make_inner(kind, **config), LAYER, kind, {"architecture": kind.split()[0]})


@pytest.fixture
def sae():
    return make_sae()
