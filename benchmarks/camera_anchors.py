"""What an image estimator's hand comes to without refinement: two anchors to read the figures of refinement by.

`slide_to_touch` knows the object and where the camera is; `fit_to_keypoints` knows the picture and no object.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from contact.input_error import line_of_sight
from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose
from hand_models.skeleton import JOINT_NAMES
from hand_models.solver.least_squares import minimize
from hand_models.solver.states import HandState
from refine.evidence.stated import Stated

_FINGERTIPS = [k for k, name in enumerate(JOINT_NAMES) if name.endswith("_tip")]
REACH = 0.15
"""Metres that a hand slides at most, either way."""
_STEP = 0.001


@torch.no_grad()
def slide_to_touch(pose: HandPose, object_pose: Tensor, mesh: ObjectMesh, model: HandModel) -> HandPose:
    """Hands moved along their lines of sight to where they touch the object best.

    That is where the five fingertips are nearest to its surface, in the mean of their distances, inside or outside.
    A place where any skin touches and none is deep inside would be a weaker anchor: measured hands themselves sink
    in by several millimetres somewhere, so that one slides out of a true grasp until the last of it comes free.

    Args:
        pose: ``B`` hands in the object's frame.
        object_pose: ``(B, 4, 4)`` object to camera.
    """
    view, tips = line_of_sight(pose, model, object_pose), model.joints(pose)[:, _FINGERTIPS]
    offsets = torch.arange(-round(REACH / _STEP), round(REACH / _STEP) + 1) * _STEP
    offsets = offsets[offsets.abs().argsort(stable=True)]  # of places as good the nearest
    tried = tips[:, None] + (offsets[:, None] * view[:, None])[:, :, None]  # (B, offsets, 5, 3)
    distance, _ = mesh.grid.query(tried.flatten(1, 2))
    best = distance.abs().unflatten(1, tried.shape[1:3]).mean(2).argmin(1)
    return replace(pose, transl=pose.transl + offsets[best, None] * view)


@torch.no_grad()
def fit_to_keypoints(
    pose: HandPose, object_pose: Tensor, cam_K: np.ndarray, keypoints_2d: np.ndarray, model: HandModel
) -> HandPose:
    """The hands that agree best with their keypoints and with the error of an image estimator about ``pose``.

    Arguments as `slide_to_touch`; ``cam_K (3, 3)`` or ``(B, 3, 3)`` and ``keypoints_2d (B, 21, 2)`` in pixels.
    """
    stated = Stated(input_error="camera", camera=cam_K, keypoints_2d=keypoints_2d)
    return minimize(HandState.of(pose, model), stated.evidence(pose, object_pose, model)).state.pose
