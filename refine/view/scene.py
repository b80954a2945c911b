"""Meshes that rays can be shot at, by embreex: no display, no OpenGL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np

from .appearance import OBJECT, corner_normals, linear
from .camera import Camera, frame, look_at, unit

OCCLUSION_REACH = 0.45
"""How far ambient occlusion looks, in radii of the scene."""


@dataclass(frozen=True)
class Item:
    """One mesh of a picture.

    vertices (V, 3) metres; faces (F, 3); colour an sRGB triple in [0, 1] or one per vertex (V, 3); gloss in
    [0, 1] is the strength of the highlight; softness in [0, 1] lets light wrap round the form as it does in
    skin; focus is how much the automatic camera wants to see of it, and groups (F,) integers are its parts, of
    each of which it wants to see some (-1: faces it would rather not see); edges that turn more than crease
    radians stay sharp; normals (F, 3, 3) per corner replace the computed ones.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colour: tuple[float, float, float] | np.ndarray = OBJECT
    gloss: float = 0.25
    softness: float = 0.0
    focus: float = 1.0
    crease: float = 0.7
    groups: np.ndarray | None = field(default=None, repr=False)
    normals: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Hits:
    """What ``N`` rays met."""

    ray: np.ndarray  # (N,) index of the ray
    point: np.ndarray  # (N, 3) on the surface, scene units
    lifted: np.ndarray  # (N, 3) on the smooth surface the normals describe: where shadow rays start
    normal: np.ndarray  # (N, 3) shading normal, towards the viewer
    colour: np.ndarray  # (N, 3) linear
    item: np.ndarray  # (N,)


class Scene:
    """Meshes merged into one embree scene, moved and scaled to the unit sphere (rays are float32)."""

    def __init__(self, items: Sequence[Item]) -> None:
        rtcore, scenes, mesh = _embree()
        if not items:
            raise ValueError("render: no meshes; give at least one Item")
        self.items = items
        self._meshes = [_checked(item) for item in items]
        points = np.concatenate([v for v, _ in self._meshes])
        self.centre = (points.min(0) + points.max(0)) / 2
        self.radius = max(float(np.linalg.norm(points - self.centre, axis=1).max()), 1e-9)
        self.corners = self.to_scene(np.concatenate([v[f] for v, f in self._meshes]))
        self.item = np.concatenate([np.full(len(f), i) for i, (_, f) in enumerate(self._meshes)])
        self._embree = scenes.EmbreeScene(rtcore.EmbreeDevice())
        mesh.TriangleMesh(self._embree, self.corners)

    @cached_property
    def normals(self) -> np.ndarray:
        """(F, 3, 3) shading normals of the corners."""
        return np.concatenate([
            corner_normals(v, f, item.crease) if item.normals is None else np.asarray(item.normals, np.float32)
            for item, (v, f) in zip(self.items, self._meshes, strict=True)
        ])  # fmt: skip

    @cached_property
    def colours(self) -> np.ndarray:
        """(F, 3, 3) linear colours of the corners."""
        return np.concatenate([
            linear(_vertex_colours(item, len(v)))[f].astype(np.float32)
            for item, (v, f) in zip(self.items, self._meshes, strict=True)
        ])  # fmt: skip

    def to_scene(self, points: np.ndarray) -> np.ndarray:
        return ((points - self.centre) / self.radius).astype(np.float32)

    def cast(self, eye: np.ndarray, directions: np.ndarray) -> dict[str, np.ndarray]:
        origins = np.tile(self.to_scene(eye), (len(directions), 1))
        return self._embree.run(origins, directions, query="INTERSECT", output=True)

    def blocked(self, origins: np.ndarray, directions: np.ndarray, reach: float) -> np.ndarray:
        """(N,) bool: whether anything lies within `reach` (scene units) along each ray."""
        reaches = np.full(len(origins), reach, np.float32)
        return self._embree.run(origins, directions, reaches, query="OCCLUDED") >= 0

    def trace(self, eye: np.ndarray, directions: np.ndarray) -> Hits:
        found = self.cast(eye, directions)
        ray = np.flatnonzero(found["primID"] >= 0)
        face, u, v = found["primID"][ray], found["u"][ray], found["v"][ray]
        bary = np.stack([1 - u - v, u, v], axis=1)
        corners, corner_normal = self.corners[face], self.normals[face]
        point = np.einsum("nkc,nk->nc", corners, bary)
        # start shadow rays on the curved surface the triangle stands for, else facets shade themselves
        # (J. Hanika, "Hacking the shadow terminator", Ray Tracing Gems II, 2021)
        below = np.minimum(np.einsum("nkc,nkc->nk", point[:, None] - corners, corner_normal), 0.0)
        lifted = point - np.einsum("nk,nkc->nc", below * bary, corner_normal)
        normal = unit(np.einsum("nkc,nk->nc", corner_normal, bary))
        flat = found["Ng"][ray]
        outward = np.einsum("nc,nc->n", flat, corner_normal[:, 0]) >= 0
        seen_from_behind = (np.einsum("nc,nc->n", flat, directions[ray]) > 0) == outward
        normal[seen_from_behind] *= -1
        lifted[seen_from_behind] = point[seen_from_behind]
        colour = np.einsum("nkc,nk->nc", self.colours[face], bary)
        return Hits(ray, point, lifted + normal * 2e-3, normal, colour, self.item[face])


