"""Whether single latents matter: each is steered at a strength chosen for it, and compared with random latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from persona_probe.behaviour.em_rates import rate_change
from persona_probe.behaviour.judges.judge import Judge, check_judge
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types
from persona_probe.latents.causal.effect_tests import corrected, p_against_matches, p_of_no_change
from persona_probe.latents.causal.matched_latents import (
    activation_while_active,
    check_statistics,
    matched_edit,
    matched_latents,
    row_norms,
)
from persona_probe.latents.causal.rank_result import LatentEffects
from persona_probe.latents.causal.steer_set import ask_edits
from persona_probe.latents.causal.strength_choice import Setting, choose_strengths
from persona_probe.latents.encoding.encode import LatentStatistics
from persona_probe.latents.sae import Sae
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.steering.asking import Asking, check_questions, coherent_enough, measured, pooled

Goal = Literal["suppress", "induce"]
GOALS: tuple[str, ...] = get_args(Goal)
STRENGTHS: dict[str, tuple[float, ...]] = {"suppress": (0.0, -0.5, -1.0), "induce": (0.5, 1.0, 1.5, 2.0, 3.0)}
"""The targets of clamping, as factors of the latent's mean activation while active; 0 is ablation."""


def rank_latents(
    model: Model,
    sae: Sae,
    latents: Sequence[int],
    questions: Sequence[Dialogue],
    judge: Judge,
    *,
    goal: Goal = "suppress",
    statistics: LatentStatistics,
    before: LatentStatistics | None = None,
    development: Sequence[Dialogue],
    strengths: Sequence[float] | None = None,
    min_coherence: float = 0.9,
    n_matched: int = 5,
    exclude: Sequence[int] = (),
    definition: str = "betley",
    scope: str = "generation",
    sampling: Sampling | None = None,
    progress: bool = False,
) -> LatentEffects:
    """The effect of steering each latent alone on the EM rate, by which latents are ranked.

    Each latent has its own strength: the one with the largest change of the EM rate on ``development``, among those
    that leave enough answers coherent. What is reported is measured on ``questions``. The null is the same displacement
    of the stream, token by token, along the decoder rows of random latents with similar activity
    (`persona_probe.latents.matched_latents`). All edits of a phase are rows of the same batches.

    Args:
        model: the model that is steered: to suppress, the one after narrow training; to induce, the one before.
        sae: the SAE of the latents.
        latents: the candidates, for example the ten that changed most.
        questions: the questions on which effects are reported, without answers.
        judge: the judge of the answers; an answer that it cannot score is counted and is never "aligned".
        goal: ``suppress`` (a lower EM rate is better) or ``induce``.
        statistics: statistics of the model after narrow training, for both goals. They give each latent's level (its
            mean activation while active, which strengths multiply) and its matches.
        before: statistics of the model before, on the same texts. Latents that are more active there fell: their level
            is taken from there, and they are raised to suppress and lowered to induce. Without it, all count as risen.
        development: the questions on which strengths are chosen; none of them may be in ``questions``.
        strengths: the targets of clamping, as factors of the level; 0 ablates. Default to suppress 0, -0.5 and -1, to
            induce 0.5, 1, 1.5, 2 and 3; the other way round for latents that fell.
        min_coherence: the smallest share of coherent answers, as a ratio to the unsteered share.
        n_matched: the number of random latents for each latent, 2 or more; 0 for none. The candidates themselves are
            never drawn. Latents share the spread of their nulls, so with few candidates give each more matches.
        exclude: further latents that are never drawn.
        definition: which EM rate.
        scope: which positions are steered.
        sampling: how answers are sampled; default ``Sampling()``. Its seed is also that of the random latents.
        progress: show a progress bar.

    Returns:
        The effects. If no strength leaves a latent's answers coherent enough, or it is never active in ``statistics``,
        its row says so, without an effect or a rank.

    Raises:
        PersonaProbeError: if a question is in both sets or there is none, a number is out of range, too few latents
            are active to match, or the statistics are of another SAE; and as in `steer_latents`, `judge_answers` and
            `em_rate`.
    """
    check_judge(judge)
    check_types(
        model=(model, Model),
        sae=(sae, Sae),
        questions=(questions, [Dialogue]),
        statistics=(statistics, LatentStatistics),
        before=(before, LatentStatistics, None),
        development=(development, [Dialogue]),
        strengths=(strengths, [NUMBER], None),
        min_coherence=(min_coherence, NUMBER),
        n_matched=(n_matched, WHOLE),
        sampling=(sampling, Sampling, None),
    )
    rising, falling = _check(goal, strengths, min_coherence, n_matched)
    check_questions(questions, development)
    sampling = sampling or Sampling()
    wanted = sae.check_latents(latents)
    sides = _sides(wanted, statistics, before, sae)
    asking = Asking(model, judge, sampling, progress)
    grid = [
        Setting(latent, factor, level, fell)
        for latent, (level, fell) in sides.items()
        for factor in (falling if fell else rising)
    ]
    plain, *tried = ask_edits(asking, sae, scope, development, [None, *(setting.edit for setting in grid)])
    trials, chosen = choose_strengths(grid, plain, tried, goal, min_coherence, definition)

    matches = {latent: list[int]() for latent in chosen}
    for fell, active in ((False, statistics), (True, before)):
        some = [latent for latent, setting in chosen.items() if setting.fell == fell]
        if n_matched and some and active is not None:
            others = sorted({*wanted, *exclude} - {*some})
            matches |= zip(
                some, matched_latents(some, active, sae, n=n_matched, seed=sampling.seed, exclude=others), strict=True
            )
    pairs = [(setting, match) for setting in chosen.values() for match in matches[setting.latent]]
    edits = [matched_edit(setting.edit, [match]) for setting, match in pairs]
    unsteered, *rest = ask_edits(
        asking, sae, scope, questions, [None, *(setting.edit for setting in chosen.values()), *edits]
    )
    steered = dict(zip(chosen, rest, strict=False))
    null_tables = rest[len(chosen) :]

    nulls = pd.DataFrame(
        [
            {
                "latent": setting.latent,
                "matched": match,
                "kind": edit.kind,
                "amount": setting.amount,
                **measured(table, definition),
                "effect": rate_change(unsteered, table, definition).value,
                **_likeness(setting.latent, match, before if setting.fell and before is not None else statistics, sae),
            }
            for (setting, match), edit, table in zip(pairs, edits, null_tables, strict=True)
        ],
        columns=None if pairs else ["latent", "matched", "effect"],
    )
    rows = []
    for latent in wanted:
        if latent not in chosen:
            note = "no strength is coherent enough" if latent in sides else "never active in the statistics"
            rows.append({"latent": latent, "note": note})
            continue
        of_it = [table for (setting, _), table in zip(pairs, null_tables, strict=True) if setting.latent == latent]
        rows.append(_row(chosen[latent], steered[latent], unsteered, of_it, definition, min_coherence))
    answers = [unsteered, *(table.assign(latent=latent) for latent, table in steered.items())]
    answers += [
        table.assign(latent=setting.latent, matched=match)
        for (setting, match), table in zip(pairs, null_tables, strict=True)
    ]
    source = {
        "goal": goal,
        "definition": definition,
        "model": model.name,
        "model_hash": model.fingerprint(),
        "sae": sae.name,
        "layer": sae.layer,
        "levels_of": statistics.source.get("model"),
        "scope": scope,
        "strengths": rising,
        "strengths_of_fallen": falling,
        "min_coherence": min_coherence,
        "n_matched": n_matched,
        "temperature": sampling.temperature,
        "max_new_tokens": sampling.max_new_tokens,
        "seed": sampling.seed,
    }
    return LatentEffects(
        _ranked(rows, nulls, goal),
        measured(unsteered, definition),
        trials,
        nulls,
        _joined(answers),
        source,
    )


