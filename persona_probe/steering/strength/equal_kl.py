"""The nulls of a dose-response at equal KL: each random direction as strong as disturbs the model as much."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.strength.divergence import Divergence
from persona_probe.steering.strength.dose_response_result import DIRECTION, EQUAL_KL, EQUAL_NORM
from persona_probe.steering.strength.search import Search, search_all

_TOLERANCE = 0.05
"""How far a null's KL may be above the direction's, as a share."""


@dataclass(frozen=True)
class Dose:
    """One intervention that is asked: of which condition, beside which strength of the direction, and which draw."""

    condition: str
    strength: float
    draw: int | None
    own_strength: float
    intervention: Intervention


def at_equal_kl(
    nulls: Sequence[Intervention],
    strengths: Sequence[float],
    known: Mapping[tuple[str, int | None, float], float],
    read: Callable[[Sequence[Intervention]], Divergence],
) -> list[Dose]:
    """Each null at the strengths at which its KL is the direction's; left out where it never gets there.

    Args:
        nulls: interventions along random directions.
        strengths: of the direction.
        known: mean KL by condition, draw (None: the direction) and strength, of the direction and at equal norm.
        read: measures the KL of some interventions.
    """
    curves: dict[tuple[int, int], dict[float, float]] = {}
    searches, places = [], []
    for draw in range(len(nulls)):
        for at in strengths:
            target, sign = known[DIRECTION, None, at], 1 if at > 0 else -1
            if not 0 < target < math.inf:
                continue
            # What was measured at equal norm is a start.
            start = {abs(s): known[EQUAL_NORM, draw, s] for s in strengths if s * sign > 0}
            points = curves.setdefault((draw, sign), start)
            searches.append(Search(target, _TOLERANCE, points))
            places.append((draw, at, sign))

    def measure(asked: list[tuple[int, float]]) -> list[float]:
        steered = [nulls[places[number][0]].with_strength(places[number][2] * place) for number, place in asked]
        found = read(steered)
        return [found.estimate(number).value for number in range(len(steered))]

    search_all(searches, measure)
    return [
        Dose(EQUAL_KL, at, draw, sign * one.found, nulls[draw].with_strength(sign * one.found))
        for (draw, at, sign), one in zip(places, searches, strict=True)
        if one.found is not None
    ]
