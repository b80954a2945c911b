"""Costs of a hand by itself and of points with known places, each one a small term.

Residuals are in units of their standard deviation. A term that is about points answers with forces on them
(`PointForces`), one that is about other unknowns with `NormalEquations` of all of the state's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from ..anatomy import Anatomy
from ..pose import TANGENT_DIM
from ..record import Common, Record, shared
from .normal_equations import NormalEquations
from .point_forces import PointForces
from .states import HandState, Term


def pseudo_huber(squared: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Pseudo-Huber loss (Charbonnier 1994) of residuals, for iteratively reweighted least squares.

    Quadratic well below ``scale``, linear above: far outliers pull no harder than near ones.

    Args:
        squared: squared norm of each residual.
        scale: where it turns, in the unit of the residual.

    Returns:
        Of the shape of ``squared``: the weight on the squared residual that gives the loss's gradient, and the
        loss. Reweighting steps to where the weighted residuals vanish; a step on the exact second derivative,
        nearly zero beyond ``scale``, would overshoot.
    """
    root = (1 + squared / scale**2).sqrt()
    return 1 / root, scale**2 * (root - 1)


@dataclass(frozen=True, eq=False)
class PointTargets(Record):
    """Points of the hand to known places, each an observation with a Gaussian error."""

    target: Tensor
    """(B, Q, 3) metres"""
    weight: Tensor
    """(B, Q) non-negative, on the squared residual"""
    std: Tensor
    """(B, Q) metres per axis"""
    index: Tensor | None = None
    """(B, Q) which of the points is drawn to each place; None when that is each to its own"""
    points: Literal["joints", "skin"] = "skin"
    robust: float | None = 2.0
    """residual above which the pull no longer grows; None for a plain square"""

    def linearize(self, state: HandState) -> list[PointForces]:
        points = getattr(state, self.points)
        wide = None if self.index is None else self.index[..., None].expand(-1, -1, 3)
        error = (points.points if wide is None else points.points.gather(1, wide)) - self.target
        precision = self.std**-2
        squared = error.square().sum(2) * precision
        stiffness = self.weight * precision
        if self.robust is None:
            loss = 0.5 * squared
        else:
            share, loss = pseudo_huber(squared, self.robust)
            stiffness = share * stiffness
        force = error * stiffness[..., None]
        if self.index is not None:
            stiffness = torch.zeros_like(points.points[..., 0]).scatter_add(1, self.index, stiffness)
            force = torch.zeros_like(points.points).scatter_add(1, wide, force)
        return [PointForces(points, (self.weight * loss).sum(1), force, stiffness)]


@dataclass(frozen=True, eq=False)
class GaussianJoints(Record):
    """The joints to known places, each an observation with a Gaussian error that differs by direction."""

    target: Tensor
    """(B, 21, 3) metres"""
    covariance: Tensor
    """(B, 21, 3, 3) square metres"""
    weight: Tensor | float = 1.0
    """on the squared residual; ``(B,)`` where it is each hand's own"""
    robust: float = 2.0
    """residual above which the pull no longer grows"""

    @cached_property
    def _root(self) -> Tensor:
        """(B, 21, 3, 3) R, with Rᵀ R the precision."""
        identity = torch.eye(3).to(self.covariance).expand_as(self.covariance)
        return torch.linalg.solve_triangular(torch.linalg.cholesky(self.covariance), identity, upper=False)

    def linearize(self, state: HandState) -> list[PointForces]:
        white = (self._root @ (state.joints.points - self.target)[..., None])[..., 0]
        share, loss = pseudo_huber(white.square().sum(2), self.robust)
        weight = torch.as_tensor(self.weight).to(white).expand(len(white))
        stiffness = weight[:, None] * share
        force = (self._root.transpose(2, 3) @ (stiffness[..., None] * white)[..., None])[..., 0]
        normals = self._root * stiffness.sqrt()[..., None, None]
        cost = weight * loss.sum(1)
        nothing = torch.zeros_like(cost), torch.zeros_like(force)
        return [
            PointForces(state.joints, *((cost, force) if axis == 0 else nothing), None, normals[:, :, axis])
            for axis in range(3)
        ]


