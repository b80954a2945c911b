"""Arguments of `refine_sequence` that single hands do not have: poses of parts, the error of a whole motion."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from contact.input_error import InputError
from hand_models import HandPose
from hand_models.arguments import as_floats

from .error_in_time import judged_error
from .input_error import input_error
from .inputs import as_object_pose


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
