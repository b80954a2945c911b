"""The prediction file `grasp/1`: one row is one hand in one frame.

`.npz` (without pickle) is the everyday form, `.json` the one to write by hand, `.parquet` (with pyarrow) the
one for bulk. All three hold the same columns, listed in `COLUMNS` and in docs/formats.md.

Two kinds of fault are kept apart. A file whose columns do not fit together (a wrong shape, an unknown column)
cannot be read: `ValueError`. A row whose values make no sense (NaN, millimetres, an unknown side) is reported
by `row_problems` and leaves the other rows usable; `validate` raises for the first such row.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

SCHEMA = "grasp/1"
_POSE = ("global_orient", "hand_pose", "transl")
_MAX_DISTANCE = 20.0  # metres; a hand further from its camera than this is taken for a unit mistake
_HAND_EXTENT = (0.03, 0.5)  # metres; diagonal of the box around 21 joints, fist to outstretched


@dataclass(frozen=True)
class Column:
    """What one column holds: shape of one row (alternatives allowed), kind of number, meaning."""

    shapes: tuple[tuple[int, ...], ...]
    kind: str
    """"float" (float32), "int" (int64), "bool" or "str"."""
    meaning: str
    is_result: bool = False
    """Written by `regrasp refine`, not expected from an estimator."""


_BEFORE_AFTER = {
    "score": "plausibility by the model's own calibrated score, higher is better",
    "penetration_mm": "deepest penetration, millimetres",
    "volume_cm3": "intersection volume, cubic centimetres",
    "contact_ratio": "1 when the hand touches the object",
}

COLUMNS: dict[str, Column] = {
    "object_id": Column(((),), "str", "which object; names a mesh in the objects folder"),
    "side": Column(((),), "str", "'right' or 'left'"),
    "hand_model": Column(((),), "str", "whose betas these are: 'mano' or 'open'; 'mano' when absent"),
    "frame_id": Column(((),), "str", "name of the frame; the row number when absent"),
    "sequence_id": Column(((),), "str", "name of the recording; empty when absent"),
    "frame_index": Column(((),), "int", "place in the recording; the row number when absent"),
    "global_orient": Column(((3,),), "float", "rotation of the wrist, axis-angle, radians"),
    "hand_pose": Column(((15, 3),), "float", "joint rotations, axis-angle, absolute, MANO order"),
    "betas": Column(((10,),), "float", "shape coefficients; zeros when absent"),
    "transl": Column(((3,),), "float", "metres, added after posing about the root joint"),
    "object_pose": Column(((4, 4),), "float", "object to camera; absent: the hand is in the object frame"),
    "cam_K": Column(((3, 3),), "float", "camera intrinsics, pixels"),
    "image_size": Column(((2,),), "int", "width, height in pixels"),
    "metric_depth": Column(((),), "bool", "whether the distance from the camera is metric; true when absent"),
    "confidence": Column(((),), "float", "of the estimator, 0 to 1"),
    "keypoints_2d": Column(((21, 2), (29, 2)), "float", "pixels, OpenPose order (29: and 8 box corners)"),
    "keypoints_3d": Column(((21, 3), (29, 3)), "float", "metres, same frame and order; may stand for the pose"),
    "keypoint_confidence": Column(((21,), (29,)), "float", "of each keypoint, 0 to 1, 0 where missing; 1 when absent"),
    "corner_order": Column(((),), "str", "whether to believe the 'given' order of the 8 corners or to 'search' for it"),
    "status": Column(
        ((),),
        "str",
        "'refined', 'nudged' (moved a little), 'kept' (returned as it came) or 'failed'",
        is_result=True,
    ),
    "reason": Column(((),), "str", "why a row failed", is_result=True),
    "steps": Column(((),), "int", "optimiser steps taken", is_result=True),
    **{
        f"{name}_{when}": Column(((),), "float", meaning, is_result=True)
        for name, meaning in _BEFORE_AFTER.items()
        for when in ("before", "after")
    },
    "uncertainty": Column(((21,),), "float", "one standard deviation of each joint, metres", is_result=True),
}
_DTYPES = {"float": np.float32, "int": np.int64, "bool": np.bool_, "str": np.str_}


@dataclass(frozen=True, eq=False)
class Predictions:
    """`grasp/1` in memory: numpy columns of ``N`` rows each, None where a column is absent.

    Construction checks shapes, converts to the column's type and fills the defaults; it raises ``ValueError``
    naming the column, the shape and the mend. It does not look at values: see `row_problems`.
    Meaning, unit and frame of each column: `COLUMNS`.
    """

    object_id: np.ndarray
    side: np.ndarray
    hand_model: np.ndarray = None  # type: ignore[assignment]  # filled when absent, as the next three
    frame_id: np.ndarray = None  # type: ignore[assignment]
    sequence_id: np.ndarray = None  # type: ignore[assignment]
    frame_index: np.ndarray = None  # type: ignore[assignment]
    global_orient: np.ndarray | None = None
    hand_pose: np.ndarray | None = None
    betas: np.ndarray | None = None
    transl: np.ndarray | None = None
    object_pose: np.ndarray | None = None
    cam_K: np.ndarray | None = None
    image_size: np.ndarray | None = None
    metric_depth: np.ndarray = None  # type: ignore[assignment]
    confidence: np.ndarray | None = None
    keypoints_2d: np.ndarray | None = None
    keypoints_3d: np.ndarray | None = None
    keypoint_confidence: np.ndarray | None = None
    corner_order: np.ndarray | None = None
    status: np.ndarray | None = None
    reason: np.ndarray | None = None
    steps: np.ndarray | None = None
    score_before: np.ndarray | None = None
    score_after: np.ndarray | None = None
    penetration_mm_before: np.ndarray | None = None
    penetration_mm_after: np.ndarray | None = None
    volume_cm3_before: np.ndarray | None = None
    volume_cm3_after: np.ndarray | None = None
    contact_ratio_before: np.ndarray | None = None
    contact_ratio_after: np.ndarray | None = None
    uncertainty: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("object_id", "side"):
            if getattr(self, name) is None:
                raise ValueError(f"column {name!r} is missing: give {COLUMNS[name].meaning}, one per row.")
        rows = np.size(self.object_id)
        has_pose = [name for name in _POSE if getattr(self, name) is not None]
        if has_pose and len(has_pose) < len(_POSE):
            missing = next(name for name in _POSE if name not in has_pose)
            raise ValueError(
                f"column {missing!r} is missing: {COLUMNS[missing].meaning} (columns {has_pose} are there)."
            )
        flat = None if self.cam_K is None else self.keypoints_2d
        in_picture = flat is not None and np.shape(flat)[-2:] == (29, 2)
        if not has_pose and self.keypoints_3d is None and not in_picture:
            raise ValueError(
                f"no hands: give the columns {list(_POSE)}, or 'keypoints_3d' with 21 joints, or 'keypoints_2d' with "
                "21 joints and 8 corners of the object's box and 'cam_K'."
            )
        filled: dict[str, Any] = {
            "hand_model": "mano",
            "sequence_id": "",
            "frame_id": np.arange(rows),
            "frame_index": np.arange(rows),
            "metric_depth": True,
        }
        if has_pose:
            filled["betas"] = np.zeros((rows, 10))
        elif self.keypoints_3d is None:
            filled["object_pose"] = np.full((rows, 4, 4), np.nan)
        for name, column in COLUMNS.items():
            value = getattr(self, name)
            if value is None and name not in filled:
                continue
            if value is None:
                value = filled[name]
            object.__setattr__(self, name, _conform(name, column, value, rows))

    def __len__(self) -> int:
        return len(self.object_id)

    def columns(self) -> dict[str, np.ndarray]:
        """The columns that are there, in the order of `COLUMNS`."""
        return {name: getattr(self, name) for name in COLUMNS if getattr(self, name) is not None}

    def column(self, name: str) -> np.ndarray:
        """The column ``name``; raises ``ValueError`` when it is absent."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"column {name!r} is missing: {COLUMNS[name].meaning}.")
        return value

    def take(self, rows: Any) -> Predictions:
        """The rows at ``rows`` (indices, slice or mask), in that order."""
        return replace(self, **{name: value[rows] for name, value in self.columns().items()})

    @staticmethod
    def from_columns(columns: Mapping[str, Any]) -> Predictions:
        """From a mapping of columns; single values are repeated over the rows. ``schema`` may be among them.

        Raises:
            ValueError: an unknown or missing column, a wrong shape or type, another schema.
        """
        columns = dict(columns)
        schema = np.unique(np.asarray(columns.pop("schema", SCHEMA)).astype(str))
        if schema.tolist() != [SCHEMA]:
            raise ValueError(f"schema: got {', '.join(schema)[:60]!r}; this version reads {SCHEMA!r}.")
        for name in columns:
            if name not in COLUMNS:
                near = difflib.get_close_matches(str(name), COLUMNS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(COLUMNS)}."
                raise ValueError(f"column {str(name)[:60]!r} is not part of {SCHEMA}: {hint}")
        for name in ("object_id", "side"):
            columns.setdefault(name, None)
        return Predictions(**columns)


