"""Graph keypoints: 21 joints and 8 corners of the object's box, in space or in the picture.

Ours, since HOPE-Net and JHOPE, whose networks give such points, save arrays without names.
JSON, one object or a list of them:

    {"format": "graph/1", "object_id": "mug", "side": "right", "cam_K": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]],
     "keypoints_2d": [[[x, y], ... 29], ...], "confidence": [[... 29], ...]}

``keypoints_3d`` (metres, camera frame) may stand for ``keypoints_2d`` and ``cam_K``; a single hand needs no outer
list. Joints are in OpenPose order, corners those of the mesh's axis-aligned box, z fastest; null where missing.
``corner_order``: "search" or "given" (see `from_graph`). ``frame_id``, ``sequence_id`` are labels.
The meshes are needed to place the object: the folder given as option, or ``objects`` in the file, relative to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..object_files import find_objects, inside, load_object
from ..predictions import Predictions
from .files import head, numbers, read_tree
from .format import Format, Side

SCHEMA = "graph/1"
_KNOWN = {
    "format", "object_id", "side", "cam_K", "keypoints_2d", "keypoints_3d", "confidence", "corner_order", "frame_id",
    "sequence_id", "objects",
}  # fmt: skip


def read(
    path: Path, *, objects: str | Path | None = None, object_id: str | None = None, side: Side | None = None
) -> Predictions:
    """Read graph keypoints and give each hand and object a pose.

    Args:
        path: .json, see above.
        objects: folder of meshes, or side-car; where the file does not name one.
        object_id: object of all hands, where the file does not say.
        side: of all hands, where the file does not say; "right" when None.

    Raises:
        ValueError: a field is missing, unknown or of another shape; names it.
        FileNotFoundError: no meshes, or none for an object.
    """
    tree = read_tree(path)
    entries = tree if isinstance(tree, list) else [tree]
    if not entries:
        raise ValueError(f"{path}: holds no hands.")
    parts = [_entry(path, entry, objects, object_id, side) for entry in entries]
    names = [name for name in parts[0] if all(name in part for part in parts)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in names}
    return Predictions.from_columns(columns)


def _entry(
    path: Path, entry: Any, objects: str | Path | None, object_id: str | None, side: str | None
) -> dict[str, np.ndarray]:
    """The columns of one object of the file."""
    from ...evidence.initialize import from_graph

    if not isinstance(entry, dict):
        raise ValueError(
            f"{path}: expected an object with keypoints_2d or keypoints_3d; got {type(entry).__name__}."
        )
    unknown = sorted(set(map(str, entry)) - _KNOWN)
    if unknown:
        raise ValueError(
            f"{path}: field {unknown[0][:60]!r} is not known; the fields are {', '.join(sorted(_KNOWN))}."
        )
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
    options: dict[str, Any] = {"side": hand}
    for what, shape in (("cam_K", None), ("confidence", (rows, 29))):
        if entry.get(what) is not None:
            values = numbers(path, what, entry[what])
            options[what] = (
                values if shape is None else values.reshape(shape) if values.size == rows * 29 else values
            )
    if entry.get("corner_order") is not None:
        options["corner_order"] = entry["corner_order"]
    mesh = _mesh(path, entry, objects, name)
    try:
        start = from_graph(points, mesh, **options)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    columns = {
        "object_id": np.full(rows, name), "side": np.full(rows, hand),
        "hand_model": np.full(rows, start.hand_model.name),
        **start.hand_pose.as_arrays(), "object_pose": start.object_pose.numpy(), "keypoints_3d": start.points.numpy(),
    }  # fmt: skip
    if flat:
        columns["keypoints_2d"] = points
        columns["cam_K"] = np.broadcast_to(options["cam_K"], (rows, 3, 3))
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


def _mesh(path: Path, entry: dict[str, Any], objects: str | Path | None, name: str) -> Any:
    folder = objects
    if folder is None and isinstance(entry.get("objects"), str):
        folder = inside(path.parent, entry["objects"], f"{path}: objects")
    if folder is None:
        raise FileNotFoundError(
            f"{path}: the object's mesh is needed to place it; give the folder of meshes as objects."
        )
    known = find_objects(folder)
    if name not in known:
        raise FileNotFoundError(f"{path}: no mesh for object {name[:60]!r} in {folder}.")
    return load_object(known[name])


def _is_graph(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".json" and f'"{SCHEMA}"' in head(path)


FORMAT = Format("graph", read, None, _is_graph, "graph/1 JSON: 21 joints and 8 box corners, 2D or 3D")
