"""Stage 8: does the direction cause the behaviour? Induce it in before, suppress it in after; random ones as null."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.errors import NothingMeasuredError
from persona_probe.models.model import Model
from persona_probe.steering.search.candidates import candidates
from persona_probe.steering.search.grid import Goal
from persona_probe.steering.search.search import Trial, search_steering
from persona_probe.steering.search.search_result import SteeringSearch
from persona_probe.study.context import Context
from persona_probe.study.stage import SAMPLING, Stage
from persona_probe.study.stages.find import Found
from persona_probe.study.workload import Sizes, Work

_GOALS: tuple[Goal, ...] = ("induce", "suppress")
HEADLINE = "clamp"
"""The kind of intervention of the results and of the null: it sets a projection, so it needs no strength per layer."""


def steering(context: Context, found: Found) -> None:
    """Choose settings on development questions and report them on others."""
    if context.judge is None:
        context.notes.append("Without a judge, steering was not measured.")
        return
    try:
        searches = [_search(context, found, goal) for goal in _GOALS]
    except NothingMeasuredError as error:
        # Coherence is the judge's opinion: that it finds none is a result, not a reason to stop the later stages.
        context.notes.append(f"Steering was not measured: {error}.")
        return
    for name, tables in {
        "steering": [search.table for search in searches],
        "steering_answers": [search.answers for search in searches],
    }.items():
        context.folder.write_table(name, pd.concat(tables, ignore_index=True))
    context.store("steering", {search.source["goal"]: search for search in searches})
    context.results["steer"] = {key: value for search in searches for key, value in _outcome(search).items()}


class _Jobs:
    """Trials as jobs of the study's executor, so that they run wherever its models do."""

    def __init__(self, context: Context, model: Model) -> None:
        self._context, self._model = context, model

    def run(self, trials: Sequence[Trial], label: str) -> list[pd.DataFrame]:
        """Sample and judge every trial; each draws random numbers of its own."""
        jobs = [self._context.job(self._model, asked, purpose, steering) for purpose, asked, steering in trials]
        return self._context.judged_all(jobs, label)


def _search(context: Context, found: Found, goal: Goal) -> SteeringSearch:
    settings, direction = context.config.steering, found.contrast.direction
    grid = candidates(
        direction,
        settings.layers or direction.layers,
        goal,
        base=found.reference,
        trait=found.contrast.trait,
        grid=settings.grid,
    )
    return search_steering(
        _Jobs(context, context.before if goal == "induce" else context.after),
        grid,
        context.material.development[: settings.answers_per_setting],
        context.material.reported[: settings.reported_answers],
        goal=goal,
        min_coherence=settings.min_coherence,
        n_random=settings.random_directions,
        answers_per_random=settings.answers_per_random,
        null_of=HEADLINE,
        definition=context.config.definition,
        seed=context.config.seed,
    )


def _outcome(search: SteeringSearch) -> dict[str, Any]:
    """The numbers that the report's sentences quote."""
    goal, plain, randoms = search.source["goal"], search.reported("none"), search.random
    best, candidate = search.reported(HEADLINE), search.chosen[HEADLINE]
    outcome = {
        "em_rate": best["value"],
        "low": best["low"],
        "high": best["high"],
        "coherent": best["coherent"],
        "layers": candidate.layers,
        "fraction": candidate.setting,
        "n": best["n"],
        "random_em_rate": _mean(randoms["value"]),
        "random_coherent": _mean(randoms["coherent"]),
        "unsteered_em_rate": plain["value"],
        "unsteered_coherent": plain["coherent"],
    }
    for kind in search.chosen:
        if kind != HEADLINE:
            row = search.reported(kind)
            outcome |= {f"{kind}_em_rate": row["value"], f"{kind}_coherent": row["coherent"]}
    outcome["verdict"] = search.verdict()
    return {f"{goal}_{name}": value for name, value in outcome.items()}


def _mean(values: Iterable[float]) -> float | None:
    """The mean of the draws that could be measured, or None if there are none."""
    measured = [value for value in values if np.isfinite(value)]
    return float(np.mean(measured)) if measured else None


def _work(sizes: Sizes) -> Work:
    search, work = sizes.config.steering, Work()
    if sizes.config.judge is None:
        return work
    chosen_on = sizes.material.development[: search.answers_per_setting]
    measured_on = sizes.material.reported[: search.reported_answers]
    null = search.random_directions * min(search.answers_per_random, len(measured_on))
    layers = sizes.n_layers if search.layers is None else len(search.layers)
    for goal in _GOALS:
        settings = search.grid.count(layers, goal)
        work += sizes.work(chosen_on, answers=(1 + settings) * len(chosen_on))
        work += sizes.work(measured_on, answers=(1 + len(search.kinds)) * len(measured_on) + null)
    return work


STEER = Stage(
    "steer",
    steering,
    work=_work,
    settings=(*SAMPLING, "steering", "definition"),
    material=("development", "reported"),
    needs=("find",),
    judged=True,
)
