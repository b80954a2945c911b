"""Costs of a grasp, each one a small term: a hand on an object's surface, not inside it, nor in another hand or itself.

All are about signed distances, metres, positive outside; residuals are in units of their standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hand_models.inner_spheres import FINGER_SPHERES, Spheres, sphere_pairs, sphere_radius
from hand_models.point_jacobian import PointJacobian
from hand_models.record import Common, Record, shared
from hand_models.solver.normal_equations import NormalEquations
from hand_models.solver.point_forces import PointForces
from hand_models.solver.states import HandState, PairState
from hand_models.solver.terms import pseudo_huber

from .objects.grid import SignedDistanceGrid


def penetration(distance: Tensor, allowance: Tensor | float, std: float) -> tuple[Tensor, Tensor]:
    """Points deeper inside than they are allowed to be.

    Args:
        distance: ``(B, P)`` signed distance of the points.
        allowance: depth that costs nothing, a number or ``(B, P)``.
        std: excess depth that counts as one.

    Returns:
        Residual ``(B, P)`` and its derivative by ``distance``, as `PointForces.along` takes them.
    """
    depth = (-distance - allowance).clamp_min(0)
    return depth / std, (depth > 0).to(distance.dtype) * (-1 / std)


def attraction(distance: Tensor, weight: Tensor, std: float, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Points that ought to touch, drawn to the surface.

    Args:
        distance: ``(B, P)`` signed distance of the points, less what they are to sink in.
        weight: ``(B, P)`` non-negative, on the squared residual; zero leaves a point free.
        std: distance that counts as one.
        scale: residual above which the pull no longer grows.

    Returns:
        Residual ``(B, P)``, its derivative by ``distance``, and the loss ``(B,)``.
    """
    residual = distance / std
    share, loss = pseudo_huber(residual**2, scale)
    factor = (share * weight).sqrt()
    return factor * residual, factor / std, (weight * loss).sum(1)


@dataclass(frozen=True, eq=False)
class SkinOnSurface(Record):
    """Skin that should touch lies on the object's surface, and no skin sinks in deeper than it yields."""

    which: Tensor
    """(B,) object of each problem"""
    touch: Tensor
    """(B, P) weight of each skin point's contact"""
    allowance: Tensor
    """(B, P) depth that skin yields; skin that should touch rests at half of it"""
    grid: SignedDistanceGrid = shared()
    contact_std: float = 0.003
    penetration_std: float = 0.0015

    def linearize(self, state: HandState) -> list[PointForces]:
        distance, gradient = self.grid.query(state.skin.points, self.which)
        touching = attraction(distance + 0.5 * self.allowance, self.touch, self.contact_std)
        sunk = penetration(distance, self.allowance, self.penetration_std)
        return [PointForces.along(state.skin, gradient, touching, sunk)]


@dataclass(frozen=True, eq=False)
class SpheresOutside(Record):
    """The hand's inner spheres sink into the object no deeper than skin yields: thin walls are no barrier to skin."""

    which: Tensor
    """(B,) object of each problem"""
    yields: Tensor
    """(B, 1)"""
    grid: SignedDistanceGrid = shared()
    std: float = 0.0015

    def linearize(self, state: HandState) -> list[PointForces]:
        spheres = state.spheres
        distance, gradient = self.grid.query(spheres.points, self.which)
        sunk = penetration(distance, self.yields - sphere_radius(distance), self.std)
        return [PointForces.along(spheres, gradient, sunk)]


@dataclass(frozen=True, eq=False)
class FingersApart(Common):
    """Fingers do not enter one another: spheres of different fingers do not overlap."""

    std: float
    """metres of overlap that count as one"""

    def linearize(self, state: HandState) -> list[NormalEquations]:
        spheres, radius = state.spheres, sphere_radius(state.spheres.points)
        first, second = sphere_pairs(radius.device)
        offset = spheres.points[:, first] - spheres.points[:, second]
        distance = offset.norm(dim=-1).clamp_min(1e-6)
        overlap = (radius[first] + radius[second] - distance).clamp_min(0)
        touching = (overlap > 0).any(0).nonzero()[:, 0]  # pairs that overlap in any problem: usually very few
        if len(touching) == 0:
            return [NormalEquations.of(overlap[:, :0], overlap.new_zeros(len(overlap), state.dim, 0))]
        first, second, overlap = first[touching], second[touching], overlap[:, touching]
        direction = offset[:, touching] / distance[:, touching, None]
        pull = direction * (-(overlap > 0).to(overlap.dtype)[..., None] / self.std)
        move = spheres.dense()[..., FINGER_SPHERES]  # (B, D, 3, spheres)
        rows = ((move[..., first] - move[..., second]) * pull.transpose(1, 2)[:, None]).sum(2)
        return [NormalEquations.of(overlap / self.std, rows)]


@dataclass(frozen=True, eq=False)
class HandsApart(Common):
    """A right hand and, in the mirror, a left one do not enter one another: skin and inner spheres of neither
    lie in the other's spheres."""

    std: float
    """metres of depth that count as one"""

    def linearize(self, state: PairState) -> list[NormalEquations]:
        one, other = state.first, state.second
        radius = sphere_radius(one.spheres.points)
        return [
            self._outside(one.skin, other.spheres, 0.0),
            self._outside(other.skin, one.spheres, 0.0, swap=True),
            self._outside(one.spheres, other.spheres, radius),
        ]

    def _outside(
        self, points: PointJacobian, spheres: PointJacobian, radius: Tensor | float, swap: bool = False
    ) -> NormalEquations:
        """Points that are ``radius`` thick outside the spheres of the other hand."""
        balls = Spheres(spheres.points, sphere_radius(spheres.points)).mirrored()
        distance, gradient, nearest = balls.query(points.points)
        residual, slope = penetration(distance - radius, 0.0, self.std)
        pull = gradient * slope[..., None]
        pulled = -pull * pull.new_tensor([-1.0, 1.0, 1.0])
        rows = [points.along(pull), spheres.select(nearest).along(pulled)]
        return NormalEquations.of(residual, torch.cat(rows[::-1] if swap else rows, 1))
