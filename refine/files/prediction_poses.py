"""Rows of a prediction file as `HandPose`, in the file's frame and in the object's, and back."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hand_models.fit import fit_joints
from hand_models.model import HandModel
from hand_models.pose import HandPose

from .predictions import Predictions, has_joints, has_pose

_log = logging.getLogger(__name__)


def hand_poses(predictions: Predictions, rows: Any, model: HandModel) -> HandPose:
    """The hands of ``rows`` (indices or mask) in the frame of the file, in the order given.

    Where the pose columns are NaN or absent the pose is fitted to `keypoints_3d`. Betas of another hand model
    than ``model`` mean nothing to it and count as zero; this is logged.

    Raises:
        ValueError: the rows are of both sides, or one has neither pose nor joints.
    """
    p = predictions.take(rows)
    sides = np.unique(p.side)
    if len(sides) != 1:
        raise ValueError(f"rows: hands of the sides {sides.tolist()}; give rows of one side.")
    side = str(sides[0])
    posed = has_pose(p)
    empty = np.flatnonzero(~posed & ~has_joints(p))
    if len(empty):
        raise ValueError(
            f"rows: number {empty[0]} of them has neither a finite pose nor finite keypoints_3d."
        )
    parts, order = [], []
    if posed.any():
        q = p.take(posed)
        given = q.column("betas")
        betas = np.where((q.hand_model == model.name)[:, None], given, np.float32(0))
        if not np.array_equal(betas, given):
            _log.warning("betas of another hand model than %r are taken as zero", model.name)
        fields = {
            "global_orient": q.global_orient,
            "hand_pose": q.hand_pose,
            "betas": betas,
            "transl": q.transl,
        }
        parts.append(HandPose.from_arrays(fields, side=side))
        order.append(np.flatnonzero(posed))
    if not posed.all():
        joints = torch.from_numpy(p.column("keypoints_3d")[~posed, :21])
        parts.append(fit_joints(joints, model, side=side))
        order.append(np.flatnonzero(~posed))
    return HandPose.cat(parts)[np.argsort(np.concatenate(order))]


def object_poses(predictions: Predictions, rows: Any) -> Tensor | None:
    """``(B, 4, 4)`` object to camera of ``rows``; None when the file is in the object frame."""
    if predictions.object_pose is None:
        return None
    return torch.from_numpy(predictions.object_pose[rows])


def into_object_frame(pose: HandPose, object_pose: Tensor | None, model: HandModel) -> HandPose:
    """Hands in the camera frame to the object frame: moved by the inverse of ``object_pose (B, 4, 4)``."""
    if object_pose is None:
        return pose
    rotation = object_pose[:, :3, :3].transpose(1, 2)
    translation = -(rotation @ object_pose[:, :3, 3:])[..., 0]
    return pose.transformed(rotation, translation, model.root(pose))


def into_camera_frame(pose: HandPose, object_pose: Tensor | None, model: HandModel) -> HandPose:
    """Hands in the object frame to the camera frame: moved by ``object_pose (B, 4, 4)``."""
    if object_pose is None:
        return pose
    return pose.transformed(object_pose[:, :3, :3], object_pose[:, :3, 3], model.root(pose))
