"""Building signed-distance grids from meshes: exact near the surface, propagated further out, cached on disk."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import igl
import numpy as np
import platformdirs
import torch
from scipy import ndimage

from hand_models.atomic import write_atomically

from .decimation import OFF
from .grid import SignedDistanceGrid
from .surface_points import RAY_UNITS, face_vectors

BAND = 2.5
"""Every node within this many cells of the surface is computed exactly; more than √3 keeps the signs right."""
HALF_BAND = 6.0
"""Within this many cells at least every other node is; more than 2√3. Every fourth node is everywhere."""
FORMAT = 1
"""Raised whenever the values that the builder writes change, so that older cached grids are not used."""
CACHE_LIMIT_BYTES = 2_000_000_000
"""The cached grids that were used longest ago are deleted beyond this."""
SHARP = 5e-4
"""Metres from the surface within which a simpler mesh does not stand for this one."""
ABANDONED_SECONDS = 3600.0
"""A temporary file of this age belongs to a writer that was killed."""
Distances = Callable[[np.ndarray], np.ndarray]
"""From points (N, 3) to distances (N,), metres"""


def build_grid(
    vertices: Any,
    faces: Any,
    resolution: int = 96,
    margin: float = 0.02,
    *,
    closed: bool | None = None,
    simpler: tuple[np.ndarray, np.ndarray] | None = None,
    cache: bool = True,
) -> SignedDistanceGrid:
    """Signed-distance grid of a triangle mesh.

    Distances are exact at every node within 2.5 cells of the surface, at every other node within six cells and
    at every fourth node elsewhere; the nodes between are interpolated from these. As distance changes by no more
    than one moves, they are off by at most √3 cells within six cells of the surface and 2√3 beyond, and both only
    at the medial axis: on everyday objects by some hundredths of a cell in the mean.

    Signs come from the generalised winding number (Jacobson et al. 2013; fast form Barill et al. 2018), which
    unlike pseudonormals survives the self-intersections of scanned and decimated meshes. For a closed mesh it
    is asked only within half a cell of the surface and once per connected region of the other nodes: between
    two neighbours more than half a cell from the surface there can be none.

    Args:
        vertices: (V, 3) metres.
        faces: (F, 3) integer vertex indices, outward orientation.
        resolution: the number of nodes is about ``resolution ** 3``; the longest side of the box gets at
            least ``resolution`` cells, more when the box is flat or elongated.
        margin: metres of free space around the mesh that the box includes.
        closed: whether the mesh is watertight with one orientation; looked at when None.
        simpler: a mesh of fewer triangles, `OFF` from it at most, which stands for it in cells farther off than
            `SHARP`.
        cache: keep the result in the user's cache folder and look there first.

    Returns:
        A grid of one object on the CPU.

    Raises:
        ValueError: an empty mesh, or a resolution or margin that makes no grid.
    """
    vertices = np.ascontiguousarray(np.asarray(vertices), dtype=np.float64)
    faces = np.ascontiguousarray(np.asarray(faces), dtype=np.int64)
    if len(vertices) == 0 or len(faces) == 0:
        raise ValueError("vertices and faces must not be empty: pass a mesh with at least one triangle")
    if resolution < 4:
        raise ValueError(f"resolution must be at least 4, got {resolution}")
    if not margin >= 0:
        raise ValueError(f"margin must be 0 or more metres, got {margin}")
    closed = is_closed(faces) if closed is None else closed
    path = _cache_path(vertices, faces, resolution, margin) if cache else None
    found = None if path is None else _read(path)
    if found is None:
        origin, spacing, shape = _layout(vertices, resolution, margin)
        values = _fill(vertices, faces, origin.astype(np.float64), spacing, shape, closed, simpler)
        found = values, origin, spacing
        if path is not None:
            _write(path, *found)
    values, origin, spacing = found
    return SignedDistanceGrid(
        values=torch.from_numpy(values.reshape(-1)),
        shape=torch.tensor([values.shape], dtype=torch.int64),
        origin=torch.from_numpy(origin)[None],
        spacing=torch.tensor([spacing], dtype=torch.float32),
        offset=torch.zeros(1, dtype=torch.int64),
    )


def _layout(vertices: np.ndarray, resolution: int, margin: float) -> tuple[np.ndarray, float, np.ndarray]:
    """Origin (3,), spacing and node counts (3,), one more than multiples of four, of the box around the mesh."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    size = np.maximum(high - low, 1e-6) + 2 * margin
    # A flat or long object would leave most of the budget of resolution³ nodes unused, and these are the
    # objects with thin parts: spend it on a finer spacing.
    spacing = float(np.float32(min(size.max(), np.cbrt(size.prod())) / resolution))
    shape = 4 * np.ceil(size / (4 * spacing) - 1e-6).astype(np.int64) + 1
    origin = ((low + high) / 2 - (shape - 1) * spacing / 2).astype(np.float32)
    return origin, spacing, shape


