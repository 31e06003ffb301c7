"""Merging an adapter into the weights, and comparing the result with the live adapter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from persona_probe.errors import PersonaProbeError, library_message
from persona_probe.models.model import Model
from persona_probe.models.quiet import quiet_peft
from persona_probe.models.stream.blocks import plain_model
from persona_probe.models.stream.guards import probe_ids, relative_error
from persona_probe.models.twin import own_tensors, tie_as_tensors

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_LOW_PRECISION_TOLERANCE = 6e-2
"""Of logits, relative to their norm: half precision rounds the changed weights and every product after them."""


def merge_weights(carrying: Any, name: str) -> PreTrainedModel:
    """The transformers model in the ``PeftModel`` ``carrying``, with the adapter merged into its weights.

    A matrix that an adapter changes in one place only, of two that are tied, gets a tensor of its own first.

    Raises:
        PersonaProbeError: if PEFT cannot merge this kind of adapter.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    slots: dict[int, list[str]] = {}
    for slot, parameter in carrying.named_parameters(remove_duplicate=False):
        slots.setdefault(id(parameter), []).append(slot)
    adapted = [f"{place}.base_layer." for place, layer in carrying.named_modules() if isinstance(layer, BaseTunerLayer)]
    for tied in slots.values():
        if len(tied) > 1:
            for slot in tied:
                if any(slot.startswith(place) for place in adapted):
                    own_tensors(carrying, [slot], tied=False)
    try:
        with quiet_peft():
            merged = plain_model(carrying.merge_and_unload())
    except (RuntimeError, NotImplementedError, AttributeError, ValueError, TypeError) as error:
        raise PersonaProbeError(
            f"{name}: its adapter cannot be merged into the weights: {library_message(error)}"
        ) from error
    tie_as_tensors(merged)
    return merged


def merge(live: Model) -> PreTrainedModel:
    """The transformers model in ``live`` with its adapter merged, whose logits were compared with the live adapter's.

    ``live`` is used up.

    Raises:
        PersonaProbeError: if they differ, with the size of the difference.
    """
    ids = probe_ids(live)
    expected = _logits(live.hf, ids)
    merged = merge_weights(live.hf, live.name)
    tolerance = _TOLERANCE.get(merged.dtype, _LOW_PRECISION_TOLERANCE)
    error = relative_error(_logits(merged, ids), expected)
    if not error <= tolerance:
        raise PersonaProbeError(
            f"{live.name}: merged into the weights it gives other logits than as a live adapter: they differ by "
            f"{error:.2g} of their norm (tolerance {tolerance:.1g}); load it without merge=True, or in float32"
        )
    return merged


def _logits(hf: nn.Module, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = hf(input_ids=ids, use_cache=False).logits
    return logits
