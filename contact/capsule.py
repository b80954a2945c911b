"""Contact values from capsules: ContactOpt's differentiable contact (DiffContact).

Every object point carries a small capsule along its outward normal; the contact value of a pair of points
is 1 inside the capsule and falls as ``radius / distance to the axis`` outside. Source: Grady et al.,
"ContactOpt: Optimizing Contact to Improve Grasps", CVPR 2021, section 3.2, and its published program. The
program adds 1e-4 to the normalised distance before inverting it; here the value is exactly 1 inside instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_MAX_PAIRS = 1 << 24  # distances held at once by the exhaustive nearest-neighbour search (64 MB)


@dataclass(frozen=True)
class Capsule:
    """Shape of the contact capsule in metres, measured along the outward normal of the object point."""

    bottom: float = -0.0015
    """Lower end of the axis; negative is inside the object, an allowance for soft skin."""
    top: float = 0.0005
    """Upper end of the axis."""
    radius: float = 0.001

    def __post_init__(self) -> None:
        if not self.bottom < self.top:
            raise ValueError(f"bottom: {self.bottom} is not below top {self.top}; swap or part them.")
        if not self.radius > 0:
            raise ValueError(f"radius: got {self.radius}; it must be positive metres.")


DEFAULT_CAPSULE = Capsule()


def axis_distance(offset: Tensor, normals: Tensor, capsule: Capsule = DEFAULT_CAPSULE) -> Tensor:
    """Distance ``(...)`` of points to the axes of capsules, metres; its gradient is finite everywhere, zero on an axis.

    Args:
        offset: ``(..., 3)`` the points, relative to the object points that carry the capsules.
        normals: ``(..., 3)`` unit outward normals of the object points.
    """
    along = (offset * normals).sum(-1).clamp(capsule.bottom, capsule.top)
    square = (offset - along[..., None] * normals).square().sum(-1)
    return square.clamp_min(1e-14).sqrt()


def contact_value(distance: Tensor, capsule: Capsule = DEFAULT_CAPSULE) -> Tensor:
    """Contact value in (0, 1] of a distance to the capsule's axis: ``min(1, radius / distance)``."""
    return capsule.radius / distance.clamp_min(capsule.radius)


def contact_at_distance(signed_distance: Tensor, capsule: Capsule = DEFAULT_CAPSULE) -> Tensor:
    """Contact value of a point whose signed distance to the object's surface is known exactly, metres.

    The nearest surface point then lies straight below, so the point is on the line of the capsule's axis and
    only the excess beyond its two ends counts. The limit of `contact_of_points` for ever denser sampling.
    """
    beyond = torch.maximum(signed_distance - capsule.top, capsule.bottom - signed_distance)
    return contact_value(beyond.clamp_min(0.0), capsule)


@torch.no_grad()
def nearest_index(points: Tensor, targets: Tensor) -> Tensor:
    """Index ``(B, N)`` of the target, of ``(B, M, 3)`` or ``(1, M, 3)`` for all, nearest to every point ``(B, N, 3)``.

    Not differentiable: the pairing is held constant, as in the paper.
    """
    batch, count, _ = points.shape
    # |p - t|² = |p|² + (|t|² - 2 p·t): the first term does not change which target is nearest, the rest
    # is one matrix product. Centring keeps the difference of squares accurate.
    centre = targets.mean(1, keepdim=True)
    t = targets - centre
    right = torch.cat([t * -2.0, t.square().sum(-1, keepdim=True)], -1).transpose(1, 2).contiguous()
    p = points - centre
    left = torch.cat([p, torch.ones_like(p[..., :1])], -1)
    if points.device.type == "cpu":  # numpy's argmin is vectorised, torch's is not
        rights = right.expand(batch, -1, -1).numpy()
        rows = [np.argmin(a.numpy() @ b, axis=1) for a, b in zip(left, rights, strict=True)]
        return torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, count, dtype=torch.int64)
    step = max(1, _MAX_PAIRS // max(1, count * targets.shape[1]))
    pairs = zip(left.split(step), right.expand(batch, -1, -1).split(step), strict=True)
    return torch.cat([(a @ b).argmin(-1) for a, b in pairs])


def gather_points(points: Tensor, index: Tensor) -> Tensor:
    """``points (B or 1, M, 3)`` at ``index (B, N)`` -> ``(B, N, 3)``."""
    points = points.expand(len(index), -1, -1)
    return points.gather(1, index[..., None].expand(-1, -1, points.shape[-1]))


def contact_of_object(
    object_points: Tensor,
    object_normals: Tensor,
    hand_points: Tensor,
    *,
    capsule: Capsule = DEFAULT_CAPSULE,
    nearest: Tensor | None = None,
) -> Tensor:
    """Contact value ``(B, n)`` of every object point: its nearest hand point, measured in the object point's capsule.

    In (0, 1], differentiable in every point.

    Args:
        object_points, object_normals: ``(B or 1, n, 3)`` metres, outward unit normals.
        hand_points: ``(B, P, 3)`` in the object frame.
        nearest: ``(B, n)`` index of the nearest hand points, when the caller already has it.
    """
    if nearest is None:
        nearest = nearest_index(object_points.expand(len(hand_points), -1, -1), hand_points)
    offset = gather_points(hand_points, nearest) - object_points
    return contact_value(axis_distance(offset, object_normals, capsule), capsule)


def contact_of_hand(
    hand_points: Tensor,
    object_points: Tensor,
    object_normals: Tensor,
    *,
    capsule: Capsule = DEFAULT_CAPSULE,
    nearest: Tensor | None = None,
) -> Tensor:
    """Contact value ``(B, P)`` of every hand point, measured in the capsule of its nearest object point.

    The arguments are those of `contact_of_object`; ``nearest (B, P)`` is of object points.
    """
    if nearest is None:
        nearest = nearest_index(hand_points, object_points)
    offset = hand_points - gather_points(object_points, nearest)
    return contact_value(axis_distance(offset, gather_points(object_normals, nearest), capsule), capsule)
