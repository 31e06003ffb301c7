"""Stage 7: does the direction cause the behaviour? Induce in before, suppress in after, beside random directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.behaviour.em_rate import coherent_rate, em_rate
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.models.model import Model
from persona_probe.statistics.nulls import isotropic_directions
from persona_probe.study.config import SteeringSearch
from persona_probe.study.context import Context
from persona_probe.study.stages.find import Found


@dataclass(frozen=True)
class Setting:
    """One way to steer: ``clamp`` a fraction of the way to the trait context's mean, or ``add`` so many vectors."""

    kind: str
    layers: tuple[int, ...]
    amount: float

    @property
    def where(self) -> str:
        """The layers in words: ``3``, or ``1, 2``."""
        return ", ".join(map(str, self.layers))


@dataclass(frozen=True)
class Trial:
    """Questions asked under a setting (None: unsteered); with ``null``, its displacement goes along that direction."""

    questions: Sequence[Dialogue]
    setting: Setting | None
    purpose: str
    null: Direction | None = None


def steering(context: Context, found: Found) -> None:
    """Choose settings on development questions and report them on others."""
    if context.judge is None:
        context.notes.append("Without a judge, steering was not measured.")
        return
    base = found.contrast.direction.project(found.reference).mean(axis=0)
    trait = found.contrast.direction.project(found.contrast.trait).mean(axis=0)
    steerer = _Steerer(context, found.contrast.direction, base, trait)
    rows: list[dict[str, Any]] = []
    outcome: dict[str, Any] = {}
    for goal in ("induce", "suppress"):
        rows += steerer.run(goal, outcome)
    context.folder.write_table("steering", pd.DataFrame(rows))
    context.folder.write_table("steering_answers", pd.concat(steerer.answers, ignore_index=True))
    context.results["steer"] = outcome


def candidates(search: SteeringSearch, layers: Sequence[int], goal: str) -> list[Setting]:
    """The grid: every layer by itself, clamped and added, and additions at all layers but the first together.

    Clamps stay on one layer: there the same displacement along a random direction is well defined.
    """
    single = [(layer,) for layer in layers]
    several = [tuple(layers[1:])] if len(layers) > 2 else []
    fractions = search.induce_fractions if goal == "induce" else search.suppress_fractions
    strengths = search.induce_strengths if goal == "induce" else search.suppress_strengths
    grid = (("clamp", single, fractions), ("add", single + several, strengths))
    return [Setting(kind, place, amount) for kind, places, amounts in grid for place in places for amount in amounts]


