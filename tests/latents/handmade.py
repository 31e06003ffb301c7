"""SAEs whose every number is known."""

import contextlib
import math
import warnings

import torch

from persona_probe.latents.sae import Sae
from persona_probe.models.stream.boundary import Boundary


def sae_of(rows, layer, *, encoder=None, normalize="none", dtype="float32", **card):
    """An SAE with decoder ``rows`` (latent, d_model), no biases, and by default their transpose as encoder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SAELens' own imports
        from sae_lens import StandardSAE, StandardSAEConfig

    width, d_model = rows.shape
    inner = StandardSAE(StandardSAEConfig(d_model, width, dtype=dtype, normalize_activations=normalize))
    with torch.no_grad():
        inner.W_dec.copy_(rows)
        inner.W_enc.copy_(rows.T if encoder is None else encoder)
    return Sae(inner, layer, "handmade", card)


def perfect_sae(d_model, layer, **options):
    """Latents j and d_model + j are the positive and negative part of coordinate j: nothing is lost."""
    unit = torch.eye(d_model)
    return sae_of(torch.cat([unit, -unit]), layer, **options)


def answer_log_prob(model, dialogue):
    """The summed log-probability of the answer's tokens, by Hugging Face alone (and whatever steers it)."""
    encoded = model.template.encode(dialogue)
    ids = torch.tensor([encoded.input_ids])
    with torch.inference_mode(), model.at_boundary(Boundary.of_dialogues([encoded], [0])):
        said = model.hf(ids).logits.double().log_softmax(dim=-1)[0]
    places = range(encoded.prompt_length, encoded.response_end)
    return math.fsum(float(said[place - 1, encoded.input_ids[place]]) for place in places)


def hooks(model):
    return [
        key
        for module in model.hf.modules()
        for held in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        for key in held
    ]


@contextlib.contextmanager
def nothing_left(model):
    """Hooks, gradients and ``requires_grad`` are afterwards as they were."""
    wanted = [parameter.requires_grad for parameter in model.hf.parameters()]
    before = hooks(model)
    yield
    assert hooks(model) == before
    assert model.boundary is None
    assert [parameter.requires_grad for parameter in model.hf.parameters()] == wanted
    assert all(parameter.grad is None for parameter in model.hf.parameters())