def _fill(
    vertices: np.ndarray, faces: np.ndarray, origin: np.ndarray, spacing: float, shape: np.ndarray,
    closed: bool, simpler: tuple[np.ndarray, np.ndarray] | None,
) -> np.ndarray:  # fmt: skip
    """Node values (nx, ny, nz) float32."""
    if simpler is None:
        values = _unsigned(distance_query(vertices, faces), origin, spacing, shape)
    else:
        tree = _Tree(vertices, faces)
        values = _unsigned(distance_query(*simpler), origin, spacing, shape)
        near = values <= SHARP + OFF + np.sqrt(3) * spacing  # all corners of cells that come as near as SHARP
        values[near] = tree.distance(origin + spacing * np.argwhere(near))
    # Rays are for few nodes and many triangles: winding numbers would take a second and more to prepare.
    side = tree.side if simpler is not None and closed else lambda points: winding_sign(vertices, faces, points)
    clear = values > spacing / 2
    near = np.argwhere(~clear)
    if closed:
        region, count = ndimage.label(clear)
        # One question per region, at its node farthest from the surface.
        deepest = ndimage.maximum_position(values, region, np.arange(1, count + 1)) if count else []
        asked = np.concatenate([np.array(deepest, dtype=near.dtype).reshape(-1, 3), near])
        sign = side(origin + spacing * asked).astype(np.float32)
        values[~clear] *= sign[count:]
        values *= np.concatenate([np.ones(1, np.float32), sign[:count]])[region]
    else:
        values[~clear] *= side(origin + spacing * near)
        far, like = np.argwhere(clear), (vertices, faces) if simpler is None else simpler
        values[clear] *= _winding_sign_blockwise(*like, origin, spacing, far, values[clear])
        _bound_by_sign_changes(values, spacing)
    return values


def _unsigned(distance: Distances, origin: np.ndarray, spacing: float, shape: np.ndarray) -> np.ndarray:
    """Distances (nx, ny, nz) float32 without sign, coarse to fine."""
    coarse = (shape - 1) // 4 + 1
    values = distance(origin + 4 * spacing * np.indices(coarse).reshape(3, -1).T)
    values = values.astype(np.float32).reshape(coarse)
    for stride, band in ((2, HALF_BAND), (1, BAND)):
        for axis in range(3):
            values = _insert_midpoints(values, axis)
        # Number of axes along which a node lies between two nodes of the coarser level: 0 is exact already,
        # the others are √n strides from the nodes that they were interpolated from.
        odd = sum(np.ix_(*(np.arange(n) % 2 for n in values.shape)))
        reach = spacing * np.where(odd > 0, band + stride * np.sqrt(odd), -1.0).astype(np.float32)
        wanted = values <= reach
        values[wanted] = distance(origin + spacing * (stride * np.argwhere(wanted)))
    return values


