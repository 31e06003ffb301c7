"""Whether a direction steers at all: its best layer, compared with each random direction's best layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from persona_probe.steering.random_directions import random_nulls
from persona_probe.steering.search.candidates import Candidate
from persona_probe.steering.search.grid import DOSED
from persona_probe.steering.search.ladder import Ladder, Rung
from persona_probe.steering.search.reading import Reader, gains
from persona_probe.steering.search.screen_result import SteeringScreen


def screen_ladder(
    reader: Reader, ladder: Ladder, *, goal: str, n_random: int, seed: int, kinds: Sequence[str] = DOSED
) -> SteeringScreen:
    """Compare the largest doses that do not break the model with the same displacement along random directions.

    The statistic is the largest mean gain over layers, for the real direction and for every random one, so that having
    many layers to choose from helps both equally. If the real direction is one like the random ones, each is equally
    likely to have the largest statistic: p is the rank of the real one (Phipson and Smyth 2010, "Permutation P-values
    should never be zero").

    Args:
        reader: measures behaviour by forward passes.
        ladder: the settings of the real direction.
        goal: ``suppress`` or ``induce``.
        n_random: number of random directions, at least 1; 19 or more for a test at 5 %.
        seed: seed of the random directions.
        kinds: the kinds with doses; the first of them in the ladder is screened.
    """
    tops = _tops(ladder, kinds)
    rows = [_row(rung.candidate, None, rung.gain, rung.wanted, rung.kl) for rung in tops]
    source = {
        "goal": goal,
        "behaviour": reader.name,
        "budget": ladder.broken_at,
        "n_random": n_random,
        "seed": seed,
    }
    if not tops:
        return SteeringScreen(pd.DataFrame(columns=["draw", "layers", "setting", "gain", "wanted", "kl"]), 1.0, source)
    statistics = []
    nulls = [
        random_nulls(
            rung.candidate.intervention,
            [layer for layer in rung.candidate.intervention.layers if isinstance(layer, int)],
            rung.candidate.intervention.direction.d_model,
            n_random,
            seed + number,
        )
        for number, rung in enumerate(tops)
    ]
    # All at once, since every call reads the unsteered model too.
    reading = reader.read([each[draw] for draw in range(n_random) for each in nulls])
    for draw in range(n_random):
        own = slice(draw * len(tops), (draw + 1) * len(tops))
        moved = [gains(each, ladder.sign) for each in reading.moved[own]]
        # At a layer at which the stream overflows nothing was moved towards the goal.
        statistics.append(max((gain for gain, _ in moved if np.isfinite(gain)), default=-np.inf))
        rows += [
            _row(rung.candidate, draw, *each, float(kl))
            for rung, each, kl in zip(tops, moved, reading.kl[own], strict=True)
        ]
    real = max(rung.gain for rung in tops)
    p_value = (1 + int(np.sum(np.array(statistics) >= real))) / (1 + n_random)
    return SteeringScreen(pd.DataFrame(rows).astype({"draw": "Int64"}), p_value, source)


def _tops(ladder: Ladder, kinds: Sequence[str]) -> list[Rung]:
    """At each layer the largest dose of the ladder's first dosed kind that does not break the model."""
    kind = next((kind for kind in ladder.kinds if kind in kinds), None)
    best: dict[str, Rung] = {}
    for rung in ladder.rungs:
        single = len(rung.candidate.intervention.layers) == 1
        if rung.kind != kind or not single or not rung.within(ladder.broken_at):
            continue
        old = best.get(rung.candidate.layers)
        if old is None or float(rung.candidate.setting or 0) > float(old.candidate.setting or 0):
            best[rung.candidate.layers] = rung
    return list(best.values())


def _row(candidate: Candidate, draw: int | None, gain: float, wanted: float, kl: float) -> dict[str, object]:
    return {
        "draw": draw,
        "intervention": candidate.intervention.kind,
        "layers": candidate.layers,
        "setting": candidate.setting,
        "gain": gain,
        "wanted": wanted,
        "kl": kl,
    }
