"""The physical affinity loss: joints that touch the object are drawn to its surface, joints inside pushed out.

Ours. JHOPE has a loss of this name and purpose; this one is written from that purpose, not from its formula.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hand_models.skeleton import JOINT_NAMES

_TIP, _INNER, _WRIST = 0.004, 0.007, 0.014
FLESH = tuple(_TIP if n.endswith("tip") else _WRIST if n == "wrist" else _INNER for n in JOINT_NAMES)
"""Metres of flesh round each of the 21 joints: how near its centre comes to what the hand presses on."""


@dataclass(frozen=True)
class AffinityConfig:
    """Lengths in metres."""

    touching: float = 0.010
    """a joint touches when its flesh, in truth, ends nearer to the surface than this"""
    slack: float = 0.003
    """how far from the surface the flesh of a touching joint may end at no cost"""
    unit: float = 0.05
    """distance that costs 1, as of the points in training"""
    attraction: float = 0.1
    """weight of attraction; of repulsion it is 1"""


def kabsch(source: Tensor, target: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Proper rotation ``(..., 3, 3)`` and translation ``(..., 3)`` that lay points ``(..., N, 3)`` on points.

    Least squares, with ``weights (..., N)`` if given (Kabsch 1976; reflections excluded as in Umeyama, TPAMI 1991).
    """
    w = torch.ones_like(source[..., :1]) if weights is None else weights[..., None]
    total = w.sum(-2, keepdim=True).clamp_min(1e-12)
    a, b = (source * w).sum(-2, keepdim=True) / total, (target * w).sum(-2, keepdim=True) / total
    u, _, vt = torch.linalg.svd((w * (target - b)).transpose(-1, -2) @ (source - a))
    sign = torch.ones_like(u[..., 0])
    sign[..., 2] = torch.where(torch.linalg.det(u @ vt) < 0, -1.0, 1.0)
    rotation = (u * sign[..., None, :]) @ vt
    return rotation, (b - a @ rotation.transpose(-1, -2))[..., 0, :]


def surface_distance(points: Tensor, surface: Tensor, normals: Tensor) -> Tensor:
    """Signed distance ``(B, J)`` of points ``(B, J, 3)`` from the tangent plane at the nearest surface point.

    Positive outside; the ``surface (B, n, 3)`` is given by points spread over it, with outward normals.
    """
    with torch.no_grad():
        nearest = torch.cdist(points, surface).argmin(2)[..., None].expand(-1, -1, 3)
    return ((points - surface.gather(1, nearest)) * normals.gather(1, nearest)).sum(-1)


def affinity_loss(distance: Tensor, true_distance: Tensor, config: AffinityConfig = AffinityConfig()) -> Tensor:
    """Mean over grasps and joints of repulsion plus weighted attraction.

    ``distance (B, 21)`` is that of the predicted joints from the object, signed, metres; the ``true_distance`` says
    which joints touch, and how near they come where that is nearer than `FLESH`.

    With r the joint's flesh, or its true distance where that is less: repulsion ``max(0, r - d)``; attraction of
    touching joints ``max(0, d - max(flesh, true) - slack)``; both in `AffinityConfig.unit`. Both are linear: the
    farthest out are noise of the lifting, which no push mends, and squares would let them decide. Attraction as
    strong as repulsion would sink joints in: those that touch are more often seen too far away than too deep.
    """
    flesh = distance.new_tensor(FLESH)
    rest = torch.minimum(flesh.expand_as(true_distance), true_distance)
    touching = (true_distance - flesh < config.touching).to(distance)
    inside = (rest - distance).clamp_min(0)
    apart = (distance - torch.maximum(flesh, true_distance) - config.slack).clamp_min(0)
    return (inside + config.attraction * touching * apart).mean() / config.unit
