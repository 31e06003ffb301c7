"""Try interventions on development questions, choose, and report on other questions beside random directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from persona_probe.behaviour.em_rate import coherent_rate, em_rate
from persona_probe.behaviour.rate_change import rate_change
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.nulls import isotropic_directions
from persona_probe.steering.asking import check_questions, pooled
from persona_probe.steering.interventions.directed import Directed
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.search.candidates import Candidate, Goal
from persona_probe.steering.search.result import SteeringSearch

Trial = tuple[str, Sequence[Dialogue], Intervention | None]
"""What it is called, what is asked, and under which intervention (None: unsteered)."""


class Asker(Protocol):
    """Whoever samples and judges answers."""

    def run(self, trials: Sequence[Trial], label: str) -> list[pd.DataFrame]:
        """A judged table for each trial, with a ``question`` in every row."""
        ...


def search_steering(
    asker: Asker,
    grid: Sequence[Candidate],
    development: Sequence[Dialogue],
    questions: Sequence[Dialogue],
    *,
    goal: Goal,
    coherence_floor: float = 0.9,
    n_random: int = 20,
    answers_per_random: int | None = None,
    null_of: str | None = None,
    definition: str = "betley",
    seed: int = 0,
    source: Mapping[str, Any] | None = None,
) -> SteeringSearch:
    """Choose the best setting of each kind on ``development``; report all of them, and the null, on ``questions``.

    Best is the setting with the lowest (to induce: highest) EM rate among those whose share of coherent answers is at
    least ``coherence_floor`` times the unsteered one; where none is, the most coherent one. The null makes the same
    displacement at every token (of additions: adds a vector of the same length) along random directions.

    Args:
        asker: who samples and judges.
        grid: what is tried.
        development: questions that settings are chosen on.
        questions: others, that results are reported on.
        goal: ``suppress`` or ``induce``.
        coherence_floor: share of the unsteered model's coherence that must be kept.
        n_random: random directions.
        answers_per_random: how many questions each of them is asked, taking turns; default all.
        null_of: the kind whose chosen setting the null is of; default the best one.
        definition: of the EM rate.
        seed: of the random directions.
        source: what else the result should say of where it comes from.

    Raises:
        PersonaProbeError: if there is nothing to try, a question is in both sets, or no candidate could be measured.
    """
    if not grid:
        raise PersonaProbeError("a search needs at least one candidate")
    check_questions(questions, development)
    plain, *tried = asker.run(
        [
            (f"{goal} development", development, None),
            *((f"{goal} {candidate}", development, candidate.intervention) for candidate in grid),
        ],
        f"settings to {goal}",
    )
    rows = [_row(plain, definition, stage="choice")]
    rows += [
        _row(table, definition, stage="choice", candidate=candidate)
        for candidate, table in zip(grid, tried, strict=True)
    ]
    measured = list(zip(grid, rows[1:], strict=True))
    floor = coherence_floor * rows[0]["coherent"]
    chosen = {
        kind: _best([pair for pair in measured if pair[0].intervention.kind == kind], goal, floor)
        for kind in dict.fromkeys(candidate.intervention.kind for candidate in grid)
    }
    for candidate, row in measured:
        row["chosen"] = any(candidate is taken for taken, _ in chosen.values())
    best = _best(list(chosen.values()), goal, floor)[0].intervention.kind
    settled = {kind: candidate for kind, (candidate, _) in chosen.items()}
    null = settled[null_of or best]
    nulls = _nulls(null, questions, goal, n_random, answers_per_random, seed)
    unsteered, *reported = asker.run(
        [
            (f"{goal} reported", questions, None),
            *((f"{goal} report {kind}", questions, candidate.intervention) for kind, candidate in settled.items()),
            *nulls,
        ],
        f"chosen and random {goal}",
    )
    finals, draws = reported[: len(settled)], reported[len(settled) :]
    rows.append(_row(unsteered, definition, stage="reported"))
    for candidate, table in zip(settled.values(), finals, strict=True):
        rows.append({**_row(table, definition, stage="reported", candidate=candidate), "chosen": True})
    rows += [
        {**_row(table, definition, stage="reported", candidate=null, random=True), "draw": draw}
        for draw, table in enumerate(draws)
    ]
    names = [name for name, _, _ in nulls]
    labels = [f"{goal} development", *(f"{goal} {candidate}" for candidate in grid), f"{goal} reported"]
    labels += [*(f"{goal} report {kind}" for kind in settled), *names]
    answers = [plain, *tried, unsteered, *finals, *draws]
    return SteeringSearch(
        table=pd.DataFrame(rows).assign(goal=goal),
        chosen=settled,
        best=best,
        change={kind: rate_change(unsteered, table, definition) for kind, table in zip(settled, finals, strict=True)},
        null_change=rate_change(unsteered, pooled(draws), definition) if draws else Estimate.missing("no draws"),
        answers=pd.concat(
            [table.assign(purpose=label) for label, table in zip(labels, answers, strict=True)], ignore_index=True
        ),
        source={
            "goal": goal,
            "definition": definition,
            "coherence_floor": coherence_floor,
            "n_random": n_random,
            "null_of": null_of or best,
            "seed": seed,
            "interventions": {kind: candidate.intervention.describe() for kind, candidate in settled.items()},
            **(source or {}),
        },
    )


def _row(
    table: pd.DataFrame,
    definition: str,
    *,
    stage: str,
    candidate: Candidate | None = None,
    random: bool = False,
) -> dict[str, Any]:
    rate, coherent = em_rate(table, definition), coherent_rate(table)
    kind = "none" if candidate is None else candidate.intervention.kind
    return {
        "stage": stage,
        "intervention": f"random {kind}" if random else kind,
        "layers": None if candidate is None else candidate.layers,
        "setting": None if candidate is None else candidate.setting,
        "value": rate.value,
        "low": rate.low,
        "high": rate.high,
        "n": rate.n,
        "coherent": coherent.value,
        "chosen": False,
        "draw": None,
    }


def _best(
    measured: Sequence[tuple[Candidate, dict[str, Any]]], goal: Goal, floor: float
) -> tuple[Candidate, dict[str, Any]]:
    """The setting with the best EM rate among those coherent enough; else the most coherent one."""
    enough = [pair for pair in measured if pair[1]["coherent"] >= floor - 1e-9 and np.isfinite(pair[1]["value"])]
    if not enough:
        return max(measured, key=lambda pair: float(np.nan_to_num(pair[1]["coherent"])))
    sign = 1 if goal == "induce" else -1
    return max(enough, key=lambda pair: (sign * pair[1]["value"], pair[1]["coherent"]))


def _nulls(
    candidate: Candidate, questions: Sequence[Dialogue], goal: str, n: int, answers: int | None, seed: int
) -> list[Trial]:
    """The same displacement along random directions; each draw asks some of the questions, taking turns."""
    intervention = candidate.intervention
    if n < 1 or not isinstance(intervention, Directed):
        return []
    layers = tuple(intervention.layers) if not isinstance(intervention.layers, str) else intervention.direction.layers
    each = min(answers or len(questions), len(questions))
    trials: list[Trial] = []
    for draw, unit in enumerate(isotropic_directions(n, _width(intervention), seed)):
        null = Direction(np.tile(unit.astype(np.float32), (len(layers), 1)), layers, {"name": f"random {draw}"})
        asked = [questions[(draw * each + i) % len(questions)] for i in range(each)]
        trials.append((f"{goal} random {draw}", asked, intervention.along(null)))
    return trials


def _width(intervention: Directed) -> int:
    direction = intervention.direction
    return direction.d_model if isinstance(direction, Direction) else int(direction.bases.shape[2])
