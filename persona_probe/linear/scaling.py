"""Standard deviations of each problem's own training rows, and one scale for all of a layer's problems."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.linear.problem import Problems

_SUSPICIOUS = 1e-10
"""A variance this small compared with the squared offset is mostly rounding: it is computed again, in two passes."""

_FAR = 1e100


@dataclass(frozen=True)
class Scaled:
    """One layer's features on a scale that suits all its problems; each problem's own scale is a factor away.

    Attributes:
        features: ``(row, d)`` float64: ``(values - centre) / scale``.
        centre: ``(d,)``.
        scale: ``(d,)``, the root mean square over problems of their own scales.
        relative: ``(problem, d)``, each problem's own scale over ``scale``: the penalty is on ``relative * weight``.
    """

    features: Float[Tensor, "row d"]
    centre: Float[Tensor, "... d"]
    scale: Float[Tensor, "... d"]
    relative: Float[Tensor, "problem d"]

    def raw(
        self, weights: Float[Tensor, "problem d"], intercept: Float[Tensor, "... problem"]
    ) -> tuple[Tensor, Tensor]:
        """Weights and intercepts for the features as they were given."""
        unscaled = weights / self.scale
        return unscaled, intercept - unscaled @ self.centre


def scaled(problems: Problems) -> Scaled:
    """Centre a layer's features and bring them to a common scale (1 everywhere without ``standardize``)."""
    features = problems.values.double()
    centre = features.mean(dim=0)
    features = features - centre
    large = problems.standardize and problems.values.dtype == torch.float64  # squares of float32 fit into float64
    unit = _units(features) if large else torch.ones_like(centre)
    if bool((unit != 1.0).any()):
        features.div_(unit)
    deviations = torch.ones_like(centre)[None]
    if problems.standardize:
        deviations = _deviations(features, problems.train, centre / unit)
    varying = deviations > 0
    scale = (deviations.square().sum(dim=0) / varying.sum(dim=0).clamp(min=1)).sqrt()
    scale = torch.where(varying.any(dim=0), scale, 1.0)
    # A feature that is constant in a problem's rows gets weight 0 there under any penalty, so any scale will do.
    deviations = torch.where(varying, deviations, scale)
    relative = (deviations / scale).expand(len(problems.train), -1)
    return Scaled(features.div_(scale), centre, scale * unit, relative)


def _units(features: Float[Tensor, "row d"]) -> Float[Tensor, "... d"]:
    """Powers of 2 that bring features near 1 where their squares would overflow or underflow, 1 elsewhere."""
    low, high = torch.aminmax(features, dim=0)
    largest = torch.maximum(-low, high)
    far = (largest > 0) & ((largest > _FAR) | (largest < 1.0 / _FAR))
    return torch.where(far, torch.exp2(largest.log2().floor()), 1.0)


def _deviations(
    centred: Float[Tensor, "row d"], train: Bool[Tensor, "problem row"], centre: Float[Tensor, "... d"]
) -> Float[Tensor, "problem d"]:
    """Standard deviations over each problem's training rows; 0 where a feature is constant, by scikit-learn's rule."""
    weights = train.double()
    counts = weights.sum(dim=1, keepdim=True)
    offset = weights @ centred / counts
    total = weights @ centred.square() / counts
    variance = total - offset.square()
    for problem, feature in torch.nonzero(variance <= _SUSPICIOUS * total).tolist():
        column = centred[train[problem], feature]
        exact = column.var(correction=0)
        # StandardScaler's bound on what rounding alone can leave of a constant, and what centring adds to it: a word
        # that only other problems' rows contain is zero here, apart from the rounding of the centre
        noise = column.numel() * torch.finfo(exact.dtype).eps
        mean = (column.mean() + centre[feature]).abs() + centre[feature].abs()
        variance[problem, feature] = 0.0 if exact <= noise * exact + (noise * mean) ** 2 else exact
    return variance.sqrt()