def distance_query(vertices: np.ndarray, faces: np.ndarray) -> Distances:
    """A function from points (N, 3) to their exact distances (N,) from a mesh, without sign.

    Open3D answers where it is installed (the extra ``[open3d]``), in about two thirds of the time and in
    float32, as grids are kept; else libigl.
    """
    try:
        import open3d
    except (ImportError, OSError):  # absent, or a library of the system that it needs is
        tree = igl.AABB()
        tree.init(vertices, faces)
        return lambda points: np.sqrt(tree.squared_distance(vertices, faces, np.ascontiguousarray(points))[0])
    tensor, scene = open3d.core.Tensor, open3d.t.geometry.RaycastingScene()
    scene.add_triangles(tensor(vertices.astype(np.float32)), tensor(faces.astype(np.uint32)))
    return lambda points: scene.compute_distance(tensor(points.astype(np.float32))).numpy()


def _insert_midpoints(values: np.ndarray, axis: int) -> np.ndarray:
    """Twice the resolution along one axis by linear interpolation: n nodes become 2 n − 1."""
    values = np.moveaxis(values, axis, 0)
    finer = np.repeat(values, 2, axis=0)[:-1]
    finer[1::2] = (values[:-1] + values[1:]) / 2
    return np.ascontiguousarray(np.moveaxis(finer, 0, axis))


def is_closed(faces: np.ndarray) -> bool:
    """Whether every directed edge of the faces (F, 3) is met once by its reverse: watertight, one orientation."""
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    size = int(faces.max()) + 1
    forward, backward = start * size, end * size
    forward += end
    backward += start
    forward.sort()
    backward.sort()
    return bool((forward[1:] > forward[:-1]).all() and np.array_equal(forward, backward))


