"""`NormalEquations`: the second-order model of a least-squares cost around a state, one for each problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..record import Record


@dataclass(frozen=True)
class NormalEquations(Record):
    """Half the sum of squared residuals of ``B`` problems of ``D`` unknowns, to second order."""

    cost: Tensor
    """(B,)"""
    gradient: Tensor
    """(B, D)"""
    hessian: Tensor
    """(B, D, D) Gauss–Newton approximation"""

    @staticmethod
    def of(residual: Tensor, rows: Tensor, cost: Tensor | None = None) -> NormalEquations:
        """Of residuals ``(B, N)`` and their derivative, transposed, ``(B, D, N)``.

        Args:
            cost: ``(B,)`` what they cost, where that is not half the sum of their squares: the loss of
                residuals that are reweighted.
        """
        return NormalEquations(
            0.5 * (residual * residual).sum(1) if cost is None else cost,
            (rows @ residual[..., None])[..., 0],
            rows @ rows.transpose(1, 2),
        )

    @staticmethod
    def total(parts: Sequence[NormalEquations]) -> NormalEquations:
        """Of all residuals together; raises ``ValueError`` when there are none."""
        if not parts:
            raise ValueError("terms: none given; a problem needs at least one.")
        cost, gradient, hessian = parts[0].cost, parts[0].gradient, parts[0].hessian
        if len(parts) > 1:
            hessian = hessian.clone()
        for part in parts[1:]:
            cost, gradient = cost + part.cost, gradient + part.gradient
            hessian += part.hessian
        return NormalEquations(cost, gradient, hessian)

    def embedded(self, dim: int, start: int) -> NormalEquations:
        """The same equations among ``dim`` unknowns, of which theirs begin at ``start``."""
        stop = start + self.gradient.shape[1]
        gradient = self.gradient.new_zeros(len(self.cost), dim)
        hessian = self.hessian.new_zeros(len(self.cost), dim, dim)
        gradient[:, start:stop], hessian[:, start:stop, start:stop] = self.gradient, self.hessian
        return NormalEquations(self.cost, gradient, hessian)

    def step(self, damping: Tensor) -> Tensor:
        """Damped Newton step ``(B, D)``; unknowns that nothing depends on do not move.

        Args:
            damping: ``(B,)`` Levenberg–Marquardt parameter with Marquardt's diagonal scaling.
        """
        boost = damping_of(torch.diagonal(self.hessian, dim1=1, dim2=2), damping)
        factor, _ = torch.linalg.cholesky_ex(self.hessian + torch.diag_embed(boost))
        step = -torch.cholesky_solve(self.gradient[..., None], factor)[..., 0]
        return torch.where(step.isfinite().all(1, keepdim=True), step, torch.zeros_like(step))

    def promised(self, step: Tensor) -> Tensor:
        """Decrease ``(B,)`` of the cost that the model expects of ``step (B, D)``."""
        curvature = (self.hessian @ step[..., None])[..., 0]
        return -((self.gradient + 0.5 * curvature) * step).sum(1)


def damping_of(diagonal: Tensor, damping: Tensor) -> Tensor:
    """What to add to a Hessian's ``diagonal (B, D)``.

    Per unknown, as translations in metres and angles in radians differ by orders of magnitude; the floors keep
    unknowns that nothing depends on where they are.
    """
    return (damping[:, None] + 1e-6) * diagonal + 1e-9 * diagonal.amax(1, keepdim=True) + 1e-12
