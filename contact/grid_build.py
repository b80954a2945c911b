"""Building signed-distance grids from meshes: exact near the surface, propagated further out, cached on disk."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import igl
import numpy as np
from scipy import ndimage

BAND = 2.0
"""Half-width of the exactly computed band in cells; above √3 the signs of the far field are certain."""
FORMAT = 1
"""Raised whenever the values that the builder writes change, so that older cached grids are not used."""
CACHE_LIMIT_BYTES = 2_000_000_000
"""The oldest cached grids are deleted beyond this."""


def build_grid_arrays(
    vertices: Any, faces: Any, resolution: int = 96, margin: float = 0.02, *, cache: bool = True
) -> tuple[np.ndarray, np.ndarray, float]:
    """Node values of a signed-distance grid.

    Nodes within two cells of the surface get libigl's exact distance; blocks of nodes are visited coarse to
    fine, so that only a shell around the surface is ever queried. A node farther out takes its distance to
    the closest surface point of the nearest band node (scipy's Euclidean distance transform): never too
    small, and too large by at most √3 cells, by the triangle inequality, and far less on everyday objects.

    Signs of a closed mesh come from pseudonormals (Bærentzen & Aanæs 2005) in the band and spread through
    each connected free region; those of an open mesh, or one of several bodies, from the generalised winding
    number (Jacobson et al. 2013).

    Args:
        vertices, faces, resolution, margin, cache: as in :func:`contact.grid.build_grid`.

    Returns:
        values (nx, ny, nz) float32 metres, positive outside; origin (3,) float32; spacing in metres.

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

    path = _cache_path(vertices, faces, resolution, margin) if cache else None
    if path is not None and (found := _read(path)) is not None:
        return found
    origin, spacing, shape = _layout(vertices, resolution, margin)
    values = _fill(vertices, faces, origin.astype(np.float64), spacing, shape)
    if path is not None:
        _write(path, values, origin, spacing)
    return values, origin, spacing


def _layout(vertices: np.ndarray, resolution: int, margin: float) -> tuple[np.ndarray, float, np.ndarray]:
    """Origin (3,), spacing and node counts (3,) of the box around the mesh."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    size = np.maximum(high - low, 1e-6) + 2 * margin
    # A flat or long object would leave most of the budget of resolution³ nodes unused, and these are the
    # objects with thin parts: spend it on a finer spacing.
    spacing = float(np.float32(min(size.max() / resolution, np.cbrt(size.prod()) / resolution)))
    shape = np.maximum(np.ceil(size / spacing).astype(np.int64) + 1, 2)
    origin = ((low + high) / 2 - (shape - 1) * spacing / 2).astype(np.float32)
    return origin, spacing, shape


def _fill(
    vertices: np.ndarray, faces: np.ndarray, origin: np.ndarray, spacing: float, shape: np.ndarray
) -> np.ndarray:
    """Node values (nx, ny, nz) float32."""
    tree = igl.AABB()
    tree.init(vertices, faces)
    node = _band_nodes(tree, vertices, faces, origin, spacing, shape)
    position = origin + spacing * node
    closed = _is_single_closed_body(faces)
    if closed:
        distance, _, closest, _ = igl.signed_distance(
            position, vertices, faces, sign_type=igl.SIGNED_DISTANCE_TYPE_PSEUDONORMAL
        )
    else:
        squared, _, closest = tree.squared_distance(vertices, faces, position)
        distance = np.sqrt(squared) * _winding_sign(vertices, faces, position)

    in_band = np.zeros(shape, dtype=bool)
    in_band[tuple(node.T)] = True
    values = np.empty(shape, dtype=np.float32)
    values[in_band] = distance  # band nodes are sorted in memory order
    far = ~in_band
    if not far.any():
        return values
    rank = np.empty(shape, dtype=np.int32)
    rank[in_band] = np.arange(len(node), dtype=np.int32)
    nearest = ndimage.distance_transform_edt(far, return_distances=False, return_indices=True)
    nearest = rank[tuple(axis[far] for axis in nearest)]
    far_node = np.argwhere(far)
    away = (origin + spacing * far_node - closest[nearest]).astype(np.float32)
    magnitude = np.sqrt(np.einsum("ij,ij->i", away, away))
    if closed:
        region, n_regions = ndimage.label(far)
        region = region[far]
        # All nodes of a region lie on one side; the vote shrugs off single wrong signs of a flawed mesh.
        vote = np.bincount(region, weights=np.sign(distance[nearest]), minlength=n_regions + 1)
        sign = np.where(vote < 0, -1.0, 1.0).astype(np.float32)[region]
    else:
        sign = _winding_sign_blockwise(vertices, faces, origin, spacing, far_node)
    values[far] = magnitude * sign
    if not closed:
        _bound_by_sign_changes(values, spacing)
    return values


def _band_nodes(
    tree: Any, vertices: np.ndarray, faces: np.ndarray, origin: np.ndarray, spacing: float, shape: np.ndarray
) -> np.ndarray:
    """Nodes (K, 3) that include all within the band, sorted in memory order.

    Distance changes by no more than one moves, so a block whose centre is farther from the surface than
    the band plus the block's half diagonal holds no band node.
    """
    block = 4
    cell = np.indices(-(-shape // block)).reshape(3, -1).T
    while block > 1:
        centre = origin + spacing * (block * cell + (block - 1) / 2)
        squared, _, _ = tree.squared_distance(vertices, faces, np.ascontiguousarray(centre))
        reach = spacing * (BAND + np.sqrt(3) * (block - 1) / 2)
        cell = cell[squared <= reach**2]
        cell = (2 * cell[:, None] + np.indices((2, 2, 2)).reshape(3, -1).T).reshape(-1, 3)
        block //= 2
        cell = cell[(block * cell < shape).all(axis=1)]
    return cell[np.argsort(np.ravel_multi_index(tuple(cell.T), tuple(shape)))]


def _is_single_closed_body(faces: np.ndarray) -> bool:
    """Whether every directed edge is met once by its reverse, and the faces hang together."""
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    size = int(faces.max()) + 1
    forward, backward = np.sort(start * size + end), np.sort(end * size + start)
    if len(np.unique(forward)) != len(forward) or not np.array_equal(forward, backward):
        return False
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(start), dtype=bool), (start, end)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1]
    return bool((labels[faces[:, 0]] == labels[faces[0, 0]]).all())


def _winding_sign(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> np.ndarray:
    """+1 outside, −1 where the generalised winding number exceeds one half."""
    winding = igl.fast_winding_number(vertices, faces, np.ascontiguousarray(points))
    return np.where(winding > 0.5, -1.0, 1.0)


def _winding_sign_blockwise(
    vertices: np.ndarray, faces: np.ndarray, origin: np.ndarray, spacing: float, node: np.ndarray
) -> np.ndarray:
    """Winding-number signs (K,) of nodes off the surface, most of them decided four³ at a time."""
    block, inverse = np.unique(node // 4, axis=0, return_inverse=True)
    centre = origin + spacing * (4 * block + 1.5)
    winding = igl.fast_winding_number(vertices, faces, np.ascontiguousarray(centre))
    # The number is harmonic off the surface, so it is nearly constant over a block away from its half level.
    sign = np.where(winding > 0.5, -1.0, 1.0)[inverse.reshape(-1)]
    unsure = (np.abs(winding - 0.5) < 0.3)[inverse.reshape(-1)]
    if unsure.any():
        sign[unsure] = _winding_sign(vertices, faces, origin + spacing * node[unsure])
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
    """Folder of cached grids: ``$REGRASP_CACHE``, else the user's cache folder; None where switched off."""
    setting = os.environ.get("REGRASP_CACHE", "")
    if setting.lower() in {"0", "off"}:
        return None
    if setting:
        return Path(setting).expanduser() / "grids"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "regrasp" / "grids"


def _cache_path(vertices: np.ndarray, faces: np.ndarray, resolution: int, margin: float) -> Path | None:
    try:
        folder = cache_folder()
    except RuntimeError:  # no home folder
        return None
    if folder is None:
        return None
    digest = hashlib.sha256(f"{FORMAT} {BAND} {resolution} {margin!r} {vertices.shape}".encode())
    digest.update(vertices.tobytes())
    digest.update(faces.tobytes())
    return folder / f"{digest.hexdigest()[:40]}.npz"


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, float] | None:
    """A cached grid, or None if there is none or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            values, origin, spacing = file["values"], file["origin"], float(file["spacing"])
    except Exception:  # whatever is wrong with a cached file, it can be built again
        return None
    if values.ndim != 3 or values.dtype != np.float32 or origin.shape != (3,) or not np.isfinite(values).all():
        return None
    return values, origin.astype(np.float32), spacing


def _write(path: Path, values: np.ndarray, origin: np.ndarray, spacing: float) -> None:
    """Write under a temporary name and rename, so that a reader never sees half a file. Failures are ignored."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, values=values, origin=origin, spacing=np.float64(spacing))
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _prune(path.parent)
    except OSError:
        return


def _prune(folder: Path) -> None:
    """Delete the oldest grids beyond the limit."""
    entries = sorted(((p.stat().st_mtime, p.stat().st_size, p) for p in folder.glob("*.npz")), reverse=True)
    total = 0
    for _, size, path in entries:
        total += size
        if total > CACHE_LIMIT_BYTES:
            path.unlink(missing_ok=True)
