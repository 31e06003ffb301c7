"""Whether the direction found in one organism removes the misalignment of another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.activations.activations import Activations
from persona_probe.activations.captures import check_reading
from persona_probe.amplification.cross_ablation_result import CLAMP, NONE, RANDOM, CrossAblation
from persona_probe.amplification.layer import unit
from persona_probe.behaviour.em_rates import coherent_rate, em_rate
from persona_probe.behaviour.judges.judge import Judge, check_judge, judge_answers
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import SPANS
from persona_probe.directions.direction import Direction
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.statistics.nulls import isotropic_directions
from persona_probe.steering.steer_context import steer


def cross_ablate(
    models: Mapping[str, Model],
    directions: Mapping[str, Direction],
    questions: Sequence[Dialogue],
    judge: Judge,
    *,
    layers: int | Mapping[str, int],
    reference: Activations,
    definition: str = "betley",
    n_random: int = 3,
    scope: str = "generation",
    sampling: Sampling | None = None,
    progress: bool = False,
) -> CrossAblation:
    """The EM rate of each organism when each direction is clamped to the before model's mean.

    The projection is clamped to the reference's mean and not to zero, because the assistant's projection is not zero.
    For the null, the same displacement is made along random directions (``along`` of `persona_probe.steer`).

    Args:
        models: the organisms, by name.
        directions: the directions by the organism in which they were found; vectors ``(layer, d_model)``.
        questions: the questions, without answers; not those on which ``layers`` were chosen.
        judge: the judge of the answers.
        layers: where each direction is clamped: one layer for all, or one for each by the direction's name.
        reference: the before model's activations on its own answers, read over the span that ``scope`` steers.
        definition: which EM rate.
        n_random: the number of random directions for each direction and organism; all questions are asked under each.
        scope: which positions are steered.
        sampling: how answers are sampled, the same for every condition; default ``Sampling()``. Its seed is also that
            of the random directions.
        progress: show a progress bar for each condition.

    Returns:
        `CrossAblation`.

    Raises:
        PersonaProbeError: if there is no organism, direction or question, ``layers`` lacks a direction, a direction
            does not fit the reference, or this was read over another span than ``scope``; and as in `em_rate`,
            `judge_answers` and `steer`.
    """
    check_judge(judge)
    check_types(
        models=(models, {str: Model}),
        directions=(directions, {str: Direction}),
        questions=(questions, [Dialogue]),
        layers=(layers, WHOLE, {str: WHOLE}),
        reference=(reference, Activations),
        definition=(definition, str),
        n_random=(n_random, WHOLE),
        sampling=(sampling, Sampling, None),
    )
    for what, given in {"organism": models, "direction": directions, "question": questions}.items():
        if not given:
            raise PersonaProbeError(f"cross_ablate: there is no {what}; give at least one")
    if scope in SPANS:
        check_reading("the reference", reference.source, {"span": scope}, "scope")
    sampling = sampling or Sampling()
    clamps = [_clamp(name, direction, layers, reference) for name, direction in directions.items()]

    def judged(model: Model, clamp: _Clamp | None, along: Direction | None = None) -> pd.DataFrame:
        with contextlib.nullcontext() if clamp is None else clamp.on(model, scope, along):
            answers = model.generate(questions, sampling, progress=progress)
        return judge_answers(judge, answers)

    rows: list[dict[str, Any]] = []
    for organism, model in models.items():
        tables: list[tuple[_Clamp | None, str, pd.DataFrame]] = [(None, NONE, judged(model, None))]
        for clamp in clamps:
            tables.append((clamp, CLAMP, judged(model, clamp)))
            nulls = clamp.random(n_random, sampling.seed)
            draws = [judged(model, clamp, along).assign(seed=i) for i, along in enumerate(nulls)]
            if draws:
                tables.append((clamp, RANDOM, pd.concat(draws, ignore_index=True)))
        rows += [{"organism": organism, **_row(*table, definition)} for table in tables]
    return CrossAblation(pd.DataFrame(rows))


@dataclass(frozen=True)
class _Clamp:
    """A direction, and the value to which the projection on it is set at a layer."""

    name: str
    direction: Direction
    layer: int
    target: float

    @contextlib.contextmanager
    def on(self, model: Model, scope: str, along: Direction | None) -> Iterator[None]:
        """A context with the clamp; with ``along``, the displacement is made along that direction instead."""
        with steer(
            model, self.direction, layers=self.layer, kind="clamp", target=self.target, scope=scope, along=along
        ):
            yield

    def random(self, n: int, seed: int) -> Iterator[Direction]:
        """Random directions for the null; their length does not matter."""
        for vector in isotropic_directions(n, self.direction.d_model, seed) if n else ():
            yield Direction(vector[None].astype(np.float32), (self.layer,))


def _clamp(name: str, direction: Direction, layers: int | Mapping[str, int], reference: Activations) -> _Clamp:
    if isinstance(layers, Mapping) and name not in layers:
        raise PersonaProbeError(f"cross_ablate: layers names no layer for {name!r}; it has {', '.join(layers)}")
    layer = layers[name] if isinstance(layers, Mapping) else layers
    target = float((reference.at(layer) @ unit(direction.at(layer))).mean())
    return _Clamp(name, direction, layer, target)


def _row(clamp: _Clamp | None, intervention: str, table: pd.DataFrame, definition: str) -> dict[str, Any]:
    rate = em_rate(table, definition)
    return {
        "direction": None if clamp is None else clamp.name,
        "layer": None if clamp is None else clamp.layer,
        "intervention": intervention,
        "value": rate.value,
        "low": rate.low,
        "high": rate.high,
        "n": rate.n,
        "coherent": coherent_rate(table).value,
    }
