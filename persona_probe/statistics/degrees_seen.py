"""How well a variance over few clusters is known, when a few of them make up most of it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def degrees_seen(deviations: npt.NDArray[np.float64]) -> float:
    """Degrees of freedom of a variance over clusters, from the kurtosis of the clusters' parts of the error.

    ``2 clusters / (kurtosis - 1)``, that of a variance whose own variance is what this kurtosis implies (the moments of
    Satterthwaite 1946, "An approximate distribution of estimates of variance components"): the number of clusters for
    normal parts, about 2 if a single cluster deviates. At least 1; infinite where there is nothing to be seen.

    Args:
        deviations: ``(cluster,)`` each one's part of the error; sums to zero.

    Examples:
        >>> round(degrees_seen(np.array([1.0, -1.0, 0.5, -0.5, 2.0, -2.0])), 1)
        14.0
        >>> round(degrees_seen(np.array([5.0, -1.0, -1.0, -1.0, -1.0, -1.0])), 1)
        3.8
    """
    squares = np.square(deviations)
    total = float(squares.sum())
    kurtosis = squares.size * float(np.square(squares).sum()) / total**2 if total > 0.0 else 1.0
    return max(2 * squares.size / (kurtosis - 1.0), 1.0) if kurtosis > 1.0 + 1e-12 else math.inf
