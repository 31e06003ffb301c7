"""Ridge regression on targets +1 and -1."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.linear.problem import Problems, Solution
from persona_probe.linear.scaling import scaled

_LOST = 1e10
"""Trace of the features' products divided by the penalty, above which the rounding of the products would matter."""


def fit_ridge(problems: Problems) -> Solution:
    """Minimise ``||y - X w - b||^2 + ||w||^2 / C`` over each problem's rows, ``y`` +1 or -1.

    This is what scikit-learn's ``Ridge(alpha=1 / C)`` minimises after a ``StandardScaler``. It is solved in float64, in
    row space where a problem has fewer rows than features; directions in which features vary by rounding alone get no
    weight.
    """
    data, signs = scaled(problems), problems.signs
    weights = torch.zeros_like(data.relative)
    intercept = torch.zeros_like(weights[:, 0])
    for problem, train in enumerate(problems.train):
        features = data.features[train] / data.relative[problem]
        target = signs[problem, train]
        middle, mean = features.mean(dim=0), target.mean()
        features, target = features - middle, target - mean
        solved = _solved(features, target, problems)
        weights[problem] = solved / data.relative[problem]
        intercept[problem] = mean - solved @ middle
    return data.raw(weights, intercept)


def _solved(
    features: Float[Tensor, "row d"], target: Float[Tensor, "... row"], problems: Problems
) -> Float[Tensor, "... d"]:
    """The weights, from products of the features; where these dwarf the penalty, from singular values."""
    rows, width = features.shape
    gram = features @ features.T if rows < width else features.T @ features
    if float(gram.diagonal().sum()) * problems.C < _LOST:
        right = target if rows < width else features.T @ target
        gram.diagonal().add_(1.0 / problems.C)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if not int(failed):
            solved = torch.cholesky_solve(right[:, None], factor)[:, 0]
            return features.T @ solved if rows < width else solved
    try:
        left, sizes, axes = torch.linalg.svd(features, full_matrices=False)
    except RuntimeError as error:
        raise PersonaProbeError(
            f"ridge: the layer at index {problems.layer} has values of up to "
            f"{float(problems.values.abs().max()):.1e}, whose singular values cannot be found: scale them down"
        ) from error
    seen = sizes > torch.finfo(sizes.dtype).eps * max(rows, width) * sizes[0]
    left, sizes, axes = left[:, seen], sizes[seen], axes[seen]
    shrunk: Tensor = ((target @ left) / (sizes + 1.0 / (problems.C * sizes))) @ axes
    return shrunk
