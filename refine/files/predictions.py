"""The prediction file `grasp/1`: one row is one hand in one frame.

`.npz` (without pickle) is the everyday form, `.json` the one to write by hand, `.parquet` (with pyarrow) the
one for bulk. All three hold the same columns, listed in `COLUMNS` and in docs/formats.md.

Two kinds of fault are kept apart. A file whose columns do not fit together (a wrong shape, an unknown column)
cannot be read: `ValueError`. A row whose values make no sense (NaN, millimetres, an unknown side) is reported
by `row_problems` and leaves the other rows usable; `validate` raises for the first such row.
"""

from __future__ import annotations

# ruff: noqa: RUF009 - calls in defaults only describe columns
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np

Maybe = np.ndarray | None
SCHEMA = "grasp/1"
_POSE = ("global_orient", "hand_pose", "transl")
_MAX_DISTANCE = 20.0  # metres; a hand further from its camera than this is taken for a unit mistake
_HAND_EXTENT = (0.03, 0.5)  # metres; diagonal of the box around 21 joints, fist to outstretched
SEPARATOR = "; "
"""Between the texts of a cell of `warnings`; none holds it."""
_SCORE = "plausibility by the model's own calibrated score, higher is better"


@dataclass(frozen=True)
class Kind:
    """A kind of value, in memory and in files."""

    dtype: type
    accepts: str
    """The kinds of numpy that can be converted to it."""
    missing: Any
    """What a null in a file stands for; None where it may not be."""


KINDS = {
    "float": Kind(np.float32, "fiu", np.nan),
    "int": Kind(np.int64, "iu", None),
    "bool": Kind(np.bool_, "b", True),
    "str": Kind(np.str_, "USiu", ""),
}


@dataclass(frozen=True)
class Column:
    """What one column holds: kind, a name of `KINDS`, meaning, and shape of one row (alternatives; -1: any number)."""

    kind: str
    meaning: str
    shapes: tuple[tuple[int, ...], ...] = ((),)
    absent: Any = None
    """Value of all rows, or function of their number, where the column is absent; None: it stays so."""
    is_result: bool = False
    """Written by `regrasp refine`, not expected from an estimator."""


def _column(kind: str, meaning: str, *shapes: tuple[int, ...], absent: Any = None, is_result: bool = False) -> Any:
    return field(default=None, metadata={"column": Column(kind, meaning, shapes or ((),), absent, is_result)})


_result = partial(_column, is_result=True)


