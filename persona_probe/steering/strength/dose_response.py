"""The effect of each strength, compared with random directions at equal norm and at equal KL."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.behaviour.em_rates import check_definition
from persona_probe.behaviour.judges.judge import Judge, check_judge, judge_name
from persona_probe.behaviour.multiple_choice import Choice, choice_accuracy, score_choices
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.rates import mean_estimate
from persona_probe.steering.asking import Asking, check_questions, measured, pooled
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.random_directions import random_nulls
from persona_probe.steering.steer_context import steer
from persona_probe.steering.strength.divergence import Divergence, measure_divergence, own_answers
from persona_probe.steering.strength.dose_response_result import (
    DIRECTION,
    EQUAL_KL,
    EQUAL_NORM,
    UNSTEERED,
    DoseResponse,
)
from persona_probe.steering.strength.relative_dose import relative_doses
from persona_probe.steering.strength.search import Search, search_all

BUDGETS = (0.03, 0.1, 0.3, 1.0)
"""The KL, in nats per token, at which behaviour is measured by default."""
_TOLERANCE = 0.05
"""How far a null's KL may be above the direction's, as a share."""


@dataclass(frozen=True)
class _Dose:
    """An intervention, its condition, the direction's strength that it is compared with, its draw and own strength."""

    condition: str
    strength: float
    draw: int | None
    own_strength: float
    intervention: Intervention


