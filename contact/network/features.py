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
from hand_models.solver.states import HandState

LENGTH = 0.1
"""Unit of length of the features, metres: about the size of a palm."""
JOINT_REACH = 0.03
"""Fall-off of the nearness to joints, metres."""
OBJECT_FEATURES = 36 + 21
JOINT_FEATURES = 10 + 7
HAND_FEATURES = 118 + 49 + 3
_SKIN_SAMPLES = 256
_CLOSE = (0.005, 0.02)  # metres: fall-offs of how near the skin comes to the object
_USUAL, _USUAL_TURN, _USUAL_BEND = 0.03, 0.1, 0.1  # metres, radians: what errors of the input are measured in


@dataclass(frozen=True)
class Observation(Record):
    """Network input of ``B`` grasps, right hands."""

    objects: Tensor
    """(B, n, 57) per object point: position, normal, thickness, nearest skin and where on the hand it is,
    nearness to the 21 joints; nearness to where these may be, for all that is known of their error"""
    joints: Tensor
    """(B, 21, 17) per joint: position, nearest object point and its normal, distance; how it may be off"""
    hand: Tensor
    """(B, 170) joint angles, joint positions, shape; how wrist and angles may be off; how near the skin comes"""
    joint_positions: Tensor
    """(B, 21, 3) noisy joints in the wrist frame, metres"""
    rotation: Tensor
    """(B, 3, 3) wrist frame to object frame"""
    origin: Tensor
    """(B, 3) wrist, object frame, metres"""
    told: Tensor
    """(B,) 1 where it is known how the hand may be off, 0 where the network has to judge"""
    spread: Tensor
    """(B, 21, 3, 3) wrist frame, metres: symmetric root of the covariance of each joint; 0 where it is not known"""


@torch.no_grad()
def observe(
    model: HandModel, pose: HandPose, points: Tensor, normals: Tensor, thickness: Tensor,
    covariance: Tensor | None = None,
) -> Observation:  # fmt: skip
    """Describe ``B`` noisy right hands and the objects beside them.

    Args:
        model: right-hand model.
        pose: noisy hands, object frame.
        points: ``(B, n, 3)`` object surface, metres.
        normals: ``(B, n, 3)`` outward.
        thickness: ``(B, n)`` metres.
        covariance: ``(B, 51, 51)`` of the numbers of `HandPose.retract` about the noisy hands, metres and radians;
            NaN in the rows of hands of whose error nothing is known. None when nothing is known of any.

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
    told, spread, std = _error(model, pose, rotation, covariance)
    of_points += [_nearness(xyz, joints, spread) * told[:, None, None]]
    upper = torch.triu_indices(3, 3, device=spread.device)
    known = told[:, None, None].expand(-1, 21, 1)
    of_joints += [spread[:, :, upper[0], upper[1]] / _USUAL, known]
    of_hand += [told[:, None], std / std.new_tensor([_USUAL_TURN] * 3 + [_USUAL_BEND] * 45)]
    closest = to_skin.norm(dim=-1).amin(1)[:, None]
    of_hand += [(closest / LENGTH).clamp_max(10.0), *(torch.exp(-closest / reach) for reach in _CLOSE)]
    features = (torch.cat(parts, -1) for parts in (of_points, of_joints, of_hand))
    return Observation(*features, joints, rotation, origin, told, spread)


def _error(
    model: HandModel, pose: HandPose, rotation: Tensor, covariance: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`Observation.told` and `.spread`, and standard deviations ``(B, 48)`` of the wrist's turn, in its own axes, and
    of the joint angles; zero where nothing is known."""
    batch = len(pose)
    if covariance is None:
        zeros = rotation.new_zeros
        return zeros(batch), zeros(batch, 21, 3, 3), zeros(batch, 48)
    known = covariance.isfinite().flatten(1).all(1)
    told = known.to(rotation)
    covariance = torch.where(known[:, None, None], covariance, torch.zeros_like(covariance)).to(rotation)
    moves = HandState.of(pose, model).joints.dense()  # (B, 51, 3, 21)
    moved = (covariance @ moves.flatten(2)).view_as(moves)
    of_joints = torch.einsum("bdcj,bdkj->bjck", moves, moved)
    values, axes = torch.linalg.eigh(rotation.transpose(1, 2)[:, None] @ of_joints @ rotation[:, None])
    spread = (axes * values.clamp_min(0).sqrt()[..., None, :]) @ axes.transpose(2, 3)
    turn = rotation.transpose(1, 2) @ covariance[:, 3:6, 3:6] @ rotation
    variances = [torch.diagonal(c, dim1=1, dim2=2) for c in (turn, covariance[:, 6:, 6:])]
    return told, spread, torch.cat(variances, 1).clamp_min(0).sqrt()


def _nearness(points: Tensor, joints: Tensor, spread: Tensor) -> Tensor:
    """(B, n, 21) nearness of points to where joints may be: the fall-off is wider along what is not known."""
    scale = torch.eye(3).to(spread) + spread @ spread / JOINT_REACH**2
    metric = torch.linalg.inv(scale) / JOINT_REACH**2  # (B, 21, 3, 3)
    pull = (metric @ joints[..., None])[..., 0]
    of_points = torch.einsum("bjck,bnc,bnk->bnj", metric, points, points)
    squared = of_points - 2 * points @ pull.transpose(1, 2) + (pull * joints).sum(-1)[:, None]
    return torch.exp(-squared.clamp_min(0).sqrt())