@dataclass(frozen=True, eq=False)
class Predictions:
    """`grasp/1` in memory: numpy columns of ``N`` rows each, None where a column is absent.

    Construction checks shapes, repeats single values over the rows, converts to the column's type and fills what
    is absent; it raises ``ValueError`` naming the column, the shape and the mend. It does not look at values: see
    `row_problems`. Meaning, unit and frame of each column stand beside it, and in `COLUMNS`.
    """

    object_id: np.ndarray = _column("str", "which object; names a mesh in the objects folder")
    side: np.ndarray = _column("str", "'right' or 'left'")
    hand_model: np.ndarray = _column(
        "str", "whose betas these are: 'mano' or 'open'; 'mano' when absent", absent="mano"
    )
    frame_id: np.ndarray = _column("str", "name of the frame; the row number when absent", absent=np.arange)
    sequence_id: np.ndarray = _column("str", "name of the recording; empty when absent", absent="")
    frame_index: np.ndarray = _column("int", "place in the recording; the row number when absent", absent=np.arange)
    global_orient: Maybe = _column("float", "rotation of the wrist, axis-angle, radians", (3,))
    hand_pose: Maybe = _column("float", "joint rotations, axis-angle, absolute, MANO order", (15, 3))
    betas: Maybe = _column("float", "shape coefficients; zeros when absent", (10,))
    transl: Maybe = _column("float", "metres, added after posing about the root joint", (3,))
    object_pose: Maybe = _column("float", "object to camera; absent: the hand is in the object frame", (4, 4))
    cam_K: Maybe = _column("float", "camera intrinsics, pixels", (3, 3))
    image_size: Maybe = _column("int", "width, height in pixels", (2,))
    metric_depth: np.ndarray = _column(
        "bool", "whether the distance from the camera is metric; true when absent", absent=True
    )
    confidence: Maybe = _column("float", "of the estimator, 0 to 1")
    keypoints_2d: Maybe = _column("float", "pixels, OpenPose order (29: and 8 box corners)", (21, 2), (29, 2))
    keypoints_3d: Maybe = _column("float", "metres, same frame and order; may stand for the pose", (21, 3), (29, 3))
    keypoint_confidence: Maybe = _column(
        "float", "of each keypoint, 0 to 1, 0 where missing; 1 when absent", (21,), (29,)
    )
    input_error: Maybe = _column("str", "how the hand may be off: 'camera', 'image', 'tracker', 'exact', ... or empty")
    keypoint_sigma: Maybe = _column("float", "pixels that keypoints are off by; 3 when absent", (), (21,))
    depth_points: Maybe = _column(
        "float", "metres, measured on the skin that is seen, frame of the hand; NaN-padded", (-1, 3)
    )
    corner_order: Maybe = _column("str", "whether to believe the 'given' order of the 8 corners or to 'search' for it")
    status: Maybe = _result("str", "'refined', 'nudged' (moved a little), 'kept' (returned as it came) or 'failed'")
    reason: Maybe = _result("str", "why a row failed")
    warnings: Maybe = _result("str", "what is suspicious of a row that did not fail, and what to check; '; ' between")
    steps: Maybe = _result("int", "optimiser steps taken")
    score_before: Maybe = _result("float", _SCORE)
    score_after: Maybe = _result("float", _SCORE)
    penetration_mm_before: Maybe = _result("float", "deepest penetration, millimetres")
    penetration_mm_after: Maybe = _result("float", "deepest penetration, millimetres")
    crossing_mm_before: Maybe = _result("float", "how far skin has passed through the surface, millimetres")
    crossing_mm_after: Maybe = _result("float", "how far skin has passed through the surface, millimetres")
    volume_cm3_before: Maybe = _result("float", "intersection volume, cubic centimetres")
    volume_cm3_after: Maybe = _result("float", "intersection volume, cubic centimetres")
    contact_ratio_before: Maybe = _result("float", "1 when the hand touches the object")
    contact_ratio_after: Maybe = _result("float", "1 when the hand touches the object")
    reprojection_px_before: Maybe = _result("float", "mean distance of the joints from keypoints_2d, pixels")
    reprojection_px_after: Maybe = _result("float", "mean distance of the joints from keypoints_2d, pixels")
    uncertainty: Maybe = _result("float", "one standard deviation of each joint, metres", (21,))
    counts_frames: bool | None = None
    """No column: whether `frame_index` was given, and so counts the frames of a recording, those without a hand among
    them; else it is the row number."""

    def __post_init__(self) -> None:
        if self.counts_frames is None:
            object.__setattr__(self, "counts_frames", self.frame_index is not None)
        for name in ("object_id", "side"):
            self.column(name)
        present = [name for name in _POSE if getattr(self, name) is not None]
        for name in _POSE if present else ():
            self.column(name)
        given = self.columns()
        in_picture = self.cam_K is not None and np.shape(given.get("keypoints_2d"))[-2:] == (29, 2)
        if not present and self.keypoints_3d is None and not in_picture:
            raise ValueError(
                f"no hands: give the columns {list(_POSE)}, or 'keypoints_3d' with 21 joints, or 'keypoints_2d' with "
                "21 joints and 8 corners of the object's box and 'cam_K'."
            )
        arrays = {name: converted(name, value) for name, value in given.items()}
        rows = next((len(a) for name, a in arrays.items() if a.ndim and not fits(a.shape, COLUMNS[name].shapes)), 1)
        if present:
            arrays.setdefault("betas", np.zeros(10, np.float32))
        elif self.keypoints_3d is None:
            arrays.setdefault("object_pose", np.full((4, 4), np.nan, np.float32))
        for name, column in COLUMNS.items():
            if name not in arrays and column.absent is not None:
                arrays[name] = converted(name, column.absent(rows) if callable(column.absent) else column.absent)
            if name in arrays:
                object.__setattr__(self, name, _conform(name, arrays[name], rows))

    def __len__(self) -> int:
        return len(self.object_id)

    def columns(self) -> dict[str, np.ndarray]:
        """The columns that are there, in the order of `COLUMNS`."""
        return {name: value for name in COLUMNS if (value := getattr(self, name)) is not None}

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
        for name in columns.keys() - COLUMNS.keys():
            near = difflib.get_close_matches(str(name), COLUMNS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(COLUMNS)}."
            raise ValueError(f"column {str(name)[:60]!r} is not part of {SCHEMA}: {hint}")
        return Predictions(**columns)


