"""The costs of a grasp, each one a short pure function from state and data to residuals and derivative.

All are batched and take a hand's `PointJacobian` where they concern points of the skin or joints. They return
``(residual (B, N), rows (B, D, N))``: residuals already divided by their standard deviation, and their
derivative, transposed, along `HandPose.retract`. Robust costs are reweighted and bring their loss ``(B,)``
along as a third. `NormalEquations.add` sums them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from hand_models import PointJacobian
from hand_models.anatomy import Anatomy
from hand_models.solver.least_squares import NormalEquations

Residual = tuple[Tensor, Tensor]
RobustResidual = tuple[Tensor, Tensor, Tensor]


def _pseudo_huber(squared: Tensor, scale: float) -> tuple[Tensor, Tensor]:
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


def penetration(
    skin: PointJacobian, distance: Tensor, gradient: Tensor, allowance: Tensor | float, std: float
) -> Residual:
    """Skin deeper inside the object than its soft tissue yields.

    Args:
        skin: ``P`` points of the hand.
        distance: ``(B, P)`` signed distance to the object, metres, positive outside.
        gradient: ``(B, P, 3)`` its gradient.
        allowance: depth in metres that costs nothing, a number or ``(B, P)``.
        std: metres of excess depth that count as one.
    """
    residual, slope = too_deep(distance, allowance, std)
    return residual, skin.along(gradient * slope[..., None])


def too_deep(distance: Tensor, allowance: Tensor | float, std: float) -> Residual:
    """The residual of `penetration` ``(B, P)`` and its derivative by ``distance``."""
    depth = (-distance - allowance).clamp_min(0)
    return depth / std, (depth > 0).to(distance.dtype) * (-1 / std)


def attraction(
    skin: PointJacobian, distance: Tensor, gradient: Tensor, weight: Tensor, std: float, scale: float = 3.0
) -> RobustResidual:
    """Skin that ought to touch, drawn to the surface along the distance gradient.

    Args:
        distance: ``(B, P)`` signed distance to the object, metres, less what the skin is to sink in.
        gradient: ``(B, P, 3)`` its gradient.
        weight: ``(B, P)`` non-negative, on the squared residual; zero leaves a point free.
        std: metres of distance that count as one.
        scale: residual above which the pull no longer grows.
    """
    residual, slope, loss = not_touching(distance, weight, std, scale)
    return residual, skin.along(gradient * slope[..., None]), loss


def not_touching(distance: Tensor, weight: Tensor, std: float, scale: float = 3.0) -> RobustResidual:
    """The residual of `attraction` ``(B, P)``, its derivative by ``distance`` and its loss ``(B,)``."""
    residual = distance / std
    share, loss = _pseudo_huber(residual**2, scale)
    factor = (share * weight).sqrt()
    return factor * residual, factor / std, (weight * loss).sum(1)


def correspondence(
    skin: PointJacobian, target: Tensor, weight: Tensor, std: Tensor, scale: float = 2.0
) -> RobustResidual:
    """Skin points to known places (or joints to known places).

    Args:
        skin: ``Q`` points.
        target: ``(B, Q, 3)`` metres.
        weight: ``(B, Q)`` non-negative, on the squared residual.
        std: ``(B, Q)`` metres, standard deviation of the target per axis.
        scale: residual above which the pull no longer grows.
    """
    error = ((skin.points - target) / std[..., None]).transpose(1, 2)  # (B, 3, Q)
    share, loss = _pseudo_huber((error**2).sum(1), scale)
    factor = (share * weight).sqrt()
    rows = skin.dense() * (factor / std)[:, None, None]
    return (error * factor[:, None]).flatten(1), rows.flatten(2), (weight * loss).sum(1)


def pose_prior(hand_pose: Tensor, mean: Tensor, std: Tensor, anatomy: Anatomy, dim: int) -> Residual:
    """Joint angles near a mean, in anatomical axes.

    Args:
        hand_pose: ``(B, 15, 3)`` axis-angle, right hand.
        mean: ``(15, 3)`` or ``(B, 15, 3)`` anatomical angles, radians.
        std: the same shape, radians.
        dim: number of unknowns, 51 or 61.
    """
    residual = (anatomy.to_anatomical(hand_pose) - mean) / std
    return residual.flatten(1), _angle_rows(1 / std.expand_as(residual), anatomy, dim)


def joint_limits(hand_pose: Tensor, anatomy: Anatomy, std: float, dim: int) -> Residual:
    """Joint angles beyond the range of motion, ``std`` radians of excess counting as one."""
    excess = anatomy.violation(hand_pose)
    return (excess / std).flatten(1), _angle_rows((excess != 0).to(excess.dtype) / std, anatomy, dim)


def posture(
    hand_pose: Tensor, beliefs: Sequence[tuple[Tensor, Tensor]], limits_std: float, anatomy: Anatomy, dim: int
) -> RobustResidual:
    """Several of `pose_prior` and one `joint_limits` at once: all are about the same angles.

    Args:
        hand_pose: ``(B, 15, 3)`` axis-angle, right hand.
        beliefs: mean and std of each prior, as `pose_prior` takes them.
        limits_std: radians of excess over the range of motion that count as one.
        dim: number of unknowns, 51 or 61.
    """
    angles = anatomy.to_anatomical(hand_pose)
    excess = angles - torch.minimum(torch.maximum(angles, anatomy.lower), anatomy.upper)
    precision = (excess != 0).to(angles.dtype) / limits_std**2
    pull, twice = excess / limits_std**2, excess.square() / limits_std**2
    for mean, std in beliefs:
        off = (angles - mean) / std
        precision, pull, twice = precision + std**-2, pull + off / std, twice + off * off
    root = precision.clamp_min(1e-12).sqrt()
    return (pull / root).flatten(1), _angle_rows(root, anatomy, dim), 0.5 * twice.flatten(1).sum(1)


def _angle_rows(scale: Tensor, anatomy: Anatomy, dim: int) -> Tensor:
    """Derivative ``(B, dim, 45)`` of anatomical angles times ``scale (B, 15, 3)``."""
    blocks = scale[:, :, None] * anatomy.basis.transpose(1, 2)  # (B, 15, 3 of axis-angle, 3 angles)
    joint = torch.arange(15, device=scale.device)
    rows = scale.new_zeros(len(scale), 15, 3, 15, 3)
    rows[:, joint, :, joint] = blocks.transpose(0, 1)
    return torch.nn.functional.pad(rows.reshape(-1, 45, 45), (0, 0, 6, dim - 51))


# Spheres along the bones of the fingers, between two consecutive joints each, and in the palm, OpenPose order.
_FINGER_SPHERES = tuple(
    (4 * f + k, 4 * f + k + 1, s) for f in range(5) for k in (1, 2, 3) for s in (0.25, 0.75)
)
_PALM_SPHERES = (*((0, 4 * f + 1, s) for f in range(1, 5) for s in (0.35, 0.6, 0.85)), (0, 1, 0.8))
# Thumb to little finger, metres: slim enough to lie side by side.
_FINGER_RADIUS = (0.0092, 0.0078, 0.0074, 0.0073, 0.0064)
_PALM_RADIUS = 0.010
_FINGERS = slice(0, len(_FINGER_SPHERES))


def inner_spheres(joints: PointJacobian) -> tuple[PointJacobian, Tensor]:
    """Centres (with derivative) and radii ``(S,)`` of spheres inside the hand: the fingers' first, then the palm's."""
    start, end, share, radius = sphere_table(joints.points.dtype, joints.points.device)
    return joints.between(start, end, share), radius


@cache
def sphere_table(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First joint, second joint, share of the way and radius of each sphere."""
    spheres = _FINGER_SPHERES + _PALM_SPHERES
    start, end = (torch.tensor([s[i] for s in spheres], device=device) for i in (0, 1))
    share = torch.tensor([s[2] for s in spheres], dtype=dtype, device=device)
    radii = [_FINGER_RADIUS[(s[0] - 1) // 4] for s in _FINGER_SPHERES] + [_PALM_RADIUS] * len(_PALM_SPHERES)
    return start, end, share, torch.tensor(radii, dtype=dtype, device=device)


@cache
def _sphere_pairs(device: torch.device) -> tuple[Tensor, Tensor]:
    """Pairs of spheres of different fingers."""
    finger = torch.tensor([(s[0] - 1) // 4 for s in _FINGER_SPHERES], device=device)
    first, second = torch.triu_indices(len(finger), len(finger), 1, device=device)
    apart = finger[first] != finger[second]
    return first[apart], second[apart]


def self_penetration(spheres: PointJacobian, radius: Tensor, std: float) -> Residual:
    """Fingers inside one another: spheres of different fingers that overlap.

    Args:
        spheres, radius: from `inner_spheres`.
        std: metres of overlap that count as one.
    """
    first, second = _sphere_pairs(radius.device)
    offset = spheres.points[:, first] - spheres.points[:, second]
    distance = offset.norm(dim=-1).clamp_min(1e-6)
    overlap = (radius[first] + radius[second] - distance).clamp_min(0)
    touching = (overlap > 0).any(0).nonzero()[:, 0]  # pairs that overlap in any problem: usually very few
    if len(touching) == 0:
        width = 3 + 3 * spheres.arms.shape[1] + (0 if spheres.shape is None else spheres.shape.shape[1])
        return overlap[:, :0], overlap.new_zeros(len(overlap), width, 0)
    first, second, overlap = first[touching], second[touching], overlap[:, touching]
    direction = offset[:, touching] / distance[:, touching, None]
    pull = direction * (-(overlap > 0).to(overlap.dtype)[..., None] / std)
    move = spheres.dense()[..., _FINGERS]  # (B, D, 3, spheres)
    rows = ((move[..., first] - move[..., second]) * pull.transpose(1, 2)[:, None]).sum(2)
    return overlap / std, rows


@dataclass(frozen=True)
class Pull:
    """What acts on points of the hand: the derivative of the costs by where these are, to second order.

    Of ``P`` points; the costs' Hessian by point ``p`` is ``stiffness[p] · 1 + normal[p] normal[p]ᵀ``.
    """

    points: PointJacobian
    force: Tensor
    """(B, P, 3) gradient of the costs by the points"""
    stiffness: Tensor | None = None
    """(B, P) the same in all directions; None for none"""
    normal: Tensor | None = None
    """(B, P, 3) None for none"""


def aim(
    skin: PointJacobian, index: Tensor | None, target: Tensor, weight: Tensor, std: Tensor, scale: float = 2.0
) -> tuple[Pull, Tensor]:
    """The cost of `correspondence` as a pull, with its loss ``(B,)``.

    Args:
        skin: ``P`` points.
        index: ``(B, Q)`` which of them is drawn to each target; None when that is each to its own.
        target, weight, std, scale: as `correspondence` takes them.
    """
    at = skin.points if index is None else skin.points.gather(1, index[..., None].expand(-1, -1, 3))
    error = at - target
    precision = std**-2
    share, loss = _pseudo_huber(error.square().sum(2) * precision, scale)
    stiffness = share * weight * precision
    force = error * stiffness[..., None]
    if index is not None:
        stiffness = torch.zeros_like(skin.points[..., 0]).scatter_add(1, index, stiffness)
        force = torch.zeros_like(skin.points).scatter_add(1, index[..., None].expand(-1, -1, 3), force)
    return Pull(skin, force, stiffness), (weight * loss).sum(1)


def press(
    skin: PointJacobian, gradient: Tensor, *residuals: Residual | RobustResidual
) -> tuple[Pull, Tensor]:
    """Costs of the skin's signed distance as a pull, with their loss ``(B,)``.

    Args:
        gradient: ``(B, P, 3)`` of the signed distance.
        residuals: from `too_deep` and `not_touching`.
    """
    slope = torch.stack([r[1] for r in residuals])
    residual = torch.stack([r[0] for r in residuals])
    loss = [r[2] if len(r) == 3 else 0.5 * r[0].square().sum(1) for r in residuals]
    force = gradient * (slope * residual).sum(0)[..., None]
    return Pull(skin, force, None, gradient * slope.square().sum(0).sqrt()[..., None]), sum(loss[1:], loss[0])


def pulled(pulls: Sequence[Pull], cost: Tensor) -> NormalEquations:
    """Normal equations of pulls at one hand's points.

    The derivative of a point by a turn of a bone is a cross product with its lever arm, so the sum over points
    of products of derivatives is one of products of lever arms: a third of the rows, which need not be formed.

    Args:
        pulls: their points are of the same ``B`` hands.
        cost: ``(B,)`` of all of them together.
    """
    first = pulls[0].points
    if first.correctives is not None or first.shape is not None:
        return _pulled_densely(pulls, cost)
    batch, bones = first.arms.shape[:2]
    frames = first.frames
    total = first.points.new_zeros(batch, 3 + 3 * bones, 3 + 3 * bones)
    turn, move = total[:, 3:, 3:], total[:, 3:, :3]
    gram = first.points.new_zeros(batch, 3 * bones, 3 * bones)
    torque = first.points.new_zeros(batch, 3 * bones, 3)
    lever = first.points.new_zeros(batch, bones, 3)
    weight, force = first.points.new_zeros(batch), first.points.new_zeros(batch, 3)
    for pull in pulls:
        arms = pull.points.arms.flatten(1, 2)
        torque = torch.baddbmm(torque, arms, pull.force)
        force = force + pull.force.sum(1)
        if pull.stiffness is not None:
            stiff = arms * pull.stiffness[:, None]
            gram = torch.baddbmm(gram, stiff, arms.transpose(1, 2))
            lever = lever + stiff.sum(2).unflatten(1, (bones, 3))
            weight = weight + pull.stiffness.sum(1)
        if pull.normal is not None:
            normal = pull.normal.transpose(1, 2)
            about = torch.linalg.cross(pull.points.arms, normal[:, None], dim=2).flatten(1, 2)
            rows = torch.cat([normal, about], 1)
            total += rows @ rows.transpose(1, 2)
    # (w × u) · (w' × v) = w · ((u · v) 1 - v uᵀ) w'
    blocks = gram.unflatten(2, (bones, 3)).unflatten(1, (bones, 3))  # (B, a, i, b, j)
    traces = torch.diagonal(blocks, dim1=2, dim2=4).sum(-1)
    turn -= blocks.transpose(2, 4).reshape(gram.shape)
    for axis in range(3):
        turn[:, axis::3, axis::3] += traces
        total[:, axis, axis] += weight
    move += _cross_matrix(lever).flatten(1, 2)
    total[:, :3, 3:] = move.transpose(1, 2)
    # From turns of bones to the unknowns.
    unknowns = first.points.new_zeros(batch, bones, 3, bones, 3)
    torch.diagonal(unknowns, dim1=1, dim2=3).copy_(frames.permute(0, 2, 3, 1))
    unknowns = unknowns.reshape(gram.shape)
    total[:, :, 3:] = total[:, :, 3:] @ unknowns
    total[:, 3:] = unknowns.transpose(1, 2) @ total[:, 3:]
    c = torque.unflatten(1, (bones, 3))
    moment = torch.stack(
        [c[..., 1, 2] - c[..., 2, 1], c[..., 2, 0] - c[..., 0, 2], c[..., 0, 1] - c[..., 1, 0]], -1
    )
    about = (moment[..., None, :] @ frames).flatten(1)
    return NormalEquations(cost, torch.cat([force, about], 1), total)


def _cross_matrix(v: Tensor) -> Tensor:
    """``(..., 3)`` to ``(..., 3, 3)``: the matrix of ``v ×``."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))


def _pulled_densely(pulls: Sequence[Pull], cost: Tensor) -> NormalEquations:
    """`pulled` for hands whose points do more than turn with their bones."""
    gradient, hessian = 0, 0
    for pull in pulls:
        rows = pull.points.dense()  # (B, D, 3, P)
        gradient = gradient + (rows.flatten(2) @ pull.force.transpose(1, 2).flatten(1)[..., None])[..., 0]
        if pull.stiffness is not None:
            stiff = (rows * pull.stiffness[:, None, None]).flatten(2)
            hessian = hessian + stiff @ rows.flatten(2).transpose(1, 2)
        if pull.normal is not None:
            along = pull.points.along(pull.normal)
            hessian = hessian + along @ along.transpose(1, 2)
    return NormalEquations(cost, gradient, hessian)
