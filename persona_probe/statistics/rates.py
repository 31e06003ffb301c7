"""Rates and means with intervals over questions and fine-tuning seeds, not over rows."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.clustered_variance import ClusteredVariance, clustered_variance
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.inputs import boolean_array, check_level, codes, real_array
from persona_probe.statistics.score_intervals import normal_quantile, wilson_interval

LEAST_ICC = 0.1
"""The smallest correlation between answers to one question that intervals of rates assume, whatever was seen.

From few events the correlation cannot be estimated: no event, or one event in each of a few questions, looks as if
answers were independent. 0.1 is what a question has whose rate is 10 % where most others' is near zero.
"""


def ratio_estimate(
    numerator: npt.ArrayLike,
    denominator: npt.ArrayLike,
    *,
    questions: npt.ArrayLike | None = None,
    seeds: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """The share of denominator rows that are numerator rows, for example misaligned among coherent answers.

    The ratio is linearised (row residual ``(numerator - share * denominator) / sum(denominator)``) and its variance
    clustered by question and by seed. The interval is Wilson's with the effective sample size
    ``share * (1 - share) / variance * (z / t)**2``, at all rates (Korn and Graubard 1998, "Confidence intervals for
    proportions with small expected number of positive counts", Survey Methodology 24); the last factor accounts for few
    questions and seeds.

    The effective sample size is never larger than ``n / (1 + (m - 1) * 0.1) * (z / t)**2``: answers to one question are
    taken to be correlated by at least 0.1 (`LEAST_ICC`), with m answers to each question (the mean over answers). So
    no event in 24 questions x 50 answers leaves up to 2.1 %, and each further event raises the upper end.

    Args:
        numerator: ``(row,)`` truth values; True only where ``denominator`` is.
        denominator: ``(row,)`` truth values: the rows that count.
        questions: ``(row,)`` which question was asked; None: every row is its own question.
        seeds: ``(row,)`` which fine-tuning seed; None: one seed.
        weights: ``(row,)`` positive numbers: for how many rows each one stands, if rows were drawn with unequal
            probabilities; the n from which the effective one starts is then Kish's, ``sum(w)**2 / sum(w**2)`` (Kish
            1965, "Survey sampling"). None: all alike.
        level: nominal coverage.

    Returns:
        The share in [0, 1]; ``n`` is the number of denominator rows. Missing if there are none.

    Raises:
        PersonaProbeError: if the inputs are empty, differ in length, are not truth values, or a numerator row is not
            a denominator row; if a weight is not above zero; or if ``level`` is not within (0, 1).

    Examples:
        Ten questions with ten answers each, all coherent; between none and four of a question's are misaligned.

        >>> questions = np.repeat(np.arange(10), 10)
        >>> misaligned = np.arange(100) % 10 < questions % 5
        >>> rate = ratio_estimate(misaligned, np.ones(100, dtype=bool), questions=questions)
        >>> print(rate)
        0.20 [...] (n=100)
        >>> rate.method
        'Wilson, effective n = ... (10 questions and 1 seed)'
    """
    check_level(level)
    top, bottom = check_counts(numerator, denominator)
    question_codes = codes(questions, "questions", top.size, when_none="distinct")
    seed_codes = codes(seeds, "seeds", top.size, when_none="same")
    n = int(np.count_nonzero(bottom))
    if n == 0:
        return Estimate.missing("no row qualifies")
    top, question_codes, seed_codes = top[bottom], _compact(question_codes[bottom]), _compact(seed_codes[bottom])
    worth = _checked_weights(weights, bottom)
    total = float(worth.sum())
    share = float(worth @ top) / total
    spread = clustered_variance((top - share) * worth / total, question_codes, seed_codes)
    kish = total / float(worth @ worth)  # per unit of weight
    answers = np.asarray(np.bincount(question_codes, weights=worth) * kish, dtype=np.float64)
    effective = effective_n(share, spread, answers, level)
    low, high = wilson_interval(share, effective, level)
    units = _units(spread, questions is None)
    return Estimate(share, low, high, n, f"Wilson, effective n = {effective:.4g} ({units})", level)


def check_counts(
    numerator: npt.ArrayLike, denominator: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Both as ``(row,)`` truth values.

    Raises:
        PersonaProbeError: if they are empty, differ in length, are not truth values, or a numerator row is not a
            denominator row.
    """
    top, bottom = boolean_array(numerator, "numerator"), boolean_array(denominator, "denominator")
    if top.shape != bottom.shape:
        raise PersonaProbeError(
            f"numerator has {top.size} rows and denominator {bottom.size}; they must be the same rows"
        )
    outside = int(np.count_nonzero(top & ~bottom))
    if outside:
        raise PersonaProbeError(
            f"{outside} rows are in the numerator but not in the denominator; "
            "a share needs the numerator within it: pass numerator & denominator"
        )
    return top, bottom


