"""What `refine_sequence` and `SequenceStream` are given of one hand, as the problem that is solved for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from contact.input_error import InputError, line_of_sight
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from hand_models import HandModel, HandPose

from ..config import RefineConfig
from ..evidence.gaps import filled_in, missing_frames
from ..evidence.input_error import EXACT
from ..evidence.inputs import as_hand_pose
from ..evidence.motion_inputs import error_of_motion, part_poses, smooth_parts, with_one_shape
from ..evidence.pose_prior import PosePrior
from ..evidence.stated import Stated
from ..files.prediction_poses import into_object_frame
from ..request import Request
from ..solve.motion import Around, MotionInput, MotionSolved
from ..solve.windows import solve_in_windows

SHORTEST = 3
"""Frames of a motion."""


@dataclass(frozen=True)
class MotionScene:
    """What stays the same from frame to frame."""

    objects: Any
    """a mesh as in `refine_grasp`, or a list of the parts of an articulated object"""
    stated: Stated
    """what is known of the hands; what is of single frames has a row for each"""
    object_error: tuple[float, float] | None
    """standard deviations of the object's poses, metres and radians; None where they are taken as they are"""
    fps: float
    side: str | None
    scale: float | None
    model: HandModel


@dataclass(frozen=True)
class MotionRequest:
    """``T`` frames of one hand, ready to be solved for."""

    given: HandPose
    gone: Tensor
    """(T,) bool: frames that are missing, or garbage"""
    request: Request
    """of all frames at the part that is held"""
    objects: tuple[ObjectMesh, ...]
    placed: Tensor
    """(T, P, 4, 4) parts to the frame of the hands"""
    part: int
    """which of them is held"""
    motion: MotionInput

    @staticmethod
    def make(hand_poses: Any, object_poses: Any, scene: MotionScene) -> MotionRequest:
        """Raises ``ValueError`` and ``FileNotFoundError`` as `refine_sequence` does."""
        model, stated = scene.model, scene.stated
        given = as_hand_pose(hand_poses, model, scene.side)
        length = len(given)
        if length < SHORTEST:
            raise ValueError(
                f"hand_poses: {length} frames; a motion has {SHORTEST} or more (refine_grasp takes single hands)."
            )
        gone = missing_frames(given, model)
        meshes = list(scene.objects) if isinstance(scene.objects, list) else [scene.objects]
        placed = part_poses(object_poses, length, len(meshes))
        if scene.object_error is not None:
            placed = smooth_parts(placed, scene.object_error, scene.fps / 30)
        in_frame = None if object_poses is None else placed
        before = filled_in(given, gone)  # ends and jumps in the frame of the hands: seen from there, none is far
        error = error_of_motion(stated.input_error, before[~gone], object_poses is not None)
        if not isinstance(error, InputError) or error != EXACT:
            before = with_one_shape(before, ~gone, model)
        requests = [
            Request.make(
                before, mesh, None if in_frame is None else in_frame[:, k], model=model,
                stated=replace(stated, input_error=None), scale=scene.scale,
            )
            for k, mesh in enumerate(meshes)
        ]  # fmt: skip
        part = _nearest(requests, model)
        motion = _motion(requests, part, placed, ~gone, error, scene)
        return MotionRequest(given, gone, requests[part], tuple(r.object for r in requests), placed, part, motion)

    def solve(self, config: RefineConfig, settled: HandPose | None = None) -> MotionSolved:
        """``settled`` are the first frames as they have been given out, in the frame of the hands."""
        if settled is not None:
            settled = into_object_frame(settled, self.placed[: len(settled), self.part], self.request.model)
            settled = settled.mirrored() if self.request.mirrored else settled
        return solve_in_windows(self.motion, self.request.scene(), self.request.right_model(), config, settled)


def _motion(
    requests: Sequence[Request], part: int, placed: Tensor, known: Tensor, error: InputError | Tensor,
    scene: MotionScene,
) -> MotionInput:  # fmt: skip
    request, right = requests[part], requests[part].right_model()
    rotation, shift = placed[:, part, :3, :3], placed[:, part, :3, 3]
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0]) if request.mirrored else torch.ones(3))
    pose = request.pose.mirrored() if request.mirrored else request.pose
    return MotionInput(
        pose,
        known,
        error,
        flip @ rotation @ flip,
        shift @ flip,
        line_of_sight(pose, right, placed[:, part] @ torch.block_diag(flip, torch.eye(1))),
        scene.fps / 30,
        tuple(e.mirrored() if request.mirrored else e for e in request.evidence if not isinstance(e, PosePrior)),
        request.holding,
        tuple(
            Around(
                flip @ placed[:, k, :3, :3].mT @ rotation @ flip,
                ((shift - placed[:, k, :3, 3])[:, None] @ placed[:, k, :3, :3])[:, 0] @ flip,
                ObjectSet.of([requests[k].scene()]),
            )
            for k in range(len(requests))
            if k != part
        ),
    )


def _nearest(requests: Sequence[Request], model: HandModel) -> int:
    """The part whose surface the hand is nearest to, by the tenth of the frames in which it is nearest."""
    if len(requests) == 1:
        return 0
    near = [torch.cdist(model.joints(r.pose), r.object.points[None]).amin((1, 2)).quantile(0.1) for r in requests]
    return int(torch.stack(near).argmin())
