"""`ObjectSet`: several objects side by side in tensors, so that one batch of grasps may mix them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .grid import SignedDistanceGrid
from .hierarchy import PointHierarchy, build_hierarchy
from .mesh import ObjectMesh


@dataclass(frozen=True)
class ObjectSet:
    """``G`` objects; a batch of grasps names its objects by an index ``which (B,)`` into them."""

    points: Tensor
    """(G, n, 3) metres"""
    normals: Tensor
    """(G, n, 3)"""
    thickness: Tensor
    """(G, n) metres"""
    hierarchy: PointHierarchy
    grid: SignedDistanceGrid

    @staticmethod
    def of(objects: Sequence[ObjectMesh]) -> ObjectSet:
        """Stack objects that have the same number of surface points."""
        return ObjectSet(
            torch.stack([o.points for o in objects]),
            torch.stack([o.normals for o in objects]),
            torch.stack([o.thickness for o in objects]),
            PointHierarchy.stack([build_hierarchy(o.points) for o in objects]),
            SignedDistanceGrid.stack([o.grid for o in objects]),
        )

    def to(self, device: torch.device | str) -> ObjectSet:
        """Move to a device."""
        return ObjectSet(
            self.points.to(device), self.normals.to(device), self.thickness.to(device),
            self.hierarchy.to(device), self.grid.to(device),
        )  # fmt: skip
