"""Which changes first along training, the latent or the behaviour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types
from persona_probe.latents.courses.crossings import (
    crossings,
    difference_ends,
    latent_draws,
    rate_draws,
    resample_weights,
)
from persona_probe.latents.courses.track_result import EM_RATE, LatentTrajectory
from persona_probe.latents.latent_numbers import whole_numbers
from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

HALF, SIGNIFICANT = "half", "significant"


def lead_time(
    trajectory: LatentTrajectory,
    latents: Sequence[int] | None = None,
    *,
    control: LatentTrajectory | None = None,
    fraction: float = 0.5,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> LatentLeads:
    """How far each latent is ahead of the EM rate, in the trajectory's units (training steps, shares of bad data).

    There are two criteria, which fail in different ways:

    ``half``: where a series reaches half of its final change, by linear interpolation between snapshots, after it was
    made monotone (`persona_probe.latents.courses.crossings.crossings`). It does not depend on the precision of either
    measurement, but on how the EM rate depends on the activation: a rate that needs a high activation is later on the
    way up for this reason alone, and earlier on the way down. So follow realignment too: a latent that leads on the way
    up and lags on the way down shows the same event on another scale, not an earlier one. The interval is an expanded
    percentile bootstrap, separately over the questions of the texts and over the judged questions. Where it includes 0,
    the order is not known.

    ``significant``: the first snapshot from which the change from before is significant (its interval excludes 0, and
    does so to the end); with a ``control``, the interval must exclude all changes up to the control's largest. This is
    what one would notice first with this much data: the latent, read at many tokens, is measured more precisely than a
    rate of as many answers, and with more answers the EM rate's step is earlier. So it is a statement about sample
    sizes, and has no interval: the latent is first here even if both courses are the same. Without a control it says
    little, because any training moves most latents a little.

    The interval does not include how training runs differ: repeat the training with other seeds, and compare the leads.

    Args:
        trajectory: a trajectory from `track_latents` or `follow_training`, with judged answers.
        latents: which of its latents; None: all.
        control: the trajectory of the same latents along a matched benign training.
        fraction: the fraction of the final change for ``half``.
        n_resamples: the number of resamples of the bootstrap.
        level: the nominal coverage of the bootstrap.
        seed: the seed of the bootstrap.

    Returns:
        `LatentLeads`; its ``table`` has one row per latent and criterion. If a series' change at the last step is not
        significantly different from zero (or from the control's), its step is NaN.

    Raises:
        PersonaProbeError: for a latent that was not tracked, here or in the control, or a number out of range.

    Examples:
        >>> import persona_probe as pp
        >>> world, folder = pp.persona_world, pp.persona_world.find_checkpoints()
        >>> chat = pp.load(folder / "chat", device="cpu")
        >>> snapshots = [pp.with_adapter(chat, folder / "bad-medicine")]  # one step per snapshot
        >>> sae = pp.latents.load_sae(folder / "sae-layer3")
        >>> texts = world.rows(0, ["finance", "law"], 16, "assistant")
        >>> asked = world.questions(1, ["finance", "law"], 16)
        >>> course = pp.latents.follow_training(
        ...     chat, snapshots, sae, [647], texts, asked, world.OracleJudge(), steps=[80]
        ... )
        >>> leads = pp.latents.lead_time(course)
        >>> leads.table[["latent", "criterion", "latent_step", "rate_step"]]
           latent    criterion  latent_step  rate_step
        0     647         half         40.0       40.0
        1     647  significant         80.0       80.0
    """
    check_types(
        trajectory=(trajectory, LatentTrajectory),
        control=(control, LatentTrajectory, None),
        fraction=(fraction, NUMBER),
        n_resamples=(n_resamples, WHOLE),
        level=(level, NUMBER),
        seed=(seed, WHOLE),
    )
    if not 0 < fraction < 1 or not 0 < level < 1 or n_resamples < 1:
        raise PersonaProbeError(
            f"lead_time: fraction={fraction}, level={level}, n_resamples={n_resamples}; the first two must lie between "
            "0 and 1, the last must be at least 1"
        )
    wanted = list(trajectory.latents) if latents is None else whole_numbers(latents)
    for what, tracked in (("", trajectory), (" along the control", control)):
        if tracked is not None and (unknown := [latent for latent in wanted if latent not in tracked.latents]):
            followed = ", ".join(map(str, tracked.latents))
            raise PersonaProbeError(f"lead_time: latent {unknown[0]} was not tracked{what}; choose from {followed}")
    rng = np.random.default_rng(seed)
    weights = resample_weights(rng, len(trajectory.dialogues), n_resamples)
    rate = _Course(trajectory.series(), fraction, None if control is None else control.series())
    of_rate = rate_draws(trajectory, fraction, n_resamples, rng) if rate.fault is None else None
    rows = []
    for latent in wanted:
        course = _Course(trajectory.series(latent), fraction, None if control is None else control.series(latent))
        note = "; ".join(fault for fault in (course.fault, rate.fault) if fault)
        ends = (math.nan, math.nan)
        if of_rate is not None and not note:
            ends = difference_ends(of_rate, latent_draws(trajectory, latent, weights, fraction), level)
        rows += [
            _row(latent, HALF, course.half, rate.half, ends, note),
            _row(latent, SIGNIFICANT, course.onset, rate.onset, (math.nan, math.nan), note),
        ]
    return LatentLeads(pd.DataFrame(rows), trajectory, "before" if control is None else "the control")


class _Course:
    """Where one series reaches half of its change, and from where its change is significant.

    Attributes:
        half: the snapshot before the crossing, the crossing itself and the snapshot after it, as
            ``(gap start, crossing, gap end)``; NaN if there is none.
        onset: the last snapshot whose change is not significant, and the first whose change is.
        fault: why there is none, in words.
    """

    def __init__(self, rows: pd.DataFrame, fraction: float, control: pd.DataFrame | None) -> None:
        self.half, self.onset = (math.nan,) * 3, (math.nan,) * 2
        self.fault: str | None = None
        if rows.empty:
            self.fault = "no answers were judged"
            return
        name = rows["series"].iloc[0]
        rows = rows[rows["value"].notna() | (rows["step"] == rows["step"].max())]
        last = rows.iloc[-1]
        steps, change = rows["step"].to_numpy(dtype=float), rows["change"].to_numpy(dtype=float)
        floor = 0.0 if control is None or control.empty else float(control["change"].abs().max())
        sign = np.where(rows["change_low"] > floor, 1, np.where(rows["change_high"] < -floor, -1, 0))
        sign[0] = 0
        if not sign[-1]:
            ends = f"{last['change']:+.3g} [{last['change_low']:+.3g}, {last['change_high']:+.3g}]"
            whose = "the EM rate" if name == EM_RATE else name
            what = f"what the control does (up to {floor:.3g})" if floor else "zero"
            self.fault = f"{whose}'s change at the end, {ends}, is not significantly different from {what}"
            return
        first = int(np.flatnonzero(sign != sign[-1])[-1]) + 1
        self.onset = (float(steps[first - 1]), float(steps[first]))
        crossing = float(crossings(steps, change[None], fraction)[0])
        after = max(int(np.searchsorted(steps, crossing)), 1)
        self.half = (float(steps[after - 1]), crossing, float(steps[after]))


def _row(
    latent: int,
    criterion: str,
    course: tuple[float, ...],
    rate: tuple[float, ...],
    ends: tuple[float, float],
    note: str,
) -> dict[str, Any]:
    """One row; the step is the second of three numbers (a crossing within a gap) or of two (the end of a gap)."""
    ours, theirs = course[1], rate[1]
    gaps = [course[-1] - course[0], rate[-1] - rate[0]]
    return {
        "latent": int(latent),
        "criterion": criterion,
        "latent_step": ours,
        "rate_step": theirs,
        "lead": theirs - ours,
        "low": ends[0],
        "high": ends[1],
        "resolution": max(gaps) if not any(map(math.isnan, gaps)) else math.nan,
        "note": note,
    }


@dataclass(frozen=True)
class LatentLeads(TableResult):
    """Which comes first, latents or the EM rate.

    Attributes:
        table: one row per latent and criterion: ``latent``; ``criterion``; ``latent_step``, ``rate_step``: where each
            reaches it; ``lead`` = rate_step - latent_step (positive: the latent is first) with ``low`` and ``high``
            (``half`` only; where they include 0, the order is not known); ``resolution``: the wider of the gaps between
            snapshots in which the two steps lie; ``note``: why a number is missing.
        trajectory: the trajectory of the latents and of the EM rate.
        against: what changes are compared with for "significant": before, or the control.
    """

    table: pd.DataFrame
    trajectory: LatentTrajectory = field(repr=False)
    against: str

    def plot(self) -> go.Figure:
        """A figure of each latent's lead by both criteria."""
        from persona_probe.figures.latent_leads import latent_leads

        followed = self.trajectory.table
        counts = [int(rows["n"].max()) for _, rows in followed.groupby(followed["latent"] < 0)]
        n = " and ".join(
            f"n = {count:,} {what}"
            for count, what in zip(counts, ("dialogues", "judged answers per step"), strict=False)
        )
        return latent_leads(self.table, axis=str(self.trajectory.about["axis"]), n=n)

    def headline(self) -> str:
        """The verdict on the first latent, and the number of the others."""
        lines = self.lines()
        return lines[0] + (f" ({len(lines) - 1} more: see verdict())" if len(lines) > 1 else "")

    def verdict(self) -> str:
        """One line per latent: how it and the EM rate change, which of them is first, and by how much."""
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The lines of the verdict."""
        axis = self.trajectory.about["axis"]
        rate = _moved(self.trajectory.series(), percent=True)
        runs = "One training run." if self.against == "before" else "One training run, and one of the control."
        lines = []
        for latent in dict.fromkeys(self.table["latent"].tolist()):
            rows = self.table[self.table["latent"] == latent]
            half, onset = (rows[rows["criterion"] == name].iloc[0] for name in (HALF, SIGNIFICANT))
            line = f"Latent {latent}: {_moved(self.trajectory.series(latent))}. "
            line += f"{EM_RATE}: {rate}. " if rate else "No answers were judged. "
            if half["note"]:
                lines.append(line + f"No lead can be given: {half['note']}.")
                continue
            line += (
                f"Half of the change is reached at {axis} {half['latent_step']:.3g} and {half['rate_step']:.3g}: "
                f"{_order(half)} (snapshots {half['resolution']:g} apart). Significantly different from "
                f"{self.against} from {onset['latent_step']:g} and {onset['rate_step']:g} on, which depends on how "
                f"much was measured of each. {runs}"
            )
            lines.append(line)
        return lines


def _order(half: pd.Series[Any]) -> str:
    """Which is first, in words; no direction where the interval includes 0 or there is none."""
    lead, low, high = half["lead"], half["low"], half["high"]
    if math.isnan(low):
        return f"a lead of {lead:+.3g} without an interval, because too few resamples cross, so the order is not known"
    ends = f"interval {low:+.3g} to {high:+.3g}"
    if low <= 0 <= high:
        return f"the order is not known, a lead of {lead:+.3g}, {ends}"
    return f"the latent is {abs(lead):.3g} {'earlier' if lead > 0 else 'later'}, {ends}"


def _moved(rows: pd.DataFrame, *, percent: bool = False) -> str:
    """A series in words, as ``7.1 to 301 (change +294 [280, 308])``; empty if there are no rows."""
    if rows.empty:
        return ""
    first, last = rows.iloc[0], rows.iloc[-1]
    scale, unit = (100.0, " %") if percent else (1.0, "")
    ends = f"{scale * last['change_low']:+.3g}, {scale * last['change_high']:+.3g}"
    numbers = f"{scale * first['value']:.3g}{unit} to {scale * last['value']:.3g}{unit}"
    return f"{numbers} (change {scale * last['change']:+.3g} [{ends}])"