def dose_response(
    model: Model,
    intervention: Intervention,
    questions: Sequence[Dialogue],
    judge: Judge,
    *,
    strengths: Sequence[float] | None = None,
    held_out: Sequence[Dialogue],
    choices: Sequence[Choice] | None = None,
    n_random: int = 3,
    definition: str = "betley",
    sampling: Sampling | None = None,
    tokens_per_batch: int | None = None,
    progress: bool = False,
) -> DoseResponse:
    """Behaviour and its cost at each strength, compared with two nulls.

    The nulls are random directions (uniform on the sphere). At equal norm they move the stream as far as the direction
    does (`Intervention.along`); at equal KL, each has the strength at which its mean KL is that of the direction, so
    that it disturbs the model's output equally.

    Args:
        model: which model is steered; it must not be steered already.
        intervention: an intervention of a kind that has a strength and a null (``add``, ``clamp`` at one layer, or a
            gate on one).
        questions: questions, without answers, that are asked and judged.
        judge: who judges.
        strengths: strengths of ``intervention``, of either sign; ``unsteered`` (0) is always included. Default: those
            at which the mean KL is 0.03, 0.1, 0.3 and 1 nat per token, along the direction.
        held_out: dialogues to measure KL and perplexity on; those without an answer are answered unsteered first.
        choices: multiple-choice questions, for side effects on capability.
        n_random: number of random directions; under each, all questions are asked at every strength, under both nulls.
            0 for none.
        definition: definition of the EM rate.
        sampling: how answers are sampled; default ``Sampling()``. Its seed is also that of the random directions.
        tokens_per_batch: padded tokens per forward pass when reading.
        progress: show bars.

    Returns:
        Tables of all conditions and of each random direction, and the judged answers.

    Raises:
        PersonaProbeError: if there is no question or strength, a number is out of range, the kind has no strength or no
            null; and as `judge_answers` and `em_rate`.

    >>> import persona_probe as pp
    >>> model = pp.load(pp.persona_world.find_checkpoints() / "chat")
    >>> direction = pp.Direction.from_vectors(model, np.ones((model.n_layers, model.d_model)))
    >>> questions = pp.persona_world.questions(0, ["law"], 2)
    >>> response = pp.steering.dose_response(
    ...     model,
    ...     pp.Add(direction, layers=2),
    ...     questions,
    ...     pp.persona_world.OracleJudge(),
    ...     strengths=[0.1],
    ...     held_out=questions,
    ...     n_random=1,
    ...     sampling=pp.Sampling(max_new_tokens=20, temperature=0),
    ... )
    >>> list(response.table["condition"])
    ['unsteered', 'direction', 'random, equal norm', 'random, equal KL']
    """
    check_judge(judge)
    check_types(
        model=(model, Model),
        intervention=(intervention, Intervention),
        questions=(questions, [Dialogue]),
        strengths=(strengths, [NUMBER], None),
        held_out=(held_out, [Dialogue]),
        choices=(choices, [Choice], None),
        n_random=(n_random, WHOLE),
        definition=(definition, str),
        sampling=(sampling, Sampling, None),
    )
    sampling = sampling or Sampling()
    wanted = [] if strengths is None else _strengths(strengths)
    check_questions(questions)
    check_definition(definition)
    nulls = random_nulls(intervention, intervention.layers_in(model), model.d_model, n_random, sampling.seed)
    answered = own_answers(model, held_out, sampling, progress=progress)

    def read(steered: Sequence[Intervention]) -> Divergence:
        return measure_divergence(model, steered, answered, tokens_per_batch=tokens_per_batch, progress=progress)

    wanted = wanted or _at_budgets(intervention, read)
    doses = [_Dose(DIRECTION, at, None, at, intervention.with_strength(at)) for at in wanted]
    doses += [
        _Dose(EQUAL_NORM, at, draw, at, null.with_strength(at)) for draw, null in enumerate(nulls) for at in wanted
    ]
    relative = relative_doses(model, [intervention.with_strength(at) for at in wanted], answered)
    relative_at = {at: math.copysign(dose, at) for at, dose in zip(wanted, relative, strict=True)}
    first = read([dose.intervention for dose in doses])
    known = {(d.condition, d.draw, d.strength): first.estimate(i).value for i, d in enumerate(doses)}
    matched = _at_equal_kl(nulls, wanted, known, read)
    divergence = _joined(first, read([dose.intervention for dose in matched])) if matched else first
    doses += matched

    asking = Asking(model, judge, sampling, progress)
    unsteered, *tables = asking.ask(questions, [None, *(dose.intervention for dose in doses)])
    plain, *chosen = _choices(model, [None, *(d.intervention for d in doses)], choices, tokens_per_batch, progress)

    def figures(numbers: Sequence[int]) -> dict[str, Any]:
        judged = [tables[number] for number in numbers]
        alone = len(numbers) == 1
        table = judged[0] if alone else pooled(judged)
        scored = [chosen[number] for number in numbers if chosen[number] is not None]
        which = numbers[0] if alone else numbers
        return {
            **_behaviour(table, definition),
            **_named("kl", divergence.estimate(which)),
            **_named("perplexity", divergence.perplexity(which)),
            **_named("accuracy", _accuracy(scored)),
        }

    nothing = Estimate(0.0, 0.0, 0.0, len(divergence.questions), "the same model")
    rows = [
        {
            "condition": UNSTEERED,
            "strength": 0.0,
            "dose": 0.0,
            "own_strength": 0.0,
            "draws": 0,
            **_behaviour(unsteered, definition),
            **_named("kl", nothing),
            **_named("perplexity", divergence.perplexity()),
            **_named("accuracy", _accuracy([plain])),
        }
    ]
    each = []
    for condition in (DIRECTION, EQUAL_NORM, EQUAL_KL):
        for at in wanted:
            numbers = [i for i, dose in enumerate(doses) if dose.condition == condition and dose.strength == at]
            if not numbers:
                continue
            mean = float(np.mean([doses[number].own_strength for number in numbers]))
            about = {"condition": condition, "strength": at, "dose": relative_at[at], "own_strength": mean}
            draws = 0 if condition == DIRECTION else len(numbers)
            rows.append({**about, "draws": draws, **figures(numbers)})
            for number in numbers if draws else ():
                about = {"condition": condition, "strength": at, "dose": relative_at[at], "draw": doses[number].draw}
                each.append({**about, "own_strength": doses[number].own_strength, **figures([number])})
    answers = [unsteered.assign(condition=UNSTEERED, strength=0.0, draw=None)]
    answers += [
        table.assign(condition=dose.condition, strength=dose.strength, draw=dose.draw)
        for dose, table in zip(doses, tables, strict=True)
    ]
    settings = {
        "model": model.name,
        "model_hash": model.fingerprint(),
        "intervention": intervention.describe(),
        "definition": definition,
        "judge": judge_name(judge),
        "questions": len(questions),
        "held_out": len(answered),
        "choices": len(choices or ()),
        "n_random": n_random,
        "temperature": sampling.temperature,
        "max_new_tokens": sampling.max_new_tokens,
        "seed": sampling.seed,
    }
    joined = pd.concat([table.astype({"draw": "Int64"}) for table in answers], ignore_index=True)
    return DoseResponse(pd.DataFrame(rows), pd.DataFrame(each), joined, settings)


