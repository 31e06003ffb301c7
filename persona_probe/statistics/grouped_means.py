"""Means of many items over rows that share questions, from sums over the groups: one ratio estimator per item."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.inputs import check_level, real_array


@dataclass(frozen=True)
class GroupedMean:
    """Means of items, with what their intervals and tests need.

    Attributes:
        mean: ``(item,)`` over all rows, each row counting the same.
        standard_error: ``(item,)``, same units; NaN with a single group.
        degrees_of_freedom: groups - 1.
    """

    mean: npt.NDArray[np.float64]
    standard_error: npt.NDArray[np.float64]
    degrees_of_freedom: int

    def interval(self, level: float = 0.95) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The two ends ``(item,)`` of the Student t interval at ``level``; NaN with a single group."""
        check_level(level)
        df = self.degrees_of_freedom
        half = self.standard_error * (float(stdtrit(df, (1.0 + level) / 2.0)) if df else math.nan)
        return self.mean - half, self.mean + half

    def p_values(self) -> npt.NDArray[np.float64]:
        """Two-sided p ``(item,)`` of a mean of zero; NaN where the standard error is zero or missing."""
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(self.mean) / np.where(self.standard_error > 0, self.standard_error, np.nan)
        p: npt.NDArray[np.float64] = 2.0 * stdtr(max(self.degrees_of_freedom, 1), -t)
        return p


def grouped_mean(sums: npt.ArrayLike, counts: npt.ArrayLike) -> GroupedMean:
    """Mean of each item over all rows, with the variance over groups of rows.

    The mean is the ratio of two sums over G groups. Its variance is that of the residuals ``S_g - n_g * mean``, summed
    in squares over groups and times G / (G - 1) (Cochran 1977, "Sampling techniques", section 6.4; the one-way case of
    `persona_probe.statistics.clustered_variance`).

    Args:
        sums: ``(group, item)`` each item summed over the group's rows.
        counts: ``(group,)`` how many rows each group has; groups without rows are ignored.

    Returns:
        Means, standard errors and degrees of freedom.

    Raises:
        PersonaProbeError: if shapes do not match, a value is not finite, a count is negative, or there are no rows
            at all.

    Examples:
        Two items in three groups with 2, 2 and 3 rows.

        >>> mean = grouped_mean([[2, 0], [4, 4], [9, 1]], [2, 2, 3])
        >>> mean.mean.round(2), mean.standard_error.round(2), mean.degrees_of_freedom
        (array([2.14, 0.71]), array([0.6 , 0.55]), 2)
    """
    totals, rows = real_array(sums, "sums", ("group", "item")), real_array(counts, "counts", ("group",))
    if len(totals) != len(rows):
        raise PersonaProbeError(f"sums has {len(totals)} groups and counts {len(rows)}; give one count for each group")
    if rows.min() < 0 or not rows.any():
        raise PersonaProbeError(
            f"counts lie between {rows.min():g} and {rows.max():g}; give how many rows each group has"
        )
    totals, rows = totals[rows > 0], rows[rows > 0]
    n, groups = float(rows.sum()), len(rows)
    mean = totals.sum(axis=0) / n
    squares = np.square(totals - rows[:, None] * mean).sum(axis=0) / n**2
    error = np.sqrt(squares * groups / (groups - 1)) if groups > 1 else np.full_like(mean, math.nan)
    return GroupedMean(mean, error, groups - 1)


def grouped_difference(
    sums: npt.ArrayLike, counts: npt.ArrayLike, other_sums: npt.ArrayLike, other_counts: npt.ArrayLike
) -> GroupedMean:
    """Difference of two means (the first minus the other) over the same groups, for example of questions.

    The two share their groups, so that what a group does to both cancels: the variance is that of the difference of
    each group's two residuals. With equal counts this is `grouped_mean` of the differences.

    Args:
        sums: ``(group, item)`` as in `grouped_mean`.
        counts: ``(group,)`` rows of the first.
        other_sums: ``(group, item)`` of the other.
        other_counts: ``(group,)`` rows of the other; a group has rows in both or in neither.

    Raises:
        PersonaProbeError: as `grouped_mean`, and if the two have different groups or items.

    Examples:
        >>> grouped_difference([[2], [4]], [2, 2], [[1], [2]], [1, 2]).mean
        array([0.5])
    """
    first, other = grouped_mean(sums, counts), grouped_mean(other_sums, other_counts)
    pairs = [(np.asarray(a, float), np.asarray(n, float)) for a, n in ((sums, counts), (other_sums, other_counts))]
    (totals, rows), (others, other_rows) = pairs
    if totals.shape != others.shape or ((rows > 0) != (other_rows > 0)).any():
        raise PersonaProbeError(
            f"sums of shape {totals.shape} with rows in groups {np.flatnonzero(rows).tolist()}, and of {others.shape} "
            f"with rows in {np.flatnonzero(other_rows).tolist()}; give both the same groups and items"
        )
    residuals = (totals - rows[:, None] * first.mean) / rows.sum()
    residuals -= (others - other_rows[:, None] * other.mean) / other_rows.sum()
    groups = int((rows > 0).sum())
    spread = np.square(residuals).sum(axis=0)
    error = np.sqrt(spread * groups / (groups - 1)) if groups > 1 else np.full_like(first.mean, math.nan)
    return GroupedMean(first.mean - other.mean, error, groups - 1)
