"""Which changes first along training, the latent or the behaviour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from persona_probe.behaviour.em_rates import DEFINITIONS
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types
from persona_probe.latents.courses.track_result import EM_RATE, LatentTrajectory
from persona_probe.latents.latent_numbers import whole_numbers
from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

_RESAMPLES_AT_ONCE = 256
HALF, APART = "half", "told apart"


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

    ``half``: where a series first reaches half of its final change, by linear interpolation between snapshots. It does
    not depend on the precision of either measurement, but on how the EM rate depends on the activation: a rate that
    needs a high activation is later on the way up for this reason alone, and earlier on the way down. So follow
    realignment too: a latent that leads on the way up and lags on the way down shows the same event on another scale,
    not an earlier one. The interval is a percentile bootstrap, separately over the questions of the texts and over the
    judged questions.

    ``told apart``: the first snapshot from which the change from before is significant (its interval excludes 0, and
    does so to the end); with a ``control``, the interval must exclude all changes up to the control's largest. This is
    what one would notice first with this much data: the latent, read at many tokens, is measured more precisely than a
    rate of as many answers, and with more answers the EM rate's step is earlier. Without a control it says little,
    because any training moves most latents a little. Where in the gap before that snapshot it happened is unknown;
    ``low`` and ``high`` are the extremes that these gaps allow.

    Neither interval includes how training runs differ: repeat the training with other seeds, and compare the leads.

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
           latent   criterion  latent_step  rate_step
        0     647        half         40.0       40.0
        1     647  told apart         80.0       80.0
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
    weights = _weights(rng, len(trajectory.dialogues), n_resamples)
    rate = _Course(trajectory.series(), fraction, None if control is None else control.series())
    rate_draws = _rate_draws(trajectory, fraction, n_resamples, rng) if rate.fault is None else np.full(1, math.nan)
    rows = []
    for latent in wanted:
        course = _Course(trajectory.series(latent), fraction, None if control is None else control.series(latent))
        draws = _latent_draws(trajectory, latent, weights, fraction)
        note = "; ".join(fault for fault in (course.fault, rate.fault) if fault)
        half = _half_ends(rate_draws - draws, level) if not note else (math.nan, math.nan)
        apart = (rate.apart[0] - course.apart[1], rate.apart[1] - course.apart[0])
        rows += [
            _row(latent, HALF, course.half, rate.half, half, note),
            _row(latent, APART, course.apart, rate.apart, apart, note),
        ]
    return LatentLeads(pd.DataFrame(rows), trajectory, "before" if control is None else "the control")


class _Course:
    """Where one series reaches half of its change, and from where its change is significant.

    Attributes:
        half: the snapshot before the crossing, the crossing itself and the snapshot after it, as
            ``(gap start, crossing, gap end)``; NaN if there is none.
        apart: the last snapshot whose change is not significant, and the first whose change is.
        fault: why there is none, in words.
    """

    def __init__(self, rows: pd.DataFrame, fraction: float, control: pd.DataFrame | None) -> None:
        self.half, self.apart = (math.nan,) * 3, (math.nan,) * 2
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
        onset = int(np.flatnonzero(sign != sign[-1])[-1]) + 1
        self.apart = (float(steps[onset - 1]), float(steps[onset]))
        after = int(np.argmax(change / change[-1] >= fraction))
        crossing = float(crossings(steps, change[None], fraction)[0])
        self.half = (float(steps[after - 1]), crossing, float(steps[after]))


def crossings(
    steps: Float[np.ndarray, "... step"], values: Float[np.ndarray, "draw step"], fraction: float
) -> Float[np.ndarray, "... draw"]:
    """``(draw,)`` where each row first reaches ``fraction`` of its change from the first to the last step.

    Between steps it is interpolated linearly. NaN for a row that ends where it began, or whose ends are NaN.

    >>> import numpy as np
    >>> from persona_probe.latents.courses.lead import crossings
    >>> crossings(np.array([0.0, 10.0, 20.0]), np.array([[0.0, 1.0, 4.0]]), 0.5).round(2).tolist()
    [13.33]
    """
    change = values - values[:, :1]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = change / change[:, -1:]
    reached = share >= fraction
    after = np.maximum(reached.argmax(axis=1), 1)
    rows = np.arange(len(values))
    lower, upper = share[rows, after - 1], share[rows, after]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = (fraction - lower) / (upper - lower)
    places: np.ndarray = steps[after - 1] + part * (steps[after] - steps[after - 1])
    return np.where(reached.any(axis=1) & np.isfinite(share[:, -1]), places, math.nan)


def _weights(rng: np.random.Generator, units: int, n: int) -> Int[np.ndarray, "draw unit"]:
    """How often each unit is drawn in each resample."""
    return rng.multinomial(units, np.full(units, 1.0 / units), size=n)


def _latent_draws(
    trajectory: LatentTrajectory, latent: int, weights: Int[np.ndarray, "draw unit"], fraction: float
) -> Float[np.ndarray, "... draw"]:
    sums = trajectory.sums[:, :, trajectory.latents.index(latent)].astype(np.float64)
    means = (weights @ sums.T) / (weights @ trajectory.dialogues)[:, None]
    return crossings(np.asarray(trajectory.steps, dtype=float), means, fraction)


def _rate_draws(
    trajectory: LatentTrajectory, fraction: float, n: int, rng: np.random.Generator
) -> Float[np.ndarray, "... draw"]:
    """The crossings of the EM rate in resamples of the questions, which are the same at every step."""
    definition = DEFINITIONS[trajectory.about["definition"]]
    steps = [step for step in trajectory.steps if step in trajectory.judged]
    parts = []
    for step in steps:
        table = trajectory.judged[step]
        question = table["question"].where(table["question"].notna(), [f"\0{row}" for row in range(len(table))])
        counts = pd.DataFrame({"top": definition.numerator(table), "bottom": definition.denominator(table)})
        parts.append(counts.groupby(question.to_numpy()).sum())
    everyone = pd.concat(parts, axis=1, keys=range(len(parts))).fillna(0).astype(float)
    top, bottom = (everyone.xs(name, axis=1, level=1).to_numpy() for name in ("top", "bottom"))
    draws = []
    for begin in range(0, n, _RESAMPLES_AT_ONCE):
        weights = _weights(rng, len(everyone), min(_RESAMPLES_AT_ONCE, n - begin))
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = (weights @ top) / (weights @ bottom)
        draws.append(crossings(np.asarray(steps, dtype=float), rates, fraction))
    return np.concatenate(draws)


def _half_ends(leads: Float[np.ndarray, "... draw"], level: float) -> tuple[float, float]:
    """Percentiles of the draws; NaN if more draws have no crossing than may lie outside the interval."""
    known = leads[np.isfinite(leads)]
    if len(known) < level * len(leads):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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
            reaches it; ``lead`` = rate_step - latent_step (positive: the latent is first) with ``low`` and ``high``;
            ``resolution``: the wider of the gaps between snapshots in which the two steps lie; ``note``: why a number
            is missing.
        trajectory: the trajectory of the latents and of the EM rate.
        against: what changes are compared with for "told apart": before, or the control.
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
        lines = []
        for latent in dict.fromkeys(self.table["latent"].tolist()):
            rows = self.table[self.table["latent"] == latent]
            half, apart = (rows[rows["criterion"] == name].iloc[0] for name in (HALF, APART))
            line = f"Latent {latent}: {_moved(self.trajectory.series(latent))}. "
            line += f"{EM_RATE}: {rate}. " if rate else "No answers were judged. "
            if half["note"]:
                lines.append(line + f"No lead can be given: {half['note']}.")
                continue
            order = "earlier" if half["lead"] > 0 else "later"
            known = half["low"] > 0 or half["high"] < 0
            line += (
                f"Half of the change is reached at {axis} {half['latent_step']:.3g} and {half['rate_step']:.3g}: the "
                f"latent is {abs(half['lead']):.3g} {order}, interval {half['low']:.3g} to {half['high']:.3g}"
                f"{'' if known else ', so the order is open'} (snapshots {half['resolution']:g} apart). "
                f"Different from {self.against} from {apart['latent_step']:g} and {apart['rate_step']:g} on. "
                "One training run."
            )
            lines.append(line)
        return lines


def _moved(rows: pd.DataFrame, *, percent: bool = False) -> str:
    """A series in words, as ``7.1 to 301 (change +294 [280, 308])``; empty if there are no rows."""
    if rows.empty:
        return ""
    first, last = rows.iloc[0], rows.iloc[-1]
    scale, unit = (100.0, " %") if percent else (1.0, "")
    ends = f"{scale * last['change_low']:+.3g}, {scale * last['change_high']:+.3g}"
    numbers = f"{scale * first['value']:.3g}{unit} to {scale * last['value']:.3g}{unit}"
    return f"{numbers} (change {scale * last['change']:+.3g} [{ends}])"
