"""Where a hand touches its object and how deep it sinks in, and predicted contact maps against true ones.

Arrays or tensors of a batch go in, one value per grasp (B,) comes out; NaN for hands with NaN. Distances are
read off the object's signed-distance grid.
"""

from __future__ import annotations

import numpy as np
import torch

from .arguments import Array, Objects, alike, per_grasp

CONTACT_DISTANCE = 0.002
"""Metres within which skin counts as touching: ContactOpt's ±2 mm, about what a fingertip gives way."""
_CHUNK = 64


def penetration_depth(vertices: Array, obj: Objects) -> np.ndarray:
    """Deepest hand vertex inside the object: max over v of max(0, −sdf(v)); metres.

    The maximal penetration of Hasson et al. (ObMan, CVPR 2019). An object thin enough to lie between vertices
    is missed: see `refine.measure.volumes.penetration_depth_into_hand`. Vertices are (B, V, 3) metres in the frame
    of the object, or one per grasp; others, or as many objects as there are not grasps, are a ``ValueError``.
    """
    return np.maximum(-signed_distance(vertices, obj).min(axis=1), 0.0)


def contact_ratio(vertices: Array, obj: Objects, distance: float = CONTACT_DISTANCE) -> np.ndarray:
    """Whether a hand touches its object at all; the mean over grasps is the published contact ratio.

    1 if any vertex lies nearer to the surface than ``distance`` or inside, else 0; the sample-level
    contact ratio of GraspTTA (Jiang et al., ICCV 2021). Arguments and errors: :func:`penetration_depth`.
    """
    nearest = signed_distance(vertices, obj).min(axis=1)
    return np.where(np.isnan(nearest), np.nan, (nearest < distance).astype(np.float64))


def coverage(vertices: Array, obj: Objects, distance: float = CONTACT_DISTANCE) -> np.ndarray:
    """Share of hand vertices within ±``distance`` of the object's surface: contact coverage.

    Grady et al. (ContactOpt, CVPR 2021). Arguments and errors: :func:`penetration_depth`.
    """
    signed = signed_distance(vertices, obj)
    return np.where(np.isnan(signed).any(axis=1), np.nan, (np.abs(signed) <= distance).mean(axis=1))


def contact_precision(predicted: Array, target: Array, threshold: float = 0.5) -> np.ndarray:
    """Share of the points predicted in contact that are: TP / (TP + FP).

    Contact maps (B, n) in [0, 1] are binarised at ``threshold`` (>=). With nothing predicted the value is
    1 where nothing touches and 0 otherwise. Raises ``ValueError`` for maps that differ in shape.
    """
    hit, said, true = _contact_counts(predicted, target, threshold)
    return np.where(said > 0, hit / np.maximum(said, 1), (true == 0).astype(np.float64))


def contact_recall(predicted: Array, target: Array, threshold: float = 0.5) -> np.ndarray:
    """Share of the touching points that are predicted: TP / (TP + FN), 1 when none touches; as `contact_precision`."""
    hit, _, true = _contact_counts(predicted, target, threshold)
    return np.where(true > 0, hit / np.maximum(true, 1), 1.0)


def contact_f1(predicted: Array, target: Array, threshold: float = 0.5) -> np.ndarray:
    """2 TP / (2 TP + FP + FN), 1 when nothing touches or is said to; as `contact_precision`."""
    hit, said, true = _contact_counts(predicted, target, threshold)
    return np.where(said + true > 0, 2 * hit / np.maximum(said + true, 1), 1.0)


def signed_distance(vertices: Array, obj: Objects) -> np.ndarray:
    """Signed distance (B, V) in metres of the vertices (B, V, 3) to their object, NaN for NaN."""
    (known,) = alike("(B, V, 3)", vertices=vertices)
    points, things = torch.from_numpy(known).float(), per_grasp(obj, len(known))
    signed = np.empty(points.shape[:2])
    for thing in {id(thing): thing for thing in things}.values():
        rows = np.array([row for row, other in enumerate(things) if other is thing])
        for start in range(0, len(rows), _CHUNK):
            some = rows[start : start + _CHUNK]
            signed[some] = thing.grid.query(points[some].to(thing.grid.values.device))[0].cpu()
    return signed


def _contact_counts(predicted: Array, target: Array, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers (B,) of true positives, of predicted and of actual contact points."""
    said, true = (values >= threshold for values in alike("(B, n)", predicted=predicted, target=target))
    return (said & true).sum(axis=1), said.sum(axis=1), true.sum(axis=1)
