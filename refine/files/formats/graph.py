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
from .files import head, numbers, read_tree
from .format import Format, Side

SCHEMA = "graph/1"
_KNOWN = {
    "format", "object_id", "side", "cam_K", "keypoints_2d", "keypoints_3d", "confidence", "corner_order", "frame_id",
    "sequence_id", "objects",
}  # fmt: skip


def read(path: Path, *, object_id: str | None = None, side: Side | None = None) -> Predictions:
    """Read graph keypoints: the points and what is known of them; poses are NaN.

    Args:
        path: .json, see above.
        object_id: object of all hands, where the file does not say.
        side: of all hands, where the file does not say; "right" when None.

    Raises:
        ValueError: a field is missing, unknown or of another shape; names it.
    """
    parts = [_columns(path, entry, object_id, side) for entry in _entries(path)]
    forms = {"keypoints_2d" in part for part in parts}
    if len(forms) > 1:  # each row has one of the two; the other is NaN
        for part in parts:
            rows = len(part["side"])
            part.setdefault("keypoints_3d", np.full((rows, 29, 3), np.nan))
            part.setdefault("keypoints_2d", np.full((rows, 29, 2), np.nan))
            part.setdefault("cam_K", np.full((rows, 3, 3), np.nan))
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return Predictions.from_columns({name: np.concatenate([part[name] for part in parts]) for name in names})


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
    tree = read_tree(path)
    entries = tree if isinstance(tree, list) else [tree]
    if not entries:
        raise ValueError(f"{path}: holds no hands.")
    for entry in entries:
        if not isinstance(entry, dict):
            raise ValueError(
                f"{path}: expected an object with keypoints_2d or keypoints_3d; got {type(entry).__name__}."
            )
        unknown = sorted(set(map(str, entry)) - _KNOWN)
        if unknown:
            raise ValueError(
                f"{path}: field {unknown[0][:60]!r} is not known; the fields are {', '.join(sorted(_KNOWN))}."
            )
        if isinstance(entry.get("objects"), str):
            inside(path.parent, entry["objects"], f"{path}: objects")
    return entries


def _columns(path: Path, entry: dict[str, Any], object_id: str | None, side: str | None) -> dict[str, np.ndarray]:
    """The columns of one object of the file."""
    flat = "keypoints_3d" not in entry
    field = "keypoints_2d" if flat else "keypoints_3d"
    if field not in entry:
        raise ValueError(f"{path}: field 'keypoints_2d' (with cam_K) or 'keypoints_3d' is missing.")
    points = numbers(path, field, _gaps(entry[field]))
    points = points[None] if points.ndim == 2 else points
    if points.ndim != 3 or points.shape[1:] != (29, 2 if flat else 3):
        raise ValueError(f"{path}: {field} has shape {points.shape}; expected (N, 29, {2 if flat else 3}).")
    rows = len(points)
    name, hand = entry.get("object_id", object_id), entry.get("side", side or "right")
    for what, value in (("object_id", name), ("side", hand)):
        if not isinstance(value, str) or not value:
            raise ValueError(
                f"{path}: {what}: expected a name; give it in the file or with --{what.replace('_', '-')}."
            )
    if hand not in ("right", "left"):
        raise ValueError(f"{path}: side: got {hand[:20]!r}; write 'right' or 'left'.")
    order = entry.get("corner_order") or ("given" if flat else "search")
    if order not in ("given", "search"):
        raise ValueError(f"{path}: corner_order: got {str(order)[:20]!r}; write 'search' or 'given'.")
    columns = {
        "object_id": np.full(rows, name), "side": np.full(rows, hand), "hand_model": np.full(rows, "open"),
        field: points, "object_pose": np.full((rows, 4, 4), np.nan),
        "keypoint_confidence": np.ones((rows, 29)), "corner_order": np.full(rows, order),
    }  # fmt: skip
    if entry.get("confidence") is not None:
        confidence = numbers(path, "confidence", entry["confidence"])
        if confidence.size != rows * 29 or (confidence < 0).any():
            raise ValueError(f"{path}: confidence has shape {confidence.shape}; expected ({rows}, 29), none negative.")
        columns["keypoint_confidence"] = confidence.reshape(rows, 29)
    if flat and entry.get("cam_K") is None:
        raise ValueError(f"{path}: cam_K: missing; keypoints_2d need the camera's 3×3 intrinsics, in pixels.")
    if entry.get("cam_K") is not None:
        camera = numbers(path, "cam_K", entry["cam_K"])
        if camera.shape not in ((3, 3), (rows, 3, 3)):
            raise ValueError(f"{path}: cam_K has shape {camera.shape}; expected (3, 3) or ({rows}, 3, 3).")
        columns["cam_K"] = np.broadcast_to(camera, (rows, 3, 3))
    for label in ("frame_id", "sequence_id"):
        if label in entry:
            value = entry[label]
            values = value if isinstance(value, list) else [value] * rows
            if len(values) != rows:
                raise ValueError(f"{path}: {label}: {len(values)} for {rows} hands.")
            columns[label] = np.array([str(v)[:1000] for v in values], np.str_)
    return columns


def _gaps(value: Any) -> Any:
    """Nested lists with NaN for null."""
    if isinstance(value, list):
        return [_gaps(item) for item in value]
    return np.nan if value is None else value


def _is_graph(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".json" and f'"{SCHEMA}"' in head(path)


FORMAT = Format("graph", read, None, _is_graph, "graph/1 JSON: 21 joints and 8 box corners, 2D or 3D")
