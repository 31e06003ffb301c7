"""What a design like this one would see: the smallest difference that it would show to differ from zero."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, nctdtr, stdtrit

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.inputs import check_level

Floats = npt.NDArray[np.float64]
_NODES = 200


def power_of_t(noncentrality: float | Floats, degrees_of_freedom: float, *, level: float = 0.95) -> Floats:
    """The chance that a two-sided t test at ``1 - level`` detects a mean of ``noncentrality`` standard errors.

    Args:
        noncentrality: the true mean divided by its true standard error.
        degrees_of_freedom: of the test, above 0.
        level: nominal coverage of the interval that excludes zero.

    Returns:
        Between 0 and 1, from the noncentral t distribution (Cohen 1988, chapter 2).

    Examples:
        >>> round(float(power_of_t(2.8, 39)), 2)
        0.78
    """
    edge = float(stdtrit(degrees_of_freedom, (1.0 + level) / 2.0))
    size = np.abs(noncentrality)
    # SciPy gives NaN for far tails, where it is zero
    above, below = (np.nan_to_num(nctdtr(degrees_of_freedom, size, side)) for side in (edge, -edge))
    return np.asarray(1.0 - above + below)


def smallest_detectable(
    variance: float, degrees_of_freedom: float, *, power: float = 0.8, level: float = 0.95
) -> float:
    """The smallest true difference whose t interval would leave out zero with probability ``power``, all told.

    The standard error is itself an estimate, with few runs a poor one, and where it came out too small by chance, power
    computed from it is too large. So power is averaged over what the true standard error may be, given this one
    (assurance: O'Hagan, Stevens and Campbell 2005, "Assurance in clinical trial design", Pharmaceutical Statistics 4):
    variance x degrees of freedom / chi-squared.

    It is for one interval; where other criteria must hold too, that decision needs a larger difference.

    Args:
        variance: the estimated variance of the mean, as of `clustered_variance` or `contrast_variance`.
        degrees_of_freedom: of that variance.
        power: chance of detecting it, above ``1 - level``.
        level: nominal coverage.

    Returns:
        In the units of the root of ``variance``; 0 where it is 0, NaN where it is NaN.

    Raises:
        PersonaProbeError: if ``power`` or ``level`` is out of range.

    Examples:
        A standard error of 0.1 from three runs (two degrees of freedom), and from 24 questions.

        >>> round(smallest_detectable(0.01, 2.0), 2), round(smallest_detectable(0.01, 23.0), 2)
        (0.88, 0.3)
    """
    check_level(level)
    if not 1.0 - level < power < 1.0:
        raise PersonaProbeError(f"power is {power}; give a share above {1 - level:.3g} and below 1, such as 0.8")
    if math.isnan(variance) or variance == 0.0:
        return variance
    return _needed(round(degrees_of_freedom, 1), power, level) * math.sqrt(variance)


@functools.lru_cache(maxsize=4096)
def _needed(degrees_of_freedom: float, power: float, level: float) -> float:
    """The true difference, in estimated standard errors, at which the average power is this."""
    from scipy.optimize import brentq  # a tenth of a second that only this needs

    # true / estimated standard error at equally likely places
    ratios = np.sqrt(degrees_of_freedom / chdtri(degrees_of_freedom, (np.arange(_NODES) + 0.5) / _NODES))

    def lacking(size: float) -> float:
        return float(power_of_t(size / ratios, degrees_of_freedom, level=level).mean()) - power

    high = 1.0
    while lacking(high) < 0.0:
        high *= 2.0
    return float(brentq(lacking, 0.0, high, xtol=1e-4))
