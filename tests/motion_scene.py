"""A short motion for tests: an open hand that comes to a box, holds it while it is carried, and lets go."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import trimesh
from torch import Tensor

from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.rotations import exp_so3

LENGTH = 60
HELD = slice(18, 44)
"""frames in which the hand touches the box"""


@dataclass(frozen=True)
class MotionScene:
    """A right hand over time, in the frame of a camera, and the box that it carries."""

    model: HandModel
    mesh: ObjectMesh
    pose: HandPose
    """camera's frame"""
    object_poses: Tensor
    """(T, 4, 4)"""

    @property
    def inside(self) -> HandPose:
        """The hand in the box' frame."""
        inverse = torch.linalg.inv(self.object_poses)
        return self.pose.transformed(inverse[:, :3, :3], inverse[:, :3, 3], self.model.root(self.pose))


def _ease(t: Tensor) -> Tensor:
    """Minimum jerk from 0 to 1 (Flash & Hogan 1985)."""
    t = t.clamp(0, 1)
    return t**3 * (10 - 15 * t + 6 * t**2)


@cache
def motion_scene() -> MotionScene:
    """The hand lies with its palm on a box, flat; the box is lifted by 15 cm and turned while it is held."""
    model = load_open_hand()
    flat = HandPose.zeros(1)
    hand = model(flat)
    skin = hand.vertices[0]
    middle = hand.joints[0, [5, 9, 13, 17]].mean(0)
    near = skin[(skin[:, [0, 2]] - middle[[0, 2]]).norm(dim=1) < 0.03]
    low = float(near[:, 1].min())
    mesh = ObjectMesh.from_any(trimesh.creation.box((0.10, 0.06, 0.08)), name="box", resolution=32, cache=False)
    # The palm faces -y: it touches the upper face of the box, y = 0.03.
    shift = torch.tensor([-float(middle[0]), 0.03 - low - 0.001, -float(middle[2])])
    at = torch.arange(LENGTH, dtype=torch.float32)
    away = 1 - _ease(at / HELD.start) + _ease((at - HELD.stop + 1) / (LENGTH - HELD.stop))
    inside = HandPose(
        "right",
        torch.zeros(LENGTH, 3),
        torch.zeros(LENGTH, 15, 3),
        torch.zeros(LENGTH, 10),
        shift + away[:, None] * torch.tensor([0.05, 0.2, 0.03]),
    )
    carried = _ease((at - HELD.start) / (HELD.stop - HELD.start))
    poses = torch.eye(4).repeat(LENGTH, 1, 1)
    poses[:, :3, :3] = exp_so3(carried[:, None] * torch.tensor([0.1, 0.5, 0.0]))
    poses[:, :3, 3] = torch.tensor([0.05, 0.0, 0.6]) + carried[:, None] * torch.tensor([0.1, -0.15, 0.0])
    pose = inside.transformed(poses[:, :3, :3], poses[:, :3, 3], model.root(inside))
    return MotionScene(model, mesh, pose, poses)


def error(scene: MotionScene, pose: HandPose, side: str = "right") -> np.ndarray:
    """(T,) millimetres, mean of the joints."""
    truth = scene.pose if side == "right" else scene.pose.mirrored()
    return 1e3 * (scene.model.joints(pose) - scene.model.joints(truth)).norm(dim=2).mean(1).numpy()
