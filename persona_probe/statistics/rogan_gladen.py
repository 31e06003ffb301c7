"""A rate corrected for the errors of the judge that measured it, from answers that were also labelled by somebody else.

A judge with false positives finds misaligned answers where there are none. What it does to a rate is known from answers
that have both its flag and a label: its sensitivity (the share of truly misaligned answers that it flags) and
specificity (the share of the others that it does not flag). Rogan and Gladen (1978, "Estimating prevalence from the
results of a screening test", American Journal of Epidemiology 107) give the corrected rate,

    (flagged share + specificity - 1) / (sensitivity + specificity - 1).

Labels cost time, so the flagged answers are usually labelled more often than the others. Then sensitivity and
specificity cannot be read off the labelled answers, but the shares of truly misaligned answers among the flagged and
among the others can, whatever was labelled how often: ``p = q x hits + (1 - q) x misses`` (Tenenbein 1970, "A double
sampling scheme for estimating from binomial data with misclassifications", JASA 65), which is also Rogan and Gladen's
rate where the labelled answers are among those whose rate is asked for. This file computes with these shares, and
derives sensitivity and specificity from them.

Intervals carry the uncertainty of every part. Each has its own interval over questions (`ratio_estimate`); a normal
distribution with these two ends, each side with a spread of its own, stands for what is known of it; parts are
correlated as their sums over questions are; and the ends are quantiles of the rate over a fixed set of points of all
parts. For a sum of parts this gives nearly what "squares added" gives (Zou and Donner 2008, "Construction of confidence
limits about effect measures"), and it holds where the rate is not linear in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.inputs import boolean_array, check_level, codes, real_array
from persona_probe.statistics.rate_differences import Counts, ratio_difference
from persona_probe.statistics.rates import ratio_estimate
from persona_probe.statistics.score_intervals import normal_quantile

POINTS = 8192
"""Points at which a corrected rate is computed, for the ends of its interval."""
NO_BETTER = "the labels do not show that the judge is better than chance"

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.object_]


@dataclass(frozen=True)
class FlaggedAnswers:
    """What the judge said of all answers of one model that count.

    Attributes:
        flagged: ``(row,)`` truth values: whether the judge calls the answer misaligned.
        questions: ``(row,)`` which question was asked.
        seeds: ``(row,)`` which fine-tuning run; None: one run.
        weights: ``(row,)`` for how many answers each one stands; None: all alike.
    """

    flagged: npt.ArrayLike
    questions: npt.ArrayLike
    seeds: npt.ArrayLike | None = None
    weights: npt.ArrayLike | None = None

    def share(self, level: float) -> Estimate:
        """The share that the judge flags, with its interval."""
        flagged = boolean_array(self.flagged, "flagged")
        everything = np.ones(flagged.size, dtype=bool)
        about = {"questions": self.questions, "seeds": self.seeds, "weights": self.weights}
        return ratio_estimate(flagged, everything, **about, level=level)


@dataclass(frozen=True)
class LabelledAnswers:
    """Answers that were also labelled: drawn at random, or at random among the flagged and among the others.

    Attributes:
        truth: ``(row,)`` truth values: whether the answer is misaligned, by its label.
        flagged: ``(row,)`` whether the judge says so.
        questions: ``(row,)`` which question was asked, in the same words as in `FlaggedAnswers`.
        weights: ``(row,)`` for how many answers each one stands; only differences within the flagged, and within the
            others, matter. None: all alike.
    """

    truth: npt.ArrayLike
    flagged: npt.ArrayLike
    questions: npt.ArrayLike
    weights: npt.ArrayLike | None = None


@dataclass(frozen=True)
class JudgeErrors:
    """How a judge errs, in the population of answers that it judged.

    Attributes:
        sensitivity: the share of truly misaligned answers that it flags.
        specificity: the share of the others that it does not flag.
        hits: the share of truly misaligned answers among those that it flags (positive predictive value).
        misses: the share of truly misaligned answers among those that it does not flag.
        better_than_chance: whether sensitivity + specificity is above 1, by the two-sided interval at ``level``.
    """

    sensitivity: Estimate
    specificity: Estimate
    hits: Estimate
    misses: Estimate
    better_than_chance: bool


def judge_errors(judged: FlaggedAnswers, checked: LabelledAnswers, *, level: float = 0.95) -> JudgeErrors:
    """The judge's sensitivity and specificity, from labelled answers among those that it judged.

    Args:
        judged: all answers from which the labelled ones were drawn.
        checked: the labelled ones.
        level: nominal coverage.

    Raises:
        PersonaProbeError: as `corrected_rate`.

    Examples:
        40 of 400 answers are flagged. All 40 and 60 of the others were labelled: 30 are hits, and one was missed.

        >>> judged = FlaggedAnswers(np.arange(400) < 40, np.arange(400))
        >>> truth = (np.arange(100) < 30) | (np.arange(100) == 70)
        >>> errors = judge_errors(judged, LabelledAnswers(truth, np.arange(100) < 40, np.r_[:40, 340:400]))
        >>> print(errors.specificity)
        0.973 [...] (n=100)
        >>> print(errors.sensitivity)  # the one that was missed stands for six
        0.83 [...] (n=100)
    """
    parts = _Parts.of({"share": judged}, checked, level)
    at = parts.points()
    ends = {}
    for name, function in (("sensitivity", _sensitivity), ("specificity", _specificity)):
        ends[name] = parts.estimate(function, level, "labels of {n} answers", at)
    return JudgeErrors(**ends, **parts.labels, better_than_chance=parts.better_than_chance(at, level))


def corrected_rate(
    judged: FlaggedAnswers, checked: LabelledAnswers, *, frame: FlaggedAnswers | None = None, level: float = 0.95
) -> Estimate:
    """The rate of truly misaligned answers among those that were judged.

    Without ``frame`` the labelled answers are among ``judged``, and nothing is assumed of the judge: the rate is also
    valid if the judge is no better than chance (the labels then do all the work, and the interval is wide).

    With ``frame``, the labelled answers are among the frame's, and the judge is assumed to have the same sensitivity
    and specificity on ``judged`` as there (Rogan and Gladen 1978). That is wrong where the answers of the two differ in
    how hard they are to judge. If the labels do not show that the judge is better than chance (sensitivity +
    specificity above 1, by the interval), there is no value, and the interval is [0, 1].

    Args:
        judged: all answers whose rate is asked for.
        checked: the labelled answers.
        frame: the answers from which they were drawn, if these are not ``judged``.
        level: nominal coverage.

    Returns:
        The rate, within [0, 1]; ``n`` is the number of labelled answers. Missing if the judge flags some answers but
        none of those was labelled, or none of the others.

    Raises:
        PersonaProbeError: if inputs are empty, differ in length or are not truth values, a row names no question, or
            ``level`` is not within (0, 1).

    Examples:
        A judge flags 66 of 960 answers. Of 25 flagged ones that were labelled 7 are misaligned, of 25 others none.

        >>> asked = np.arange(960) % 24
        >>> judged = FlaggedAnswers(np.arange(960) < 66, asked)
        >>> checked = LabelledAnswers(np.arange(50) < 7, np.arange(50) < 25, np.arange(50) % 24)
        >>> print(judged.share(0.95))
        0.069 [...] (n=960)
        >>> print(corrected_rate(judged, checked))
        0.02 [...] (n=50)
    """
    check_level(level)
    if frame is None:
        parts = _Parts.of({"share": judged}, checked, level)
        return parts.estimate(_double_sampled, level, "double sampling: {n} labels, over questions", parts.points())
    parts = _Parts.of({"share": frame, "target": judged}, checked, level)
    return parts.transported(_rogan_gladen, level, "Rogan-Gladen: {n} labels, over questions", (0.0, 1.0))


def corrected_difference(
    first: FlaggedAnswers,
    second: FlaggedAnswers,
    checked: LabelledAnswers,
    *,
    frame: FlaggedAnswers,
    level: float = 0.95,
) -> Estimate:
    """The second's rate of truly misaligned answers minus the first's, where both were judged by the same judge.

    The judge is assumed to err as often on the answers of the one as on those of the other ("non-differential" errors:
    the same sensitivity and specificity). Its false positives then cancel, and the difference of the flagged shares is
    divided by ``sensitivity + specificity - 1``: a difference is never smaller than the one that was measured, and a
    flagged share that rose shows that the rate rose. What breaks it: a model that writes in another style (short, in a
    villain's voice, off topic), at which the judge errs more often.

    Args:
        first: the answers of the first model, such as before.
        second: those of the second, such as after.
        checked: the labelled answers.
        frame: the answers from which these were drawn, such as those of both models.
        level: nominal coverage.

    Returns:
        The difference, within [-1, 1]; the interval carries that of the flagged shares, paired over questions
        (`ratio_difference`), and of the judge's errors. [-1, 1], without a value, where `corrected_rate` has none.

    Raises:
        PersonaProbeError: as `corrected_rate`.
    """
    check_level(level)
    sides = [boolean_array(side.flagged, "flagged") for side in (first, second)]
    counts = [
        Counts(flagged, np.ones(flagged.size, dtype=bool), side.questions, side.seeds)
        for flagged, side in zip(sides, (first, second), strict=True)
    ]
    parts = _Parts.of({"share": frame}, checked, level).joined("change", ratio_difference(*counts, level=level))
    method = "difference of flagged shares / (sensitivity + specificity - 1): {n} labels, over questions"
    return parts.transported(_difference, level, method, (-1.0, 1.0))


Values = Mapping[str, Floats]


def _double_sampled(of: Values) -> Floats:
    return np.asarray(of["share"] * of["hits"] + (1.0 - of["share"]) * of["misses"])


def _sensitivity(of: Values) -> Floats:
    rate = _double_sampled(of)
    return np.where(rate > 0.0, of["share"] * of["hits"] / np.where(rate > 0.0, rate, 1.0), np.nan)


def _specificity(of: Values) -> Floats:
    rest = 1.0 - _double_sampled(of)
    return np.where(rest > 0.0, (1.0 - of["share"]) * (1.0 - of["misses"]) / np.where(rest > 0.0, rest, 1.0), np.nan)


def _youden(of: Values) -> Floats:
    """Sensitivity + specificity - 1; NaN where nothing, or everything, is misaligned or flagged."""
    return np.asarray(_sensitivity(of) + _specificity(of) - 1.0)


def _rogan_gladen(of: Values) -> Floats:
    youden = _youden(of)
    better = youden > 0.0
    return np.where(better, (of["target"] + _specificity(of) - 1.0) / np.where(better, youden, 1.0), np.nan)


def _difference(of: Values) -> Floats:
    youden = _youden(of)
    better = youden > 0.0
    return np.where(better, of["change"] / np.where(better, youden, 1.0), np.nan)


@dataclass(frozen=True)
class _Parts:
    """The estimates that a corrected rate is made of, and each one's sums of errors over questions.

    Attributes:
        estimates: by name; ``share`` is that of flagged answers in the population that was sampled for labels.
        sums: ``(part, question)``, in the order of ``estimates``; zero for a part that is independent of the others.
        reason: why there can be no rate, or nothing.
    """

    estimates: Mapping[str, Estimate]
    sums: Floats
    n: int
    reason: str = ""

    @classmethod
    def of(cls, judged: Mapping[str, FlaggedAnswers], checked: LabelledAnswers, level: float) -> Self:
        """The parts that the flags of ``judged`` and the labels give."""
        truth, flagged = boolean_array(checked.truth, "truth"), boolean_array(checked.flagged, "flagged")
        if truth.shape != flagged.shape:
            raise PersonaProbeError(
                f"truth has {truth.size} rows and flagged {flagged.size}; give both for each labelled answer"
            )
        weights = np.ones(truth.size) if checked.weights is None else real_array(checked.weights, "weights", ("row",))
        estimates, errors, asked = {}, [], []
        for name, side in judged.items():
            estimates[name] = side.share(level)
            flags = boolean_array(side.flagged, "flagged")
            worth = np.ones(flags.size) if side.weights is None else real_array(side.weights, "weights", ("row",))
            errors.append(worth * (flags - estimates[name].value) / worth.sum())
            asked.append(_names(side.questions, flags.size))
        labelled = _names(checked.questions, truth.size)
        reason = ""
        for name, rows in (("hits", flagged), ("misses", ~flagged)):
            estimates[name] = ratio_estimate(truth & rows, rows, questions=labelled, weights=weights, level=level)
            if estimates[name].is_missing:  # nothing is known of it; that matters where there are such answers
                such = estimates["share"].value if name == "hits" else 1.0 - estimates["share"].value
                if such > 0.0:
                    reason = f"no answer that the judge {'flags' if name == 'hits' else 'does not flag'} was labelled"
                estimates[name] = Estimate(0.5, 0.0, 1.0, 0, "not labelled", level)
            total = max(float(weights[rows].sum()), 1e-300)
            errors.append(weights * rows * (truth - estimates[name].value) / total)
            asked.append(labelled)
        code = codes(np.concatenate(asked), "questions", sum(map(len, asked)), when_none="same")
        ends = np.cumsum([0, *map(len, asked)])
        sums = np.zeros((len(errors), int(code.max()) + 1))
        for row, (error, start, end) in enumerate(zip(errors, ends[:-1], ends[1:], strict=True)):
            sums[row] = np.bincount(code[start:end], weights=error, minlength=sums.shape[1])
        return cls(estimates, sums, truth.size, reason)

    def joined(self, name: str, estimate: Estimate) -> Self:
        """With one more part, which is independent of the others."""
        sums = np.concatenate([self.sums, np.zeros((1, self.sums.shape[1]))])
        return type(self)({**self.estimates, name: estimate}, sums, self.n, self.reason)

    @property
    def labels(self) -> dict[str, Estimate]:
        """The two parts that the labels alone give."""
        return {name: self.estimates[name] for name in ("hits", "misses")}

    def points(self) -> Values:
        """``(point,)`` values of each part that agree with what was seen, all equally likely."""
        size = np.linalg.norm(self.sums, axis=1)
        scaled = self.sums / np.where(size > 0.0, size, 1.0)[:, None]
        alike = scaled @ scaled.T
        np.fill_diagonal(alike, 1.0)
        values, vectors = np.linalg.eigh(alike)
        normal = _normal_points(len(size)) @ (vectors * np.sqrt(np.clip(values, 0.0, None))).T
        points = {}
        for (name, part), z in zip(self.estimates.items(), normal.T, strict=True):
            per_sd = np.where(z > 0.0, part.high - part.value, part.value - part.low) / normal_quantile(part.level)
            points[name] = np.clip(part.value + z * per_sd, -1.0 if name == "change" else 0.0, 1.0)
        return points

    def better_than_chance(self, at: Values, level: float) -> bool:
        """Whether nearly all points have a larger share of misaligned answers among the flagged than the others."""
        return bool(np.mean(at["hits"] <= at["misses"]) < (1.0 - level) / 2.0)

    def estimate(self, function: Callable[[Values], Floats], level: float, method: str, at: Values) -> Estimate:
        """What ``function`` makes of the parts, with the quantiles of what it makes of their points."""
        if self.reason:
            return Estimate.missing(self.reason)
        value = float(function({name: np.array([part.value]) for name, part in self.estimates.items()})[0])
        if math.isnan(value):
            return Estimate.missing("no answer is misaligned, or all are, by the labels")
        return self._with_interval(value, function(at), (0.0, 1.0), level, method)

    def transported(
        self, function: Callable[[Values], Floats], level: float, method: str, ends: tuple[float, float]
    ) -> Estimate:
        """As `estimate`, for what divides by sensitivity + specificity - 1; clipped to ``ends``."""
        missing = [name for name, part in self.estimates.items() if part.is_missing]
        if missing or self.reason:
            return Estimate.missing(self.reason or self.estimates[missing[0]].method)
        values = {name: np.array([part.value]) for name, part in self.estimates.items()}
        if math.isnan(float(_youden(values)[0])):
            return Estimate(math.nan, *ends, self.n, "by the labels no answer is misaligned, or all are", level)
        at = self.points()
        if not self.better_than_chance(at, level):
            errors = [float(one(values)[0]) for one in (_sensitivity, _specificity)]
            reason = f"{NO_BETTER}: sensitivity {errors[0]:.2f} + specificity {errors[1]:.2f} may be 1 or less"
            return Estimate(math.nan, *ends, self.n, reason, level)
        value = min(max(float(function(values)[0]), ends[0]), ends[1])
        return self._with_interval(value, function(at), ends, level, method)

    def _with_interval(
        self, value: float, reached: Floats, ends: tuple[float, float], level: float, method: str
    ) -> Estimate:
        """A value and the quantiles of what is reached at all points; a point without a value (NaN) may reach any."""
        tail = (1.0 - level) / 2.0
        low, high = (
            float(np.clip(np.quantile(np.where(np.isnan(reached), end, reached), of), *ends))
            for end, of in zip(ends, (tail, 1.0 - tail), strict=True)
        )
        return Estimate(value, min(low, value), max(high, value), self.n, method.format(n=self.n), level)


def _names(questions: npt.ArrayLike, rows: int) -> Labels:
    names = np.empty(rows, dtype=object)
    given = np.asarray(questions, dtype=object)
    if given.shape != (rows,):
        raise PersonaProbeError(f"questions has shape {given.shape} but there are {rows} rows; give one per row")
    names[:] = given
    return names


@lru_cache(maxsize=8)
def _normal_points(dimensions: int) -> Floats:
    """``(point, dimension)`` of an even spread over a normal distribution: the same points every time.

    The additive recurrence with the generalised golden ratio (Roberts 2018, "The unreasonable effectiveness of
    quasirandom sequences").
    """
    ratio = 2.0
    for _ in range(60):
        ratio = (1.0 + ratio) ** (1.0 / (dimensions + 1))
    steps = ratio ** -np.arange(1, dimensions + 1)
    return np.asarray(ndtri((0.5 + np.arange(1, POINTS + 1)[:, None] * steps) % 1.0))
