"""Predictions measured against reference grasps, row by row, and the means that `regrasp eval` prints."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from contact.objects import ObjectMesh
from contact.objects.box import box_corners
from hand_models import HandModel

from ..files.object_files import ObjectEntry, load_object
from ..files.prediction_poses import hand_poses, into_object_frame, object_poses
from ..files.predictions import Predictions, has_joints, has_pose, point_forms, row_problems
from ..files.status import Status
from .arguments import Array, as_numpy
from .metrics import METRICS, Comparison

_log = logging.getLogger(__name__)
_CHUNK = 64
_BETTER = {"penetration_mm": -1, "volume_cm3": -1, "contact_ratio": 0, "score": 1}
"""Measures before and after refinement in result columns, and which way is better (0: not said of one row)."""


def evaluate_predictions(
    predictions: Predictions, reference: Predictions, objects: Mapping[str, ObjectEntry], model: HandModel
) -> dict[str, float]:
    """Means over the rows of everything in `METRICS`, and what results say about themselves.

    Intersection volume stands beside the contact ratio, and both beside the reference's own: people's grasps
    overlap with their objects too, and a hand that touches nothing has no volume.

    Args:
        predictions: estimates, or results of `regrasp refine`.
        reference: true grasps; row ``i`` is the same hand as row ``i`` of ``predictions``.
        objects: object id to mesh, from `refine.files.object_files.find_objects`.
        model: hand model of the poses.

    Returns:
        Name to value; the unit is in the name, ratios and fractions lie in [0, 1]. ``<name>_median`` stands
        beside the mean of joint errors. What was not measured in any row is left out. Rows that could not be
        refined count with the hand they came with.

        - ``rows_measured``, ``rows_unusable``: rows with finite hands on both sides, and the others.
        - from result columns, where there are any: ``fraction_<status>``; of the rows that did not fail,
          ``<measure>_before`` for penetration, volume and contact, and ``fraction_improved_<measure>``, the
          share of rows whose penetration, volume or score became better.

    Raises:
        ValueError: the files have different numbers of rows, or no row can be measured.
        FileNotFoundError: a mesh is missing; the message names the object.
    """
    rows = measure_rows(predictions, reference, objects, model)
    measured = np.isfinite(rows["mpjpe_root_relative_mm"])
    if not measured.any():
        raise ValueError("predictions: no row has a usable hand here and in the reference; see the rows' values.")
    figures: dict[str, float] = {
        "rows_measured": int(measured.sum()), "rows_unusable": int(len(measured) - measured.sum()),
    }  # fmt: skip
    for metric in METRICS:
        known = rows.get(metric.column, np.zeros(0))
        known = known[np.isfinite(known)]
        if len(known):
            squares = metric.root_mean_square
            figures[metric.column] = float(np.sqrt((known**2).mean()) if squares else known.mean())
            if metric.median:
                figures[f"{metric.column}_median"] = float(np.median(known))
    return figures | _of_results(predictions)


def measure_rows(
    predictions: Predictions, reference: Predictions, objects: Mapping[str, ObjectEntry], model: HandModel
) -> dict[str, np.ndarray]:
    """Every metric of `METRICS` of every row, ``(N,)`` each by its column; NaN where a row cannot be measured.

    Joints are those of the pose columns, or `keypoints_3d` where a row has no pose. Errors are taken in the
    camera's frame where both files give `object_pose`, in the object's frame otherwise; where they do, the
    predicted object counts in the camera's frame, and in its own frame for what concerns contact.

    Arguments and errors: `evaluate_predictions`.
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
    for object_id in np.unique(predictions.object_id).tolist():
        if object_id and object_id not in objects:
            raise FileNotFoundError(f"objects: no mesh for object {object_id!r}; the objects are {', '.join(objects)}.")
    unplaced = np.flatnonzero((point_forms(predictions) != "") | (point_forms(reference) != "")).tolist()
    bad = sorted({*row_problems(predictions), *row_problems(reference), *unplaced})
    if bad:
        _log.warning("%d of %d rows cannot be measured; the first is row %d", len(bad), count, bad[0])
    result = {"mpjpe_root_relative_mm": np.full(count, np.nan)}
    for rows in _groups(predictions, reference, set(bad)):
        mesh = load_object(objects[str(predictions.object_id[rows[0]])])
        compared = _compare(predictions, reference, rows, mesh, model)
        for metric in METRICS:
            values = metric(compared)
            if values is not None:
                result.setdefault(metric.column, np.full(count, np.nan))[rows] = values
    return result


