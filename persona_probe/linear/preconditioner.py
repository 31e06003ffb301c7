"""The Hessian of a logistic loss, averaged over problems and factorised: what conjugate gradients start from."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_BLOCK = 256


class Preconditioner:
    """Solves ``[[I + X' S X, X' s], [s' X, sum(s)]] x = v`` about; the last unknown is the intercept.

    With fewer rows than features the work is in row space (Woodbury's identity), so that it is cubic in the rows.
    """

    def __init__(
        self,
        features: Float[Tensor, "row d"],
        curvature: Float[Tensor, "... row"],
        gram: Float[Tensor, "row row"] | None = None,
    ) -> None:
        """Factorise.

        Args:
            features: ``X``, float32.
            curvature: the diagonal of ``S``, float64.
            gram: ``X X'`` where the work is to be in row space, None to work in feature space.
        """
        self.curvature, self._total = curvature, curvature.sum()
        s = curvature.to(features.dtype)
        # Centred by the weighted mean, weights and intercept come apart (the Schur complement of the intercept).
        self._mean = (s @ features).double() / self._total
        mean = self._mean.to(features.dtype)
        self._features = None
        if gram is None:
            self._factor = _factorised(_lower(features, s).sub_(torch.outer(mean, mean) * s.sum()))
            return
        self._features = (features - mean) * s.sqrt()[:, None]
        shadow = features @ mean
        centred = gram - shadow[:, None] - shadow[None, :] + mean @ mean
        self._factor = _factorised(centred * torch.outer(s.sqrt(), s.sqrt()))

    def solve(self, right: Float[Tensor, "problem d+1"]) -> Float[Tensor, "problem d+1"]:
        """One solution a row."""
        bias = right[:, -1:] / self._total
        weights = right[:, :-1] - right[:, -1:] * self._mean
        if self._features is None:
            solved = self._solved(weights)
        else:
            rows = weights.to(self._features.dtype) @ self._features.T
            back = self._solved(rows.double()).to(self._features.dtype)
            solved = weights - (back @ self._features).double()
        return torch.cat([solved, bias - (solved @ self._mean)[:, None]], dim=1)

    def _solved(self, right: Tensor) -> Tensor:
        return torch.cholesky_solve(right.to(self._factor.dtype).T, self._factor).T.to(right.dtype)


def _lower(features: Float[Tensor, "row d"], weights: Float[Tensor, "... row"]) -> Float[Tensor, "d d"]:
    """``X' diag(weights) X`` from the diagonal down, which is all that Cholesky reads; above, blocks are left empty."""
    weighted, width = features * weights[:, None], features.shape[1]
    product = torch.zeros(width, width, dtype=features.dtype, device=features.device)
    for start in range(0, width, _BLOCK):
        stop = start + _BLOCK
        product[start:stop, :stop] = features[:, start:stop].T @ weighted[:, :stop]
    return product


def _factorised(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Cholesky factor of ``I + matrix``; where float32 has left it indefinite, more is added to the diagonal.

    A preconditioner need not be exact: the gradients decide, and they are float64.
    """
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    added, rounding = 1.0, float(matrix.diagonal().max()) * 1e-6
    while True:
        factor, failed = torch.linalg.cholesky_ex(matrix + added * identity)
        if not int(failed):
            return factor
        added = max(10.0 * added, rounding)
