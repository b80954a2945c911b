"""What a mesh looks like: shading normals, colours and heat maps, shared by the pictures and the web page.

Arrays are NumPy, metres; colours are sRGB in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from scipy.spatial import cKDTree

from contact.objects import surface_points

from .camera import unit

SKIN = (0.88, 0.69, 0.60)
OBJECT = (0.60, 0.70, 0.79)
GHOST = (0.86, 0.36, 0.30)
TRUTH = (0.25, 0.62, 0.36)

_HEAT = np.array([[0.99, 0.84, 0.42], [0.95, 0.49, 0.20], [0.76, 0.15, 0.22]])
_DEEP = np.array([[0.95, 0.30, 0.25], [0.45, 0.0, 0.08]])
TOUCH_FULL = 0.010
"""Metres from skin to object at which contact as it is has faded away."""
_DOUBT = np.array([[0.71, 0.67, 0.88], [0.47, 0.36, 0.76], [0.26, 0.13, 0.50]])


@dataclass(frozen=True)
class SmootherMesh:
    """What `smoother` returns: vertices (V + E, 3), faces (4 F, 3) in four blocks that each follow the old order (so
    `np.tile` carries their values), and edges (E, 2), the two old vertices between which each new one lies."""

    vertices: np.ndarray
    faces: np.ndarray
    edges: np.ndarray

    def carry(self, values: np.ndarray) -> np.ndarray:
        """Values at the old vertices (V, ...) to all vertices (V + E, ...)."""
        return np.concatenate([values, np.asarray(values)[self.edges].mean(1)])


def _ramp(values: np.ndarray, colours: np.ndarray, base: tuple[float, float, float]) -> np.ndarray:
    stops = np.vstack([base, colours])
    at = np.linspace(0.0, 1.0, len(stops))  # values beyond are clipped
    return np.stack([np.interp(np.nan_to_num(values), at, stop) for stop in stops.T], axis=-1).astype(np.float32)


def contact_colours(values: np.ndarray, base: tuple[float, float, float] = OBJECT) -> np.ndarray:
    """Colour map of contact: `base` at 0, through yellow and orange, to deep red at 1.

    values: (...,) contact in [0, 1]; values outside are clipped, NaN counts as 0. Returns (..., 3) sRGB.
    """
    return _ramp(values, _HEAT, base)


def uncertainty_colours(metres: np.ndarray, base: tuple[float, float, float] = SKIN, full: float = 0.015) -> np.ndarray:
    """Colour map of a standard deviation: `base` at 0, deep violet at `full` metres and above.

    metres: (...,). Returns (..., 3) sRGB.
    """
    return _ramp(np.asarray(metres, dtype=np.float64) / full, _DOUBT, base)


def nearness(distance: np.ndarray) -> np.ndarray:
    """Contact as it is: 1 where skin and object touch or overlap, 0 from `TOUCH_FULL` metres on. distance: (...,)."""
    return np.clip(1 - np.maximum(distance, 0) / TOUCH_FULL, 0, 1)


def depth_colours(distance: np.ndarray, base: tuple[float, float, float] = SKIN, full: float = 0.02) -> np.ndarray:
    """Colour of skin at a signed distance (...,) metres from the object: `base` outside, inside red, darkest at `full`
    metres and deeper. Returns (..., 3) sRGB."""
    inside = -np.nan_to_num(np.asarray(distance, np.float64))[..., None]
    return np.where(inside > 0, _DEEP[0] + np.clip(inside / full, 0, 1) * (_DEEP[1] - _DEEP[0]), base)


def corner_normals(vertices: np.ndarray, faces: np.ndarray, crease: float = 0.7) -> np.ndarray:
    """Shading normals per triangle corner: smooth across edges that turn less than ``crease`` radians, else sharp.

    Vertices at one position count as one. vertices (V, 3), faces (F, 3); returns (F, 3, 3) unit normals, float32.
    """
    vertices, faces = np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    scale = max(float(np.ptp(vertices, axis=0).max()), 1e-12)
    place = np.round(vertices / scale * 1e6).astype(np.int64)
    _, first, merged = np.unique(place, axis=0, return_index=True, return_inverse=True)
    normals = surface_points.corner_normals(vertices[first] / scale, merged.reshape(-1)[faces], crease, by_area=True)
    return normals.astype(np.float32)


def spread_weights(
    points: np.ndarray,
    onto: np.ndarray,
    *,
    point_normals: np.ndarray | None = None,
    onto_normals: np.ndarray | None = None,
    radius: float = 0.006,
    neighbours: int = 8,
) -> tuple[np.ndarray, np.ndarray]:
    """How values known at scattered surface points are carried to others: as a Gaussian mean of the nearest.

    points (n, 3), onto (m, 3); `radius` metres is the Gaussian's scale. With both normals given, points facing the
    other way (the far side of a thin wall) count for nothing. Returns indices (m, k) into `points` and weights (m, k)
    that sum to 1, of at most `neighbours`.
    """
    points = np.asarray(points, dtype=np.float64)
    k = min(neighbours, len(points))
    distance, nearest = cKDTree(points).query(np.asarray(onto), k=k)
    distance, nearest = distance.reshape(len(onto), k), nearest.reshape(len(onto), k)
    # relative to the nearest, so that a sparse region is interpolated and not blank
    weight = np.exp(-0.5 * (distance**2 - distance[:, :1] ** 2) / radius**2)
    if point_normals is not None and onto_normals is not None:
        facing = np.einsum("mkc,mc->mk", np.asarray(point_normals)[nearest], onto_normals)
        weight = weight * (np.clip(facing, 0.0, 1.0) + 1e-6)
    return nearest, weight / weight.sum(1, keepdims=True)


def spread(
    points: np.ndarray,
    values: np.ndarray,
    onto: np.ndarray,
    *,
    point_normals: np.ndarray | None = None,
    onto_normals: np.ndarray | None = None,
    radius: float = 0.006,
) -> np.ndarray:
    """Carry values (n,) known at scattered surface points to other surface points, (m,); see `spread_weights`.

    Raises ValueError when there are no points or their number is not that of the values.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(points) == 0 or len(points) != len(values):
        raise ValueError(f"spread: {len(points)} points for {len(values)} values; give one value per point")
    nearest, weight = spread_weights(
        points, onto, point_normals=point_normals, onto_normals=onto_normals, radius=radius
    )
    return (weight * values[nearest]).sum(1)


