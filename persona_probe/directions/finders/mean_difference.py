"""The finder ``mean-difference``."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from persona_probe.activations.activations import Activations
from persona_probe.directions.finders.poles import Poles
from persona_probe.errors import PersonaProbeError

Weight = Literal["dialogue", "token"]


def mean_difference(poles: Poles, *, weight: Weight = "dialogue") -> Float[np.ndarray, "layer d_model"]:
    """The mean over positive dialogues minus the mean over negative ones, at every layer.

    Args:
        poles: activations with and without the trait.
        weight: ``dialogue``: each counts once, however long (Chen et al. 2025, "Persona vectors", section 2.2);
            ``token``: each counts by its tokens in the span, the mean over all tokens (Soligo et al. 2025, "Convergent
            linear representations of emergent misalignment").

    Raises:
        PersonaProbeError: for an unknown weight, or ``token`` without the captured lengths (``n_tokens``).
    """
    if weight not in get_args(Weight):
        raise PersonaProbeError(f"weight is {weight!r}; choose one of {', '.join(get_args(Weight))}")
    if weight == "dialogue":
        return poles.difference()
    return _token_mean(poles.positive) - _token_mean(poles.negative)


def _token_mean(side: Activations) -> Float[np.ndarray, "layer d_model"]:
    if "n_tokens" not in side.table or side.source.get("reduce") not in (None, "mean"):
        raise PersonaProbeError(
            "weight='token' needs means over tokens and the numbers of tokens (captured with reduce='mean', with the "
            f"column n_tokens); these were captured with reduce={side.source.get('reduce')!r}"
        )
    lengths = side.table["n_tokens"].to_numpy(dtype=np.float64)
    return np.asarray(np.tensordot(lengths, side.values, axes=1) / lengths.sum())
