"""Fit linear classifiers at every layer, and on several training sets, in one call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float

from persona_probe.errors import PersonaProbeError
from persona_probe.linear.coefficients import Coefficients
from persona_probe.linear.difference_of_means import fit_difference_of_means
from persona_probe.linear.lda import fit_lda
from persona_probe.linear.logistic import fit_logistic
from persona_probe.linear.problem import Problems, Solution
from persona_probe.linear.ridge import fit_ridge

KINDS: dict[str, Callable[[Problems], Solution]] = {
    "logistic": fit_logistic,
    "difference-of-means": fit_difference_of_means,
    "lda": fit_lda,
    "ridge": fit_ridge,
}


def fit_linear(
    values: Float[np.ndarray, "row layer d"],
    truth: Bool[np.ndarray, "... row"] | Bool[np.ndarray, "problem row"],
    kind: str = "logistic",
    *,
    train: Bool[np.ndarray, "problem row"] | None = None,
    C: float = 1.0,
    standardize: bool = True,
    device: str | torch.device | None = None,
) -> Coefficients:
    """Fit one linear classifier for each problem and layer.

    A problem is a set of rows to train on (for example a fold, or all rows for the refit), perhaps with labels of its
    own. All problems of a layer are solved together, which costs little more than one alone. Means and scales are
    fitted on each problem's own rows; a feature that is constant there gets scale 1.

    Args:
        values: ``(row, layer, d)`` features.
        truth: the label of each row; ``(problem, row)`` where problems have labels of their own.
        kind: ``logistic``, ``difference-of-means``, ``lda`` or ``ridge``.
        train: which rows each problem is trained on; None: one problem with all rows.
        C: inverse strength of the L2 penalty of ``logistic`` and ``ridge``.
        standardize: whether that penalty acts on standardised features.
        device: where to compute; None: on the CPU.

    Returns:
        Weights and intercepts for the features as given.

    Raises:
        PersonaProbeError: for an unknown kind, shapes that disagree, values that are not finite, a C that is not a
            positive number, a problem whose training rows are all of one class, or a fit that does not converge.

    Examples:
        Four rows, one layer, two features; only the first feature separates the classes.

        >>> values = np.array([[[0.0, 5.0]], [[1.0, 4.0]], [[2.0, 5.0]], [[3.0, 4.0]]])
        >>> fitted = fit_linear(values, np.array([False, False, True, True]), "difference-of-means")
        >>> fitted.weights, fitted.intercept
        (array([[[2., 0.]]]), array([[-3.]]))
        >>> fitted.decision(values)[0, :, 0]
        array([-3., -1.,  1.,  3.])
    """
    if kind not in KINDS:
        raise PersonaProbeError(f"unknown kind of classifier {kind!r}: choose one of {', '.join(KINDS)}")
    C = checked_strength(C)
    if values.ndim != 3 or not values.size:
        raise PersonaProbeError(f"fit: values have shape {values.shape}; expected (row, layer, d), none of them 0")
    labels, chosen = _problems(truth, train, len(values))
    place = torch.device("cpu" if device is None else device)
    truth_there, train_there = (torch.from_numpy(array.copy()).to(place) for array in (labels, chosen))
    precision = np.float64 if values.dtype.itemsize > 4 or values.dtype.kind != "f" else np.float32
    weights = np.empty((len(chosen), *values.shape[1:]))
    intercept = np.empty(weights.shape[:2])
    for layer in range(values.shape[1]):
        features = torch.from_numpy(np.array(values[:, layer], dtype=precision)).to(place)
        if not bool(torch.isfinite(features).all()):
            raise PersonaProbeError(f"fit: the values of the layer at index {layer} are not all finite")
        solved = KINDS[kind](Problems(features, truth_there, train_there, C, standardize, layer))
        if not all(bool(torch.isfinite(part).all()) for part in solved):
            raise PersonaProbeError(
                f"{kind}: the layer at index {layer} has values of up to {float(features.abs().max()):.1e}, for which "
                f"the weights are not finite (C={C:g}, standardize={standardize}): scale the values down"
            )
        weights[:, layer], intercept[:, layer] = (part.cpu().numpy() for part in solved)
    return Coefficients(weights, intercept)


def checked_strength(C: object) -> float:
    """``C`` as a float.

    Raises:
        PersonaProbeError: if it is not a positive, finite number.
    """
    number = isinstance(C, (int, float, np.integer, np.floating)) and not isinstance(C, bool)
    if not number or not (np.isfinite(float(C)) and float(C) > 0):  # type: ignore[arg-type]
        raise PersonaProbeError(
            f"C is {C!r}; it must be a positive, finite number (the inverse strength of the penalty)"
        )
    return float(C)  # type: ignore[arg-type]


def _problems(truth: np.ndarray, train: np.ndarray | None, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and training rows of every problem, both ``(problem, row)``."""
    labels = np.atleast_2d(np.asarray(truth, dtype=bool))
    chosen = np.ones((len(labels), rows), dtype=bool) if train is None else np.atleast_2d(np.asarray(train, dtype=bool))
    count = max(len(labels), len(chosen))
    for name, array in (("truth", labels), ("train", chosen)):
        if array.shape not in ((1, rows), (count, rows)):
            raise PersonaProbeError(
                f"fit: {name} has shape {array.shape} for {rows} rows and {count} problems; give one truth value per "
                "row, or one per problem and row"
            )
    labels, chosen = (np.broadcast_to(array, (count, rows)) for array in (labels, chosen))
    for problem in range(count):
        seen = labels[problem, chosen[problem]]
        if seen.all() or not seen.any():
            given = "no row at all" if not seen.size else f"{seen.size} rows, all {bool(seen[0])},"
            raise PersonaProbeError(f"fit: problem {problem} has {given} to train on; rows of both classes are needed")
    return labels, chosen
