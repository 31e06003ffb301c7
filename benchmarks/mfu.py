"""The floating-point operations of a backbone's forward pass over dialogues, and a card's most."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import persona_probe as pp

PEAK_FLOPS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12}
"""bfloat16, dense, per second, from NVIDIA's data sheets; the first name that the card's name contains."""


def flops(model: pp.Model, lengths: Sequence[int]) -> float:
    """2 x parameters (without embeddings) x tokens, and causal attention's two products; padding does not count."""
    config = model.hf.config
    embedding = model.hf.get_input_embeddings().weight.numel()
    parameters = sum(parameter.numel() for parameter in model.stream.backbone.parameters()) - embedding
    width = config.hidden_size  # heads x head size
    attention = config.num_hidden_layers * sum(2 * width * length * (length + 1) for length in lengths)
    return 2.0 * parameters * sum(lengths) + attention


def utilisation(model: pp.Model, lengths: Sequence[int], seconds: float) -> dict[str, float | str | None]:
    """Model-FLOPs utilisation: the operations per second, and their share of the card's most, if that is known."""
    done = flops(model, lengths)
    card = torch.cuda.get_device_name() if model.device.type == "cuda" else None
    peak = next((value for name, value in PEAK_FLOPS.items() if card is not None and name in card), None)
    return {
        "flops": done,
        "flops_per_second": done / seconds,
        "mfu": None if peak is None else done / seconds / peak,
        "peak_flops": peak,
        "card": card,
    }
