"""Plain 21-joint keypoints: CSV, JSON or .npy, both ways. The poses are found later, by inverse kinematics.

Nobody's format but everybody's; this is what is taken to be meant.

- **CSV** with a header: 63 columns of coordinates, x, y, z of each joint in turn, whatever they are called; or called
  ``<joint>_x, <joint>_y, <joint>_z`` with the joint names of `hand_models.skeleton.JOINT_NAMES`, in any order. Other
  columns: ``frame_id, sequence_id, frame_index, object_id, side, confidence``.
  Without a header: 63 numbers in a line, or a name and 63 numbers.
- **JSON**: an array ``(N, 21, 3)`` or ``(21, 3)``; a list with an object for each hand, its points under
  ``keypoints``, ``keypoints_3d``, ``joints`` or ``xyz`` and the columns above beside them; or one object with the
  array under one of those names, columns as lists or single values, and optionally ``order`` and ``unit``.
- **.npy, .npz, .pkl**: the same as JSON, as arrays. Lists and dictionaries in any arrangement of `frame_walk`, such as
  one ``(21, 3)`` or None a frame (as people feed to dex-retargeting, whose order and MediaPipe's is OpenPose's).
- **a folder** of ``joints_<frame>.npy``, as dexmv's ``hand_pose`` (yzqin/dexmv-sim, ``examples/
  retarget_human_hand.py``: ``(21, 3)`` metres before the camera, OpenPose order; its ``object_pose`` is a folder for
  ``--object-poses``).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hand_models import skeleton
from hand_models.atomic import write_atomically

from ..predictions import Predictions
from .columns import UNKNOWN_POSE, each, each_file, number_in, whole
from .files import floats, head, json_names, named, npz_names, numbers, read_tree, text_lines
from .format import Format, Side
from .frame_walk import Kind, Record, listed, records_in
from .hands import FLIP_YZ, joints_of

_POINTS = (
    "keypoints", "keypoints_3d", "joints", "xyz", "joint_pos", "joints_3d", "joints3d", "keypoint_3d", "hand_joints",
    "kps3D",
)  # fmt: skip
_LABELS = ("frame_id", "sequence_id", "frame_index", "object_id", "side", "confidence")
_UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_NAMED = tuple(f"{joint}_{axis}" for joint in skeleton.JOINT_NAMES for axis in "xyz")


def read(
    path: Path,
    *,
    order: str | None = None,
    unit: Literal["m", "cm", "mm"] | None = None,
    axes: Literal["opencv", "opengl"] = "opencv",
    side: Side | None = None,
    object_id: str | None = None,
) -> Predictions:
    """Read 21 joints of each hand.

    Args:
        order: order of the joints, a name of `hand_models.skeleton.ORDERS` with 21 of them; "openpose" when
            neither given nor in the file.
        unit: unit of the coordinates; "m" when neither given nor in the file.
        axes: axes of the camera; "opengl" looks along −z with y up.
        side: of all hands, where the file does not say; "right" when None.
        object_id: object of all hands, where the file does not say.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        points, labels = _read_folder(path)
    elif suffix == ".csv":
        points, labels = _read_csv(path)
    elif suffix in (".json", ".npy", ".npz", ".pkl", ".pickle", ".pt", ".pth"):
        points, labels = _from_tree(read_tree(path), path.stem)
    else:
        raise ValueError(f"{path}: unknown kind of file {suffix!r}; expected .csv, .json, .npy, .npz or .pkl.")
    order, unit = order or labels.pop("order", "openpose"), unit or labels.pop("unit", "m")
    labels = {name: value for name, value in labels.items() if name in _LABELS}
    if (side is not None and "side" in labels) or (object_id is not None and "object_id" in labels):
        raise ValueError("names side or object itself; leave the option out.")
    if not isinstance(unit, str) or unit not in _UNITS:
        raise ValueError(f"unit: {str(unit)[:40]!r} is not known; use one of {', '.join(_UNITS)}.")
    if len(skeleton.joint_order(order)) != 21:
        raise ValueError(f"order: {order!r} has no fingertips; use an order of 21 joints.")
    points = skeleton.convert(points, source=order, target="openpose") * _UNITS[unit]
    if axes == "opengl":
        points = points @ FLIP_YZ
    rows = len(points)
    columns: dict[str, Any] = {"side": side or "right", "object_id": object_id or ""}
    columns |= {name: _label(name, value, rows) for name, value in labels.items()}
    return Predictions.from_columns(columns | {"keypoints_3d": points, "object_pose": UNKNOWN_POSE})


