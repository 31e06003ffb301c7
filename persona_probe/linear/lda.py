"""Linear discriminant analysis with a shrunk covariance."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.linear.difference_of_means import class_means
from persona_probe.linear.problem import Problems, Solution


def fit_lda(problems: Problems) -> Solution:
    """``w = Sigma^-1 (mean of true rows - mean of false rows)``, ``Sigma`` the shrunk covariance within classes.

    The covariance is Ledoit and Wolf's (2004, "A well-conditioned estimator for large-dimensional covariance
    matrices", section 3.2), pooled over both classes; C is not used. The inverse covariance does the scaling, so
    features are used as given and ``standardize`` has no effect. The intercept is Fisher's: the midpoint, and the
    logarithm of the classes' odds among the training rows.
    """
    values = problems.values.double()
    centre = values.mean(dim=0)
    values = values - centre
    above, below = (class_means(values, problems, of) for of in (problems.truth, ~problems.truth))
    weights = torch.empty_like(above)
    odds = torch.empty_like(above[:, 0])
    for problem, (train, truth) in enumerate(zip(problems.train, problems.truth, strict=True)):
        rows, members = values[train], truth[train]
        within = rows - torch.where(members[:, None], above[problem], below[problem])
        # what rounding makes of a constant is not variance
        level = [_constant(problems.values[train & of]) for of in (truth, ~truth)]
        within[:, level[0] & level[1]] = 0.0
        apart = (above - below)[problem].masked_fill(_constant(problems.values[train]), 0.0)
        weights[problem] = _solved(
            _ledoit_wolf(within), apart, f"problem {problem} of the layer at index {problems.layer}"
        )
        odds[problem] = torch.log(members.sum() / (~members).sum())
    return weights, odds - (weights * (0.5 * (above + below) + centre)).sum(dim=1)


def _constant(rows: Float[Tensor, "row d"]) -> Bool[Tensor, "... d"]:
    return (rows == rows[0]).all(dim=0)


def _solved(covariance: Float[Tensor, "d d"], apart: Float[Tensor, "... d"], where: str) -> Float[Tensor, "... d"]:
    """``covariance^-1 apart``; zero where nothing separates the classes.

    Raises:
        PersonaProbeError: if classes differ and nothing varies within them, or the covariance is not finite.
    """
    if not bool(apart.any()):
        return torch.zeros_like(apart)
    mean_variance = float(covariance.diagonal().mean())
    if mean_variance == 0.0:
        raise PersonaProbeError(
            f"lda: no feature varies within the classes of {where}, though the classes differ: their covariance has no "
            "inverse; use more rows, or kind 'logistic'"
        )
    if not bool(torch.isfinite(covariance).all()):
        raise PersonaProbeError(f"lda: the covariance of {where} is not finite: scale the values down")
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not int(failed):
        return torch.cholesky_solve(apart[:, None], factor)[:, 0]
    variances, axes = torch.linalg.eigh(covariance)
    solved: Tensor = axes @ ((apart @ axes) / variances.clamp(min=1e-12 * mean_variance))
    return solved


def _ledoit_wolf(rows: Float[Tensor, "row d"]) -> Float[Tensor, "d d"]:
    """The shrunk covariance of centred rows; as ``sklearn.covariance.ledoit_wolf``, which cannot use a GPU."""
    n, width = rows.shape
    covariance = rows.T @ rows / n
    mean_variance = covariance.diagonal().mean()
    squared = covariance.square().sum() / width
    apart = squared - mean_variance.square()
    noise = (rows.square().sum(dim=1).square().sum() / n / width - squared) / n
    share = torch.clamp(noise / apart, max=1.0) if float(apart) > 0.0 else torch.zeros_like(apart)
    shrunk = (1.0 - share) * covariance
    # a very small part of the mean variance keeps the matrix definite where nothing is shrunk
    shrunk.diagonal().add_(share * mean_variance + 1e-12 * mean_variance)
    return shrunk