def winding_sign(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Side (N,) of a mesh that points (N, 3) are on: +1 outside, −1 where the generalised winding number exceeds ½.

    (libigl's own signed distance by winding number multiplies by 1 − 2w instead, which is off by per mille where the
    fast form rounds.)
    """
    winding = igl.fast_winding_number(vertices, faces, np.ascontiguousarray(points))
    return np.where(winding > 0.5, -1.0, 1.0)


class _Tree:
    """Distances from a closed mesh and sides of it, by one tree of boxes around its triangles.

    All is in units of `RAY_UNITS`, as rays need.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        self._mesh, self._tree = (np.ascontiguousarray(vertices * RAY_UNITS), faces), igl.AABB()
        self._tree.init(*self._mesh)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Metres (N,), without sign, of points (N, 3)."""
        squared = self._tree.squared_distance(*self._mesh, np.ascontiguousarray(points * RAY_UNITS))[0]
        return np.sqrt(squared) / RAY_UNITS

    def side(self, points: np.ndarray) -> np.ndarray:
        """As `winding_sign` says it, which a ray outward counts where the mesh is closed."""
        (vertices, faces), points = self._mesh, np.ascontiguousarray(points * RAY_UNITS)
        outward = points - (vertices.min(axis=0) + vertices.max(axis=0)) / 2
        hits = self._tree.intersect_ray(vertices, faces, points, outward)
        row = np.repeat(np.arange(len(points)), np.fromiter(map(len, hits), np.int64, len(points)))
        met = np.array([face for of_ray in hits for face, *_ in of_ray], dtype=np.int64)
        leaves = np.sign(np.einsum("ij,ij->i", face_vectors(vertices, faces[met]), outward[row]))
        return np.where(np.bincount(row, leaves, len(points)) > 0.5, -1.0, 1.0)


def _winding_sign_blockwise(
    vertices: np.ndarray, faces: np.ndarray, origin: np.ndarray, spacing: float, node: np.ndarray, distance: np.ndarray
) -> np.ndarray:
    """Winding-number signs (K,) of nodes (K, 3) at unsigned distances (K,), mostly decided four³ at a time."""
    block, inverse = np.unique(node // 4, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    centre = origin + spacing * (4 * block + 1.5)
    winding = igl.fast_winding_number(vertices, faces, np.ascontiguousarray(centre))
    sign = np.where(winding > 0.5, -1.0, 1.0)[inverse]
    # Where no surface comes between a node and its block's centre the number differs little between them,
    # so it settles the node unless it is itself near the half level.
    unsure = (np.abs(winding - 0.5) < 0.3)[inverse] | (distance < 1.5 * np.sqrt(3) * spacing)
    sign[unsure] = winding_sign(vertices, faces, origin + spacing * node[unsure])
    return sign.astype(np.float32)


def _bound_by_sign_changes(values: np.ndarray, spacing: float) -> None:
    """Let distances of an open mesh fall to zero where its sign changes without a surface (its mouth).

    Otherwise the field would jump from plus to minus across the opening.
    """
    negative = values < 0
    if not negative.any() or negative.all():
        return
    for side in (negative, ~negative):
        bound = (ndimage.distance_transform_edt(side) - 0.5).astype(np.float32) * np.float32(spacing)
        # Near the surface itself the exact value stays: the bound is only good to about a cell.
        lower = side & (np.abs(values) > bound + spacing)
        values[lower] = np.where(side is negative, -bound, bound)[lower]


def cache_folder() -> Path | None:
    """Folder of cached grids: ``$REGRASP_CACHE``, else the user's cache folder; None where switched off or unknown."""
    setting = os.environ.get("REGRASP_CACHE", "")
    if setting.lower() in {"0", "off"}:
        return None
    if setting:
        return Path(setting).expanduser() / "grids"
    folder = platformdirs.user_cache_path("regrasp", appauthor=False, opinion=False)
    return folder / "grids" if folder.is_absolute() else None  # it is not where the user has no home folder


def _cache_path(vertices: np.ndarray, faces: np.ndarray, resolution: int, margin: float) -> Path | None:
    """Where the grid of a mesh lies."""
    folder = cache_folder()
    if folder is None:
        return None
    key = hashlib.sha256(f"{FORMAT} {resolution} {margin!r} {vertices.shape}".encode())
    for array in (vertices, faces):
        key.update(np.ascontiguousarray(array).data)
    return folder / f"{key.hexdigest()[:40]}.npz"


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, float] | None:
    """A cached grid, or None if there is none or it is damaged; that it was used is noted for `_prune`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            values, origin, spacing = file["values"], file["origin"], float(file["spacing"])
        with suppress(OSError):  # a folder that only others may write
            os.utime(path)
    except Exception:  # whatever is wrong with a cached file, it can be built again
        return None
    sound = values.ndim == 3 and values.dtype == np.float32 and origin.shape == (3,) and np.isfinite(values).all()
    return (values, origin.astype(np.float32), spacing) if sound else None


def _write(path: Path, values: np.ndarray, origin: np.ndarray, spacing: float) -> None:
    """Keep a grid for the next time; a folder that cannot be written is no error."""
    arrays = {"values": values, "origin": origin, "spacing": np.float64(spacing)}
    with suppress(OSError):
        write_atomically(path, lambda file: np.savez(file, **arrays))
        _prune(path.parent)


def _prune(folder: Path) -> None:
    """Delete the grids used longest ago beyond the limit, and what writers that were killed have left.

    Other processes write and prune at the same time, so any file may be gone when it is looked at.
    """
    entries, total = [], 0
    for path in folder.iterdir():
        with suppress(OSError):
            status = path.stat()
            entries.append((status.st_mtime, status.st_size, path))
    for changed, size, path in sorted(entries, reverse=True):
        left_over = path.suffix == ".tmp" and time.time() - changed > ABANDONED_SECONDS
        total += size
        if left_over or (path.suffix == ".npz" and total > CACHE_LIMIT_BYTES):
            with suppress(OSError):  # Windows does not delete what another process has open
                path.unlink(missing_ok=True)
