"""Behaviour without a judge: what the models of all fine-tuning runs prefer, and whether their answers are fluent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from persona_probe.behaviour.answer_fluency import fluency
from persona_probe.behaviour.answers import Answers
from persona_probe.behaviour.preference_result import Preference
from persona_probe.behaviour.preference_scores import SHUFFLES, score_pairs
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.figures.text import percent
from persona_probe.models.model import Model
from persona_probe.runs.config import StudyConfig
from persona_probe.study.context import Context
from persona_probe.study.stage import Stage
from persona_probe.study.stages.find import Found
from persona_probe.study.stages.further_runs import FURTHER, briefly
from persona_probe.study.stages.measure import Measured
from persona_probe.study.stages.second_control import SECOND
from persona_probe.study.stages.train import Tuned, opened
from persona_probe.study.workload import Sizes, Work

FLUENCY_PROMPTS = 4
"""Under how many of the trait's system prompts answers are read for their fluency; the most favourable one counts."""


def prefer(
    context: Context,
    measured: Measured,
    found: Found,
    further: Sequence[Tuned] | None,
    second: Sequence[Tuned] | None,
) -> Preference:
    """Read the reported pairs with every model of every run, and compare them; see how fluent the answers are."""
    pairs = context.material.reported_pairs
    parts: list[pd.DataFrame] = []
    for name, run, model in each_model(context, further or (), second or ()):
        scores = score_pairs(model, pairs, progress=context.progress)
        parts.append(scores.assign(model=name, seed=run))
    preference = Preference.of_answers(pd.concat(parts, ignore_index=True))
    context.folder.write_table("preference", preference)
    context.folder.write_table("preference_questions", preference.questions)
    context.store("preference", preference)
    names = [name for name in preference.names if name != "before"]
    context.results["preference"] = {
        **{name: preference.estimate(name).as_dict() for name in preference.names},
        "change": {name: preference.change("before", name).as_dict() for name in names},
        "moved": {name: preference.moved("before", name, toward="misaligned").as_dict() for name in names},
        "verdict": preference.verdict(),
    }
    _fluency(context, Answers(measured.answers), found.own)
    return preference


def _fluency(context: Context, answers: Answers, usual: Sequence[Dialogue]) -> None:
    """How many answers of each model are fluent, by bounds from what before answers to development questions."""
    measured = fluency(
        context.before,
        answers,
        reference=usual,
        persona_prompt=context.material.trait_prompts[:FLUENCY_PROMPTS],
        progress=context.progress,
    )
    context.folder.write_table("fluency", measured.summary())
    context.store("fluency", measured)
    shares = measured.summary("model")
    fluent = shares[shares["measure"] == "fluent"].set_index("model")["value"]
    context.results["fluency"] = {
        **{name: {"value": fluent[name]} for name in fluent.index},
        "verdict": f"Fluent answers, by bounds from before's own: {_listed(fluent)}.",
    }


def _listed(shares: pd.Series[float]) -> str:
    return ", ".join(f"{percent(share)} {name}" for name, share in shares.items())


def each_model(context: Context, further: Sequence[Tuned], second: Sequence[Tuned]) -> Iterator[tuple[str, int, Model]]:
    """Each model with its name and the number of its run; one of those not in the context is in memory at a time."""
    for name, model in context.models.items():
        yield name, 0, model
    for run, tuned in (*enumerate(further, start=1), *enumerate(second)):
        for name in tuned.sources:
            with briefly(opened(context, tuned, name)) as model:
                yield name, run, model


def _measures_preference(config: StudyConfig) -> bool:
    return config.prefers


def _work(sizes: Sizes) -> Work:
    material, models = sizes.material, sizes.n_models
    asked = [*material.unseen, *material.open, *material.trained]
    readings = 1 + len(material.trait_prompts[:FLUENCY_PROMPTS])
    work = sizes.work(asked, texts=readings * models * len(asked))
    work += sizes.work(material.development, texts=readings * len(material.development))
    pairs = material.reported_pairs
    models = sizes.n_all_models
    return work + sizes.pairs_work(pairs, models * (1 + SHUFFLES))


PREFERENCE = Stage(
    "preference",
    prefer,
    work=_work,
    settings=("measure",),
    material=("reported_pairs", "trait_prompts"),
    needs=("measure", "find", FURTHER.name, SECOND.name),
    applies=_measures_preference,
)
