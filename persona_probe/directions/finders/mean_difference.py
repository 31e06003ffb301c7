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
    if _known(weight) == "dialogue":
        return poles.difference()
    of_positive, of_negative = mean_difference_weights(poles, weight=weight)
    return np.asarray(
        np.tensordot(of_positive, poles.positive.values, axes=1)
        - np.tensordot(of_negative, poles.negative.values, axes=1)
    )


def mean_difference_weights(
    poles: Poles, *, weight: Weight = "dialogue"
) -> tuple[Float[np.ndarray, "... dialogue"], Float[np.ndarray, "... other"]]:
    """What each positive and each negative dialogue counts in `mean_difference`; both add up to 1."""
    sides = (poles.positive, poles.negative)
    counts = [np.ones(len(side)) if _known(weight) == "dialogue" else _lengths(side) for side in sides]
    return counts[0] / counts[0].sum(), counts[1] / counts[1].sum()


def _known(weight: str) -> str:
    if weight not in get_args(Weight):
        raise PersonaProbeError(f"weight is {weight!r}; choose one of {', '.join(get_args(Weight))}")
    return weight


def _lengths(side: Activations) -> Float[np.ndarray, "... dialogue"]:
    if "n_tokens" not in side.table or side.source.get("reduce") not in (None, "mean"):
        raise PersonaProbeError(
            "weight='token' needs means over tokens and the numbers of tokens (captured with reduce='mean', with the "
            f"column n_tokens); these were captured with reduce={side.source.get('reduce')!r}"
        )
    lengths = np.asarray(side.table["n_tokens"].to_numpy(dtype=np.float64))
    if not (lengths > 0).all():
        raise PersonaProbeError("weight='token' needs at least one token in every row; n_tokens holds 0 or no number")
    return lengths
