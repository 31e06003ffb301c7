"""Linear discriminant analysis with a shrunk covariance."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.linear.difference_of_means import class_means
from persona_probe.linear.problem import Problems, Solution


def fit_lda(problems: Problems) -> Solution:
    """``w = Sigma^-1 (mean of true rows - mean of false rows)``, ``Sigma`` the shrunk covariance within classes.

    The covariance is Ledoit and Wolf's (2004, "A well-conditioned estimator for large-dimensional covariance
    matrices", section 3.2), pooled over both classes; it does without C. The inverse covariance does the scaling, so
    features are taken as they come and ``standardize`` plays no part. The intercept is Fisher's: the midpoint, and the
    logarithm of the classes' odds among the training rows.
    """
    values = problems.values.double()
    values = values - values.mean(dim=0)
    above, below = (class_means(values, problems, of) for of in (problems.truth, ~problems.truth))
    weights = torch.empty_like(above)
    odds = torch.empty_like(above[:, 0])
    for problem, (train, truth) in enumerate(zip(problems.train, problems.truth, strict=True)):
        rows, members = values[train], truth[train, None]
        within = rows - torch.where(members, above[problem], below[problem])
        factor = torch.linalg.cholesky(_ledoit_wolf(within))
        weights[problem] = torch.cholesky_solve((above - below)[problem, :, None], factor)[:, 0]
        odds[problem] = torch.log(members.sum() / (~members).sum())
    centre = problems.values.double().mean(dim=0)
    return weights, odds - (weights * (0.5 * (above + below) + centre)).sum(dim=1)


def _ledoit_wolf(rows: Float[Tensor, "row d"]) -> Float[Tensor, "d d"]:
    """The shrunk covariance of centred rows; as ``sklearn.covariance.ledoit_wolf``, which knows no GPU."""
    n, width = rows.shape
    covariance = rows.T @ rows / n
    mean_variance = covariance.diagonal().mean()
    squared = covariance.square().sum() / width
    apart = squared - mean_variance.square()
    noise = (rows.square().sum(dim=1).square().sum() / n / width - squared) / n
    share = torch.clamp(noise / apart, max=1.0) if float(apart) > 0.0 else torch.zeros_like(apart)
    shrunk = (1.0 - share) * covariance
    # a trace of the mean variance keeps the matrix definite where nothing is shrunk
    shrunk.diagonal().add_(share * mean_variance + 1e-12 * mean_variance)
    return shrunk
