"""Quantiles with intervals over questions, not over rows."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrik, stdtrit

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.clustered_variance import ClusteredVariance, clustered_variance, degrees_from_kurtosis
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.inputs import check_level, codes, real_array
from persona_probe.statistics.score_intervals import normal_quantile


def quantile_estimate(
    values: npt.ArrayLike,
    q: float,
    *,
    questions: npt.ArrayLike | None = None,
    seeds: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """The ``q`` quantile of ``values`` over rows.

    The interval holds every number below which a share of the rows lies that agrees with ``q`` (Woodruff 1952,
    "Confidence intervals for medians and other position measures"). Which shares agree is what the binomial
    distribution of ``q`` says for the effective number of rows: the number that, if independent, would have the
    variance of the share over questions and seeds (with Student's t, and fewer degrees of freedom where few questions
    hold most of the extreme rows). If all rows, or the largest or smallest of them, agree with ``q``, they say nothing
    about how far out the quantile may be: that end is then infinite, and ``method`` says so.

    Args:
        values: ``(row,)`` finite numbers.
        q: within (0, 1).
        questions: ``(row,)`` which question each row belongs to; None: every row is its own.
        seeds: ``(row,)`` which seed; None: one seed.
        level: nominal coverage.

    Returns:
        The quantile, in the units of ``values``. From one question and one seed there is no interval: its ends are NaN.

    Raises:
        PersonaProbeError: if ``values`` is empty or not finite throughout, lengths differ, or ``q`` is not within (0,
            1).

    Examples:
        >>> print(quantile_estimate(np.arange(101), 0.9))
        90.00 [83.70, 96.74] (n=101)
        >>> print(quantile_estimate(np.arange(21), 0.95))
        19.00 [16.00, inf] (n=21)
    """
    if not 0.0 < q < 1.0:
        raise PersonaProbeError(f"q is {q}; give a share within 0 and 1, such as 0.95")
    check_level(level)
    rows = real_array(values, "values", ("row",))
    value, n = float(np.quantile(rows, q)), rows.size
    question = codes(questions, "questions", n, when_none="distinct")
    below = rows <= value
    influence = (below - below.mean()) / n
    spread = clustered_variance(influence, question, codes(seeds, "seeds", n, when_none="same"))
    units = f"{spread.questions} {'rows' if questions is None else 'questions'} and {spread.seeds} seeds"
    if math.isnan(spread.variance):
        return Estimate(value, math.nan, math.nan, n, f"no interval from {units}", level)
    effective = _effective_rows(q, influence, question, spread, level)
    first, last = (math.ceil(float(bdtrik(tail, effective, q))) for tail in ((1 - level) / 2, (1 + level) / 2))
    low = -math.inf if first < 1 else float(np.quantile(rows, first / effective))
    high = math.inf if last >= effective else float(np.quantile(rows, (last + 1) / effective))
    lacking = {(True, False): "; no lower end", (False, True): "; no upper end", (True, True): "; no ends"}
    missing = lacking.get((math.isinf(low), math.isinf(high)), "")
    return Estimate(
        value, min(low, value), max(high, value), n, f"Woodruff, effective n = {effective} ({units}){missing}", level
    )


def _effective_rows(
    q: float,
    influence: npt.NDArray[np.float64],
    question: npt.NDArray[np.intp],
    spread: ClusteredVariance,
    level: float,
) -> int:
    """How many independent rows would give the share below the quantile the same precision; at least 1."""
    n = influence.size
    if spread.variance <= 0.0:
        return n
    degrees = min(
        spread.degrees_of_freedom, degrees_from_kurtosis(np.bincount(question, weights=influence).astype(np.float64))
    )
    shrink = (normal_quantile(level) / float(stdtrit(degrees, (1.0 + level) / 2.0))) ** 2
    return max(min(int(q * (1 - q) / spread.variance * shrink), n), 1)