def subdivide(
    vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray, max_edge: float = 0.004
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split triangles until no edge is longer than `max_edge` metres, keeping the shading of the original.

    vertices (V, 3), faces (F, 3), normals (F, 3, 3) per corner. Returns the same three, finer. Gives a
    heat map places to live on when a flat side has only two triangles.
    """
    fine_v, fine_f, parent = trimesh.remesh.subdivide_to_size(
        np.asarray(vertices, dtype=np.float64), np.asarray(faces), max_edge, max_iter=20, return_index=True
    )
    triangles, corners = np.asarray(vertices, dtype=np.float64)[np.asarray(faces)][parent], fine_v[fine_f]
    with np.errstate(divide="ignore", invalid="ignore"):  # slivers without area, shaded evenly below
        bary = np.stack([trimesh.triangles.points_to_barycentric(triangles, corners[:, k]) for k in range(3)], axis=1)
    fine_n = unit(np.einsum("fkj,fjc->fkc", np.nan_to_num(bary, nan=1.0 / 3.0), normals[parent]))
    return fine_v.astype(np.float32), fine_f.astype(np.int64), fine_n.astype(np.float32)


def smoother(vertices: np.ndarray, faces: np.ndarray, strength: float = 0.5) -> SmootherMesh:
    """Halve the edges of a mesh and lift the new vertices onto the curved surface it stands for.

    Phong tessellation (Boubekeur & Alexa, SIGGRAPH Asia 2008): the old vertices stay where they are, so
    nothing shrinks. For looks only. vertices (V, 3), faces (F, 3); `strength` of the lift: one half is
    exact on a sphere.
    """
    vertices, faces = np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    normals = vertex_normals(faces, corner_normals(vertices, faces, crease=np.pi), len(vertices))
    halves = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, which = np.unique(halves, axis=0, return_inverse=True)
    ends, n = vertices[edges], normals[edges]
    middle = ends.mean(1)
    drop = np.einsum("ekc,ekc->ek", middle[:, None] - ends, n)[..., None] * n
    middle = middle - strength * drop.mean(1)
    m = which.reshape(-1, 3) + len(vertices)
    quarter = [
        np.stack([faces[:, 0], m[:, 0], m[:, 2]], 1), np.stack([m[:, 0], faces[:, 1], m[:, 1]], 1),
        np.stack([m[:, 2], m[:, 1], faces[:, 2]], 1), m,
    ]  # fmt: skip
    return SmootherMesh(np.concatenate([vertices, middle]), np.concatenate(quarter), edges)


def vertex_normals(faces: np.ndarray, normals: np.ndarray, count: int) -> np.ndarray:
    """Mean of the corner normals (F, 3, 3) at each of `count` vertices: (count, 3) unit vectors."""
    flat = np.asarray(faces).reshape(-1)
    return unit(np.stack([np.bincount(flat, normals.reshape(-1, 3)[:, c], count) for c in range(3)], 1))


def split_corners(faces: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One vertex for each place and normal, for shaders that know no other. normals (F, 3, 3) per corner.

    Returns which old vertex each of them is (N,), faces (F, 3) of them, and their normals (N, 3) in steps of 1/127.
    """
    steps = np.round(normals.reshape(-1, 3) * 127).astype(np.int64)
    key = np.concatenate([np.asarray(faces).reshape(-1, 1), steps], axis=1)
    unique, index = np.unique(key, axis=0, return_inverse=True)
    return unique[:, 0], index.reshape(-1, 3), unique[:, 1:] / 127.0


def linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB to linear light, both in [0, 1]."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(light: np.ndarray) -> np.ndarray:
    """Linear light to sRGB in [0, 1]; more than 1 is white."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
