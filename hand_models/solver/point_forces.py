"""Costs of points on a hand or a rigid body, to second order, without forming a row of the derivative.

The derivative of a point by a turn of a bone is a cross product with its lever arm (`PointJacobian`), so the sum
over points of products of derivatives is one of products of lever arms: a third of the rows, never formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..point_jacobian import PointJacobian
from ..rotations import skew
from .normal_equations import NormalEquations


@dataclass(frozen=True)
class PointForces:
    """The derivative of a cost by the places of ``P`` points, to second order.

    The cost's Hessian by point ``p`` is ``stiffness[p] · 1 + normal[p] normal[p]ᵀ``.
    """

    points: PointJacobian
    cost: Tensor
    """(B,)"""
    force: Tensor
    """(B, P, 3) gradient of the cost by the points"""
    stiffness: Tensor | None = None
    """(B, P) the same in all directions; None for none"""
    normal: Tensor | None = None
    """(B, P, 3) None for none"""

    @staticmethod
    def along(points: PointJacobian, direction: Tensor, *residuals: tuple[Tensor, ...]) -> PointForces:
        """Of costs of one number of each point, such as its signed distance to a surface.

        Args:
            points: ``P`` points.
            direction: ``(B, P, 3)`` gradient of that number.
            residuals: of each cost, residual ``(B, P)`` and its derivative by the number ``(B, P)``; where that
                is reweighted, also what it costs ``(B,)``.
        """
        slope = torch.stack([r[1] for r in residuals])
        residual = torch.stack([r[0] for r in residuals])
        costs = [r[2] if len(r) == 3 else 0.5 * r[0].square().sum(1) for r in residuals]
        force = direction * (slope * residual).sum(0)[..., None]
        normal = direction * slope.square().sum(0).sqrt()[..., None]
        return PointForces(points, sum(costs[1:], costs[0]), force, None, normal)


def assemble(forces: Sequence[PointForces]) -> NormalEquations:
    """Normal equations of forces on points of the same ``B`` hands or bodies."""
    first, cost = forces[0].points, sum((f.cost for f in forces[1:]), forces[0].cost)
    if first.correctives is not None or first.shape is not None:
        return _assemble_densely(forces, cost)
    batch, bones = first.arms.shape[:2]
    total = first.points.new_zeros(batch, 3 + 3 * bones, 3 + 3 * bones)
    turn, move = total[:, 3:, 3:], total[:, 3:, :3]
    gram = first.points.new_zeros(batch, 3 * bones, 3 * bones)
    torque = first.points.new_zeros(batch, 3 * bones, 3)
    lever = first.points.new_zeros(batch, bones, 3)
    weight, push = first.points.new_zeros(batch), first.points.new_zeros(batch, 3)
    for f in forces:
        arms = f.points.arms.flatten(1, 2)
        torque = torch.baddbmm(torque, arms, f.force)
        push = push + f.force.sum(1)
        if f.stiffness is not None:
            stiff = arms * f.stiffness[:, None]
            gram = torch.baddbmm(gram, stiff, arms.transpose(1, 2))
            lever = lever + stiff.sum(2).unflatten(1, (bones, 3))
            weight = weight + f.stiffness.sum(1)
        if f.normal is not None:
            normal = f.normal.transpose(1, 2)
            about = torch.linalg.cross(f.points.arms, normal[:, None], dim=2).flatten(1, 2)
            rows = torch.cat([normal, about], 1)
            total += rows @ rows.transpose(1, 2)
    # (w × u) · (w' × v) = w · ((u · v) 1 - v uᵀ) w'
    blocks = gram.unflatten(2, (bones, 3)).unflatten(1, (bones, 3))  # (B, a, i, b, j)
    traces = torch.diagonal(blocks, dim1=2, dim2=4).sum(-1)
    turn -= blocks.transpose(2, 4).reshape(gram.shape)
    for axis in range(3):
        turn[:, axis::3, axis::3] += traces
        total[:, axis, axis] += weight
    move += skew(lever).flatten(1, 2)
    total[:, :3, 3:] = move.transpose(1, 2)
    # From turns of bones to the unknowns.
    unknowns = first.points.new_zeros(batch, bones, 3, bones, 3)
    torch.diagonal(unknowns, dim1=1, dim2=3).copy_(first.frames.permute(0, 2, 3, 1))
    unknowns = unknowns.reshape(gram.shape)
    total[:, :, 3:] = total[:, :, 3:] @ unknowns
    total[:, 3:] = unknowns.transpose(1, 2) @ total[:, 3:]
    c = torque.unflatten(1, (bones, 3))
    moment = torch.stack([c[..., 1, 2] - c[..., 2, 1], c[..., 2, 0] - c[..., 0, 2], c[..., 0, 1] - c[..., 1, 0]], -1)
    return NormalEquations(cost, torch.cat([push, (moment[..., None, :] @ first.frames).flatten(1)], 1), total)


def _assemble_densely(forces: Sequence[PointForces], cost: Tensor) -> NormalEquations:
    """`assemble` for hands whose points do more than turn with their bones."""
    gradient, hessian = 0, 0
    for f in forces:
        rows = f.points.dense()  # (B, D, 3, P)
        gradient = gradient + (rows.flatten(2) @ f.force.transpose(1, 2).flatten(1)[..., None])[..., 0]
        if f.stiffness is not None:
            stiff = (rows * f.stiffness[:, None, None]).flatten(2)
            hessian = hessian + stiff @ rows.flatten(2).transpose(1, 2)
        if f.normal is not None:
            along = f.points.along(f.normal)
            hessian = hessian + along @ along.transpose(1, 2)
    return NormalEquations(cost, gradient, hessian)