def mean_estimate(
    values: npt.ArrayLike,
    *,
    questions: npt.ArrayLike | None = None,
    seeds: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """The mean of ``values`` over rows, with Student's t interval over questions and seeds.

    Args:
        values: ``(row,)`` finite numbers.
        questions: ``(row,)`` which question was asked; None: every row is its own question.
        seeds: ``(row,)`` which fine-tuning seed; None: one seed.
        level: nominal coverage.

    Returns:
        The mean, in the units of ``values``. From one question and one seed no spread can be estimated: the ends
        are then NaN and ``method`` says so.

    Raises:
        PersonaProbeError: if ``values`` is empty or not finite throughout, lengths differ, or ``level`` is not in
            (0, 1).

    Examples:
        >>> print(mean_estimate([1.0, 2.0, 3.0, 4.0]))
        2.50 [0.45, 4.55] (n=4)
    """
    check_level(level)
    rows = real_array(values, "values", ("row",))
    mean = float(rows.mean())
    spread = clustered_variance(
        (rows - mean) / rows.size,
        codes(questions, "questions", rows.size, when_none="distinct"),
        codes(seeds, "seeds", rows.size, when_none="same"),
    )
    units = _units(spread, questions is None)
    if math.isnan(spread.variance):
        return Estimate(mean, math.nan, math.nan, rows.size, f"no interval from {units}", level)
    half = spread.t_quantile(level) * math.sqrt(spread.variance)
    return Estimate(mean, mean - half, mean + half, rows.size, _t_name(spread, units), level)


def effective_n(share: float, spread: ClusteredVariance, answers: npt.NDArray[np.float64], level: float) -> float:
    """How many independent rows would give the same precision; at least 1.

    Args:
        share: the rate.
        spread: its clustered variance.
        answers: ``(question,)`` how many rows each question has; of weighted rows, Kish's number of them.
        level: nominal coverage.
    """
    n, z = float(answers.sum()), normal_quantile(level)
    if spread.questions == 1 and spread.seeds == 1:
        return 1.0
    alike = 1.0 + max(float(np.square(answers).sum()) / n - 1.0, 0.0) * LEAST_ICC
    seen, assumed = spread.variance * n / max(share * (1 - share), 1.0 / n**2), alike
    df = spread.degrees_of_freedom
    if seen < assumed:  # what is assumed has as many degrees of freedom as the questions give
        most = float(max(spread.questions - 1, 1))
        df = min(assumed**2 / (seen**2 / df + (assumed - seen) ** 2 / most), most)
    t = float(stdtrit(df, (1.0 + level) / 2.0))
    return min(max(n / max(seen, assumed) * (z / t) ** 2, 1.0), n)


def _checked_weights(weights: npt.ArrayLike | None, counted: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The weights of the rows that count; ones if none are given."""
    if weights is None:
        return np.ones(int(np.count_nonzero(counted)))
    given = real_array(weights, "weights", ("row",))
    if given.shape != counted.shape:
        raise PersonaProbeError(f"weights has {given.size} rows but there are {counted.size}; give one weight per row")
    if (given <= 0.0).any():
        row = int(np.argmax(given <= 0.0))
        raise PersonaProbeError(f"weights: row {row} has {given[row]:g}; a weight says for how many rows a row stands")
    return np.asarray(given[counted])


def _compact(labels: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Codes without the gaps left by rows that do not count."""
    return np.unique(labels, return_inverse=True)[1].ravel()


def _units(spread: ClusteredVariance, rows_are_questions: bool) -> str:
    noun = "row" if rows_are_questions else "question"
    questions = f"{spread.questions} {noun}{'s' * (spread.questions != 1)}"
    return f"{questions} and {spread.seeds} seed{'s' * (spread.seeds != 1)}"


def _t_name(spread: ClusteredVariance, units: str) -> str:
    return f"{'two-way ' if min(spread.questions, spread.seeds) > 1 else ''}t over {units}"
