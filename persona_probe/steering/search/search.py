"""Trying interventions on development questions, and reporting the best on other questions, with a null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import NothingMeasuredError, PersonaProbeError
from persona_probe.statistics.estimate import Estimate
from persona_probe.steering.asking import check_questions, coherent_enough, pooled
from persona_probe.steering.interventions.directed import Directed
from persona_probe.steering.random_directions import random_nulls
from persona_probe.steering.search.candidates import Candidate
from persona_probe.steering.search.grid import Goal
from persona_probe.steering.search.ladder import Ladder
from persona_probe.steering.search.measure import Measure, Trial, wrong_way
from persona_probe.steering.search.screen_result import SteeringScreen
from persona_probe.steering.search.search_result import SteeringSearch


def search_steering(
    measure: Measure,
    grid: Sequence[Candidate],
    development: Sequence[Any],
    questions: Sequence[Any],
    *,
    goal: Goal,
    ladder: Ladder | None = None,
    screen: SteeringScreen | None = None,
    min_coherence: float = 0.9,
    n_random: int = 20,
    answers_per_random: int | None = None,
    null_of: str | None = None,
    seed: int = 0,
    source: Mapping[str, Any] | None = None,
) -> SteeringSearch:
    """The best setting of each kind on ``development``, with its results on ``questions`` and the null.

    Best is the setting with the lowest (to induce: highest) behaviour among those whose share of coherent answers is at
    least ``min_coherence`` times the unsteered one; if there is none, the most coherent one. The null makes the same
    displacement at every token (for additions: adds a vector of the same length) along random directions.

    Args:
        measure: the measure of behaviour: `Judged` answers, or a preference.
        grid: the settings that are tried.
        development: questions (for a preference: pairs) that settings are chosen on.
        questions: other ones, which results are reported on.
        goal: ``suppress`` or ``induce``.
        ladder: the settings that were read in forward passes, from which those in ``grid`` were taken.
        screen: whether the trait can be steered along the direction at all.
        min_coherence: smallest share of coherent answers, as a ratio to the unsteered one.
        n_random: number of random directions.
        answers_per_random: number of questions that each of them is asked, in turn; default all.
        null_of: the kind whose chosen setting the null is made from; default the best kind.
        seed: seed of the random directions.
        source: further entries for the ``source`` of the result.

    Raises:
        PersonaProbeError: if there is nothing to try, a question is in both sets, or no candidate is of the kind
            ``null_of``.
        NothingMeasuredError: if no candidate could be measured.
    """
    if not grid:
        raise PersonaProbeError("a search needs at least one candidate")
    check_search(development, questions, min_coherence=min_coherence, n_random=n_random)
    kinds = list(dict.fromkeys(candidate.intervention.kind for candidate in grid))
    if null_of is not None and null_of not in kinds:
        raise PersonaProbeError(f"null_of is {null_of!r}, but no candidate is of that kind; given: {', '.join(kinds)}")
    plain, *tried = measure.run(
        [
            (f"{goal} development", development, None),
            *((f"{goal} {candidate}", development, candidate.intervention) for candidate in grid),
        ],
        f"settings to {goal}",
    )
    known = _Rows(measure, 1 if goal == "induce" else -1, ladder)
    rows = [known.row(plain, None, stage="choice")]
    rows += [
        known.row(table, plain, stage="choice", candidate=candidate)
        for candidate, table in zip(grid, tried, strict=True)
    ]
    measured = list(zip(grid, rows[1:], strict=True))
    if not any(np.isfinite(row["value"]) for _, row in measured):
        why = f"the {measure.name} under each of {len(grid)} settings is not a number"
        if measure.definition is not None:
            why = (
                f"no answer under any of {len(grid)} settings was judged coherent ({_failed(plain)} unsteered answers "
                "could not be judged at all)"
            )
        raise NothingMeasuredError(f"no setting could be measured: of {len(development)} development questions, {why}")
    coherent = rows[0]["coherent"]
    chosen = {
        kind: best_of([pair for pair in measured if pair[0].intervention.kind == kind], min_coherence, coherent)
        for kind in kinds
    }
    for candidate, row in measured:
        row["chosen"] = any(candidate is taken for taken, _ in chosen.values())
    best = best_of(list(chosen.values()), min_coherence, coherent)[0].intervention.kind
    settled = {kind: candidate for kind, (candidate, _) in chosen.items()}
    null = settled[null_of or best]
    nulls = _nulls(null, questions, goal, n_random, answers_per_random, seed)
    unsteered, *finals = measure.run(
        [
            (f"{goal} reported", questions, None),
            *((f"{goal} report {kind}", questions, candidate.intervention) for kind, candidate in settled.items()),
        ],
        f"chosen {goal}",
    )
    # In a separate call, so that their number does not change the other answers.
    draws = measure.run(nulls, f"random {goal}") if nulls else []
    rows.append(known.row(unsteered, None, stage="reported"))
    for candidate, table in zip(settled.values(), finals, strict=True):
        rows.append({**known.row(table, unsteered, stage="reported", candidate=candidate), "chosen": True})
    rows += [
        {**known.row(table, unsteered, stage="reported", candidate=null, random=True), "draw": draw}
        for draw, table in enumerate(draws)
    ]
    names = [name for name, _, _ in nulls]
    labels = [f"{goal} development", *(f"{goal} {candidate}" for candidate in grid), f"{goal} reported"]
    labels += [*(f"{goal} report {kind}" for kind in settled), *names]
    answers = [plain, *tried, unsteered, *finals, *draws]
    return SteeringSearch(
        table=_joined(rows, ladder).assign(goal=goal),
        chosen={kind: candidate.stored() for kind, candidate in settled.items()},
        best=best,
        change={kind: measure.change(unsteered, table) for kind, table in zip(settled, finals, strict=True)},
        null_change=measure.change(unsteered, pooled(draws)) if draws else Estimate.missing("no draws"),
        answers=pd.concat(
            [table.assign(purpose=label) for label, table in zip(labels, answers, strict=True)], ignore_index=True
        ),
        source={
            "goal": goal,
            "measure": measure.name,
            "definition": measure.definition,
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
        screen=screen,
    )


def check_search(
    development: Sequence[Any],
    questions: Sequence[Any],
    *,
    min_coherence: float,
    n_random: int,
) -> None:
    """Raise for mistakes that would only be noticed after hours of sampling.

    Raises:
        PersonaProbeError: for a ``min_coherence`` outside 0 to 1, a number below 0, or shared questions.
    """
    if not 0 <= min_coherence <= 1:
        raise PersonaProbeError(
            f"min_coherence is {min_coherence}; it is a ratio to the unsteered coherence, from 0 to 1"
        )
    if n_random < 0:
        raise PersonaProbeError(f"n_random is {n_random}; give 0 or more random directions")
    if all(isinstance(question, Dialogue) for question in (*questions, *development)):
        check_questions(questions, development)


class _Rows:
    """Makes rows of the table; what forward passes said of a setting stands in its row."""

    def __init__(self, measure: Measure, sign: int, ladder: Ladder | None) -> None:
        self._measure, self._sign = measure, sign
        rungs = [] if ladder is None else ladder.rungs
        self._read = {id(rung.candidate): (rung.kl, rung.gain, rung.wanted) for rung in rungs}

    def row(
        self,
        table: pd.DataFrame,
        unsteered: pd.DataFrame | None,
        *,
        stage: str,
        candidate: Candidate | None = None,
        random: bool = False,
    ) -> dict[str, Any]:
        """One trial; ``unsteered`` has the same questions, or those of the random directions among them."""
        value = self._measure.value(table)
        kind = "none" if candidate is None else candidate.intervention.kind
        unread = (np.nan, np.nan, np.nan)
        kl, gain, wanted = unread if random else self._read.get(id(candidate), unread)
        wrong = Estimate.missing("unsteered")
        if unsteered is not None:
            wrong = wrong_way(self._measure, unsteered, table, self._sign)
        return {
            "stage": stage,
            "intervention": f"random {kind}" if random else kind,
            "layers": None if candidate is None else candidate.layers,
            "setting": None if candidate is None else candidate.setting,
            "kl": kl,
            "gain": gain,
            "wanted": wanted,
            "score": np.nan if unsteered is None or random else self._measure.score(unsteered, table, self._sign),
            "value": value.value,
            "low": value.low,
            "high": value.high,
            "n": value.n,
            "coherent": self._measure.coherent(table),
            "wrong_way": wrong.value,
            "wrong_low": wrong.low,
            "wrong_high": wrong.high,
            "chosen": False,
            "draw": None,
        }


def _joined(rows: Sequence[dict[str, Any]], ladder: Ladder | None) -> pd.DataFrame:
    """The rows of trials, after those of settings that were read only."""
    table = pd.DataFrame(rows)
    if ladder is None:
        return table
    read = ladder.table().assign(chosen=False).reindex(columns=table.columns)
    # Without an explicit type, columns of None and NaN only would take part in finding the common one.
    return pd.concat([read.astype(object), table.astype(object)], ignore_index=True).infer_objects()


def _failed(table: pd.DataFrame) -> int:
    return int(table["failed"].sum()) if "failed" in table else 0


def best_of(
    measured: Sequence[tuple[Candidate, dict[str, Any]]], min_coherence: float, unsteered: float
) -> tuple[Candidate, dict[str, Any]]:
    """The setting with the best behaviour among those coherent enough; else the most coherent one.

    Args:
        measured: settings, each with how good it is (``score``) and its share of coherent answers (``coherent``).
        min_coherence: ratio to the unsteered share that is enough.
        unsteered: the share of coherent answers without steering.
    """
    enough = [
        pair
        for pair in measured
        if coherent_enough(pair[1]["coherent"], unsteered, min_coherence) and np.isfinite(pair[1]["score"])
    ]
    if not enough:
        return max(measured, key=lambda pair: float(np.nan_to_num(pair[1]["coherent"])))
    return max(enough, key=lambda pair: (pair[1]["score"], float(np.nan_to_num(pair[1]["coherent"]))))


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
