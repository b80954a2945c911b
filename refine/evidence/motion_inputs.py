"""Arguments of `refine_sequence` that single hands do not have: poses of parts, the error of a whole motion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from contact.input_error import TRACKING, InputError
from hand_models import HandModel, HandPose
from hand_models.arguments import as_floats
from hand_models.record import Record
from hand_models.rotations import log_so3
from hand_models.solver.least_squares import minimize
from hand_models.solver.normal_equations import NormalEquations
from hand_models.solver.sequence import Acceleration, PerFrame, SequenceState
from hand_models.solver.states import RigidState

from .error_in_time import judged_error
from .input_error import input_error
from .inputs import as_object_pose

HASTE = tuple(6**0.5 * std for std in (TRACKING.translation, TRACKING.rotation, 0.25 * TRACKING.pose))
"""Metres and radians a frame², at 30 a second: what second differences of the place, turn and joint angles of measured
hands, and of what they hold, are at the least, by how trackers err."""


def part_poses(value: Any, length: int, parts: int) -> Tensor:
    """``(T, P, 4, 4)`` part to the frame of the hands."""
    if value is None:
        return torch.eye(4).expand(length, parts, 4, 4)
    poses = as_floats("object_poses", value).cpu()
    if poses.ndim == 3:
        poses = poses[:, None]
    if poses.shape != (length, parts, 4, 4):
        raise ValueError(
            f"object_poses: got shape {tuple(poses.shape)}; expected ({length}, 4, 4), one a frame of hand_poses, or "
            f"({length}, {parts}, 4, 4) for {parts} parts."
        )
    try:
        return torch.stack([as_object_pose(poses[:, k], length) for k in range(parts)], 1)
    except ValueError as error:
        raise ValueError(str(error).replace("object_pose:", "object_poses:", 1)) from None


def error_of_motion(stated: Any, pose: HandPose, before_camera: bool) -> InputError | Tensor:
    """How the motion may be off, stated or judged from its known frames in the frame that they came in."""
    error = input_error(stated) if isinstance(stated, str) else stated
    if error is None:
        return judged_error(pose)
    if not isinstance(error, InputError):
        covariance = as_floats("input_error", error, torch.float64)
        if covariance.shape != (51, 51):
            raise ValueError(
                f"input_error: got shape {tuple(covariance.shape)}; pass a name such as 'camera', an InputError, or a "
                "covariance (51, 51), the same for all frames."
            )
        if not covariance.isfinite().all() or torch.linalg.cholesky_ex(covariance)[1].any():
            raise ValueError("input_error: not positive definite; pass a covariance in metres and radians.")
        return covariance
    if error.along is not None and not before_camera:
        raise ValueError(
            "input_error: 'camera' is along the line of sight; give object_poses, the object's poses before the camera."
        )
    return error


def with_one_shape(pose: HandPose, known: Tensor, model: HandModel) -> HandPose:
    """A motion is of one hand: with the median of the ``known (T,)`` frames' betas, wrists where they were."""
    betas = pose.betas[known].median(0).values.expand_as(pose.betas)
    one = replace(pose, betas=betas)
    return replace(one, transl=pose.transl + model.root(pose) - model.root(one))


def as_object_error(value: Any) -> tuple[float, float] | None:
    """Standard deviations of an object's poses, metres and radians."""
    if value is None:
        return None
    numbers = as_floats("object_error", value).flatten().tolist()
    if len(numbers) != 2 or not all(0 < number < 1 for number in numbers):
        raise ValueError(
            f"object_error: got {value!r}; pass the standard deviations of place and turn, metres and radians, such as "
            "(0.005, 0.05)."
        )
    return numbers[0], numbers[1]


@dataclass(frozen=True, eq=False)
class NearPoses(Record):
    """Bodies are where they were measured."""

    rotation: Tensor
    """(T, 3, 3)"""
    translation: Tensor
    """(T, 3)"""
    std: Tensor
    """(T, 6) metres and radians"""

    def linearize(self, state: RigidState) -> list[NormalEquations]:
        """With the derivative at the measured turn, which is exact for all but large rotations."""
        turn = log_so3(state.rotation @ self.rotation.mT)
        residual = torch.cat([state.translation - self.translation, turn], 1) / self.std
        return [NormalEquations.of(residual, torch.diag_embed(1 / self.std))]


def smooth_parts(poses: Tensor, error: tuple[float, float], rate: float) -> Tensor:
    """Bodies in motion, ``poses (T, P, 4, 4)`` measured with an ``error`` that is new in every frame, metres and
    radians, made as smooth as that allows. ``rate``: frames a second over 30."""
    found = poses.clone()
    place, turn, _ = HASTE
    smooth = Acceleration(place / rate**2, turn / rate**2)
    std = poses.new_tensor([error[0]] * 3 + [error[1]] * 3).expand(len(poses), -1)
    for k in range(poses.shape[1]):
        rotation, translation = poses[:, k, :3, :3], poses[:, k, :3, 3]
        state = SequenceState(RigidState(translation[:, None, :] * 0, rotation, translation), len(poses))
        near = PerFrame((NearPoses(rotation, translation, std),), 1, len(poses))
        body = minimize(state, [near, smooth]).state.frames
        found[:, k, :3, :3], found[:, k, :3, 3] = body.rotation, body.translation
    return found
