"""The one call behind which every finder stands."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from persona_probe.activations.activations import Activations
from persona_probe.directions.direction import Direction
from persona_probe.directions.mean_difference import mean_difference
from persona_probe.errors import PersonaProbeError

Finder = Callable[[Activations, Activations], Float[np.ndarray, "layer d_model"]]
FINDERS: dict[str, Finder] = {"mean-difference": mean_difference}


def find_direction(positive: Activations, negative: Activations, method: str = "mean-difference") -> Direction:
    """Find the direction from ``negative`` to ``positive``.

    Args:
        positive: activations of the trait (villain context, misaligned answers, the model after).
        negative: activations without it.
        method: name of the finder (`FINDERS`).

    Returns:
        A direction with vectors ``(layer, d_model)`` and its card.

    Raises:
        PersonaProbeError: for an unknown finder, poles of different layers, width or span, an empty pole, or
            identical poles.
    """
    if method not in FINDERS:
        raise PersonaProbeError(f"unknown finder {method!r}: choose one of {', '.join(FINDERS)}")
    for name, pole in (("positive", positive), ("negative", negative)):
        if len(pole) == 0:
            raise PersonaProbeError(f"the {name} pole holds no dialogue: there is nothing to contrast")
    if positive.layers != negative.layers or positive.values.shape[2] != negative.values.shape[2]:
        raise PersonaProbeError(
            f"the poles differ in shape: positive has layers {positive.layers} of width {positive.values.shape[2]}, "
            f"negative {negative.layers} of width {negative.values.shape[2]}"
        )
    for key in ("span", "reduce"):
        if positive.source.get(key) != negative.source.get(key):
            raise PersonaProbeError(
                f"the poles were captured with different {key}: {positive.source.get(key)!r} and "
                f"{negative.source.get(key)!r}; their difference would measure that"
            )
    if positive.values.shape == negative.values.shape and np.array_equal(positive.values, negative.values):
        raise PersonaProbeError("the two poles are identical: the direction between them is zero")
    card = {
        "finder": method,
        "positive": dict(positive.source),
        "negative": dict(negative.source),
        "n_positive": len(positive),
        "n_negative": len(negative),
        "layer_convention": positive.source.get("layer_convention"),
    }
    return Direction(FINDERS[method](positive, negative).astype(np.float32), positive.layers, card)
