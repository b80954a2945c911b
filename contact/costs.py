"""The costs of a grasp, each one a short pure function from state and data to residuals and derivative.

All are batched and take a hand's `PointJacobian` where they concern points of the skin or joints. They return
``(residual (B, N), rows (B, D, N))``: residuals already divided by their standard deviation, and their
derivative, transposed, along `HandPose.retract`. Robust costs are reweighted and bring their loss ``(B,)``
along as a third. `NormalEquations.add` sums them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hand_models import PointJacobian
from hand_models.anatomy import Anatomy

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
    depth = (-distance - allowance).clamp_min(0)
    inside = (depth > 0).to(distance.dtype)
    return depth / std, skin.along(gradient * (-inside / std)[..., None])


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
    residual = distance / std
    share, loss = _pseudo_huber(residual**2, scale)
    factor = (share * weight).sqrt()
    rows = skin.along(gradient * (factor / std)[..., None])
    return factor * residual, rows, (weight * loss).sum(1)


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
    spheres = _FINGER_SPHERES + _PALM_SPHERES
    device = joints.points.device
    start, end = (torch.tensor([s[i] for s in spheres], device=device) for i in (0, 1))
    share = joints.points.new_tensor([s[2] for s in spheres])
    radius = joints.points.new_tensor(
        [_FINGER_RADIUS[(s[0] - 1) // 4] for s in _FINGER_SPHERES] + [_PALM_RADIUS] * len(_PALM_SPHERES)
    )
    return joints.between(start, end, share), radius


def self_penetration(spheres: PointJacobian, radius: Tensor, std: float) -> Residual:
    """Fingers inside one another: spheres of different fingers that overlap.

    Args:
        spheres, radius: from `inner_spheres`.
        std: metres of overlap that count as one.
    """
    device = radius.device
    finger = torch.tensor([(s[0] - 1) // 4 for s in _FINGER_SPHERES], device=device)
    first, second = torch.triu_indices(len(finger), len(finger), 1, device=device)
    apart = finger[first] != finger[second]
    first, second = first[apart], second[apart]
    offset = spheres.points[:, first] - spheres.points[:, second]
    distance = offset.norm(dim=-1).clamp_min(1e-6)
    overlap = (radius[first] + radius[second] - distance).clamp_min(0)
    touching = (overlap > 0).any(0).nonzero()[:, 0]  # pairs that overlap in any problem: usually very few
    first, second, overlap = first[touching], second[touching], overlap[:, touching]
    direction = offset[:, touching] / distance[:, touching, None]
    pull = direction * (-(overlap > 0).to(overlap.dtype)[..., None] / std)
    move = spheres.dense()[..., _FINGERS]  # (B, D, 3, spheres)
    rows = ((move[..., first] - move[..., second]) * pull.transpose(1, 2)[:, None]).sum(2)
    return overlap / std, rows
