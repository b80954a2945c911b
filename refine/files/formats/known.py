"""What whoever reads a file knows better than the file: the camera, how hands may be off, where the objects are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..predictions import Predictions
from .cameras import intrinsics, seen_by, true_camera, with_focal
from .files import numbers, read_tree, rigid

KNOWN = ("camera", "focal", "input_error", "object_poses", "holding")
"""Options of every format; a reader that has one of its own is given that."""


def with_known(
    predictions: Predictions,
    *,
    camera: Any = None,
    focal: float | None = None,
    input_error: str | None = None,
    object_poses: Any = None,
    holding: float | None = None,
) -> Predictions:
    """The rows with columns set as they are known to be, those of the file overridden.

    Args:
        camera: the true intrinsics, see `intrinsics`: column `cam_K`. Hands whose depth is not metric are moved to
            where they are the same in its picture (`seen_by`).
        focal: the true focal length, pixels, in place of ``camera``; the principal point is the file's.
        input_error: column `input_error`, a name such as "camera".
        object_poses: column `object_pose`, metres, object to camera: ``(4, 4)`` for all rows, ``(N, 4, 4)``, or a
            mapping of the name of an image (`frame_id`, with or without folder and suffix) to ``(4, 4)``; or a .json,
            .npz or .npy of such. Rows whose image is not in the mapping are left without a pose.
        holding: column `holding`: 1, 0, or NaN.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    matrix, focal = true_camera(camera, focal)
    if focal is not None:
        matrix = intrinsics(with_focal(predictions, focal))
    if matrix is not None:
        if matrix.ndim == 3 and len(matrix) not in (1, len(predictions)):
            raise ValueError(f"camera: {len(matrix)} matrices for {len(predictions)} rows; give one, or one a row.")
        predictions = seen_by(predictions, matrix)
    columns: dict[str, Any] = {}
    if input_error is not None:
        columns["input_error"] = np.full(len(predictions), input_error)
    if holding is not None:
        columns["holding"] = np.full(len(predictions), holding, np.float32)
    if object_poses is not None:
        columns["object_pose"] = _poses(object_poses, predictions.frame_id).astype(np.float32)
    return replace(predictions, **columns) if columns else predictions


def _poses(value: Any, frames: np.ndarray) -> np.ndarray:
    """``(N, 4, 4)`` of the rows of ``frames (N,)``; NaN where there is none."""
    if isinstance(value, str | Path) and Path(value).suffix.lower() in (".json", ".npz", ".npy"):
        value = read_tree(Path(value))
    if not isinstance(value, Mapping):
        return _rigid(value, len(frames))
    only = next(iter(value.values())) if len(value) == 1 else None
    if only is not None and next(iter(value)) in ("object_pose", "object_poses", "pose", "poses", "arr_0"):
        return _poses(only, frames) if isinstance(only, Mapping) else _rigid(only, len(frames))
    by_name: dict[str, np.ndarray] = {}
    for spelling in (str, _file, _stem):  # a whole name counts before what is left of one
        for name, pose in value.items():
            by_name.setdefault(spelling(name), numbers(f"object_poses: {name!r}", pose))
    found = np.full((len(frames), 4, 4), np.nan)
    lacking = []
    for row, frame in enumerate(frames.tolist()):
        pose = next((by_name[key] for key in (frame, _file(frame), _stem(frame)) if key in by_name), None)
        if pose is None:
            lacking.append(frame)
        else:
            found[row] = _rigid(pose, 1)[0]
    if len(frames) and len(lacking) == len(frames):
        raise ValueError(
            f"object_poses: has none of the file's images, e.g. {lacking[0]!r}; its names are "
            f"{', '.join(map(str, list(value)[:5]))}."
        )
    return found


def _rigid(value: Any, rows: int) -> np.ndarray:
    try:
        return rigid(value, rows)
    except ValueError as error:
        raise ValueError(re.sub("^object_pose", "object_poses", str(error))) from None


def _file(name: Any) -> str:
    return PurePosixPath(str(name)).name


def _stem(name: Any) -> str:
    return PurePosixPath(str(name)).stem