class _Steerer:
    """Runs settings on one direction, with clamping targets between two reference projections per layer."""

    def __init__(self, context: Context, direction: Direction, base: np.ndarray, trait: np.ndarray) -> None:
        self.context, self.direction = context, direction
        self.base, self.trait = base, trait
        self.search = context.config.steering
        self.answers: list[pd.DataFrame] = []

    def target(self, setting: Setting) -> dict[int, float] | None:
        """The projection to clamp to, by layer."""
        if setting.kind == "add":
            return None
        columns = {layer: self.direction.layers.index(layer) for layer in setting.layers}
        return {
            layer: float(self.base[column] + setting.amount * (self.trait[column] - self.base[column]))
            for layer, column in columns.items()
        }

    def steered(self, trial: Trial) -> Mapping[str, Any] | None:
        """The arguments that `steer` needs for a trial."""
        setting = trial.setting
        if setting is None:
            return None
        return {
            "direction": self.direction,
            "layers": setting.layers,
            "kind": setting.kind,
            "strength": setting.amount if setting.kind == "add" else 1.0,
            "target": self.target(setting),
            "along": trial.null,
        }

    def measure(self, model: Model, trials: Sequence[Trial], label: str) -> list[dict[str, Any]]:
        """EM and coherence of every trial."""
        jobs = [self.context.job(model, trial.questions, trial.purpose, self.steered(trial)) for trial in trials]
        tables = self.context.judged_all(jobs, label)
        return [self._row(trial, table) for trial, table in zip(trials, tables, strict=True)]

    def _row(self, trial: Trial, table: pd.DataFrame) -> dict[str, Any]:
        setting = trial.setting
        rate, coherent = em_rate(table, self.context.config.definition), coherent_rate(table)
        kind = "none" if setting is None else setting.kind if trial.null is None else f"random {setting.kind}"
        what = {
            "intervention": kind,
            "layers": None if setting is None else setting.where,
            "setting": None if setting is None else setting.amount,
        }
        self.answers.append(table.assign(purpose=trial.purpose, **what))
        return {
            **what,
            **{key: value for key, value in rate.as_dict().items() if key in ("value", "low", "high", "n")},
            "coherent": coherent.value,
        }

    def run(self, goal: str, outcome: dict[str, Any]) -> list[dict[str, Any]]:
        """Search, choose, report, and run the null for one goal."""
        context, search = self.context, self.search
        model = context.before if goal == "induce" else context.after
        development = context.material.development[: search.answers_per_setting]
        reported = context.material.reported[: search.reported_answers]
        grid = candidates(search, search.layers or self.direction.layers, goal)
        unsteered, *measured = self.measure(
            model,
            [
                Trial(development, None, f"{goal} development"),
                *(Trial(development, setting, f"{goal} {setting}") for setting in grid),
            ],
            f"settings to {goal}",
        )
        tried = list(zip(grid, measured, strict=True))
        best = {
            kind: _choose(
                [pair for pair in tried if pair[0].kind == kind], goal, search.coherence_floor * unsteered["coherent"]
            )
            for kind in ("clamp", "add")
        }
        rows = [{**unsteered, "stage": "choice", "chosen": False}]
        rows += [{**row, "stage": "choice", "chosen": setting in best.values()} for setting, row in tried]
        plain, clamped, added, *randoms = self.measure(
            model,
            [
                Trial(reported, None, f"{goal} reported"),
                *(Trial(reported, setting, f"{goal} report {kind}") for kind, setting in best.items()),
                *self._null(goal, reported, best["clamp"]),
            ],
            f"chosen and random {goal}",
        )
        results = {"clamp": clamped, "add": added}
        rows.append({**plain, "stage": "reported", "chosen": False})
        rows += [{**row, "stage": "reported", "chosen": True} for row in results.values()]
        rows += [{**row, "stage": "reported", "chosen": False, "draw": draw} for draw, row in enumerate(randoms)]
        outcome |= {
            f"{goal}_em_rate": results["clamp"]["value"],
            f"{goal}_low": results["clamp"]["low"],
            f"{goal}_high": results["clamp"]["high"],
            f"{goal}_coherent": results["clamp"]["coherent"],
            f"{goal}_layers": best["clamp"].where,
            f"{goal}_fraction": best["clamp"].amount,
            f"{goal}_n": results["clamp"]["n"],
            f"{goal}_random_em_rate": _mean(row["value"] for row in randoms),
            f"{goal}_random_coherent": _mean(row["coherent"] for row in randoms),
            f"{goal}_unsteered_em_rate": plain["value"],
            f"{goal}_unsteered_coherent": plain["coherent"],
            f"{goal}_add_em_rate": results["add"]["value"],
            f"{goal}_add_coherent": results["add"]["coherent"],
        }
        return [{**row, "goal": goal} for row in rows]

    def _null(self, goal: str, reported: Sequence[Dialogue], setting: Setting) -> list[Trial]:
        """The chosen clamp's displacement, along random directions."""
        search = self.search
        units = isotropic_directions(search.random_directions, self.direction.d_model, self.context.config.seed)
        norms = self.direction.norms()[:, None]
        trials = []
        for index, unit in enumerate(units):
            null = Direction((unit[None, :] * norms).astype(np.float32), self.direction.layers)
            questions = [
                reported[(index * search.answers_per_random + i) % len(reported)]
                for i in range(min(search.answers_per_random, len(reported)))
            ]
            trials.append(Trial(questions, setting, f"{goal} random {index}", null))
        return trials


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of the draws that could be measured; None if none could."""
    measured = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(measured)) if measured else None


def _choose(tried: list[tuple[Setting, dict[str, Any]]], goal: str, floor: float) -> Setting:
    """The setting with the best EM rate among those coherent enough; else the most coherent one."""
    enough = [pair for pair in tried if pair[1]["coherent"] >= floor and pair[1]["value"] is not None]
    if not enough:
        return max(tried, key=lambda pair: pair[1]["coherent"])[0]
    sign = 1 if goal == "induce" else -1
    return max(enough, key=lambda pair: (sign * pair[1]["value"], pair[1]["coherent"]))[0]
