"""The difference of class means, and the plane halfway between them."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.linear.problem import Problems, Solution


def fit_difference_of_means(problems: Problems) -> Solution:
    """``w = mean of true rows - mean of false rows``, zero at their midpoint; neither C nor scaling has an effect."""
    values = problems.values.double()
    above, below = (class_means(values, problems, of) for of in (problems.truth, ~problems.truth))
    weights = above - below
    return weights, -0.5 * (weights * (above + below)).sum(dim=1)


def class_means(
    values: Float[Tensor, "row d"], problems: Problems, members: Bool[Tensor, "problem row"]
) -> Float[Tensor, "problem d"]:
    """Means over each problem's training rows that are ``members``."""
    chosen = (members & problems.train).double()
    means: Tensor = chosen @ values / chosen.sum(dim=1, keepdim=True)
    return means
