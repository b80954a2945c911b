"""How hands move over time, and with their objects: one value per sequence (B,)."""

from __future__ import annotations

import numpy as np

from .arguments import Array, Objects, alike
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
