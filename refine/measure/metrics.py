"""Measures of a grasp: joint and vertex errors, contact, penetration, motion. One function each.

Arrays or tensors in, a batch first; a NumPy array of one value per grasp (B,) out, in SI units. NaN
in a grasp gives NaN for that grasp and leaves the others alone. Means over a data set are the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from contact.objects import ObjectMesh
from contact.objects.grid import SignedDistanceGrid

from .simulation import simulation_displacement
from .volumes import intersection_volume, intersection_volume_voxels, penetration_depth_into_hand

Array: TypeAlias = "np.ndarray | Tensor"
Objects: TypeAlias = "ObjectMesh | Sequence[ObjectMesh]"

CONTACT_DISTANCE = 0.002
"""Metres within which skin counts as touching: ContactOpt's ±2 mm, about what a fingertip gives way."""

__all__ = [
    "CONTACT_DISTANCE",
    "acceleration_error",
    "auc",
    "box_corners",
    "contact_f1",
    "contact_precision",
    "contact_ratio",
    "contact_recall",
    "coverage",
    "fraction_improved",
    "intersection_volume",
    "intersection_volume_voxels",
    "motion_consistency",
    "mpcpe",
    "mpjpe",
    "mpjpe_procrustes",
    "mpjpe_root_relative",
    "mpvpe",
    "pck",
    "penetration_depth",
    "penetration_depth_into_hand",
    "procrustes_align",
    "simulation_displacement",
]


# ------------------------------------------------------------------ joints, vertices, corners


def mpjpe(predicted: Array, target: Array) -> np.ndarray:
    """Mean per-joint position error: mean over j of ‖p_j − t_j‖ (Ionescu et al., Human3.6M, TPAMI 2014).

    Args:
        predicted: (B, J, 3) metres.
        target: (B, J, 3) metres in the same frame.

    Returns:
        (B,) metres.

    Raises:
        ValueError: shapes that differ or are not (B, J, 3).
    """
    return _distances(predicted, target).mean(axis=1)


def mpjpe_root_relative(predicted: Array, target: Array, root: int = 0) -> np.ndarray:
    """MPJPE after moving both hands' joint ``root`` (the wrist) to the origin; see :func:`mpjpe`."""
    predicted, target = _pair(predicted, target)
    if not -predicted.shape[1] <= root < predicted.shape[1]:
        raise ValueError(f"root must index one of {predicted.shape[1]} joints, got {root}")
    return mpjpe(predicted - predicted[:, [root]], target - target[:, [root]])


def mpjpe_procrustes(predicted: Array, target: Array, *, scale: bool = True) -> np.ndarray:
    """MPJPE after the best similarity (``scale=False``: rigid) alignment, as on FreiHAND and HO-3D.

    Alignment: :func:`procrustes_align`. Shapes and errors: :func:`mpjpe`.
    """
    return mpjpe(procrustes_align(predicted, target, scale=scale), target)


