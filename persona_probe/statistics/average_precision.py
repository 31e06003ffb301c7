"""Average precision: how clean the top of a ranking is, with an interval over dialogue groups."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, stdtrit

from persona_probe.statistics.auroc import FEWEST_GROUPS
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.inputs import boolean_array, check_level, codes, real_array
from persona_probe.statistics.score_intervals import wilson_interval


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The precision at each positive row of the ranking, averaged; rows with equal scores are taken together.

    Equal to scikit-learn's ``average_precision_score``. A random ranking gives about the share of positive rows.

    Args:
        scores: ``(row,)`` finite numbers, larger meaning more positive.
        labels: ``(row,)`` truth values.

    Returns:
        Between 0 and 1.

    Raises:
        ValueError: if a class is missing, lengths differ, or a score is not finite.
    """
    values, truth = _checked(scores, labels)
    order = np.argsort(-values, kind="stable")
    return _of_ranked(values[order], truth[order])


def average_precision_estimate(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """Average precision with an interval; ``method`` says which of these was used, and over what.

    * From five groups on, if both classes are left whichever one is taken out: the jackknife over groups, with
      Student's t (groups - 1 degrees of freedom) on the logit scale.
    * Otherwise a binomial interval whose number of trials is that of the positive rows (Boyd, Eng and Page 2013, "Area
      under the precision-recall curve: point estimates and confidence intervals", section 3.1), here Wilson's.
    * Where the ranking is perfect, or is so once a single group is taken out, resampling shows no spread: the trials
      are then the groups that hold a positive row, the cautious extreme (see `auroc_estimate`).

    Args:
        scores: ``(row,)`` finite numbers, larger meaning more positive.
        labels: ``(row,)`` truth values.
        groups: ``(row,)`` which dialogue group (topic, prompt); None: rows are taken as independent.
        level: nominal coverage.

    Returns:
        The average precision; ``n`` is the number of rows.

    Raises:
        ValueError: if a class is missing, lengths differ, a score is not finite, or ``level`` is not in (0, 1).
    """
    check_level(level)
    values, truth = _checked(scores, labels)
    group_codes = codes(groups, "groups", truth.size, when_none="distinct")
    order = np.argsort(-values, kind="stable")
    values, truth, group_codes = values[order], truth[order], group_codes[order]
    value, n = _of_ranked(values, truth), truth.size
    held_out = None if groups is None else _held_out(values, truth, group_codes)
    if value == 1.0 or (held_out is not None and bool((held_out == 1.0).any())):
        trials = len(np.unique(group_codes[truth]))
        low, high = wilson_interval(value, trials, level)
        kind = f"Wilson, effective n = {trials} {'rows' if groups is None else 'groups'} with a positive row"
        return Estimate(value, low, high, n, kind, level)
    if held_out is not None and np.ptp(held_out) > 0.0:
        count = held_out.size
        variance = (count - 1) / count * float(np.square(held_out - held_out.mean()).sum())
        half = stdtrit(count - 1, (1.0 + level) / 2.0) * math.sqrt(variance) / (value * (1.0 - value))
        low, high = (float(expit(logit(value) + side * half)) for side in (-1.0, 1.0))
        return Estimate(value, low, high, n, f"jackknife t on the logit scale over {count} groups", level)
    positives = int(truth.sum())
    low, high = wilson_interval(value, positives, level)
    why = "" if groups is None else ", the groups being too few or too alike for a jackknife"
    return Estimate(value, low, high, n, f"Wilson over rows (n = {positives} positive{why})", level)


def _of_ranked(values: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> float:
    """Average precision of rows sorted by falling score."""
    found = np.cumsum(truth)
    last_of_tie = np.append(values[1:] != values[:-1], True)  # rows with equal scores are found at once
    at, seen = found[last_of_tie], np.flatnonzero(last_of_tie) + 1
    return float((np.diff(at, prepend=0) * at / seen).sum() / found[-1])


def _held_out(
    values: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_], groups: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64] | None:
    """``(group,)`` the average precision without each group; None if groups are few or a class would vanish."""
    count = int(groups.max()) + 1
    positives = np.bincount(groups[truth], minlength=count)
    negatives = np.bincount(groups[~truth], minlength=count)
    if count < FEWEST_GROUPS or positives.max() == positives.sum() or negatives.max() == negatives.sum():
        return None
    kept = (groups != group for group in range(count))
    return np.array([_of_ranked(values[rows], truth[rows]) for rows in kept])


def _checked(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    values, truth = real_array(scores, "scores", ("row",)), boolean_array(labels, "labels")
    if values.size != truth.size:
        raise ValueError(f"scores has {values.size} rows and labels {truth.size}; give one label a score")
    if truth.all() or not truth.any():
        raise ValueError(
            f"all {truth.size} labels are {bool(truth[0])}; average precision ranks one class above another, so give "
            "rows of both"
        )
    return values, truth
