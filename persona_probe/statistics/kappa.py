"""How far two readers of the same rows agree: Cohen's kappa and correlations, with intervals over questions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.clustered_variance import clustered_variance
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.inputs import check_level, codes, real_array
from persona_probe.statistics.rates import effective_n
from persona_probe.statistics.score_intervals import wilson_interval

Floats = npt.NDArray[np.float64]
FEWEST = 4
"""Rows that a correlation needs."""
LINE = 1.0 - 1e-9
"""A correlation of rows that lie on a line, as far as Fisher's scale can hold it."""


def cohens_kappa(
    first: npt.ArrayLike, second: npt.ArrayLike, *, questions: npt.ArrayLike | None = None, level: float = 0.95
) -> Estimate:
    """Cohen's kappa of two readers: their agreement beyond chance, divided by the largest that there could be.

    Cohen (1960, "A coefficient of agreement for nominal scales"). The variance is that of the linearised coefficient
    (Fleiss, Cohen and Everitt 1969, "Large sample standard errors of kappa and weighted kappa"), summed by question as
    Yang and Zhou do (2014, "Kappa statistic for clustered matched-pair data", Statistics in Medicine 33). The interval
    is Wilson's for the share of rows on which they agree, with the effective number of rows that this variance implies,
    carried to kappa at the chance agreement that was seen: so it has a width where they agree on every row.

    Args:
        first: ``(row,)`` the category that the first reader gave each row (text, numbers, truth values).
        second: ``(row,)`` that of the second.
        questions: ``(row,)`` which question was asked; None: every row is its own question.
        level: nominal coverage.

    Returns:
        Kappa, from -1 to 1; 0 is chance. Missing if both put every row into one and the same category: there is then no
        agreement beyond chance to be had.

    Raises:
        PersonaProbeError: if there are no rows, lengths differ, a row has no category, or ``level`` is not in (0, 1).

    Examples:
        >>> first = [True] * 20 + [False] * 30
        >>> second = [True] * 18 + [False] * 28 + [True] * 4
        >>> print(cohens_kappa(first, second))
        0.75 [...] (n=50)
        >>> cohens_kappa([1, 1], [1, 1]).method
        'both put every row into one category'
    """
    check_level(level)
    ours, theirs = np.asarray(first, dtype=object), np.asarray(second, dtype=object)
    if ours.ndim != 1 or ours.shape != theirs.shape or not ours.size:
        raise PersonaProbeError(
            f"kappa: the readers have {ours.shape} and {theirs.shape} categories; give one for each row, and at least "
            "one row"
        )
    n = ours.size
    both = codes(np.concatenate([ours, theirs]), "kappa: categories", 2 * n, when_none="same")
    asked = codes(questions, "questions", n, when_none="distinct")
    a, b = both[:n], both[n:]
    shares = [np.bincount(one, minlength=int(both.max()) + 1) / n for one in (a, b)]
    agree = float((a == b).mean())
    chance = float(shares[0] @ shares[1])
    if chance >= 1.0:
        return Estimate.missing("both put every row into one category")
    kappa = (agree - chance) / (1.0 - chance)
    # each row's part of the error of (1 - chance) x kappa, which moves like the share of rows that agree
    of_chance = shares[1][a] + shares[0][b] - 2.0 * chance
    errors = ((a == b) - agree - (1.0 - kappa) * of_chance) / n
    spread = clustered_variance(errors, asked, np.zeros(n, dtype=np.intp))
    effective = effective_n(agree, spread, np.bincount(asked).astype(float), level)
    low, high = (max((end - chance) / (1.0 - chance), -1.0) for end in wilson_interval(agree, effective, level))
    units = "rows" if questions is None else "questions"
    return Estimate(kappa, low, high, n, f"Wilson, effective n = {effective:.4g} ({spread.questions} {units})", level)


def correlation(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    ranks: bool = False,
    questions: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """Pearson's correlation of two readers' scores, or Spearman's, with an interval over questions.

    The variance is the jackknife's, which leaves out one question at a time, on Fisher's scale, ``atanh(r)`` (Fisher
    1921, "On the probable error of a coefficient of correlation"); the interval is Student's t on that scale.

    Args:
        first: ``(row,)`` finite scores.
        second: ``(row,)`` those of the other reader.
        ranks: Spearman's: the correlation of ranks, equal scores having their mean rank.
        questions: ``(row,)`` which question was asked; None: every row is its own question.
        level: nominal coverage.

    Returns:
        The correlation, from -1 to 1. Missing if all scores of a reader are equal, or there are fewer than `FEWEST`
        rows.

    Raises:
        PersonaProbeError: if there are no rows, lengths differ, or a score is not finite.

    Examples:
        >>> print(correlation([10, 30, 50, 90, 95], [20, 20, 60, 80, 99]))
        0.96 [...] (n=5)
        >>> correlation([1, 2, 3, 4], [1, 4, 9, 16], ranks=True).value
        1.0
    """
    check_level(level)
    ours, theirs = (real_array(values, "scores", ("row",)) for values in (first, second))
    n = ours.size
    if ours.shape != theirs.shape:
        raise PersonaProbeError(f"correlation: {n} and {theirs.size} scores; give one of each reader for each row")
    asked = codes(questions, "questions", n, when_none="distinct")
    if n < FEWEST:
        return Estimate.missing(f"{n} rows; a correlation needs {FEWEST}")
    if ranks:
        ours, theirs = _ranked(ours), _ranked(theirs)
    if min(np.ptp(ours), np.ptp(theirs)) == 0.0:
        return Estimate.missing("all scores of one reader are equal")
    count = int(asked.max()) + 1
    x, y = ((one - one.mean()) / one.std() for one in (ours, theirs))
    sums = np.stack([np.bincount(asked, weights=one, minlength=count) for one in (x**0, x, y, x * x, y * y, x * y)])
    r = _from_sums(sums.sum(axis=1, keepdims=True))[0]
    units = f"{count} {'rows' if questions is None else 'questions'}"
    if 1.0 - r * r < 1e-12:
        return Estimate(float(round(r)), float(round(r)), float(round(r)), n, "the scores lie on a line", level)
    without = np.arctanh(np.clip(_from_sums(sums.sum(axis=1, keepdims=True) - sums), -LINE, LINE))
    if count < 3 or not np.isfinite(without).all():
        return Estimate(r, math.nan, math.nan, n, f"no interval from {units}", level)
    variance = (count - 1) / count * float(np.square(without - without.mean()).sum())
    half = float(stdtrit(count - 1, (1.0 + level) / 2.0)) * math.sqrt(variance)
    low, high = math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
    return Estimate(r, low, high, n, f"jackknife over {units}, t", level)


def _from_sums(sums: Floats) -> Floats:
    """``(6, set)`` sums of 1, x, y, x^2, y^2 and xy -> ``(set,)`` correlations; NaN where x or y does not vary."""
    n, x, y, xx, yy, xy = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((n * xy - x * y) / np.sqrt((n * xx - x * x) * (n * yy - y * y)))


def _ranked(values: Floats) -> Floats:
    """Ranks from 1; equal values have their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2.0)[place.ravel()])