def procrustes_align(predicted: Array, target: Array, *, scale: bool = True) -> np.ndarray:
    """Move ``predicted`` onto ``target`` by the least-squares similarity s R p + t (Umeyama, TPAMI 1991).

    Reflections are excluded. A hand with NaN stays NaN.

    Args:
        predicted: (B, J, 3) metres.
        target: (B, J, 3) metres.
        scale: also fit the scale s; otherwise s = 1.

    Returns:
        (B, J, 3) metres.

    Raises:
        ValueError: shapes that differ or are not (B, J, 3).
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
    """Mean per-vertex position error: :func:`mpjpe` over the vertices (B, V, 3) of the hand mesh; (B,) metres."""
    return _distances(predicted, target).mean(axis=1)


def mpcpe(predicted: Array, target: Array) -> np.ndarray:
    """Mean per-corner position error of the object's bounding box (Liu et al., CVPR 2021; Hasson et al. 2020).

    Args:
        predicted: (B, 8, 3) metres, the corners (see :func:`box_corners`) under the predicted object pose.
        target: (B, 8, 3) metres, the same corners under the true one, in the same order.

    Returns:
        (B,) metres.

    Raises:
        ValueError: not eight corners, or shapes that differ.
    """
    errors = _distances(predicted, target)
    if errors.shape[1] != 8:
        raise ValueError(f"predicted must hold the 8 corners of a box, got {errors.shape[1]} points")
    return errors.mean(axis=1)


def box_corners(vertices: Array, object_pose: Array | None = None) -> np.ndarray:
    """Corners of the axis-aligned box around object vertices (V, 3) metres, moved by poses (B, 4, 4) if given.

    Returns:
        (8, 3) metres, z fastest; (B, 8, 3) with poses.
    """
    points = _numpy(vertices)
    low, high = points.min(axis=0), points.max(axis=0)
    pick = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    corners = np.where(pick == 1, high, low)
    if object_pose is None:
        return corners
    pose = _numpy(object_pose)
    return corners @ np.swapaxes(pose[..., :3, :3], -1, -2) + pose[..., None, :3, 3]


def pck(predicted: Array, target: Array, threshold: float) -> np.ndarray:
    """Share of joints no farther than ``threshold`` metres from their target (percentage of correct keypoints).

    Simon et al., CVPR 2017; Zimmermann & Brox, ICCV 2017. Shapes and errors: :func:`mpjpe`; (B,) in [0, 1].
    """
    errors = _distances(predicted, target)
    return np.where(np.isnan(errors).any(axis=1), np.nan, (errors <= threshold).mean(axis=1))


def auc(predicted: Array, target: Array, largest: float = 0.05, steps: int = 100) -> np.ndarray:
    """Area under the PCK curve over thresholds from 0 to ``largest``, divided by ``largest``.

    Trapezoid over ``steps`` equally spaced thresholds, as the FreiHAND and HO-3D evaluations compute it
    (Zimmermann et al., ICCV 2019). Its mean over grasps is the area under the data set's curve.

    Args:
        predicted: (B, J, 3) metres.
        target: (B, J, 3) metres.
        largest: metres, 50 mm by default.
        steps: number of thresholds, at least 2.

    Returns:
        (B,) in [0, 1].

    Raises:
        ValueError: shapes as in :func:`mpjpe`, ``largest`` not positive or fewer than two steps.
    """
    if not (largest > 0 and steps >= 2):
        raise ValueError(f"largest must be positive and steps at least 2, got {largest} and {steps}")
    errors = _distances(predicted, target)
    thresholds = np.linspace(0.0, largest, steps)
    weight = np.full(steps, 1.0 / (steps - 1))
    weight[[0, -1]] /= 2
    # Joints within a threshold, summed with the weights of all thresholds at or above their error.
    above = np.concatenate([np.cumsum(weight[::-1])[::-1], [0.0]])
    area = above[np.searchsorted(thresholds, errors)].mean(axis=1)
    return np.where(np.isnan(errors).any(axis=1), np.nan, area)


# ------------------------------------------------------------------ penetration and contact


def penetration_depth(vertices: Array, obj: Objects) -> np.ndarray:
    """Deepest hand vertex inside the object: max over v of max(0, −sdf(v)).

    The maximal penetration of Hasson et al. (ObMan, CVPR 2019), read off the object's signed-distance
    grid. An object thin enough to lie between vertices is missed: see :func:`penetration_depth_into_hand`.

    Args:
        vertices: (B, V, 3) metres, in the object's frame.
        obj: the object, or one per grasp.

    Returns:
        (B,) metres, zero without penetration.

    Raises:
        ValueError: vertices not (B, V, 3), or as many objects as there are not grasps.
    """
    return np.maximum(-_signed_distance(vertices, obj).min(axis=1), 0.0)


def contact_ratio(vertices: Array, obj: Objects, distance: float = CONTACT_DISTANCE) -> np.ndarray:
    """Whether a hand touches its object at all; the mean over grasps is the published contact ratio.

    1 if any vertex lies nearer to the surface than ``distance`` (2 mm) or inside, else 0; the sample-level
    contact ratio of GraspTTA (Jiang et al., ICCV 2021). Arguments: :func:`penetration_depth`; (B,).
    """
    nearest = _signed_distance(vertices, obj).min(axis=1)
    return np.where(np.isnan(nearest), np.nan, (nearest < distance).astype(np.float64))


def coverage(vertices: Array, obj: Objects, distance: float = CONTACT_DISTANCE) -> np.ndarray:
    """Share of hand vertices within ±``distance`` (2 mm) of the object's surface: contact coverage.

    Grady et al. (ContactOpt, CVPR 2021). Arguments: :func:`penetration_depth`; (B,) in [0, 1].
    """
    signed = _signed_distance(vertices, obj)
    return np.where(np.isnan(signed).any(axis=1), np.nan, (np.abs(signed) <= distance).mean(axis=1))


def contact_precision(predicted: Array, target: Array, threshold: float = 0.5) -> np.ndarray:
    """Share of the points predicted in contact that are: TP / (TP + FP).

    Contact maps (B, n) in [0, 1] are binarised at ``threshold`` (>=). With nothing predicted the value is
    1 where nothing touches and 0 otherwise.

    Args:
        predicted: (B, n) contact values.
        target: (B, n) contact values.
        threshold: value from which a point counts as touching.

    Returns:
        (B,) in [0, 1].

    Raises:
        ValueError: shapes that differ or are not (B, n).
    """
    hit, said, true = _contact_counts(predicted, target, threshold)
    return np.where(said > 0, hit / np.maximum(said, 1), (true == 0).astype(np.float64))


def contact_recall(predicted: Array, target: Array, threshold: float = 0.5) -> np.ndarray:
    """Share of the touching points that are predicted: TP / (TP + FN), 1 when none touches.

    Arguments and errors: :func:`contact_precision`; (B,) in [0, 1].
    """
    hit, _, true = _contact_counts(predicted, target, threshold)
    return np.where(true > 0, hit / np.maximum(true, 1), 1.0)


def contact_f1(predicted: Array, target: Array, threshold: float = 0.5) -> np.ndarray:
    """Harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN), 1 when nothing touches or is said to.

    Arguments and errors: :func:`contact_precision`; (B,) in [0, 1].
    """
    hit, said, true = _contact_counts(predicted, target, threshold)
    return np.where(said + true > 0, 2 * hit / np.maximum(said + true, 1), 1.0)


def fraction_improved(before: Array, after: Array) -> float:
    """Share of grasps whose error (B,) became strictly smaller; grasps with NaN in either count as not."""
    first, second = _numpy(before), _numpy(after)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"before and after must both be (B,), got {first.shape} and {second.shape}")
    return float((second < first).mean()) if len(first) else float("nan")


# ------------------------------------------------------------------ sequences


def acceleration_error(predicted: Array, target: Array, fps: float = 1.0) -> np.ndarray:
    """Mean over frames and joints of ‖a_pred − a_true‖, a_t = (x_{t−1} − 2 x_t + x_{t+1}) fps².

    Kanazawa et al. (HMMR, CVPR 2019).

    Args:
        predicted: (B, T, J, 3) metres, T >= 3.
        target: (B, T, J, 3) metres.
        fps: frames per second; 1 leaves the error in metres per frame², as often published.

    Returns:
        (B,) m/s².

    Raises:
        ValueError: shapes that differ, are not (B, T, J, 3) or have fewer than three frames.
    """
    first, second = _numpy(predicted), _numpy(target)
    if first.shape != second.shape or first.ndim != 4 or first.shape[-1] != 3 or first.shape[1] < 3:
        raise ValueError(
            "predicted and target must both be (B, T, J, 3) with at least 3 frames,"
            f" got {first.shape} and {second.shape}"
        )
    difference = first - second
    jerky = difference[:, :-2] - 2 * difference[:, 1:-1] + difference[:, 2:]
    return np.linalg.norm(jerky, axis=-1).mean(axis=(1, 2)) * fps**2


def motion_consistency(
    vertices: Array, object_pose: Array, obj: Objects, distance: float = CONTACT_DISTANCE
) -> np.ndarray:
    """How far touching skin slides over the object from one frame to the next, root mean square.

    For every vertex within ``distance`` of the object (or inside) in two successive frames: the distance
    between where it goes and where the object's motion would carry it; in the object's frame q that is
    ‖q_{t+1} − q_t‖. After the hand-object motion consistency of GeneOH Diffusion (Liu & Yi, ICLR 2024),
    whose mm² is the square of this.

    Args:
        vertices: (B, T, V, 3) metres, in the camera's or the world's frame.
        object_pose: (B, T, 4, 4) object to that frame.
        obj: the object, or one per sequence.
        distance: metres within which a vertex counts as touching.

    Returns:
        (B,) metres per frame; NaN where no vertex touches in two successive frames.

    Raises:
        ValueError: shapes that do not fit, or as many objects as there are not sequences.
    """
    points, pose = _numpy(vertices), _numpy(object_pose)
    if points.ndim != 4 or points.shape[-1] != 3 or pose.shape != (*points.shape[:2], 4, 4):
        raise ValueError(
            f"vertices must be (B, T, V, 3) and object_pose (B, T, 4, 4), got {points.shape} and {pose.shape}"
        )
    batch, frames, count = points.shape[:3]
    local = (points - pose[:, :, None, :3, 3]) @ pose[:, :, :3, :3]
    signed = _signed_distance(local.reshape(batch, frames * count, 3), obj).reshape(batch, frames, count)
    touching = (signed[:, :-1] < distance) & (signed[:, 1:] < distance)
    slide = (np.diff(local, axis=1) ** 2).sum(axis=-1)
    total = np.where(touching, slide, 0.0).sum(axis=(1, 2))
    pairs = touching.sum(axis=(1, 2))
    result = np.sqrt(total / np.maximum(pairs, 1))
    return np.where((pairs > 0) & np.isfinite(local).all(axis=(1, 2, 3)), result, np.nan)


# ------------------------------------------------------------------ shared


def _numpy(values: Array) -> np.ndarray:
    """Float64 NumPy array of an array or tensor."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def _pair(predicted: Array, target: Array) -> tuple[np.ndarray, np.ndarray]:
    first, second = _numpy(predicted), _numpy(target)
    if first.shape != second.shape or first.ndim != 3 or first.shape[-1] != 3:
        raise ValueError(
            f"predicted and target must both be (B, points, 3), got {first.shape} and {second.shape}"
        )
    return first, second


