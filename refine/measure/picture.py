"""Errors as the camera sees them: along the line of sight, across it, and on the picture.

An image estimator knows well where a hand is across its view and badly how far away it is, so that the two are
measured apart. Points are (B, joints, 3) metres in one frame, one value per grasp (B,) comes out; NaN in a grasp
gives NaN for that grasp and leaves the others alone.
"""

from __future__ import annotations

import numpy as np

from .arguments import Array, alike, as_numpy


def error_along_view(predicted: Array, target: Array, eye: Array) -> np.ndarray:
    """Mean over joints of the absolute error along the line of sight; metres.

    The line of sight of a grasp runs from the camera at ``eye (B, 3)`` to the mean of the target's joints: a hand
    that slides along it has no error across.
    """
    off, line = _seen_from(predicted, target, eye)
    return np.abs(off @ line[:, :, None])[..., 0].mean(axis=1)


def error_across_view(predicted: Array, target: Array, eye: Array) -> np.ndarray:
    """Mean over joints of how far they are off across the line of sight; metres. See `error_along_view`."""
    off, line = _seen_from(predicted, target, eye)
    across = off - (off @ line[:, :, None]) * line[:, None]
    return np.linalg.norm(across, axis=-1).mean(axis=1)


def project(points: Array, projection: Array) -> np.ndarray:
    """Pixels (B, joints, 2) of points under ``projection (B, 3, 4)``; NaN for those behind the camera.

    The projection is K [R | t]: it takes points of their frame into the camera's, and those onto the picture.
    """
    matrix = as_numpy(projection)
    seen = as_numpy(points) @ np.swapaxes(matrix[:, :, :3], 1, 2) + matrix[:, None, :, 3]
    depth = seen[..., 2:]
    return seen[..., :2] / np.where(depth > 0, depth, np.nan)


def reprojection_error(predicted: Array, target: Array) -> np.ndarray:
    """Mean distance in pixels of keypoints (B, joints, 2) on the picture; those whose target is NaN are left out.

    NaN where a grasp has no target at all, or a predicted keypoint of a known one is NaN.
    """
    found, wanted = alike("(B, joints, 2)", predicted=predicted, target=target)
    known = np.isfinite(wanted).all(axis=-1)
    distance = np.where(known, np.linalg.norm(found - np.where(known[..., None], wanted, 0), axis=-1), 0)
    count = known.sum(axis=1)
    return np.where(count > 0, distance.sum(axis=1) / np.maximum(count, 1), np.nan)


def reprojection_to_keypoints(joints: Array, keypoints: Array, projection: Array) -> np.ndarray:
    """`reprojection_error` of joints in space to keypoints on the picture; pixels."""
    return reprojection_error(project(joints, projection), keypoints)


def reprojection_to_joints(predicted: Array, target: Array, projection: Array) -> np.ndarray:
    """`reprojection_error` of joints in space to the projection of others; pixels."""
    return reprojection_error(project(predicted, projection), project(target, projection))


def _seen_from(predicted: Array, target: Array, eye: Array) -> tuple[np.ndarray, np.ndarray]:
    """What joints are off by (B, joints, 3), and the unit line of sight (B, 3)."""
    found, true = alike("(B, points, 3)", predicted=predicted, target=target)
    line = true.mean(axis=1) - as_numpy(eye)
    return found - true, line / np.linalg.norm(line, axis=1, keepdims=True)
