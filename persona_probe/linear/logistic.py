"""L2-penalised logistic regression, all problems of a layer at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from persona_probe.errors import PersonaProbeError
from persona_probe.linear.preconditioner import Diagonal, NotFactorisedError, Preconditioner
from persona_probe.linear.problem import Problems, Solution
from persona_probe.linear.scaling import Scaled, scaled

_TOLERANCE = 1e-5
"""Of the gradient relative to the weights. The penalty alone makes the loss 1-strongly convex in standardised weights,
so it also bounds their relative error."""
_EPS = torch.finfo(torch.float64).eps
_NEAR_ROUNDING = 100.0
"""How many times its rounding bound the gradient may be, once the loss cannot fall any more."""
_MAX_NEWTON = 100
_MAX_FAST = 20
"""Newton steps in float32; few problems need half as many."""
_MAX_CONJUGATE = 200
_MAX_STALLED = 3
"""Number of steps in which neither the loss nor the gradient falls, after which another way is tried."""
_FEW = 8
"""Conjugate-gradient steps in one Newton step that cost no more than a fresh factorisation."""
_STALE = 0.1
"""Relative change of the curvature above which a fresh factorisation saves steps."""


def fit_logistic(problems: Problems) -> Solution:
    """Minimise ``C * sum(log-loss) + 0.5 * ||w||^2`` over each problem's rows, ``w`` on its own standardised features.

    This is what scikit-learn's ``make_pipeline(StandardScaler(), LogisticRegression(C=C))`` minimises; the intercept is
    not penalised. The method is Newton's with conjugate gradients (Nocedal and Wright 2006, "Numerical optimization",
    algorithm 7.1) on all problems together: products with the data serve all problems at once, and one factorised
    Hessian, of their averaged curvature, preconditions them all and is renewed when it is out of date. Gradients and
    losses are float64; products with the Hessian are float32, which costs steps but no accuracy. Where rounding leaves
    these no direction of descent, or slow progress (Woodbury's identity subtracts numbers that are nearly equal), they
    are continued in float64.

    A problem has converged when its gradient is small compared with its weights, or no larger than what rounding of the
    residuals leaves of it: ``eps * C * sqrt(rows)`` times the norm of the features, feature by feature.

    Raises:
        PersonaProbeError: if a problem has not converged, naming layer and problem.
    """
    search = _Search(problems, scaled(problems))
    for _ in range(_MAX_NEWTON):
        if not search.step():
            return search.solution()
    raise search.stuck()


class _Point(NamedTuple):
    """Where the problems that have not converged stand."""

    loss: Float[Tensor, "... problem"]
    gradient: Float[Tensor, "problem unknown"]
    curvature: Float[Tensor, "problem row"]


class _Search:
    """Newton's method on several problems; those that have converged are left alone."""

    def __init__(self, problems: Problems, data: Scaled) -> None:
        self._problems, self._data, self._C = problems, data, problems.C
        self._sample = problems.weights * problems.C
        self._signs = torch.where(problems.truth, 1.0, -1.0).double()
        self._exact = data.features
        self._penalty = pad(data.relative.square(), (0, 1))  # none on the intercept
        rows, width = data.features.shape
        self._wide = rows < width
        self._compute_in(torch.float32)
        count, device = len(problems.train), data.features.device
        self._at = torch.zeros(count, width + 1, dtype=torch.float64, device=device)
        self._logits = torch.zeros_like(self._sample)
        self._open = torch.arange(count, device=device)
        self._rounding = self._bound_on_rounding(problems.weights)
        self._best = torch.full((count, 2), torch.inf, dtype=torch.float64, device=device)
        self._stalled = torch.zeros(count, dtype=torch.long, device=device)
        self._steps = self._newton_steps = 0

    def _compute_in(self, precision: torch.dtype) -> None:
        """From here on, products with the Hessian and factorisations are of this precision."""
        self._fast = self._exact.to(precision)
        self._gram = self._fast @ self._fast.T if self._wide else None
        self._preconditioner: Preconditioner | Diagonal | None = None

    def _bound_on_rounding(self, weights: Tensor) -> Float[Tensor, "problem unknown"]:
        """What rounding of the residuals, each within C, can leave of each part of the gradient."""
        rows = weights.sum(dim=1, keepdim=True)
        squares = (weights.float() @ self._fast.square()).double()
        if not bool(torch.isfinite(squares).all()):
            squares = weights @ self._exact.square()
        squares = torch.cat([squares, rows], dim=1)
        bound: Tensor = 2.0 * _EPS * self._C * (rows * squares).sqrt()
        return bound

    def solution(self) -> Solution:
        return self._data.raw(self._at[:, :-1], self._at[:, -1])

    def stuck(self) -> PersonaProbeError:
        """The error for the first problem that has not converged."""
        given, problem = self._problems, int(self._open[0])
        size, slope = (float(part[0]) for part in self._sizes(self._point().gradient))
        way_out = "give a smaller C" if given.standardize else "give a smaller C, or standardize=True"
        return PersonaProbeError(
            f"logistic: problem {problem} of the layer at index {given.layer} has not converged after "
            f"{self._newton_steps} steps ({len(self._open)} of its {len(given.train)} problems have not): its gradient "
            f"is {slope / max(size, 1e-300):.1e} times its weights, and should be at most {_TOLERANCE:g}; with "
            f"C={given.C:g}, standardize={given.standardize}, {int(given.train[problem].sum())} rows to train on and "
            f"{given.values.shape[1]} features, of up to {float(given.values.abs().max()):.1e}: {way_out}"
        )

    def step(self) -> bool:
        """One Newton step for every problem that has not converged; False if there is none."""
        point = self._point()
        keep = ~self._converged(point)
        self._open, point = self._open[keep], _Point(*(part[keep] for part in point))
        if not len(self._open):
            return False
        slow = self._steps >= _MAX_CONJUGATE or self._newton_steps >= _MAX_FAST
        if (slow and self._fast.dtype != torch.float64) or bool((self._stalled[self._open] >= _MAX_STALLED).any()):
            self._try_another_way()
            point = self._point()
        direction = self._newton_direction(point, self._fresh_enough(point.curvature.mean(dim=0)))
        while not bool(((point.gradient * direction).sum(dim=1) < 0).all()):
            # a zero or ascending direction comes from rounding in the preconditioner
            self._try_another_way()
            direction = self._newton_direction(point, self._fresh_enough(point.curvature.mean(dim=0)))
        self._move(point, direction)
        self._newton_steps += 1
        return True

    def _try_another_way(self) -> None:
        """Continue in float64, or if that is done already, with a preconditioner that nothing can make indefinite.

        Raises:
            PersonaProbeError: if both have been tried.
        """
        if self._fast.dtype != torch.float64:
            self._compute_in(torch.float64)
        elif not isinstance(self._preconditioner, Diagonal):
            self._preconditioner = Diagonal(self._fast, self._point().curvature.mean(dim=0))
        else:
            raise self.stuck()
        self._stalled.zero_()
        at = self._at[self._open]
        self._logits[self._open] = (self._exact @ at[:, :-1].T).T + at[:, -1:]  # rid of what the steps' rounding left

    def _fresh_enough(self, curvature: Tensor) -> Preconditioner | Diagonal:
        """The present preconditioner, or a new one if it took many steps last and the curvature has changed."""
        if self._preconditioner is not None:
            moved = (curvature - self._preconditioner.curvature).abs().sum() > _STALE * curvature.sum()
            if self._steps <= _FEW or not bool(moved):
                return self._preconditioner
        if isinstance(self._preconditioner, Diagonal):
            self._preconditioner = Diagonal(self._fast, curvature)
            return self._preconditioner
        try:
            self._preconditioner = Preconditioner(self._fast, curvature, self._gram)
        except NotFactorisedError as error:
            if self._fast.dtype == torch.float64:
                raise PersonaProbeError(
                    f"logistic: the layer at index {self._problems.layer} has values of up to "
                    f"{float(self._problems.values.abs().max()):.1e}: {error}; with C={self._C:g}, "
                    f"standardize={self._problems.standardize}: scale the values down, or give a smaller C"
                ) from error
            self._try_another_way()
            return self._fresh_enough(curvature)
        return self._preconditioner

    def _point(self) -> _Point:
        rows, at = self._open, self._at[self._open]
        logits, sample, signs = self._logits[rows], self._sample[rows], self._signs[rows]
        wrong = torch.sigmoid(-signs * logits)  # of the margin: exact however near 0
        residual = -signs * sample * wrong
        penalised = self._penalty[rows] * at
        slope = torch.cat([residual @ self._exact, residual.sum(dim=1, keepdim=True)], dim=1)
        curvature = sample * wrong * torch.sigmoid(signs * logits)
        return _Point(self._losses(logits, at), slope + penalised, curvature)

    def _losses(self, logits: Tensor, at: Tensor) -> Tensor:
        """The objective of each open problem."""
        fit = -self._sample[self._open] * logsigmoid(self._signs[self._open] * logits)
        losses: Tensor = fit.sum(dim=1) + 0.5 * (self._penalty[self._open] * at.square()).sum(dim=1)
        return losses

    def _sizes(self, gradient: Tensor, allowed: float = 0.0) -> tuple[Tensor, Tensor]:
        """Length of weights, and of the gradient minus ``allowed`` times its rounding, in each problem's own scale."""
        relative = self._data.relative[self._open]
        beyond = (gradient.abs() - allowed * self._rounding[self._open]).clamp(min=0.0)
        return (relative * self._at[self._open, :-1]).norm(dim=1), (beyond[:, :-1] / relative).norm(dim=1)

    def _converged(self, point: _Point) -> Tensor:
        """Whether the gradient bounds the weights' relative error, and the intercept's step is small.

        The bar is lower for a problem whose loss cannot fall any more.
        """
        slope = self._sizes(point.gradient)[1] + point.gradient[:, -1].abs()
        best = self._best[self._open]
        falls = (point.loss < best[:, 0] - 4.0 * _EPS * best[:, 0].abs().nan_to_num(0.0, 0.0)) | (
            slope < 0.5 * best[:, 1]
        )
        self._best[self._open] = torch.minimum(best, torch.stack([point.loss, slope], dim=1))
        self._stalled[self._open] = torch.where(falls, 0, self._stalled[self._open] + 1)
        done = self._small(point, 1.0)
        at_rest: Tensor = (self._stalled[self._open] > 0) & self._small(point, _NEAR_ROUNDING)
        return done | at_rest

    def _small(self, point: _Point, allowed: float) -> Tensor:
        """Whether the gradient is small, apart from ``allowed`` times its rounding."""
        size, slope = self._sizes(point.gradient, allowed)
        intercept = (point.gradient[:, -1].abs() - allowed * self._rounding[self._open, -1]).clamp(min=0.0)
        near = _TOLERANCE * (1.0 + self._at[self._open, -1].abs()) * point.curvature.sum(dim=1)
        small: Tensor = (slope <= _TOLERANCE * size) & (intercept <= near)
        return small

    def _newton_direction(self, point: _Point, preconditioner: Preconditioner | Diagonal) -> Tensor:
        """Preconditioned conjugate gradients on every open problem's Newton equation."""
        curvature, penalty = point.curvature.to(self._fast.dtype), self._penalty[self._open]
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
        weights, bias = along[:, :-1].to(self._fast.dtype), along[:, -1:].to(self._fast.dtype)
        bent = ((self._fast @ weights.T).T + bias) * curvature
        return torch.cat([bent @ self._fast, bent.sum(dim=1, keepdim=True)], dim=1).double()

    def _move(self, point: _Point, direction: Tensor) -> None:
        """Go along ``direction``, each problem half as far until its loss falls enough (Armijo's rule)."""
        at, logits = self._at[self._open], self._logits[self._open]
        change = (self._exact @ direction[:, :-1].T).T + direction[:, -1:]
        slope = (point.gradient * direction).sum(dim=1)
        # near the solution the loss falls by less than its own rounding
        slack = 1e-12 * point.loss.abs()
        length = torch.ones_like(slope)
        for _ in range(40):
            tried = self._losses(logits + length[:, None] * change, at + length[:, None] * direction)
            enough = tried <= point.loss + 1e-4 * length * slope + slack
            if bool(enough.all()):
                break
            length = torch.where(enough, length, 0.5 * length)
        self._at[self._open] = at + length[:, None] * direction
        self._logits[self._open] = logits + length[:, None] * change
