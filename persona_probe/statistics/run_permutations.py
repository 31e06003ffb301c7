"""Whether fine-tuning runs of one kind differ from those of another, for many tests at once, by permuting the runs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.inputs import real_array


def run_permutation_p(
    after: npt.ArrayLike, control: npt.ArrayLike, *, n_permutations: int = 5000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """One-sided p of each test's difference between two kinds of runs, corrected for all tests.

    If narrow training does nothing that benign training does not, any of the runs could have been called ``after``. So
    the runs are distributed over both kinds in all ways, all tests together, and each test's statistic is compared with
    the *largest* over all tests in every arrangement (Westfall and Young 1993, "Resampling-based multiple testing",
    single step; Nichols and Holmes 2002, Human Brain Mapping 15). The chance that one or more tests come out as
    "higher" by mistake is then no more than the nominal level, however tests depend on each other, however much runs
    vary, and also where a test (a layer) was chosen on the same runs; and the same holds for "lower".

    The statistic is the difference of means divided by its standard error over runs plus the median of these errors
    over tests, without which tests whose few runs agree by chance would be the largest (Tusher, Tibshirani and Chu
    2001, "Significance analysis of microarrays", PNAS 98).

    Args:
        after: ``(run, test)`` one number per run and test, such as the mean shift along one direction at one layer.
        control: ``(run, test)`` the same of the other kind; not necessarily as many runs.
        n_permutations: how many arrangements, at most; where there are no more, all are made.
        seed: of random arrangements.

    Returns:
        ``(test,)`` p within (0, 1], for a difference in the direction of the one seen. It is never below 1 divided by
        the number of arrangements: with three runs of each 1/20, with two of each 1/6, with one of each 1/2.

    Raises:
        PersonaProbeError: if either side is empty or not finite, they have different tests, or ``n_permutations`` < 1.

    Examples:
        Three runs of each. Along the first direction all runs of after are higher; along the second nothing differs.

        >>> after = [[2.0, 0.1], [2.5, -0.2], [3.0, 0.0]]
        >>> control = [[0.1, 0.2], [-0.3, 0.0], [0.2, -0.1]]
        >>> run_permutation_p(after, control).round(2)
        array([0.05, 0.55])
    """
    sides = real_array(after, "after", ("run", "test")), real_array(control, "control", ("run", "test"))
    if sides[0].shape[1] != sides[1].shape[1]:
        raise PersonaProbeError(f"after has {sides[0].shape[1]} tests and control {sides[1].shape[1]}; give the same")
    if n_permutations < 1:
        raise PersonaProbeError(f"n_permutations is {n_permutations}; ask for at least 1 arrangement")
    runs, first = np.concatenate(sides), len(sides[0])
    observed = _statistic(runs, np.arange(len(runs)) < first)
    slack = 1e-9 * np.sign(observed)  # rounding must not turn the arrangement that was seen into a smaller one
    up, down, count = np.zeros(observed.size), np.zeros(observed.size), 0
    for called_after in _arrangements(len(runs), first, n_permutations, seed):
        statistic = _statistic(runs, called_after)
        up += statistic.max() >= observed * (1.0 - slack)
        down += statistic.min() <= observed * (1.0 + slack)
        count += 1
    p: npt.NDArray[np.float64] = np.where(observed >= 0.0, up, down) / count
    return p


def smallest_run_p(after: int, control: int, n_permutations: int = 5000) -> float:
    """The smallest p that `run_permutation_p` can give with this number of runs.

    Args:
        after: number of runs of the one kind, at least 1.
        control: number of runs of the other.
        n_permutations: as in `run_permutation_p`.

    Examples:
        >>> smallest_run_p(3, 3), round(smallest_run_p(1, 5), 2)
        (0.05, 0.17)
    """
    arrangements = math.comb(after + control, after)
    return 1.0 / (arrangements if arrangements <= n_permutations else n_permutations + 1)


def _arrangements(runs: int, first: int, n_permutations: int, seed: int) -> list[npt.NDArray[np.bool_]]:
    """Which runs are called after: all ways, or the one that was seen and as many at random."""
    order = np.arange(runs)
    if math.comb(runs, first) <= n_permutations:
        return [np.isin(order, chosen) for chosen in itertools.combinations(range(runs), first)]
    generator = np.random.default_rng(seed)
    return [order < first, *(generator.permutation(order) < first for _ in range(n_permutations))]


def _statistic(runs: npt.NDArray[np.float64], called_after: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """``(test,)`` difference of means, divided by its standard error plus the median of these over tests."""
    one, other = runs[called_after], runs[~called_after]
    difference = one.mean(axis=0) - other.mean(axis=0)
    squares = sum(np.square(side - side.mean(axis=0)).sum(axis=0) for side in (one, other))
    errors = np.sqrt(squares / max(len(runs) - 2, 1) * (1.0 / len(one) + 1.0 / len(other)))
    scale = errors + np.median(errors)
    moved: npt.NDArray[np.float64] = np.divide(difference, scale, out=np.zeros_like(difference), where=scale > 0.0)
    return np.where((scale == 0.0) & (difference != 0.0), np.copysign(np.inf, difference), moved)
