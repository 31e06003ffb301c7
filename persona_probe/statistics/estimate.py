"""A number together with its interval, and how that interval was made."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its confidence interval.

    Attributes:
        value: the estimate, in the units of what was measured; NaN if it could not be computed.
        low: lower end of the interval, same units; NaN if there is no interval.
        high: upper end of the interval, same units; NaN if there is no interval.
        n: number of rows the estimate rests on (not the number of independent units: that is in ``method``).
        method: how the interval was made, or why there is none.
        level: nominal coverage of the interval.

    Examples:
        >>> print(Estimate(0.42, 0.36, 0.48, 512, "t over 40 questions and 3 seeds"))
        0.42 [0.36, 0.48] (n=512)
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    level: float = 0.95

    @classmethod
    def missing(cls, reason: str) -> Estimate:
        """An estimate that could not be computed; ``reason`` says why and becomes its ``method``.

        Examples:
            >>> print(Estimate.missing("no row qualifies"))
            missing (no row qualifies)
        """
        return cls(math.nan, math.nan, math.nan, 0, reason)

    @property
    def is_missing(self) -> bool:
        """Whether there is no value at all."""
        return math.isnan(self.value)

    def as_dict(self) -> dict[str, float | int | str | None]:
        """The fields for a JSON file; NaN, which does not exist in JSON, becomes None."""

        def or_none(number: float) -> float | None:
            return number if math.isfinite(number) else None

        return {
            "value": or_none(self.value),
            "low": or_none(self.low),
            "high": or_none(self.high),
            "n": self.n,
            "method": self.method,
            "level": self.level,
        }

    def __str__(self) -> str:
        """Such as ``0.42 [0.36, 0.48] (n=512)``; narrow intervals and small values get more decimals."""
        if self.is_missing:
            return f"missing ({self.method})"
        width = self.high - self.low
        if math.isnan(width):
            return f"{self.value:.2f} [no interval: {self.method}] (n={self.n})"
        # two digits of the width and one of the value: a rate that is not zero must not read as zero
        needed = [2]
        if 0 < width < math.inf:
            needed.append(math.ceil(-math.log10(width)) + 1)
        if abs(self.value) > 1e-4 * width:  # what is smaller is zero, or rounding
            needed.append(math.ceil(-math.log10(abs(self.value))))
        decimals = min(max(needed), 8)
        return f"{self.value:.{decimals}f} [{self.low:.{decimals}f}, {self.high:.{decimals}f}] (n={self.n})"
