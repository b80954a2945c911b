"""Hands whose depth is not known: the object says how far along their line of sight they are."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from contact.input_error import CAMERA, InputError
from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose

from .stated import Stated


def depth_of_object(
    pose: HandPose, object_pose: Tensor, obj: ObjectMesh, model: HandModel, stated: Stated, rows: Tensor
) -> tuple[HandPose, Stated]:
    """Hands moved along their line of sight to where it passes the object, and how far off they may be there.

    The mean of the joints comes to lie as far from the camera as the middle of the object along that line. A hand that
    touches the object is at most half the object's extent along the line off, and a hand's thickness, before or behind
    it: that is the standard deviation along the line (`InputError.along`), whatever else is stated. Keypoints of such a
    hand take no part, since through a focal length that is not the camera's they would say how far it is.

    Args:
        pose: ``B`` hands, camera's frame; those that are not finite are passed over.
        object_pose: ``(B, 4, 4)`` object to camera.
        rows: ``(B,)`` bool, the hands whose depth is not metric; the others come back as they are.

    Raises:
        ValueError: the line passes the object so far off that a hand on it cannot reach it.
    """
    rows = (rows & pose.finite() & object_pose.isfinite().flatten(1).all(1)).nonzero()[:, 0]
    if len(rows) == 0:
        return pose, stated
    hands, camera = pose[rows], object_pose[rows]
    joints = model.joints(hands)
    centre = joints.mean(1)
    view = torch.nn.functional.normalize(centre, dim=1)
    surface = obj.points @ camera[:, :3, :3].transpose(1, 2) + camera[:, None, :3, 3]  # (B, n, 3)
    along = (surface @ view[..., None])[..., 0]
    near, far = along.amin(1), along.amax(1)
    depth = (near + far) / 2
    beside = (surface - along[..., None] * view[:, None]).norm(dim=2).amin(1)
    reach = (joints - centre[:, None]).norm(dim=2).amax(1)
    if (lost := ((beside > reach) | (depth <= 0)).nonzero()[:, 0]).numel():
        first = int(lost[0])
        raise ValueError(
            f"metric_depth: the line of sight of the hand passes the object at {1000 * float(beside[first]):.0f} mm, "
            "so that the object does not tell the hand's depth; was the object's pose found with another focal length? "
            "Give the true intrinsics (camera)."
        )
    transl = hands.transl + view * depth[:, None] - centre
    errors: list[InputError | None] = list(stated.errors(len(pose)))
    for row, extent in zip(rows.tolist(), ((far - near) / 2 + thickness(model)).tolist(), strict=True):
        errors[row] = replace(errors[row] or CAMERA, along=extent)
    moved = replace(hands, transl=transl)
    return pose.fill(rows, moved), replace(stated.unseen(rows.tolist()), input_error=errors)


def thickness(model: HandModel) -> float:
    """Metres, of a flat hand: the least extent of the model at rest along the axes of its surface."""
    surface = model.template - model.template.mean(0)
    axes = torch.linalg.svd(surface, full_matrices=False).Vh
    across = surface @ axes.T
    return float((across.amax(0) - across.amin(0)).amin())
