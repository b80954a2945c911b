"""Predictions measured against reference grasps, row by row, and the means that `regrasp eval` prints."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hand_models import HandModel, HandPose

from ..files.object_files import ObjectEntry, load_object
from ..files.prediction_poses import hand_poses, into_object_frame, object_poses
from ..files.predictions import Predictions, has_joints, has_pose, point_forms, row_problems
from ..files.status import Status
from . import metrics

if TYPE_CHECKING:
    from contact.objects import ObjectMesh

_log = logging.getLogger(__name__)
_CHUNK = 64
_PCK_MM = (20, 50)
_IN_STD = "joint_error_in_std"
_BEFORE_AFTER = {"penetration_mm": -1, "volume_cm3": -1, "score": 1}
"""Result columns that say how a row was before refinement, and the sign of a change for the better."""


def evaluate_predictions(
    predictions: Predictions, reference: Predictions, objects: Mapping[str, ObjectEntry], model: HandModel
) -> dict[str, float]:
    """Means over the rows of everything `measure_rows` measures, and what results say about themselves.

    Intersection volume stands beside the contact ratio, and both beside the reference's own: people's grasps
    overlap with their objects too, and a hand that touches nothing has no volume.

    Args:
        predictions: estimates, or results of `regrasp refine`.
        reference: true grasps; row ``i`` is the same hand as row ``i`` of ``predictions``.
        objects: object id to mesh, from `refine.files.object_files.find_objects`.
        model: hand model of the poses.

    Returns:
        Name to value; the unit is in the name, ratios and fractions lie in [0, 1]. ``<name>_median`` stands
        beside the mean of joint errors; ``joint_error_in_std`` is a root mean square. What was not measured in
        any row is left out. Rows that could not be refined count with the hand they came with.

        - ``rows_measured``, ``rows_unusable``: rows with finite hands on both sides, and the others.
        - joint errors, penetration, volume, contact ratio: see `measure_rows`.
        - from result columns, where there are any: ``fraction_refined``, ``_nudged``, ``_kept``, ``_failed``; of
          the rows that did not fail, ``penetration_mm_before`` and ``volume_cm3_before`` beside
          ``contact_ratio_before``, and ``fraction_improved_<measure>``, the share of rows whose penetration,
          volume or score became better.

    Raises:
        ValueError: the files have different numbers of rows, or no row can be measured.
        FileNotFoundError: a mesh is missing; the message names the object.
    """
    rows = measure_rows(predictions, reference, objects, model)
    measured = np.isfinite(rows["mpjpe_root_relative_mm"])
    if not measured.any():
        raise ValueError(
            "predictions: no row has a usable hand here and in the reference; see the rows' values."
        )
    figures: dict[str, float] = {
        "rows_measured": int(measured.sum()), "rows_unusable": int(len(measured) - measured.sum()),
    }  # fmt: skip
    for name, values in rows.items():
        known = values[np.isfinite(values)]
        if len(known):
            squared = name == _IN_STD
            figures[name] = float(np.sqrt((known**2).mean()) if squared else known.mean())
            if name.startswith("mpjpe"):
                figures[f"{name}_median"] = float(np.median(known))
    return figures | _about_themselves(predictions, rows)


def measure_rows(
    predictions: Predictions, reference: Predictions, objects: Mapping[str, ObjectEntry], model: HandModel
) -> dict[str, np.ndarray]:
    """Errors and physical measures of every row, ``(N,)`` each; NaN where a row cannot be measured.

    Joints are those of the pose columns, or `keypoints_3d` where a row has no pose. Errors are taken in the
    camera's frame where both files give `object_pose`, in the object's frame otherwise; where they do, the
    predicted object counts in the camera's frame, and in its own frame for what concerns contact.

    Arguments and errors: `evaluate_predictions`.

    Returns:
        - ``mpjpe_mm``, ``mpjpe_root_relative_mm``, ``mpjpe_procrustes_mm``: mean joint error as it is, with
          the wrists, and with the whole hands laid on each other; ``mpvpe_mm``: of the skin's vertices, where
          both rows have a pose; ``pck_20mm``, ``pck_50mm``: share of joints within; ``auc_50mm``.
        - ``mpjpe_keypoints_mm``: to the reference's `keypoints_3d` where it has them beside a pose.
        - ``joint_error_in_std``: root mean square joint error in the standard deviations that the column
          `uncertainty` predicts; about 1 when they are honest.
        - ``mpcpe_mm``: corners of the object's box, where both files give `object_pose`.
        - ``penetration_mm``, ``volume_cm3``, ``contact_ratio``, and the same of the reference,
          ``reference_…``.
    """
    count = len(predictions)
    if len(reference) != count:
        raise ValueError(f"reference: {len(reference)} rows for {count} predictions; match the rows first.")
    other = (predictions.object_id != reference.object_id) | (predictions.side != reference.side)
    if other.any():
        row = int(other.argmax())
        raise ValueError(
            f"reference: row {row} is of another object or side than the prediction; match the rows first."
        )
    _check_meshes(predictions, objects)
    unplaced = np.flatnonzero((point_forms(predictions) != "") | (point_forms(reference) != "")).tolist()
    bad = sorted({*row_problems(predictions), *row_problems(reference), *unplaced})
    if bad:
        _log.warning("%d of %d rows cannot be measured; the first is row %d", len(bad), count, bad[0])
    result: dict[str, np.ndarray] = {}
    for object_id, rows in _groups(predictions, reference, set(bad)):
        mesh = load_object(objects[object_id])
        for name, values in _measure(predictions, reference, rows, mesh, model).items():
            result.setdefault(name, np.full(count, np.nan))[rows] = values
    return result if result else {"mpjpe_root_relative_mm": np.full(count, np.nan)}


def _check_meshes(predictions: Predictions, objects: Mapping[str, ObjectEntry]) -> None:
    for object_id in np.unique(predictions.object_id).tolist():
        if object_id and object_id not in objects:
            raise FileNotFoundError(
                f"objects: no mesh for object {object_id!r}; the objects are {', '.join(objects)}."
            )


def _groups(
    predictions: Predictions, reference: Predictions, skip: set[int]
) -> Iterator[tuple[str, np.ndarray]]:
    """Rows of one object, one side and one kind of reference, a chunk at a time."""
    groups: dict[tuple[str, str, bool, bool], list[int]] = {}
    posed, true_posed = has_pose(predictions), has_pose(reference)
    for row in range(len(predictions)):
        if row not in skip:
            key = (
                str(predictions.object_id[row]),
                str(predictions.side[row]),
                bool(posed[row]),
                bool(true_posed[row]),
            )
            groups.setdefault(key, []).append(row)
    for (object_id, *_), rows in groups.items():
        for start in range(0, len(rows), _CHUNK):
            yield object_id, np.array(rows[start : start + _CHUNK])


@dataclass(frozen=True)
class _Hands:
    """Hands of some rows of one side, object frame."""

    pose: HandPose
    vertices: np.ndarray
    """(B, V, 3)"""
    joints: np.ndarray
    """(B, 21, 3)"""
    keypoints: np.ndarray | None
    """(B, 21, 3) `keypoints_3d` of the rows, where they have a pose beside them"""
    object_pose: np.ndarray | None
    """(B, 4, 4)"""

    @staticmethod
    def of(p: Predictions, rows: np.ndarray, model: HandModel) -> _Hands:
        camera = object_poses(p, rows)
        pose = into_object_frame(hand_poses(p, rows, model), camera, model)
        hand = model(pose)
        given = None if camera is None else camera.double().numpy()
        keypoints = None
        joints = hand.joints.double().numpy()
        if p.keypoints_3d is not None:
            points = p.keypoints_3d[rows, :21].astype(np.float64)
            points[~has_joints(p)[rows]] = np.nan
            if given is not None:
                points = (points - given[:, None, :3, 3]) @ given[:, :3, :3]
            if has_pose(p)[rows].all():
                keypoints = points
            else:  # the pose was fitted to them: they say it better
                joints = points
        return _Hands(pose, hand.vertices.double().numpy(), joints, keypoints, given)


def _measure(
    predictions: Predictions, reference: Predictions, rows: np.ndarray, mesh: ObjectMesh, model: HandModel
) -> dict[str, np.ndarray]:
    """All measures of ``rows``, of one object and one side."""
    here, true = _Hands.of(predictions, rows, model), _Hands.of(reference, rows, model)
    side = predictions.side[rows[0]]

    def place(points: np.ndarray, hands: _Hands) -> np.ndarray:
        """To the frame that errors are taken in."""
        if here.object_pose is None or true.object_pose is None:
            return points
        pose = hands.object_pose
        assert pose is not None
        return points @ pose[:, :3, :3].transpose(0, 2, 1) + pose[:, None, :3, 3]

    found, wanted = place(here.joints, here), place(true.joints, true)
    values = {
        "mpjpe_mm": 1e3 * metrics.mpjpe(found, wanted),
        "mpjpe_root_relative_mm": 1e3 * metrics.mpjpe_root_relative(found, wanted),
        "mpjpe_procrustes_mm": 1e3 * metrics.mpjpe_procrustes(found, wanted),
        "auc_50mm": metrics.auc(found, wanted),
        **{f"pck_{mm}mm": metrics.pck(found, wanted, mm / 1e3) for mm in _PCK_MM},
    }
    if has_pose(predictions)[rows].all() and has_pose(reference)[rows].all():
        values["mpvpe_mm"] = 1e3 * metrics.mpvpe(place(here.vertices, here), place(true.vertices, true))
    if predictions.uncertainty is not None:
        squared = ((here.joints - true.joints) ** 2).sum(-1) / (3 * predictions.uncertainty[rows] ** 2)
        values[_IN_STD] = np.sqrt(squared.mean(1))
    if true.keypoints is not None:
        values["mpjpe_keypoints_mm"] = 1e3 * metrics.mpjpe(found, place(true.keypoints, true))
    if here.object_pose is not None and true.object_pose is not None:
        corners = (metrics.box_corners(mesh.vertices, pose) for pose in (here.object_pose, true.object_pose))
        values["mpcpe_mm"] = 1e3 * metrics.mpcpe(*corners)
    faces = model.faces_for(str(side))
    for prefix, hands in (("", here), ("reference_", true)):
        vertices = torch.from_numpy(hands.vertices).float()
        values |= {
            f"{prefix}penetration_mm": 1e3 * metrics.penetration_depth(vertices, mesh),
            f"{prefix}volume_cm3": 1e6 * metrics.intersection_volume(vertices, faces, mesh),
            f"{prefix}contact_ratio": metrics.contact_ratio(vertices, mesh),
        }
    return values


def _about_themselves(p: Predictions, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Figures from the columns that `regrasp refine` adds, where they are there."""
    figures: dict[str, float] = {}
    done = np.ones(len(p), bool)
    if p.status is not None:
        done = p.status != "failed"
        figures |= {f"fraction_{s.value}": float((p.status == s.value).mean()) for s in Status}

    def both(name: str) -> tuple[np.ndarray, np.ndarray]:
        before, after = (getattr(p, f"{name}_{when}") for when in ("before", "after"))
        if before is None or after is None:
            return np.zeros(0), np.zeros(0)
        known = done & np.isfinite(before) & np.isfinite(after)
        return before[known].astype(np.float64), after[known].astype(np.float64)

    for name in ("penetration_mm", "volume_cm3", "contact_ratio"):
        before, _ = both(name)
        if len(before):
            figures[f"{name}_before"] = float(before.mean())
    for name, sign in _BEFORE_AFTER.items():
        before, after = both(name)
        if len(before):
            figures[f"fraction_improved_{name}"] = metrics.fraction_improved(-sign * before, -sign * after)
    return figures
