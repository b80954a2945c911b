"""Where inverse kinematics starts: closed-form poses from joints or from the surface.

Kabsch for the palm or for every part (Acta Cryst. A32, 1976), then, from joints, bone by bone the smallest
rotation that points it the right way ("swing" of Li et al., HybrIK, CVPR 2021).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .anatomy import Anatomy
from .model import HandModel
from .pose import HandPose
from .rotations import exp_so3, log_so3

_PALM = (0, 1, 5, 9, 13, 17)  # OpenPose: wrist and the first joint of every finger
_FINGER_STARTS = (5, 9, 17, 13, 1)  # OpenPose index of the first joint, fingers in MANO order


def kabsch(source: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation ``(B, 3, 3)`` and translation ``(B, 3)`` with ``target ≈ R source + t``, least squares.

    Args:
        source, target: ``(B, N, 3)``.
        weights: ``(B, N)`` non-negative. Kabsch, Acta Cryst. A32, 1976, with the proper-rotation fix.
    """
    w = (weights / weights.sum(-1, keepdim=True).clamp_min(1e-12))[..., None]
    a, b = (w * source).sum(-2, keepdim=True), (w * target).sum(-2, keepdim=True)
    u, _, vt = torch.linalg.svd((w * (source - a)).transpose(-1, -2) @ (target - b))
    flip = torch.ones_like(a[..., 0, :])
    flip[..., 2] = torch.linalg.det(u @ vt).sign()
    rotation = vt.transpose(-1, -2) @ (flip[..., None] * u.transpose(-1, -2))
    return rotation, (b - a @ rotation.transpose(-1, -2))[..., 0, :]


def start_from_joints(points: Tensor, weights: Tensor, betas: Tensor, model: HandModel, anatomy: Anatomy) -> HandPose:
    """Palm by Kabsch, fingers by pointing each bone along its target with the smallest rotation."""
    batch = len(points)
    flat = replace(HandPose.zeros(batch, side=model.side).to(points), betas=betas)
    rest = model.joints(flat)
    anchor = weights.new_full((21,), 1e-3)  # the fingers decide only where the palm is missing
    anchor[list(_PALM)] = 1.0
    prior = anatomy.from_anatomical(anatomy.mean, side=model.side).expand(batch, 15, 3)
    rotation, shift = kabsch(model.joints(replace(flat, hand_pose=prior)), points, weights * anchor)
    local = prior.clone()
    for finger, start in enumerate(_FINGER_STARTS):
        world = rotation
        for k in range(3):
            known = (weights[:, start + k] > 0) & (weights[:, start + k + 1] > 0)
            bone = rest[:, start + k + 1] - rest[:, start + k]
            wanted = points[:, start + k + 1] - points[:, start + k]
            swing = _swing(bone, (world.transpose(1, 2) @ wanted[..., None])[..., 0])
            joint = 3 * finger + k
            local[:, joint] = torch.where(known[:, None], swing, prior[:, joint])
            world = world @ exp_so3(local[:, joint])
    local = anatomy.clamp(local, side=model.side)
    return _placed(flat, rotation, shift, local, model)


def start_from_vertices(points: Tensor, weights: Tensor, betas: Tensor, model: HandModel) -> HandPose:
    """Every part laid on its target by Kabsch; joint rotations are those between neighbouring parts."""
    flat = replace(HandPose.zeros(len(points), side=model.side).to(points), betas=betas)
    rest = model.rest_vertices(betas)
    world, shift = [], torch.zeros_like(points[:, 0])
    for bone in range(len(model.parents)):
        # Squared weights: vertices that follow the bone alone count most.
        follow = model.weights[:, bone] ** 2
        rotation, move = kabsch(rest, points, weights * follow)
        world.append(rotation)
        shift = move if bone == 0 else shift
    local = [log_so3(world[p].transpose(1, 2) @ world[k]) for k, p in enumerate(model.parents) if p >= 0]
    return _placed(flat, world[0], shift, torch.stack(local, 1), model)


def _placed(flat: HandPose, rotation: Tensor, shift: Tensor, hand_pose: Tensor, model: HandModel) -> HandPose:
    """The pose whose palm is moved by ``x -> rotation x + shift`` from rest."""
    return replace(flat, hand_pose=hand_pose).transformed(rotation, shift, model.root(flat))


def _swing(start: Tensor, end: Tensor) -> Tensor:
    """Smallest rotation ``(B, 3)``, axis-angle, that turns direction ``start`` to ``end``."""
    axis = torch.linalg.cross(start, end)
    sine = axis.norm(dim=-1, keepdim=True)
    angle = torch.atan2(sine, (start * end).sum(-1, keepdim=True))
    return axis / sine.clamp_min(1e-12) * angle