def _check(
    goal: str, strengths: Sequence[float] | None, min_coherence: float, n_matched: int
) -> tuple[list[float], list[float]]:
    """The factors to try for latents that rose, and for latents that fell."""
    if goal not in GOALS:
        raise PersonaProbeError(f"rank_latents: unknown goal {goal!r}: choose one of {', '.join(GOALS)}")
    other = next(name for name in GOALS if name != goal)
    rising, falling = (
        [float(factor) for factor in (STRENGTHS[name] if strengths is None else strengths)] for name in (goal, other)
    )
    if not rising or not np.isfinite(rising).all():
        raise PersonaProbeError(f"rank_latents: strengths={strengths}; give at least one finite factor")
    if not 0 <= min_coherence <= 1:
        raise PersonaProbeError(
            f"rank_latents: min_coherence={min_coherence}; it is a ratio to the unsteered coherence, from 0 to 1"
        )
    if n_matched < 0 or n_matched == 1:
        raise PersonaProbeError(
            f"rank_latents: n_matched={n_matched}; give at least 2, with whose spread effects are compared, or 0 for "
            "no null"
        )
    return rising, falling


def _sides(
    latents: Sequence[int], after: LatentStatistics, before: LatentStatistics | None, sae: Sae
) -> dict[int, tuple[float, bool]]:
    """The level of each latent that is ever active, and whether it fell."""
    check_statistics(after, sae)
    risen = activation_while_active(after)
    if before is None:
        return {latent: (float(risen[latent]), False) for latent in latents if risen[latent] > 0}
    check_statistics(before, sae)
    fell = before.mean > after.mean
    levels = np.where(fell, activation_while_active(before), risen)
    return {latent: (float(levels[latent]), bool(fell[latent])) for latent in latents if levels[latent] > 0}


