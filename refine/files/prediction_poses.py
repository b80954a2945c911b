"""Rows of a prediction file as `HandPose`, in the file's frame and in the object's, and back."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hand_models import HandModel, HandPose, MissingManoError, fit_joints, load_hand_model

from .predictions import Predictions, has_joints, has_pose


def hand_poses(predictions: Predictions, rows: Any, model: HandModel) -> HandPose:
    """The hands of ``rows`` (indices or mask) in the frame of the file, in the order given.

    Where the pose columns are NaN or absent the pose is fitted to `keypoints_3d`. Betas of another hand model
    than ``model`` are left out, see `in_terms_of`.

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
        raise ValueError(f"rows: number {empty[0]} of them has neither a finite pose nor finite keypoints_3d.")
    parts, order = [], []
    if posed.any():
        q = p.take(posed)
        fields = {name: q.column(name) for name in ("global_orient", "hand_pose", "betas", "transl")}
        parts.append(in_terms_of(model, HandPose.from_arrays(fields, side=side), q.hand_model))
        order.append(np.flatnonzero(posed))
    if not posed.all():
        joints = torch.from_numpy(p.column("keypoints_3d")[~posed, :21])
        parts.append(fit_joints(joints, model, side=side))
        order.append(np.flatnonzero(~posed))
    return HandPose.cat(parts)[np.argsort(np.concatenate(order))]


def joints_fitted(predictions: Predictions) -> Tensor | None:
    """Joints ``(N, 21, 3)`` that `hand_poses` fits hands to, NaN in rows with a pose; None when all have one."""
    posed = has_pose(predictions)
    if posed.all():
        return None
    joints = torch.from_numpy(predictions.column("keypoints_3d")[:, :21].copy())
    joints[torch.from_numpy(posed)] = torch.nan
    return joints


def in_terms_of(model: HandModel, pose: HandPose, betas_of: Any) -> HandPose:
    """Hands whose betas may belong to other hand models, as hands of ``model``.

    Betas of another model mean nothing to this one: they become zero, with a warning, and the wrist stays where
    it was. It lies at J0(betas) + transl, so for that the other model must be at hand; without MANO its wrist is
    taken to be that of the mean hand, which is good to some millimetres.

    Args:
        betas_of: name of the hand model that the betas belong to, "mano" or "open"; one for all or one each.
    """
    names = np.broadcast_to(np.asarray(betas_of, np.str_), len(pose))
    foreign = (names != model.name) & (pose.betas != 0).any(1).cpu().numpy()
    for name in np.unique(names[foreign]).tolist():
        rows = torch.from_numpy(np.flatnonzero(foreign & (names == name)))
        given = pose[rows]
        mean = HandPose.zeros(len(rows), side=pose.side)
        try:
            wrist, place = load_hand_model(name).root(given), "the wrist stays where it was"
        except (MissingManoError, ValueError):
            wrist, place = model.root(mean), "the wrist may move by some millimetres, as its place hangs on them"
        warnings.warn(
            f"betas of the hand model {name!r} say nothing to {model.name!r} and are taken as zero; {place}. "
            f"Refine with the hand model {name!r} to keep the shape.",
            stacklevel=2,
        )
        transl = given.transl + wrist - model.root(mean)
        pose = pose.fill(rows, replace(given, betas=torch.zeros_like(given.betas), transl=transl))
    return pose


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
