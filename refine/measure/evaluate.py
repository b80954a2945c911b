"""Predictions measured against reference grasps, row by row, and the means that `regrasp eval` prints."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from contact.objects import ObjectMesh
from contact.objects.box import box_corners
from hand_models import HandModel

from ..files.object_files import ObjectEntry, load_object, no_mesh
from ..files.prediction_poses import hand_poses
from ..files.predictions import Predictions, has_joints, has_pose, point_forms, row_problems
from ..files.status import Status
from .arguments import Array, alike, as_numpy
from .metrics import METRICS, Comparison, Hands, Metric

_log = logging.getLogger(__name__)
_CHUNK = 64
_BETTER = {
    "penetration_mm": -1,
    "crossing_mm": -1,
    "volume_cm3": -1,
    "contact_ratio": 0,
    "score": 1,
    "reprojection_px": -1,
}
"""Measures before and after refinement in result columns, and which way is better (0: not said of one row)."""


def evaluate_predictions(
    predictions: Predictions, reference: Predictions, objects: Mapping[str, ObjectEntry], model: HandModel
) -> dict[str, float]:
    """Means over the rows of everything in `METRICS`, and what results say about themselves.

    Args:
        predictions: estimates, or results of `regrasp refine`; rows that failed count with the hand they came with.
        reference: true grasps; row ``i`` is the same hand as row ``i`` of ``predictions``.
        objects: object id to mesh, from `refine.files.object_files.find_objects`.
        model: hand model of the poses.

    Returns:
        Name to value; the unit is in the name, ratios and fractions lie in [0, 1]. ``<name>_median`` stands
        beside the mean of joint errors. What was not measured in any row is left out.

        - ``rows_measured``, ``rows_unusable``: rows with finite hands on both sides, and the others.
        - from result columns, where there are any: ``fraction_<status>``; of the rows that did not fail,
          ``<measure>_before`` for penetration, volume, contact and reprojection, and
          ``fraction_improved_<measure>``, the share of rows whose penetration, volume, reprojection or score
          became better.

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
    predictions: Predictions,
    reference: Predictions,
    objects: Mapping[str, ObjectEntry],
    model: HandModel,
    metrics: Sequence[Metric] = METRICS,
) -> dict[str, np.ndarray]:
    """Every metric of every row, ``(N,)`` each by its column (per joint ``(N, 21)``); NaN where it cannot be measured.

    Joints are those of the pose columns, or `keypoints_3d` where a row has no pose. Errors are taken in the
    camera's frame where both files give `object_pose`, in the object's frame otherwise; where they do, the
    predicted object counts in the camera's frame, and in its own frame for what concerns contact. What the camera
    sees needs `object_pose` of one of the files, and for pixels `cam_K`, the predictions' rather than the
    reference's.

    Other arguments and errors: `evaluate_predictions`.
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
            raise FileNotFoundError(f"objects: {no_mesh(object_id, objects)}")
    unplaced = np.flatnonzero((point_forms(predictions) != "") | (point_forms(reference) != "")).tolist()
    bad = sorted({*row_problems(predictions), *row_problems(reference), *unplaced})
    if bad:
        _log.warning("%d of %d rows cannot be measured; the first is row %d", len(bad), count, bad[0])
    in_camera = predictions.object_pose is not None and reference.object_pose is not None
    result = {"mpjpe_root_relative_mm": np.full(count, np.nan)}
    for rows in _groups(predictions, reference, set(bad)):
        mesh = load_object(objects[str(predictions.object_id[rows[0]])])
        predicted, true = (_hands(p, rows, model, mesh, in_camera) for p in (predictions, reference))
        faces = model.faces_for(str(predictions.side[rows[0]])).numpy()
        std = None if predictions.uncertainty is None else predictions.uncertainty[rows]
        seen = _picture(predictions, reference, rows, in_camera)
        compared = Comparison(mesh, faces, predicted, true, std, *seen)
        for metric in metrics:
            values = metric(compared)
            if values is not None:
                absent = np.full((count, *values.shape[1:]), np.nan)
                result.setdefault(metric.column, absent)[rows] = values
    return result


def fraction_improved(before: Array, after: Array) -> float:
    """Share of grasps whose error (B,) became strictly smaller; grasps with NaN in either count as not."""
    first, second = alike("(B,)", before=before, after=after)
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


def _hands(p: Predictions, rows: np.ndarray, model: HandModel, mesh: ObjectMesh, in_camera: bool) -> Hands:
    """The hands of ``rows``, of one object and one side."""
    pose = None if p.object_pose is None else p.object_pose[rows].astype(np.float64)

    def local(points: np.ndarray) -> np.ndarray:
        return points if pose is None else (points - pose[:, None, :3, 3]) @ pose[:, :3, :3]

    hand = model(hand_poses(p, rows, model))
    joints, skin, keypoints = as_numpy(hand.joints), as_numpy(hand.vertices), None
    posed = bool(has_pose(p)[rows].all())
    if p.keypoints_3d is not None:
        points = np.where(has_joints(p)[rows, None, None], p.keypoints_3d[rows, :21].astype(np.float64), np.nan)
        if posed:
            keypoints = points
        else:  # the pose was fitted to them: they say it better
            joints = points
    local_joints, local_skin = local(joints), local(skin)
    return Hands(
        joints=joints if in_camera else local_joints,
        local_joints=local_joints,
        local_skin=local_skin,
        skin=None if not posed else skin if in_camera else local_skin,
        keypoints=keypoints if keypoints is None or in_camera else local(keypoints),
        corners=box_corners(mesh.vertices, pose) if in_camera else None,
    )


def _picture(
    predictions: Predictions, reference: Predictions, rows: np.ndarray, in_camera: bool
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Of a `Comparison` the eye, the projection and the keypoints, as far as the files say."""
    poses, intrinsics = (_first(name, predictions, reference) for name in ("object_pose", "cam_K"))
    if poses is None:
        return None, None, None
    # From the frame that errors are taken in to the camera's.
    view = np.tile(np.eye(4), (len(rows), 1, 1)) if in_camera else poses[rows].astype(np.float64)
    eye = -(np.swapaxes(view[:, :3, :3], 1, 2) @ view[:, :3, 3:])[..., 0]
    projection = None if intrinsics is None else intrinsics[rows].astype(np.float64) @ view[:, :3]
    if predictions.keypoints_2d is None:
        return eye, projection, None
    pixels = predictions.keypoints_2d[rows, :21].astype(np.float64)
    if predictions.keypoint_confidence is not None:
        pixels[~(predictions.keypoint_confidence[rows, :21] > 0)] = np.nan
    return eye, projection, pixels


def _first(name: str, *files: Predictions) -> np.ndarray | None:
    """The column ``name`` of the first of the files that has it."""
    return next((column for file in files if (column := getattr(file, name)) is not None), None)


def _of_results(p: Predictions) -> dict[str, float]:
    """Figures from the columns that `regrasp refine` adds, where they are there."""
    status = np.full(len(p), "") if p.status is None else p.status
    figures = {} if p.status is None else {f"fraction_{s.value}": float((status == s.value).mean()) for s in Status}
    for name, sign in _BETTER.items():
        before, after = (getattr(p, f"{name}_{when}") for when in ("before", "after"))
        if before is None or after is None:
            continue
        known = (status != "failed") & np.isfinite(before) & np.isfinite(after)
        before, after = before[known].astype(np.float64), after[known].astype(np.float64)
        if len(before) and name != "score":
            figures[f"{name}_before"] = float(before.mean())
        if len(before) and sign:
            figures[f"fraction_improved_{name}"] = fraction_improved(-sign * before, -sign * after)
    return figures
