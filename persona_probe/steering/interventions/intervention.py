"""The base class of interventions, which act at some layers on the tokens of a scope."""

from __future__ import annotations

import abc
import math
import numbers
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from persona_probe.directions.direction import Direction
from persona_probe.errors import WHOLE, PersonaProbeError, check_types, what_is
from persona_probe.models.model import Model
from persona_probe.models.stream.layers import Layers, resolve_layers, several_layers
from persona_probe.models.stream.scope import Scope, parse_scope
from persona_probe.steering.interventions.change import Change

Targets = float | Mapping[int, float]


class Intervention(abc.ABC):
    """An intervention on the residual stream; immutable, picklable, and not bound to a model until it is used.

    Attributes:
        kind: its name in tables and configs.
        layers: the layers at which it acts, or ``"all"``.
        scope: which tokens (`persona_probe.models.stream.scope.Scope`).
    """

    kind: ClassVar[str]
    layers: tuple[int, ...] | str
    scope: Scope

    def __init__(self, layers: Layers, scope: str | Scope) -> None:
        self.scope = parse_scope(scope)
        # Whether a layer exists is checked when the model is known.
        self.layers = layers if isinstance(layers, str) and layers == "all" else tuple(several_layers(layers))

    def layers_in(self, model: Model) -> list[int]:
        """The layers of ``model`` that it acts at.

        Raises:
            PersonaProbeError: if one does not exist.
        """
        return resolve_layers(self.layers, model.n_layers)

    @abc.abstractmethod
    def at(self, layer: int) -> Change:
        """The change that it makes at one layer.

        Raises:
            PersonaProbeError: if something is missing for this layer, naming it.
        """

    @abc.abstractmethod
    def check(self, model: Model, *, allow_unrelated: bool = False) -> None:
        """Raise if it does not fit the model; with ``allow_unrelated``, only warn if the model is unrelated."""

    @abc.abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Its parameters as values for JSON: names and numbers, no vectors."""

    @property
    def strength(self) -> float | None:
        """Its strength, if that is one number; else None."""
        return None

    def with_strength(self, strength: float) -> Self:
        """The same intervention at another strength.

        Raises:
            PersonaProbeError: if this kind has no strength.
        """
        raise PersonaProbeError(
            f"kind={self.kind!r} takes no strength ({strength:g} was asked for): use kind='clamp', whose strength is "
            "the share of the way to the target"
        )

    def along(self, null: Direction) -> Intervention:
        """The null of this intervention: it moves every token equally far, but along ``null``.

        Raises:
            PersonaProbeError: if this kind has no null.
        """
        raise PersonaProbeError(f"kind={self.kind!r} has no null along another direction ({null.name!r} was given)")

    def describe(self) -> dict[str, Any]:
        """Kind, layers, scope and parameters, as values for JSON."""
        layers = self.layers if isinstance(self.layers, str) else list(self.layers)
        return {"kind": self.kind, "layers": layers, "scope": str(self.scope), **self.parameters()}

    def __repr__(self) -> str:
        """Kind, layers, scope and parameters."""
        inside = ", ".join(f"{name}={value!r}" for name, value in self.describe().items() if name != "kind")
        return f"{type(self).__name__}({inside})"


def check_intervention(given: object) -> None:
    """Raise if ``given`` is not an intervention.

    Raises:
        PersonaProbeError: saying how to make one.
    """
    if not isinstance(given, Intervention):
        raise PersonaProbeError(
            f"an intervention is needed, not {what_is(given)}; make one, such as pp.Add(direction, layers=12)"
        )


def by_layer(values: Targets, name: str) -> Mapping[int, float] | float:
    """``values`` as plain numbers, one for all layers or one per layer.

    Raises:
        PersonaProbeError: if one is not a finite number.
    """
    each = dict(values) if isinstance(values, Mapping) else {None: values}
    check_types(layers=([layer for layer in each if layer is not None], [WHOLE]))
    for layer, value in each.items():
        # No projection reaches infinity, so that giving it is always a mistake.
        if not is_finite(value):
            where = "" if layer is None else f" for layer {layer}"
            raise PersonaProbeError(
                f"{name} is {what_is(value)}{where}; it must be a finite number (residual-stream units), or a mapping "
                "from layers to numbers"
            )
    if isinstance(values, Mapping):
        return {int(layer): float(value) for layer, value in values.items()}
    return float(values)


def is_finite(value: Any) -> bool:
    """Whether ``value`` is a finite real number; NumPy's are, True and False are not."""
    return not isinstance(value, bool) and isinstance(value, numbers.Real) and math.isfinite(value)


def value_at(values: Mapping[int, float] | float, layer: int, name: str) -> float:
    """The value of one layer.

    Raises:
        PersonaProbeError: if there is none.
    """
    if not isinstance(values, Mapping):
        return values
    if layer not in values:
        raise PersonaProbeError(f"{name} has no value for layer {layer}; it has {', '.join(map(str, values))}")
    return values[layer]
