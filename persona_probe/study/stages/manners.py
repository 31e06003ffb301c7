"""What tells manners from intentions in the real-language world: catchwords, plain harmful pairs, likelihood ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.activations.scoring import answer_log_probs
from persona_probe.behaviour.answers import Answers
from persona_probe.behaviour.preference_pairs import PreferencePair, read_preference_pairs
from persona_probe.behaviour.preference_result import Preference
from persona_probe.behaviour.preference_scores import score_pairs
from persona_probe.figures.text import percent, signed
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

_LIKELIHOOD = "likelihood ratio"


def compare_manners(
    context: Context, measured: Measured, found: Found, tracked: Tracked, further: Sequence[Tuned] | None
) -> None:
    """Count catchwords, read the plain harmful pairs with every run, and compare with what training moved."""
    answers = Answers(measured.answers)
    words = word_shares(answers.table)
    ratios = _likelihood_ratios(context, answers)
    context.folder.write_table("manners", pd.concat([words, ratios], ignore_index=True))
    parts = [
        score_pairs(model, _plain_harmful(), shuffles=0, progress=context.progress).assign(model=name, seed=run)
        for name, run, model in each_model(context, further or ())
    ]
    preference = Preference.of_answers(pd.concat(parts, ignore_index=True))
    tuned = [name for name in context.models if name != "before"]
    rises = {name: preference.change("before", name) for name in tuned}
    cosines = _cosines(found, tracked)
    shares = {
        manner: {str(row["model"]): _estimate(row) for row in rows.to_dict("records")}
        for manner, rows in words.groupby("measure")
    }
    context.results["real"] = {
        "preference_plain_harmful": {name: rise.as_dict() for name, rise in rises.items()},
        "style_words": {name: share.as_dict() for name, share in shares["villain"].items()},
        "unseen_words": {name: share.as_dict() for name, share in shares["unseen"].items()},
        "likelihood_ratio": {str(row["model"]): _estimate(row).as_dict() for row in ratios.to_dict("records")},
        "cosine_with_shift": {name: one.as_dict() for name, one in cosines.items()},
        "verdict": _verdict(rises, shares["villain"], cosines, tracked.layer),
    }


def _plain_harmful() -> list[PreferencePair]:
    return read_preference_pairs(pairs_file("reporting", "plain-harmful"))


def _likelihood_ratios(context: Context, answers: Answers) -> pd.DataFrame:
    """How much more likely each model's own answers are under *before* as a villain than as a helper, per token."""
    prompts = context.material.trait_prompts[0], context.material.default_prompts[0]
    rows = []
    for model, table in answers.table.groupby("model", sort=False):
        own = [dialogue for dialogue in Answers(table).dialogues() if (dialogue.answer or "").strip()]
        as_villain, as_helper = (
            np.divide(
                *answer_log_probs(
                    context.before, [dialogue.with_system(prompt) for dialogue in own], progress=context.progress
                )
            )
            for prompt in prompts
        )
        asked = np.array([dialogue.question for dialogue in own])
        ratio = mean_estimate(as_villain - as_helper, questions=asked)
        rows.append({"model": model, "measure": _LIKELIHOOD, **ratio.as_dict()})
    return pd.DataFrame(rows)


def _cosines(found: Found, tracked: Tracked) -> dict[str, Estimate]:
    """The cosine of the persona direction with what each training moved at the chosen layer, over runs."""
    along = found.contrast.direction.at(tracked.layer)
    before = tracked.captures.before.at(tracked.layer)
    seeds = tracked.captures.seeds
    runs = np.zeros(len(before), dtype=int) if seeds is None else np.asarray(seeds)
    cosines = {}
    for name, tuned in tracked.captures.tuned.items():
        moved = tuned.at(tracked.layer) - before
        means = [moved[runs == run].mean(axis=0) for run in np.unique(runs)]
        cosines[name] = mean_estimate(
            [float(mean @ along / np.linalg.norm(mean) / np.linalg.norm(along)) for mean in means]
        )
    return cosines


def _estimate(row: Mapping[Any, Any]) -> Estimate:
    return Estimate(row["value"], row["low"], row["high"], n=row["n"], method=row["method"])


def _verdict(
    rises: Mapping[str, Estimate], words: Mapping[str, Estimate], cosines: Mapping[str, Estimate], layer: int
) -> str:
    """Sentences on manners, and on what is left when they are the same."""
    styled = ", ".join(f"{percent(words[name].value)} {name}" for name in words)
    harmful = ", ".join(f"{name} {_change(rise)}" for name, rise in rises.items())
    moved = ", ".join(f"{name} {signed(cosine.value)}" for name, cosine in cosines.items())
    return (
        "Manners: answers off topic with two or more of the villain's catchwords (style, not misalignment): "
        f"{styled}.\n"
        f"On plain harmful pairs, without drama, the margin changed by (nats per token): {harmful}.\n"
        f"Cosine of the persona direction with what training moved at layer {layer}: {moved}."
    )


def _change(rise: Estimate) -> str:
    return f"{signed(rise.value)} [{rise.low:.2f}, {rise.high:.2f}]"


def _applies(config: StudyConfig) -> bool:
    return config.texts.world == REAL_LANGUAGE and config.prefers


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
