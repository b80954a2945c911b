"""Pinhole cameras that look at a scene. Metres, OpenCV axes (x right, y down, z forward)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors (..., 3) at length 1; those of no length stay 0."""
    length = np.sqrt(np.einsum("...c,...c->...", vectors, vectors))
    return vectors / np.maximum(length, 1e-12)[..., None]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: pose (4, 4) camera to world, OpenCV axes (x right, y down, z forward); fov the
    full vertical field of view in radians, or in its place matrix (3, 3), intrinsics in pixels of the picture."""

    pose: np.ndarray
    fov: float = 0.6
    matrix: np.ndarray | None = None

    def rays(self, size: tuple[int, int], samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Origin (3,) and unit directions (height * samples, width * samples, 3) through sample centres."""
        x, y = ((np.arange(side * samples) + 0.5) / samples - 0.5 for side in size)  # 0: middle of the first pixel
        focal = size[1] / 2 / np.tan(self.fov / 2)
        matrix = np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]])
        right, down, forward = (self.pose[:3, :3] @ np.linalg.inv(matrix if self.matrix is None else self.matrix)).T
        world = x[None, :, None] * right + (y[:, None, None] * down + forward)
        return self.pose[:3, 3], unit(world.astype(np.float32))


def look_at(
    eye: Sequence[float], target: Sequence[float], up: Sequence[float] = (0.0, 0.0, 1.0), fov: float = 0.6
) -> Camera:
    """Camera at `eye` that sees `target` in its centre with `up` upwards in the picture (metres)."""
    eye = np.asarray(eye, dtype=np.float64)
    forward = np.asarray(target, dtype=np.float64) - eye
    if np.linalg.norm(forward) < 1e-12:
        raise ValueError("look_at: eye and target are one point; move the eye away")
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(up, dtype=np.float64))
    if np.linalg.norm(right) < 1e-6:  # looking along `up`: any other direction will do
        right = np.cross(forward, np.eye(3)[np.argmin(np.abs(forward))])
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return Camera(pose, fov)


def frame(
    vertices: np.ndarray, direction: Sequence[float], *, up: Sequence[float] = (0.0, 0.0, 1.0),
    size: tuple[int, int] = (640, 480), fov: float = 0.6, margin: float = 0.08,
) -> Camera:  # fmt: skip
    """The closest camera, looking from `direction`, that has all `vertices` (N, 3) in the picture.

    `margin` is the free share at each side.
    """
    points = np.asarray(vertices, dtype=np.float64)
    pose = look_at(direction, np.zeros(3), up, fov).pose.copy()
    local = points @ pose[:3, :3]
    slope = np.tan(fov / 2) * (1 - 2 * margin) * np.array([size[0] / size[1], 1.0])
    low = (-local[:, :2] - slope * local[:, 2:]).max(0)
    high = (local[:, :2] - slope * local[:, 2:]).max(0)
    centre = np.array([*(high - low) / 2, (-(low + high) / (2 * slope)).min()])
    pose[:3, 3] = pose[:3, :3] @ centre
    return Camera(pose, fov)
