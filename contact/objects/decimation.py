"""Large meshes, such as scans, with fewer triangles."""

from __future__ import annotations

from typing import NamedTuple

import igl
import numpy as np

LARGE = 150_000
"""Meshes of more triangles are decimated: most of what their millions say is the noise of a scanner."""
FEWER = (50_000, 200_000)
"""Triangles that are tried, the fewest first."""
OFF = 1e-3
"""Metres that the original's vertices may lie off the decimated surface; noise of a scanner among them."""
_LOOKED_AT = 100_000


class Original(NamedTuple):
    """The mesh that another one was decimated from."""

    vertices: np.ndarray
    """(V, 3) metres"""
    faces: np.ndarray
    """(F, 3)"""
    off: float
    """metres that its vertices lie off the decimated surface, the farthest of some"""


def decimate(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, Original | None]:
    """A mesh with fewer triangles, by quadric edge collapse (Garland and Heckbert, SIGGRAPH 1997).

    Args:
        vertices, faces: (V, 3) metres and (F, 3), cleaned.

    Returns:
        vertices (V', 3) float64 that float32 holds exactly, faces (F', 3) int64, and the original, whose vertices lie
        within `OFF` of them; where it was closed they need not be. The mesh itself and None where it has `LARGE`
        triangles or fewer, or its detail needs them.
    """
    if len(faces) <= LARGE:
        return vertices, faces, None
    import fast_simplification

    known = np.ascontiguousarray(vertices[:: max(1, len(vertices) // _LOOKED_AT)])
    for count in FEWER:
        corners, triangles = fast_simplification.simplify(vertices, faces.astype(np.int32), target_count=count)
        corners, triangles = corners.astype(np.float32).astype(np.float64), triangles.astype(np.int64)
        off = float(np.sqrt(igl.point_mesh_squared_distance(known, corners, triangles)[0].max()))
        if off <= OFF and len(triangles) < len(faces):
            return corners, triangles, Original(vertices, faces, off)
    return vertices, faces, None
