"""Hands that do not hold: on their way to or from a grasp, passing by, resting beside the object."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hand_models import HandModel, HandPose
from hand_models.rotations import exp_so3, log_so3

from ..objects.object_set import ObjectPoints

NEAREST, FARTHEST = 0.003, 0.8
"""Metres between the object and hands that do not hold it."""
_OPENED = 0.08  # metres off, by which a hand has opened
_BENT = (0.5, 1.2)  # times the joint angles of hands that hold
_AIMLESS = 0.25  # share of hands that are not about to grasp
_TRIES, _SKIN = 5, 192
_SPACING = 0.004  # metres between points of an object the size of a hand


@torch.no_grad()
def withdraw(
    model: HandModel, pose: HandPose, objects: ObjectPoints, generator: torch.Generator
) -> tuple[HandPose, Tensor]:
    """Hands drawn off their objects, 3 mm to 80 cm (evenly in the logarithm), their fingers moving as they go.

    Args:
        pose: ``B`` right hands that hold.
        objects: one for each.

    Returns:
        The hands, and ``(B,)`` bool: those for which a place off the object was found. The others are as given.
    """
    batch = len(pose)

    def draw(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator)

    off = NEAREST * (FARTHEST / NEAREST) ** torch.rand(batch, generator=generator)
    # Fingers as other hands have them that hold, opened or closed a little: how they are bent alone says nothing.
    bend = _BENT[0] + (_BENT[1] - _BENT[0]) * torch.rand(batch, 1, 1, generator=generator)
    other = bend * pose.hand_pose[torch.randperm(batch, generator=generator)]
    aimless = torch.rand(batch, generator=generator) < _AIMLESS
    share = (off / _OPENED).clamp_max(1) * torch.rand(batch, generator=generator).sqrt()
    centre = objects.points.mean(1)
    away = normalize(model.joints(pose).mean(1) - centre, dim=1) + 0.4 * draw(3)
    turn = torch.where(aimless[:, None], 2 * draw(3), 0.4 * share[:, None] * draw(3))
    bent = pose.hand_pose + share[:, None, None] * (other - pose.hand_pose)
    hand = replace(
        pose,
        global_orient=log_so3(exp_so3(turn) @ exp_so3(pose.global_orient)),
        hand_pose=torch.where(aimless[:, None, None], other, bent),
    )
    found = torch.zeros(batch, dtype=torch.bool)
    moved, far = hand, torch.zeros(batch)
    for _ in range(_TRIES):
        moved = moved.where(found, replace(hand, transl=hand.transl + far[:, None] * normalize(away, dim=1)))
        lacking = off - clearance(model, moved, objects)
        found = found | (lacking.abs() < 0.5 * off)
        far = far + lacking
    return moved.where(found, pose), found


def clearance(model: HandModel, pose: HandPose, objects: ObjectPoints) -> Tensor:
    """(B,) metres of the closest skin from the object, negative inside; off by some 2 mm, as points are samples."""
    skin = model(pose).vertices[:, model.contact_points[:_SKIN]]
    nearest = torch.cdist(skin, objects.points).argmin(2)[..., None].expand(-1, -1, 3)
    offset = skin - objects.points.gather(1, nearest)
    distance, along = offset.norm(dim=2), (offset * objects.normals.gather(1, nearest)).sum(2)
    across = (distance.square() - along.square()).clamp_min(0).sqrt()
    # A point stands for the surface about it. Skin far to its side is beyond an edge: outside, though it may lie a
    # little below the point's plane.
    facing = (across < _SPACING) | (along < -across)
    return torch.where(facing, along, distance).amin(1)
