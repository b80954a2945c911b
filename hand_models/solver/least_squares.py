"""Batched damped Gauss–Newton on the manifold of hand poses.

Every problem has its own damping and stops on its own; finished problems leave the batch, so that the few
hard ones do not keep the others waiting. Damping: Levenberg–Marquardt with Marquardt's diagonal scaling
(Nocedal & Wright, Numerical Optimization, ch. 10.3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..pose import HandPose


@dataclass(frozen=True)
class NormalEquations:
    """Second-order model of half the sum of squared residuals around a pose."""

    cost: Tensor
    """(B,)"""
    gradient: Tensor
    """(B, D)"""
    hessian: Tensor
    """(B, D, D) Gauss–Newton approximation"""

    @staticmethod
    def zeros(batch: int, dim: int, like: Tensor) -> NormalEquations:
        """No residuals yet."""
        return NormalEquations(
            like.new_zeros(batch), like.new_zeros(batch, dim), like.new_zeros(batch, dim, dim)
        )

    def add(self, residual: Tensor, rows: Tensor, cost: Tensor | None = None) -> NormalEquations:
        """With residuals ``(B, N)`` and their derivative, transposed, ``(B, D, N)``.

        Args:
            cost: ``(B,)`` what they cost, where that is not half the sum of their squares: the loss of
                residuals that are reweighted.
        """
        return NormalEquations(
            self.cost + (0.5 * (residual * residual).sum(1) if cost is None else cost),
            self.gradient + (rows @ residual[..., None])[..., 0],
            self.hessian + rows @ rows.transpose(1, 2),
        )

    def __add__(self, other: NormalEquations) -> NormalEquations:
        """With the residuals of both."""
        return NormalEquations(
            self.cost + other.cost, self.gradient + other.gradient, self.hessian + other.hessian
        )

    def add_diagonal(self, residual: Tensor, slope: Tensor, start: int) -> NormalEquations:
        """With one residual per unknown ``start:``, ``(B, n)``, each depending on that unknown alone."""
        stop = start + residual.shape[1]
        gradient, hessian = self.gradient.clone(), self.hessian.clone()
        gradient[:, start:stop] += slope * residual
        torch.diagonal(hessian, dim1=1, dim2=2)[:, start:stop] += slope * slope
        return NormalEquations(self.cost + 0.5 * (residual * residual).sum(1), gradient, hessian)

    def promised(self, step: Tensor) -> Tensor:
        """Decrease ``(B,)`` of the cost that the model expects of ``step (B, D)``."""
        curvature = (self.hessian @ step[..., None])[..., 0]
        return -((self.gradient + 0.5 * curvature) * step).sum(1)

    def __getitem__(self, index: Tensor) -> NormalEquations:
        return NormalEquations(self.cost[index], self.gradient[index], self.hessian[index])


@dataclass(frozen=True)
class Termination:
    """When a problem is finished, and how its damping moves."""

    iterations: int = 30
    """At most this many evaluations after the first."""
    relative_decrease: float = 1e-4
    """Converged when a step lowers the cost by less than this share, or promises to."""
    damping: float = 1e-2
    """Initial damping, relative to the diagonal of the Hessian."""
    shrink: float = 0.3
    """Factor on the damping after a good step."""
    grow: float = 5.0
    """Factor on the damping after a rejected step."""
    max_damping: float = 1e4
    """A problem whose damping passes this has no downhill step left."""


@dataclass(frozen=True)
class Solution:
    """Where every problem ended."""

    pose: HandPose
    equations: NormalEquations
    """The model at the solution; its Hessian is the inverse covariance of the unknowns."""
    initial_cost: Tensor
    """(B,)"""
    iterations: Tensor
    """(B,) evaluations used"""
    converged: Tensor
    """(B,) bool: stopped before the limit, at a finite cost"""


@dataclass(frozen=True)
class _Problems:
    """Problems that are under way together."""

    index: Tensor
    """(b,) which of the batch they are"""
    pose: HandPose
    equations: NormalEquations
    damping: Tensor
    """(b,)"""

    def __getitem__(self, rows: Tensor) -> _Problems:
        return _Problems(self.index[rows], self.pose[rows], self.equations[rows], self.damping[rows])


def _better(better: Tensor, new: _Problems, old: _Problems) -> _Problems:
    """Problem by problem ``new`` where ``better (b,)``, else ``old``; the damping is that of ``new``."""
    if better.all():
        return new
    if not better.any():
        return _Problems(old.index, old.pose, old.equations, new.damping)

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(better.view(-1, *[1] * (a.ndim - 1)), a, b)

    names = ("global_orient", "hand_pose", "betas", "transl")
    pose = HandPose(new.pose.side, *(pick(getattr(new.pose, n), getattr(old.pose, n)) for n in names))
    parts = ("cost", "gradient", "hessian")
    equations = NormalEquations(*(pick(getattr(new.equations, n), getattr(old.equations, n)) for n in parts))
    return _Problems(new.index, pose, equations, new.damping)


def _step(equations: NormalEquations, damping: Tensor) -> Tensor:
    """Damped Newton step (B, D); unknowns that nothing depends on do not move."""
    diagonal = torch.diagonal(equations.hessian, dim1=1, dim2=2)
    # Per unknown: translations in metres and angles in radians differ by orders of magnitude.
    boost = (damping[:, None] + 1e-6) * diagonal + 1e-9 * diagonal.amax(1, keepdim=True) + 1e-12
    factor, _ = torch.linalg.cholesky_ex(equations.hessian + torch.diag_embed(boost))
    step = -torch.cholesky_solve(equations.gradient[..., None], factor)[..., 0]
    return torch.where(step.isfinite().all(1, keepdim=True), step, torch.zeros_like(step))


@torch.no_grad()
def minimize(
    linearize: Callable[[HandPose, Tensor], NormalEquations],
    initial: HandPose,
    termination: Termination = Termination(),
) -> Solution:
    """Minimise half the sum of squared residuals of every problem of a batch.

    Args:
        linearize: ``(poses (b), index (b,)) -> NormalEquations``; ``index`` says which problems of the batch
            the poses belong to, so that their data can be selected.
        initial: starting poses of all ``B`` problems.
        termination: limits and damping.

    Returns:
        Per problem the pose of lowest cost that was met. One whose cost is NaN from the start keeps its pose
        and counts as not converged; the others do not notice it.
    """
    index = torch.arange(len(initial), device=initial.transl.device)
    equations = linearize(initial, index)
    initial_cost = equations.cost
    running = _Problems(index, initial, equations, torch.full_like(initial_cost, termination.damping))
    finished: list[_Problems] = []
    used: list[Tensor] = []

    def retire(done: Tensor, evaluations: int) -> None:
        nonlocal running
        if done.any():
            finished.append(running[done])
            used.append(torch.full_like(finished[-1].index, evaluations))
            running = running[~done]

    for evaluations in range(termination.iterations):
        step = _step(running.equations, running.damping)
        # A step that does not even promise a decrease that counts is not worth an evaluation.
        least = termination.relative_decrease * running.equations.cost
        worthwhile = running.equations.promised(step) > least
        retire(~worthwhile, evaluations)
        if len(running.index) == 0:
            break
        before = running.equations.cost
        pose = running.pose.retract(step if len(step) == len(before) else step[worthwhile])
        trial = linearize(pose, running.index)
        better = trial.cost < before  # False for NaN, so a bad step is never taken
        decrease = (before - trial.cost) / before.clamp_min(1e-20)
        factor = torch.where(better, termination.shrink, termination.grow)
        damping = (running.damping * factor).clamp_min(1e-6)
        running = _better(better, _Problems(running.index, pose, trial, damping), running)
        retire(
            (better & (decrease < termination.relative_decrease))
            | (~better & (damping > termination.max_damping)),
            evaluations + 1,
        )
    stopped = sum(len(part.index) for part in finished)
    finished.append(running)
    used.append(torch.full_like(running.index, termination.iterations))
    order = torch.cat([part.index for part in finished]).argsort()
    equations = NormalEquations(
        *(
            torch.cat([getattr(p.equations, n) for p in finished])[order]
            for n in ("cost", "gradient", "hessian")
        )
    )
    return Solution(
        HandPose.cat([part.pose for part in finished])[order],
        equations,
        initial_cost,
        torch.cat(used)[order],
        equations.cost.isfinite() & (order < stopped),
    )