def _distances(predicted: Array, target: Array) -> np.ndarray:
    first, second = _pair(predicted, target)
    return np.linalg.norm(first - second, axis=-1)


def _contact_counts(
    predicted: Array, target: Array, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers (B,) of true positives, of predicted and of actual contact points."""
    first, second = _numpy(predicted), _numpy(target)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"predicted and target must both be (B, n), got {first.shape} and {second.shape}")
    said, true = first >= threshold, second >= threshold
    return (said & true).sum(axis=1), said.sum(axis=1), true.sum(axis=1)


def _signed_distance(vertices: Array, obj: Objects, chunk: int = 64) -> np.ndarray:
    """Signed distance (B, V) in metres of the vertices (B, V, 3) to their object, NaN for NaN."""
    points = torch.as_tensor(vertices).detach().float()
    if points.ndim != 3 or points.shape[-1] != 3 or points.shape[1] == 0:
        raise ValueError(f"vertices must be (B, V, 3), got {tuple(points.shape)}")
    which = torch.zeros(len(points), dtype=torch.int64)
    if isinstance(obj, ObjectMesh):
        grid = obj.grid
    else:
        if len(obj) != len(points):
            raise ValueError(
                f"obj must be one object or one per grasp: got {len(obj)} for {len(points)} grasps"
            )
        unique = {id(o): o for o in obj}
        place = {key: i for i, key in enumerate(unique)}
        grid = SignedDistanceGrid.cat([o.grid for o in unique.values()])
        which = torch.tensor([place[id(o)] for o in obj], dtype=torch.int64)
    parts = [
        grid.query(points[i : i + chunk].to(grid.values.device), which[i : i + chunk].to(grid.values.device))[
            0
        ].cpu()
        for i in range(0, len(points), chunk)
    ]
    return torch.cat(parts).double().numpy() if parts else np.zeros(points.shape[:2])
