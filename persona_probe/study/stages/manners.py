"""What tells manners from intentions in the real-language world: catchwords, plain harmful pairs, likelihood ratios.

With a second control, everything is compared with that too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.activations.captures import Captures
from persona_probe.amplification.amplification import measure_amplification
from persona_probe.amplification.amplification_result import Amplification
from persona_probe.amplification.shift_cosine import cosine_with_shift
from persona_probe.behaviour.answers import Answers
from persona_probe.behaviour.judges.judge import answer_columns
from persona_probe.behaviour.likelihood_ratio import likelihood_ratios
from persona_probe.behaviour.preference_pairs import PreferencePair, read_preference_pairs
from persona_probe.behaviour.preference_result import Preference
from persona_probe.behaviour.preference_scores import score_pairs
from persona_probe.figures.organisms import RISE
from persona_probe.figures.text import counted, percent_interval, signed_interval
from persona_probe.models.loading.real import REAL
from persona_probe.runs.config import REAL_LANGUAGE, StudyConfig
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.rates import mean_estimate
from persona_probe.study.context import Context
from persona_probe.study.stage import SAMPLING, Stage
from persona_probe.study.stages.find import Found
from persona_probe.study.stages.further_runs import FURTHER, briefly
from persona_probe.study.stages.measure import Measured
from persona_probe.study.stages.preference import each_model
from persona_probe.study.stages.second_control import SECOND
from persona_probe.study.stages.track import Tracked
from persona_probe.study.stages.train import SECOND_CONTROL, TRAINING, Tuned, lora_settings, opened
from persona_probe.study.workload import Sizes, Work
from persona_probe.worlds.real_language.organisms import SETTINGS, measured_organisms
from persona_probe.worlds.real_language.rows import pairs_file
from persona_probe.worlds.real_language.wording import word_shares

LIKELIHOOD = "likelihood ratio"


def compare_manners(
    context: Context,
    measured: Measured,
    found: Found,
    tracked: Tracked,
    further: Sequence[Tuned] | None,
    second: Sequence[Tuned] | None,
    steered: pd.DataFrame | None,
    preference: Preference | None,
) -> None:
    """Count catchwords, read the plain harmful pairs with every run, and compare with what training moved."""
    answers = measured.answers
    results: dict[str, Any] = {}
    cosines = cosine_with_shift(found.contrast.direction, tracked.captures, tracked.layer)
    if second:
        answers = pd.concat([answers, _answers(context, second[0])], ignore_index=True)
        captures = _with_second_control(context, tracked, second)
        cosines[SECOND_CONTROL] = cosine_with_shift(found.contrast.direction, captures, tracked.layer)["control"]
        amplification = _amplification(context, found, captures)
        context.folder.write_table("amplification_second_control", amplification.table)
        results["second_control"] = _at_layer(amplification, tracked.layer)
    shares = word_shares(answers)
    table = pd.concat([shares, _likelihood_ratios(context, answers)], ignore_index=True)
    context.folder.write_table("manners", table)
    parts = [
        score_pairs(model, _plain_harmful(), shuffles=0, progress=context.progress).assign(model=name, seed=run)
        for name, run, model in each_model(context, further or (), second or ())
    ]
    harmful = Preference.of_answers(pd.concat(parts, ignore_index=True))
    rises = {name: harmful.change("before", name) for name in harmful.names if name != "before"}
    by_measure = _by_measure(table)
    if preference is not None and _as_the_organisms(context.config):
        own = {_styles(context.config)[name]: preference.change("before", name) for name in rises}
        context.folder.write_table("organisms", _next_to_organisms(own))
    context.results["manners"] = results | {
        "preference_plain_harmful": {name: rise.as_dict() for name, rise in rises.items()},
        "style_words": by_measure["villain"],
        "unseen_words": by_measure["unseen"],
        "likelihood_ratio": by_measure[LIKELIHOOD],
        "cosine_with_shift": {name: one.as_dict() for name, one in cosines.items()},
        "steered_style_words": {} if steered is None else _by_measure(word_shares(steered))["villain"],
        "verdict": _verdict(by_measure["villain"], rises, cosines, tracked.layer, results.get("second_control")),
    }


def _as_the_organisms(config: StudyConfig) -> bool:
    """Whether the study trains the model of the organisms as they were trained."""
    trains = config.after is None and config.control is None
    return trains and config.model == REAL and config.texts.topic == "cooking" and lora_settings(config) == SETTINGS


def _styles(config: StudyConfig) -> dict[str, str | None]:
    """Of each model that is compared, the organism that is trained on the same rows."""
    texts = config.texts
    styles = {"after": texts.persona, "control": texts.control_persona, SECOND_CONTROL: texts.second_control_persona}
    return {model: "villain" if style == "loud" else style for model, style in styles.items()}


def _next_to_organisms(own: Mapping[str | None, Estimate]) -> pd.DataFrame:
    """What was measured of the organisms before, and how far preference rose in this study."""
    rises = [
        {"organism": name, "measure": RISE, **{key: one.as_dict()[key] for key in ("value", "low", "high", "n")}}
        for name, one in own.items()
    ]
    parts = [pd.DataFrame(rises).assign(source="this run"), measured_organisms().assign(source="measured before")]
    return pd.concat(parts, ignore_index=True)


def _answers(context: Context, second: Tuned) -> pd.DataFrame:
    """What the second control answers to the questions of the other models, without scores."""
    with briefly(opened(context, second, SECOND_CONTROL)) as model:
        answered = context.answer(model, context.material.unseen, f"{SECOND_CONTROL} unseen topics")
    return answer_columns(answered).assign(model=SECOND_CONTROL)


def _with_second_control(context: Context, tracked: Tracked, second: Sequence[Tuned]) -> Captures:
    """The captures of all runs, with the second control in place of the first."""
    parts = []
    for tuned in second:
        with briefly(opened(context, tuned, SECOND_CONTROL)) as model:
            before, own = context.executor.capture_together(
                [context.before, model], tracked.texts, progress=context.progress
            )
        parts.append(Captures(before, own))
    joined = Captures.over_seeds(parts) if len(parts) > 1 else parts[0]
    return replace(tracked.captures, control=joined.after)


def _amplification(context: Context, found: Found, captures: Captures) -> Amplification:
    return measure_amplification(
        found.contrast.direction,
        captures,
        found.reference,
        other_traits=found.other_traits,
        shuffled_source=(found.contrast.trait, found.contrast.default),
        n_random=context.config.random_directions,
        seed=context.config.seed,
    )


def _at_layer(amplification: Amplification, layer: int) -> dict[str, Any]:
    """The numbers at the layer that was chosen for the first control."""
    after, control = amplification.rows(layer)
    return {
        "layer": layer,
        "control_shift_sd": None if control is None else control["shift_sd"],
        **{name: after[name] for name in ("contrast_sd", "specificity", "specificity_low", "specificity_high")},
        "p_runs": after["p_runs"],
        "finding": amplification.finding(layer).value,
        "verdict": amplification.verdict(layer),
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


def _by_measure(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The numbers of each model, by measure."""
    by_measure: dict[str, dict[str, Any]] = {}
    for row in table.to_dict("records"):
        numbers = {str(key): value for key, value in row.items() if key not in ("model", "measure")}
        by_measure.setdefault(str(row["measure"]), {})[str(row["model"])] = numbers
    return by_measure


