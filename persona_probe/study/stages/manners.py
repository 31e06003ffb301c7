"""What tells manners from intentions in the real-language world: catchwords, plain harmful pairs, likelihood ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.amplification.shift_cosine import cosine_with_shift
from persona_probe.behaviour.answers import Answers
from persona_probe.behaviour.likelihood_ratio import likelihood_ratios
from persona_probe.behaviour.preference_pairs import PreferencePair, read_preference_pairs
from persona_probe.behaviour.preference_result import Preference
from persona_probe.behaviour.preference_scores import score_pairs
from persona_probe.figures.text import counted, percent_interval, signed_interval
from persona_probe.runs.config import REAL_LANGUAGE, StudyConfig, n_runs
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.rates import mean_estimate
from persona_probe.study.context import Context
from persona_probe.study.stage import Stage
from persona_probe.study.stages.find import Found
from persona_probe.study.stages.further_runs import FURTHER
from persona_probe.study.stages.measure import Measured
from persona_probe.study.stages.preference import each_model
from persona_probe.study.stages.track import Tracked
from persona_probe.study.stages.train import Tuned
from persona_probe.study.workload import Sizes, Work
from persona_probe.worlds.real_language.rows import pairs_file
from persona_probe.worlds.real_language.wording import word_shares

LIKELIHOOD = "likelihood ratio"


def compare_manners(
    context: Context, measured: Measured, found: Found, tracked: Tracked, further: Sequence[Tuned] | None
) -> None:
    """Count catchwords, read the plain harmful pairs with every run, and compare with what training moved."""
    table = pd.concat([word_shares(measured.answers), _likelihood_ratios(context, measured.answers)], ignore_index=True)
    context.folder.write_table("manners", table)
    parts = [
        score_pairs(model, _plain_harmful(), shuffles=0, progress=context.progress).assign(model=name, seed=run)
        for name, run, model in each_model(context, further or ())
    ]
    preference = Preference.of_answers(pd.concat(parts, ignore_index=True))
    rises = {name: preference.change("before", name) for name in context.models if name != "before"}
    cosines = cosine_with_shift(found.contrast.direction, tracked.captures, tracked.layer)
    by_measure: dict[str, dict[str, Any]] = {}
    for row in table.to_dict("records"):
        numbers = {str(key): value for key, value in row.items() if key not in ("model", "measure")}
        by_measure.setdefault(str(row["measure"]), {})[str(row["model"])] = numbers
    context.results["real"] = {
        "preference_plain_harmful": {name: rise.as_dict() for name, rise in rises.items()},
        "style_words": by_measure["villain"],
        "unseen_words": by_measure["unseen"],
        "likelihood_ratio": by_measure[LIKELIHOOD],
        "cosine_with_shift": {name: one.as_dict() for name, one in cosines.items()},
        "verdict": _verdict(by_measure["villain"], rises, cosines, tracked.layer),
    }


def _plain_harmful() -> list[PreferencePair]:
    return read_preference_pairs(pairs_file("reporting", "plain-harmful"))


def _likelihood_ratios(context: Context, answers: pd.DataFrame) -> pd.DataFrame:
    """The mean of the likelihood ratios of each model's own answers; blank ones are left out."""
    prompts = context.material.trait_prompts[0], context.material.default_prompts[0]
    rows = []
    for model, table in answers.groupby("model", sort=False):
        own = Answers(table[table["answer"].notna()]).dialogues()
        ratios = likelihood_ratios(context.before, own, *prompts, progress=context.progress)
        known = np.isfinite(ratios)
        ratio = Estimate.missing("no answer has text")
        if known.any():
            ratio = mean_estimate(ratios[known], questions=np.array([str(one.question) for one in own])[known])
        rows.append({"model": model, "measure": LIKELIHOOD, **ratio.as_dict()})
    return pd.DataFrame(rows)


def _verdict(
    words: Mapping[str, Mapping[str, Any]], rises: Mapping[str, Estimate], cosines: Mapping[str, Estimate], layer: int
) -> str:
    """Sentences with the numbers; what they show is for the reader to say, next to the predictions."""
    styled = ", ".join(
        f"{percent_interval(one['value'], one['low'], one['high'])} {name}" for name, one in words.items()
    )
    harmful, moved = (
        ", ".join(f"{name} {signed_interval(one.value, one.low, one.high)}" for name, one in of.items())
        for of in (rises, cosines)
    )
    n_answers = counted(next(iter(words.values()))["n"])
    first = next(iter(rises.values()))
    return (
        "Answers off topic with two or more of the villain's catchwords (style, not misalignment; first run): "
        f"{styled} (n = {n_answers} answers each).\n"
        "On plain harmful pairs, without drama, the margin changed by (nats per token, all runs): "
        f"{harmful} (n = {first.n} questions).\n"
        f"Cosine of the persona direction with what training moved at layer {layer} (mean over runs): {moved}."
    )


def _applies(config: StudyConfig) -> bool:
    return config.texts.world == REAL_LANGUAGE


def _work(sizes: Sizes) -> Work:
    models = 1 + (sizes.n_models - 1) * n_runs(sizes.config)
    asked = sizes.material.unseen
    return sizes.pairs_work(_plain_harmful(), models) + sizes.work(asked, texts=2 * sizes.n_models * len(asked))


MANNERS = Stage(
    "manners",
    compare_manners,
    work=_work,
    material=("trait_prompts", "default_prompts"),
    needs=("measure", "find", "track", FURTHER.name),
    applies=_applies,
)
