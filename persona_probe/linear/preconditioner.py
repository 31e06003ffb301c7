"""The Hessian of a logistic loss, averaged over problems and factorised: what conjugate gradients start from."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_BLOCK = 256
_ATTEMPTS = 12


class NotFactorisedError(ArithmeticError):
    """The Hessian is not finite, or too far from definite."""


class Preconditioner:
    """Solves ``[[I + X' S X, X' s], [s' X, sum(s)]] x = v`` approximately; the last unknown is the intercept.

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
            features: ``X``; its precision is that of the computation.
            curvature: the diagonal of ``S``, float64.
            gram: ``X X'`` to compute in row space, None to compute in feature space.
        """
        self.curvature, self._total = curvature, _total(curvature)
        s = curvature.to(features.dtype)
        # Centred by the weighted mean, weights and intercept decouple (the Schur complement of the intercept).
        self._mean = (s @ features).double() / self._total
        mean = self._mean.to(features.dtype)
        self._features = None
        if gram is None:
            self._factor, self._unit = _factorised(_lower(features, s).sub_(torch.outer(mean, mean) * s.sum()))
            return
        self._features = (features - mean) * s.sqrt()[:, None]
        shadow = features @ mean
        centred = gram - shadow[:, None] - shadow[None, :] + mean @ mean
        self._factor, self._unit = _factorised(centred * torch.outer(s.sqrt(), s.sqrt()))

    def solve(self, right: Float[Tensor, "problem unknown"]) -> Float[Tensor, "problem unknown"]:
        """One solution per row."""
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
        scaled = (right * self._unit).to(self._factor.dtype)
        solved: Tensor = torch.cholesky_solve(scaled.T, self._factor).T.to(right.dtype) * self._unit
        return solved


class Diagonal:
    """The same with the Hessian's diagonal alone: a weak preconditioner, but always positive definite."""

    def __init__(self, features: Float[Tensor, "row d"], curvature: Float[Tensor, "... row"]) -> None:
        self.curvature, total = curvature, _total(curvature)
        self._mean = curvature @ features / total
        spread = curvature @ features.square() - self._mean.square() * total
        self._diagonal = torch.cat([1.0 + spread.clamp(min=0.0), total[None]])

    def solve(self, right: Float[Tensor, "problem unknown"]) -> Float[Tensor, "problem unknown"]:
        """One solution per row."""
        weights = (right[:, :-1] - right[:, -1:] * self._mean) / self._diagonal[:-1]
        bias = right[:, -1:] / self._diagonal[-1] - (weights @ self._mean)[:, None]
        return torch.cat([weights, bias], dim=1)


def _total(curvature: Tensor) -> Tensor:
    """The sum of the curvature; where every row is so far from the boundary that it is 0, something to divide by."""
    return curvature.sum().clamp(min=1e-200)


def _lower(features: Float[Tensor, "row d"], weights: Float[Tensor, "... row"]) -> Float[Tensor, "d d"]:
    """``X' diag(weights) X`` from the diagonal down, which is all that Cholesky reads; above, blocks are left empty."""
    weighted, width = features * weights[:, None], features.shape[1]
    product = torch.zeros(width, width, dtype=features.dtype, device=features.device)
    for start in range(0, width, _BLOCK):
        stop = start + _BLOCK
        product[start:stop, :stop] = features[:, start:stop].T @ weighted[:, :stop]
    return product


def _factorised(matrix: Float[Tensor, "n n"]) -> tuple[Float[Tensor, "n n"], Float[Tensor, "... n"]]:
    """Cholesky factor of ``unit * (I + matrix) * unit``, and the ``unit`` (float64) that makes its diagonal 1.

    Where rounding has left it indefinite, more is added to the diagonal. A preconditioner need not be exact: the
    gradients decide, and they are float64. ``matrix`` is overwritten.

    Raises:
        NotFactorisedError: if the matrix is not finite, or stays indefinite with much added to the diagonal.
    """
    diagonal = matrix.diagonal().clamp(min=0.0) + 1.0
    # Cholesky reads only what is below the diagonal; a sum is finite only if every summand is
    if not bool(torch.isfinite(matrix.sum())):
        raise NotFactorisedError("their products are not finite")
    unit = diagonal.rsqrt()
    matrix.mul_(unit[:, None]).mul_(unit)
    scaled_diagonal = matrix.diagonal() + unit.square()
    added = 0.0
    for _ in range(_ATTEMPTS):
        matrix.diagonal().copy_(scaled_diagonal + added)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not int(failed):
            return factor, unit.double()
        added = max(10.0 * added, 10.0 * torch.finfo(matrix.dtype).eps)
    raise NotFactorisedError(f"rounding leaves their products indefinite, with {added:.0e} of the diagonal added to it")
