"""How hands move over time, and with their objects: one value per sequence (B,)."""

from __future__ import annotations

import numpy as np
import torch

from .arguments import Array, Objects, alike, per_grasp
from .contact import CONTACT_DISTANCE, signed_distance


def acceleration_error(predicted: Array, target: Array, fps: float = 1.0) -> np.ndarray:
    """Mean over frames and joints of ‖a_pred − a_true‖, a_t = (x_{t−1} − 2 x_t + x_{t+1}) fps²; m/s².

    Kanazawa et al. (HMMR, CVPR 2019). Joints are (B, T, J, 3) metres, T >= 3, else ``ValueError``; ``fps`` 1 leaves
    the error in metres per frame², as often published.
    """
    error = np.subtract(*alike("(B, T, J, 3)", predicted=predicted, target=target))
    if error.shape[1] < 3:
        raise ValueError(f"predicted and target must have at least 3 frames, got {error.shape[1]}")
    acceleration = np.diff(error, n=2, axis=1)
    return np.linalg.norm(acceleration, axis=-1).mean(axis=(1, 2)) * fps**2


def motion_consistency(
    vertices: Array, object_pose: Array, obj: Objects, distance: float = CONTACT_DISTANCE
) -> np.ndarray:
    """How far touching skin slides over the object from one frame to the next, root mean square; metres per frame.

    For every vertex within ``distance`` of the object (or inside) in two successive frames: the distance
    between where it goes and where the object's motion would carry it; in the object's frame q that is
    ‖q_{t+1} − q_t‖. After the hand-object motion consistency of GeneOH Diffusion (Liu & Yi, ICLR 2024),
    whose mm² is the square of this. NaN where no vertex touches in two successive frames.

    Args:
        vertices: (B, T, V, 3) metres, in the camera's or the world's frame.
        object_pose: (B, T, 4, 4) object to that frame.
        obj: the object, or one per sequence.

    Raises:
        ValueError: shapes that do not fit, or as many objects as there are not sequences.
    """
    (points,), (pose,) = alike("(B, T, V, 3)", vertices=vertices), alike("(B, T, 4, 4)", object_pose=object_pose)
    if pose.shape[:2] != points.shape[:2]:
        raise ValueError(f"object_pose must be {(*points.shape[:2], 4, 4)} as vertices are, got {pose.shape}")
    local = (points - pose[:, :, None, :3, 3]) @ pose[:, :, :3, :3]
    near = signed_distance(local.reshape(len(local), -1, 3), obj).reshape(local.shape[:3]) < distance
    touching = near[:, :-1] & near[:, 1:]
    slide = (np.diff(local, axis=1) ** 2).sum(axis=-1)
    pairs = touching.sum(axis=(1, 2))
    result = np.sqrt(np.where(touching, slide, 0.0).sum(axis=(1, 2)) / np.maximum(pairs, 1))
    return np.where((pairs > 0) & np.isfinite(local).all(axis=(1, 2, 3)), result, np.nan)


def jitter(joints: Array, fps: float = 1.0) -> np.ndarray:
    """Mean over frames and joints of the acceleration ‖x_{t−1} − 2 x_t + x_{t+1}‖ fps², (B,); m/s².

    Joints are (B, T, J, 3) metres, T >= 3, else ``ValueError``; ``fps`` 1 gives metres per frame².
    """
    return acceleration_error(joints, np.zeros_like(alike("(B, T, J, 3)", joints=joints)[0]), fps)


def contact_over_time(predicted: Array, target: Array, obj: Objects, distance: float = CONTACT_DISTANCE) -> np.ndarray:
    """F1 (B,) of the frames in which skin is nearer than ``distance`` to the object; NaN where neither ever touches.

    Args:
        predicted, target: (B, T, V, 3) metres, object's frame.
    """
    both = [
        _distances(v, obj).min(axis=2) < distance for v in alike("(B, T, V, 3)", predicted=predicted, target=target)
    ]
    said, true = both
    total = said.sum(axis=1) + true.sum(axis=1)
    return np.where(total > 0, 2 * (said & true).sum(axis=1) / np.maximum(total, 1), np.nan)


def contact_deviation(predicted: Array, target: Array, obj: Objects, distance: float = CONTACT_DISTANCE) -> np.ndarray:
    """CDev (B,) of ARCTIC (Fan et al., CVPR 2023), metres: how far pairs that touch in the truth are from each other.

    A pair is a vertex within ``distance`` of the surface, or inside, and the closest point of the object.

    Args:
        predicted, target: (B, T, V, 3) metres, object's frame.
    """
    found, true = alike("(B, T, V, 3)", predicted=predicted, target=target)
    near = _distances(true, obj)
    closest = true - near[..., None] * _gradients(true, obj)
    pairs = near < distance
    return _mean_where(np.linalg.norm(found - closest, axis=-1), pairs)


def motion_deviation(predicted: Array, target: Array, obj: Objects, distance: float = CONTACT_DISTANCE) -> np.ndarray:
    """MDev (B,) of ARCTIC (Fan et al., CVPR 2023), metres a frame: how far what moves as one does so when predicted.

    Of pairs that touch in two successive frames of the truth and slide by no more than 3 mm between them: the
    distance between where the vertex goes and where the object's point does. In the object's frame the latter rests.
    Arguments as `contact_deviation`.
    """
    found, true = alike("(B, T, V, 3)", predicted=predicted, target=target)
    near = _distances(true, obj) < distance
    steps, rest = np.diff(found, axis=1), np.linalg.norm(np.diff(true, axis=1), axis=-1) <= CONTACT_DISTANCE
    return _mean_where(np.linalg.norm(steps, axis=-1), near[:, :-1] & near[:, 1:] & rest)


def _mean_where(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(B,) mean of ``values (B, ...)``; NaN where there are none."""
    axes = tuple(range(1, values.ndim))
    count = where.sum(axis=axes)
    return np.where(count > 0, np.where(where, values, 0.0).sum(axis=axes) / np.maximum(count, 1), np.nan)


def _distances(local: np.ndarray, obj: Objects) -> np.ndarray:
    """(B, T, V) signed distances."""
    return signed_distance(local.reshape(len(local), -1, 3), obj).reshape(local.shape[:3])


def _gradients(local: np.ndarray, obj: Objects) -> np.ndarray:
    """(B, T, V, 3) of the signed distance."""
    things = per_grasp(obj, len(local))
    rows = [
        thing.grid.query(torch.from_numpy(points.reshape(1, -1, 3)).float())[1][0].numpy().reshape(points.shape)
        for points, thing in zip(local, things, strict=True)
    ]
    return np.stack(rows)
