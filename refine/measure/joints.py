"""Errors of points that correspond: joints, vertices, corners of the object's box.

Arrays or tensors ``predicted`` and ``target`` (B, points, 3) in metres and one frame go in, one value per
grasp (B,) comes out. NaN in a grasp gives NaN for that grasp and leaves the others alone; shapes that differ
are a ``ValueError``.
"""

from __future__ import annotations

import numpy as np
from scipy.integrate import trapezoid

from .arguments import Array, alike, as_numpy


def joint_errors(predicted: Array, target: Array) -> np.ndarray:
    """Distance of every point from its target: (B, points), metres."""
    return np.linalg.norm(np.subtract(*_pair(predicted, target)), axis=-1)


def mpjpe(predicted: Array, target: Array) -> np.ndarray:
    """Mean per-joint position error: mean over j of ‖p_j − t_j‖ (Ionescu et al., Human3.6M, TPAMI 2014); metres."""
    return joint_errors(predicted, target).mean(axis=1)


def mpjpe_root_relative(predicted: Array, target: Array, root: int = 0) -> np.ndarray:
    """MPJPE after moving both hands' joint ``root`` (the wrist) to the origin; metres."""
    predicted, target = _pair(predicted, target)
    if not -predicted.shape[1] <= root < predicted.shape[1]:
        raise ValueError(f"root must index one of {predicted.shape[1]} joints, got {root}")
    return mpjpe(predicted - predicted[:, [root]], target - target[:, [root]])


def mpjpe_procrustes(predicted: Array, target: Array, *, scale: bool = True) -> np.ndarray:
    """MPJPE after :func:`procrustes_align` (``scale=False``: rigid), as on FreiHAND and HO-3D; metres."""
    return mpjpe(procrustes_align(predicted, target, scale=scale), target)


def procrustes_align(predicted: Array, target: Array, *, scale: bool = True) -> np.ndarray:
    """Move ``predicted`` onto ``target`` by the least-squares similarity s R p + t (Umeyama, TPAMI 1991).

    Reflections are excluded; ``scale=False`` leaves s = 1. Returns (B, J, 3) metres; a hand with NaN stays NaN.
    """
    predicted, target = _pair(predicted, target)
    broken = ~(np.isfinite(predicted).all(axis=(1, 2)) & np.isfinite(target).all(axis=(1, 2)))
    centre_p, centre_t = predicted.mean(axis=1, keepdims=True), target.mean(axis=1, keepdims=True)
    p, t = predicted - centre_p, target - centre_t
    covariance = np.where(broken[:, None, None], 0.0, np.swapaxes(t, 1, 2) @ p)
    u, spread, vt = np.linalg.svd(covariance)
    sign = np.ones((len(p), 3))
    sign[:, 2] = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
    rotation = (u * sign[:, None]) @ vt
    size = np.maximum((p**2).sum(axis=(1, 2)), np.finfo(np.float64).tiny)
    factor = (spread * sign).sum(axis=1) / size if scale else np.ones(len(p))
    aligned = factor[:, None, None] * (p @ np.swapaxes(rotation, 1, 2)) + centre_t
    return np.where(broken[:, None, None], np.nan, aligned)


def mpvpe(predicted: Array, target: Array) -> np.ndarray:
    """Mean per-vertex position error: :func:`mpjpe` over the vertices (B, V, 3) of the hand mesh; metres."""
    return mpjpe(predicted, target)


def mpcpe(predicted: Array, target: Array) -> np.ndarray:
    """Mean per-corner position error of the object's bounding box (Liu et al., CVPR 2021; Hasson et al. 2020).

    ``predicted`` and ``target`` (B, 8, 3) are the corners (`contact.objects.box.box_corners`) under the
    predicted and the true object pose, in one order; metres.
    """
    errors = joint_errors(predicted, target)
    if errors.shape[1] != 8:
        raise ValueError(f"predicted must hold the 8 corners of a box, got {errors.shape[1]} points")
    return errors.mean(axis=1)


def pck(predicted: Array, target: Array, threshold: float) -> np.ndarray:
    """Share of joints no farther than ``threshold`` metres from their target (percentage of correct keypoints).

    Simon et al., CVPR 2017; Zimmermann & Brox, ICCV 2017.
    """
    errors = joint_errors(predicted, target)
    return np.where(np.isnan(errors).any(axis=1), np.nan, (errors <= threshold).mean(axis=1))


def auc(predicted: Array, target: Array, largest: float = 0.05, steps: int = 100) -> np.ndarray:
    """Area under the PCK curve over thresholds from 0 to ``largest`` metres, divided by ``largest``.

    Trapezoid over ``steps`` equally spaced thresholds, as the FreiHAND and HO-3D evaluations compute it
    (Zimmermann et al., ICCV 2019). Its mean over grasps is the area under the data set's curve.
    """
    if not (largest > 0 and steps >= 2):
        raise ValueError(f"largest must be positive and steps at least 2, got {largest} and {steps}")
    errors = joint_errors(predicted, target)
    area = trapezoid(pck_curve(errors, np.linspace(0.0, largest, steps)), axis=1) / (steps - 1)
    return np.where(np.isnan(errors).any(axis=1), np.nan, area)


def pck_curve(errors: Array, thresholds: np.ndarray) -> np.ndarray:
    """Share of each hand's joints whose error (B, J) is no larger than each of ``thresholds`` (K,): (B, K)."""
    return (as_numpy(errors)[..., None] <= thresholds).mean(axis=1)


def error_in_std(predicted: Array, target: Array, std: Array) -> np.ndarray:
    """Root mean square joint error in units of its predicted standard deviation ``std`` (B, J), metres an axis.

    About 1 when the predicted deviations are honest.
    """
    squared = joint_errors(predicted, target) ** 2 / (3 * as_numpy(std) ** 2)
    return np.sqrt(squared.mean(axis=1))


def _pair(predicted: Array, target: Array) -> list[np.ndarray]:
    return alike("(B, points, 3)", predicted=predicted, target=target)
