"""Two queries that optional packages answer faster: nearest neighbours (pytorch3d), exact signed distance (open3d).

Neither package is required. ``backend="auto"`` takes one where it is installed and pays; otherwise scipy,
torch and libigl answer. All backends return the same up to rounding.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Literal

import igl
import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from contact.objects.grid_build import is_closed, winding_sign

NearestBackend = Literal["auto", "pytorch3d", "torch", "scipy"]
DistanceBackend = Literal["auto", "open3d", "libigl"]

_PAIRS_AT_ONCE = 1 << 24
"""Distances that the torch backend holds at a time (64 MB)."""


def load_optional(name: str) -> ModuleType | None:
    """Import an optional package; None where it is missing or, like one built for another torch, cannot load."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):
        return None


def nearest(query: Tensor, target: Tensor, *, backend: NearestBackend = "auto") -> tuple[Tensor, Tensor]:
    """The nearest target point of each query point, batch by batch.

    Args:
        query: (B, P, 3) metres.
        target: (B, Q, 3) metres, same device.
        backend: "auto" takes a k-d tree ("scipy") on the CPU, and pytorch3d where it is installed, else
            brute force ("torch"), on an accelerator.

    Returns:
        distance (B, P), differentiable with respect to both sets for the neighbours found, and the
        neighbour's index (B, P) int64.

    Raises:
        ValueError: shapes that do not fit, an empty target, or an unknown backend.
        ImportError: pytorch3d is asked for and cannot be imported.
    """
    if query.ndim != 3 or query.shape[-1] != 3:
        raise ValueError(f"query must have shape (B, P, 3), got {tuple(query.shape)}")
    if target.ndim != 3 or target.shape[-1] != 3 or target.shape[0] != query.shape[0]:
        raise ValueError(
            f"target must have shape ({query.shape[0]}, Q, 3) to match query, got {tuple(target.shape)}"
        )
    if target.shape[1] == 0:
        raise ValueError("target must hold at least one point in each batch entry")
    if backend == "auto":
        if query.device.type == "cpu":
            backend = "scipy"
        else:
            backend = "pytorch3d" if load_optional("pytorch3d.ops") is not None else "torch"
    search = {"pytorch3d": _nearest_pytorch3d, "torch": _nearest_torch, "scipy": _nearest_scipy}.get(backend)
    if search is None:
        raise ValueError(f"backend must be 'auto', 'pytorch3d', 'torch' or 'scipy', got {backend!r}")
    index = search(query.detach(), target.detach())
    neighbour = target.gather(1, index[..., None].expand(-1, -1, 3))
    return torch.linalg.vector_norm(query - neighbour, dim=-1), index


def _nearest_pytorch3d(query: Tensor, target: Tensor) -> Tensor:
    ops = importlib.import_module("pytorch3d.ops")
    return ops.knn_points(query.contiguous(), target.contiguous(), K=1).idx[..., 0]


def _nearest_torch(query: Tensor, target: Tensor) -> Tensor:
    rows = max(1, _PAIRS_AT_ONCE // max(1, query.shape[0] * target.shape[1]))
    # The matrix-product form of the distance loses half of the digits, which is too little for contact.
    exact = "donot_use_mm_for_euclid_dist"
    found = [torch.cdist(part, target, compute_mode=exact).argmin(-1) for part in query.split(rows, dim=1)]
    return torch.cat(found, dim=1) if found else query.new_zeros(query.shape[:2], dtype=torch.int64)


def _nearest_scipy(query: Tensor, target: Tensor) -> Tensor:
    queries, targets = query.cpu().numpy(), target.cpu().numpy()
    index = np.empty(queries.shape[:2], dtype=np.int64)
    for b in range(len(queries)):
        index[b] = cKDTree(targets[b]).query(queries[b])[1]
    return torch.from_numpy(index).to(query.device)


def signed_distance(
    points: Any, vertices: Any, faces: Any, *, backend: DistanceBackend = "auto"
) -> np.ndarray:
    """Exact signed distance of points to a mesh, for measurements; in a loop use the grid.

    Args:
        points: (N, 3) metres.
        vertices: (V, 3) metres.
        faces: (F, 3) outward orientation.
        backend: "auto" takes open3d where it is installed and the mesh is closed, else libigl. libigl tells
            inside from outside by the winding number, open3d by counting ray crossings: they differ inside
            the overlaps of a mesh that intersects itself.

    Returns:
        (N,) float64 metres, positive outside (open3d computes in float32).

    Raises:
        ValueError: points of another shape or not finite, an empty mesh, or an unknown backend.
        ImportError: open3d is asked for and cannot be imported.
    """
    points = np.ascontiguousarray(_numpy(points), dtype=np.float64)
    vertices = np.ascontiguousarray(_numpy(vertices), dtype=np.float64)
    faces = np.ascontiguousarray(_numpy(faces), dtype=np.int64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points must have shape (N, 3), got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("points must be finite: remove NaN and infinite points first")
    if len(vertices) == 0 or len(faces) == 0:
        raise ValueError("vertices and faces must not be empty: pass a mesh with at least one triangle")
    if backend == "auto":
        backend = "open3d" if is_closed(faces) and load_optional("open3d") is not None else "libigl"
    if backend == "open3d":
        o3d = importlib.import_module("open3d")
        scene = o3d.t.geometry.RaycastingScene()
        scene.add_triangles(
            o3d.core.Tensor(vertices.astype(np.float32)), o3d.core.Tensor(faces.astype(np.uint32))
        )
        found = scene.compute_signed_distance(o3d.core.Tensor(points.astype(np.float32)))
        return found.numpy().astype(np.float64)
    if backend == "libigl":
        if len(points) == 0:
            return np.zeros(0)
        squared, _, _ = igl.point_mesh_squared_distance(points, vertices, faces)
        return np.sqrt(squared) * winding_sign(vertices, faces, points)
    raise ValueError(f"backend must be 'auto', 'open3d' or 'libigl', got {backend!r}")


def _numpy(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
