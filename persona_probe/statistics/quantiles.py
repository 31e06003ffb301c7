"""Quantiles with intervals over questions, not over rows."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.inputs import real_array
from persona_probe.statistics.rates import ratio_estimate


def quantile_estimate(
    values: npt.ArrayLike,
    q: float,
    *,
    questions: npt.ArrayLike | None = None,
    seeds: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """The ``q`` quantile of ``values`` over rows.

    The interval is that of the share of rows up to the quantile (`ratio_estimate`), converted back to quantiles
    (Woodruff 1952, "Confidence intervals for medians and other position measures").

    Args:
        values: ``(row,)`` finite numbers.
        q: within (0, 1).
        questions: ``(row,)`` which question each row belongs to; None: every row is its own.
        seeds: ``(row,)`` which seed; None: one seed.
        level: nominal coverage.

    Returns:
        The quantile, in the units of ``values``.

    Raises:
        PersonaProbeError: if ``values`` is empty or not finite throughout, lengths differ, or ``q`` is not within (0,
            1).

    Examples:
        >>> print(quantile_estimate(np.arange(101), 0.9))
        90.00 [82.47, 94.49] (n=101)
    """
    if not 0.0 < q < 1.0:
        raise PersonaProbeError(f"q is {q}; give a share within 0 and 1, such as 0.95")
    rows = real_array(values, "values", ("row",))
    value = float(np.quantile(rows, q))
    share = ratio_estimate(rows <= value, np.ones(rows.size, bool), questions=questions, seeds=seeds, level=level)
    if math.isnan(share.low):
        return Estimate(value, math.nan, math.nan, rows.size, share.method, level)
    ends = (max(q - (share.value - share.low), 0.0), min(q + (share.high - share.value), 1.0))
    low, high = (float(end) for end in np.quantile(rows, ends))
    return Estimate(value, low, high, rows.size, f"Woodruff; {share.method}", level)
