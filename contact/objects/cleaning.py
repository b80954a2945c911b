"""From any triangle soup to a mesh that the rest can rely on."""

from __future__ import annotations

from itertools import combinations

import igl
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .grid_build import is_closed
from .surface_points import face_vectors

MERGE = 1e-6
"""Vertices closer than about this fraction of the bounding box's diagonal are one."""


def clean_mesh(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Check a mesh and put it in order.

    Equal vertices are merged, degenerate and duplicate faces and unused vertices dropped, windings made
    consistent and outward, and overlapping closed bodies united.

    Args:
        vertices, faces: (V, 3) metres and (F, 3) indices.

    Returns:
        vertices (V', 3) float64 that float32 holds exactly, faces (F', 3) int64, and whether the mesh is
        closed with one orientation.

    Raises:
        ValueError: naming ``object_mesh``, where the input is no triangle mesh.
    """
    vertices, faces = _checked(vertices, faces)
    # Single precision is what is kept: hashes and grids are to agree with it.
    vertices = vertices.astype(np.float32).astype(np.float64)
    vertices, faces, closed = _merged(vertices, faces)
    if len(faces) == 0:
        raise ValueError("object_mesh: all of its faces are degenerate (zero area): pass a mesh with a surface")
    if not closed:
        directed = np.sort(faces.reshape(-1) * (int(faces.max()) + 1) + np.roll(faces, -1, axis=1).reshape(-1))
        if (directed[1:] == directed[:-1]).any():  # an edge is run along twice in one direction
            faces = igl.bfs_orient(faces)[0]
        closed = is_closed(faces)
    body = _bodies(faces)
    faces = _outward(vertices, faces, body)
    if closed and body.max() > 0:
        vertices, faces = _united(vertices, faces, body)
    return np.ascontiguousarray(vertices), np.ascontiguousarray(faces), closed


def _bodies(faces: np.ndarray) -> np.ndarray:
    """Number (F,) of the body that each face is part of: faces that share a vertex are of one."""
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    count = int(faces.max()) + 1
    joined = coo_matrix((np.ones(len(start), dtype=bool), (start, end)), shape=(count, count))
    return connected_components(joined, directed=False)[1][faces[:, 0]]


def _checked(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float64 vertices and int64 faces, or an error."""
    if vertices.size == 0:
        raise ValueError("object_mesh: it has no vertices: pass a mesh that is not empty")
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"object_mesh: vertices must have shape (V, 3), got {vertices.shape}")
    if faces.size == 0:
        raise ValueError("object_mesh: it has no faces (a point cloud?): pass a triangle mesh of its surface")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"object_mesh: faces must be triangles of shape (F, 3), got {faces.shape}: triangulate it")
    if not np.isfinite(vertices).all():
        bad = int((~np.isfinite(vertices)).any(axis=1).sum())
        raise ValueError(f"object_mesh: {bad} of its vertices have NaN or infinite coordinates: repair the mesh")
    if faces.dtype.kind not in "iuf" or (faces.dtype.kind == "f" and not np.array_equal(faces, np.round(faces))):
        raise ValueError(f"object_mesh: faces must be integer vertex indices, got {faces.dtype}")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(
            f"object_mesh: faces point to vertices {int(faces.min())} to {int(faces.max())},"
            f" but there are only {len(vertices)} (0 to {len(vertices) - 1}): are the indices counted from 1?"
        )
    return vertices.astype(np.float64), faces.astype(np.int64)


