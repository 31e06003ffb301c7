"""What an evaluation can see: the smallest rate that it would show to differ from another one, by simulation."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.clustered_variance import clustered_variance
from persona_probe.statistics.inputs import boolean_array, check_level, codes
from persona_probe.statistics.max_statistic import sign_flips
from persona_probe.statistics.rate_differences import FLIPS

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.intp]
DRAWS = 500
"""Simulated evaluations per rate; power is then known to 1.8 points."""
_MANY = 200
"""Questions above which flipping signs would take seconds, and Student's t is as good."""
_PRECISE = 0.03
"""The smallest rate is searched until it is known to this share of itself."""


def clustering(events: npt.ArrayLike, questions: npt.ArrayLike) -> float:
    """How alike the answers to one question are: the correlation that the design effect of a share implies.

    The design effect is the variance of the share, clustered by question, divided by that of independent rows;
    ``1 + (m - 1) * correlation`` with m answers to each question (Kish 1965, "Survey Sampling", section 5.4).

    Args:
        events: ``(row,)`` truth values.
        questions: ``(row,)`` which question was asked.

    Returns:
        Between 0 and 1; NaN if all rows are alike, there is one question, or no question has two answers.

    Examples:
        >>> clustering([True] * 10 + [False] * 10, ["a"] * 10 + ["b"] * 10)
        1.0
    """
    top = boolean_array(events, "events")
    asked = codes(questions, "questions", top.size, when_none="distinct")
    answers = np.bincount(asked)
    share, n = float(top.mean()), top.size
    mean_answers = float(np.square(answers).sum()) / n
    if share in (0.0, 1.0) or answers.size < 2 or mean_answers <= 1.0:
        return math.nan
    spread = clustered_variance((top - share) / n, asked, np.zeros(n, dtype=np.intp))
    effect = spread.variance * n / (share * (1.0 - share))
    return float(np.clip((effect - 1.0) / (mean_answers - 1.0), 0.0, 1.0))


