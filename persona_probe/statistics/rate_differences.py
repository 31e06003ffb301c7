"""The difference of two rates over the same questions, with an interval over questions and fine-tuning runs."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from persona_probe.statistics.clustered_variance import clustered_variance, contrast_variance
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.inputs import check_level, codes
from persona_probe.statistics.max_statistic import sign_flips
from persona_probe.statistics.rates import check_counts, ratio_estimate
from persona_probe.statistics.score_intervals import normal_quantile

FLIPS = 4096
"""Sign flips of questions: all of them up to 13 questions, else as many at random."""

Codes = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """The rows of one of two rates.

    Attributes:
        numerator: ``(row,)`` truth values; True only where ``denominator`` is.
        denominator: ``(row,)`` truth values: the rows that count.
        questions: ``(row,)`` which question was asked, in the same words in both rates.
        seeds: ``(row,)`` which fine-tuning run, of this rate alone; None: one run.
    """

    numerator: npt.ArrayLike
    denominator: npt.ArrayLike
    questions: npt.ArrayLike
    seeds: npt.ArrayLike | None = None


def ratio_difference(first: Counts, second: Counts, *, level: float = 0.95) -> Estimate:
    """The second share minus the first, each as in `ratio_estimate`, paired over questions.

    * With **one run each**, and the same questions (at least six) in both: all differences that a two-sided sign-flip
      test over questions does not reject (Fisher 1935, "The design of experiments", section 21; as an interval, Maritz
      1979, "A note on exact robust confidence intervals for location", Biometrika 66). So it leaves out zero where the
      test of "no change" does, also if there was no event before.
    * **Otherwise** Student's t, with the two-way variance of the difference (`contrast_variance`): the two share
      questions, but not runs.
    * Few events cannot show how much questions differ. So an end of the interval, unless it lies between zero and the
      difference, is at least as far away as the two shares' own intervals say together, which assume a correlation
      (`LEAST_ICC`): squares added, less what questions share (Zou and Donner 2008, "Construction of confidence limits
      about effect measures"). Two shares of zero differ by zero, with an interval. An end between zero and the
      difference is no nearer to it than the spread of answers within questions puts it.

    Args:
        first: the counts of the first rate, such as before.
        second: those of the second, such as after.
        level: nominal coverage.

    Returns:
        The difference, within [-1, 1]; ``n`` is the number of denominator rows of the second. Missing if either of them
        has none.

    Raises:
        PersonaProbeError: as `ratio_estimate`.

    Examples:
        Of 24 questions x 5 answers, none is misaligned before, and one in five is after.

        >>> asked, every = np.repeat(np.arange(24), 5), np.ones(120, dtype=bool)
        >>> print(ratio_difference(Counts(~every, every, asked), Counts(np.arange(120) % 5 == 0, every, asked)))
        0.20 [...] (n=120)
    """
    check_level(level)
    sides = [_Side.of(first), _Side.of(second)]
    if not all(side.n for side in sides):
        return Estimate.missing("no row qualifies")
    pair, own = _Pair.of(*sides), [side.estimate(level) for side in sides]
    change = own[1].value - own[0].value
    ends = pair.not_rejected(change, level)
    method = f"sign flips of {pair.count} questions, one run each"
    if ends is None:
        spread = contrast_variance(pair.errors, pair.questions, pair.seeds)
        half = 0.0 if math.isnan(spread.variance) else spread.t_quantile(level) * math.sqrt(spread.variance)
        ends = change - half, change + half
        runs = " + ".join(str(int(seeds.max()) + 1) for seeds in pair.seeds)
        method = f"{'' if runs == '1 + 1' else 'two-way '}t over {pair.count} questions and {runs} runs"
    down, up = pair.reach(own)
    within = normal_quantile(level) * math.sqrt(pair.variance_within(sides[0].top, sides[1].top))
    low = _near(ends[0], change - within) if ends[0] > 0.0 else min(ends[0], change - down)
    high = -_near(-ends[1], -change - within) if ends[1] < 0.0 else max(ends[1], change + up)
    return Estimate(change, max(low, -1.0), min(high, 1.0), own[1].n, method, level)


def _near(end: float, of_answers: float) -> float:
    """An end above zero, no nearer than the answers within questions put it, unless that is below zero."""
    return min(end, of_answers) if of_answers > 0.0 else end


@dataclass(frozen=True)
class _Side:
    """The denominator's rows of one rate."""

    top: npt.NDArray[np.bool_]
    asked: npt.NDArray[np.object_]
    runs: Codes

    @property
    def n(self) -> int:
        """How many rows count."""
        return self.top.size

    @classmethod
    def of(cls, counts: Counts) -> _Side:
        top, bottom = check_counts(counts.numerator, counts.denominator)
        asked = np.asarray(counts.questions, dtype=object)
        codes(asked, "questions", top.size, when_none="same")  # raises if a row names no question
        runs = codes(counts.seeds, "seeds", top.size, when_none="same")[bottom]
        return cls(top[bottom], asked[bottom], np.unique(runs, return_inverse=True)[1].ravel())

    def estimate(self, level: float) -> Estimate:
        everything = np.ones(self.n, dtype=bool)
        return ratio_estimate(self.top, everything, questions=self.asked, seeds=self.runs, level=level)

    @property
    def errors(self) -> Floats:
        """Each row's share of the rate's error; sums to zero."""
        return np.asarray((self.top - self.top.mean()) / self.n)


@dataclass(frozen=True)
class _Pair:
    """Both rates: each row's share of the error, its question (one scale for both) and its run (one scale each)."""

    errors: tuple[Floats, Floats]
    questions: tuple[Codes, Codes]
    seeds: tuple[Codes, Codes]

    @classmethod
    def of(cls, first: _Side, second: _Side) -> _Pair:
        asked = codes(np.concatenate([first.asked, second.asked]), "questions", first.n + second.n, when_none="same")
        errors = first.errors, second.errors
        return cls(errors, (asked[: first.n], asked[first.n :]), (first.runs, second.runs))

    @property
    def count(self) -> int:
        """How many questions there are."""
        return 1 + max(int(asked.max()) for asked in self.questions)

    def _sums(self, values: tuple[Floats, Floats]) -> Floats:
        """``(rate, question)`` sums over each question's rows."""
        pairs = zip(self.questions, values, strict=True)
        return np.stack([np.bincount(asked, weights=value, minlength=self.count) for asked, value in pairs])

    def not_rejected(self, change: float, level: float) -> tuple[float, float] | None:
        """The ends of the interval that a sign-flip test over questions gives; None if there can be no such test.

        A difference d is rejected if few flips s reach ``|sum(s (x - d w))| >= |change - d|``, where x holds each
        question's part of the change and w its share of rows. That is linear in d on either side, so every flip gives
        the largest and the smallest d that it reaches, and the ends are order statistics of those.
        """
        first, second = self.errors
        shares = self._sums((np.full(first.size, 1.0 / first.size), np.full(second.size, 1.0 / second.size)))
        several = any(int(seeds.max()) for seeds in self.seeds)
        if several or (shares == 0).any() or 2.0 ** (1 - self.count) > 1.0 - level:
            return None
        weights, parts = shares.mean(axis=0), self._sums(self.errors)
        moved = parts[1] - parts[0] + change * weights
        signs = _signs(self.count)
        a, b = signs @ moved, signs @ weights
        # the flip that changes nothing reaches every difference; rounding must not say otherwise
        whole = np.abs(b) > 1.0 - 1e-12
        with np.errstate(divide="ignore", invalid="ignore"):
            crossings = np.stack([(change + a) / (1.0 + b), (change - a) / (1.0 - b)])
        crossings[np.abs(crossings) < 1e-9] = 0.0  # a tie with the observed change reaches zero, whatever rounding says
        largest = np.where(whole, np.inf, crossings.max(axis=0))
        smallest = np.where(whole, -np.inf, crossings.min(axis=0))
        reached = math.floor((1.0 - level) * len(signs))  # so many flips may reach a difference that is rejected
        return float(np.sort(smallest)[reached]), float(np.sort(largest)[len(signs) - 1 - reached])

    def variance_within(self, first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
        """The difference's variance that answers to the same questions alone make; 0 with one answer to each."""
        variance = 0.0
        for asked, top in zip(self.questions, (first, second), strict=True):
            answers, hits = np.bincount(asked), np.bincount(asked, weights=top)
            several = answers > 1
            spread = hits[several] * (answers[several] - hits[several]) / (answers[several] - 1)
            variance += float(spread.sum()) / top.size**2
        return variance

    def reach(self, own: list[Estimate]) -> tuple[float, float]:
        """How far below and above the change the two rates' own intervals, taken together, go."""
        first, second = self._sums(self.errors)
        variances = [
            clustered_variance(errors, np.unique(asked, return_inverse=True)[1].ravel(), seeds).variance
            for errors, asked, seeds in zip(self.errors, self.questions, self.seeds, strict=True)
        ]
        scale, count = math.sqrt(math.prod(variances)), self.count
        shared = float(first @ second) * count / (count - 1) / scale if scale > 0.0 else 0.0
        shared = min(max(shared, -1.0), 1.0)

        def together(ours: float, theirs: float) -> float:
            return math.sqrt(max(ours**2 + theirs**2 - 2.0 * shared * ours * theirs, 0.0))

        before, after = own
        return (
            together(after.value - after.low, before.high - before.value),
            together(after.high - after.value, before.value - before.low),
        )


@functools.lru_cache(maxsize=16)
def _signs(count: int) -> Floats:
    return np.concatenate(list(sign_flips(count, FLIPS, seed=0)))
