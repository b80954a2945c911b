"""Small operations on a hand's triangle mesh: closing the wrist, spreading points, finding the palm."""

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


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, averages of the adjoining faces' weighted by area; zero where there is no face."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], area)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


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


def palm_direction(joints: np.ndarray, side: str) -> np.ndarray:
    """(3,) unit vector out of the palm, from 16 rest joints in MANO order: about -y at rest."""
    index, pinky = joints[1] - joints[0], joints[7] - joints[0]
    normal = np.cross(index, pinky) * (1.0 if side == "right" else -1.0)
    return normal / max(float(np.linalg.norm(normal)), 1e-12)


def palm_vertices(
    vertices: np.ndarray, closed_faces: np.ndarray, joints: np.ndarray, weights: np.ndarray, side: str
) -> np.ndarray:
    """Ids of the palm's skin: moved by the wrist or the thumb's base, facing out, past the wrist.

    Args:
        vertices: ``(V, 3)`` at rest, metres.
        closed_faces: ``(F', 3)`` outward.
        joints: ``(16, 3)`` at rest, MANO order.
        weights: ``(V, 16)``.
        side: ``"right"`` or ``"left"``.
    """
    part = weights.argmax(1)
    outward = palm_direction(joints, side)
    along = joints[[1, 4, 7, 10]].mean(0) - joints[0]
    reach = (vertices - joints[0]) @ along / max(float(along @ along), 1e-12)  # 0 at the wrist, 1 at the knuckles
    facing = vertex_normals(vertices, closed_faces) @ outward
    mask = np.isin(part, (0, 13)) & (facing > 0.3) & (reach > 0.1)
    if not mask.any():  # a mesh unlike a hand: the most palmar of the wrist's own vertices
        own = np.flatnonzero(part == 0) if (part == 0).any() else np.arange(len(vertices))
        return np.sort(own[np.argsort(-facing[own], kind="stable")[: max(1, len(own) // 4)]])
    return np.flatnonzero(mask)
