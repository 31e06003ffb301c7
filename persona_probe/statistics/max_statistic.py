"""Many tests on the same questions: p-values that hold for all of them together, by flipping signs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.inputs import codes, real_array

# memory of one round of flips stays below flips x tests numbers
FLIPS_AT_ONCE = 256


def max_statistic_p(
    changes: npt.ArrayLike, *, questions: npt.ArrayLike | None = None, n_permutations: int = 2000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Two-sided p of each test's mean change, corrected for all tests, which share their questions.

    If training changed nothing, each question's change is as likely to be negative. So the signs of whole questions
    are flipped, for all tests at once, which keeps the dependence between layers and directions; each test's
    studentised statistic is compared with the *largest* over tests of each flip (Westfall and Young 1993, "Resampling-
    based multiple testing", single step; Nichols and Holmes 2002, "Nonparametric permutation tests for functional
    neuroimaging", Human Brain Mapping 15). The chance of one or more false positives is then the nominal level.

    ``sum / root of the sum of squares`` over question sums is used, of which Student's t is a monotone function, and
    whose denominator no flip changes. Where all flips are no more than ``n_permutations``, all are made; then p is
    exact. It is never below 1 divided by the number of flips: with five questions, 1/16.

    The questions are what is drawn at random here; the fine-tuning runs are taken as they are.

    Args:
        changes: ``(row, test)`` paired differences; a test is, for example, one direction at one layer.
        questions: ``(row,)`` which question was asked; None: every row is its own question.
        n_permutations: how many flips, at least 1.
        seed: of the random flips.

    Returns:
        ``(test,)`` p-values within (0, 1]. A test in which nothing changed has 1.

    Raises:
        PersonaProbeError: if ``changes`` is empty or not finite, lengths differ, or ``n_permutations`` < 1.

    Examples:
        Five questions and two directions: all questions move up along the first, along the second they disagree.

        >>> changes = [[1.0, -1.0], [2.0, 1.0], [1.5, -2.0], [0.5, 1.0], [1.0, 0.5]]
        >>> max_statistic_p(changes)
        array([0.0625, 1.    ])
    """
    rows = real_array(changes, "changes", ("row", "test"))
    if n_permutations < 1:
        raise PersonaProbeError(f"n_permutations is {n_permutations}; ask for at least 1 flip, better 1,000 or more")
    unit = _studentised(rows, codes(questions, "questions", rows.shape[0], when_none="distinct"))
    observed = np.abs(unit.sum(axis=0))
    count = unit.shape[0]
    # rounding must not turn the unflipped arrangement, which is always among them, into a smaller one
    reached, flips = np.zeros(observed.size), 0
    for signs in sign_flips(count, n_permutations, seed):
        largest = np.abs(signs @ unit).max(axis=1)
        reached += (largest[:, None] >= observed * (1 - 1e-9)).sum(axis=0)
        flips += len(signs)
    p: npt.NDArray[np.float64] = reached / flips
    return p


def sign_flips(count: int, n_permutations: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """Arrangements of ``count`` signs, in parts of ``(flip, count)``; the first is the one that flips nothing.

    All of them, but for a sign common to all, where these are no more than ``n_permutations``; else that many at random
    and the first.
    """
    exact = 2 ** (count - 1) <= n_permutations
    flips = 2 ** (count - 1) if exact else n_permutations
    generator = np.random.default_rng(seed)
    if not exact:
        yield np.ones((1, count))
    for start in range(0, flips, FLIPS_AT_ONCE):
        some = min(FLIPS_AT_ONCE, flips - start)
        yield _all_signs(start, some, count) if exact else generator.choice([-1.0, 1.0], size=(some, count))


def smallest_p(questions: int, n_permutations: int) -> float:
    """The smallest p that `max_statistic_p` can give with this number of questions.

    Args:
        questions: number of distinct questions, at least 1.
        n_permutations: as in `max_statistic_p`.

    Examples:
        >>> smallest_p(5, n_permutations=2000)
        0.0625
    """
    flips = 2 ** (questions - 1)
    return 1 / flips if flips <= n_permutations else 1 / (n_permutations + 1)


def _studentised(rows: npt.NDArray[np.float64], by: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """``(question, test)`` sums over each question's rows, each test's column of length one (or zero)."""
    sums = np.zeros((int(by.max()) + 1, rows.shape[1]))
    np.add.at(sums, by, rows)
    norms = np.linalg.norm(sums, axis=0)
    unit: npt.NDArray[np.float64] = np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0)
    return unit


def _all_signs(start: int, some: int, count: int) -> npt.NDArray[np.float64]:
    """Arrangements ``start``, ``start + 1``, ... of signs; the first sign stays, since p is two-sided."""
    numbers = np.arange(start, start + some)[:, None]
    bits = (numbers >> np.arange(count - 1)[None, :]) & 1
    return np.concatenate([np.ones((some, 1)), 1.0 - 2.0 * bits], axis=1)