def _conform(name: str, column: Column, value: Any, rows: int) -> np.ndarray:
    """``value`` as the column's type and shape ``(rows, *shape)``, or ``ValueError`` with the mend."""
    expected = " or ".join(str((rows, *shape)) for shape in column.shapes)
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"column {name!r}: its rows differ in length; expected shape {expected}.") from None
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", errors="replace")
    allowed = {"float": "fiu", "int": "iu", "bool": "b", "str": "Uiu"}[column.kind]
    if array.dtype.kind not in allowed and array.size:
        raise ValueError(f"column {name!r}: holds {array.dtype}, expected {column.kind}; convert it before writing.")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which row_problems reports
        array = array.astype(_DTYPES[column.kind])
    if array.shape in column.shapes:  # one value for all rows
        array = np.broadcast_to(array, (rows, *array.shape))
    if rows == 0 and array.size == 0:
        array = array.reshape(0, *column.shapes[0])
    if array.ndim and len(array) != rows:
        raise ValueError(f"column {name!r}: {len(array)} rows, but column 'object_id' has {rows}; make them equal.")
    if array.shape[1:] not in column.shapes:
        hint = _shape_hint(name, column, array.shape[1:])
        raise ValueError(f"column {name!r}: got shape {array.shape}, expected {expected}{hint}.")
    return np.ascontiguousarray(array)


