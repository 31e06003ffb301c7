"""AUROC: how well a score separates two classes, with an interval over dialogue groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, stdtrit

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.clustered_variance import clustered_variance, degrees_from_kurtosis
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.inputs import boolean_array, check_level, codes, real_array
from persona_probe.statistics.score_intervals import auroc_score_interval

# with fewer groups the jackknife's own variance is mostly noise
FEWEST_GROUPS = 5
# how far from 0.5 a share may be before groups that were not drawn matter
NEAR = 0.4


def auroc(scores: npt.ArrayLike, labels: npt.ArrayLike, *, strata: npt.ArrayLike | None = None) -> float:
    """The chance that a random positive row scores above a random negative one, ties counting half.

    Equal to scikit-learn's ``roc_auc_score``, from ranks, so that results can be opened without importing it.

    Args:
        scores: ``(row,)`` finite numbers, larger meaning more positive.
        labels: ``(row,)`` truth values.
        strata: ``(row,)``, only rows of one stratum are compared, each pair counting once. Scores of a cross-validation
            are not on one scale: a fold's intercept moves against the base rate of the rows that were held out, so that
            pairs from different folds make an AUROC of noise come out below 0.5. None: all rows are compared.

    Returns:
        Between 0 and 1.

    Raises:
        PersonaProbeError: if a class is missing, lengths differ, a score is not finite, or no stratum holds both
            classes.

    Examples:
        >>> auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True])
        0.75
    """
    values, truth = two_classes(scores, labels)
    return _Pairs.of(values, truth, codes(strata, "strata", truth.size, when_none="same")).value


def auroc_estimate(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    seeds: npt.ArrayLike | None = None,
    strata: npt.ArrayLike | None = None,
    inflation: float = 1.0,
    level: float = 0.95,
) -> Estimate:
    """AUROC with an interval; ``method`` says which of these was used, and over what.

    * From five groups on, if both classes are left whichever one is taken out: the jackknife over groups, with
      Student's t (at most groups - 1 degrees of freedom) on the logit scale, so that the interval stays within [0, 1].
      With ``seeds``, two-way: by group and by seed (`clustered_variance`, of DeLong's influence of each row). Where a
      few groups make up most of the error there are fewer degrees of freedom; and near 0 and 1 the worst group is
      counted twice, since a sample of groups may hold none of those that fail.
    * Where rows have groups but that cannot be done, and where the classes separate perfectly, or do so once a single
      group is taken out (no resampling of groups then shows any spread): Newcombe's score interval (Hanley and
      McNeil's variance) with each group counted as one positive and one negative observation (or only one of them), as
      if rows of a group were copies of each other. This is the cautious extreme, and the counterpart of the rule for
      rates near 0 and 1. At exactly 1 (or 0) it is a one-sided bound.
    * Without groups, Newcombe's over rows.

    The scores are taken as given: what made them (a fitted probe) is not resampled. See ``inflation``.

    Args:
        scores: ``(row,)`` finite numbers, larger meaning more positive.
        labels: ``(row,)`` truth values.
        groups: ``(row,)`` which dialogue group (topic, prompt); None: rows are taken as independent.
        seeds: ``(row,)`` which fine-tuning or sampling seed, where there are several; needs ``groups``.
        strata: ``(row,)`` only rows of one stratum (the fold of a cross-validation) are compared, as in `auroc`.
        inflation: what the variance is multiplied by (and numbers of rows divided by), for scores of probes that share
            training rows, which no resampling of test rows can show (a margin: see
            `persona_probe.probes.inputs.training_factor`). Where groups are counted as single observations it is not
            applied.
        level: nominal coverage.

    Returns:
        The AUROC; ``n`` is the number of rows.

    Raises:
        PersonaProbeError: if a class is missing, lengths differ, a score is not finite, no stratum holds both classes,
            there are seeds without groups, ``inflation`` is below 1, or ``level`` is not in (0, 1).

    Examples:
        Eight topics with ten dialogues each; the score is noise, plus 1 for the positive dialogues.

        >>> rng = np.random.default_rng(0)
        >>> topics, labels = np.repeat(np.arange(8), 10), np.tile([True, False], 40)
        >>> estimate = auroc_estimate(rng.normal(size=80) + labels, labels, groups=topics)
        >>> print(estimate)
        0.73 [0.59, 0.84] (n=80)
        >>> estimate.method
        'jackknife t on the logit scale over 8 groups'
    """
    check_level(level)
    if inflation < 1.0:
        raise PersonaProbeError(
            f"inflation is {inflation}; sharing training rows cannot make a variance smaller, give >= 1"
        )
    if seeds is not None and groups is None:
        raise PersonaProbeError("seeds are given without groups; say which rows share a group too")
    values, truth = two_classes(scores, labels)
    n = truth.size
    pairs = _Pairs.of(values, truth, codes(strata, "strata", n, when_none="same"))
    group = codes(groups, "groups", n, when_none="distinct")
    value, compared = pairs.value, how_compared(None if strata is None else pairs.strata, inflation)
    if groups is None and value not in (0.0, 1.0):
        low, high = auroc_score_interval(value, truth.sum() / inflation, (~truth).sum() / inflation, level)
        kind = f"Newcombe score over rows ({truth.sum()} positive, {(~truth).sum()} negative{compared})"
        return Estimate(value, low, high, n, kind, level)
    held_out = None if groups is None else pairs.held_out(group)
    if held_out is None or value in (0.0, 1.0) or np.isin(held_out, (0.0, 1.0)).any() or np.ptp(held_out) == 0.0:
        units = len(np.unique(group[truth])), len(np.unique(group[~truth]))
        low, high = auroc_score_interval(value, *units, level)
        noun = "rows" if groups is None else "groups"
        kind = f"Newcombe score, effective n = {units[0]} positive and {units[1]} negative {noun}"
        return Estimate(value, low, high, n, kind, level)
    if seeds is None:
        low, high = jackknife_interval(value, held_out, inflation, level)
        kind = f"jackknife t on the logit scale over {held_out.size} groups{compared}"
        return Estimate(value, low, high, n, kind, level)
    influence = pairs.influence()
    spread = clustered_variance(influence, group, codes(seeds, "seeds", n, when_none="same"))
    shares = np.bincount(group, weights=influence).astype(np.float64)
    low, high = _of_uneven_groups(value, spread.variance * inflation, spread.degrees_of_freedom, shares, level)
    kind = f"two-way t on the logit scale over {spread.questions} groups and {spread.seeds} seeds{compared}"
    return Estimate(value, low, high, n, kind, level)


def auroc_over_splits(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    halves: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """AUROC of rows that were held out in turn, averaged over several splits into halves, with an interval over groups.

    Each half is scored by what was found in the other one, so that only rows of one half are compared. A row's
    influence on the AUROC (DeLong et al. 1988) is averaged over splits and summed over its group; Student's t on the
    logit scale, as in `auroc_estimate`. Beyond 0.1 and 0.9 it is nowhere wider than Newcombe's score interval with each
    group counted as one observation, as if its rows were copies of each other: there a few groups are all of the error,
    and t has no bounds. That interval also stands where all pairs are ordered correctly (or none is). What made the
    scores is not resampled, so that the interval is somewhat too narrow.

    Args:
        scores: ``(split, row)`` finite numbers.
        labels: ``(row,)`` truth values.
        halves: ``(split, row)`` which half each row is in.
        groups: ``(row,)`` which question; None: rows are taken as independent.
        level: nominal coverage.

    Returns:
        The AUROC; ``n`` is the number of rows. The interval has no ends (NaN) with fewer than two groups.

    Raises:
        PersonaProbeError: as `auroc_estimate`.

    >>> rng = np.random.default_rng(0)
    >>> labels, halves = np.tile([True, False], 20), [rng.permutation(np.repeat([0, 1], 20)) for _ in range(5)]
    >>> print(auroc_over_splits([rng.normal(size=40) + labels for _ in halves], labels, halves))
    0.80 [0.72, 0.86] (n=40)
    """
    check_level(level)
    every = real_array(scores, "scores", ("split", "row"))
    pairs = []
    for of_split, half in zip(every, np.asarray(halves), strict=True):
        values, truth = two_classes(of_split, labels)
        pairs.append(_Pairs.of(values, truth, codes(half, "halves", truth.size, when_none="same")))
    truth = pairs[0].truth
    group = codes(groups, "groups", truth.size, when_none="distinct")
    value, count = float(np.mean([split.value for split in pairs])), int(group.max()) + 1
    influence = np.mean([split.influence() for split in pairs], axis=0)
    shares = np.bincount(group, weights=influence).astype(np.float64)
    if count < 2:
        return Estimate(value, math.nan, math.nan, truth.size, "no interval: one group", level)
    units = len(np.unique(group[truth])), len(np.unique(group[~truth]))
    widest = auroc_score_interval(value, *units, level)
    if value in (0.0, 1.0) or not shares.any():
        low, high = widest
        kind = f"Newcombe score, effective n = {units[0]} positive and {units[1]} negative groups"
        return Estimate(value, low, high, truth.size, kind, level)
    variance = count / (count - 1) * float(np.square(shares).sum())
    low, high = _of_uneven_groups(value, variance, count - 1, shares, level)
    if abs(value - 0.5) > NEAR:
        low, high = max(low, widest[0]), min(high, widest[1])
    kind = f"t on the logit scale over {count} groups, mean of {len(pairs)} splits into halves"
    return Estimate(value, low, high, truth.size, kind, level)


def jackknife_interval(
    value: float, held_out: npt.NDArray[np.float64], inflation: float, level: float
) -> tuple[float, float]:
    """Interval of a share from its values without each group in turn: Student's t on the logit scale."""
    count, deviations = held_out.size, held_out - held_out.mean()
    variance = (count - 1) / count * float(np.square(deviations).sum())
    return _of_uneven_groups(value, variance * inflation, count - 1, deviations, level)


def _of_uneven_groups(
    value: float, variance: float, degrees: float, deviations: npt.NDArray[np.float64], level: float
) -> tuple[float, float]:
    """Student's t on the logit scale, widened where few groups make up most of the error, or may have been missed.

    A variance to which a few groups contribute most is itself known badly (`degrees_from_kurtosis`). And where nearly
    all pairs are ordered correctly, the rest is often the work of a few groups of which a sample may hold none: near 0
    and 1 (fully beyond 0.05 and 0.95, not within 0.1 to 0.9) the largest deviation is counted twice, as if one more
    such group existed. Without them coverage is below nominal where separation differs between groups.

    Args:
        value: the share.
        variance: of it.
        degrees: of freedom, if all groups are alike.
        deviations: ``(group,)`` each group's part of the error; sums to zero.
        level: nominal coverage.
    """
    squares = np.square(deviations)
    near = min(max((abs(value - 0.5) - NEAR) / (0.45 - NEAR), 0.0), 1.0)
    variance *= 1.0 + near * float(squares.max() / squares.sum())
    t = float(stdtrit(min(degrees, degrees_from_kurtosis(deviations)), (1.0 + level) / 2.0))
    return _on_logit_scale(value, variance, t)


def wins(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """For each of ``ours``, how many of ``theirs`` it beats, ties counting half."""
    ordered = np.sort(theirs)
    return (np.searchsorted(ordered, ours, "left") + np.searchsorted(ordered, ours, "right")) / 2.0


def two_classes(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Scores and labels as arrays, of rows that are to be ranked.

    Raises:
        PersonaProbeError: if lengths differ, a class is missing, or a score is not finite.
    """
    values, truth = real_array(scores, "scores", ("row",)), boolean_array(labels, "labels")
    if values.size != truth.size:
        raise PersonaProbeError(f"scores has {values.size} rows and labels {truth.size}; give one label for each score")
    if truth.all() or not truth.any():
        raise PersonaProbeError(
            f"all {truth.size} labels are {bool(truth[0])}; a ranking of one class above another needs rows of both"
        )
    return values, truth


def how_compared(strata: int | None, inflation: float) -> str:
    """What a ``method`` adds about folds, if anything."""
    within = "" if strata is None else f", pairs within {strata} folds"
    return within + ("" if inflation == 1.0 else f", variance x {inflation:.2f} for shared training rows")


def _on_logit_scale(value: float, variance: float, quantile: float) -> tuple[float, float]:
    half = quantile * math.sqrt(variance) / (value * (1.0 - value))
    low, high = (float(expit(logit(value) + side * half)) for side in (-1.0, 1.0))
    return low, high


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a positive and a negative row of one stratum, and which of them the positive row wins."""

    values: npt.NDArray[np.float64]
    truth: npt.NDArray[np.bool_]
    stratum: npt.NDArray[np.intp]
    faced: npt.NDArray[np.float64]  # (row,) how many rows of the other class it is compared with
    won: npt.NDArray[np.float64]  # (row,) in how many of these pairs the positive row wins

    @classmethod
    def of(cls, values: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_], stratum: npt.NDArray[np.intp]) -> _Pairs:
        faced, won = np.zeros(truth.size), np.zeros(truth.size)
        for number in range(int(stratum.max()) + 1):
            positive, negative = (np.flatnonzero((stratum == number) & side) for side in (truth, ~truth))
            faced[positive], faced[negative] = negative.size, positive.size
            won[positive] = wins(values[positive], values[negative])
            won[negative] = positive.size - wins(values[negative], values[positive])
        if not faced.any():
            raise PersonaProbeError("no stratum holds rows of both classes, so there is no pair to compare")
        return cls(values, truth, stratum, faced, won)

    @property
    def value(self) -> float:
        return float(self.won[self.truth].sum() / self.faced[self.truth].sum())

    @property
    def strata(self) -> int:
        """How many strata hold both classes."""
        return len(np.unique(self.stratum[self.faced > 0]))

    def influence(self) -> npt.NDArray[np.float64]:
        """``(row,)`` each row's share of the error of `value` (DeLong et al. 1988); sums to zero."""
        share: npt.NDArray[np.float64] = (self.won - self.value * self.faced) / self.faced[self.truth].sum()
        return share

    def held_out(self, group: npt.NDArray[np.intp]) -> npt.NDArray[np.float64] | None:
        """``(group,)`` the AUROC without each group in turn; None if groups are few or no pair would be left."""
        count = int(group.max()) + 1
        if count < FEWEST_GROUPS:
            return None
        kept = []
        for number in range(count):
            members = group == number
            met, won = self._within(members)
            pairs = self.faced[self.truth].sum() - self.faced[members].sum() + met
            if pairs < 0.5:
                return None
            kept.append((self.won[self.truth].sum() - self.won[members].sum() + won) / pairs)
        return np.array(kept)

    def _within(self, members: npt.NDArray[np.bool_]) -> tuple[float, float]:
        """Number of pairs with both rows among ``members``, and how many of them the positive row wins."""
        met = won = 0.0
        for number in np.unique(self.stratum[members]):
            rows = members & (self.stratum == number)
            positive, negative = self.values[rows & self.truth], self.values[rows & ~self.truth]
            met += positive.size * negative.size
            won += float(wins(positive, negative).sum())
        return met, won
