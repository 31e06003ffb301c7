"""Labels of whole questions are exchanged: what a difference between two classes would be if they did not differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import comb

FEWEST = 40
"""With fewer arrangements, the actual one included, none can be among the longest 2.5 %."""


@dataclass(frozen=True)
class QuestionExchange:
    """The exchanges of whole questions under which two classes that do not differ stay as they are.

    Rows of one question are alike, and more so within a class; if single rows changed places, this would be averaged
    out, and the null would be far too narrow. So only means of whole questions change places, and every row keeps its
    deviation from the mean of its question in its class (its *cell*). A question that is in both classes exchanges its
    two cells, which flips the sign of its difference. Questions that are in one class only exchange their cells with
    each other, where their numbers of rows are similar (1, 2 to 3, 4 to 7, ... rows), since a mean over many rows
    varies less. All weights stay in place, so that classes may have different numbers of rows.

    Attributes:
        cell: ``(row,)`` the cell of each row.
        flipped: ``(question, 2)`` the two cells of each question that is in both classes.
        dealt: the cells that exchange places with each other, of questions that are in one class.
        arrangements: in how many ways the cells can be assigned to the classes.
    """

    cell: npt.NDArray[np.intp]
    flipped: npt.NDArray[np.intp]
    dealt: tuple[npt.NDArray[np.intp], ...]
    arrangements: float

    @classmethod
    def of(
        cls, labels: npt.NDArray[np.bool_], questions: npt.NDArray[np.intp], *, apart: bool = False
    ) -> QuestionExchange:
        """The exchanges for ``(row,)`` labels and integer codes of questions.

        With ``apart`` the two cells of a question in both classes are dealt like all others, each by itself, whatever
        its number of rows (only the direction counts, not the length). That is for *directions* that know nothing of
        the labels: questions differ most in how strongly a difference shows, so that flips of their differences,
        however meaningless, point along it.

        Examples:
            Three questions in both classes, and four in one only.

            >>> questions = np.array([0, 1, 2, 0, 1, 2, 3, 4, 5, 6])
            >>> labels = np.array([True] * 3 + [False] * 3 + [True, True, False, False])
            >>> exchange = QuestionExchange.of(labels, questions)
            >>> len(exchange.flipped), [len(cells) for cells in exchange.dealt], exchange.arrangements
            (3, [4], 48.0)
        """
        named, cell = np.unique(2 * questions + labels, return_inverse=True)
        cell, rows, positive = cell.ravel(), np.bincount(cell.ravel()), named % 2 == 1
        second = np.flatnonzero((named[1:] // 2 == named[:-1] // 2) & (not apart)) + 1
        flipped = np.stack([second, second - 1], axis=1)
        single = np.setdiff1d(np.arange(named.size), flipped)
        sizes = np.zeros(single.size, dtype=int) if apart else np.frexp(rows[single])[1]
        dealt = tuple(single[sizes == size] for size in np.unique(sizes))
        ways = [float(comb(cells.size, positive[cells].sum())) for cells in dealt]
        return cls(cell, flipped, dealt, 2.0 ** min(len(flipped), 1000) * math.prod(ways))

    @property
    def questions(self) -> int:
        """How many questions there are."""
        return len(self.flipped) + sum(cells.size for cells in self.dealt)

    @property
    def too_few(self) -> str:
        """Why no 97.5 % quantile can be given, or nothing."""
        if self.arrangements / 2 >= FEWEST:  # an arrangement and its opposite have the same length
            return ""
        return f"too few for a 97.5 % quantile: the labels of {self.questions} can be exchanged in " + (
            "one way only" if self.arrangements == 1 else f"{self.arrangements:.0f} ways only"
        )

    def draws(self, n: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
        """``(draw, cell)`` whose mean takes each cell's place: first each cell's own, then ``n`` at random.

        If there are no more than ``n`` arrangements, all of flips, each of them is given once instead.
        """
        own = np.arange(self.cell.max() + 1)
        if self.dealt or self.arrangements > n:
            return np.concatenate([own[None], self.sample(n, rng)])
        numbers = np.arange(int(self.arrangements))[:, None]
        return self._flipped(np.tile(own, (len(numbers), 1)), numbers >> np.arange(len(self.flipped)) & 1)

    def sample(self, n: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
        """``(draw, cell)`` as `draws`, all at random."""
        drawn = np.tile(np.arange(self.cell.max() + 1), (n, 1))
        for cells in self.dealt:
            drawn[:, cells] = rng.permuted(np.tile(cells, (n, 1)), axis=1)
        return self._flipped(drawn, rng.integers(2, size=(n, len(self.flipped))))

    def _flipped(self, drawn: npt.NDArray[np.intp], flips: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
        for side in (0, 1):
            drawn[:, self.flipped[:, side]] = np.where(flips, self.flipped[:, 1 - side], self.flipped[:, side])
        return drawn

    def means(self, values: npt.NDArray[np.floating], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """``(cell, d)`` means of ``(row, d)`` values, rows counted by their weights."""
        from scipy.sparse import csr_array  # a tenth of a second that only this needs

        shares = np.abs(weights / np.bincount(self.cell, weights=weights)[self.cell])
        of_rows = csr_array((shares, (self.cell, np.arange(self.cell.size))))
        means: npt.NDArray[np.float64] = of_rows @ values
        return means

    def coefficients(self, drawn: npt.NDArray[np.intp], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """``(draw, cell)`` what the cells' means are multiplied by: their sum is the difference under each draw.

        Args:
            drawn: as from `draws`.
            weights: ``(row,)`` of the difference: 1 in total over the positive rows, and -1 over the negative ones.
        """
        of_cell = np.bincount(self.cell, weights=weights)
        placed = np.zeros(drawn.shape)
        np.put_along_axis(placed, drawn, np.broadcast_to(of_cell, drawn.shape), axis=1)
        return placed


def share_at_least(lengths: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The share of draws at least as long as the first, the actual one, which counts too: a permutation test's p.

    >>> share_at_least(np.array([3.0, 1.0, 2.0, 4.0]))
    array(0.5)
    """
    # rounding must not make the actual arrangement, or its opposite, smaller than itself
    return np.asarray((lengths >= lengths[0] * (1 - 1e-9)).mean(axis=0))


def upper_quantile(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The smallest of the values that at most 2.5 % of them exceed: the largest but one of 40.

    >>> upper_quantile(np.arange(40.0))
    array(38.)
    """
    return np.asarray(np.sort(values, axis=0)[-1 - int(0.025 * len(values) + 1e-9)])
