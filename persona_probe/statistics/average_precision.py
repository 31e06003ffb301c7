"""Average precision: how clean the top of a ranking is, with an interval over dialogue groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.auroc import FEWEST_GROUPS, how_compared, jackknife_interval, two_classes, wins
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.inputs import check_level, codes
from persona_probe.statistics.score_intervals import wilson_interval


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike, *, strata: npt.ArrayLike | None = None) -> float:
    """The precision at each positive row of the ranking, averaged; rows with equal scores are taken together.

    Equal to scikit-learn's ``average_precision_score``. A random ranking gives about the share of positive rows.

    Args:
        scores: ``(row,)`` finite numbers, larger meaning more positive.
        labels: ``(row,)`` truth values.
        strata: ``(row,)`` rows whose scores are on one scale, such as those of a fold of a cross-validation (see
            `persona_probe.statistics.auroc.auroc`). A row is then ranked by the share of its own stratum below it;
            strata are weighted so that each has the same share of positive rows as all rows together; and rows of a
            stratum of one class are left out. None: scores are comparable.

    Returns:
        Between 0 and 1.

    Raises:
        PersonaProbeError: if a class is missing, lengths differ, a score is not finite, or no stratum holds both
            classes.

    Examples:
        >>> round(average_precision([0.1, 0.4, 0.35, 0.8], [False, False, True, True]), 3)
        0.833
    """
    values, truth = two_classes(scores, labels)
    return _of(values, truth, None if strata is None else codes(strata, "strata", truth.size, when_none="same"))


def average_precision_estimate(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    strata: npt.ArrayLike | None = None,
    inflation: float = 1.0,
    level: float = 0.95,
) -> Estimate:
    """Average precision with an interval; ``method`` says which of these was used, and over what.

    * From five groups on, if both classes are left whichever one is taken out: the jackknife over groups, with
      Student's t (at most groups - 1 degrees of freedom) on the logit scale, widened near 0 and 1 as in
      `auroc_estimate`.
    * Otherwise, and where the ranking is perfect, or is so once a single group is taken out, a binomial interval whose
      number of trials is that of the positive rows (Boyd, Eng and Page 2013, "Area under the precision-recall curve:
      point estimates and confidence intervals", section 3.1), here Wilson's. Where rows have groups, the trials are the
      groups that hold a positive row, the cautious extreme (see `auroc_estimate`).

    Args:
        scores: ``(row,)`` finite numbers, larger meaning more positive.
        labels: ``(row,)`` truth values.
        groups: ``(row,)`` which dialogue group (topic, prompt); None: rows are taken as independent.
        strata: ``(row,)`` as in `average_precision`.
        inflation: of the variance, as in `auroc_estimate`.
        level: nominal coverage.

    Returns:
        The average precision; ``n`` is the number of rows.

    Raises:
        PersonaProbeError: as `average_precision`, or if ``level`` is not in (0, 1).

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> topics, labels = np.repeat(np.arange(8), 10), np.tile([True, False], 40)
        >>> print(average_precision_estimate(rng.normal(size=80) + labels, labels, groups=topics))
        0.75 [0.63, 0.84] (n=80)
    """
    check_level(level)
    values, truth = two_classes(scores, labels)
    n = truth.size
    stratum = None if strata is None else codes(strata, "strata", n, when_none="same")
    group = codes(groups, "groups", n, when_none="distinct")
    value = _of(values, truth, stratum)
    held_out = None if groups is None else _held_out(values, truth, stratum, group)
    if held_out is not None and value < 1.0 and held_out.max() < 1.0 and np.ptp(held_out) > 0.0:
        low, high = jackknife_interval(value, held_out, inflation, level)
        kind = f"jackknife t on the logit scale over {held_out.size} groups{how_compared(None, inflation)}"
        return Estimate(value, low, high, n, kind, level)
    trials = len(np.unique(group[truth]))
    low, high = wilson_interval(value, trials / (inflation if groups is None and value < 1.0 else 1.0), level)
    noun = "positive rows" if groups is None else "groups with a positive row"
    return Estimate(value, low, high, n, f"Wilson, effective n = {trials} {noun}", level)


def _of(values: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_], stratum: npt.NDArray[np.intp] | None) -> float:
    if stratum is not None:
        values, truth = _on_one_scale(values, truth, stratum)
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    positives = np.cumsum(truth)
    last_of_tie = np.append(values[1:] != values[:-1], True)  # rows with equal scores are taken at once
    at, seen = positives[last_of_tie], np.flatnonzero(last_of_tie) + 1
    return float((np.diff(at, prepend=0) * at / seen).sum() / positives[-1])


def _on_one_scale(
    values: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_], stratum: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """For each row the share of its own stratum below it, and the labels that go with these shares."""
    prevalence = truth.mean()
    shares, labels = [], []
    for number in np.unique(stratum):
        scores, label = values[stratum == number], truth[stratum == number]
        if label.any() and not label.all():
            below = [wins(scores, scores[side]) / np.count_nonzero(side) for side in (label, ~label)]
            # rounded, so that what is equal in exact arithmetic ties
            shares.append(np.round(prevalence * below[0] + (1 - prevalence) * below[1], 12))
            labels.append(label)
    if not shares:
        raise PersonaProbeError("no stratum holds rows of both classes, so there is nothing to rank")
    return np.concatenate(shares), np.concatenate(labels)


def _held_out(
    values: npt.NDArray[np.float64],
    truth: npt.NDArray[np.bool_],
    stratum: npt.NDArray[np.intp] | None,
    groups: npt.NDArray[np.intp],
) -> npt.NDArray[np.float64] | None:
    """``(group,)`` the average precision without each group; None if groups are few or nothing could be ranked."""
    count = int(groups.max()) + 1
    left = np.zeros(truth.size, dtype=np.intp) if stratum is None else stratum
    kept = [groups != group for group in range(count)]
    if count < FEWEST_GROUPS or not all(set(left[rows & truth]) & set(left[rows & ~truth]) for rows in kept):
        return None
    return np.array([_of(values[rows], truth[rows], None if stratum is None else stratum[rows]) for rows in kept])
