"""The grid of interventions that a search tries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

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
from persona_probe.steering.search.search_result import StoredCandidate

Goal = Literal["suppress", "induce"]
GOALS: tuple[str, ...] = get_args(Goal)


@dataclass(frozen=True)
class Grid:
    """What is tried for each goal.

    Attributes:
        kinds: ``clamp``, ``add``, ``ablate``, ``cap``.
        suppress_fractions: ``clamp``: how much of the way from the base's mean projection to the trait's the target
            lies; 0 is the base's mean, below 0 beyond it.
        induce_fractions: the same, to induce.
        suppress_strengths: ``add``: times the raw vector.
        induce_strengths: the same, to induce.
        percentiles: ``cap``: of the base's projections, on the side of the trait (to induce: of the trait's).
    """

    kinds: tuple[str, ...] = ("clamp", "add", "ablate", "cap")
    suppress_fractions: tuple[float, ...] = (0.25, 0.0, -0.25, -0.5)
    induce_fractions: tuple[float, ...] = (1.0, 1.5, 2.0, 2.5)
    suppress_strengths: tuple[float, ...] = (-0.5, -0.75, -1.0)
    induce_strengths: tuple[float, ...] = (0.5, 0.75, 1.0)
    percentiles: tuple[float, ...] = (25.0, 50.0, 75.0)

    def __post_init__(self) -> None:
        """Take single numbers for several, and refuse kinds that are not searched over."""
        for name in fields(self):
            given = getattr(self, name.name)
            if isinstance(given, str | int | float | np.number):
                object.__setattr__(self, name.name, (given,))
        for kind in self.kinds:
            if kind not in _MAKERS:
                raise PersonaProbeError(f"a search cannot try kind={kind!r}: choose among {', '.join(_MAKERS)}")
        if not self.kinds:
            raise PersonaProbeError("a search needs at least one kind")

    def count(self, n_layers: int, goal: Goal) -> int:
        """How many interventions `candidates` makes for so many layers."""
        suppress = goal == "suppress"
        each = {
            "clamp": n_layers * len(self.suppress_fractions if suppress else self.induce_fractions),
            "add": (n_layers + (n_layers > 2)) * len(self.suppress_strengths if suppress else self.induce_strengths),
            "ablate": n_layers,
            "cap": n_layers * len(self.percentiles),
        }
        return sum(each[kind] for kind in self.kinds)


@dataclass(frozen=True)
class Candidate:
    """An intervention, and the number that it was made of (a fraction, a strength, a percentile; None: there is none).

    The number is that of `Grid`: a clamp's strength is always 1, and its target is what is searched over.
    """

    intervention: Directed
    setting: float | None

    @property
    def layers(self) -> str:
        """The layers in words: ``3``, or ``1, 2``."""
        return self.stored().layers

    def stored(self) -> StoredCandidate:
        """What a run keeps of it."""
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
    """Every layer by itself with every kind, and additions at all layers but the first together.

    Clamps, caps and ablations stay on one layer: there the same displacement along a random direction is well defined.

    Args:
        direction: along which.
        layers: which ones are tried.
        goal: ``suppress`` or ``induce``.
        base: activations without the trait, read over the span that ``scope`` steers.
        trait: with it.
        grid: what is tried; default `Grid`'s own.
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
    """Not further towards the trait than the base's percentile; to induce, not further from it than the trait's."""
    made = []
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
            made.append(Candidate(cap, percentile))
    return made


_MAKERS = {"clamp": _clamps, "add": _additions, "ablate": _ablations, "cap": _caps}