def auto_camera(
    items: Sequence[Item], *, up: Sequence[float] = (0.0, 0.0, 1.0), size: tuple[int, int] = (640, 480),
    fov: float = 0.6, extra: np.ndarray | None = None,
) -> Camera:  # fmt: skip
    """Of 36 views from all round, the one that shows most of each item, weighted by its `focus`.

    `extra` (N, 3) are more points to keep in the picture.
    """
    more = np.zeros((0, 3)) if extra is None else np.asarray(extra).reshape(-1, 3)
    points = np.concatenate([*(np.asarray(item.vertices) for item in items), more])
    basis = look_at(np.zeros(3), (1.0, 0.0, 0.0) if abs(up[0]) < 0.9 else (0.0, 1.0, 0.0), up).pose[:3, :3]
    scene = Scene(items)
    owner = np.concatenate([np.zeros(len(i.faces)) if i.groups is None else i.groups for i in items])
    parts, group = np.unique(np.stack([scene.item, owner]).astype(np.int64), axis=1, return_inverse=True)
    group = group.reshape(-1)
    shares, cameras = [], []
    for elevation, azimuth in product(np.radians([12.0, 32.0, 55.0]), np.arange(12) * (2 * np.pi / 12)):
        along = np.cos(elevation)
        local = (np.cos(azimuth) * along, -np.sin(elevation), np.sin(azimuth) * along)
        cameras.append(frame(points, basis @ np.array(local), up=up, size=size, fov=fov))
        eye, rays = cameras[-1].rays((72, 54))
        face = scene.cast(eye, rays.reshape(-1, 3))["primID"]
        shares.append(np.bincount(group[face[face >= 0]], minlength=parts.shape[1]))
    share = np.array(shares, dtype=np.float64)
    share = np.sqrt(share / np.maximum(share.max(0), 1))  # the root: a little of each beats all of one
    focus = np.array([i.focus for i in items])[parts[0]]
    weight = np.where(parts[1] < 0, -0.15 * focus, focus / np.bincount(parts[0])[parts[0]])
    return cameras[int(np.argmax(share @ weight))]


def openness(
    items: Sequence[Item], points: np.ndarray, normals: np.ndarray, *, rays: int = 48, reach: float = OCCLUSION_REACH
) -> np.ndarray:
    """Share in [0, 1] of the sky that is open above surface points: baked ambient occlusion.

    points (N, 3) metres with outward unit normals (N, 3); cosine-weighted rays of length `reach` scene radii.
    Returns (N,) float32.
    """
    scene = Scene(items)
    normals = np.asarray(normals, dtype=np.float32)
    start = scene.to_scene(np.asarray(points)) + normals * np.float32(4e-3)
    share = np.zeros(len(start), np.float32)
    for sky in even_sphere(r2(np.arange(rays))):
        share += ~scene.blocked(start, unit(normals + 0.999 * sky), reach)
    return share / rays


def _checked(item: Item) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = np.asarray(item.vertices, dtype=np.float64), np.asarray(item.faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise ValueError(f"Item.vertices must be (V, 3) and finite, not {vertices.shape}")
    shaped = faces.ndim == 2 and faces.shape[1] == 3 and len(faces) > 0
    if not shaped or faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(f"Item.faces must be (F, 3) indices below {len(vertices)}, not {faces.shape}")
    return vertices, faces.astype(np.int64)


def _vertex_colours(item: Item, count: int) -> np.ndarray:
    colour = np.asarray(item.colour, dtype=np.float64)
    if colour.shape not in ((3,), (count, 3)):
        raise ValueError(f"Item.colour must be (3,) or ({count}, 3) sRGB in [0, 1], not {colour.shape}")
    return np.broadcast_to(colour, (count, 3))


def r2(index: np.ndarray) -> np.ndarray:
    """Points (N, 2) of the R2 low-discrepancy sequence (M. Roberts, 2018)."""
    return (0.5 + index[:, None] * np.array([0.7548776662466927, 0.5698402909980532])) % 1.0


def even_sphere(u: np.ndarray) -> np.ndarray:
    """Points (N, 2) of the unit square to directions spread evenly over the sphere (N, 3)."""
    z, turn = 1 - 2 * u[:, 0], 2 * np.pi * u[:, 1]
    r = np.sqrt(np.clip(1 - z * z, 0, None))
    return np.stack([r * np.cos(turn), r * np.sin(turn), z], axis=1).astype(np.float32)


def _embree():
    try:
        from embreex import mesh_construction, rtcore, rtcore_scene
    except ImportError as error:
        raise ImportError(
            "pictures need the embreex package, which is not installed: pip install 'regrasp[render]'"
        ) from error
    return rtcore, rtcore_scene, mesh_construction
