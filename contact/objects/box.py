"""The axis-aligned box around an object, whose corners stand for the object's pose."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def box_corners(vertices: np.ndarray | Tensor, object_pose: np.ndarray | Tensor | None = None) -> np.ndarray:
    """Corners of the axis-aligned box around object vertices (V, 3) metres, moved by poses (B, 4, 4) if given.

    Returns:
        (8, 3) metres, z fastest; (B, 8, 3) with poses.
    """
    points = _float64(vertices)
    pick = np.indices((2, 2, 2)).reshape(3, 8).T
    corners = np.where(pick == 1, points.max(axis=0), points.min(axis=0))
    if object_pose is None:
        return corners
    pose = _float64(object_pose)
    return corners @ np.swapaxes(pose[..., :3, :3], -1, -2) + pose[..., None, :3, 3]


def _float64(values: np.ndarray | Tensor) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().double().numpy()
