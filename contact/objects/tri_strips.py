"""Triangle strips of .ply files, which trimesh reads past: Stanford's scans are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import trimesh


def from_strips(cloud: trimesh.PointCloud) -> trimesh.Trimesh | None:
    """The mesh of what trimesh has made a cloud of points of; None where its file has no strips that can be read.

    A strip is a list of vertices, of which any three neighbours are a triangle; -1 begins a new one.
    """
    import trimesh

    data = cloud.metadata.get("_ply_raw", {}).get("tristrips", {}).get("data")
    try:
        lists = _lists(data)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return None
    strips = [part[part >= 0] for row in lists for part in np.split(row, np.flatnonzero(row < 0))]
    strips = [strip for strip in strips if len(strip) > 2]
    if not strips or max(strip.max() for strip in strips) >= len(cloud.vertices):
        return None
    return trimesh.Trimesh(cloud.vertices, trimesh.util.triangle_strips_to_faces(strips), process=False)


def _lists(data: Any) -> list[np.ndarray]:
    """The lists of vertices, of text files a dictionary of their columns, of binary ones an array of records."""
    if isinstance(data, Mapping):
        return [np.asarray(row, dtype=np.int64) for row in next(iter(data.values()))]
    rows = data[data.dtype.names[0]]
    return [row.astype(np.int64) for row in rows[rows.dtype.names[-1]]]