def _shape_hint(name: str, column: Column, shape: tuple[int, ...]) -> str:
    """What to do about a row of ``shape``, for the mistakes people make."""
    size = int(np.prod(shape))
    for wanted in column.shapes:
        if size == np.prod(wanted):
            return f"; reshape its rows to {wanted}"
    if name in ("global_orient", "hand_pose") and shape[-2:] == (3, 3):
        return "; these are rotation matrices: convert them with HandPose.from_rotmats"
    if name == "hand_pose" and len(shape) == 1 and size < 45:
        return "; these look like PCA coefficients: convert them with HandPose.from_pca"
    return ""


# Values ---------------------------------------------------------------------------------------------


def row_problems(predictions: Predictions) -> dict[int, str]:
    """Rows that cannot be used and why, ``row -> "row 3, column 'transl': ..."``; empty when all can.

    Checked: the side; finite pose (or finite `keypoints_3d`, or `point_forms`, where the pose is NaN or absent);
    a hand and an object within reach of the camera and a hand of a hand's size, which catches millimetres;
    `object_pose` a rigid motion. Optional columns that are not used for the pose may hold NaN.
    """
    p, found = predictions, {}

    def report(bad: np.ndarray, name: str, text: str) -> None:
        for row in np.flatnonzero(bad):
            found.setdefault(int(row), f"row {row}, column {name!r}: {text}")

    report(~np.isin(p.side, ("right", "left")), "side", "is neither 'right' nor 'left'.")
    report(p.object_id == "", "object_id", "is empty.")
    missing = "holds NaN or infinity"
    metres = "metres are expected, so divide millimetres by 1000."
    posed, joints, points = has_pose(p), has_joints(p), point_forms(p) != ""
    for name in (*_POSE, "betas"):
        value = getattr(p, name)
        if value is not None:
            bad = ~_finite(value) & ~joints & ~points
            report(
                bad,
                name,
                f"{missing}, and there are no keypoints_3d in its place; drop the row or fill it in.",
            )
    report(
        ~posed & ~joints & ~points,
        "keypoints_3d" if p.keypoints_3d is not None else "keypoints_2d",
        f"{missing}; drop the row or fill it in (6 joints and 4 corners of 29 points are enough).",
    )
    if p.transl is not None:
        far = posed & (np.linalg.norm(p.transl, axis=1) > _MAX_DISTANCE)
        report(far, "transl", f"the hand is more than {_MAX_DISTANCE:g} m away; {metres}")
    if p.keypoints_3d is not None:
        extent = np.linalg.norm(np.ptp(p.keypoints_3d[:, :21], axis=1), axis=1)
        odd = joints & ~posed & ~points & ~((extent > _HAND_EXTENT[0]) & (extent < _HAND_EXTENT[1]))
        report(odd, "keypoints_3d", f"the 21 joints span less than 3 cm or more than 50 cm; {metres}")
    if p.object_pose is not None:
        with np.errstate(all="ignore"):
            rotation = p.object_pose[:, :3, :3].astype(np.float64)
            unit = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max((1, 2), initial=0) < 1e-2
            proper = unit & (np.linalg.det(np.nan_to_num(rotation)) > 0)
            last = np.abs(p.object_pose[:, 3] - np.array([0, 0, 0, 1], np.float32)).max(1, initial=0) < 1e-4
            far = np.linalg.norm(p.object_pose[:, :3, 3], axis=1) > _MAX_DISTANCE
        for bad, text in (
            (~_finite(p.object_pose), f"{missing}; drop the row or fill it in."),
            (~proper, "its 3x3 part is not a rotation; give object to camera without scale or reflection."),
            (
                ~last,
                "its last row is not 0 0 0 1; give the 4x4 that multiplies column vectors (transpose it?).",
            ),
            (far, f"the object is more than {_MAX_DISTANCE:g} m away; {metres}"),
        ):
            report(bad & ~points, "object_pose", text)
    return dict(sorted(found.items()))


