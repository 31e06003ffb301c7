"""L2-penalised logistic regression, all problems of a layer at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from persona_probe.errors import PersonaProbeError
from persona_probe.linear.preconditioner import Preconditioner
from persona_probe.linear.problem import Problems, Solution
from persona_probe.linear.scaling import Scaled, scaled

_TOLERANCE = 1e-5
"""Of the gradient beside the weights. The penalty alone makes the loss 1-strongly convex in standardised weights, so it
also bounds their relative error."""
_MAX_NEWTON = 100
_MAX_CONJUGATE = 200
_FEW = 8
"""Conjugate-gradient steps in one Newton step that cost no more than a fresh factorisation."""
_STALE = 0.1
"""Relative change of the curvature from which a fresh factorisation saves steps."""


def fit_logistic(problems: Problems) -> Solution:
    """Minimise ``C * sum(log-loss) + 0.5 * ||w||^2`` over each problem's rows, ``w`` on its own standardised features.

    What scikit-learn's ``make_pipeline(StandardScaler(), LogisticRegression(C=C))`` minimises; the intercept is not
    penalised. Newton's method with conjugate gradients (Nocedal and Wright 2006, "Numerical optimization", algorithm
    7.1) on all problems together: products with the data serve all problems at once, and one factorised Hessian, of
    their averaged curvature, preconditions them all and is renewed when it has gone stale. Gradients and losses are
    float64; products with the Hessian are float32, which costs steps but no accuracy.

    Raises:
        PersonaProbeError: if a problem has not converged, naming layer and problem.
    """
    search = _Search(problems, scaled(problems))
    for _ in range(_MAX_NEWTON):
        if not search.step():
            return search.solution()
    stuck = search.unconverged()
    raise PersonaProbeError(
        f"logistic: layer at position {problems.layer}, problem {stuck[0]} has not converged after {_MAX_NEWTON} steps "
        f"({len(stuck)} problems of this layer have not; C={problems.C:g}): give a smaller C, or standardize=True"
    )


class _Point(NamedTuple):
    """Where the problems that have not converged stand."""

    loss: Float[Tensor, "... problem"]
    gradient: Float[Tensor, "problem d+1"]
    curvature: Float[Tensor, "problem row"]


class _Search:
    """Newton's method on several problems; those that have converged are left alone."""

    def __init__(self, problems: Problems, data: Scaled) -> None:
        self._data, self._C = data, problems.C
        self._sample = problems.weights * problems.C
        self._target = problems.truth.double()
        self._exact, self._fast = data.features, data.features.float()
        self._penalty = torch.nn.functional.pad(data.relative.square(), (0, 1))  # none on the intercept
        rows, width = data.features.shape
        self._gram = self._fast @ self._fast.T if rows < width else None
        self._at = torch.zeros(len(problems.train), width + 1, dtype=torch.float64, device=data.features.device)
        self._logits = torch.zeros_like(self._sample)
        self._open = torch.arange(len(problems.train), device=data.features.device)
        self._preconditioner: Preconditioner | None = None
        self._steps = 0

    def solution(self) -> Solution:
        return self._data.raw(self._at[:, :-1], self._at[:, -1])

    def unconverged(self) -> list[int]:
        return [int(problem) for problem in self._open]

    def step(self) -> bool:
        """One Newton step for every problem that has not converged; False if there is none."""
        point = self._point()
        keep = ~self._converged(point)
        self._open, point = self._open[keep], _Point(*(part[keep] for part in point))
        if not len(self._open):
            return False
        direction = self._newton_direction(point, self._fresh_enough(point.curvature.mean(dim=0)))
        self._move(point, direction)
        return True

    def _fresh_enough(self, curvature: Tensor) -> Preconditioner:
        """The preconditioner at hand, or a new one if that took many steps last and the curvature has moved on."""
        if self._preconditioner is not None:
            moved = (curvature - self._preconditioner.curvature).abs().sum() > _STALE * curvature.sum()
            if self._steps <= _FEW or not bool(moved):
                return self._preconditioner
        self._preconditioner = Preconditioner(self._fast, curvature, self._gram)
        return self._preconditioner

    def _point(self) -> _Point:
        rows, at = self._open, self._at[self._open]
        logits, sample, target = self._logits[rows], self._sample[rows], self._target[rows]
        chance = torch.sigmoid(logits)
        residual = sample * (chance - target)
        penalised = self._penalty[rows] * at
        slope = torch.cat([residual @ self._exact, residual.sum(dim=1, keepdim=True)], dim=1)
        return _Point(self._losses(logits, at), slope + penalised, sample * chance * (1.0 - chance))

    def _losses(self, logits: Tensor, at: Tensor) -> Tensor:
        """The objective of each open problem."""
        fit = self._sample[self._open] * (softplus(logits) - self._target[self._open] * logits)
        losses: Tensor = fit.sum(dim=1) + 0.5 * (self._penalty[self._open] * at.square()).sum(dim=1)
        return losses

    def _converged(self, point: _Point) -> Tensor:
        """Whether the gradient bounds the weights' relative error, and the intercept's step is small."""
        relative, at = self._data.relative[self._open], self._at[self._open]
        size = (relative * at[:, :-1]).norm(dim=1)
        slope = (point.gradient[:, :-1] / relative).norm(dim=1)
        # the second term is the rounding of a gradient that is a sum over rows
        rounding = 1e-14 * self._C * self._sample.shape[1] ** 0.5
        intercept = point.gradient[:, -1].abs() / point.curvature.sum(dim=1)
        settled: Tensor = (slope <= _TOLERANCE * size + rounding) & (intercept <= _TOLERANCE * (1.0 + at[:, -1].abs()))
        return settled

    def _newton_direction(self, point: _Point, preconditioner: Preconditioner) -> Tensor:
        """Preconditioned conjugate gradients on every open problem's Newton equation."""
        curvature, penalty = point.curvature.float(), self._penalty[self._open]
        direction, residual = torch.zeros_like(point.gradient), -point.gradient
        solved = preconditioner.solve(residual)
        along, size = solved, (residual * solved).sum(dim=1)
        goal = self._forcing(size) * size
        relative, weights = self._data.relative[self._open], self._at[self._open, :-1]
        near = (0.1 * _TOLERANCE * (relative * weights).norm(dim=1)).square()  # in the measure of `_converged`
        for steps in range(1, _MAX_CONJUGATE + 1):
            self._steps = steps
            product = self._hessian_product(along, curvature) + penalty * along
            bend = (along * product).sum(dim=1)
            active = (size > goal) & (bend > 0)
            length = torch.where(active, size / bend, 0.0)[:, None]
            direction, residual = direction + length * along, residual - length * product
            solved = preconditioner.solve(residual)
            previous, size = size, torch.where(active, (residual * solved).sum(dim=1), size)
            if not bool((active & (size > goal) & ((residual[:, :-1] / relative).square().sum(dim=1) > near)).any()):
                break
            along = torch.where(active[:, None], solved + (size / previous)[:, None] * along, along)
        return direction

    def _forcing(self, size: Tensor) -> Tensor:
        """How far the squared residual is to fall: further the nearer the solution is, for superlinear convergence."""
        scale = 0.01 * self._C * self._sample.shape[1]
        return torch.clamp(size / scale, min=1e-6, max=1e-2)

    def _hessian_product(self, along: Tensor, curvature: Tensor) -> Tensor:
        weights, bias = along[:, :-1].float(), along[:, -1:].float()
        bent = ((self._fast @ weights.T).T + bias) * curvature
        return torch.cat([bent @ self._fast, bent.sum(dim=1, keepdim=True)], dim=1).double()

    def _move(self, point: _Point, direction: Tensor) -> None:
        """Go along ``direction``, each problem half as far until its loss falls enough (Armijo's rule)."""
        at, logits = self._at[self._open], self._logits[self._open]
        change = (self._exact @ direction[:, :-1].T).T + direction[:, -1:]
        slope = (point.gradient * direction).sum(dim=1)
        # near the solution the loss falls by less than its own rounding
        slack = 1e-12 * (1.0 + point.loss.abs())
        length = torch.ones_like(slope)
        for _ in range(40):
            tried = self._losses(logits + length[:, None] * change, at + length[:, None] * direction)
            enough = tried <= point.loss + 1e-4 * length * slope + slack
            if bool(enough.all()):
                break
            length = torch.where(enough, length, 0.5 * length)
        self._at[self._open] = at + length[:, None] * direction
        self._logits[self._open] = logits + length[:, None] * change
