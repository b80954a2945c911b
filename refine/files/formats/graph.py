"""Graph keypoints: 21 joints and 8 corners of the object's box, in space or in the picture.

Ours, since HOPE-Net and JHOPE, whose networks give such points, save arrays without names.
JSON, one object or a list of them:

    {"format": "graph/1", "object_id": "mug", "side": "right", "cam_K": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]],
     "keypoints_2d": [[[x, y], ... 29], ...], "confidence": [[... 29], ...]}

``keypoints_3d`` (metres, camera frame) may stand for ``keypoints_2d`` and ``cam_K``; a single hand needs no outer
list. Joints are in OpenPose order, corners those of the mesh's axis-aligned box, z fastest; null where missing.
``corner_order``: "search" (all 48 orders; the default for points in space) or "given". ``frame_id``,
``sequence_id`` are labels; ``objects`` is the folder of meshes, relative to the file, for `named_meshes`.
Poses of hand and object are found from the points when the rows are refined, or placed on the way to another format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..object_files import inside
from ..predictions import Predictions
from .columns import Columns, joined
from .files import filled, head, numbers, per_hand, read_tree, table_of
from .format import Format, Side

SCHEMA = "graph/1"
_KNOWN = {
    "format", "object_id", "side", "cam_K", "keypoints_2d", "keypoints_3d", "confidence", "corner_order", "frame_id",
    "sequence_id", "objects",
}  # fmt: skip


def read(path: Path, *, object_id: str | None = None, side: Side | None = None) -> Predictions:
    """Read graph keypoints: the points and what is known of them; poses are NaN.

    Args:
        object_id: object of all hands, where the file does not say.
        side: of all hands, where the file does not say; "right" when None.
    """
    parts = [_columns(entry, object_id, side) for entry in _entries(path)]
    if len({"keypoints_2d" in part for part in parts}) > 1:  # each row has one of the two; the other is NaN
        for part in parts:
            rows = len(part["side"])
            for name, shape in (("keypoints_3d", (29, 3)), ("keypoints_2d", (29, 2)), ("cam_K", (3, 3))):
                part.setdefault(name, np.full((rows, *shape), np.nan))
    return Predictions.from_columns(joined(parts))


def named_meshes(path: Path) -> Path | None:
    """The folder of meshes that the file itself names; None where it names none.

    Raises:
        ValueError: it lies outside the file's folder, or its entries name several.
    """
    named = {entry["objects"] for entry in _entries(path) if isinstance(entry.get("objects"), str)}
    if len(named) > 1:
        raise ValueError(f"{path}: objects: names {len(named)} folders; give one as --objects.")
    return inside(path.parent, named.pop(), f"{path}: objects") if named else None


def _entries(path: Path) -> list[dict[str, Any]]:
    """What the file says of each object; ``ValueError`` for fields that are not known."""
    entries = table_of(read_tree(path), "an object with keypoints_2d or keypoints_3d")
    if not entries:
        raise ValueError(f"{path}: holds no hands.")
    for entry in entries:
        unknown = sorted(set(map(str, entry)) - _KNOWN)
        if unknown:
            known = ", ".join(sorted(_KNOWN))
            raise ValueError(f"{path}: field {unknown[0][:60]!r} is not known; the fields are {known}.")
        if isinstance(entry.get("objects"), str):
            inside(path.parent, entry["objects"], f"{path}: objects")
    return entries


def _columns(entry: dict[str, Any], object_id: str | None, side: str | None) -> Columns:
    """The columns of one object of the file."""
    flat = "keypoints_3d" not in entry
    name = "keypoints_2d" if flat else "keypoints_3d"
    if name not in entry:
        raise ValueError("field 'keypoints_2d' (with cam_K) or 'keypoints_3d' is missing.")
    if flat and entry.get("cam_K") is None:
        raise ValueError("cam_K: missing; keypoints_2d need the camera's 3×3 intrinsics, in pixels.")
    points = numbers(name, filled(entry[name]))
    points = numbers(name, points[None] if points.ndim == 2 else points, None, 29, 2 if flat else 3)
    rows = len(points)
    labels = {
        "object_id": entry.get("object_id", object_id),
        "side": entry.get("side", side or "right"),
        "corner_order": entry.get("corner_order") or ("given" if flat else "search"),
    }
    if not isinstance(labels["object_id"], str) or not labels["object_id"]:
        raise ValueError("object_id: expected a name; give it in the file or with --object-id.")
    for what, words in (("side", ("right", "left")), ("corner_order", ("search", "given"))):
        if labels[what] not in words:
            raise ValueError(f"{what}: got {str(labels[what])[:20]!r}; write {' or '.join(map(repr, words))}.")
    confidence = entry.get("confidence")
    columns = {
        name: points,
        "object_pose": np.full((rows, 4, 4), np.nan),
        "keypoint_confidence": per_hand("confidence", np.ones(29) if confidence is None else confidence, rows, 29),
        **{what: np.full(rows, value) for what, value in {**labels, "hand_model": "open"}.items()},
    }
    if (columns["keypoint_confidence"] < 0).any():
        raise ValueError("confidence: has negative numbers; give 0 where a point is missing, up to 1 where it is sure.")
    if entry.get("cam_K") is not None:
        columns["cam_K"] = per_hand("cam_K", entry["cam_K"], rows, 3, 3)
    for label in ("frame_id", "sequence_id"):
        if label in entry:
            values = entry[label] if isinstance(entry[label], list) else [entry[label]] * rows
            if len(values) != rows:
                raise ValueError(f"{label}: {len(values)} for {rows} hands.")
            columns[label] = np.array([str(v)[:1000] for v in values], np.str_)
    return columns


def sniff(path: Path) -> bool:
    """A .json that names its format."""
    return path.is_file() and path.suffix.lower() == ".json" and f'"{SCHEMA}"' in head(path)


FORMAT = Format("graph", read, None, sniff, "graph/1 JSON: 21 joints and 8 box corners, 2D or 3D")
