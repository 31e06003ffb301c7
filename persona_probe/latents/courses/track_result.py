"""The result of tracking latents along training: their activations, and the EM rate, on one axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from persona_probe.behaviour.em_rates import em_rate, rate_change
from persona_probe.errors import NUMBER, PersonaProbeError, check_types
from persona_probe.latents.encoding.alike import check_alike
from persona_probe.latents.latent_numbers import check_numbers
from persona_probe.result import TableResult
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.grouped_means import grouped_mean

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from persona_probe.latents.encoding.encode import LatentStatistics

AXIS = "training step"
EM_RATE = "EM rate"
"""The name of the series of the behaviour."""


@dataclass(frozen=True)
class LatentTrajectory(TableResult):
    """Chosen latents, and the EM rate if answers were judged, from before to the last snapshot.

    Attributes:
        table: one row per series and step: ``step``; ``series`` (``latent 963`` or ``EM rate``); ``latent`` (-1 for the
            EM rate); ``value`` with its 95 % interval ``low`` to ``high``: the mean activation over dialogues (each the
            mean of its tokens), or a rate; ``change`` from before with ``change_low`` and ``change_high``; ``share`` =
            change / change at the last step (NaN if that is 0); ``frequency`` with ``frequency_low`` and
            ``frequency_high``: the share of tokens at which the latent is active (NaN for the EM rate); ``n``:
            dialogues, or answers for a rate. Intervals are over questions, of this one training run; changes are paired
            by question.
        steps: the steps of before (first) and of the snapshots.
        latents: the latents that were tracked.
        sums: ``(step, group, latent)`` mean activations of dialogues, summed over the group's dialogues.
        dialogues: ``(group,)`` the number of dialogues in each group of questions.
        judged: the judged table of each step that has one.
        about: ``sae``, ``layer``, ``span``, ``definition`` of the EM rate, ``axis`` (what steps are), and the names of
            the models.
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

    def plot(self, *, share: bool = False) -> go.Figure:
        """A figure of mean activations and of the EM rate along training.

        Args:
            share: draw each series as a share of its final change, which shows which is first.
        """
        from persona_probe.figures.trajectory import trajectory

        return trajectory(self.table, share=share, axis=str(self.about["axis"]))

    def headline(self) -> str:
        """How the latents and the EM rate change from the first step to the last."""
        changes = []
        for name in dict.fromkeys(self.table["series"]):
            rows = self.table[self.table["series"] == name]
            first, last = rows.iloc[0], rows.iloc[-1]
            values = (first["value"], last["value"])
            ends = " -> ".join(f"{value:.0%}" if last["latent"] < 0 else f"{value:.3g}" for value in values)
            changes.append(f"{name} {ends}")
        shown = [*changes[:3], f"{len(changes) - 4} more", *changes[-1:]] if len(changes) > 5 else changes
        points = f"{len(self.steps)} points along {self.about['axis']}"
        return f"{points}: {'; '.join(shown)} (lead_time() says which is first)"

    def shown(self) -> pd.DataFrame:
        """Values and changes."""
        return self.table[["step", "series", "value", "low", "high", "change", "change_low", "change_high", "n"]]


def trajectory_from(
    statistics: Sequence[LatentStatistics],
    latents: Sequence[int],
    *,
    steps: Sequence[float],
    judged: Mapping[float, pd.DataFrame] | None = None,
    definition: str = "betley",
    axis: str = AXIS,
) -> LatentTrajectory:
    """The trajectory of `track_latents`, from statistics that exist already, all on the same texts.

    Args:
        statistics: the statistics of before, and then of each snapshot.
        latents: the latents to track.
        steps: the step of each of them, starting with before.
        judged: judged tables by step, as in `track_latents`.
        definition: which EM rate.
        axis: what ``steps`` are, for figures and sentences.

    Raises:
        PersonaProbeError: as in `track_latents`; and if the statistics differ in SAE, layer, span, chat template or
            groups of questions, or a latent does not exist.
    """
    from persona_probe.latents.encoding.encode import LatentStatistics

    check_types(statistics=(statistics, [LatentStatistics]), steps=(steps, [NUMBER]))
    places, tables = check_steps(steps[1:], *steps[:1]), dict(judged or {})
    check_count(len(statistics), len(places))
    first = statistics[0]
    wanted = check_numbers(latents, first.sums.shape[1], str(first.source.get("sae")))
    for other in statistics[1:]:
        check_alike(first, other)
        if (other.dialogues != first.dialogues).any():
            raise PersonaProbeError(
                f"trajectory_from: {other.source.get('model')} was not read on the same texts as "
                f"{first.source.get('model')}; encode all on the same dialogues"
            )
    if tables:
        check_judged(tables, places)
    return assemble(wanted, places, [of_latents(one, wanted) for one in statistics], tables, definition, axis)


def check_steps(steps: Sequence[float], start: float = 0) -> list[float]:
    """The steps of before and of the snapshots, checked."""
    places = [start, *steps]
    if len(places) < 2:
        raise PersonaProbeError("track_latents: there are no snapshots to track: steps is empty")
    for earlier, later in itertools.pairwise(places):
        if not earlier < later:
            raise PersonaProbeError(
                f"track_latents: steps must increase from start={start:g}, the step of before, but {later:g} comes "
                f"after {earlier:g}; leave out a snapshot of step {start:g}, and give snapshots and steps in order"
            )
    return places


def check_judged(tables: Mapping[float, pd.DataFrame], places: Sequence[float]) -> None:
    """Raise if judged tables belong to other steps, or that of before or of the last snapshot is missing."""
    if unknown := [step for step in tables if step not in places]:
        raise PersonaProbeError(
            f"track_latents: there are answers judged at step {unknown[0]:g}, but no snapshot there"
        )
    for step, what in ((places[0], "before"), (places[-1], "the last snapshot")):
        if step not in tables:
            raise PersonaProbeError(
                f"track_latents: judged has no table of {what} (step {step:g}); those of both ends are needed"
            )


def check_count(snapshots: int, steps: int) -> None:
    """Raise if there is not one step for each snapshot."""
    if snapshots != steps:
        raise PersonaProbeError(
            f"track_latents: {steps} steps for {snapshots}{' or more' * (snapshots > steps)} snapshots; give one for "
            "each"
        )


def of_latents(statistics: LatentStatistics, latents: Sequence[int]) -> LatentStatistics:
    """The statistics of some latents only, so that those of hundreds of snapshots fit into memory."""
    filled = statistics.dialogues > 0
    return replace(
        statistics,
        sums=statistics.sums[filled][:, latents],
        firing=statistics.firing[filled][:, latents],
        squares=statistics.squares[latents],
        dialogues=statistics.dialogues[filled],
    )


def assemble(
    latents: Sequence[int],
    places: Sequence[float],
    measured: Sequence[LatentStatistics],
    judged: Mapping[float, pd.DataFrame],
    definition: str,
    axis: str,
) -> LatentTrajectory:
    """The trajectory from measured statistics and judged answers, which were checked before."""
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