def _label(name: str, value: Any, rows: int) -> np.ndarray:
    """A column of names or numbers; one value serves all rows."""
    values = value if isinstance(value, list) else [value] * rows
    if len(values) != rows or any(not isinstance(cell, str | int | float) for cell in values):
        raise ValueError(f"{name}: expected one name or number, or {rows} of them.")
    if name == "confidence":
        return numbers(name, [np.nan if cell == "" else float(cell) for cell in values], rows)
    texts = [str(cell)[:1000] for cell in values]
    if name != "frame_index":
        return np.array(texts, np.str_)
    if any(whole(cell.removeprefix("-")) is None for cell in texts):
        raise ValueError("frame_index: expected whole numbers.")
    return np.array(texts).astype(np.int64)


def _read_csv(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    lines = list(text_lines(path))
    first = lines[0][1] if lines else ""
    separator = max(",;\t", key=first.count)
    rows = [(number, _cells(line, separator)) for number, line in lines]
    names = rows[0][1] if rows else []
    if len(names) in (63, 64) and _are_numbers(names[-63:]):
        names = ["frame_id", *map(str, range(63))][-len(names) :]
    else:
        rows = rows[1:]
    places = [k for k, name in enumerate(names) if name not in _LABELS]
    if len(places) != 63 or len(set(names)) != len(names):
        raise ValueError(
            f"line 1: {len(places)} columns of coordinates besides {', '.join(_LABELS)}; expected 63 with different "
            "names."
        )
    if {names[k] for k in places} == set(_NAMED):
        places = [names.index(name) for name in _NAMED]
    points = []
    for number, cells in rows:
        if len(cells) != len(names):
            raise ValueError(f"line {number} has {len(cells)} cells, line 1 has {len(names)}.")
        points.append(floats(path, number, [cells[k] for k in places]))
    labels = {name: [cells[k] for _, cells in rows] for k, name in enumerate(names) if name in _LABELS}
    return np.array(points, np.float64).reshape(-1, 21, 3), labels


def _are_numbers(cells: list[str]) -> bool:
    with suppress(ValueError):
        return bool([float(cell) for cell in cells])
    return False


def _cells(line: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:  # cells of more than 128 kB
        return []


def _from_tree(tree: Any, stem: str) -> tuple[np.ndarray, dict[str, Any]]:
    tree = listed(tree)
    name = named(tree, _POINTS) if isinstance(tree, dict) else None
    what, value = (f"field {name!r}", listed(tree[name])) if name else ("the array", tree)
    points = None if isinstance(value, dict) else _array(value)
    if points is None and isinstance(value, dict | list):  # hand by hand
        return _from_records(records_in(value, _KIND, stem))
    points = numbers(what, value) if points is None else points
    points = points[None] if points.shape == (21, 3) else points
    points = numbers(what, points if points.size else np.zeros((0, 21, 3)), None, 21, 3)
    labels = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in tree.items() if k != name} if name else {}
    return points, labels


def _array(value: Any) -> np.ndarray | None:
    """All coordinates in one array; None where they are not, but may be in parts."""
    try:
        array = np.asarray(value)
    except ValueError:  # of lists that differ in length
        return None
    return array if array.dtype.kind in "fiu" else None


def _is_record(tree: Any) -> bool:
    """A dictionary with the points of a hand, or the points themselves."""
    if isinstance(tree, dict):
        return named(tree, _POINTS) is not None and not isinstance(tree[_name(tree)], dict)
    first = tree[0] if isinstance(tree, list) and tree else None
    return isinstance(tree, np.ndarray) or (isinstance(first, list) and bool(first) and not isinstance(first[0], list))


_KIND = Kind(_is_record, lambda record: not isinstance(record, dict), "21 joints, such as 'keypoints'")


def _from_records(records: Sequence[Record]) -> tuple[np.ndarray, dict[str, Any]]:
    """Points and labels of records of one hand each; one that cannot be read has points of NaN."""
    fields = [record.content if isinstance(record.content, dict) else {"xyz": record.content} for record in records]
    points = each(
        list(zip(records, fields, strict=True)), lambda hand: numbers("points", listed(hand[1][_name(hand[1])]), 21, 3),
        lambda hand: np.full((21, 3), np.nan), "hands", lambda hand: hand[0].where,
    )  # fmt: skip
    labels: dict[str, Any] = {n: [f[n] for f in fields] for n in _LABELS if fields and all(n in f for f in fields)}
    beside = records[0].shared if records else {}
    labels = {name: beside[name] for name in ("order", "unit") if name in beside} | labels
    for name, values in (
        ("frame_index", [record.number for record in records]),
        ("frame_id", [record.name or str(record.number) for record in records]),
        ("side", [record.side for record in records]),
    ):
        known = all(value is not None for value in (values if name != "frame_id" else [r.number for r in records]))
        if records and known and name not in labels:
            labels[name] = values
    return np.array(points).reshape(-1, 21, 3), labels


def _read_folder(folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    files = sorted(folder.glob("joints_*.npy"), key=lambda file: (number_in(file.stem) or 0, file.name))
    if not files:
        raise ValueError("holds no joints_<frame>.npy.")
    points = each_file(
        files, lambda file: numbers("the array", read_tree(file), 21, 3), lambda file: np.full((21, 3), np.nan)
    )
    numbered = [number_in(file.stem) for file in files]
    frames = {"frame_index": numbered} if None not in numbered else {}
    return np.array(points), frames | {"frame_id": [file.stem for file in files]}


def _name(values: dict[str, Any]) -> str:
    name = named(values, _POINTS)
    if name is None:
        raise ValueError(f"no points under any of {', '.join(_POINTS)}.")
    return name


def write(
    path: Path, predictions: Predictions, *, order: str = "openpose", unit: Literal["m", "cm", "mm"] = "m",
    mano_dir: str | Path | None = None,
) -> Path:  # fmt: skip
    """Write the joints of every row as .csv (named columns) or .json (one object).

    Args:
        path: the file; its suffix says which form.
        predictions: any rows.
        order: of the joints in JSON, as in `read`; columns of CSV are named.
        unit: of the coordinates.
        mano_dir: the user's MANO, where rows have MANO poses.

    Raises:
        MissingManoError: MANO is needed and not there.
        ValueError: a row has no finite joints, or an argument is unknown.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".json"):
        raise ValueError(f"{path}: unknown kind of file {suffix!r}; use .csv or .json.")
    points = joints_of(predictions, mano_dir, "smplx") / _UNITS[unit]
    bad = ~np.isfinite(points).all((1, 2))
    if bad.any():
        raise ValueError(f"row {int(np.argmax(bad))}: has no finite joints.")
    labels = {name: getattr(predictions, name).tolist() for name in _LABELS[:-1]}
    if suffix == ".json":
        arranged = skeleton.convert(points, source="openpose", target=order)
        document = {"order": order, "unit": unit, "keypoints": np.round(arranged, 7).tolist(), **labels}
        return write_atomically(path, lambda stream: stream.write(json.dumps(document).encode() + b"\n"))
    if order != "openpose":
        raise ValueError("order: the columns of a CSV are named; leave it out.")

    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*labels, *_NAMED])
    for *names, joints in zip(*labels.values(), points.reshape(-1, 63), strict=True):
        # Line breaks in a cell would split the row for readers by line.
        table.writerow([*(" ".join(str(name).splitlines()) for name in names), *(f"{x:.7g}" for x in joints)])
    return write_atomically(path, lambda stream: stream.write(text.getvalue().encode()))


def sniff(path: Path) -> bool:
    """A CSV with 63 columns of coordinates, a JSON that begins with points, arrays of 21 joints, dexmv's folder."""
    suffix = path.suffix.lower()
    if path.is_dir():
        return next(path.glob("joints_*.npy"), None) is not None
    if suffix == ".csv":
        first = head(path).partition("\n")[0]
        names = _cells(first, max(",;\t", key=first.count))
        return len([name for name in names if name not in _LABELS]) == 63 and any("x" in n.lower() for n in names)
    start = head(path).lstrip()
    if suffix == ".json" and not json_names(path, ("grasp/1", "graph/1")):
        bare = start.replace(" ", "")[:3] == "[[[" and not path.stem.startswith("pred")
        return bare or (start[:1] in "[{" and json_names(path, _POINTS))
    if suffix == ".npz":
        names = npz_names(path)
        return bool(names & {*_POINTS}) and names <= {*_POINTS, *_LABELS, "order", "unit"} - {"object_id"}
    return suffix == ".npy" and "21, 3)" in start[:200]


FORMAT = Format(
    "keypoints", read, write, sniff, "21 joints of each hand as .csv, .json, .npy, .npz or .pkl, in and out"
)
