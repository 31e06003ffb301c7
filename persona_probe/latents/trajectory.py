"""Latents along training: their mean activation at every snapshot, beside the EM rate, on one axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from persona_probe.behaviour.em_rate import em_rate
from persona_probe.behaviour.judging import Judge, judge_answers
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.latents.encoding import GROUPS, LatentStatistics, encode_latents
from persona_probe.latents.lead import EM_RATE, lead_time, lead_words
from persona_probe.latents.rate_change import rate_change
from persona_probe.latents.sae import Sae
from persona_probe.models.model import Model
from persona_probe.models.snapshots import Snapshots
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.grouped_means import grouped_mean

AXIS = "training step"


@dataclass(frozen=True)
class LatentTrajectory:
    """Chosen latents, and the EM rate where answers were judged, from before to the last snapshot.

    Attributes:
        table: one row a series and step. ``step``; ``series`` (``latent 963`` or ``EM rate``); ``latent`` (-1 for the
            EM rate); ``value`` with its 95 % interval ``low`` to ``high``: mean activation over dialogues (each the
            mean of its tokens), or a rate; ``change`` from before with ``change_low`` and ``change_high``; ``share`` =
            change / change at the last step (NaN where that is 0); ``frequency`` with ``frequency_low`` and
            ``frequency_high``: share of tokens at which the latent is active (NaN for the EM rate); ``n``: dialogues,
            or answers that the rate is of. Intervals are over questions; changes are paired by question.
        steps: where before (first) and the snapshots stand.
        latents: which latents.
        sums: ``(step, group, latent)`` mean activations of dialogues, summed over the group's dialogues.
        dialogues: ``(group,)`` how many dialogues each group of questions has.
        judged: the judged table of each step that has one.
        about: ``sae``, ``layer``, ``span``, ``definition`` of the EM rate, ``axis`` (what steps are), and names of the
            models.
    """

    table: pd.DataFrame
    steps: tuple[float, ...]
    latents: tuple[int, ...]
    sums: Float[np.ndarray, "step group latent"] = field(repr=False)
    dialogues: Int[np.ndarray, "... group"] = field(repr=False)
    judged: Mapping[float, pd.DataFrame] = field(repr=False)
    about: dict[str, Any]

    def series(self, latent: int | None = None) -> pd.DataFrame:
        """The rows of one latent, or of the EM rate (None), in order of steps; empty if there are none."""
        return self.table[self.table["series"] == (EM_RATE if latent is None else f"latent {latent}")]

    def verdict(self, control: LatentTrajectory | None = None) -> str:
        """A line for each latent: what it does, what the EM rate does, and which comes first, by how much.

        Args:
            control: the same latents along a matched benign training; see `lead_time`.
        """
        against = "before" if control is None else "the control"
        return "\n".join(lead_words(self, lead_time(self, control=control), against))

    def to_frame(self) -> pd.DataFrame:
        """The table."""
        return self.table.copy()


def track_latents(
    sae: Sae,
    latents: Sequence[int],
    snapshots: Snapshots | Iterable[Model],
    before: Model,
    dialogues: Sequence[Dialogue],
    *,
    steps: Sequence[float],
    start: float = 0,
    judged: Mapping[float, pd.DataFrame] | None = None,
    definition: str = "betley",
    span: str = "generation",
    axis: str = AXIS,
    max_groups: int = GROUPS,
    tokens_per_batch: int | None = None,
    allow: bool = False,
    progress: bool = False,
) -> LatentTrajectory:
    """Mean activation of chosen latents at ``before`` and at every snapshot, on the same texts.

    Wang et al. 2025 ("Persona features control emergent misalignment", arXiv:2506.19823, section 3) find that the
    toxic-persona latent is active before the evaluation sees misalignment; `lead_time` says by how much. Snapshots may
    come from narrow training, from realignment (``before`` is then the misaligned model), or be models trained with
    more and more of something (``axis="share of bad data"``).

    Args:
        sae: one for all models.
        latents: which; choose them on other texts or another training, or they look better than they are.
        snapshots: in order; `load_snapshots` holds one in memory at a time.
        before: the model that all changes are measured from.
        dialogues: what all read, usually ``before``'s own answers to questions that no latent was chosen on.
        steps: where each snapshot stands, increasing.
        start: where ``before`` stands.
        judged: judged tables (`judge_answers`) by step: of ``before`` (at ``start``), the last snapshot, any between.
        definition: of the EM rate.
        span: which tokens.
        axis: what ``steps`` are, for figures and sentences.
        max_groups: of questions; intervals are over groups.
        tokens_per_batch: padded tokens a forward.
        allow: warn instead of refusing where the SAE does not fit.
        progress: show a bar for each snapshot's reading.

    Raises:
        PersonaProbeError: if there is no snapshot, or steps are not one for each, or do not increase from ``start``; if
            tables are missing or stand at other steps; for an unknown definition; and as `encode_latents`.
    """
    tables = dict(judged or {})
    places = _check_steps(steps, start)
    if tables:
        _check_judged(tables, places)
        em_rate(tables[places[0]], definition)
    read = {"span": span, "max_groups": max_groups, "tokens_per_batch": tokens_per_batch, "allow": allow}
    measured = _read(sae, latents, snapshots, before, dialogues, places, lambda _step, _model: None, progress, **read)
    return _trajectory(latents, places, measured, tables, definition, axis)


def follow_training(
    sae: Sae,
    latents: Sequence[int],
    snapshots: Snapshots | Iterable[Model],
    before: Model,
    dialogues: Sequence[Dialogue],
    questions: Sequence[Dialogue],
    judge: Judge,
    *,
    steps: Sequence[float],
    start: float = 0,
    definition: str = "betley",
    span: str = "generation",
    axis: str = AXIS,
    n: int = 1,
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 128,
    max_groups: int = GROUPS,
    tokens_per_batch: int | None = None,
    allow: bool = False,
    progress: bool = False,
) -> LatentTrajectory:
    """`track_latents`, with every model's answers to ``questions`` sampled and judged while it is in memory.

    Args:
        sae: as in `track_latents`, and so are the arguments that are not named here.
        latents: which.
        snapshots: in order.
        before: the model that all changes are measured from.
        dialogues: what all read.
        questions: what all are asked, without answers; the EM rate's interval is over them.
        judge: who judges.
        steps: where each snapshot stands, increasing.
        start: where ``before`` stands.
        definition: of the EM rate.
        span: which tokens.
        axis: what ``steps`` are.
        n: answers a question.
        max_new_tokens: longest answer, in tokens.
        temperature: of sampling.
        top_p: nucleus sampling.
        seed: of sampling, the same at every step.
        batch_size: questions a forward.
        max_groups: of questions.
        tokens_per_batch: padded tokens a forward.
        allow: warn instead of refusing where the SAE does not fit.
        progress: show bars.

    Raises:
        PersonaProbeError: as `track_latents`, and as `judge_answers`.
    """
    tables: dict[float, pd.DataFrame] = {}
    sampling: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "seed": seed, "batch_size": batch_size}

    def ask(step: float, model: Model) -> None:
        answers = model.generate(questions, max_new_tokens, n=n, progress=progress, **sampling)
        tables[step] = judge_answers(judge, answers, step=step)
        em_rate(tables[step], definition)

    places = _check_steps(steps, start)
    ask(places[0], before)
    read = {"span": span, "max_groups": max_groups, "tokens_per_batch": tokens_per_batch, "allow": allow}
    measured = _read(sae, latents, snapshots, before, dialogues, places, ask, progress, **read)
    return _trajectory(latents, places, measured, tables, definition, axis)


def trajectory_from(
    statistics: Sequence[LatentStatistics],
    latents: Sequence[int],
    *,
    steps: Sequence[float],
    judged: Mapping[float, pd.DataFrame] | None = None,
    definition: str = "betley",
    axis: str = AXIS,
) -> LatentTrajectory:
    """`track_latents` from statistics that were gathered already, all on the same texts.

    Args:
        statistics: of before, and then of each snapshot.
        latents: which.
        steps: where each of them stands, before first.
        judged: as in `track_latents`.
        definition: of the EM rate.
        axis: what ``steps`` are.

    Raises:
        PersonaProbeError: as `track_latents`; and if the statistics are of other groups of questions or other latents.
    """
    places, tables = _check_steps(steps[1:], *steps[:1]), dict(judged or {})
    _check_count(len(statistics), len(places))
    first = statistics[0]
    for other in statistics[1:]:
        if other.sums.shape != first.sums.shape or (other.dialogues != first.dialogues).any():
            raise PersonaProbeError(
                f"trajectory_from: {other.source.get('model')} was not read on the same texts as "
                f"{first.source.get('model')}; encode all on the same dialogues"
            )
    if tables:
        _check_judged(tables, places)
    return _trajectory(latents, places, [_only(one, list(latents)) for one in statistics], tables, definition, axis)


def _check_steps(steps: Sequence[float], start: float = 0) -> list[float]:
    """Where before and the snapshots stand."""
    places = [start, *steps]
    if len(places) < 2:
        raise PersonaProbeError("track_latents: there are no snapshots to track: steps is empty")
    for earlier, later in itertools.pairwise(places):
        if not earlier < later:
            raise PersonaProbeError(
                f"track_latents: steps must increase from start={start:g}, where before stands, and {later:g} comes "
                f"after {earlier:g}; leave out a snapshot of step {start:g}, and give snapshots and steps in order"
            )
    return places


def _check_judged(tables: Mapping[float, pd.DataFrame], places: Sequence[float]) -> None:
    if unknown := [step for step in tables if step not in places]:
        raise PersonaProbeError(
            f"track_latents: there are answers judged at step {unknown[0]:g}, and no snapshot there"
        )
    for step, what in ((places[0], "before"), (places[-1], "the last snapshot")):
        if step not in tables:
            raise PersonaProbeError(
                f"track_latents: judged has no table of {what} (step {step:g}), between which the EM rate changes"
            )


def _read(
    sae: Sae,
    latents: Sequence[int],
    snapshots: Snapshots | Iterable[Model],
    before: Model,
    dialogues: Sequence[Dialogue],
    places: Sequence[float],
    also: Callable[[float, Model], None],
    progress: bool,
    **settings: Any,
) -> list[LatentStatistics]:
    """Statistics of before and of each snapshot, of the chosen latents alone; ``also`` is done with each snapshot.

    Each is read together with before, so that the same tokens count (attention sinks are before's).
    """
    wanted = sae.check_latents(latents)
    count = len(places) - 1
    if isinstance(snapshots, Sized):
        _check_count(len(snapshots), count)
    kept: list[LatentStatistics] = []
    for number, model in enumerate(snapshots):
        if number == count:
            _check_count(number + 1, count)
        first, after = encode_latents(sae, [before, model], dialogues, examples=0, progress=progress, **settings)
        kept += [_only(first, wanted)] * (not kept) + [_only(after, wanted)]
        also(places[number + 1], model)
    _check_count(max(len(kept) - 1, 0), count)
    return kept


def _check_count(snapshots: int, steps: int) -> None:
    if snapshots != steps:
        raise PersonaProbeError(
            f"track_latents: {steps} steps for {snapshots}{' or more' * (snapshots > steps)} snapshots; give one each"
        )


def _only(statistics: LatentStatistics, latents: Sequence[int]) -> LatentStatistics:
    """The statistics of some latents, so that those of hundreds of snapshots fit into memory."""
    filled = statistics.dialogues > 0
    return replace(
        statistics,
        sums=statistics.sums[filled][:, latents],
        firing=statistics.firing[filled][:, latents],
        squares=statistics.squares[latents],
        dialogues=statistics.dialogues[filled],
    )


def _trajectory(
    latents: Sequence[int],
    places: Sequence[float],
    measured: Sequence[LatentStatistics],
    judged: Mapping[float, pd.DataFrame],
    definition: str,
    axis: str,
) -> LatentTrajectory:
    first = measured[0]
    rows = [
        row for place, one in zip(places, measured, strict=True) for row in _latent_rows(latents, place, one, first)
    ]
    rated = {step: em_rate(judged[step], definition) for step in places if step in judged}
    changes = {step: rate_change(judged[places[0]], judged[step], definition) for step in rated}
    rows += [_rate_row(step, rate, changes[step]) for step, rate in rated.items()]
    table = pd.DataFrame(rows)
    table["series"] = [EM_RATE if latent < 0 else f"latent {latent}" for latent in table["latent"]]
    table = table.sort_values(["latent", "step"], kind="stable")
    table = pd.concat([*(table[table["latent"] == latent] for latent in latents), table[table["latent"] < 0]])
    final = table.groupby("series")["change"].transform("last")
    table["share"] = table["change"] / final.where(final != 0)
    columns = ["step", "series", "latent", "value", "low", "high", "change", "change_low", "change_high", "share"]
    about = {
        **{key: first.source.get(key) for key in ("sae", "layer", "layer_convention", "span")},
        "definition": definition if rated else None,
        "axis": axis,
        "models": [one.source.get("model") for one in measured],
        "fvu": [one.fit.fvu for one in measured],
    }
    return LatentTrajectory(
        table[[*columns, "frequency", "frequency_low", "frequency_high", "n"]].reset_index(drop=True),
        tuple(places),
        tuple(int(latent) for latent in latents),
        np.stack([one.sums for one in measured]),
        first.dialogues,
        judged,
        about,
    )


def _latent_rows(
    latents: Sequence[int], step: float, one: LatentStatistics, before: LatentStatistics
) -> list[dict[str, Any]]:
    mean, firing = grouped_mean(one.sums, one.dialogues), grouped_mean(one.firing, one.dialogues)
    change = grouped_mean(np.asarray(one.sums, dtype=np.float64) - before.sums, one.dialogues)
    columns = {
        "value": mean.mean,
        **dict(zip(("low", "high"), mean.interval(), strict=True)),
        "change": change.mean,
        **dict(zip(("change_low", "change_high"), change.interval(), strict=True)),
        "frequency": firing.mean,
        **dict(zip(("frequency_low", "frequency_high"), firing.interval(), strict=True)),
    }
    n = int(one.dialogues.sum())
    return [
        {"step": step, "latent": int(latent), **{name: float(column[i]) for name, column in columns.items()}, "n": n}
        for i, latent in enumerate(latents)
    ]


def _rate_row(step: float, rate: Estimate, change: Estimate) -> dict[str, Any]:
    return {
        "step": step,
        "latent": -1,
        "value": rate.value,
        "low": rate.low,
        "high": rate.high,
        "n": rate.n,
        "change": change.value,
        "change_low": change.low,
        "change_high": change.high,
        **dict.fromkeys(("frequency", "frequency_low", "frequency_high"), math.nan),
    }
