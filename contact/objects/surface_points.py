"""Points on a triangle mesh: area-uniform samples, smooth normals, and an order whose prefixes are spread out."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

CREASE = np.deg2rad(35.0)
"""Faces meeting at more than this angle do not share normals: a twelve-sided cylinder still counts as round."""


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, n_points: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Area-uniform points on the surface.

    Faces are drawn by stratified sampling of the running area, which is uniform as independent draws are but
    leaves no face of a sample's size without its share.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
        n_points: number of points n.
        rng: source of randomness.

    Returns:
        points (n, 3), the face (n,) int64 that each lies on and its barycentric weights (n, 3).
    """
    corner = vertices[faces]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    running = np.cumsum(area)
    draw = (np.arange(n_points) + rng.random(n_points)) / n_points * running[-1]
    face = np.minimum(np.searchsorted(running, draw, side="right"), len(faces) - 1)
    root, along = np.sqrt(rng.random(n_points)), rng.random(n_points)
    weight = np.stack([1 - root, root * (1 - along), root * along], axis=1)
    return np.einsum("nk,nkd->nd", weight, corner[face]), face, weight


def farthest_point_order(points: np.ndarray) -> np.ndarray:
    """Order in which each point is the farthest from all before it, so that every prefix covers the whole set.

    Args:
        points: (n, 3).

    Returns:
        (n,) int64 permutation; it starts at the point farthest from the mean. Costs n² distances
        (40 ms for 2,048 points).
    """
    planes = np.ascontiguousarray(points.T)
    order = np.empty(len(points), dtype=np.int64)
    order[0] = np.argmax(((points - points.mean(axis=0)) ** 2).sum(axis=1))
    nearest = np.full(len(points), np.inf)
    for i in range(1, len(points)):
        away = planes - planes[:, order[i - 1], None]
        np.minimum(nearest, (away * away).sum(axis=0), out=nearest)
        nearest[order[i - 1]] = -1.0  # never again, even among points that coincide
        order[i] = np.argmax(nearest)
    return order


def corner_normals(
    vertices: np.ndarray, faces: np.ndarray, crease: float = CREASE, by_area: bool = False
) -> np.ndarray:
    """Unit normals at each face's corners, smooth across gentle edges and sharp across creases.

    A corner takes the mean, weighted by corner angles (and areas, with ``by_area``), of the normals of those
    faces around its vertex that lie within ``crease`` radians of its own face.

    Args:
        vertices: (V, 3).
        faces: (F, 3).

    Returns:
        (F, 3, 3): face, corner, component.
    """
    corner = vertices[faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    area = np.linalg.norm(normal, axis=1, keepdims=True)
    normal /= np.maximum(area, 1e-300)
    ahead = np.roll(corner, -1, axis=1) - corner
    behind = np.roll(corner, 1, axis=1) - corner
    angle = np.arctan2(np.linalg.norm(np.cross(ahead, behind), axis=-1), (ahead * behind).sum(axis=-1)).reshape(-1)

    # All pairs of corners that share a vertex.
    at_vertex = csr_matrix(
        (np.ones(faces.size), (np.arange(faces.size), faces.reshape(-1))), shape=(faces.size, len(vertices))
    )
    pair = (at_vertex @ at_vertex.T).tocoo()
    own, other = pair.row, pair.col
    gentle = (normal[own // 3] * normal[other // 3]).sum(axis=1) >= np.cos(crease)
    own, other = own[gentle], other[gentle]
    weight = angle * np.repeat(area[:, 0], 3) if by_area else angle
    summed = csr_matrix((weight[other], (own, other // 3)), shape=(faces.size, len(faces))) @ normal
    length = np.linalg.norm(summed, axis=1, keepdims=True)
    own_face = np.repeat(normal, 3, axis=0)
    return np.where(length > 1e-12, summed / np.maximum(length, 1e-300), own_face).reshape(-1, 3, 3)
