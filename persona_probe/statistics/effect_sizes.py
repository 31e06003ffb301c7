"""How large a difference is, in units that compare across measures."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.inputs import real_array
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
) -> tuple[Estimate, float]:
    """The mean change from before to after over the same rows, and its standardised size.

    Args:
        before: ``(row,)`` finite numbers.
        after: ``(row,)`` finite numbers, row for row the same items as ``before``.
        questions: ``(row,)`` which question was asked; None: every row is its own question.
        seeds: ``(row,)`` which fine-tuning seed; None: one seed.
        level: nominal coverage.

    Returns:
        The mean of ``after - before`` with its interval over questions and seeds, and d_z: that mean in standard
        deviations of the row differences (Lakens 2013, "Calculating and reporting effect sizes", on
        within-subjects designs). d_z is NaN where the differences do not vary (one row, or one change for all).

    Raises:
        PersonaProbeError: if the sides differ in length, are empty, or are not finite.

    Examples:
        >>> change, d_z = paired_effect([0.0, 1.0, 2.0], [1.0, 3.0, 4.0])
        >>> print(change, f"d_z = {d_z:.2f}")
        1.67 [0.23, 3.10] (n=3) d_z = 2.89
    """
    first, second = real_array(before, "before", ("row",)), real_array(after, "after", ("row",))
    if first.size != second.size:
        raise PersonaProbeError(
            f"before has {first.size} rows and after {second.size}; pairs need the same rows in both"
        )
    change = second - first
    spread = float(change.std(ddof=1)) if change.size > 1 else 0.0
    mean = mean_estimate(change, questions=questions, seeds=seeds, level=level)
    varies = spread > ROUNDING * max(float(np.abs(first).max()), float(np.abs(second).max()))
    return mean, mean.value / spread if varies else math.nan


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
