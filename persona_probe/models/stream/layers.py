"""What a layer number means, and which layers were asked for; without torch, so that saved results can state it."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from typing import Any

from persona_probe.errors import PersonaProbeError

LAYER_CONVENTION = (
    "layer l is the output of block l, counted from 0 (TransformerLens blocks.{l}.hook_out; Hugging Face "
    "hidden_states[l+1], except the last, which Hugging Face returns after the final norm)"
)
"""What a layer number means, stated in every saved artefact."""

Layers = int | Sequence[int] | str
"""One layer, several, or ``"all"``."""


def resolve_layers(layers: Layers, n_layers: int) -> list[int]:
    """The sorted layer numbers that ``"all"``, one layer or several stand for; NumPy's integers are accepted.

    Raises:
        PersonaProbeError: if a layer does not exist; negative numbers are refused, since papers count differently.

    >>> resolve_layers("all", 3), resolve_layers([2, 0], 3), resolve_layers(1, 3)
    ([0, 1, 2], [0, 2], [1])
    """
    if isinstance(layers, str) and layers == "all":
        return list(range(n_layers))
    wanted = several_layers(layers)
    for layer in wanted:
        if not is_whole(layer) or not 0 <= layer < n_layers:
            raise PersonaProbeError(
                f"layer {layer!r} does not exist: this model has layers 0 to {n_layers - 1} ({LAYER_CONVENTION})"
            )
    return sorted(set(wanted))


def several_layers(layers: Layers) -> list[int]:
    """One layer number or several as a list in the given order, with Python's integers in place of NumPy's.

    What is not an integer is left as it is: whether a layer exists is checked by whoever knows the model.

    Raises:
        PersonaProbeError: if the list is empty, or ``layers`` is neither a number nor a list.
    """
    if isinstance(layers, str):
        raise PersonaProbeError(f"layers is {layers!r}; give 'all', a number or a list of numbers")
    given: Any = layers
    wanted = list(given) if isinstance(given, Iterable) and getattr(given, "ndim", None) != 0 else [given]
    if not wanted:
        raise PersonaProbeError("layers is empty; give at least one layer, or 'all'")
    return [_whole(layer) for layer in wanted]


def _whole(layer: Any) -> Any:
    """A layer number as Python's integer; an argmax is an array of one number."""
    inside = layer.item() if getattr(layer, "ndim", None) == 0 else layer
    return int(inside) if is_whole(inside) else layer


def is_whole(number: object) -> bool:
    """Whether ``number`` is an integer: Python's and NumPy's are, True and False are not."""
    return isinstance(number, numbers.Integral) and not isinstance(number, bool)