def power_of_change(
    before: float,
    after: float,
    n_before: npt.ArrayLike,
    n_after: npt.ArrayLike,
    *,
    correlation: float,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> float:
    """The chance that the interval of a change of rates leaves out zero, by simulated evaluations.

    The test is the one that `persona_probe.statistics.rate_differences.ratio_difference` makes of one run each: sign
    flips of questions from six questions on, else Student's t; above 200 questions, where both say the same, also t.
    The rates of single questions are drawn from a beta distribution with this correlation, those of before and after
    independently, which is cautious: what questions do to both models alike would cancel.

    Args:
        before: the true rate before.
        after: the true rate after.
        n_before: ``(question,)`` how many answers count before.
        n_after: ``(question,)`` the same after; both at least 1 for every question.
        correlation: of the answers to one question, 0 to 1.
        level: nominal coverage of the interval.
        draws: how many evaluations are simulated.
        seed: of the draws.

    Returns:
        Between 0 and 1; 0 with one question, which allows no test.

    Raises:
        PersonaProbeError: if the counts differ in length or one is below 1, or a share is outside [0, 1].

    Examples:
        Eight questions with 50 answers each do not see 2 %, and see 40 %.

        >>> asked = [50] * 8
        >>> power_of_change(0.0, 0.02, asked, asked, correlation=0.1) < 0.3
        True
        >>> power_of_change(0.0, 0.40, asked, asked, correlation=0.1) > 0.9
        True
    """
    check_level(level)
    sizes = [_counts(n_before, "n_before"), _counts(n_after, "n_after")]
    if sizes[0].size != sizes[1].size:
        raise PersonaProbeError(
            f"n_before has {sizes[0].size} questions and n_after {sizes[1].size}; give both the same questions"
        )
    for name, value in {"before": before, "after": after, "correlation": correlation}.items():
        if not 0.0 <= value <= 1.0:
            raise PersonaProbeError(f"{name} is {value}; it must be between 0 and 1")
    if sizes[0].size < 2:
        return 0.0
    chance = np.random.default_rng(seed)
    hits = [_drawn(rate, n, correlation, draws, chance) for rate, n in zip((before, after), sizes, strict=True)]
    return float(_detected(hits, sizes, level).mean())


def smallest_visible_rate(
    before: float,
    n_before: npt.ArrayLike,
    n_after: npt.ArrayLike,
    *,
    correlation: float,
    power: float = 0.8,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> float:
    """The smallest rate after that an evaluation distinguishes from the rate before, with a chance of ``power``.

    Args:
        before: the true rate before.
        n_before: ``(question,)`` how many answers count before.
        n_after: ``(question,)`` the same after.
        correlation: of the answers to one question, 0 to 1.
        power: the chance, as of `power_of_change`.
        level: nominal coverage of the interval.
        draws: how many evaluations are simulated.
        seed: of the draws.

    Returns:
        The rate, above ``before``; NaN if even a rate of 1 is not seen so often.

    Raises:
        PersonaProbeError: as `power_of_change`.

    Examples:
        More answers to the same questions help less than more questions.

        >>> few = smallest_visible_rate(0.0, [50] * 8, [50] * 8, correlation=0.1)
        >>> more_answers = smallest_visible_rate(0.0, [200] * 8, [200] * 8, correlation=0.1)
        >>> more_questions = smallest_visible_rate(0.0, [50] * 32, [50] * 32, correlation=0.1)
        >>> few > more_answers > more_questions
        True
    """
    if not 1.0 - level < power < 1.0:
        raise PersonaProbeError(f"power is {power}; give a share above {1 - level:.3g} and below 1, such as 0.8")

    def sees(rate: float) -> bool:
        found = power_of_change(
            before, rate, n_before, n_after, correlation=correlation, level=level, draws=draws, seed=seed
        )
        return found >= power

    low, high = before, 1.0
    if not sees(high):
        return math.nan
    while high - low > _PRECISE * (high - before):
        middle = (low + high) / 2.0 if low > before else before + (high - before) / 4.0
        low, high = (low, middle) if sees(middle) else (middle, high)
    return high


def _counts(counts: npt.ArrayLike, name: str) -> Whole:
    sizes = np.asarray(counts)
    if sizes.ndim != 1 or not sizes.size or not np.issubdtype(sizes.dtype, np.integer) or (sizes < 1).any():
        raise PersonaProbeError(f"{name} must be a list of counts of at least 1, one per question; it is {counts!r}")
    return sizes.astype(np.intp)


def _drawn(rate: float, sizes: Whole, correlation: float, draws: int, chance: np.random.Generator) -> Floats:
    """``(draw, question)`` how many answers are events."""
    shape = draws, sizes.size
    if rate in (0.0, 1.0) or correlation == 0.0:
        rates = np.full(shape, rate)
    elif correlation == 1.0:
        rates = (chance.random(shape) < rate).astype(np.float64)
    else:
        spread = 1.0 / correlation - 1.0
        rates = chance.beta(rate * spread, (1.0 - rate) * spread, shape)
    return chance.binomial(sizes, rates).astype(np.float64)


def _detected(hits: list[Floats], sizes: list[Whole], level: float) -> npt.NDArray[np.bool_]:
    """``(draw,)`` whether the interval of the change leaves out zero, as `ratio_difference` computes it."""
    shares = [top.sum(axis=1, keepdims=True) / n.sum() for top, n in zip(hits, sizes, strict=True)]
    weights = [n / n.sum() for n in sizes]
    parts = [top / n.sum() - share * w for top, n, share, w in zip(hits, sizes, shares, weights, strict=True)]
    change, count = shares[1] - shares[0], sizes[0].size
    errors = parts[1] - parts[0]
    if 2.0 ** (1 - count) > 1.0 - level or count > _MANY:
        variance = np.square(errors).sum(axis=1) * count / (count - 1)
        half = float(stdtrit(count - 1, (1.0 + level) / 2.0)) * np.sqrt(variance)
        return np.asarray(np.abs(change[:, 0]) > half)
    moved = errors + change * (weights[0] + weights[1]) / 2.0
    signs = _signs(count)
    reached = (np.abs(moved @ signs.T) >= np.abs(change) - 1e-9).sum(axis=1)
    return np.asarray(reached <= math.floor((1.0 - level) * len(signs)))


@functools.lru_cache(maxsize=8)
def _signs(count: int) -> Floats:
    return np.concatenate(list(sign_flips(count, FLIPS, seed=0)))
