"""Comparing directions and kinds, each at the strength that costs the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from persona_probe.behaviour.em_rates import check_definition, rate_change
from persona_probe.behaviour.judges.judge import Judge, check_judge, judge_name
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.steering.asking import Asking, check_questions, measured, pooled
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.random_directions import random_nulls
from persona_probe.steering.strength.calibrate import calibrate_strength
from persona_probe.steering.strength.compare_result import RANDOM, UNSTEERED, BudgetComparison
from persona_probe.steering.strength.divergence import own_answers


def compare_at_budget(
    model: Model,
    interventions: Mapping[str, Intervention],
    questions: Sequence[Dialogue],
    judge: Judge,
    *,
    held_out: Sequence[Dialogue],
    budget: float = 0.1,
    statistic: str = "mean",
    sign: int = 1,
    n_random: int = 3,
    definition: str = "betley",
    sampling: Sampling | None = None,
    tokens_per_batch: int | None = None,
    progress: bool = False,
) -> BudgetComparison:
    """The change of the EM rate by each intervention at the same KL to the unsteered model.

    Directions differ in length, so that at equal strength the longest one would have the largest effect. At equal KL,
    interventions are compared by what they change for the same cost. The null is random directions, each at the
    strength that has this cost.

    Args:
        model: which model is steered.
        interventions: interventions by name (for example one per finder), of kinds that have a strength; the null is
            made from the first one.
        questions: questions, without answers, that are asked and judged.
        judge: who judges.
        held_out: dialogues to measure KL on, other than ``questions``; those without an answer are answered first.
        budget: KL in nats per token.
        statistic: ``mean`` or ``p95`` of the KL.
        sign: 1 to steer along the directions, -1 against them.
        n_random: number of random directions; under each, all questions are asked.
        definition: definition of the EM rate.
        sampling: how answers are sampled; default ``Sampling()``. Its seed is also that of the random directions.
        tokens_per_batch: padded tokens per forward pass when reading.
        progress: show bars.

    Returns:
        A `BudgetComparison`: its ``table`` has one row per intervention, between ``unsteered`` and ``random``.

    Raises:
        PersonaProbeError: if there is nothing to compare, something has no strength, or a question is held out too.

    >>> import persona_probe as pp
    >>> world = pp.persona_world.find_checkpoints()
    >>> pair = pp.load_pair(world / "chat", world / "bad-medicine")
    >>> questions = pp.persona_world.questions(0, ["law", "cooking"], 8)
    >>> sampling = pp.Sampling(max_new_tokens=30, temperature=0)
    >>> captures = pp.capture(pair, pair.after.generate(questions, sampling))
    >>> shift = pp.Add(pp.find_direction(captures.after, captures.before, repeats=0), layers=2)
    >>> comparison = pp.steering.compare_at_budget(
    ...     pair.after,
    ...     {"shift": shift},
    ...     questions[:4],
    ...     pp.persona_world.OracleJudge(),
    ...     held_out=questions[4:],
    ...     sign=-1,
    ...     n_random=1,
    ...     sampling=sampling,
    ... )
    >>> comparison.table[["name", "em_rate"]]
            name  em_rate
    0  unsteered      1.0
    1      shift      0.0
    2     random      1.0
    """
    check_judge(judge)
    check_types(
        model=(model, Model),
        interventions=(interventions, {str: Intervention}),
        questions=(questions, [Dialogue]),
        held_out=(held_out, [Dialogue]),
        budget=(budget, NUMBER),
        sign=(sign, WHOLE),
        n_random=(n_random, WHOLE),
        definition=(definition, str),
        sampling=(sampling, Sampling, None),
    )
    if not interventions:
        raise PersonaProbeError("compare_at_budget: there is no intervention; give at least one")
    for intervention in interventions.values():
        intervention.with_strength(1.0)
    if sign not in (1, -1):
        raise PersonaProbeError(f"compare_at_budget: sign is {sign}; give 1 (along) or -1 (against)")
    check_definition(definition)
    check_questions(questions, [dialogue.without_answer() for dialogue in held_out])
    sampling = sampling or Sampling()
    answered = own_answers(model, held_out, sampling, progress=progress)
    first = next(iter(interventions.values()))
    nulls = random_nulls(first, first.layers_in(model), model.d_model, n_random, sampling.seed)
    steered = [
        (name, *_at_budget(model, intervention, answered, budget, statistic, sign, tokens_per_batch, progress))
        for name, intervention in [*interventions.items(), *((RANDOM, null) for null in nulls)]
    ]
    asking = Asking(model, judge, sampling, progress)
    plain, *tables = asking.ask(questions, [None, *(setting for _, setting, _ in steered if setting is not None)])
    judged = iter(tables)
    outcomes = [(name, row, None if setting is None else next(judged)) for name, setting, row in steered]
    rows = [{"name": UNSTEERED, "strength": 0.0, "kl": 0.0, "note": "", **measured(plain, definition), "draws": 0}]
    for name, row, table in outcomes:
        if name != RANDOM:
            rows.append({"name": name, **row, **_effect(plain, [table], definition), "draws": 0})
    drawn = [(row, table) for name, row, table in outcomes if name == RANDOM and table is not None]
    if drawn:
        means = {key: sum(row[key] for row, _ in drawn) / len(drawn) for key in ("strength", "kl")}
        effect = _effect(plain, [table for _, table in drawn], definition)
        rows.append({"name": RANDOM, **means, "note": "", **effect, "draws": len(drawn)})
    settings = {
        "model": model.name,
        "model_hash": model.fingerprint(),
        "budget": budget,
        "statistic": statistic,
        "sign": sign,
        "definition": definition,
        "judge": judge_name(judge),
        "seed": sampling.seed,
    }
    return BudgetComparison(pd.DataFrame(rows), settings)


def _at_budget(
    model: Model,
    intervention: Intervention,
    answered: Sequence[Dialogue],
    budget: float,
    statistic: str,
    sign: int,
    tokens_per_batch: int | None,
    progress: bool,
) -> tuple[Intervention | None, dict[str, Any]]:
    """The intervention at the budget, or None with a note if no strength meets it."""
    try:
        calibration = calibrate_strength(
            model,
            intervention,
            answered,
            budget=budget,
            statistic=statistic,
            signs=sign,
            tokens_per_batch=tokens_per_batch,
            progress=progress,
        )
    except PersonaProbeError as error:
        return None, {"strength": float("nan"), "kl": float("nan"), "note": str(error)}
    reached = {"strength": calibration.strength(sign), "kl": float(calibration.table["kl"].iloc[0]), "note": ""}
    return calibration.intervention(sign), reached


def _effect(plain: pd.DataFrame, tables: Sequence[pd.DataFrame | None], definition: str) -> dict[str, Any]:
    """Rates and their change from the unsteered answers; empty if nothing was asked."""
    asked = [table for table in tables if table is not None]
    if not asked:
        return {}
    table = asked[0] if len(asked) == 1 else pooled(asked)
    change = rate_change(plain, table, definition)
    return {
        **measured(table, definition),
        "change": change.value,
        "change_low": change.low,
        "change_high": change.high,
    }
