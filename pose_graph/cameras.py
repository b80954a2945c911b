"""Training data: grasps seen by random pinhole cameras, with the faults that keypoint detectors have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hand_models.record import Record, shared

from .graph import CORNERS, JOINTS, NODES
from .lifting import project, to_rays

_FINGERS = tuple(tuple(range(1 + 4 * k, 5 + 4 * k)) for k in range(5))
_PART = torch.tensor([-1, *(k for k in range(5) for _ in range(4)), *(5 for _ in range(CORNERS))])
"""(29,) finger of each node; 5 for the corners, -1 for the wrist."""
_FULL_CONFIDENCE = 10.0
"""Pixels of noise at which confidence is one half."""


@dataclass(frozen=True)
class GraspSet(Record):
    """``N`` grasps as 29 points, and the surfaces of the ``G`` objects if these are known."""

    points: Tensor
    """(N, 29, 3) metres; in the object's frame, or in a camera's if ``cam_K`` is given"""
    which: Tensor
    """(N,) object of each grasp"""
    box: Tensor
    """(N, 3) metres, edges of the object's box; NaN where unknown"""
    surface: Tensor | None = shared(default=None)
    """(G, n, 3) points, object frame"""
    normals: Tensor | None = shared(default=None)
    """(G, n, 3) outward"""
    cam_K: Tensor | None = None
    """(N, 3, 3) cameras that the points are in front of; None: random cameras look at them"""
    keypoints: Tensor | None = None
    """(N, 29, 2) what a detector saw through ``cam_K``; None: projections with noise"""


@dataclass(frozen=True)
class CameraConfig:
    """Random cameras and detectors; lengths in metres and pixels. The camera is that of FHAB."""

    focal: float = 1395.75
    focal_spread: float = 0.25
    """largest relative deviation of the focal length"""
    size: tuple[int, int] = (1920, 1080)
    distance: tuple[float, float] = (0.30, 0.90)
    noise: tuple[float, float] = (2.0, 10.0)
    """smallest and largest standard deviation of keypoints, one drawn for each picture"""
    drop: float = 0.05
    """share of keypoints that are missing, besides whole fingers and boxes"""
    drop_part: float = 0.05
    """share of pictures in which a finger, or the whole box, is missing"""
    swap: float = 0.10
    """share of pictures in which two joints, or two corners, are taken for each other"""
    unsaid: float = 0.3
    """share of pictures whose detector says confidence 1 of everything it sees"""
    box_unknown: float = 0.1
    """share of grasps whose object is not known"""


@dataclass(frozen=True)
class Sample:
    """``B`` grasps as seen, and as they are."""

    keypoints: Tensor
    """(B, 29, 2) pixels, as detected; NaN where missing"""
    confidence: Tensor
    """(B, 29)"""
    cam_K: Tensor
    """(B, 3, 3)"""
    box: Tensor
    """(B, 3) NaN where not told"""
    points: Tensor
    """(B, 29, 3) metres, camera frame: the truth"""
    rotation: Tensor
    """(B, 3, 3) object to camera"""
    translation: Tensor
    """(B, 3)"""


def sample(grasps: GraspSet, index: Tensor, config: CameraConfig, generator: torch.Generator) -> Sample:
    """Look at the grasps ``index`` through random cameras (or their own) and random detectors."""
    chosen = grasps[index]
    batch = len(index)
    if chosen.cam_K is None:
        cam_K = _random_cameras(batch, config, generator)
        rotation = random_rotations(batch, generator)
        aim = _random_places(batch, cam_K, config, generator)
        translation = aim - (rotation @ chosen.points.mean(1)[..., None])[..., 0]
    else:
        cam_K = chosen.cam_K
        rotation, translation = torch.eye(3).expand(batch, 3, 3), torch.zeros(batch, 3)
    points = chosen.points @ rotation.transpose(1, 2) + translation[:, None]
    clean = project(points, cam_K)
    keypoints, confidence = detect(clean, config, generator)
    if chosen.keypoints is not None:
        keypoints = chosen.keypoints
        confidence = keypoints.isfinite().all(-1).float()
    untold = torch.rand(batch, 1, generator=generator) < config.box_unknown
    box = chosen.box.masked_fill(untold, torch.nan)
    return Sample(keypoints, confidence, cam_K, box, points, rotation, translation)


def detect(clean: Tensor, config: CameraConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Keypoints ``(B, 29, 2)`` with noise, gaps and mix-ups, and the confidence ``(B, 29)`` in each."""
    batch = len(clean)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    low, high = config.noise
    level = low + (high - low) * uniform(batch, 1)
    sigma = (level * (0.35 * torch.randn(batch, NODES, generator=generator)).exp()).clamp(low, high)
    keypoints = clean + sigma[..., None] * torch.randn(batch, NODES, 2, generator=generator)
    keypoints = _mix_up(keypoints, config.swap, generator)
    confidence = confidence_of(sigma) * (1 - 0.2 * uniform(batch, NODES))
    confidence = confidence.masked_fill(uniform(batch, 1) < config.unsaid, 1)
    missing = uniform(batch, NODES) < config.drop
    part = torch.randint(len(_FINGERS) + 1, (batch,), generator=generator)
    missing |= (part[:, None] == _PART) & (uniform(batch, 1) < config.drop_part)
    return keypoints.masked_fill(missing[..., None], torch.nan), confidence.masked_fill(missing, 0)


def confidence_of(sigma: Tensor) -> Tensor:
    """Confidence in a keypoint whose noise has the standard deviation ``sigma`` pixels (at 1920 x 1080)."""
    return 1 / (1 + (sigma / _FULL_CONFIDENCE) ** 2)


def _mix_up(keypoints: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Two joints of different fingers at the same place in them, or two corners, change places."""
    batch = len(keypoints)
    order = torch.arange(NODES).repeat(batch, 1)
    mixed = (torch.rand(batch, generator=generator) < share).nonzero()[:, 0]
    for row in mixed.tolist():
        if torch.rand((), generator=generator) < 0.6:
            a, b = torch.randperm(len(_FINGERS), generator=generator)[:2].tolist()
            place = int(torch.randint(4, (), generator=generator))
            first, second = _FINGERS[a][place], _FINGERS[b][place]
        else:
            first, second = (JOINTS + torch.randperm(CORNERS, generator=generator)[:2]).tolist()
        order[row, first], order[row, second] = second, first
    return keypoints.gather(1, order[..., None].expand(-1, -1, 2))


def random_rotations(count: int, generator: torch.Generator) -> Tensor:
    """``(count, 3, 3)`` uniform over all rotations, by unit quaternions (Shoemake 1992)."""
    w, x, y, z = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=1).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, 1).reshape(count, 3, 3)


def _random_cameras(count: int, config: CameraConfig, generator: torch.Generator) -> Tensor:
    factor = 1 + config.focal_spread * (2 * torch.rand(count, generator=generator) - 1)
    camera = torch.eye(3).repeat(count, 1, 1)
    camera[:, 0, 0] = camera[:, 1, 1] = config.focal * factor
    camera[:, :2, 2] = torch.tensor(config.size) / 2
    return camera


def _random_places(count: int, cam_K: Tensor, config: CameraConfig, generator: torch.Generator) -> Tensor:
    """Points ``(count, 3)`` somewhere in the middle of the picture at a random depth."""
    low, high = config.distance
    depth = low + (high - low) * torch.rand(count, 1, generator=generator)
    size = torch.tensor(config.size, dtype=torch.float32)
    pixels = size * (0.25 + 0.5 * torch.rand(count, 2, generator=generator))
    return to_rays(pixels[:, None], cam_K)[:, 0] * depth