def _merged(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Merge equal vertices; drop faces that are degenerate or repeated and vertices that nothing uses; is it closed?

    A mesh that is closed as it comes is left alone: merging could only weld bodies that touch.
    """
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    vertices, faces = _compact(vertices, faces)
    diagonal = np.linalg.norm(np.ptp(vertices, axis=0)) if len(faces) else 0.0
    if diagonal == 0:
        return vertices, faces[:0], False
    if is_closed(faces):
        return vertices, faces, True
    x, y, z = np.round((vertices - vertices.min(axis=0)) / (MERGE * diagonal)).astype(np.int64).T
    key = (x * (y.max() + 1) + y) * (z.max() + 1) + z  # below 2⁶³, as each is below 10⁶
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    keep = np.sort(first)  # the order of first appearance, so that a clean mesh stays as it was
    place = np.empty(len(first), dtype=np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    vertices, faces = vertices[keep], place[inverse.reshape(-1)][faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    corners = np.sort(faces, axis=1)
    order = np.lexsort(corners.T)
    corners = corners[order]
    repeated = np.concatenate([[False], (corners[1:] == corners[:-1]).all(axis=1)])
    faces = faces[np.sort(order[~repeated])]
    area = np.linalg.norm(face_vectors(vertices, faces), axis=1)
    solid = area > 1e-12 * diagonal**2
    # A needle without area may be what closes the mesh: dropping it there would open a seam.
    closed = bool(solid.any()) and is_closed(faces)
    return *_compact(vertices, faces if closed else faces[solid]), closed


def _compact(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without the vertices that no face uses."""
    used = np.zeros(len(vertices), dtype=bool)
    used[faces] = True
    return vertices[used], (np.cumsum(used) - 1)[faces]


def _outward(vertices: np.ndarray, faces: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Turn inside-out bodies, but leave cavities: closed bodies of negative volume inside another one."""
    inverted = np.flatnonzero(_signed_volumes(vertices, faces, body) < 0)
    if not len(inverted):
        return faces
    faces, rest, order = faces.copy(), faces[~np.isin(body, inverted)], np.argsort(body, kind="stable")
    for of in np.split(order, np.flatnonzero(np.diff(body[order])) + 1):
        if body[of[0]] not in inverted:
            continue
        if len(rest) and is_closed(faces[of]):
            inside = igl.winding_number(vertices, np.ascontiguousarray(rest), vertices[faces[of[:1], 0]])
            if abs(inside[0]) > 0.5:
                continue
        faces[of] = faces[of, ::-1]
    return faces


def _signed_volumes(vertices: np.ndarray, faces: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Volume of each body about the middle of it: exact for closed ones, of the right sign for most open."""
    of_vertex, of_face = np.zeros(len(vertices), dtype=np.int64), np.empty(len(faces))
    of_vertex[faces] = body[:, None]
    middle = np.stack([np.bincount(of_vertex, axis) for axis in vertices.T], axis=1)
    middle /= np.bincount(of_vertex)[:, None]
    for start in range(0, len(faces), 50_000):  # all at once would take half a gigabyte for a large scan
        some = faces[start : start + 50_000]
        away = vertices[some[:, 0]] - middle[body[start : start + 50_000]]
        of_face[start : start + 50_000] = np.einsum("ij,ij->i", away, face_vectors(vertices, some))
    return np.bincount(body, of_face) / 6


def _united(vertices: np.ndarray, faces: np.ndarray, body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One surface around several closed bodies where they overlap.

    Surfaces inside other bodies would otherwise collect points and pull the distance field to zero.
    """
    import manifold3d

    if (_signed_volumes(vertices, faces, body) < 0).any():
        return vertices, faces  # a cavity: bodies are not independent solids
    parts = [faces[body == b] for b in range(body.max() + 1)]
    boxes = [(vertices[p].min(axis=(0, 1)), vertices[p].max(axis=(0, 1))) for p in parts]
    if all((a[0] > b[1]).any() or (b[0] > a[1]).any() for a, b in combinations(boxes, 2)):
        return vertices, faces
    solids = []
    for part in parts:
        own_vertices, own_faces = _compact(vertices, part)
        solid = manifold3d.Manifold(manifold3d.Mesh(own_vertices.astype(np.float32), own_faces.astype(np.uint32)))
        if solid.status() != manifold3d.Error.NoError or solid.is_empty():
            return vertices, faces
        solids.append(solid)
    union = manifold3d.Manifold.batch_boolean(solids, manifold3d.OpType.Add).to_mesh()
    corners, triangles = np.asarray(union.vert_properties, dtype=np.float64)[:, :3], np.asarray(union.tri_verts)
    *merged, closed = _merged(corners, triangles.astype(np.int64))
    return (merged[0], merged[1]) if closed else (vertices, faces)
