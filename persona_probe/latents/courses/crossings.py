"""Where a noisy course first reaches a fraction of its change, and an interval of how far two such places lie apart."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.optimize import isotonic_regression
from scipy.special import ndtr, stdtrit

from persona_probe.behaviour.em_rates import DEFINITIONS
from persona_probe.latents.courses.track_result import LatentTrajectory

_RESAMPLES_AT_ONCE = 256


class Draws(NamedTuple):
    """A course's crossings in resamples of its units (questions, or groups of them).

    Attributes:
        places: ``(draw,)`` NaN where there is no crossing.
        units: how many units were drawn.
    """

    places: Float[np.ndarray, "... draw"]
    units: int


def crossings(
    steps: Float[np.ndarray, "... step"], values: Float[np.ndarray, "draw step"], fraction: float
) -> Float[np.ndarray, "... draw"]:
    """``(draw,)`` where each row reaches ``fraction`` of its change from the first to the last step.

    Each row is first made monotone in the direction of its final change, by isotonic regression (Barlow et al. 1972,
    "Statistical inference under order restrictions"): the first crossing of a course that goes up and down by chance
    is early, the more snapshots there are, the earlier. The change itself is between the two ends as
    measured, before the regression. Between steps it is interpolated linearly. A NaN between the ends is left out. NaN
    for a row that ends where it began, or has a NaN at an end.

    >>> import numpy as np
    >>> from persona_probe.latents.courses.crossings import crossings
    >>> steps = np.array([0.0, 10.0, 20.0, 30.0])
    >>> crossings(steps, np.array([[0.0, 1.0, 3.0, 4.0], [0.0, 3.0, 1.0, 4.0]]), 0.5)
    array([15., 10.])
    """
    change = values - values[:, :1]
    final = change[:, -1]
    places = np.full(len(values), math.nan)
    for row in np.flatnonzero(np.isfinite(final) & (final != 0)):
        known = np.isfinite(change[row])
        share, at = isotonic_regression(change[row, known] / final[row]).x, steps[known]
        after = int((share >= fraction).argmax())  # at least 1: it starts at 0 or below, and ends at 1 or above
        part = (fraction - share[after - 1]) / (share[after] - share[after - 1])
        places[row] = at[after - 1] + part * (at[after] - at[after - 1])
    return places


def latent_draws(
    trajectory: LatentTrajectory, latent: int, weights: Int[np.ndarray, "draw unit"], fraction: float
) -> Draws:
    """The crossings of a latent's mean activation, in resamples of the groups of questions (``weights`` of each)."""
    sums = trajectory.sums[:, :, trajectory.latents.index(latent)].astype(np.float64)
    means = (weights @ sums.T) / (weights @ trajectory.dialogues)[:, None]
    return Draws(crossings(np.asarray(trajectory.steps, dtype=float), means, fraction), weights.shape[1])


def rate_draws(trajectory: LatentTrajectory, fraction: float, n: int, rng: np.random.Generator) -> Draws:
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
        weights = resample_weights(rng, len(everyone), min(_RESAMPLES_AT_ONCE, n - begin))
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = (weights @ top) / (weights @ bottom)
        draws.append(crossings(np.asarray(steps, dtype=float), rates, fraction))
    return Draws(np.concatenate(draws), len(everyone))


def resample_weights(rng: np.random.Generator, units: int, n: int) -> Int[np.ndarray, "draw unit"]:
    """How often each unit is drawn in each of ``n`` resamples."""
    return rng.multinomial(units, np.full(units, 1.0 / units), size=n)


def difference_ends(later: Draws, earlier: Draws, level: float) -> tuple[float, float]:
    """The interval of ``later`` - ``earlier``, which were drawn independently: an expanded percentile interval.

    Plain percentiles are too narrow where units are few. So those are taken at which a normal interval is as wide as
    the Student t interval with unbiased variances (Hesterberg 2015, "What teachers should know about the bootstrap",
    The American Statistician 69), with Satterthwaite's degrees of freedom for the two
    sources. NaN if more draws have no crossing than may lie outside the interval, or there is a single unit.
    """
    leads = later.places - earlier.places
    known = np.isfinite(leads)
    if min(later.units, earlier.units) < 2 or known.sum() < max(level * len(leads), 2):
        return math.nan, math.nan
    plugged = [float(draws.places[known].var()) for draws in (later, earlier)]
    units = [draws.units for draws in (later, earlier)]
    unbiased = [variance * n / (n - 1) for variance, n in zip(plugged, units, strict=True)]
    tail = (1 - level) / 2
    if sum(unbiased) > 0:
        freedom = sum(unbiased) ** 2 / sum(v**2 / (n - 1) for v, n in zip(unbiased, units, strict=True))
        tail = float(ndtr(stdtrit(freedom, tail) * math.sqrt(sum(unbiased) / sum(plugged))))
    low, high = np.quantile(leads[known], [tail, 1 - tail])
    return float(low), float(high)