COLUMNS: dict[str, Column] = {f.name: f.metadata["column"] for f in fields(Predictions) if f.metadata}


def converted(name: str, value: Any) -> np.ndarray:
    """``value``, of one row or all, as the type of column ``name``; ``ValueError`` where it is of another kind."""
    column = COLUMNS[name]
    kind = KINDS[column.kind]
    try:
        array = np.asarray(value)
        if column.kind == "float" and array.dtype == object:
            array = array.astype(np.float64)  # numbers with null among them
    except (ValueError, TypeError, OverflowError):
        wanted = " or ".join(map(str, column.shapes))
        raise ValueError(
            f"column {name!r}: its rows differ in length or are not {column.kind}; expected {wanted} each."
        ) from None
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", errors="replace")
    too_large = kind.dtype is np.int64 and array.dtype == np.uint64 and (array > np.iinfo(np.int64).max).any()
    if too_large or (array.dtype.kind not in kind.accepts and array.size):
        raise ValueError(f"column {name!r}: holds {array.dtype}, expected {column.kind}; convert it before writing.")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which row_problems reports
        return array.astype(kind.dtype)


def fits(shape: tuple[int, ...], shapes: tuple[tuple[int, ...], ...]) -> bool:
    """Whether ``shape`` is one of ``shapes``, in which -1 stands for any number."""
    alike = [wanted for wanted in shapes if len(wanted) == len(shape)]
    return any(all(w in (n, -1) for n, w in zip(shape, wanted, strict=True)) for wanted in alike)


def _conform(name: str, array: np.ndarray, rows: int) -> np.ndarray:
    """``array`` as the shape ``(rows, *shape)``, or ``ValueError`` with the mend."""
    shapes = COLUMNS[name].shapes
    if fits(array.shape, shapes):  # one value for all rows
        array = np.broadcast_to(array, (rows, *array.shape))
    if rows == 0 and array.size == 0:
        array = array.reshape(0, *np.abs(shapes[0]))
    if array.ndim and len(array) != rows:
        raise ValueError(f"column {name!r}: {len(array)} rows, but the columns before it have {rows}; make them equal.")
    if not fits(array.shape[1:], shapes):
        wanted = " or ".join(str((rows, *shape)) for shape in shapes)
        hint = _shape_hint(name, array.shape[1:])
        raise ValueError(f"column {name!r}: got shape {array.shape}, expected {wanted}{hint}.")
    return np.ascontiguousarray(array)


