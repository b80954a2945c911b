"""Spheres inside a hand, along the bones of its fingers and in its palm: what must not enter anything.

Skin is no barrier to a thin wall, which passes between its points; the spheres behind it are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .point_jacobian import PointJacobian
from .record import Record, shared

# Between two consecutive joints each, OpenPose order: first joint, second joint, share of the way.
_FINGERS = tuple((4 * f + k, 4 * f + k + 1, s) for f in range(5) for k in (1, 2, 3) for s in (0.25, 0.75))
_PALM = (*((0, 4 * f + 1, s) for f in range(1, 5) for s in (0.35, 0.6, 0.85)), (0, 1, 0.8))
# Thumb to little finger, metres: slim enough to lie side by side.
_FINGER_RADIUS = (0.0092, 0.0078, 0.0074, 0.0073, 0.0064)
_PALM_RADIUS = 0.010
FINGER_SPHERES = slice(0, len(_FINGERS))
"""The fingers' come first, then the palm's."""


@dataclass(frozen=True)
class Spheres(Record):
    """``S`` balls for each of ``B`` problems."""

    centres: Tensor
    """(B, S, 3) metres"""
    radius: Tensor = shared()
    """(S,)"""

    def query(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distance ``(B, P)`` of ``points (B, P, 3)`` to the nearest ball, and its gradient ``(B, P, 3)``."""
        distance, nearest = (torch.cdist(points, self.centres) - self.radius).min(2)
        offset = points - self.centres.gather(1, nearest[..., None].expand(-1, -1, 3))
        return distance, normalize(offset, dim=-1)

    def mirrored(self) -> Spheres:
        """In a mirror that flips x."""
        return Spheres(self.centres * self.centres.new_tensor([-1.0, 1.0, 1.0]), self.radius)


def inner_spheres(joints: Tensor) -> Spheres:
    """Of hands with ``joints (B, 21, 3)``, OpenPose order."""
    start, end, share, radius = _table(joints.dtype, joints.device)
    return Spheres(torch.lerp(joints[:, start], joints[:, end], share[:, None]), radius)


def sphere_centres(joints: PointJacobian) -> PointJacobian:
    """Centres of `inner_spheres` with their derivative."""
    start, end, share, _ = _table(joints.points.dtype, joints.points.device)
    return joints.between(start, end, share)


def sphere_radius(like: Tensor) -> Tensor:
    """(S,) metres, of the type and on the device of ``like``."""
    return _table(like.dtype, like.device)[3]


@cache
def _table(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First joint, second joint, share of the way and radius of each sphere."""
    spheres = _FINGERS + _PALM
    start, end = (torch.tensor([s[i] for s in spheres], device=device) for i in (0, 1))
    share = torch.tensor([s[2] for s in spheres], dtype=dtype, device=device)
    radii = [_FINGER_RADIUS[(s[0] - 1) // 4] for s in _FINGERS] + [_PALM_RADIUS] * len(_PALM)
    return start, end, share, torch.tensor(radii, dtype=dtype, device=device)


@cache
def sphere_pairs(device: torch.device) -> tuple[Tensor, Tensor]:
    """Pairs of spheres of different fingers."""
    finger = torch.tensor([(s[0] - 1) // 4 for s in _FINGERS], device=device)
    first, second = torch.triu_indices(len(finger), len(finger), 1, device=device)
    apart = finger[first] != finger[second]
    return first[apart], second[apart]