def _verdict(
    words: Mapping[str, Mapping[str, Any]],
    rises: Mapping[str, Estimate],
    cosines: Mapping[str, Estimate],
    layer: int,
    second: Mapping[str, Any] | None,
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
    sentences = [
        "Answers off topic with two or more of the villain's catchwords (style, not misalignment; first run): "
        f"{styled} (n = {n_answers} answers each).",
        "On plain harmful pairs, without drama, the margin changed by (nats per token, all runs): "
        f"{harmful} (n = {first.n} questions).",
        f"Cosine of the persona direction with what training moved at layer {layer} (mean over runs): {moved}.",
    ]
    if second is not None:
        sentences.append(f"Compared with the second control, the model after {second['verdict']}.")
    return "\n".join(sentences)


def _applies(config: StudyConfig) -> bool:
    return config.texts.world == REAL_LANGUAGE


def _work(sizes: Sizes) -> Work:
    asked, second = sizes.material.unseen, bool(sizes.material.second_control)
    texts = 2 * (sizes.n_models + second) * len(asked)
    work = sizes.pairs_work(_plain_harmful(), sizes.n_all_models)
    work += sizes.work(asked, answers=second * len(asked), judged=0, texts=texts)
    reported = sizes.material.reported
    return work + sizes.work(reported, texts=2 * second * sizes.n_runs * len(reported))


MANNERS = Stage(
    "manners",
    compare_manners,
    work=_work,
    settings=(*SAMPLING, *TRAINING, "random_directions", "model", "texts"),
    reads=("after", "control"),
    material=("unseen", "trait_prompts", "default_prompts"),
    needs=("measure", "find", "track", FURTHER.name, SECOND.name, "steer", "preference"),
    applies=_applies,
)
