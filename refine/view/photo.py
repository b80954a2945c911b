"""The user's own picture of a grasp and the camera that took it: what a hand has to lie on."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from .camera import Camera


@dataclass(frozen=True)
class Photo:
    """One picture. Pixels as OpenCV counts them: whole numbers are the middles of pixels."""

    image: np.ndarray
    """(H, W, 3) uint8"""
    matrix: np.ndarray
    """(3, 3) intrinsics, pixels of the image"""
    pose: np.ndarray
    """(4, 4) camera to the frame of the view, OpenCV axes"""
    keypoints: np.ndarray | None = None
    """(n, 2) where joints (and corners of a box) were seen, pixels, NaN where they were not"""

    @staticmethod
    def of(image: Any, camera: Any, keypoints: Any = None, object_pose: np.ndarray | None = None) -> Photo:
        """A photo, checked.

        Args:
            image: path, pillow image, or array ``(H, W, 3)`` or ``(H, W)`` uint8.
            camera: ``(3, 3)`` intrinsics in its pixels.
            keypoints: ``(n, 2)`` or none.
            object_pose: ``(4, 4)`` the frame of the view to the camera; None: they are one.

        Raises:
            ValueError: one of them is none of these.
            FileNotFoundError: there is no such image.
        """
        try:
            matrix = np.asarray(camera, np.float64)
        except (TypeError, ValueError):
            matrix = np.zeros(0)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or min(matrix[0, 0], matrix[1, 1]) <= 0:
            raise ValueError(
                f"camera: an image needs the camera that took it, (3, 3) intrinsics in its pixels "
                f"[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]; got {'none' if camera is None else f'shape {matrix.shape}'}."
            )
        points = None if keypoints is None else np.asarray(keypoints, np.float64)
        if points is not None and (points.ndim != 2 or points.shape[1] != 2):
            raise ValueError(f"keypoints_2d: got shape {points.shape}; expected (21, 2), pixels of the image.")
        pose = np.eye(4) if object_pose is None else np.linalg.inv(np.asarray(object_pose, np.float64))
        return Photo(_pixels(image), matrix, pose, points)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def camera(self) -> Camera:
        """The camera, for `render` at the photo's size."""
        return Camera(self.pose, matrix=self.matrix)

    def within(self, longest: int) -> Photo:
        """The same photo with its longer side at most ``longest`` pixels."""
        share = longest / max(self.size)
        if share >= 1:
            return self
        size = (max(1, round(self.size[0] * share)), max(1, round(self.size[1] * share)))
        scale = np.array([size[0] / self.size[0], size[1] / self.size[1]])
        # From the middle of a pixel to its corner, scaled, and back.
        corner = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        matrix = np.linalg.inv(corner) @ np.diag([*scale, 1.0]) @ corner @ self.matrix
        keypoints = None if self.keypoints is None else (self.keypoints + 0.5) * scale - 0.5
        image = np.asarray(Image.fromarray(self.image).resize(size, Image.Resampling.LANCZOS))
        return replace(self, image=image, matrix=matrix, keypoints=keypoints)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) in the frame of the view to pixels (..., 2)."""
        seen = (np.asarray(points) - self.pose[:3, 3]) @ self.pose[:3, :3] @ self.matrix.T
        return seen[..., :2] / seen[..., 2:]

    def depth(self, points: np.ndarray) -> np.ndarray:
        """Of points (..., 3) in the frame of the view, how far before the camera they are, metres (...,)."""
        return (np.asarray(points) - self.pose[:3, 3]) @ self.pose[:3, 2]

    def jpeg(self, quality: int = 85) -> bytes:
        """The image as a file."""
        stream = io.BytesIO()
        Image.fromarray(self.image).save(stream, "JPEG", quality=quality)
        return stream.getvalue()


def _pixels(image: Any) -> np.ndarray:
    if isinstance(image, str | PathLike):
        try:
            with Image.open(image) as opened:
                return np.asarray(opened.convert("RGB"))
        except UnidentifiedImageError:
            raise ValueError(f"image: {str(image)!r} is no picture that pillow reads; give a JPEG or a PNG.") from None
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.ndim == 2:
        pixels = pixels[..., None].repeat(3, 2)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(f"image: got {pixels.dtype} {pixels.shape}; give a path or an array (H, W, 3) uint8.")
    return pixels
