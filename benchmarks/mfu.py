"""The floating-point operations of a backbone's forward pass over dialogues."""

from __future__ import annotations

from collections.abc import Sequence

import persona_probe as pp

PEAK_FLOPS = 989e12  # H100 and H200, bfloat16, dense


def flops(model: pp.Model, lengths: Sequence[int]) -> float:
    """2 x parameters (without embeddings) x tokens, and causal attention's two products; padding does not count."""
    config = model.hf.config
    embedding = model.hf.get_input_embeddings().weight.numel()
    parameters = sum(parameter.numel() for parameter in model.stream.backbone.parameters()) - embedding
    width = config.hidden_size  # heads x head size
    attention = config.num_hidden_layers * sum(2 * width * length * (length + 1) for length in lengths)
    return 2.0 * parameters * sum(lengths) + attention
