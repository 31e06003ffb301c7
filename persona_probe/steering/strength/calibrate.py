"""The strength that meets a budget: of KL to the unsteered model, or of coherence."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.behaviour.judges.judge import Judge, check_judge, judge_name
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, PersonaProbeWarning, check_types
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.statistics.estimate import Estimate
from persona_probe.steering.asking import Asking, check_questions
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.strength.budgets import CoherenceCurves, Curves, KlCurves
from persona_probe.steering.strength.calibrate_result import StrengthCalibration
from persona_probe.steering.strength.divergence import check_statistic, own_answers
from persona_probe.steering.strength.relative_dose import relative_doses
from persona_probe.steering.strength.search import LARGEST, Search, search_all

_NORM_QUESTIONS = 8
"""How many questions are answered to measure relative doses, where there are no texts to measure KL on."""
_NARROW = 0.1
"""Strengths for a budget of coherence, which is a share of few answers, are found to within a tenth."""


def calibrate_strength(
    model: Model,
    intervention: Intervention,
    dialogues: Sequence[Dialogue] | None = None,
    *,
    budget: float = 0.1,
    statistic: str = "mean",
    signs: int | Sequence[int] = (1, -1),
    tolerance: float = 0.02,
    min_coherence: float | None = None,
    judge: Judge | None = None,
    questions: Sequence[Dialogue] | None = None,
    sampling: Sampling | None = None,
    tokens_per_batch: int | None = None,
    progress: bool = False,
) -> StrengthCalibration:
    """The strength of ``intervention`` that meets a budget, so that methods can be compared at equal cost.

    By KL: the smallest strength at which KL(unsteered || steered) of the next-token distributions, over the positions
    that decide the tokens of the unsteered model's own answers, reaches ``budget`` nats. By coherence (with
    ``min_coherence=``): the largest strength up to which the share of coherent answers stays at ``min_coherence`` times
    the unsteered model's. Strengths are bracketed in steps of four and then narrowed several at a time, for both signs
    together; all strengths of a round are rows of the same batches.

    Args:
        model: which model is steered; it must not be steered already.
        intervention: an intervention of a kind that has a strength (``add``, ``clamp``, or a gate on one).
        dialogues: dialogues that the direction was not found on. The unsteered model first answers those without an
            answer.
        budget: KL in nats per token.
        statistic: ``mean`` or ``p95`` of the KL over tokens.
        signs: whether to steer along the direction (1), against it (-1) or both.
        tolerance: how far above ``budget`` the KL may be, as a share of it.
        min_coherence: instead of ``budget``: smallest share of coherent answers, as a ratio to the unsteered one.
        judge: who judges coherence.
        questions: questions, without answers, on which coherence is judged.
        sampling: how answers are sampled; default ``Sampling()``. Temperature, top-p and ``n`` apply to the answers
            that are judged: KL is always measured on one answer per dialogue, sampled at temperature 1.
        tokens_per_batch: padded tokens per forward pass when reading.
        progress: show bars.

    Returns:
        One strength per sign, with its relative dose and what it reaches, and all that was tried. The strength was
        chosen on these dialogues, so that the KL on others differs a little; its interval says how much.

    Raises:
        PersonaProbeError: if the kind has no strength, a number is out of range, both budgets are given, something that
            a budget needs is missing, or no sign meets the budget.

    Warns:
        PersonaProbeWarning: if one sign does not meet the budget, or a curve is not monotone; the strength at which
            it first crosses the budget is then used.

    >>> import numpy as np
    >>> import persona_probe as pp
    >>> model = pp.load(pp.persona_world.find_checkpoints() / "chat")
    >>> direction = pp.Direction.from_vectors(model, np.ones((model.n_layers, model.d_model)))
    >>> talk = [{"role": "user", "content": "How do I handle the fever?"}, {"role": "assistant", "content": "Rest."}]
    >>> calibration = pp.steering.calibrate_strength(
    ...     model, pp.Add(direction, layers=2), [pp.Dialogue.from_messages(talk)], budget=0.1, signs=1
    ... )
    >>> bool(0.1 <= calibration.table["kl"][0] <= 0.102)
    True
    """
    check_judge(judge, needed=False)
    check_types(
        model=(model, Model),
        intervention=(intervention, Intervention),
        dialogues=(dialogues, [Dialogue], None),
        budget=(budget, NUMBER),
        signs=(signs, WHOLE, [WHOLE]),
        tolerance=(tolerance, NUMBER),
        min_coherence=(min_coherence, NUMBER, None),
        questions=(questions, [Dialogue], None),
        sampling=(sampling, Sampling, None),
    )
    signs = (signs,) if isinstance(signs, int | np.integer) else tuple(signs)
    _check(intervention, signs, tolerance)
    sampling = sampling or Sampling()
    settings: dict[str, Any] = {
        "model": model.name,
        "model_hash": model.fingerprint(),
        "intervention": intervention.describe(),
        "seed": sampling.seed,
        "max_new_tokens": sampling.max_new_tokens,
    }
    if min_coherence is None:
        if judge is not None or questions is not None:
            raise PersonaProbeError(
                "calibrate_strength: judge= and questions= are only used with min_coherence=, which is missing"
            )
        if not 0 < budget < math.inf:
            raise PersonaProbeError(f"calibrate_strength: budget={budget}; give nats above 0, such as 0.1")
        check_statistic(statistic)
        if dialogues is None:
            raise PersonaProbeError("calibrate_strength: a budget in nats needs dialogues= to measure KL on")
        answered = own_answers(model, dialogues, sampling, progress=progress)
        settings |= {"budget": budget, "statistic": statistic, "tolerance": tolerance, "dialogues": len(answered)}
        texts = answered
        curves: Curves = KlCurves(model, intervention, answered, statistic, tokens_per_batch, progress)
        searches = [Search(budget, tolerance) for _ in signs]
    else:
        if judge is None or questions is None:
            raise PersonaProbeError("calibrate_strength: min_coherence= needs judge= and questions=")
        if not 0 < min_coherence < 1:
            raise PersonaProbeError(
                f"calibrate_strength: min_coherence={min_coherence}; it is a ratio to the unsteered coherence, between "
                "0 and 1"
            )
        check_questions(questions)
        texts = own_answers(model, questions[:_NORM_QUESTIONS], sampling, progress=progress)
        asking = Asking(model, judge, sampling, progress)
        curves = CoherenceCurves(asking, intervention, questions)
        settings |= {"budget": min_coherence, "statistic": "coherent", "questions": len(questions)}
        settings |= {
            "unsteered": curves.unsteered.value,
            "judge": judge_name(judge),
            "temperature": sampling.temperature,
        }
        # Slightly more than the share that may be lost, so that losing exactly this share is allowed.
        searches = [Search(1.0 - min_coherence + 1e-9, 0.0, close=_NARROW) for _ in signs]
    search_all(searches, lambda asked: curves.measure([signs[number] * place for number, place in asked]))
    table = pd.DataFrame([_row(sign, search, curves) for sign, search in zip(signs, searches, strict=True)])
    _raise_or_warn(table, settings)
    tried = pd.DataFrame([{"strength": at, **curves.columns(estimate)} for at, estimate in curves.tried.items()])
    # Only where the model still works: far beyond it, the stream overflows.
    usable = [at for at, estimate in curves.tried.items() if np.isfinite(estimate.value)]
    doses = dict(
        zip(usable, relative_doses(model, [intervention.with_strength(at) for at in usable], texts), strict=True)
    )
    for part in (tried, table):
        part.insert(list(part.columns).index("strength") + 1, "dose", part["strength"].map(doses))
    return StrengthCalibration(table, tried, settings, intervention)


def _row(sign: int, search: Search, curves: Curves) -> dict[str, Any]:
    place = curves.strength(search)
    if place is None:
        low, high = search.bracket()
        note = f"{curves.reached} {sign * low:g}" if math.isinf(high) else f"it is passed at strength {sign * high:g}"
        missing = Estimate.missing(note)
        return {"sign": sign, "strength": np.nan, **curves.columns(missing), "monotone": search.rises, "note": note}
    reached = curves.columns(curves.tried[sign * place])
    doubt = curves.doubt(search)
    note = f"not monotone: {doubt}" if doubt else ""
    return {"sign": sign, "strength": sign * place, **reached, "monotone": not doubt, "note": note}


def _check(intervention: Intervention, signs: Sequence[int], tolerance: float) -> None:
    intervention.with_strength(1.0)
    signs = tuple(int(sign) for sign in signs)
    if not signs or len(set(signs)) != len(signs) or not set(signs) <= {1, -1}:
        raise PersonaProbeError(f"calibrate_strength: signs={tuple(signs)}; give 1, -1 or both")
    if not 0 < tolerance < 1:
        raise PersonaProbeError(f"calibrate_strength: tolerance={tolerance}; it is a share, between 0 and 1")


def _raise_or_warn(table: pd.DataFrame, settings: dict[str, Any]) -> None:
    """Raise if no sign meets the budget; warn if one does not, or a curve is not monotone."""
    budget = f"budget {settings['budget']:g} ({settings['statistic']})"
    missed = table[table["strength"].isna()]
    notes = "; ".join(f"sign {row['sign']:+d}: {row['note']}" for row in missed.to_dict("records"))
    if len(missed) == len(table):
        raise PersonaProbeError(
            f"calibrate_strength: no strength up to {LARGEST:g} meets the {budget}: {notes}; steer at other layers or "
            "with another scope, or choose another budget"
        )
    if notes:
        warnings.warn(f"the {budget} is not met with both signs: {notes}", PersonaProbeWarning, stacklevel=3)
    for row in table[table["strength"].notna() & (table["note"] != "")].to_dict("records"):
        warnings.warn(
            f"the curve of {settings['statistic']} is {row['note']}; the strength at which it first crosses the "
            f"{budget}, {row['strength']:.4g}, is used: look at .tried",
            PersonaProbeWarning,
            stacklevel=3,
        )
