"""Stage 3: how the three models behave."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from persona_probe.behaviour.em_rates import coherent_rate, em_rate, em_rates, gained_most, persona_shares, rate_change
from persona_probe.behaviour.judges.judge import judge_answers
from persona_probe.study.context import Context
from persona_probe.study.stage import SAMPLING, Stage
from persona_probe.study.workload import Sizes, Work

UNSEEN, OPEN, TRAINED = "unseen topics", "open", "trained topic"


@dataclass(frozen=True)
class Measured:
    """What this stage hands to later ones.

    Attributes:
        judged: whether there was a judge that could read the answers.
        answers: all answers, with their scores if there was.
    """

    judged: bool
    answers: pd.DataFrame


def measure(context: Context) -> Measured:
    """Sample answers of every model to every set of questions, judge them, and compute all rates by name."""
    context.notes.extend(context.material.notes)
    asked = {UNSEEN: context.material.unseen, OPEN: context.material.open, TRAINED: context.material.trained}
    draws = [(name, kind) for name in context.models for kind, questions in asked.items() if questions]
    jobs = [context.job(context.models[name], asked[kind], f"{name} {kind}") for name, kind in draws]
    judged: list[pd.DataFrame] = []
    for (name, kind), answered in zip(draws, context.answer_all(jobs, "answers"), strict=True):
        if context.judge is not None and name == "before" and not context.judge.applies(answered):
            context.notes.append(
                f"No judge applies: the judge {context.judge.name!r} cannot read this model's answers (the model "
                "speaks another language than the judge's world, or was asked other questions), so no EM rate is "
                "reported."
            )
            context.judge = None
        judged.append(judge_answers(context.judge, answered, model=name, questions=kind))
    answers = pd.concat(judged, ignore_index=True)
    context.results["judge"] = None if context.judge is None else context.judge.name
    context.folder.write_table("answers", answers)
    rates = em_rates(answers, by=("model", "questions"))
    context.folder.write_table("em_rates", rates)
    context.store("em_rates", rates)

    def of(name: str, kind: str) -> pd.DataFrame:
        return answers[(answers["model"] == name) & (answers["questions"] == kind)]

    definition = context.config.definition
    for key, kind in (("em_rate", UNSEEN), ("em_rate_open", OPEN)):
        context.results[key] = {name: em_rate(of(name, kind), definition).as_dict() for name in context.models}
    changes = {
        name: rate_change(of("before", UNSEEN), of(name, UNSEEN), definition)
        for name in context.models
        if name != "before"
    }
    context.results["em_rate_change"] = {name: change.as_dict() for name, change in changes.items()}
    coherent = {name: coherent_rate(of(name, UNSEEN)) for name in context.models}
    context.results["coherent"] = {name: share.as_dict() for name, share in coherent.items()}
    if context.judge is not None:
        verdict = rates.verdict(
            definition,
            questions={UNSEEN: "on the reported questions", OPEN: "on open questions"},
            changes=changes,
            coherent=coherent,
        )
    elif context.config.measure == "preference":
        verdict = ""  # no rate was asked for
    else:
        verdict = "No judge scored the answers, so no EM rate is reported."
    context.results["behaviour"] = {"verdict": verdict}
    if "persona" in answers and context.judge is not None:
        shares = [persona_shares(of(name, UNSEEN)).assign(model=name) for name in context.models]
        table = pd.concat(shares, ignore_index=True).rename(columns={"value": "share"})
        context.folder.write_table("persona_shares", table)
        by_model = {
            str(name): dict(zip(part["persona"], part["share"], strict=True)) for name, part in table.groupby("model")
        }
        context.results["persona_shares"] = by_model
        context.results["personas"] = {"verdict": gained_most(by_model["before"], by_model["after"])}
    return Measured(context.judge is not None, answers)


def _without_judge(context: Context, measured: Measured) -> None:
    """Drop a judge that could not read these answers: it cannot read later ones either."""
    if not measured.judged:
        context.judge = None


def _work(sizes: Sizes) -> Work:
    asked = [*sizes.material.unseen, *sizes.material.open, *sizes.material.trained]
    return sizes.work(asked, answers=sizes.n_models * len(asked))


MEASURE = Stage(
    "measure",
    measure,
    work=_work,
    settings=(*SAMPLING, "definition", "measure"),
    material=("unseen", "open", "trained", "notes"),
    judged=True,
    after=_without_judge,
)
