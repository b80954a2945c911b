"""What the contact network sees: an object and a noisy hand, described in the hand's own frame.

Every quantity is expressed in the frame of the noisy wrist, so that moving hand and object together changes
nothing: the network is invariant to rigid motion by construction, not by augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hand_models import HandModel, HandPose
from hand_models.record import Record
from hand_models.rotations import exp_so3

LENGTH = 0.1
"""Unit of length of the features, metres: about the size of a palm."""
JOINT_REACH = 0.03
"""Fall-off of the nearness to joints, metres."""
OBJECT_FEATURES = 36
JOINT_FEATURES = 10
HAND_FEATURES = 118
_SKIN_SAMPLES = 256


@dataclass(frozen=True)
class Observation(Record):
    """Network input of ``B`` grasps, right hands."""

    objects: Tensor
    """(B, n, 36) per object point: position, normal, thickness, nearest skin and where on the hand it is,
    nearness to the 21 joints"""
    joints: Tensor
    """(B, 21, 10) per joint: position, nearest object point and its normal, distance"""
    hand: Tensor
    """(B, 118) joint angles, joint positions, shape"""
    joint_positions: Tensor
    """(B, 21, 3) noisy joints in the wrist frame, metres"""
    rotation: Tensor
    """(B, 3, 3) wrist frame to object frame"""
    origin: Tensor
    """(B, 3) wrist, object frame, metres"""


@torch.no_grad()
def observe(model: HandModel, pose: HandPose, points: Tensor, normals: Tensor, thickness: Tensor) -> Observation:
    """Describe ``B`` noisy right hands and the objects beside them.

    Args:
        model: right-hand model.
        pose: noisy hands, object frame.
        points: ``(B, n, 3)`` object surface, metres.
        normals: ``(B, n, 3)`` outward.
        thickness: ``(B, n)`` metres.

    Raises:
        ValueError: left hands, or arrays whose shapes do not go together.
    """
    if pose.side != "right":
        raise ValueError("pose: left hands; mirror hands and objects first (HandPose.mirrored).")
    if points.ndim != 3 or points.shape[0] != len(pose) or points.shape[2] != 3:
        raise ValueError(f"points: got shape {tuple(points.shape)}; expected ({len(pose)}, n, 3), one object per hand.")
    like_points = {"normals": (normals, points.shape), "thickness": (thickness, points.shape[:2])}
    for name, (value, expected) in like_points.items():
        if value.shape != expected:
            raise ValueError(f"{name}: got shape {tuple(value.shape)}; expected {tuple(expected)}, as points.")
    hand = model(pose)
    rotation = exp_so3(pose.global_orient)
    origin = hand.joints[:, 0]

    def local(x: Tensor) -> Tensor:
        return (x - origin[:, None]) @ rotation

    skin_ids = model.contact_points[:_SKIN_SAMPLES]
    skin, joints = local(hand.vertices[:, skin_ids]), local(hand.joints)
    xyz, outward = local(points), normals @ rotation

    closest = torch.cdist(xyz, skin).argmin(2)
    to_skin = skin.gather(1, closest[..., None].expand(-1, -1, 3)) - xyz
    on_hand = model.rest_canonical[skin_ids][closest]
    joint_distance = torch.cdist(xyz, joints)
    distance, along = to_skin.norm(dim=-1, keepdim=True), (to_skin * outward).sum(-1, keepdim=True)
    of_points = [xyz / LENGTH, outward, thickness[..., None] / LENGTH, to_skin / LENGTH, distance / LENGTH]
    of_points += [along / LENGTH, on_hand / LENGTH, torch.exp(-joint_distance / JOINT_REACH)]
    nearest = joint_distance.argmin(1)[..., None].expand(-1, -1, 3)
    to_object = xyz.gather(1, nearest) - joints
    distance = to_object.norm(dim=-1, keepdim=True)
    of_joints = [joints / LENGTH, to_object / LENGTH, outward.gather(1, nearest), distance / LENGTH]
    of_hand = [pose.hand_pose.flatten(1), joints.flatten(1) / LENGTH, pose.betas]
    features = (torch.cat(parts, -1) for parts in (of_points, of_joints, of_hand))
    return Observation(*features, joints, rotation, origin)
