"""The interventions that a search tries: those of a grid at every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from persona_probe.activations.activations import Activations
from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError
from persona_probe.models.stream.scope import Scope
from persona_probe.steering.interventions.ablate import Ablate
from persona_probe.steering.interventions.add import Add
from persona_probe.steering.interventions.cap import Cap
from persona_probe.steering.interventions.clamp import Clamp
from persona_probe.steering.interventions.directed import Directed
from persona_probe.steering.search.grid import GOALS, Goal, Grid
from persona_probe.steering.search.search_result import StoredCandidate


@dataclass(frozen=True)
class Candidate:
    """An intervention, and the number that it was made from (a fraction, a strength, a percentile, or None).

    The number is the one in `Grid`: the strength of a clamp is always 1, and its target is searched over.
    """

    intervention: Directed
    setting: float | None

    @property
    def layers(self) -> str:
        """The layers as text: ``3``, or ``1, 2``."""
        return self.stored().layers

    def stored(self) -> StoredCandidate:
        """The candidate in the form in which a run stores it."""
        return StoredCandidate(self.intervention.describe(), self.intervention.direction, self.setting)

    def __str__(self) -> str:
        """Kind, layers and number."""
        return str(self.stored())


@dataclass(frozen=True)
class _Ends:
    """Projections without the trait and with it, by layer."""

    direction: Direction
    base: Activations
    trait: Activations
    scope: str | Scope
    grid: Grid
    goal: Goal
    _means: dict[int, tuple[float, float]] = field(default_factory=dict)

    def projections(self, activations: Activations, layer: int) -> np.ndarray:
        vector = self.direction.at(layer)
        projected: np.ndarray = activations.at(layer) @ (vector / np.linalg.norm(vector))
        return projected

    def between(self, layer: int, fraction: float) -> float:
        if layer not in self._means:
            base, trait = (float(self.projections(side, layer).mean()) for side in (self.base, self.trait))
            self._means[layer] = (base, trait)
        base, trait = self._means[layer]
        return base + fraction * (trait - base)


def candidates(
    direction: Direction,
    layers: Sequence[int],
    goal: Goal,
    *,
    base: Activations,
    trait: Activations,
    grid: Grid | None = None,
    scope: str | Scope = "generation",
) -> list[Candidate]:
    """Every kind at every single layer, and additions also at all layers except the first together.

    Clamps, caps and ablations act at one layer, where the same displacement along a random direction is well defined.

    Args:
        direction: the direction to steer along.
        layers: the layers that are tried.
        goal: ``suppress`` or ``induce``.
        base: activations without the trait, read over the span that ``scope`` steers.
        trait: activations with the trait.
        grid: what is tried; default ``Grid()``.
        scope: which tokens.

    Raises:
        PersonaProbeError: for an unknown goal, no layers, or a layer that the direction or the activations lack.
    """
    if goal not in GOALS:
        raise PersonaProbeError(f"unknown goal {goal!r}: choose one of {', '.join(GOALS)}")
    if not layers:
        raise PersonaProbeError("there are no layers to try")
    ends = _Ends(direction, base, trait, scope, grid or Grid(), goal)
    return [candidate for kind in ends.grid.kinds for candidate in _MAKERS[kind](ends, layers)]


def _clamps(ends: _Ends, layers: Sequence[int]) -> list[Candidate]:
    fractions = ends.grid.suppress_fractions if ends.goal == "suppress" else ends.grid.induce_fractions
    return [
        Candidate(Clamp(ends.direction, layer, target=ends.between(layer, fraction), scope=ends.scope), fraction)
        for layer in layers
        for fraction in fractions
    ]


def _additions(ends: _Ends, layers: Sequence[int]) -> list[Candidate]:
    strengths = ends.grid.suppress_strengths if ends.goal == "suppress" else ends.grid.induce_strengths
    places = [(layer,) for layer in layers] + ([tuple(layers[1:])] if len(layers) > 2 else [])
    return [
        Candidate(Add(ends.direction, place, strength=strength, scope=ends.scope), strength)
        for place in places
        for strength in strengths
    ]


def _ablations(ends: _Ends, layers: Sequence[int]) -> list[Candidate]:
    return [Candidate(Ablate(ends.direction, layer, scope=ends.scope), None) for layer in layers]


def _caps(ends: _Ends, layers: Sequence[int]) -> list[Candidate]:
    """Caps that stop at a percentile of the base's projections; to induce, at a percentile of the trait's."""
    capped = []
    for layer in layers:
        upwards = ends.between(layer, 1.0) >= ends.between(layer, 0.0)
        bound = "upper" if upwards == (ends.goal == "suppress") else "lower"
        side = ends.projections(ends.base if ends.goal == "suppress" else ends.trait, layer)
        for percentile in ends.grid.percentiles:
            value = float(np.percentile(side, percentile if upwards else 100 - percentile))
            cap = Cap(
                ends.direction,
                layer,
                upper=value if bound == "upper" else None,
                lower=value if bound == "lower" else None,
                scope=ends.scope,
            )
            capped.append(Candidate(cap, percentile))
    return capped


_MAKERS = {"clamp": _clamps, "add": _additions, "ablate": _ablations, "cap": _caps}
