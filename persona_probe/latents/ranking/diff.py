"""Which latents moved from before to after, up or down, and more than they do under a benign fine-tune?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import false_discovery_control

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types
from persona_probe.latents.encoding.alike import SAME_SOURCE, check_alike
from persona_probe.latents.encoding.encode import GROUPS, LatentStatistics, encode_latents, question_groups
from persona_probe.latents.ranking.diff_result import LatentTable, Moved
from persona_probe.latents.ranking.run_null import beyond_other_runs, controls_needed, p_over_runs
from persona_probe.latents.sae import Sae
from persona_probe.models.model import Model
from persona_probe.statistics.grouped_means import GroupedMean, grouped_difference

LEAST_SD = 0.5
"""A medium effect (Cohen 1988, chapter 2): with many tokens every latent's change differs significantly from zero."""
ALPHA = 0.05
_QUANTILE = 0.975
_RATIOS = ("change_sd", "low_sd", "high_sd", "excess_sd", "control_sd", "specificity")


def diff_latents(
    before: Model,
    after: Model,
    sae: Sae,
    dialogues: Sequence[Dialogue] | Mapping[str, Sequence[Dialogue]],
    *,
    control: Model | Sequence[Model] | None = None,
    span: str = "generation",
    least_sd: float = LEAST_SD,
    alpha: float = ALPHA,
    max_groups: int = GROUPS,
    tokens_per_batch: int | None = None,
    allow_unrelated: bool = False,
    progress: bool = False,
) -> LatentTable:
    """Latents ranked by their change from before to after, compared with the change that benign training makes.

    After Wang et al. 2025 ("Persona features control emergent misalignment", arXiv:2506.19823, section 3), who rank by
    the change of mean activation on the same prompts; here with intervals, a control and false-discovery control.

    Args:
        before: the model before narrow training.
        after: the model after it.
        sae: one for all models, usually trained on ``before`` (and ``after``).
        dialogues: the same texts for all models, which leaves only the models to differ; or each model's own answers to
            the same questions, as a mapping with ``before``, ``after`` and, with a control, ``control`` (one list for
            each control: ``control 0``, ``control 1``, ... where there are several).
        control: a matched benign fine-tune, or several runs of it. A benign run in after's place would pass as often as
            1 in K + 1 with K of them, so it takes 19 to say that a latent rose or fell at 5 %; with fewer, the finding
            says so.
        span: which tokens.
        least_sd: smallest change that counts, in standard deviations over dialogues.
        alpha: false-discovery rate over latents, and the level of the test over runs.
        max_groups: the largest number of groups of questions; intervals are over groups.
        tokens_per_batch: padded tokens per forward pass.
        allow_unrelated: warn instead of refusing where the SAE does not fit.
        progress: show a bar.

    Raises:
        PersonaProbeError: as `encode_latents`; and if the answers of a model are missing, or are to other questions.
    """
    check_types(
        before=(before, Model),
        after=(after, Model),
        sae=(sae, Sae),
        dialogues=(dialogues, [Dialogue], Mapping),
        control=(control, Model, [Model], None),
        max_groups=(max_groups, WHOLE),
    )
    controls = [] if control is None else [control] if isinstance(control, Model) else list(control)
    models = [before, after, *controls]
    null_names = ["control"] if len(controls) == 1 else [f"control {i}" for i in range(len(controls))]
    names = ["before", "after", *null_names]
    settings: dict[str, Any] = {
        "tokens_per_batch": tokens_per_batch,
        "allow_unrelated": allow_unrelated,
        "progress": progress,
    }
    if not isinstance(dialogues, Mapping):
        statistics = encode_latents(models, sae, dialogues, span, max_groups=max_groups, **settings)
    else:
        groups = _own_groups(dialogues, names, max_groups)
        statistics = [
            encode_latents([model], sae, dialogues[name], span, groups=groups[name], **settings)[0]
            for name, model in zip(names, models, strict=True)
        ]
    first, second, *rest = statistics
    return compare_latents(first, second, rest, least_sd=least_sd, alpha=alpha)


