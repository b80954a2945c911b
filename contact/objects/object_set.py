"""`ObjectSet`: several objects side by side in tensors, so that one batch of grasps may mix them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hand_models.record import Record

from .grid import SignedDistanceGrid
from .hierarchy import LEVELS, PointHierarchy
from .mesh import ObjectMesh


@dataclass(frozen=True)
class ObjectPoints(Record):
    """Surface points of ``G`` objects: what the network sees of them."""

    points: Tensor
    """(G, n, 3) metres"""
    normals: Tensor
    """(G, n, 3)"""
    thickness: Tensor
    """(G, n) metres"""
    hierarchy: PointHierarchy


@dataclass(frozen=True)
class ObjectSet(ObjectPoints):
    """``G`` objects; a batch of grasps names its objects by an index ``which (B,)`` into them."""

    grid: SignedDistanceGrid

    @staticmethod
    def of(objects: Sequence[ObjectMesh]) -> ObjectSet:
        """Objects side by side.

        Raises:
            ValueError: there are none, or one has another number of surface points than the network takes.
        """
        if counts := ", ".join(str(len(o.points)) for o in objects if o.hierarchy is None):
            raise ValueError(f"objects: with {counts} points; make them with n_points={LEVELS[0]}, the default.")
        return ObjectSet(
            *(torch.stack([getattr(o, name) for o in objects]) for name in ("points", "normals", "thickness")),
            PointHierarchy.cat([o.hierarchy for o in objects]),
            SignedDistanceGrid.cat([o.grid for o in objects]),
        )
