"""Checks made when a model is loaded: are our hooks reading the residual stream that Hugging Face reports?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.models.layer_convention import LAYER_CONVENTION

if TYPE_CHECKING:
    from persona_probe.models.model import Model

_PROBE_LENGTH = 12
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
_LOW_PRECISION_TOLERANCE = 3e-2


def probe_ids(model: Model) -> Tensor:
    """A fixed batch of ordinary token ids, ``(2, 12)``: pseudo-random, special tokens avoided."""
    special = set(model.tokenizer.all_special_ids)
    size = min(len(model.tokenizer), int(model.plain.config.get_text_config().vocab_size))
    ordinary = [token for token in range(size) if token not in special]
    picks = torch.randint(len(ordinary), (2, _PROBE_LENGTH), generator=torch.Generator().manual_seed(0))
    return torch.tensor(ordinary)[picks].to(model.device)


def _read(model: Model, ids: Tensor, mask: Tensor) -> tuple[dict[int, Tensor], tuple[Tensor, ...]]:
    seen: dict[int, Tensor] = {}
    with (
        torch.inference_mode(),
        model.stream.reading(lambda layer, hidden: seen.update({layer: hidden}), range(model.n_layers)),
    ):
        output = model.stream.backbone(
            input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False, return_dict=True
        )
    return seen, output.hidden_states


def check_hooks(model: Model) -> None:
    """Compare our hooks with Hugging Face's ``hidden_states`` on one batch, unpadded and padded.

    The last layer is left out of the first comparison: Hugging Face returns it after the final norm.

    Raises:
        PersonaProbeError: naming the layer and the size of the difference.
    """
    tolerance = _TOLERANCE.get(model.plain.dtype, _LOW_PRECISION_TOLERANCE)
    ids = probe_ids(model)
    plain, reported = _read(model, ids, torch.ones_like(ids))
    if len(reported) != model.n_layers + 1:
        raise PersonaProbeError(
            f"{model.name}: Hugging Face reports {len(reported)} hidden states for {model.n_layers} blocks; "
            f"expected one more than blocks ({LAYER_CONVENTION})"
        )
    for layer in range(model.n_layers - 1):
        _refuse_beyond(model, layer, plain[layer], reported[layer + 1], tolerance, "Hugging Face's hidden states")
    padding = ids.new_full((ids.shape[0], 3), model.tokenizer.pad_token_id or 0)
    mask = torch.cat([torch.ones_like(ids), torch.zeros_like(padding)], dim=1)
    padded, _ = _read(model, torch.cat([ids, padding], dim=1), mask)
    for layer in range(model.n_layers):
        _refuse_beyond(
            model, layer, padded[layer][:, : ids.shape[1]], plain[layer], tolerance, "the same batch without padding"
        )


def _refuse_beyond(model: Model, layer: int, seen: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    error = float((seen - expected).norm() / expected.norm().clamp_min(1e-12))
    if not error <= tolerance:
        raise PersonaProbeError(
            f"{model.name}: the activations our hook reads at layer {layer} differ from {what} by {error:.2g} of their "
            f"norm (tolerance {tolerance:.1g}); measurements on this model would be wrong, so it is refused"
        )
