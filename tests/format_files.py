"""Small files in other people's formats, and a second opinion on what they mean.

`surface` is MANO's forward model written out in numpy from the papers' formulas, apart from the package's own.
`hands` draws hands; each ``write_*`` stores some in one format's exact layout.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mano_file
import numpy as np
from scipy.spatial.transform import Rotation

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
FLIP = np.diag([1.0, -1.0, -1.0])


@functools.cache
def mano_fields(side: str = "right") -> dict[str, Any]:
    """What `mano_file.write_mano` writes."""
    return mano_file.mano_fields(side)


def turn(vector: np.ndarray) -> np.ndarray:
    """Rotation matrices of axis-angle vectors ``(..., 3)``."""
    vector = np.asarray(vector, float)
    return Rotation.from_rotvec(vector.reshape(-1, 3)).as_matrix().reshape(*vector.shape[:-1], 3, 3)


def vector(matrix: np.ndarray) -> np.ndarray:
    """Axis-angle vectors of rotation matrices ``(..., 3, 3)``."""
    return Rotation.from_matrix(matrix.reshape(-1, 3, 3)).as_rotvec().reshape(*matrix.shape[:-2], 3)


def surface(
    fields: dict[str, Any], rotations: np.ndarray, betas: np.ndarray, template: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """MANO's 778 vertices and 16 joints for 16 local rotations ``(16, 3, 3)``, before any translation."""
    template = fields["v_template"] if template is None else template
    shaped = template + fields["shapedirs"] @ betas
    rest = fields["J_regressor"].toarray() @ shaped
    posed = shaped + fields["posedirs"] @ (rotations[1:] - np.eye(3)).ravel()
    world = []
    for bone, parent in enumerate(PARENTS):
        step = np.eye(4)
        step[:3, :3] = rotations[bone]
        step[:3, 3] = rest[bone] - (rest[parent] if bone else 0)
        world.append(step if bone == 0 else world[parent] @ step)
    joints = np.array([matrix[:3, 3] for matrix in world])
    skin = np.array([np.c_[m[:3, :3], m[:3, 3] - m[:3, :3] @ rest[k]] for k, m in enumerate(world)])
    blend = np.einsum("vk,kxy->vxy", fields["weights"], skin)
    return np.einsum("vxy,vy->vx", blend[..., :3], posed) + blend[..., 3], joints


@dataclass(frozen=True)
class Hands:
    """Random hands, absolute angles, and their surfaces in the frame they are given in."""

    orient: np.ndarray
    """(N, 3)"""
    pose: np.ndarray
    """(N, 15, 3) absolute"""
    betas: np.ndarray
    """(N, 10)"""
    transl: np.ndarray
    """(N, 3)"""
    vertices: np.ndarray
    """(N, 778, 3)"""
    joints: np.ndarray
    """(N, 16, 3)"""
    objects: np.ndarray
    """(N, 4, 4) object to camera"""

    def __len__(self) -> int:
        return len(self.orient)


def hands(
    count: int = 3, *, side: str = "right", seed: int = 0, pose: np.ndarray | None = None,
    betas: np.ndarray | None = None, place: Any = (0.02, -0.03, 0.7), template: np.ndarray | None = None,
) -> Hands:  # fmt: skip
    """``count`` hands before an OpenCV camera; ``pose`` (count, 15, 3) and ``betas`` replace the random ones."""
    rng, fields = np.random.default_rng(seed), mano_fields(side)
    orient = rng.normal(size=(count, 3))
    betas = rng.normal(size=(count, 10)) if betas is None else betas
    pose = rng.normal(scale=0.3, size=(count, 15, 3)) if pose is None else pose
    transl = rng.normal(scale=0.05, size=(count, 3)) + place
    vertices, joints = [], []
    for k in range(count):
        v, j = surface(fields, turn(np.concatenate([orient[k : k + 1], pose[k]])), betas[k], template)
        vertices.append(v + transl[k])
        joints.append(j + transl[k])
    objects = np.tile(np.eye(4), (count, 1, 1))
    objects[:, :3, :3] = turn(rng.normal(size=(count, 3)))
    objects[:, :3, 3] = rng.normal(scale=0.05, size=(count, 3)) + place
    return Hands(orient, pose, betas, transl, np.array(vertices), np.array(joints), objects)


def principal(hand: Hands, side: str, count: int, *, flat: bool) -> np.ndarray:
    """Coefficients ``(N, count)`` of MANO's components; exact when the pose lies in their span."""
    fields = mano_fields(side)
    offset = 0 if flat else fields["hands_mean"]
    return (hand.pose.reshape(len(hand), 45) - offset) @ fields["hands_components"][:count].T


def hands_in_span(count: int, side: str, components: int, *, flat: bool, seed: int = 0, **more: Any) -> Hands:
    """Hands whose poses the first ``components`` of MANO express exactly."""
    fields, rng = mano_fields(side), np.random.default_rng(seed + 100)
    pose = rng.normal(scale=0.3, size=(count, components)) @ fields["hands_components"][:components]
    pose = pose + (0 if flat else fields["hands_mean"])
    return hands(count, side=side, seed=seed, pose=pose.reshape(count, 15, 3), **more)


def with_tips(hand: Hands, tips: tuple[int, ...]) -> np.ndarray:
    """21 joints ``(N, 21, 3)``: MANO's 16, then five fingertip vertices, thumb to pinky."""
    return np.concatenate([hand.joints, hand.vertices[:, list(tips)]], 1)


OPENPOSE_OF_MANO = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
"""OpenPose's 21 joints among `with_tips`'."""


def text(path: Path, content: str) -> Path:
    """Write a text file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path
