"""Large meshes, such as scans, with fewer triangles."""

from __future__ import annotations

import igl
import numpy as np

LARGE = 150_000
"""Meshes of more triangles are decimated: most of what their millions say is the noise of a scanner."""
FEWER = (50_000, 200_000)
"""Triangles that are tried, the fewest first."""
OFF = 1e-3
"""Metres that the original's vertices may lie off the decimated surface; noise of a scanner among them."""
_LOOKED_AT = 40_000


def decimate(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A mesh with fewer triangles, by quadric edge collapse (Garland and Heckbert, SIGGRAPH 1997).

    Args:
        vertices, faces: (V, 3) metres and (F, 3), cleaned.

    Returns:
        vertices (V', 3) float64 that float32 holds exactly, and faces (F', 3) int64, within `OFF` of the vertices of
        the original; where that was closed they need not be. The mesh itself where it has `LARGE` triangles or fewer,
        or its detail needs them.
    """
    if len(faces) <= LARGE:
        return vertices, faces
    import fast_simplification

    known = np.ascontiguousarray(vertices[:: max(1, len(vertices) // _LOOKED_AT)])
    for count in FEWER:
        corners, triangles = fast_simplification.simplify(
            vertices.astype(np.float32), faces.astype(np.int32), target_count=count
        )
        corners, triangles = corners.astype(np.float32).astype(np.float64), triangles.astype(np.int64)
        off = float(np.sqrt(igl.point_mesh_squared_distance(known, corners, triangles)[0].max()))
        if off <= OFF and len(triangles) < len(faces):
            return corners, triangles
    return vertices, faces
