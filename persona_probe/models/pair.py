"""A model before and after fine-tuning, on one copy of the weights where that is possible."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from persona_probe.errors import PersonaProbeError
from persona_probe.models.adapters import is_adapter, put_adapter
from persona_probe.models.guards import check_hooks
from persona_probe.models.loading import load
from persona_probe.models.model import Model
from persona_probe.models.twin import structural_twin


@dataclass(frozen=True)
class ModelPair:
    """A model ``before`` and ``after`` narrow training."""

    before: Model
    after: Model


def with_adapter(model: Model, adapter: str | Path) -> Model:
    """``model`` with a LoRA adapter live on a structural twin: the weights are shared, ``model`` is unchanged."""
    tuned = Model(put_adapter(structural_twin(model.hf), adapter), model.tokenizer, str(adapter))
    check_hooks(tuned)
    return tuned


def load_pair(
    before: str | Path | Model,
    after: str | Path | Model,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
) -> ModelPair:
    """Load the models of a pair; if ``after`` is a LoRA adapter, both stand on one copy of the weights.

    Args:
        before: path, Hub id, or a loaded model.
        after: a LoRA adapter for ``before``, a full model, or a loaded model.
        device: as in `load`.
        dtype: as in `load`.

    Raises:
        PersonaProbeError: as `load`, and if the two differ in layers or width.
    """
    first = before if isinstance(before, Model) else load(before, device=device, dtype=dtype)
    if isinstance(after, Model):
        second = after
    elif is_adapter(after):
        second = with_adapter(first, after)
    else:
        second = load(after, device=device or first.device, dtype=dtype)
    if (first.n_layers, first.d_model) != (second.n_layers, second.d_model):
        raise PersonaProbeError(
            f"{first.name} has {first.n_layers} layers of width {first.d_model}, {second.name} has "
            f"{second.n_layers} of {second.d_model}: before and after must be the same architecture"
        )
    return ModelPair(first, second)
