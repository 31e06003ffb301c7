"""Steering several latents at once, compared with random sets of latents that match them one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from persona_probe.behaviour.em_rates import rate_change
from persona_probe.behaviour.judges.judge import Judge, check_judge, judge_name
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.latents.causal.matched_latents import matched_edit, matched_latents
from persona_probe.latents.causal.steer_set_result import SetEffect
from persona_probe.latents.encoding.encode import LatentStatistics
from persona_probe.latents.sae import Sae
from persona_probe.latents.steering import EditLatents, LatentEdit
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.steering.asking import Asking, check_questions, measured, pooled

_CELLS = 2**25
"""The greatest number of rows x latents in the edits' matrices of one call of generate: 128 MiB each."""


def steer_set(
    model: Model,
    sae: Sae,
    edit: LatentEdit,
    questions: Sequence[Dialogue],
    judge: Judge,
    *,
    statistics: LatentStatistics,
    n_matched: int = 5,
    exclude: Sequence[int] = (),
    definition: str = "betley",
    scope: str = "generation",
    sampling: Sampling | None = None,
    progress: bool = False,
) -> SetEffect:
    """The EM rates unsteered, under an edit of a set of latents, and under the same edit of random matched sets.

    Args:
        model: the model that is steered.
        sae: the SAE of the latents.
        edit: the edit of the set (``LatentEdit(top_ten)`` ablates ten latents).
        questions: the questions, without answers; not those on which the edit was chosen.
        judge: the judge of the answers.
        statistics: the statistics by which latents are matched (`persona_probe.latents.matched_latents`), of a model in
            which the latents are active. A latent that is never active has no match; ablation and scaling need none.
        n_matched: the number of random sets; all questions are asked under each.
        exclude: latents that are never drawn, for example further candidates.
        definition: which EM rate.
        scope: which positions are steered.
        sampling: how answers are sampled; default ``Sampling()``. Its seed is also that of the random sets.
        progress: show a progress bar.

    Returns:
        `SetEffect`; its ``table`` has rows ``unsteered``, ``set``, ``matched set`` (one for each ``draw``) and
        ``matched sets``.

    Raises:
        PersonaProbeError: if there is no question; and as in `matched_latents`, `steer_latents`, `judge_answers` and
            `em_rate`.
    """
    check_judge(judge)
    check_types(
        model=(model, Model),
        sae=(sae, Sae),
        edit=(edit, LatentEdit),
        questions=(questions, [Dialogue]),
        statistics=(statistics, LatentStatistics),
        n_matched=(n_matched, WHOLE),
        sampling=(sampling, Sampling, None),
    )
    check_questions(questions)
    sampling = sampling or Sampling()
    if n_matched < 0:
        raise PersonaProbeError(f"steer_set: n_matched={n_matched}; give 0 or more random sets")
    latents, moved = list(edit.amounts), _moved(edit, statistics)
    matches = (
        matched_latents(moved, statistics, sae, n=n_matched, seed=sampling.seed, exclude=[*latents, *exclude])
        if n_matched
        else []
    )
    sets = list(zip(*matches, strict=True))
    asking = Asking(model, judge, sampling, progress)
    alike = LatentEdit(
        moved if edit.kind == "ablate" else {latent: edit.amounts[latent] for latent in moved}, edit.kind
    )
    nulls = [matched_edit(alike, drawn) for drawn in sets]
    unsteered, steered, *draws = ask_edits(asking, sae, scope, questions, [None, edit, *nulls])

    def row(intervention: str, table: pd.DataFrame, draw: int | None, named: Sequence[int]) -> dict[str, Any]:
        effect = rate_change(unsteered, table, definition)
        return {
            "intervention": intervention,
            "draw": draw,
            "latents": tuple(named),
            **measured(table, definition),
            "effect": effect.value,
            "effect_low": effect.low,
            "effect_high": effect.high,
        }

    rows = [row("set", steered, None, latents)]
    rows += [row("matched set", table, draw, sets[draw]) for draw, table in enumerate(draws)]
    if draws:
        rows.append(row("matched sets", pooled(draws), None, sorted({latent for drawn in sets for latent in drawn})))
    plain = {"intervention": "unsteered", "draw": None, "latents": (), **measured(unsteered, definition)}
    source = {
        "model": model.name,
        "model_hash": model.fingerprint(),
        "sae": sae.name,
        "layer": sae.layer,
        "kind": edit.kind,
        "definition": definition,
        "judge": judge_name(judge),
        "seed": sampling.seed,
    }
    return SetEffect(pd.DataFrame([plain, *rows]).astype({"draw": "Int64"}), source)


def ask_edits(
    asking: Asking, sae: Sae, scope: str, questions: Sequence[Dialogue], edits: Sequence[LatentEdit | None]
) -> list[pd.DataFrame]:
    """The judged table of each edit (None: unsteered), as of `Asking.ask`: each edit is made on different rows."""
    interventions = [None if edit is None else EditLatents(sae, edit, scope=scope) for edit in edits]
    largest = max(1 if edit is None else len(edit.latents) for edit in edits)
    rows = len(questions) * asking.sampling.n
    return asking.ask(questions, interventions, at_once=max(1, math.isqrt(_CELLS // (rows * largest))))


def _moved(edit: LatentEdit, statistics: LatentStatistics) -> list[int]:
    """The latents that need a match: ablating or scaling a silent latent changes nothing."""
    latents = list(edit.amounts)
    if edit.kind not in ("ablate", "scale"):
        return latents
    active = [latent for latent in latents if statistics.mean[latent] > 0]
    if not active:
        raise PersonaProbeError(
            f"steer_set: none of the {len(latents)} latents is active in the statistics (of "
            f"{statistics.source.get('model')}), so to {edit.kind} them does nothing; give statistics of a model in "
            "which they are active"
        )
    return active
