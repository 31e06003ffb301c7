"""What a number would be if nothing were there: random directions, shuffled labels, and the ratio to them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.inputs import boolean_array, codes, real_array
from persona_probe.statistics.question_exchange import QuestionExchange

ROUNDING = 1e-12
"""Whatever is smaller than this share of the largest value is only what rounding leaves of a subtraction."""
_ATTEMPTS = 20


def matched_random_directions(deltas_covariance_source: npt.ArrayLike, n: int, seed: int) -> npt.NDArray[np.float64]:
    """Random directions that lie where activations lie: Gaussian with the rows' own covariance, then unit length.

    A residual stream holds most variance in a few dimensions, and most isotropic directions hardly point there. So for
    shifts in residual-stream units and for variance explained, isotropic directions are too easy a null. For shifts in
    SD they are not: each shift is divided by its own direction's SD, which is large along covariance-matched directions
    and small along most isotropic ones, where the same change amounts to more SD. Then isotropic ones can be the harder
    null, and both are needed.

    Each draw is a Gaussian combination of the centred rows, which has their sample covariance (but for a factor
    that the unit length takes away) without that ``(d_model, d_model)`` matrix ever being made.

    Args:
        deltas_covariance_source: ``(row, d_model)`` activations at one layer, at least two rows.
        n: how many directions, at least 1.
        seed: of the random generator.

    Returns:
        ``(n, d_model)`` unit vectors.

    Raises:
        PersonaProbeError: if there are fewer than two rows, they are all the same, or not finite; or ``n`` < 1.

    Examples:
        Rows that differ along the first dimension mostly: so do the directions.

        >>> rows = [[10.0, 0.1], [-10.0, 0.1], [10.0, -0.1], [-10.0, -0.1]]
        >>> matched_random_directions(rows, n=3, seed=0).round(2)
        array([[ 1.  , -0.01],
               [-1.  , -0.04],
               [-0.99, -0.13]])
    """
    rows = real_array(deltas_covariance_source, "deltas_covariance_source", ("row", "d_model"))
    if rows.shape[0] < 2:
        raise PersonaProbeError("deltas_covariance_source has 1 row; a covariance needs at least 2")
    _check_count(n)
    centred = _centred(rows, "deltas_covariance_source")
    weights = np.random.default_rng(seed).standard_normal((n, rows.shape[0]))
    return _unit(weights @ centred)


def effective_dimensions(rows: npt.ArrayLike) -> float:
    """How many dimensions the rows' variance fills, as the participation ratio of the eigenvalues of their covariance.

    ``(sum of eigenvalues)**2 / sum of squared eigenvalues``: 1 if all variance lies along one line, ``d_model`` if it
    is the same in all directions. `matched_random_directions` draws from so many: of a stream that one component
    dominates, a thousand draws are hardly more than one direction, whose shift their quantile then is.

    Args:
        rows: ``(row, d_model)`` activations at one layer, at least two rows.

    Raises:
        PersonaProbeError: if there are fewer than two rows, they are all the same, or not finite.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> round(effective_dimensions(rng.normal(size=(5000, 8))), 1)
        8.0
        >>> round(effective_dimensions(rng.normal(size=(5000, 8)) * [30, 1, 1, 1, 1, 1, 1, 1]), 1)
        1.0
    """
    values = real_array(rows, "rows", ("row", "d_model"))
    if values.shape[0] < 2:
        raise PersonaProbeError("rows has 1 row; a covariance needs at least 2")
    centred = _centred(values, "rows")
    small = centred @ centred.T if values.shape[0] < values.shape[1] else centred.T @ centred
    return float(np.trace(small) ** 2 / np.square(small).sum())


def isotropic_directions(n: int, d_model: int, seed: int) -> npt.NDArray[np.float64]:
    """Random directions, uniform on the sphere.

    Args:
        n: how many directions, at least 1.
        d_model: number of dimensions, at least 1.
        seed: of the random generator.

    Returns:
        ``(n, d_model)`` unit vectors.

    Raises:
        PersonaProbeError: if ``n`` or ``d_model`` is below 1.

    Examples:
        >>> isotropic_directions(n=100, d_model=64, seed=0).shape
        (100, 64)
    """
    _check_count(n)
    if d_model < 1:
        raise PersonaProbeError(f"d_model is {d_model}; give the width of the residual stream, at least 1")
    return _unit(np.random.default_rng(seed).standard_normal((n, d_model)))


def shuffled_label_differences(
    values: npt.ArrayLike, labels: npt.ArrayLike, n: int, seed: int, questions: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64]:
    """Mean-difference directions found from labels that mean nothing: those of whole questions are exchanged.

    A question's positive and negative rows change places apart from each other (`QuestionExchange.of`).

    Each class's mean is subtracted first. Otherwise a large difference between the classes would be the largest part of
    the spread that exchanging distributes, and the null would point along the very direction it is the null of.

    Args:
        values: ``(row, d)`` activations at one layer.
        labels: ``(row,)`` truth values, both present.
        n: how many draws, at least 1. With few questions the same direction is drawn repeatedly.
        seed: of the random generator.
        questions: ``(row,)`` which question each row answers. Answers to one question are alike, so that labels are
            exchanged for whole questions (`QuestionExchange`); None: every row is its own.

    Returns:
        ``(n, d)`` unit vectors, each mean(labelled True) minus mean(labelled False).

    Raises:
        PersonaProbeError: if lengths differ, a class is missing, ``n`` < 1, values are not finite, or every difference
            is zero (as where the rows of each class are the same, or too few to differ under any exchange).

    Examples:
        >>> values = np.random.default_rng(0).normal(size=(20, 64))
        >>> shuffled_label_differences(values, [True, False] * 10, n=100, seed=0).shape
        (100, 64)
        >>> questions = np.repeat(np.arange(10), 2)
        >>> shuffled_label_differences(values, [True, False] * 10, n=100, seed=0, questions=questions).shape
        (100, 64)
    """
    rows, truth = real_array(values, "values", ("row", "d")), boolean_array(labels, "labels")
    if rows.shape[0] != truth.size:
        raise PersonaProbeError(f"values has {rows.shape[0]} rows and labels {truth.size}; give one label per row")
    if truth.all() or not truth.any():
        raise PersonaProbeError(
            f"all {truth.size} labels are {bool(truth[0])}; a difference needs rows of both classes"
        )
    _check_count(n)
    left = _centred(rows, "values")
    for side in (truth, ~truth):
        left[side] -= left[side].mean(axis=0)
    if np.abs(left).max() <= ROUNDING * np.abs(rows).max():
        raise PersonaProbeError(
            "within each class all rows of values are the same, so there is nothing to shuffle; check it"
        )
    asked = codes(questions, "questions", truth.size, when_none="distinct")
    exchange = QuestionExchange.of(truth, asked, apart=True)
    weights = np.where(truth, 1.0 / np.count_nonzero(truth), -1.0 / np.count_nonzero(~truth))
    means, rng = exchange.means(left, weights), np.random.default_rng(seed)
    smallest = ROUNDING * np.abs(rows).max()
    drawn = np.empty((0, rows.shape[1]))
    # a draw that leaves all labels as they are has no direction, and is made again
    for _ in range(_ATTEMPTS):
        differences = exchange.coefficients(exchange.sample(n, rng), weights) @ means
        drawn = np.concatenate([drawn, differences[np.abs(differences).max(axis=1) > smallest]])[:n]
        if len(drawn) == n:
            return _unit(drawn)
    raise PersonaProbeError(
        f"{len(drawn)} of {n} directions from exchanged labels have a length, since the two classes of "
        f"{asked.max() + 1} questions differ in {exchange.arrangements:.0f} arrangements only; give more questions"
    )


def specificity(after: float, control: float, random_shifts: npt.ArrayLike, quantile: float = 0.975) -> float:
    """How far a shift exceeds what training of any kind, or any direction, would show.

    ``|after - control| / max(|control|, quantile of |random_shifts|)``: about 1 or less is nothing special. Both sides
    are differences between two fine-tunes, so that the null has the spread of what it is the null of. Between two runs
    of one fine-tune it is above 1 about as often as the quantile says, unless runs vary more along this direction than
    along the random ones; only several runs can exclude that.

    Args:
        after: the shift under the narrow fine-tune, in any unit.
        control: the shift under the matched benign fine-tune, same unit.
        random_shifts: ``(direction,)`` differences ``after - control`` along null directions, same unit.
        quantile: of their absolute values, within [0, 1].

    Returns:
        The ratio, at least 0, without unit.

    Raises:
        PersonaProbeError: if anything is empty or not finite, ``quantile`` is not within [0, 1], or nothing moved in
            the control and the nulls, which leaves nothing to compare with.

    Examples:
        A shift of 1.0 under narrow training and of 0.2 under the benign control, which differ little along random
        directions: four times what the control shows.

        >>> specificity(1.0, 0.2, [0.05, -0.1, 0.08])
        4.0
    """
    for name, shift in (("after", after), ("control", control)):
        if not np.isfinite(shift):
            raise PersonaProbeError(f"{name} is {shift}; specificity needs finite shifts: find out why it is missing")
    if not 0.0 <= quantile <= 1.0:
        raise PersonaProbeError(f"quantile is {quantile}; give a share within 0 and 1, such as 0.975")
    null = float(np.quantile(np.abs(real_array(random_shifts, "random_shifts", ("direction",))), quantile))
    reference = max(abs(control), null)
    if reference == 0.0:
        raise PersonaProbeError(
            f"control is 0 and so is the {quantile:g} quantile of |random_shifts|: there is nothing to compare "
            f"after = {after:g} with; check that control and nulls were measured on two different models"
        )
    return float(abs(after - control) / reference)


def _check_count(n: int) -> None:
    if n < 1:
        raise PersonaProbeError(f"n is {n}; ask for at least 1 direction")


def _centred(rows: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
    """Rows minus their mean; rows that are all the same are refused, since only rounding would be left of them."""
    if not np.ptp(rows, axis=0).any():
        raise PersonaProbeError(
            f"all {rows.shape[0]} rows of {name} are the same, so there is nothing to draw from; check it"
        )
    centred: npt.NDArray[np.float64] = rows - rows.mean(axis=0)
    return centred


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Each row divided by its length; a row without one is refused."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not norms.all():
        raise PersonaProbeError(
            f"direction {int(np.argmin(norms))} has length zero: two classes with one mean; give more rows"
        )
    unit: npt.NDArray[np.float64] = vectors / norms
    return unit
