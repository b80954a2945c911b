"""Files with motions: the measures of `refine.measure.motion`, over all motions of a file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hand_models import HandModel

from ..files.object_files import ObjectEntry, load_object
from ..files.prediction_poses import hand_poses
from ..files.predictions import Predictions, has_pose, row_problems
from .motion import acceleration_error, contact_deviation, contact_over_time, jitter, motion_deviation

_FEWEST = 3


def evaluate_sequences(
    predictions: Predictions, reference: Predictions, objects: Mapping[str, ObjectEntry], model: HandModel
) -> dict[str, float]:
    """Means over the motions of a file: rows of one `sequence_id`, object and side, in the order of their frames.

    Accelerations are in metres a frame², in the camera's frame where both files have one. Frames that cannot be
    measured are left out, and what is left of a motion counts as if there were none between; motions of less than
    three frames, and rows of no motion, do not count.

    Args:
        reference: the true rows, one for each of ``predictions``.

    Returns:
        Empty where there are no motions; lengths in millimetres.
    """
    bad = {*row_problems(predictions), *row_problems(reference)}
    usable = has_pose(predictions) & has_pose(reference) & (predictions.sequence_id != "")
    groups: dict[tuple[str, str, str], list[int]] = {}
    for row in np.flatnonzero(usable).tolist():
        if row not in bad:
            key = (predictions.sequence_id[row], predictions.object_id[row], predictions.side[row])
            groups.setdefault(tuple(map(str, key)), []).append(row)  # type: ignore[arg-type]
    measured: list[dict[str, float]] = []
    in_camera = predictions.object_pose is not None and reference.object_pose is not None
    for (_, object_id, side), rows in groups.items():
        if len(rows) < _FEWEST or object_id not in objects:
            continue
        ordered = np.array(rows)[np.argsort(predictions.frame_index[rows], kind="stable")]
        mesh = load_object(objects[object_id], side)
        hands = [model(hand_poses(p, ordered, model)) for p in (predictions, reference)]
        joints = [hand.joints.numpy().astype(np.float64) for hand in hands]
        local = [
            _inside(hand.vertices.numpy().astype(np.float64), p, ordered)[None]
            for hand, p in zip(hands, (predictions, reference), strict=True)
        ]
        if not in_camera:
            joints = [_inside(j, p, ordered) for j, p in zip(joints, (predictions, reference), strict=True)]
        found, true = (j[None] for j in joints)
        measured.append(
            {
                "acceleration_error_mm_per_frame2": 1e3 * float(acceleration_error(found, true)[0]),
                "jitter_mm_per_frame2": 1e3 * float(jitter(found)[0]),
                "cdev_mm": 1e3 * float(contact_deviation(*local, mesh)[0]),
                "mdev_mm_per_frame": 1e3 * float(motion_deviation(*local, mesh)[0]),
                "contact_over_time_f1": float(contact_over_time(*local, mesh)[0]),
            }
        )
    if not measured:
        return {}
    columns = {name: np.array([m[name] for m in measured]) for name in measured[0]}
    known = {name: values[np.isfinite(values)] for name, values in columns.items()}
    return {"motions": len(measured)} | {name: float(v.mean()) for name, v in known.items() if len(v)}


def _inside(points: np.ndarray, p: Predictions, rows: np.ndarray) -> np.ndarray:
    """(T, n, 3) points of the file's frame in the object's."""
    if p.object_pose is None:
        return points
    pose = p.object_pose[rows].astype(np.float64)
    return (points - pose[:, None, :3, 3]) @ pose[:, :3, :3]
