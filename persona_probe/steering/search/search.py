"""Trying interventions on development questions, and reporting the best on other questions, with a null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from persona_probe.behaviour.em_rates import check_definition, coherent_rate, em_rate, rate_change
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import NothingMeasuredError, PersonaProbeError
from persona_probe.statistics.estimate import Estimate
from persona_probe.steering.asking import check_questions, coherent_enough, pooled
from persona_probe.steering.interventions.directed import Directed
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.random_directions import random_nulls
from persona_probe.steering.search.candidates import Candidate
from persona_probe.steering.search.grid import Goal
from persona_probe.steering.search.search_result import SteeringSearch

Trial = tuple[str, Sequence[Dialogue], Intervention | None]
"""A name, the questions that are asked, and the intervention (None: unsteered)."""


class Asker(Protocol):
    """Anything that samples and judges answers."""

    def run(self, trials: Sequence[Trial], label: str) -> list[pd.DataFrame]:
        """The judged table of each trial, with a ``question`` in every row."""
        ...


def search_steering(
    asker: Asker,
    grid: Sequence[Candidate],
    development: Sequence[Dialogue],
    questions: Sequence[Dialogue],
    *,
    goal: Goal,
    min_coherence: float = 0.9,
    n_random: int = 20,
    answers_per_random: int | None = None,
    null_of: str | None = None,
    definition: str = "betley",
    seed: int = 0,
    source: Mapping[str, Any] | None = None,
) -> SteeringSearch:
    """The best setting of each kind on ``development``, with its results on ``questions`` and the null.

    Best is the setting with the lowest (to induce: highest) EM rate among those whose share of coherent answers is at
    least ``min_coherence`` times the unsteered one; if there is none, the most coherent one. The null makes the same
    displacement at every token (for additions: adds a vector of the same length) along random directions.

    Args:
        asker: samples and judges the answers.
        grid: the settings that are tried.
        development: questions that settings are chosen on.
        questions: other questions, which results are reported on.
        goal: ``suppress`` or ``induce``.
        min_coherence: smallest share of coherent answers, as a ratio to the unsteered one.
        n_random: number of random directions.
        answers_per_random: number of questions that each of them is asked, in turn; default all.
        null_of: the kind whose chosen setting the null is made from; default the best kind.
        definition: definition of the EM rate.
        seed: seed of the random directions.
        source: further entries for the ``source`` of the result.

    Raises:
        PersonaProbeError: if there is nothing to try, a question is in both sets, or no candidate is of the kind
            ``null_of``.
        NothingMeasuredError: if no candidate could be measured.
    """
    if not grid:
        raise PersonaProbeError("a search needs at least one candidate")
    check_search(development, questions, min_coherence=min_coherence, n_random=n_random, definition=definition)
    kinds = list(dict.fromkeys(candidate.intervention.kind for candidate in grid))
    if null_of is not None and null_of not in kinds:
        raise PersonaProbeError(f"null_of is {null_of!r}, but no candidate is of that kind; given: {', '.join(kinds)}")
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
    if not any(np.isfinite(row["value"]) for _, row in measured):
        raise NothingMeasuredError(
            f"no setting could be measured: of {len(development)} development questions, no answer under any of "
            f"{len(grid)} settings was judged coherent ({int(plain['failed'].sum())} unsteered answers could not be "
            "judged at all)"
        )
    coherent = rows[0]["coherent"]
    chosen = {
        kind: best_of([pair for pair in measured if pair[0].intervention.kind == kind], goal, min_coherence, coherent)
        for kind in kinds
    }
    for candidate, row in measured:
        row["chosen"] = any(candidate is taken for taken, _ in chosen.values())
    best = best_of(list(chosen.values()), goal, min_coherence, coherent)[0].intervention.kind
    settled = {kind: candidate for kind, (candidate, _) in chosen.items()}
    null = settled[null_of or best]
    nulls = _nulls(null, questions, goal, n_random, answers_per_random, seed)
    unsteered, *finals = asker.run(
        [
            (f"{goal} reported", questions, None),
            *((f"{goal} report {kind}", questions, candidate.intervention) for kind, candidate in settled.items()),
        ],
        f"chosen {goal}",
    )
    # In a separate call, so that their number does not change the other answers.
    draws = asker.run(nulls, f"random {goal}") if nulls else []
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
        chosen={kind: candidate.stored() for kind, candidate in settled.items()},
        best=best,
        change={kind: rate_change(unsteered, table, definition) for kind, table in zip(settled, finals, strict=True)},
        null_change=rate_change(unsteered, pooled(draws), definition) if draws else Estimate.missing("no draws"),
        answers=pd.concat(
            [table.assign(purpose=label) for label, table in zip(labels, answers, strict=True)], ignore_index=True
        ),
        source={
            "goal": goal,
            "definition": definition,
            "min_coherence": min_coherence,
            "n_random": n_random,
            "null_of": null_of or best,
            "seed": seed,
            "coherent_enough": {
                kind: coherent_enough(row["coherent"], coherent, min_coherence) for kind, (_, row) in chosen.items()
            },
            "interventions": {kind: candidate.intervention.describe() for kind, candidate in settled.items()},
            **(source or {}),
        },
    )


def check_search(
    development: Sequence[Dialogue],
    questions: Sequence[Dialogue],
    *,
    min_coherence: float,
    n_random: int,
    definition: str,
) -> None:
    """Raise for mistakes that would only be noticed after hours of sampling.

    Raises:
        PersonaProbeError: for a ``min_coherence`` outside 0 to 1, a number below 0, an unknown definition, or shared
            questions.
    """
    if not 0 <= min_coherence <= 1:
        raise PersonaProbeError(
            f"min_coherence is {min_coherence}; it is a ratio to the unsteered coherence, from 0 to 1"
        )
    if n_random < 0:
        raise PersonaProbeError(f"n_random is {n_random}; give 0 or more random directions")
    check_definition(definition)
    check_questions(questions, development)


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


def best_of(
    measured: Sequence[tuple[Candidate, dict[str, Any]]], goal: Goal, min_coherence: float, unsteered: float
) -> tuple[Candidate, dict[str, Any]]:
    """The setting with the best EM rate among those coherent enough; else the most coherent one.

    Args:
        measured: settings, each with its EM rate (``value``) and its share of coherent answers (``coherent``).
        goal: ``suppress`` or ``induce``.
        min_coherence: ratio to the unsteered share that is enough.
        unsteered: the share of coherent answers without steering.
    """
    enough = [
        pair
        for pair in measured
        if coherent_enough(pair[1]["coherent"], unsteered, min_coherence) and np.isfinite(pair[1]["value"])
    ]
    if not enough:
        return max(measured, key=lambda pair: float(np.nan_to_num(pair[1]["coherent"])))
    sign = 1 if goal == "induce" else -1
    return max(enough, key=lambda pair: (sign * pair[1]["value"], pair[1]["coherent"]))


def _nulls(
    candidate: Candidate, questions: Sequence[Dialogue], goal: str, n: int, answers: int | None, seed: int
) -> list[Trial]:
    """Trials of the same displacement along random directions; each is asked some of the questions, in turn."""
    intervention = candidate.intervention
    if n < 1 or not isinstance(intervention, Directed):
        return []
    layers = intervention.direction.layers if isinstance(intervention.layers, str) else intervention.layers
    each = min(answers or len(questions), len(questions))
    return [
        (f"{goal} random {draw}", [questions[(draw * each + i) % len(questions)] for i in range(each)], null)
        for draw, null in enumerate(random_nulls(intervention, layers, intervention.direction.d_model, n, seed))
    ]
