"""AUROC: how well a score tells two classes apart, with an interval over dialogue groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, stdtrit

from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.inputs import boolean_array, check_level, codes, real_array
from persona_probe.statistics.score_intervals import auroc_score_interval

# with fewer groups the jackknife's own variance is mostly noise
FEWEST_GROUPS = 5


def auroc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The chance that a random positive row scores above a random negative one, ties counting half.

    Equal to scikit-learn's ``roc_auc_score``, from ranks, so that results can be opened without importing it.

    Args:
        scores: ``(row,)`` finite numbers, larger meaning more positive.
        labels: ``(row,)`` truth values.

    Returns:
        Between 0 and 1.

    Raises:
        ValueError: if a class is missing, lengths differ, or a score is not finite.
    """
    positive, negative, _ = _classes(scores, labels)
    return float(_wins(positive, negative).sum()) / (positive.size * negative.size)


def auroc_estimate(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """AUROC with an interval; ``method`` says which of these was used, and over what.

    * From five groups on, if both classes are left whichever one is taken out: the jackknife over groups, with
      Student's t (groups - 1 degrees of freedom) on the logit scale, so that the interval stays within [0, 1].
    * Otherwise Newcombe's score interval (Hanley and McNeil's variance) over rows, as if rows were independent.
    * Where the classes separate perfectly, or do so once a single group is taken out, no resampling of groups
      shows any spread. The interval is then Newcombe's with each group counted as one positive and one negative
      observation (or only one of them), as if rows of a group were copies of each other: the cautious extreme,
      and the counterpart of the rule for rates near 0 and 1. At exactly 1 (or 0) it is a one-sided bound.

    Args:
        scores: ``(row,)`` finite numbers, larger meaning more positive.
        labels: ``(row,)`` truth values.
        groups: ``(row,)`` which dialogue group (topic, prompt); None: rows are taken as independent.
        level: nominal coverage.

    Returns:
        The AUROC; ``n`` is the number of rows.

    Raises:
        ValueError: if a class is missing, lengths differ, a score is not finite, or ``level`` is not in (0, 1).
    """
    check_level(level)
    positive, negative, truth = _classes(scores, labels)
    group_codes = codes(groups, "groups", truth.size, when_none="distinct")
    by_group = _ByGroup.of(positive, negative, group_codes[truth], group_codes[~truth], int(group_codes.max()) + 1)
    value, n = by_group.value, truth.size
    held_out = None if groups is None else by_group.held_out()
    if value in (0.0, 1.0) or (held_out is not None and bool(np.isin(held_out, (0.0, 1.0)).any())):
        units = by_group.groups_with_each
        low, high = auroc_score_interval(value, *units, level)
        noun = "rows" if groups is None else "groups"
        kind = f"Newcombe score, effective n = {units[0]} positive and {units[1]} negative {noun}"
        return Estimate(value, low, high, n, kind, level)
    if held_out is not None and np.ptp(held_out) > 0.0:
        count = held_out.size
        variance = (count - 1) / count * float(np.square(held_out - held_out.mean()).sum())
        half = stdtrit(count - 1, (1.0 + level) / 2.0) * math.sqrt(variance) / (value * (1.0 - value))
        low, high = (float(expit(logit(value) + side * half)) for side in (-1.0, 1.0))
        return Estimate(value, low, high, n, f"jackknife t on the logit scale over {count} groups", level)
    low, high = auroc_score_interval(value, positive.size, negative.size, level)
    why = "" if groups is None else ", the groups being too few or too alike for a jackknife"
    kind = f"Newcombe score over rows ({positive.size} positive, {negative.size} negative{why})"
    return Estimate(value, low, high, n, kind, level)


@dataclass(frozen=True)
class _ByGroup:
    """Pairs won by the positive row, split by the group of either side, so that a group can be taken out."""

    positives: npt.NDArray[np.float64]  # (group,) rows
    negatives: npt.NDArray[np.float64]  # (group,) rows
    won_by: npt.NDArray[np.float64]  # (group,) pairs whose positive row is in the group
    won_over: npt.NDArray[np.float64]  # (group,) pairs whose negative row is in the group
    won_within: npt.NDArray[np.float64]  # (group,) pairs with both rows in it

    @classmethod
    def of(
        cls,
        positive: npt.NDArray[np.float64],
        negative: npt.NDArray[np.float64],
        positive_groups: npt.NDArray[np.intp],
        negative_groups: npt.NDArray[np.intp],
        count: int,
    ) -> _ByGroup:
        lost = positive.size - _wins(negative, positive)
        within = np.zeros(count)
        for group in np.intersect1d(positive_groups, negative_groups):
            within[group] = _wins(positive[positive_groups == group], negative[negative_groups == group]).sum()
        return cls(
            positives=np.bincount(positive_groups, minlength=count).astype(np.float64),
            negatives=np.bincount(negative_groups, minlength=count).astype(np.float64),
            won_by=np.bincount(positive_groups, weights=_wins(positive, negative), minlength=count).astype(np.float64),
            won_over=np.bincount(negative_groups, weights=lost, minlength=count).astype(np.float64),
            won_within=within,
        )

    @property
    def value(self) -> float:
        return float(self.won_by.sum() / (self.positives.sum() * self.negatives.sum()))

    @property
    def groups_with_each(self) -> tuple[int, int]:
        """Number of groups that hold a positive row, and a negative one."""
        return int(np.count_nonzero(self.positives)), int(np.count_nonzero(self.negatives))

    def held_out(self) -> npt.NDArray[np.float64] | None:
        """``(group,)`` the AUROC without each group in turn; None if groups are few or a class would vanish."""
        pairs = (self.positives.sum() - self.positives) * (self.negatives.sum() - self.negatives)
        if self.positives.size < FEWEST_GROUPS or not pairs.all():
            return None
        kept: npt.NDArray[np.float64] = (self.won_by.sum() - self.won_by - self.won_over + self.won_within) / pairs
        return kept


def _wins(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """For each of ``ours``, how many of ``theirs`` it beats, ties counting half."""
    ordered = np.sort(theirs)
    return (np.searchsorted(ordered, ours, "left") + np.searchsorted(ordered, ours, "right")) / 2.0


def _classes(
    scores: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Scores of positive rows, of negative rows, and the labels as truth values."""
    values, truth = real_array(scores, "scores", ("row",)), boolean_array(labels, "labels")
    if values.size != truth.size:
        raise ValueError(f"scores has {values.size} rows and labels {truth.size}; give one label a score")
    if truth.all() or not truth.any():
        raise ValueError(
            f"all {truth.size} labels are {bool(truth[0])}; an AUROC compares two classes, so give rows of both"
        )
    return values[truth], values[~truth], truth
