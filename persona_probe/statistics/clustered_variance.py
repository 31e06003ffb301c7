"""The variance of an average, or of a difference of two, whose rows share questions and fine-tuning seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit


@dataclass(frozen=True)
class ClusteredVariance:
    """A two-way clustered variance and what it rests on.

    Attributes:
        variance: of the estimate, in its units squared; NaN with one question and one seed.
        degrees_of_freedom: for the t quantile, at least 1; NaN where ``variance`` is.
        questions: number of distinct questions.
        seeds: number of distinct seeds.
        cells: number of distinct (question, seed) pairs.
    """

    variance: float
    degrees_of_freedom: float
    questions: int
    seeds: int
    cells: int

    def t_quantile(self, level: float) -> float:
        """The two-sided Student t quantile at ``level``."""
        return float(stdtrit(self.degrees_of_freedom, (1.0 + level) / 2.0))


def clustered_variance(
    influence: npt.NDArray[np.float64], questions: npt.NDArray[np.intp], seeds: npt.NDArray[np.intp]
) -> ClusteredVariance:
    """Two-way clustered variance: by question, plus by seed, minus by (question, seed) cell.

    The three terms follow Cameron, Gelbach and Miller (2011, "Robust inference with multiway clustering"),
    each times G / (G - 1) for its G clusters. With few seeds the difference can come out below one of its own
    terms, or below zero; the larger of the two one-way variances is then taken instead (as MacKinnon, Nielsen
    and Webb 2024 advise, "Jackknife inference with two-way clustering", arXiv:2406.08880).
    Degrees of freedom are Satterthwaite's, the three terms treated as independent: close to questions - 1
    when questions drive the spread, close to seeds - 1 when seeds do.

    Args:
        influence: ``(row,)`` each row's share of the estimate's error; sums to zero.
        questions: ``(row,)`` integer codes 0, 1, ... without gaps.
        seeds: ``(row,)`` integer codes 0, 1, ... without gaps.

    Returns:
        The variance. With a single seed only questions count, with a single question only seeds.

    Examples:
        Four answers to each of three questions, all with one seed. Answers to the same question are alike, so the
        variance is larger than that of twelve independent rows.

        >>> values = np.array([1.0, 1.1, 0.9, 1.0, 2.0, 2.1, 1.9, 2.0, 3.0, 3.1, 2.9, 3.0])
        >>> questions = np.repeat([0, 1, 2], 4)
        >>> spread = clustered_variance((values - values.mean()) / 12, questions, np.zeros(12, dtype=int))
        >>> round(spread.variance, 3), spread.degrees_of_freedom
        (0.333, 2.0)
    """
    cells = _cells(questions, seeds)
    counts = [int(by.max()) + 1 for by in (questions, seeds, cells)]
    (v_question, v_seed, v_cell), (df_question, df_seed, df_cell) = zip(
        *(_one_way(influence, by, count) for by, count in zip((questions, seeds, cells), counts, strict=True)),
        strict=True,
    )
    if counts[0] == 1 and counts[1] == 1:
        variance = df = math.nan
    elif counts[1] == 1:
        variance, df = v_question, df_question
    elif counts[0] == 1:
        variance, df = v_seed, df_seed
    else:
        variance = max(v_question + v_seed - v_cell, v_question, v_seed)
        spread = v_question**2 / df_question + v_seed**2 / df_seed + v_cell**2 / df_cell
        # one degree is the least that a t distribution can have without losing its meaning as "some replication"
        df = max(variance**2 / spread, 1.0) if spread > 0 else df_question
    return ClusteredVariance(variance, df, *counts)


def contrast_variance(
    influences: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    questions: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]],
    seeds: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]],
) -> ClusteredVariance:
    """Two-way clustered variance of the difference of two estimates that share questions but not fine-tuning runs.

    The difference is one estimate whose rows are those of both: the second's share of its error, and the first's with
    the opposite sign. Sums over a question run over both, so that what the question does to both cancels; sums over a
    run stay within one of them, since a run of the one is not a run of the other, whatever its label. The terms are
    those of `clustered_variance`: questions, plus the runs of each, minus the (question, run) cells of each; an
    estimate with a single run has no term for runs.

    Args:
        influences: for each of the two, ``(row,)`` each row's share of the estimate's error; sums to zero.
        questions: for each, ``(row,)`` integer codes on one scale for both, without gaps over both.
        seeds: for each, ``(row,)`` integer codes of its own runs, without gaps.

    Returns:
        The variance; ``seeds`` counts the runs of both, ``cells`` their (question, run) pairs.

    Examples:
        Two questions differ by 10 in both estimates, so most of that cancels.

        >>> low, high = np.array([0.0, 1.0, 10.0, 11.0]), np.array([1.0, 2.0, 11.0, 12.5])
        >>> shares, codes = [(one - one.mean()) / 4 for one in (low, high)], np.array([0, 0, 1, 1])
        >>> spread = contrast_variance(tuple(shares), (codes, codes), (np.zeros(4, int), np.zeros(4, int)))
        >>> round(spread.variance, 4)
        0.0156
    """
    first, second = influences
    count = 1 + max(int(codes.max()) for codes in questions)
    v_question, df_question = _one_way(np.concatenate([-first, second]), np.concatenate(questions), count)
    v_seeds = v_cells = spread = 0.0
    runs, pairs = [], []
    for influence, asked, seed in zip(influences, questions, seeds, strict=True):
        cells = _cells(asked, seed)
        runs.append(int(seed.max()) + 1)
        pairs.append(int(cells.max()) + 1)
        if runs[-1] > 1:
            (v_seed, df_seed), (v_cell, df_cell) = (
                _one_way(influence, by, n) for by, n in ((seed, runs[-1]), (cells, pairs[-1]))
            )
            v_seeds, v_cells = v_seeds + v_seed, v_cells + v_cell
            spread += v_seed**2 / df_seed + v_cell**2 / df_cell
    if count == 1 and not v_seeds:
        return ClusteredVariance(math.nan, math.nan, count, sum(runs), sum(pairs))
    variance = max(v_question + v_seeds - v_cells, v_question, v_seeds)
    spread += v_question**2 / df_question if df_question else 0.0
    df = max(variance**2 / spread, 1.0) if spread > 0 else max(df_question, 1.0)
    return ClusteredVariance(variance, df, count, sum(runs), sum(pairs))


def degrees_from_kurtosis(deviations: npt.NDArray[np.float64]) -> float:
    """Degrees of freedom of a variance over clusters, from the kurtosis of the clusters' parts of the error.

    ``2 clusters / (kurtosis - 1)``, that of a variance whose own variance is what this kurtosis implies (the moments of
    Satterthwaite 1946, "An approximate distribution of estimates of variance components"): the number of clusters for
    normal parts, about 2 if one of many clusters deviates. At least 1; infinite where there is nothing to be seen.

    Args:
        deviations: ``(cluster,)`` each one's part of the error; sums to zero.

    Examples:
        >>> round(degrees_from_kurtosis(np.array([1.0, -1.0, 0.5, -0.5, 2.0, -2.0])), 1)
        14.0
        >>> round(degrees_from_kurtosis(np.array([5.0, -1.0, -1.0, -1.0, -1.0, -1.0])), 1)
        3.8
    """
    squares = np.square(deviations)
    total = float(squares.sum())
    kurtosis = squares.size * float(np.square(squares).sum()) / total**2 if total > 0.0 else 1.0
    return max(2 * squares.size / (kurtosis - 1.0), 1.0) if kurtosis > 1.0 + 1e-12 else math.inf


def _cells(questions: npt.NDArray[np.intp], seeds: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """``(row,)`` integer codes of the (question, run) pairs, without gaps."""
    # One number per pair: rows of two numbers are sorted ten times more slowly.
    numbers: npt.NDArray[np.intp] = np.unique(questions * (int(seeds.max()) + 1) + seeds, return_inverse=True)[1]
    return numbers.ravel()


def _one_way(influence: npt.NDArray[np.float64], clusters: npt.NDArray[np.intp], count: int) -> tuple[float, float]:
    """Variance from sums over clusters, times G / (G - 1), and its G - 1 degrees of freedom."""
    if count == 1:
        return 0.0, 0.0
    totals = np.bincount(clusters, weights=influence, minlength=count)
    return float(totals @ totals) * count / (count - 1), float(count - 1)
