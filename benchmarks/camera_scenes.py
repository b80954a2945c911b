"""Cameras before grasps, and what they see: keypoints of the hand, points on its skin that the object leaves free.

A camera stands 0.7 m before the centre of a grasp's joints, its focal length is 600 pixels, and where it stands is
drawn at random, grasp by grasp. Hands in the object's frame, metres and pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from contact.objects import ObjectMesh
from contact.objects.surface_points import first_hit
from hand_models import HandModel, HandPose
from refine.measure.picture import project

INTRINSICS = np.array([[600.0, 0.0, 320.0], [0.0, 600.0, 240.0], [0.0, 0.0, 1.0]])
DISTANCE = 0.7
KEYPOINT_NOISE = 3.0
"""Pixels per axis, independent between keypoints."""
DEPTH_POINTS = 300
"""At most, of one hand."""
DEPTH_NOISE = 0.003
"""Metres per axis, independent between points."""
_STRIDE = 3  # of the pixels a depth camera is read at: some 700 lie on a hand that nothing hides


@dataclass(frozen=True)
class Cameras:
    """``N`` cameras, one before each grasp."""

    view: Tensor
    """(N, 3) unit vectors along the line of sight, object's frame"""
    object_pose: Tensor
    """(N, 4, 4) object to camera"""

    @staticmethod
    def facing(centre: Tensor, seed: int) -> Cameras:
        """Cameras that look at ``centre (N, 3)`` from random directions."""
        generator = torch.Generator().manual_seed(seed)
        view, across = normalize(torch.randn(2, len(centre), 3, generator=generator), dim=2)
        right = normalize(torch.linalg.cross(across, view), dim=1)
        rotation = torch.stack([right, torch.linalg.cross(view, right), view], dim=1)
        pose = torch.eye(4).repeat(len(centre), 1, 1)
        pose[:, :3, :3] = rotation
        pose[:, :3, 3] = -(rotation @ (centre - DISTANCE * view)[..., None])[..., 0]
        return Cameras(view, pose)

    @cached_property
    def eye(self) -> np.ndarray:
        """(N, 3) where the cameras are, object's frame."""
        pose = self.object_pose.double()
        return -(pose[:, :3, :3].transpose(1, 2) @ pose[:, :3, 3:])[..., 0].numpy()

    @property
    def projection(self) -> np.ndarray:
        """(N, 3, 4) from the object's frame onto the picture."""
        return INTRINSICS @ self.object_pose[:, :3].double().numpy()

    def keypoints(self, joints: Tensor, seed: int) -> np.ndarray:
        """(N, 21, 2) pixels: where the joints (N, 21, 3) are seen, and noise."""
        seen = project(joints, self.projection)
        return (seen + np.random.default_rng(seed).normal(0, KEYPOINT_NOISE, seen.shape)).astype(np.float32)

    def depth_points(
        self, rows: np.ndarray, pose: HandPose, model: HandModel, meshes: list[ObjectMesh], seed: int
    ) -> np.ndarray:
        """(len(rows), 300, 3) measured points of the hands of ``rows`` on their objects, camera's frame; NaN-padded.

        A row's points depend on no other row.
        """
        skin, faces = model(pose[torch.from_numpy(rows)]).vertices.double().numpy(), model.faces_for(pose.side).numpy()
        found = np.full((len(rows), DEPTH_POINTS, 3), np.nan)
        for k, (row, hand, mesh) in enumerate(zip(rows.tolist(), skin, meshes, strict=True)):
            rng, eye = np.random.default_rng([seed, row]), self.eye[row]
            points = visible_skin(hand, faces, mesh, eye, self.projection[row])
            points = points[rng.permutation(len(points))[:DEPTH_POINTS]]
            found[k, : len(points)] = points + rng.normal(0, DEPTH_NOISE, points.shape)
        placed = self.object_pose[torch.from_numpy(rows)].double().numpy()
        return (found @ np.swapaxes(placed[:, :3, :3], 1, 2) + placed[:, None, :3, 3]).astype(np.float32)


def visible_skin(
    hand: np.ndarray, faces: np.ndarray, mesh: ObjectMesh, eye: np.ndarray, projection: np.ndarray
) -> np.ndarray:
    """Points (n, 3) where rays through every third pixel meet the hand before they meet the object.

    Args:
        hand: (V, 3) in the object's frame, as everything here; ``faces`` (F, 3).
        eye: (3,) where the camera is.
        projection: (3, 4) onto the picture.
    """
    pixels = project(hand[None], projection[None])[0]
    low, high = np.floor(pixels.min(0)), np.ceil(pixels.max(0))
    columns, rows = (np.arange(a, b + 1, _STRIDE) for a, b in zip(low, high, strict=True))
    x, y = (v.ravel() for v in np.meshgrid(columns, rows))
    rays = np.linalg.solve(projection[:, :3], np.stack([x, y, np.ones_like(x)])).T
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    start = np.broadcast_to(eye, rays.shape)
    skin = first_hit(hand, faces, start, rays, 0.0)
    on_hand = np.isfinite(skin)
    start, rays, skin = start[on_hand], rays[on_hand], skin[on_hand]
    thing = first_hit(mesh.vertices.double().numpy(), mesh.faces.numpy(), start, rays, 0.0)
    seen = skin < thing
    return start[seen] + skin[seen, None] * rays[seen]