def fraction_improved(before: Array, after: Array) -> float:
    """Share of grasps whose error (B,) became strictly smaller; grasps with NaN in either count as not."""
    first, second = as_numpy(before), as_numpy(after)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"before and after must both be (B,), got {first.shape} and {second.shape}")
    return float((second < first).mean()) if len(first) else float("nan")


def _groups(predictions: Predictions, reference: Predictions, skip: set[int]) -> Iterator[np.ndarray]:
    """Rows of one object, one side and one kind of reference, a chunk at a time."""
    groups: dict[tuple[object, ...], list[int]] = {}
    keys = (predictions.object_id, predictions.side, has_pose(predictions), has_pose(reference))
    for row, key in enumerate(zip(*(column.tolist() for column in keys), strict=True)):
        if row not in skip:
            groups.setdefault(key, []).append(row)
    for rows in groups.values():
        for start in range(0, len(rows), _CHUNK):
            yield np.array(rows[start : start + _CHUNK])


@dataclass(frozen=True)
class _Hands:
    """Hands of some rows of one side, object frame."""

    skin: np.ndarray
    """(B, V, 3)"""
    joints: np.ndarray
    """(B, 21, 3)"""
    keypoints: np.ndarray | None
    """(B, 21, 3) `keypoints_3d` of the rows, where they have a pose beside them"""
    object_pose: np.ndarray | None
    """(B, 4, 4)"""
    posed: bool

    @staticmethod
    def of(p: Predictions, rows: np.ndarray, model: HandModel) -> _Hands:
        camera = object_poses(p, rows)
        hand = model(into_object_frame(hand_poses(p, rows, model), camera, model))
        object_pose = None if camera is None else as_numpy(camera)
        joints, posed, keypoints = as_numpy(hand.joints), bool(has_pose(p)[rows].all()), None
        if p.keypoints_3d is not None:
            points = p.keypoints_3d[rows, :21].astype(np.float64)
            points[~has_joints(p)[rows]] = np.nan
            if object_pose is not None:
                points = (points - object_pose[:, None, :3, 3]) @ object_pose[:, :3, :3]
            if posed:
                keypoints = points
            else:  # the pose was fitted to them: they say it better
                joints = points
        return _Hands(as_numpy(hand.vertices), joints, keypoints, object_pose, posed)


def _compare(
    predictions: Predictions, reference: Predictions, rows: np.ndarray, mesh: ObjectMesh, model: HandModel
) -> Comparison:
    """What is known of ``rows``, of one object and one side."""
    here, true = _Hands.of(predictions, rows, model), _Hands.of(reference, rows, model)
    in_camera = here.object_pose is not None and true.object_pose is not None

    def place(points: np.ndarray, hands: _Hands) -> np.ndarray:
        """To the frame that errors are taken in."""
        if not in_camera or (pose := hands.object_pose) is None:
            return points
        return points @ pose[:, :3, :3].transpose(0, 2, 1) + pose[:, None, :3, 3]

    posed = here.posed and true.posed
    return Comparison(
        object=mesh,
        faces=model.faces_for(str(predictions.side[rows[0]])).numpy(),
        joints=place(here.joints, here),
        true_joints=place(true.joints, true),
        local_joints=here.joints,
        true_local_joints=true.joints,
        local_skin=here.skin,
        true_local_skin=true.skin,
        skin=place(here.skin, here) if posed else None,
        true_skin=place(true.skin, true) if posed else None,
        true_keypoints=None if true.keypoints is None else place(true.keypoints, true),
        corners=box_corners(mesh.vertices, here.object_pose) if in_camera else None,
        true_corners=box_corners(mesh.vertices, true.object_pose) if in_camera else None,
        joint_std=None if predictions.uncertainty is None else predictions.uncertainty[rows],
    )


def _of_results(p: Predictions) -> dict[str, float]:
    """Figures from the columns that `regrasp refine` adds, where they are there."""
    figures: dict[str, float] = {}
    done = np.ones(len(p), bool)
    if p.status is not None:
        done = p.status != "failed"
        figures |= {f"fraction_{s.value}": float((p.status == s.value).mean()) for s in Status}

    for name, sign in _BETTER.items():
        before, after = (getattr(p, f"{name}_{when}") for when in ("before", "after"))
        if before is None or after is None:
            continue
        known = done & np.isfinite(before) & np.isfinite(after)
        before, after = before[known].astype(np.float64), after[known].astype(np.float64)
        if len(before) and name != "score":
            figures[f"{name}_before"] = float(before.mean())
        if len(before) and sign:
            figures[f"fraction_improved_{name}"] = fraction_improved(-sign * before, -sign * after)
    return figures
