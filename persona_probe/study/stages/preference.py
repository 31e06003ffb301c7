"""Stage 3b: what the models prefer, over all fine-tuning runs; behaviour without a judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from persona_probe.behaviour.preference_result import Preference
from persona_probe.behaviour.preference_scores import SHUFFLES, score_pairs
from persona_probe.models.model import Model
from persona_probe.runs.config import StudyConfig, n_runs
from persona_probe.study.context import Context
from persona_probe.study.stage import Stage
from persona_probe.study.stages.further_runs import FURTHER, briefly
from persona_probe.study.stages.train import Tuned, opened
from persona_probe.study.workload import Sizes, Work


def prefer(context: Context, further: Sequence[Tuned] | None) -> None:
    """Read the reported pairs with every model of every run, and compare them."""
    pairs = context.material.reported_pairs
    parts: list[pd.DataFrame] = []
    for name, run, model in _models(context, further or ()):
        scores = score_pairs(model, pairs, progress=context.progress)
        parts.append(scores.assign(model=name, seed=run))
    preference = Preference.of_answers(pd.concat(parts, ignore_index=True))
    context.folder.write_table("preference", preference)
    context.folder.write_table("preference_questions", preference.questions)
    context.store("preference", preference)
    names = [name for name in context.models if name != "before"]
    context.results["preference"] = {
        **{name: preference.estimate(name).as_dict() for name in context.models},
        "change": {name: preference.change("before", name).as_dict() for name in names},
        "verdict": preference.verdict(),
    }


def _models(context: Context, further: Sequence[Tuned]) -> Iterator[tuple[str, int, Model]]:
    """Each model with its name and the number of its run; one of a further run is in memory at a time."""
    for name, model in context.models.items():
        yield name, 0, model
    for run, tuned in enumerate(further, start=1):
        for name in tuned.sources:
            with briefly(opened(context, tuned, name)) as model:
                yield name, run, model


def _measures_preference(config: StudyConfig) -> bool:
    return config.prefers


def _work(sizes: Sizes) -> Work:
    pairs = sizes.material.reported_pairs
    models = 1 + (sizes.n_models - 1) * n_runs(sizes.config)
    answers = [pair.question.with_answer(text) for pair in pairs for text in (*pair.aligned, *pair.misaligned)]
    texts = models * (1 + SHUFFLES) * len(answers)
    return Work(texts=texts, text_tokens=round(texts * sizes.length(answers)))


PREFERENCE = Stage(
    "preference",
    prefer,
    work=_work,
    settings=("measure",),
    material=("reported_pairs",),
    needs=(FURTHER.name,),
    applies=_measures_preference,
)
