"""Coarse levels of an object's surface points and the neighbourhoods that join them.

An object's points come in farthest-point order, so a prefix is a coarse sampling. Which points a coarse one
gathers from, and between which ones a fine one interpolates, depends on the object alone: it is computed once
per object, not once per grasp as in PointNet++ (Qi et al., NeurIPS 2017), whose sets these are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from hand_models.record import Record

LEVELS = (2048, 512, 128)
GATHER = 16
"""Neighbours a coarse point gathers."""
INTERPOLATE = 3
"""Coarse points a fine one interpolates between."""


@dataclass(frozen=True)
class PointHierarchy(Record):
    """Neighbour indices of ``G`` objects over the levels 2048, 512 and 128."""

    gather1: Tensor
    """(G, 512, 16) indices into the 2048 points"""
    gather2: Tensor
    """(G, 128, 16) indices into the 512"""
    spread1: Tensor
    """(G, 2048, 3) indices into the 512"""
    spread1_weight: Tensor
    """(G, 2048, 3) inverse-distance weights, rows sum to one"""
    spread2: Tensor
    """(G, 512, 3) indices into the 128"""
    spread2_weight: Tensor
    """(G, 512, 3)"""


def build_hierarchy(points: Tensor) -> PointHierarchy:
    """Neighbourhoods of one object's ``(2048, 3)`` points, metres, in farthest-point order.

    Returns:
        A hierarchy of one object (``G = 1``), on the CPU.

    Raises:
        ValueError: when the number of points is another, or one is not finite.
    """
    if points.shape != (LEVELS[0], 3):
        raise ValueError(f"points: got shape {tuple(points.shape)}; expected ({LEVELS[0]}, 3).")
    if not points.isfinite().all():
        raise ValueError("points: NaN or infinite coordinates; clean the mesh they were sampled from.")
    xyz = points.detach().cpu().double().numpy()
    trees = [cKDTree(xyz[:n]) for n in LEVELS]

    def gather(fine: int) -> Tensor:
        return torch.from_numpy(trees[fine].query(trees[fine + 1].data, GATHER)[1])[None]

    def spread(fine: int) -> tuple[Tensor, Tensor]:
        distance, index = trees[fine + 1].query(trees[fine].data, INTERPOLATE)
        weight = 1 / (torch.from_numpy(distance) ** 2 + 1e-8)
        weight = (weight / weight.sum(1, keepdim=True)).float()
        return torch.from_numpy(index)[None], weight[None]

    return PointHierarchy(gather(0), gather(1), *spread(0), *spread(1))
