"""What a sample could have seen: the smallest mean change that it would have shown to differ from zero."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import nctdtr, stdtrit

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.clustered_variance import clustered_variance
from persona_probe.statistics.inputs import check_level, codes, real_array


def power_of_t(noncentrality: float, degrees_of_freedom: float, *, level: float = 0.95) -> float:
    """The chance that a two-sided t test at ``1 - level`` detects a mean of ``noncentrality`` standard errors.

    Args:
        noncentrality: the true mean divided by its standard error.
        degrees_of_freedom: of the test, above 0.
        level: nominal coverage of the interval that excludes zero.

    Returns:
        Between 0 and 1, from the noncentral t distribution (Cohen 1988, chapter 2).

    Examples:
        >>> round(power_of_t(2.8, 39), 2)
        0.78
    """
    edge = float(stdtrit(degrees_of_freedom, (1.0 + level) / 2.0))
    size = abs(noncentrality)
    above = 1.0 - float(nctdtr(degrees_of_freedom, size, edge))
    below = float(nctdtr(degrees_of_freedom, size, -edge))
    # SciPy gives NaN for the far tail, where it is zero
    return above + (0.0 if math.isnan(below) else below)


def smallest_detectable(
    values: npt.ArrayLike,
    *,
    questions: npt.ArrayLike | None = None,
    seeds: npt.ArrayLike | None = None,
    power: float = 0.8,
    level: float = 0.95,
) -> float:
    """The smallest mean that these questions and seeds would have detected with probability ``power``.

    Computed from the two-way clustered standard error and degrees of freedom of `mean_estimate`'s interval, and the
    noncentral t distribution. It says how large a change may be that stayed undetected; "not significant" does not.

    It is for one test, uncorrected: where p-values are corrected for several (`max_statistic_p`), that decision needs a
    larger mean than this.

    Args:
        values: ``(row,)`` finite numbers, for example paired differences.
        questions: ``(row,)`` which question was asked; None: every row is its own question.
        seeds: ``(row,)`` which fine-tuning seed; None: one seed.
        power: chance of detecting it, above ``1 - level``.
        level: nominal coverage.

    Returns:
        In the units of ``values``; 0 where they do not vary, NaN with one question and one seed.

    Raises:
        PersonaProbeError: if ``values`` is empty or not finite, lengths differ, or ``power`` or ``level`` is out of
            range.

    Examples:
        Changes between -5 and 5 on eleven questions: an average change of 3.1 would have been seen.

        >>> round(smallest_detectable(np.arange(-5.0, 6.0)), 2)
        3.11
    """
    check_level(level)
    if not 1.0 - level < power < 1.0:
        raise PersonaProbeError(f"power is {power}; give a share above {1 - level:.3g} and below 1, such as 0.8")
    rows = real_array(values, "values", ("row",))
    spread = clustered_variance(
        (rows - rows.mean()) / rows.size,
        codes(questions, "questions", rows.size, when_none="distinct"),
        codes(seeds, "seeds", rows.size, when_none="same"),
    )
    if math.isnan(spread.variance) or spread.variance == 0.0:
        return spread.variance
    return _needed(spread.degrees_of_freedom, power, level) * float(np.sqrt(spread.variance))


def _needed(degrees_of_freedom: float, power: float, level: float) -> float:
    """The noncentrality at which a t test has this power."""
    from scipy.optimize import brentq  # a tenth of a second that only this needs

    high = 1.0
    while power_of_t(high, degrees_of_freedom, level=level) < power:
        high *= 2.0
    return float(brentq(lambda size: power_of_t(size, degrees_of_freedom, level=level) - power, 0.0, high))
