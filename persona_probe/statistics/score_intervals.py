"""Score intervals for shares: they stay within [0, 1] and have a width even at 0 and 1."""

from __future__ import annotations

import math

from scipy.special import ndtri


def normal_quantile(level: float) -> float:
    """The two-sided standard normal quantile at ``level`` (1.96 at 0.95)."""
    return float(ndtri((1.0 + level) / 2.0))


def wilson_interval(share: float, n: float, level: float) -> tuple[float, float]:
    """Wilson's (1927) score interval for a share.

    Args:
        share: between 0 and 1.
        n: number of independent observations; an effective number need not be whole.
        level: nominal coverage.

    Returns:
        Lower and upper end.

    Examples:
        No misaligned answer among 40: the rate may still be up to 9 %.

        >>> low, high = wilson_interval(0.0, 40, level=0.95)
        >>> low, round(high, 3)
        (0.0, 0.088)
    """
    z2 = normal_quantile(level) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2) * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    # exact ends: rounding must not make the interval of 0 out of 40 start at 1e-18
    low = 0.0 if share <= 0.0 else max(centre - half, 0.0)
    high = 1.0 if share >= 1.0 else min(centre + half, 1.0)
    return low, high


def auroc_score_interval(value: float, positives: float, negatives: float, level: float) -> tuple[float, float]:
    """Newcombe's score interval for an AUROC: all values that, by their own standard error, agree with the one seen.

    Newcombe (2006, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic,
    part 2", Statistics in Medicine 25, method 5): Hanley and McNeil's variance, evaluated at the candidate
    value rather than at the estimate, with both class sizes in its numerator replaced by their mean. It is for
    an AUROC what Wilson's interval is for a share, and like Wilson's it gives a bound at exactly 0 and 1.

    Args:
        value: the AUROC, between 0 and 1.
        positives: (effective) number of independent positive observations, at least 1.
        negatives: (effective) number of independent negative observations, at least 1.
        level: nominal coverage.

    Returns:
        Lower and upper end.

    Examples:
        >>> low, high = auroc_score_interval(0.8, positives=20, negatives=30, level=0.95)
        >>> round(low, 3), round(high, 3)
        (0.643, 0.894)
    """
    return (
        _auroc_lower(value, positives, negatives, level),
        1.0 - _auroc_lower(1.0 - value, positives, negatives, level),
    )


def _auroc_lower(value: float, positives: float, negatives: float, level: float) -> float:
    from scipy.optimize import brentq  # a tenth of a second that only this needs

    if value <= 0.0:
        return 0.0
    z2 = normal_quantile(level) ** 2
    others = (positives + negatives) / 2 - 1

    def excess(candidate: float) -> float:
        pairs = (1 - candidate) / (2 - candidate) + candidate / (1 + candidate)
        variance = candidate * (1 - candidate) * (1 + others * pairs) / (positives * negatives)
        return (value - candidate) ** 2 - z2 * variance

    # at value 1 the candidate 1 solves the equation too, and says nothing: look below it
    return float(brentq(excess, 0.0, min(value, 1.0 - 1e-9)))