def validate(predictions: Predictions) -> None:
    """Raise ``ValueError`` for the first row of `row_problems`, saying how many there are."""
    problems = row_problems(predictions)
    if problems:
        first = next(iter(problems.values()))
        more = f" ({len(problems)} of {len(predictions)} rows have such faults)" if len(problems) > 1 else ""
        raise ValueError(first + more)


def has_pose(predictions: Predictions) -> np.ndarray:
    """``(N,)`` bool: rows whose pose columns are all finite."""
    values = [getattr(predictions, name) for name in (*_POSE, "betas")]
    if any(value is None for value in values):
        return np.zeros(len(predictions), bool)
    return np.all([_finite(value) for value in values], axis=0)


def has_joints(predictions: Predictions) -> np.ndarray:
    """``(N,)`` bool: rows with 21 finite `keypoints_3d`."""
    if predictions.keypoints_3d is None:
        return np.zeros(len(predictions), bool)
    return _finite(predictions.keypoints_3d[:, :21])


def point_forms(predictions: Predictions) -> np.ndarray:
    """``(N,)`` text: what rows with neither a pose of the hand nor one of the object have in their place.

    "space" for `keypoints_3d` with at least 6 joints and 4 corners of the object's box, "picture" for 29
    `keypoints_2d`, six of them known, with `cam_K`; "" where there is nothing or nothing is missing.
    """
    p = predictions
    forms = np.full(len(p), "", "U7")
    if p.object_pose is None:  # hand and object share a frame, and joints are all that is needed
        return forms
    lacking = ~has_pose(p) & ~_finite(p.object_pose)

    def known(points: np.ndarray | None) -> np.ndarray:
        there = np.zeros((len(p), 29), bool)
        if points is not None and points.shape[1] == 29:
            there = np.isfinite(points).all(2)
            if p.keypoint_confidence is not None and p.keypoint_confidence.shape[1] == 29:
                there &= p.keypoint_confidence > 0
        return there

    if p.cam_K is not None:
        forms[lacking & _finite(p.cam_K) & (known(p.keypoints_2d).sum(1) >= 6)] = "picture"
    space = known(p.keypoints_3d)
    forms[lacking & (space[:, :21].sum(1) >= 6) & (space[:, 21:].sum(1) >= 4)] = "space"
    return forms


def pose_columns(predictions: Predictions) -> dict[str, np.ndarray]:
    """Copies of the columns of the hand's pose and of `object_pose`, to be filled in; NaN where they are absent."""
    return {
        name: np.full((len(predictions), *COLUMNS[name].shapes[0]), np.nan, np.float32)
        if (value := getattr(predictions, name)) is None
        else value.copy()
        for name in (*_POSE, "betas", *(["object_pose"] if predictions.object_pose is not None else []))
    }


def groups(predictions: Predictions, rows: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Those of ``rows`` that can be worked on together, by object: of one side, form of points and order of corners.

    Each array is in the order of ``rows``.
    """
    p, forms = predictions, point_forms(predictions)
    orders = np.full(len(p), "") if p.corner_order is None else p.corner_order
    found: dict[str, dict[tuple[str, str, str], list[int]]] = {}
    for row in rows.tolist():
        form = str(forms[row])
        key = (str(p.side[row]), form, str(orders[row]) if form else "")
        found.setdefault(str(p.object_id[row]), {}).setdefault(key, []).append(row)
    return {name: [np.array(part) for part in parts.values()] for name, parts in found.items()}


def _finite(value: np.ndarray) -> np.ndarray:
    if not len(value):
        return np.zeros(0, bool)
    return np.asarray(np.isfinite(value.reshape(len(value), -1)).all(1))