@dataclass(frozen=True, eq=False)
class AnglePrior(Record):
    """Joint angles near a mean, in anatomical axes."""

    mean: Tensor
    """(B, 15, 3) radians"""
    std: Tensor
    """(B, 15, 3) radians"""
    anatomy: Anatomy = shared()

    @staticmethod
    def grasping(anatomy: Anatomy, batch: int, wider: float = 1.0) -> AnglePrior:
        """Near what hands do when they grasp, with ``wider`` times the prior's standard deviations."""
        return AnglePrior(anatomy.mean.expand(batch, 15, 3), (anatomy.std * wider).expand(batch, 15, 3), anatomy)

    def linearize(self, state: HandState) -> list[NormalEquations]:
        off = self.anatomy.to_anatomical(state.pose.hand_pose, side=state.pose.side) - self.mean
        return [_of_angles(state, self.anatomy, off, self.std**-2)]


@dataclass(frozen=True, eq=False)
class JointLimits(Common):
    """Joint angles within the range of motion."""

    anatomy: Anatomy
    std: float
    """radians of excess that count as one"""

    def linearize(self, state: HandState) -> list[NormalEquations]:
        excess = self.anatomy.violation(state.pose.hand_pose, side=state.pose.side)
        return [_of_angles(state, self.anatomy, excess, (excess != 0).to(excess) / self.std**2)]


def _of_angles(state: HandState, anatomy: Anatomy, off: Tensor, precision: Tensor) -> NormalEquations:
    """Of anatomical angles that are ``off (B, 15, 3)``, each with ``precision (B, 15, 3)``."""
    axes = anatomy.axes(state.pose.side).to(off)  # (15, 3 angles, 3 of axis-angle)
    pull = precision * off
    gradient = off.new_zeros(len(off), state.dim)
    gradient[:, 6:TANGENT_DIM] = torch.einsum("jkc,bjk->bjc", axes, pull).flatten(1)
    hessian = off.new_zeros(len(off), state.dim, state.dim)
    joints = hessian[:, 6:TANGENT_DIM, 6:TANGENT_DIM].unflatten(2, (15, 3)).unflatten(1, (15, 3))
    blocks = (axes.transpose(1, 2) * precision[:, :, None]) @ axes  # (B, 15, 3, 3)
    torch.diagonal(joints, dim1=1, dim2=3).copy_(blocks.permute(0, 2, 3, 1))
    return NormalEquations(0.5 * (pull * off).flatten(1).sum(1), gradient, hessian)


@dataclass(frozen=True, eq=False)
class ShapePrior(Common):
    """Betas ~ N(0, 1), ``weight`` times as surely; for states whose betas are free."""

    weight: float = 1.0

    def linearize(self, state: HandState) -> list[NormalEquations]:
        residual = self.weight * state.pose.betas
        rows = self.weight * torch.eye(residual.shape[1]).to(residual).expand(len(residual), -1, -1)
        return [NormalEquations.of(residual, rows).embedded(state.dim, TANGENT_DIM)]


@dataclass(frozen=True, eq=False)
class Displaced(Record):
    """Terms about places that are all off by one and the same unknown displacement, which is solved for beside them.

    A translation of the hand takes all of its points along, so the displacement enters the terms' equations as the
    translation does, with the other sign; it is eliminated from them (Schur complement). What is left says how the
    places lie to one another in full, and where they lie together only as surely as the displacement is small.
    """

    terms: tuple[Term, ...]
    covariance: Tensor
    """(B, 3, 3) square metres, of the displacement"""

    def __getitem__(self, index: Any) -> Displaced:
        return Displaced(tuple(term[index] for term in self.terms), self.covariance[index])

    def linearize(self, state: HandState) -> list[NormalEquations]:
        whole = state.assemble([part for term in self.terms for part in term.linearize(state)])
        apart = torch.linalg.inv(self.covariance)
        gain = torch.linalg.inv(whole.hessian[:, :3, :3] + apart)
        rows, pull = whole.hessian[:, :, :3], whole.gradient[:, :3, None]
        return [
            NormalEquations(
                whole.cost - 0.5 * (pull.transpose(1, 2) @ gain @ pull)[:, 0, 0],
                whole.gradient - (rows @ (gain @ pull))[..., 0],
                whole.hessian - rows @ gain @ rows.transpose(1, 2),
            )
        ]
