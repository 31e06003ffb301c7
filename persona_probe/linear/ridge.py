"""Ridge regression on targets +1 and -1."""

from __future__ import annotations

import torch
from torch import Tensor

from persona_probe.linear.problem import Problems, Solution
from persona_probe.linear.scaling import scaled


def fit_ridge(problems: Problems) -> Solution:
    """Minimise ``||y - X w - b||^2 + ||w||^2 / C`` over each problem's rows, ``y`` +1 or -1.

    What scikit-learn's ``Ridge(alpha=1 / C)`` minimises behind a ``StandardScaler``. Solved in float64, in row space
    where a problem has fewer rows than features.
    """
    data, signs = scaled(problems), problems.signs
    weights = torch.zeros_like(data.relative)
    intercept = torch.zeros_like(weights[:, 0])
    for problem, train in enumerate(problems.train):
        features = data.features[train] / data.relative[problem]
        target = signs[problem, train]
        middle, mean = features.mean(dim=0), target.mean()
        features, target = features - middle, target - mean
        rows, width = features.shape
        if rows < width:
            solved = features.T @ _solved(features @ features.T, target, problems.C)
        else:
            solved = _solved(features.T @ features, features.T @ target, problems.C)
        weights[problem] = solved / data.relative[problem]
        intercept[problem] = mean - solved @ middle
    return data.raw(weights, intercept)


def _solved(gram: Tensor, right: Tensor, C: float) -> Tensor:
    gram.diagonal().add_(1.0 / C)
    return torch.cholesky_solve(right[:, None], torch.linalg.cholesky(gram))[:, 0]