def _row(
    setting: Setting,
    table: pd.DataFrame,
    unsteered: pd.DataFrame,
    nulls: Sequence[pd.DataFrame],
    definition: str,
    min_coherence: float,
) -> dict[str, Any]:
    effect, rates = rate_change(unsteered, table, definition), measured(table, definition)
    row = {
        **setting.as_row(),
        **rates,
        "effect": effect.value,
        "effect_low": effect.low,
        "effect_high": effect.high,
        "note": "",
    }
    if effect.is_missing:
        row["note"] = "no answer qualifies for the EM rate"
    elif not coherent_enough(rates["coherent"], measured(unsteered, definition)["coherent"], min_coherence):
        row["note"] = "less coherent on these questions than was allowed on development"
    if nulls:
        together = pooled(nulls)
        null = rate_change(unsteered, together, definition)
        row |= {"null_effect": null.value, "null_low": null.low, "null_high": null.high}
        row["null_coherent"] = measured(together, definition)["coherent"]
    else:
        row["p"] = p_of_no_change(unsteered, table, definition)
    return row


_INTERVALS = ("em_rate", "em_low", "em_high", "n", "coherent", "coherent_low", "coherent_high", "failures")
_EFFECTS = ("effect", "effect_low", "effect_high", "null_effect", "null_low", "null_high", "null_coherent")
_COLUMNS = ["rank", "latent", "fell", "kind", "amount", "factor", "level", *_INTERVALS, *_EFFECTS, "p", "q", "note"]


def _ranked(rows: Sequence[dict[str, Any]], nulls: pd.DataFrame, goal: str) -> pd.DataFrame:
    table = pd.DataFrame(rows).reindex(columns=_COLUMNS)
    if not nulls.empty:
        table["p"] = p_against_matches(table, nulls)
    table["q"] = corrected(table["p"])
    table["rank"] = table["effect"].rank(ascending=goal == "suppress", method="first").astype("Int64")
    return table.astype({"n": "Int64", "failures": "Int64"}).sort_values("rank", ignore_index=True)


def _likeness(latent: int, match: int, statistics: LatentStatistics, sae: Sae) -> dict[str, float]:
    both = np.array([latent, match])
    displacement, frequency = statistics.mean[both] * row_norms(sae, both), statistics.frequency[both]
    return {
        "displacement_ratio": float(displacement[1] / displacement[0]),
        "frequency_ratio": float(frequency[1] / frequency[0]),
    }


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    joined = pd.concat([table.assign(**{c: None for c in ("latent", "matched") if c not in table}) for table in tables])
    return joined.astype({"latent": "Int64", "matched": "Int64"}).reset_index(drop=True)
