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
from hand_models.solver.least_squares import minimize
from hand_models.solver.states import HandState
from refine.evidence.stated import Stated
from refine.measure.contact import CONTACT_DISTANCE

REACH = 0.15
"""Metres that a hand slides at most, either way."""
_STEP = 0.001  # no part of the hand comes nearer by more in a step, so that no touching place is stepped over


@torch.no_grad()
def slide_to_touch(pose: HandPose, object_pose: Tensor, mesh: ObjectMesh, model: HandModel) -> HandPose:
    """Hands moved along their lines of sight to the nearest place where they touch the object.

    A hand touches where its skin comes within 2 mm of the surface and no part is deeper inside than that. One that
    touches nowhere within reach stays where it is.

    Args:
        pose: ``B`` hands in the object's frame.
        object_pose: ``(B, 4, 4)`` object to camera.
    """
    view, skin = line_of_sight(pose, model, object_pose), model(pose).vertices
    offsets = torch.arange(-round(REACH / _STEP), round(REACH / _STEP) + 1) * _STEP
    offsets = offsets[offsets.abs().argsort(stable=True)]  # the nearest first
    shift = torch.zeros(len(pose), 1)
    for row, (hand, line) in enumerate(zip(skin, view, strict=True)):
        distance, _ = mesh.grid.query(hand + (offsets[:, None] * line)[:, None])
        touches = distance.amin(1).abs() <= CONTACT_DISTANCE
        if touches.any():
            shift[row] = offsets[touches.byte().argmax()]
    return replace(pose, transl=pose.transl + shift * view)


@torch.no_grad()
def fit_to_keypoints(
    pose: HandPose, object_pose: Tensor, cam_K: np.ndarray, keypoints_2d: np.ndarray, model: HandModel
) -> HandPose:
    """The hands that agree best with their keypoints and with the error of an image estimator about ``pose``.

    Arguments as `slide_to_touch`; ``cam_K (3, 3)`` or ``(B, 3, 3)`` and ``keypoints_2d (B, 21, 2)`` in pixels.
    """
    stated = Stated(input_error="camera", camera=cam_K, keypoints_2d=keypoints_2d)
    return minimize(HandState.of(pose, model), stated.evidence(pose, object_pose, model)).state.pose
