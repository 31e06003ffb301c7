"""The interventions that a search tries, made from relative doses and from where the projections lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """An intervention, and the number that it was made from (a relative dose, a percentile, or None).

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


class Candidates:
    """Makes the candidates of one direction and goal.

    Args:
        direction: the direction to steer along.
        goal: ``suppress`` or ``induce``.
        tokens: activations of the model that is steered at single tokens (``reduce="tokens"``) of its own answers,
            read over the span that ``scope`` steers: they say how long the stream is, and where its projections lie.
        base: activations without the trait, one row per dialogue.
        trait: activations with the trait.
        grid: the percentiles of caps.
        scope: which tokens are steered.

    Attributes:
        sign: whether the goal moves along the direction (1) or against it (-1).

    Raises:
        PersonaProbeError: for an unknown goal.
    """

    def __init__(
        self,
        direction: Direction,
        goal: Goal,
        *,
        tokens: Activations,
        base: Activations,
        trait: Activations,
        grid: Grid,
        scope: str | Scope = "generation",
    ) -> None:
        if goal not in GOALS:
            raise PersonaProbeError(f"unknown goal {goal!r}: choose one of {', '.join(GOALS)}")
        self.sign = 1 if goal == "induce" else -1
        self._direction, self._goal, self._grid, self._scope = direction, goal, grid, scope
        self._tokens, self._base, self._trait = tokens, base, trait

    def norm(self, layer: int) -> float:
        """The length of the stream at a layer: the median over tokens, which attention sinks do not move."""
        return float(np.median(np.linalg.norm(self._tokens.at(layer), axis=1)))

    def dosed(self, kind: str, layers: Sequence[int], dose: float) -> Candidate:
        """A clamp or an addition of a relative dose, towards the goal.

        A clamp's target is that far from the mean projection of the model that is steered. At several layers the dose
        of an addition is the mean over them.
        """
        if kind == "clamp":
            (layer,) = layers
            start = float(self._projections(self._tokens, layer).mean())
            return self._clamp(layer, start + self.sign * dose * self.norm(layer), dose)
        lengths = [float(np.linalg.norm(self._direction.at(layer))) / self.norm(layer) for layer in layers]
        strength = self.sign * dose / float(np.mean(lengths))
        return Candidate(Add(self._direction, tuple(layers), strength=strength, scope=self._scope), dose)

    def landmark(self, layer: int) -> Candidate | None:
        """A clamp at the mean projection of the other side; None if that is not on the way to the goal."""
        start = float(self._projections(self._tokens, layer).mean())
        other = float(self._projections(self._trait if self._goal == "induce" else self._base, layer).mean())
        dose = self.sign * (other - start) / self.norm(layer)
        return self._clamp(layer, other, dose) if dose > 0 else None

    def ablation(self, layer: int) -> Candidate:
        """An ablation."""
        return Candidate(Ablate(self._direction, layer, scope=self._scope), None)

    def caps(self, layer: int) -> list[Candidate]:
        """Caps that stop at a percentile of the base's projections; to induce, at a percentile of the trait's."""
        means = [self._projections(side, layer).mean() for side in (self._base, self._trait)]
        upwards = bool(means[1] >= means[0])
        upper = upwards == (self._goal == "suppress")
        side = self._projections(self._base if self._goal == "suppress" else self._trait, layer)
        capped = []
        for percentile in self._grid.percentiles:
            value = float(np.percentile(side, percentile if upwards else 100 - percentile))
            ends = (None, value) if upper else (value, None)
            cap = Cap(self._direction, layer, lower=ends[0], upper=ends[1], scope=self._scope)
            capped.append(Candidate(cap, percentile))
        return capped

    def undosed(self, kind: str, layer: int) -> list[Candidate]:
        """All settings of a kind that has no dose, at one layer."""
        return [self.ablation(layer)] if kind == "ablate" else self.caps(layer)

    def _clamp(self, layer: int, target: float, dose: float) -> Candidate:
        return Candidate(Clamp(self._direction, layer, target=target, scope=self._scope), dose)

    def _projections(self, activations: Activations, layer: int) -> np.ndarray:
        vector = self._direction.at(layer)
        projected: np.ndarray = activations.at(layer) @ (vector / np.linalg.norm(vector))
        return projected