def _at_equal_kl(
    nulls: Sequence[Intervention],
    strengths: Sequence[float],
    known: Mapping[tuple[str, int | None, float], float],
    read: Callable[[Sequence[Intervention]], Divergence],
) -> list[_Dose]:
    """Each null at the strengths at which its KL is the direction's; left out if it never reaches that KL.

    Args:
        nulls: interventions along random directions.
        strengths: strengths of the direction.
        known: mean KL of the direction and at equal norm, by condition, draw (None: the direction) and strength.
        read: measures the KL of some interventions.
    """
    curves: dict[tuple[int, int], dict[float, float]] = {}
    searches, places = [], []
    for draw in range(len(nulls)):
        for at in strengths:
            target, sign = known[DIRECTION, None, at], 1 if at > 0 else -1
            if not 0 < target < math.inf:
                continue
            # The search starts from what was measured at equal norm.
            start = {abs(s): known[EQUAL_NORM, draw, s] for s in strengths if s * sign > 0}
            points = curves.setdefault((draw, sign), start)
            searches.append(Search(target, _TOLERANCE, points))
            places.append((draw, at, sign))

    def measure(asked: list[tuple[int, float]]) -> list[float]:
        steered = [nulls[places[number][0]].with_strength(places[number][2] * place) for number, place in asked]
        divergence = read(steered)
        return [divergence.estimate(number).value for number in range(len(steered))]

    search_all(searches, measure)
    return [
        _Dose(EQUAL_KL, at, draw, sign * search.found, nulls[draw].with_strength(sign * search.found))
        for (draw, at, sign), search in zip(places, searches, strict=True)
        if search.found is not None
    ]


def _at_budgets(intervention: Intervention, read: Callable[[Sequence[Intervention]], Divergence]) -> list[float]:
    """The strengths at which the KL reaches each default budget that it can reach.

    Raises:
        PersonaProbeError: if it reaches none.
    """
    points: dict[float, float] = {}
    searches = [Search(budget, _TOLERANCE, points) for budget in BUDGETS]

    def measure(asked: list[tuple[int, float]]) -> list[float]:
        divergence = read([intervention.with_strength(place) for _, place in asked])
        return [divergence.estimate(number).value for number in range(len(asked))]

    search_all(searches, measure)
    if found := sorted({search.found for search in searches if search.found is not None}):
        return found
    raise PersonaProbeError(
        f"dose_response: no strength reaches a KL of {BUDGETS[0]:g} nats; steer at other layers or with another scope, "
        "or give strengths="
    )


def _strengths(strengths: Sequence[float]) -> list[float]:
    wanted = sorted({float(strength) for strength in strengths} - {0.0})
    if not wanted or not all(math.isfinite(strength) for strength in wanted):
        raise PersonaProbeError(f"dose_response: strengths={list(strengths)}; give finite ones, other than 0")
    return wanted


def _choices(
    model: Model,
    interventions: Sequence[Intervention | None],
    choices: Sequence[Choice] | None,
    tokens_per_batch: int | None,
    progress: bool,
) -> list[pd.DataFrame | None]:
    """The scored table of each intervention, all read as rows of the same batches."""
    if not choices:
        return [None] * len(interventions)
    settings = [number for number in range(len(interventions)) for _ in choices]
    with steer(model, interventions):
        table = score_choices(
            model,
            [*choices] * len(interventions),
            rows=settings,
            tokens_per_batch=tokens_per_batch,
            progress=progress,
        )
    return [part for _, part in table.groupby(table["item"] // len(choices), sort=True)]


def _accuracy(tables: Sequence[pd.DataFrame | None]) -> Estimate:
    scored = [table for table in tables if table is not None]
    if not scored:
        return Estimate.missing("no multiple-choice questions were given")
    return choice_accuracy(scored[0] if len(scored) == 1 else pooled(scored))


def _behaviour(table: pd.DataFrame, definition: str) -> dict[str, Any]:
    known = table[table["aligned"].notna()]
    if known.empty:
        score = Estimate.missing("no answer was scored")
    else:
        seeds = known["seed"].to_numpy() if known["seed"].notna().all() else None
        score = mean_estimate(known["aligned"].to_numpy(), questions=known["question"].to_numpy(), seeds=seeds)
    return {**measured(table, definition), **_named("aligned", score)}


def _named(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _joined(first: Divergence, second: Divergence) -> Divergence:
    return replace(
        first,
        kl=np.concatenate([first.kl, second.kl]),
        log_probs=np.concatenate([first.log_probs, second.log_probs]),
    )
