"""Rows of a prediction file that are frames of a motion: which belong together, and as `refine_sequence` takes them."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import torch

from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose
from hand_models.rotations import exp_so3, log_so3

from ..config import RefineConfig
from ..evidence.stated import Stated
from ..files.prediction_poses import hand_poses, into_object_frame, object_poses
from ..files.predictions import Predictions, has_joints, has_pose, point_forms
from ..motion.sequence import SequenceResult, refine_sequence

_FEWEST = 3  # frames of a motion
_LONGEST_GAP = 10
"""Times the usual step of frame_index, beyond which what follows is a motion of its own."""
_FARTHEST = (0.25, 1.2)
"""Metres and radians in the object's frame, median from one frame to the next: hands that are farther apart are of
pictures that have nothing to do with one another, such as of a folder that passed for a recording."""


def motions(predictions: Predictions, problems: Container[int]) -> list[np.ndarray]:
    """Rows of each motion in the order of its frames: those of one `sequence_id`, object and side.

    Rows without a usable hand are frames that are missing, and take part; those whose object's pose is not known do
    not. Rows whose depth is not metric, or that come as 29 points, are single frames: the object places them.

    Args:
        problems: rows that cannot be refined by themselves.
    """
    p = predictions
    takes_part = (p.sequence_id != "") & np.isin(p.side, ("right", "left")) & p.metric_depth & (point_forms(p) == "")
    if p.object_pose is not None:
        takes_part &= np.isfinite(p.object_pose).all((1, 2))
    groups: dict[tuple[str, str, str], list[int]] = {}
    for row in np.flatnonzero(takes_part).tolist():
        key = (str(p.sequence_id[row]), str(p.object_id[row]), str(p.side[row]))
        groups.setdefault(key, []).append(row)
    found = []
    for rows in groups.values():
        whole = np.array(rows)[np.argsort(p.frame_index[rows], kind="stable")]
        step = np.diff(p.frame_index[whole])
        usual = max(1.0, float(np.median(step))) if len(step) else 1.0
        for ordered in np.split(whole, np.flatnonzero(step > _LONGEST_GAP * usual) + 1):
            usable = [row not in problems for row in ordered.tolist()]
            if sum(usable) >= _FEWEST:
                first, last = np.flatnonzero(usable)[[0, -1]]  # nothing is known before the first hand, nor after
                found.append(ordered[first : last + 1])
    return found


def _check_motion(pose: HandPose, placed: torch.Tensor | None, model: HandModel) -> None:
    """``ValueError`` where hands, NaN where missing, are not frames of one motion."""
    there = pose.finite().nonzero()[:, 0]
    inside = into_object_frame(pose[there], None if placed is None else placed[there], model)
    rotation = exp_so3(inside.global_orient)
    moved = (inside.transl + model.root(inside)).diff(dim=0).norm(dim=1).median()
    turned = log_so3(rotation[1:] @ rotation[:-1].mT).norm(dim=1).median()
    if moved > _FARTHEST[0] or turned > _FARTHEST[1]:
        raise ValueError(
            f"its hands are {100 * moved:.0f} cm and {torch.rad2deg(turned):.0f}° apart from one frame to the next, as "
            "frames of one motion are not; with --no-sequences all rows are taken by themselves."
        )


def refine_motion(
    frames: Predictions, mesh: ObjectMesh, model: HandModel, config: RefineConfig, fps: float = 30.0
) -> SequenceResult:
    """The rows ``frames`` of one motion, in their order. Raises ``ValueError`` as `refine_sequence`."""
    side, known = str(frames.side[0]), has_pose(frames) | has_joints(frames)
    if frames.confidence is not None:
        known &= frames.confidence != 0
    nothing = HandPose.zeros(len(frames), side=side).map(lambda t: torch.full_like(t, torch.nan))
    rows = np.flatnonzero(known)
    given = nothing.fill(torch.from_numpy(rows), hand_poses(frames, rows, model)) if len(rows) else nothing
    stated = Stated.of_rows(frames, given, model, mesh.points)
    placed = object_poses(frames, slice(None))
    _check_motion(given, placed, model)
    names = [] if frames.input_error is None else [name for name in frames.input_error.tolist() if name]
    if len(set(names)) > 1:
        raise ValueError(f"input_error: {sorted(set(names))} in one motion; it has one.")
    result = refine_sequence(
        given,
        mesh,
        placed,
        fps=fps,
        camera=stated.camera,
        keypoints_2d=stated.keypoints_2d,
        confidence=stated.confidence,
        keypoint_sigma=stated.keypoint_sigma,
        depth_points=stated.depth_points,
        input_error=names[0] if names else None,
        holding=stated.holding,
        config=config,
        hand_model=model,
    )
    assert isinstance(result, SequenceResult)
    return result
