"""Hands before a camera, and what the camera says of them: a scene in numbers that tests may state in part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import trimesh
from torch import Tensor

from contact.perturb import perturb
from hand_models import HandModel, HandPose
from hand_models.rotations import exp_so3
from refine.evidence.input_error import line_of_sight
from refine.files.prediction_poses import into_camera_frame

INTRINSICS = torch.tensor([[600.0, 0.0, 320.0], [0.0, 600.0, 240.0], [0.0, 0.0, 1.0]])
RADIUS = 0.032
FLIP = torch.tensor([-1.0, 1.0, 1.0, 1.0])


def can() -> trimesh.Trimesh:
    return trimesh.creation.cylinder(RADIUS, 0.12, sections=48)


@dataclass(frozen=True)
class Scene:
    """``B`` hands of an image estimator, in the camera's frame, and what else is known, as arguments are called."""

    model: HandModel
    truth: HandPose
    """object frame"""
    given: HandPose
    """camera frame"""
    object_pose: Tensor
    keypoints_2d: Tensor
    confidence: Tensor
    depth_points: Tensor

    def known(self, *names: str, rows: Any = slice(None)) -> dict[str, Any]:
        """Arguments: "input_error", "keypoints" (with camera and confidence), "depth"."""
        found: dict[str, Any] = {}
        if "input_error" in names:
            found["input_error"] = "camera"
        if "keypoints" in names:
            found |= {
                "camera": INTRINSICS, "keypoints_2d": self.keypoints_2d[rows], "confidence": self.confidence[rows],
                "keypoint_sigma": 2.0,
            }  # fmt: skip
        if "depth" in names:
            found["depth_points"] = self.depth_points[rows]
        return found

    def pixels_off(self, pose: HandPose) -> Tensor:
        """(B,) mean distance of joints, hands in the camera's frame, from where the truth is seen."""
        image = into_camera_frame(self.truth, self.object_pose, self.model)
        return (project(self.model, pose) - project(self.model, image)).norm(dim=2).mean(1)

    def mirrored(self) -> Scene:
        """Left hands, seen by a camera in the mirror: pixels change sides about the centre of the picture."""
        pose = FLIP[:, None] * self.object_pose * FLIP
        pixels = self.keypoints_2d * torch.tensor([-1.0, 1.0]) + torch.tensor([2 * 320.0, 0.0])
        return replace(
            self, truth=self.truth.mirrored(), given=self.given.mirrored(), object_pose=pose, keypoints_2d=pixels,
            depth_points=self.depth_points * FLIP[:3],
        )  # fmt: skip


def project(model: HandModel, pose: HandPose) -> Tensor:
    """(B, 21, 2) pixels of hands in the camera's frame."""
    image = model.joints(pose) @ INTRINSICS.T
    return image[..., :2] / image[..., 2:]


def scene(model: HandModel) -> Scene:
    """Three half-closed right hands beside the can, no two alike, off as an image estimator's are."""
    g = torch.Generator().manual_seed(0)
    bend = torch.zeros(3, 15, 3)
    bend[:, :12, 2] = 0.5 + 0.1 * torch.randn(3, 12, generator=g)
    transl = torch.tensor([-0.02, 0.06, 0.0]) + 0.01 * torch.randn(3, 3, generator=g)
    truth = HandPose("right", 0.2 * torch.randn(3, 3, generator=g), bend, torch.zeros(3, 10), transl)
    pose = torch.eye(4).repeat(3, 1, 1)
    pose[:, :3, :3] = exp_so3(torch.tensor([[1.5, 0.3, -0.2], [-0.4, 0.2, 0.9], [0.1, 2.0, 0.3]]))
    pose[:, :3, 3] = torch.tensor([[0.03, -0.02, 0.5], [-0.05, 0.04, 0.7], [0.0, 0.0, 0.45]])
    noisy = perturb(truth, "camera", seed=g, model=model, view=line_of_sight(truth, model, pose))
    seen = into_camera_frame(truth, pose, model)
    keypoints = project(model, seen) + 2 * torch.randn(3, 21, 2, generator=g)
    confidence = 0.5 + 0.5 * torch.rand(3, 21, generator=g)
    keypoints[:, 4], confidence[:, 9] = torch.nan, 0.0
    return Scene(model, truth, into_camera_frame(noisy, pose, model), pose, keypoints, confidence, skin(model, seen))


def skin(model: HandModel, seen: HandPose, count: int = 40) -> Tensor:
    """(B, count, 3) points of the skin that faces the camera, hands in its frame; row by row fewer, then NaN."""
    vertices, points = model(seen).vertices.numpy(), np.full((len(seen), count, 3), np.nan, np.float32)
    for row, places in enumerate(vertices):
        normals = trimesh.Trimesh(places, model.faces_for(seen.side).numpy(), process=False).vertex_normals
        shown = np.flatnonzero((places * normals).sum(1) < -0.5 * np.linalg.norm(places, axis=1))
        chosen = shown[:: max(1, len(shown) // count)][: count - 5 * row]
        points[row, : len(chosen)] = places[chosen]
    return torch.from_numpy(points)
