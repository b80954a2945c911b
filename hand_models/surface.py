"""Small operations on a hand's triangle mesh: closing the wrist, spreading points."""

from __future__ import annotations

import numpy as np


def boundary_loops(faces: np.ndarray) -> list[list[int]]:
    """Closed loops of boundary edges of a triangle mesh, each in the direction its faces run.

    Args:
        faces: ``(F, 3)`` consistently oriented.

    Raises:
        ValueError: an edge has more than two faces, faces disagree in orientation, or a boundary branches.
    """
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = {(int(a), int(b)) for a, b in directed}
    if len(edges) != len(directed):
        raise ValueError("faces: two faces run along one edge in the same direction; orient them consistently.")
    following: dict[int, int] = {}
    for a, b in sorted(edges):
        if (b, a) not in edges:
            if a in following:
                raise ValueError(f"faces: the boundary branches at vertex {a}; the mesh must be a surface.")
            following[a] = b
    loops = []
    while following:
        first = next(iter(following))
        loop, at = [first], following.pop(first)
        while at != first:
            loop.append(at)
            at = following.pop(at)
        loops.append(loop)
    return loops


def _triangulate(polygon: list[int], vertices: np.ndarray, taken: set[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """The triangulation of least area of a closed polygon in space that adds no vertex.

    Dynamic programming over chords (Barequet & Sharir, "Filling gaps in the boundary of a polyhedron",
    1995); chords in ``taken``, already edges of the mesh, are avoided so that every edge keeps two faces.
    """
    n = len(polygon)
    points = vertices[polygon]
    cost = np.full((n, n), np.inf)
    split = np.zeros((n, n), dtype=int)
    for i in range(n - 1):
        cost[i, i + 1] = 0.0
    for span in range(2, n):
        for i in range(n - span):
            j = i + span
            if span < n - 1 and (min(polygon[i], polygon[j]), max(polygon[i], polygon[j])) in taken:
                continue
            middle = np.arange(i + 1, j)
            areas = 0.5 * np.linalg.norm(np.cross(points[middle] - points[i], points[j] - points[i]), axis=1)
            total = cost[i, middle] + cost[middle, j] + areas
            best = int(total.argmin())
            cost[i, j], split[i, j] = total[best], middle[best]
    if not np.isfinite(cost[0, n - 1]):
        raise ValueError("faces: a boundary loop cannot be closed without repeating an edge.")
    triangles, open_chords = [], [(0, n - 1)]
    while open_chords:
        i, j = open_chords.pop()
        if j - i > 1:
            k = int(split[i, j])
            triangles.append((polygon[i], polygon[k], polygon[j]))
            open_chords += [(i, k), (k, j)]
    return triangles


def cap_boundaries(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """``faces`` with every boundary loop closed between its own vertices: ``(F', 3)`` watertight.

    Raises:
        ValueError: the faces are no oriented surface (see `boundary_loops`).
    """
    taken = {(int(min(a, b)), int(max(a, b))) for t in faces for a, b in ((t[0], t[1]), (t[1], t[2]), (t[2], t[0]))}
    caps: list[tuple[int, int, int]] = []
    for loop in boundary_loops(faces):
        caps += _triangulate(loop[::-1], vertices, taken)  # a cap runs against the faces it meets
    return np.concatenate([faces, np.array(caps, dtype=faces.dtype)]) if caps else faces


def signed_volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Volume enclosed by a closed mesh in the cube of its unit; positive when normals point outwards."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def spread_points(vertices: np.ndarray, count: int) -> np.ndarray:
    """Ids of at most ``count`` vertices spread evenly over the surface; all of them when there are no more.

    Farthest-point sampling (Gonzalez 1985) from the vertex farthest from the centroid, in the order chosen:
    every prefix is spread over the surface too.
    """
    count = min(count, len(vertices))
    chosen = [int(np.linalg.norm(vertices - vertices.mean(0), axis=1).argmax())]
    nearest = np.linalg.norm(vertices - vertices[chosen[0]], axis=1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(vertices - vertices[chosen[-1]], axis=1))
    return np.array(chosen)