def compare_latents(
    before: LatentStatistics,
    after: LatentStatistics,
    controls: Sequence[LatentStatistics] = (),
    *,
    least_sd: float = LEAST_SD,
    alpha: float = ALPHA,
) -> LatentTable:
    """`diff_latents` from statistics that exist already, for example of models that do not fit into memory together.

    Args:
        before: statistics of the model before.
        after: statistics of the model after, in the same groups of questions.
        controls: statistics of benign fine-tunes.
        least_sd: smallest change that counts.
        alpha: false-discovery rate over latents, and the level of the test over runs.

    Raises:
        PersonaProbeError: if they are of different SAEs, spans or groups, or a number is out of range.
    """
    check_types(
        before=(before, LatentStatistics),
        after=(after, LatentStatistics),
        controls=(controls, [LatentStatistics]),
        least_sd=(least_sd, NUMBER),
        alpha=(alpha, NUMBER),
    )
    if not least_sd >= 0 or not 0 < alpha < 1:
        raise PersonaProbeError(f"least_sd is {least_sd}, alpha {alpha}; they must be >= 0, and between 0 and 1")
    for other in (after, *controls):
        check_alike(before, other)
    for other in controls:
        same = [
            one.source["model"]
            for one in (before, after)
            if one.source.get("model_hash") == other.source.get("model_hash")
        ]
        if same and other.source.get("model_hash") is not None:
            raise PersonaProbeError(
                f"the control {other.source.get('model')} has the same weights as {same[0]}; give a matched benign "
                "fine-tune, or none"
            )
    hashes = [stats.source["model_hash"] for stats in controls if stats.source.get("model_hash") is not None]
    if len(set(hashes)) < len(hashes):
        raise PersonaProbeError("two controls have the same weights; each must be a training run of its own")
    change = _change(before, after)
    low, high = change.interval()
    models = [before, after, *controls]
    live = np.any([stats.sums.any(axis=0) for stats in models], axis=0)
    sd = np.sqrt(np.mean([stats.variance for stats in models], axis=0))
    shifts = np.stack([stats.mean - before.mean for stats in models[1:]])
    in_sd = np.divide(shifts, sd, out=np.zeros_like(shifts), where=live & (sd > 0))
    far = beyond_other_runs(in_sd)
    with np.errstate(divide="ignore", invalid="ignore"):
        frame = pd.DataFrame(
            {
                "latent": np.arange(len(live)),
                "before": before.mean,
                "after": after.mean,
                "control": np.nan,
                "change": change.mean,
                "low": low,
                "high": high,
                "sd": sd,
                "change_sd": change.mean / sd,
                "low_sd": low / sd,
                "high_sd": high / sd,
                "control_sd": np.nan,
                "excess_sd": change.mean / sd,
                "specificity": np.nan,
                "firing_before": before.frequency,
                "firing_after": after.frequency,
                "p": change.p_values(),
                "p_runs": p_over_runs(far) if controls else np.nan,
            }
        )
        if controls:
            _add_controls(frame, after, controls, in_sd, live)
    null_sd = float(np.abs(in_sd[1:]).max(initial=0.0))
    frame.loc[~live | (sd == 0), [*_RATIOS, "p", "p_runs"]] = np.nan
    tested = frame["p"].notna().to_numpy()
    frame["q"] = np.nan
    if tested.any():
        frame.loc[tested, "q"] = false_discovery_control(frame.loc[tested, "p"])
    frame["finding"] = _findings(frame, live, far[0], null_sd, least_sd, alpha, len(controls))
    order = frame["change_sd"].abs().sort_values(ascending=False, kind="stable").index
    about = {
        **{key: before.source[key] for key in (*SAME_SOURCE, "layer_convention") if key in before.source},
        "before": before.source.get("model"),
        "after": after.source.get("model"),
        "control": [stats.source.get("model") for stats in controls],
        "controls": len(controls),
        "dialogues": int(before.dialogues.sum()),
        "groups": int((before.dialogues > 0).sum()),
        "tokens": [stats.tokens for stats in (before, after, *controls)],
        "fvu": [stats.fit.fvu for stats in (before, after, *controls)],
        "null_sd": null_sd,
        "least_sd": least_sd,
        "alpha": alpha,
    }
    return LatentTable(frame.loc[order].reset_index(drop=True), about)


