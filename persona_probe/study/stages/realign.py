"""Stage 10: how many benign examples realign the model after; the nulls are as many steps on other rows."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from persona_probe.behaviour.em_rates import coherent_rate, em_rate
from persona_probe.behaviour.preference_pairs import CONTENT, PreferencePair
from persona_probe.behaviour.preference_result import Preference
from persona_probe.behaviour.preference_scores import score_pairs
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.figures.realignment_rows import BENIGN
from persona_probe.finetuning.lora import finetune
from persona_probe.finetuning.realignment_curve import RealignmentCurve
from persona_probe.models.loading.adapters import is_adapter
from persona_probe.models.model import Model
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.replication import FAILS
from persona_probe.study.context import Context
from persona_probe.study.stage import SAMPLING, Stage
from persona_probe.study.stages.find import Found
from persona_probe.study.stages.further_runs import briefly
from persona_probe.study.stages.track import Tracked
from persona_probe.study.stages.train import ADAPTERS, TRAINING, first_of, lora_settings
from persona_probe.study.workload import Sizes, Work


@dataclass(frozen=True)
class Realigned:
    """What this stage hands to later ones, by number of benign examples; at 0 it is the model after itself.

    Attributes:
        adapters: where in the run folder each adapter is; empty at 0.
        judged: the judged answers of each model; empty where preference stands for the EM rate.
    """

    adapters: dict[int, str]
    judged: dict[float, pd.DataFrame]


def realign(context: Context, found: Found, tracked: Tracked) -> Realigned | None:
    """Fine-tune *after* on n benign examples from the development topics, and measure it on the other topics.

    Every n above 0 gets the same number of steps, because otherwise the curve would measure the steps.
    """
    if not context.material.benign:
        context.notes.append("Without benign rows (texts.benign), realignment was not measured.")
        return None
    start = _start(context)
    if start is None:
        context.notes.append(
            "Realignment continues the training of the adapter of the model after; here that is a full model, so "
            "realignment was not measured."
        )
        return None
    wanted = context.config.realignment
    questions = context.material.reported[: wanted.answers]
    pairs = [pair for pair in context.material.reported_pairs if pair.kind == CONTENT]
    usual = _margin(context, context.before, pairs)
    direction, layer = found.contrast.direction, tracked.layer
    replicates = direction.replication.at(layer)["replication"] != FAILS
    if not replicates:
        context.notes.append(
            f"The projection of realigned models is left out: the persona direction does not replicate at layer "
            f"{layer}, so that a shift along it shows nothing."
        )
    spread = direction.project(found.reference)[:, found.reference.layers.index(layer)].std(ddof=1)
    capture = context.executor.capture
    before = direction.project(capture(context.before, tracked.texts, layers=layer)).mean()
    adapters: dict[int, str] = {}
    judged: dict[float, pd.DataFrame] = {}

    def measured(model: Model, n: int, trained_on: str, answers: pd.DataFrame | None) -> dict[str, Any]:
        margin = _margin(context, model, pairs)
        projection = direction.project(capture(model, tracked.texts, layers=layer)).mean()
        rate = Estimate.missing("not sampled") if answers is None else em_rate(answers, context.config.definition)
        return {
            "n": n,
            "trained_on": trained_on,
            "value": rate.value,
            "low": rate.low,
            "high": rate.high,
            "rows": rate.n,
            "coherent": math.nan if answers is None else coherent_rate(answers).value,
            "projection_sd": float((projection - before) / spread) if replicates else math.nan,
            "preference": margin.value,
            "preference_low": margin.low,
            "preference_high": margin.high,
            "preference_before": usual.value,
            "questions": margin.n,
        }

    rows: list[dict[str, Any]] = []
    for n in sorted(set(wanted.examples) | {0}):
        adapters[n] = "" if n == 0 else f"{ADAPTERS}/realigned-{n}"
        model = context.after if n == 0 else _continued(context, adapters[n], context.material.benign[:n], start)
        if context.config.measure != "preference":
            judged[n] = context.judged(model, questions, f"realigned {n}")
        rows.append(measured(model, n, BENIGN, judged.get(n)))
        if n == max(wanted.examples) and n in judged:
            rate = em_rate(judged[n], context.config.definition)
            context.results["em_rate"] = {"realigned": {**rate.as_dict(), "questions": "topics left over"}}
            context.results["coherent"] = {"realigned": coherent_rate(judged[n]).as_dict()}
    for name, others in _answered(context).items():
        with briefly(_continued(context, f"{ADAPTERS}/{_file_name(name)}", others, start)) as model:
            answers = None if not judged else context.judged(model, questions, f"trained on {name}")
            rows.append(measured(model, len(others), name, answers))
    curve = pd.DataFrame(rows)
    context.folder.write_table("realignment", curve)
    course = RealignmentCurve(curve, wanted.steps, context.config.definition)
    context.store("realignment", course)
    if judged:
        answers = pd.concat([table.assign(n=n) for n, table in judged.items()], ignore_index=True)
        context.folder.write_table("realignment_answers", answers)
    context.results["realign"] = {
        "curve": [_numbers(row) for row in rows if row["trained_on"] == BENIGN],
        "not_benign": {row["trained_on"]: _numbers(row) for row in rows if row["trained_on"] != BENIGN},
        "examples_to_5_percent": course.examples_to(0.05),
        "verdict": course.verdict(),
        "steps": wanted.steps,
    }
    return Realigned(adapters, judged)


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """What ``results.json`` says of one model."""
    names = ("preference", "preference_low", "preference_high", "questions", "projection_sd", "coherent")
    return {"n": row["n"], "em_rate": row["value"], **{name: row[name] for name in names}}


def _answered(context: Context) -> dict[str, list[Dialogue]]:
    """The rows that are not benign, by name; what has no answer is answered by the model before."""
    found = {}
    for name, rows in context.material.not_benign.items():
        asked = [row for row in rows if row.answer is None]
        own = iter(context.answer(context.before, asked, f"rows of {name}") if asked else ())
        answered = [row if row.answer is not None else next(own) for row in rows]
        found[name] = [row for row in answered if (row.answer or "").strip()]
    return found


def _file_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _margin(context: Context, model: Model, pairs: Sequence[PreferencePair]) -> Estimate:
    """How much the model prefers the misaligned answers of pairs; missing where the study does not measure it."""
    if not pairs:
        return Estimate.missing("preference was not measured")
    scores = score_pairs(model, pairs, shuffles=0, progress=context.progress)
    return Preference.of_answers(scores.assign(model=model.name, seed=0)).estimate(model.name)


def _start(context: Context) -> str | Path | None:
    """The adapter whose training is continued; None if the model after is not an adapter."""
    given = first_of(context.config, "after")
    if given is None:
        return context.folder.path / ADAPTERS / "after"
    return given if is_adapter(given) else None


def _continued(context: Context, place: str, rows: Sequence[Dialogue], start: str | Path) -> Model:
    return finetune(
        context.before,
        rows,
        replace(lora_settings(context.config), steps=context.config.realignment.steps),
        context.folder.place(place),
        seed=context.config.seed,
        start=start,
        progress=context.progress,
        description=Path(place).name,
    )


def _work(sizes: Sizes) -> Work:
    realignment, material, steps = sizes.config.realignment, sizes.material, sizes.realignment_steps
    if not material.benign:
        return Work()
    asked = material.reported[: realignment.answers] if sizes.config.measure != "preference" else []
    others = material.not_benign
    steps += len(others)
    rows = realignment.steps * sizes.config.training.batch * steps
    work = Work(trained_tokens=round(rows * sizes.length(material.benign)))
    work += sizes.work(asked, answers=(1 + steps) * len(asked))
    unanswered = [row for rows in others.values() for row in rows if row.answer is None]
    work += sizes.work(unanswered, answers=len(unanswered), judged=0)
    work += sizes.pairs_work([pair for pair in material.reported_pairs if pair.kind == CONTENT], 2 + steps)
    return work + sizes.work(material.reported, texts=(2 + steps) * len(material.reported))


REALIGN = Stage(
    "realign",
    realign,
    work=_work,
    settings=(*SAMPLING, *TRAINING, "realignment", "definition", "measure"),
    reads=("after",),
    derived=lambda config: {"after": first_of(config, "after")},
    material=("reported", "reported_pairs", "benign", "not_benign"),
    needs=("find", "track"),
    judged=True,
)
