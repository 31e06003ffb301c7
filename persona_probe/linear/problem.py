"""What every kind of classifier is given: one layer, and several training sets that are solved together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Problems:
    """The problems of one layer: the same rows, each problem with its own labels and training rows.

    Attributes:
        values: ``(row, d)``, the features as given (float32 or float64), on the device that computes.
        truth: ``(problem, row)``; its values for rows outside of ``train`` are not used.
        train: ``(problem, row)``, which rows each problem is trained on; both classes are among them.
        C: inverse strength of the penalty, for kinds that have one.
        standardize: whether the penalty acts on features scaled to unit variance.
        layer: position of the layer, for errors.
    """

    values: Float[Tensor, "row d"]
    truth: Bool[Tensor, "problem row"]
    train: Bool[Tensor, "problem row"]
    C: float
    standardize: bool
    layer: int

    @property
    def weights(self) -> Float[Tensor, "problem row"]:
        """``train`` as float64 ones and zeros."""
        return self.train.double()

    @property
    def signs(self) -> Float[Tensor, "problem row"]:
        """+1 for true rows, -1 for false ones, 0 for rows that a problem is not trained on; float64."""
        return torch.where(self.truth, 1.0, -1.0).double() * self.weights


Solution = tuple[Float[Tensor, "problem d"], Float[Tensor, "... problem"]]
"""Raw-feature weights and intercepts, float64."""