def _add_controls(
    frame: pd.DataFrame,
    after: LatentStatistics,
    controls: Sequence[LatentStatistics],
    in_sd: Float[np.ndarray, "run latent"],
    live: Bool[np.ndarray, "... latent"],
) -> None:
    """Fill the columns that a control gives.

    Of several controls the one nearest to after counts, and the largest p: what one benign run does is not a finding.
    """
    own, theirs = in_sd[0], in_sd[1:]
    nearest = np.abs(own - theirs).argmin(axis=0)
    columns = np.arange(len(own))
    control_sd = theirs[nearest, columns]
    frame["control"] = np.stack([stats.mean for stats in controls])[nearest, columns]
    frame["control_sd"] = control_sd
    frame["excess_sd"] = frame["change_sd"] - control_sd
    moved = np.abs(theirs[:, live]).max(axis=0)
    usual = float(np.quantile(moved, _QUANTILE)) if moved.size else 0.0
    frame["specificity"] = frame["excess_sd"].abs() / np.maximum(np.abs(control_sd), usual)
    frame["p"] = np.max([_change(stats, after).p_values() for stats in controls], axis=0)


def _change(first: LatentStatistics, second: LatentStatistics) -> GroupedMean:
    return grouped_difference(second.sums, second.dialogues, first.sums, first.dialogues)


def _findings(
    frame: pd.DataFrame,
    live: Bool[np.ndarray, "... latent"],
    far: Float[np.ndarray, "... latent"],
    null_sd: float,
    least_sd: float,
    alpha: float,
    controls: int,
) -> list[Moved]:
    enough = controls >= controls_needed(alpha)
    if not controls:
        usual, rose, fell = far <= 0, Moved.ROSE_ALONE, Moved.FELL_ALONE
    elif enough:
        usual, rose, fell = ~(frame["p_runs"].to_numpy() <= alpha), Moved.ROSE, Moved.FELL
    else:
        usual, rose, fell = far <= null_sd, Moved.ROSE_FEW, Moved.FELL_FEW
    undetected = ~(frame["q"].to_numpy() <= alpha)
    conditions = [~live, undetected, far < least_sd, usual, frame["change_sd"].to_numpy() > 0]
    names = [Moved.SILENT, Moved.UNDETECTED, Moved.SMALL, Moved.CONTROL, rose]
    chosen = np.select(conditions, range(len(names)), default=len(names))
    return [[*names, fell][index] for index in chosen]


def _own_groups(
    dialogues: Mapping[str, Sequence[Dialogue]], names: Sequence[str], max_groups: int
) -> dict[str, np.ndarray]:
    """The groups of each model's own answers, the same for the same questions."""
    if missing := [name for name in names if name not in dialogues]:
        raise PersonaProbeError(
            f"diff_latents: there are answers of {', '.join(dialogues)}, but none of {missing[0]}; give one list for "
            "each model"
        )
    asked = {name: {dialogue.question for dialogue in dialogues[name]} for name in names}
    for name in names:
        if None in asked[name]:
            raise PersonaProbeError(
                f"diff_latents: a dialogue of {name} names no question, so the models' answers cannot be matched"
            )
        if asked[name] != asked["before"]:
            odd = sorted(map(str, asked[name] ^ asked["before"]))[0]
            raise PersonaProbeError(
                f"diff_latents: before and {name} answered different questions, for example {odd!r}"
            )
    everything = [dialogue for name in names for dialogue in dialogues[name]]
    groups = np.split(question_groups(everything, max_groups), np.cumsum([len(dialogues[name]) for name in names])[:-1])
    return dict(zip(names, groups, strict=True))
