"""Rows of a prediction file that are frames of a motion: which belong together, and as `refine_sequence` takes them."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import torch

from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose

from ..config import RefineConfig
from ..evidence.stated import Stated
from ..files.prediction_poses import hand_poses, object_poses
from ..files.predictions import Predictions, has_joints, has_pose, point_forms
from ..sequence import SequenceResult, refine_sequence

_FEWEST = 3  # frames of a motion


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
        ordered = np.array(rows)[np.argsort(p.frame_index[rows], kind="stable")]
        usable = [row not in problems for row in ordered.tolist()]
        if sum(usable) >= _FEWEST:
            first, last = np.flatnonzero(usable)[[0, -1]]  # nothing is known before the first hand and after the last
            found.append(ordered[first : last + 1])
    return found


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
    names = [] if frames.input_error is None else [name for name in frames.input_error.tolist() if name]
    if len(set(names)) > 1:
        raise ValueError(f"input_error: {sorted(set(names))} in one motion; it has one.")
    result = refine_sequence(
        given,
        mesh,
        object_poses(frames, slice(None)),
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
