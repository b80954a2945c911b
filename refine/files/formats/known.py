"""What whoever reads a file knows better than the file: the camera, how hands may be off, where the objects are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..predictions import Predictions
from .cameras import intrinsics, seen_by, true_camera, with_focal
from .format import Numbers, options_of
from .object_poses import poses_of_rows


def with_known(
    predictions: Predictions,
    *,
    camera: Numbers = None,
    focal: float | None = None,
    input_error: str | None = None,
    object_pose: Numbers = None,
    object_poses: Numbers = None,
) -> Predictions:
    """The rows with columns set as they are known to be, those of the file overridden.

    Args:
        camera: the true intrinsics, see `cameras.intrinsics`: column `cam_K`. Hands whose depth is not metric are moved
            to where they are the same in its picture (`seen_by`).
        focal: the true focal length, pixels, in place of ``camera``; the principal point is the file's.
        input_error: how hands may be off, a name such as "camera": column `input_error`.
        object_pose: where the object is, 4×4, object to camera, metres: column `object_pose`.
        object_poses: the same, one for each row or frame, by name or number of the frame; or a file of them, or a
            folder of one a frame; see `object_poses.poses_of_rows`.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    if object_pose is not None and object_poses is not None:
        raise ValueError("object_poses: object_pose says it already; give one of the two.")
    columns: dict[str, Any] = {}
    for name, value in (("object_pose", object_pose), ("object_poses", object_poses)):
        if value is not None:
            columns["object_pose"] = poses_of_rows(value, predictions, name).astype(np.float32)
    matrix, focal = true_camera(camera, focal)
    if focal is not None:
        matrix = intrinsics(with_focal(predictions, focal))
    if matrix is not None:
        if matrix.ndim == 3 and len(matrix) not in (1, len(predictions)):
            raise ValueError(f"camera: {len(matrix)} matrices for {len(predictions)} rows; give one, or one a row.")
        predictions = seen_by(predictions, matrix)
    if input_error is not None:
        columns["input_error"] = np.full(len(predictions), input_error)
    return replace(predictions, **columns) if columns else predictions


KNOWN = tuple(options_of(with_known))
"""Options of every format; a reader that has one of its own is given that."""
