"""How large a difference is, in units that compare across measures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, nctdtrinc, stdtrit

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.clustered_variance import ClusteredVariance, clustered_variance
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.inputs import codes, real_array
from persona_probe.statistics.rates import mean_estimate

# a spread this small compared with the numbers themselves is their rounding, and an effect divided by it is nonsense
ROUNDING = 1e-12


def cohens_d(positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """Difference of two means in pooled standard deviations (Cohen 1988, chapter 2).

    Args:
        positive: ``(row,)`` finite numbers, at least two.
        negative: ``(row,)`` finite numbers, at least two; need not be as many.

    Returns:
        ``(mean(positive) - mean(negative)) / pooled SD``.

    Raises:
        PersonaProbeError: if either side has fewer than two rows or is not finite, or neither varies.

    Examples:
        >>> cohens_d([2, 3, 4], [0, 1, 2])
        2.0
    """
    sides = [real_array(positive, "positive", ("row",)), real_array(negative, "negative", ("row",))]
    for name, side in zip(("positive", "negative"), sides, strict=True):
        if side.size < 2:
            raise PersonaProbeError(f"{name} has {side.size} row; Cohen's d needs a standard deviation, so at least 2")
    freedom = sum(side.size - 1 for side in sides)
    pooled = math.sqrt(sum(float(side.var(ddof=1)) * (side.size - 1) for side in sides) / freedom)
    if pooled <= ROUNDING * max(float(np.abs(side).max()) for side in sides):
        raise PersonaProbeError(
            f"all positive rows are {sides[0][0]:g} and all negative rows {sides[1][0]:g}: without any spread "
            "Cohen's d is undefined; report the difference of means instead"
        )
    return float((sides[0].mean() - sides[1].mean()) / pooled)


def paired_effect(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    *,
    questions: npt.ArrayLike | None = None,
    seeds: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> tuple[Estimate, Estimate]:
    """The mean change from before to after over the same rows, and its standardised size.

    Args:
        before: ``(row,)`` finite numbers.
        after: ``(row,)`` finite numbers, row for row the same items as ``before``.
        questions: ``(row,)`` which question was asked; None: every row is its own question.
        seeds: ``(row,)`` which fine-tuning seed; None: one seed.
        level: nominal coverage.

    Returns:
        The mean of ``after - before`` with its interval over questions and seeds; and d_z: the mean over questions of
        each question's mean change, in standard deviations over questions (Lakens 2013, "Calculating and reporting
        effect sizes", on within-subjects designs; questions, not rows, are the units), with the interval that the
        noncentral t distribution gives (Cumming and Finch 2001, "A primer on the understanding, use, and calculation of
        confidence intervals"): for these runs and over questions alone. d_z is missing where question means do not vary
        (one question, or one change for all).

    Raises:
        PersonaProbeError: if the sides differ in length, are empty, or are not finite.

    Examples:
        >>> change, d_z = paired_effect([0.0, 1.0, 2.0, 1.0], [1.0, 3.0, 4.0, 2.0])
        >>> print(change)
        1.50 [0.58, 2.42] (n=4)
        >>> print(d_z)
        2.60 [0.40, 4.78] (n=4)
    """
    first, second = real_array(before, "before", ("row",)), real_array(after, "after", ("row",))
    if first.size != second.size:
        raise PersonaProbeError(
            f"before has {first.size} rows and after {second.size}; pairs need the same rows in both"
        )
    change = second - first
    mean = mean_estimate(change, questions=questions, seeds=seeds, level=level)
    asked = codes(questions, "questions", change.size, when_none="distinct")
    means = np.bincount(asked, weights=change) / np.bincount(asked)
    spread = float(means.std(ddof=1)) if means.size > 1 else 0.0
    if spread <= ROUNDING * max(float(np.abs(first).max()), float(np.abs(second).max())):
        return mean, Estimate.missing("question means do not vary")
    size = float(means.mean()) / spread
    low, high = _noncentral_interval(size, means.size, level)
    return mean, Estimate(size, low, high, means.size, f"noncentral t over {means.size} questions", level)


def _noncentral_interval(size: float, n: int, level: float) -> tuple[float, float]:
    """All standardised means of which a sample of n would not be surprised by the one seen."""
    root, tail = math.sqrt(n), (1.0 - level) / 2.0
    if abs(size) * root > 100.0:  # the mean's own error is nothing compared with that of the SD; SciPy takes minutes
        ends = sorted(size * math.sqrt(float(chdtri(n - 1, share)) / (n - 1)) for share in (tail, 1.0 - tail))
        return ends[0], ends[1]
    low, high = (float(nctdtrinc(n - 1, share, size * root)) / root for share in (1.0 - tail, tail))
    return low, high


@dataclass(frozen=True)
class Yardstick:
    """A standard deviation in which shifts are given, and how well it is known.

    Attributes:
        sd: the standard deviation.
        relative_variance: the variance of its estimate, divided by its square.
        degrees_of_freedom: of that variance.
    """

    sd: float
    relative_variance: float
    degrees_of_freedom: float

    @classmethod
    def of(cls, values: npt.ArrayLike, questions: npt.ArrayLike | None = None) -> Yardstick:
        """The standard deviation over rows, whose own error is over questions.

        Args:
            values: ``(row,)`` finite numbers, at least two.
            questions: ``(row,)`` which question each row belongs to; None: every row is its own.

        Examples:
            >>> yardstick = Yardstick.of(np.random.default_rng(0).normal(size=200))
            >>> round(yardstick.sd, 2), round(yardstick.relative_variance**0.5, 3)  # about 1 / sqrt(2 * 199)
            (0.96, 0.045)
        """
        rows = real_array(values, "values", ("row",))
        if rows.size < 2:
            raise PersonaProbeError("values has 1 row; a standard deviation needs at least 2")
        asked = codes(questions, "questions", rows.size, when_none="distinct")
        square = float(rows.var(ddof=1))
        errors = np.square(rows - rows.mean())
        spread = clustered_variance((errors - errors.mean()) / rows.size, asked, np.zeros(rows.size, dtype=np.intp))
        relative = spread.variance / (4.0 * square**2) if square > 0.0 else math.nan
        return cls(math.sqrt(square), relative, spread.degrees_of_freedom)

    def standardised(self, mean: float, spread: ClusteredVariance, level: float = 0.95) -> tuple[float, float, float]:
        """A mean in this unit, with its interval, which contains the unit's own error.

        The two errors are independent, since the reference's dialogues are others than those of the mean. On each side
        they are combined by squares (Zou and Donner 2008, "Construction of confidence limits about effect measures"),
        the unit's as a factor, so that a poorly known unit makes a shift large or small but never changes its sign.

        Args:
            mean: in the units of the reference's values.
            spread: the clustered variance of the mean.
            level: nominal coverage.

        Returns:
            The mean in standard deviations, and the lower and upper end; the ends are NaN where either error is.
        """
        size = mean / self.sd
        own = spread.t_quantile(level) * math.sqrt(spread.variance) / self.sd
        factor = math.exp(
            float(stdtrit(self.degrees_of_freedom, (1.0 + level) / 2.0)) * math.sqrt(self.relative_variance)
        )
        outward, inward = abs(size) * (factor - 1.0), abs(size) * (1.0 - 1.0 / factor)
        down, up = (inward, outward) if size > 0.0 else (outward, inward)
        return size, size - math.hypot(own, down), size + math.hypot(own, up)


def cosine(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Cosine between two directions, layer by layer.

    Args:
        a: ``(layer, d_model)`` finite numbers.
        b: ``(layer, d_model)`` finite numbers, of the same shape.

    Returns:
        ``(layer,)`` cosines in [-1, 1].

    Raises:
        PersonaProbeError: if shapes differ, anything is not finite, or a layer's vector has length zero (it is named).

    Examples:
        Two layers: the vectors of the first stand at 45 degrees, those of the second point in opposite directions.

        >>> cosine([[1, 0], [0, 2]], [[1, 1], [0, -3]]).round(2)
        array([ 0.71, -1.  ])
    """
    sides = {"a": real_array(a, "a", ("layer", "d_model")), "b": real_array(b, "b", ("layer", "d_model"))}
    if sides["a"].shape != sides["b"].shape:
        raise PersonaProbeError(
            f"a has shape {sides['a'].shape} and b {sides['b'].shape}; directions must match to compare"
        )
    unit = {}
    for name, side in sides.items():
        norms = np.linalg.norm(side, axis=1)
        if not norms.all():
            layers = ", ".join(str(layer) for layer in np.flatnonzero(norms == 0.0))
            raise PersonaProbeError(
                f"{name} has length zero at layer {layers}; a zero vector points nowhere: leave it out"
            )
        unit[name] = side / norms[:, None]
    cosines: npt.NDArray[np.float64] = np.clip(np.einsum("ld,ld->l", unit["a"], unit["b"]), -1.0, 1.0)
    return cosines