def _shape_hint(name: str, shape: tuple[int, ...]) -> str:
    """What to do about a row of ``shape``, for the mistakes people make."""
    size = int(np.prod(shape))
    for wanted in COLUMNS[name].shapes:
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
    for name in (*_POSE, "betas") if p.transl is not None else ():
        text = f"{missing}, and there are no keypoints_3d in its place; drop the row or fill it in."
        report(~_finite(p.column(name)) & ~joints & ~points, name, text)
    report(
        ~posed & ~joints & ~points,
        "keypoints_3d" if p.keypoints_3d is not None else "keypoints_2d",
        f"{missing}; drop the row or fill it in (6 joints and 4 corners of 29 points are enough).",
    )
    if p.transl is not None:
        # Where the depth is not metric, an assumed focal length puts hands anywhere.
        far = posed & p.metric_depth & (np.linalg.norm(p.transl, axis=1) > _MAX_DISTANCE)
        report(far, "transl", f"the hand is more than {_MAX_DISTANCE:g} m away; {metres}")
    if p.keypoints_3d is not None:
        extent = np.linalg.norm(np.ptp(p.keypoints_3d[:, :21], axis=1), axis=1)
        odd = joints & ~posed & ~points & ~((extent > _HAND_EXTENT[0]) & (extent < _HAND_EXTENT[1]))
        report(odd, "keypoints_3d", f"the 21 joints span less than 3 cm or more than 50 cm; {metres}")
    if p.object_pose is not None:
        with np.errstate(all="ignore"):
            last = np.abs(p.object_pose[:, 3] - np.array([0, 0, 0, 1], np.float32)).max(1, initial=0) < 1e-4
            far = np.linalg.norm(p.object_pose[:, :3, 3], axis=1) > _MAX_DISTANCE
        proper = are_rotations(p.object_pose[:, :3, :3])
        for bad, text in (
            (
                ~_finite(p.object_pose),
                f"{missing}; give the object's pose (regrasp refine --object-poses), or drop the row.",
            ),
            (~proper, "its 3x3 part is not a rotation; give object to camera without scale or reflection."),
            (~last, "its last row is not 0 0 0 1; give the 4x4 that multiplies column vectors (transpose it?)."),
            (far, f"the object is more than {_MAX_DISTANCE:g} m away; {metres}"),
        ):
            report(bad & ~points, "object_pose", text)
    return dict(sorted(found.items()))


def are_rotations(matrices: np.ndarray) -> np.ndarray:
    """Which of ``(..., 3, 3)`` are orthonormal to 0.01 and no mirrors; bool."""
    matrices = np.asarray(matrices, np.float64)
    with np.errstate(all="ignore"):
        off = np.abs(matrices @ np.swapaxes(matrices, -1, -2) - np.eye(3)).max((-1, -2), initial=0)
        return (off < 1e-2) & (np.linalg.det(np.nan_to_num(matrices)) > 0)


def has_pose(predictions: Predictions) -> np.ndarray:
    """``(N,)`` bool: rows whose pose columns are all finite."""
    if predictions.transl is None:
        return np.zeros(len(predictions), bool)
    return np.all([_finite(predictions.column(name)) for name in (*_POSE, "betas")], axis=0)


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
        if points is None or points.shape[1] != 29:
            return np.zeros((len(p), 29), bool)
        sure = p.keypoint_confidence is None or p.keypoint_confidence.shape[1] != 29 or p.keypoint_confidence > 0
        return np.isfinite(points).all(2) & sure

    if p.cam_K is not None:
        forms[lacking & _finite(p.cam_K) & (known(p.keypoints_2d).sum(1) >= 6)] = "picture"
    space = known(p.keypoints_3d)
    forms[lacking & (space[:, :21].sum(1) >= 6) & (space[:, 21:].sum(1) >= 4)] = "space"
    return forms


def pose_columns(predictions: Predictions) -> dict[str, np.ndarray]:
    """Copies of the columns of the hand's pose and of `object_pose`, to be filled in; NaN where they are absent."""
    there, rows = predictions.columns(), len(predictions)
    names = [*_POSE, "betas", *({"object_pose"} & set(there))]
    empty = {name: np.full((rows, *COLUMNS[name].shapes[0]), np.nan, np.float32) for name in names}
    return {name: there.get(name, nothing).copy() for name, nothing in empty.items()}


def groups(predictions: Predictions, rows: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Those of ``rows`` that can be worked on together, by object: of one side, form of points and order of corners.

    Each array is in the order of ``rows``.
    """
    p, forms = predictions, point_forms(predictions)
    orders = np.full(len(p), "") if p.corner_order is None else np.where(forms == "", "", p.corner_order)
    found: dict[str, dict[tuple[str, ...], list[int]]] = {}
    for row in rows.tolist():
        key = (str(p.side[row]), str(forms[row]), str(orders[row]))
        found.setdefault(str(p.object_id[row]), {}).setdefault(key, []).append(row)
    return {name: [np.array(part) for part in parts.values()] for name, parts in found.items()}


def _finite(value: np.ndarray) -> np.ndarray:
    return np.isfinite(value).all(tuple(range(1, value.ndim)))
