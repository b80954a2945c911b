"""48-number poses of TACO, OakInk and others built on manopth or manotorch: axis-angle about the wrist.

Sources of truth: leolyliu/TACO-Instructions, ``dataset_utils/hand_pose_loader.py`` (``hand_pose`` 48, ``hand_trans`` 3,
``hand_shape`` 10; manopth with ``use_pca=False, center_idx=0``, whose ``flat_hand_mean`` is true: the mesh is moved
until its wrist is at zero, then translated, so that ``hand_trans`` is where the wrist is) and oakink/OakInk,
``oikit/oi_shape/oi_shape.py``, ``utils.py`` (``pose, shape, tsl``; manotorch with ``center_idx=0``; in the frame of the
object, centred on its bounding box).

Reads .npz, .json and .pkl: one dictionary with arrays over frames, a dictionary of frames, or a list of them.
Fields go by the names in `_FIELDS`. TACO's shapes stand in ``right_hand_shape.pkl`` beside ``right_hand.pkl``. Its
pickles hold torch tensors, which run code when they are read and are refused; save them with ``.numpy()``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..predictions import Predictions
from .columns import joined
from .files import given_numbers, json_names, named, npz_names, numbers, per_hand, read_tree, rigid
from .format import Format, Numbers, Side
from .hands import mano_columns, root_joints

_FIELDS = {
    "pose": ("pose", "hand_pose", "theta", "mano_pose"),
    "shape": ("shape", "hand_shape", "betas", "beta"),
    "transl": ("tsl", "hand_tsl", "hand_trans", "trans", "transl"),
}


def read(
    path: Path,
    *,
    side: Side | None = None,
    betas: Numbers = None,
    object_id: str = "",
    object_pose: Numbers = None,
    flat_hand_mean: bool = True,
    pivot: Literal["wrist", "root"] = "wrist",
    mano_dir: str | Path | None = None,
) -> Predictions:
    """Read poses of 48 numbers.

    Args:
        side: of the hands; None: "left" where the file's name says so, else "right".
        betas: ten numbers, or a file of them, where the file has none.
        object_id: name of the object.
        object_pose: object to camera (or world), see `files.rigid`. None: a file with ``tsl`` (OakInk-Shape) is in
            the object's frame; others lack it.
        flat_hand_mean: whether the mean pose is in the angles already; False adds it.
        pivot: what translations say; "wrist": where the wrist is (``center_idx=0``); "root": how far MANO's mesh is
            moved that was posed about its wrist joint.
        mano_dir: the user's MANO: exact wrists of shapes, and the mean pose.
    """
    side = side or ("left" if "left" in path.stem.lower() else "right")
    frames = _frames(read_tree(path))
    hands = joined([_hands(name, values) for name, values in frames])
    pose, transl, rows = hands["pose"], hands["transl"], len(hands["pose"])
    beside = path.with_name(f"{path.stem}_shape{path.suffix}")
    if betas is not None:
        shape = per_hand("betas", given_numbers(betas), rows, 10)
    elif "shape" in hands:
        shape = hands["shape"]
    elif beside.is_file():
        shape = _field(read_tree(beside), "shape", rows, 10)
    else:
        shape = np.zeros((rows, 10))
    columns = mano_columns(side, pose[:, :3], pose[:, 3:], shape, transl, mano_dir, add_mean=not flat_hand_mean)
    if pivot == "wrist":
        columns["transl"] = transl - root_joints(columns["betas"], columns["side"], mano_dir)
    if object_pose is not None or not all("tsl" in values for _, values in frames):
        columns["object_pose"] = rigid(object_pose, rows)
    labels = hands["frame_id"] if len(frames) > 1 else np.arange(rows)
    return Predictions.from_columns(columns | {"object_id": object_id, "frame_id": labels})


def _frames(tree: Any) -> list[tuple[str, dict[str, Any]]]:
    """Named dictionaries that each hold a pose."""
    if isinstance(tree, list):
        frames = [(str(k), item) for k, item in enumerate(tree)]
    elif isinstance(tree, dict) and named(tree, _FIELDS["pose"]) is None:
        items = [(str(name)[:200], item) for name, item in tree.items() if isinstance(item, dict)]
        frames = sorted(items, key=lambda pair: pair[0])
    else:
        frames = [("0", tree)]
    if not frames or any(not isinstance(item, dict) for _, item in frames):
        raise ValueError(f"no pose under any of {', '.join(_FIELDS['pose'])}.")
    return frames


def _hands(name: str, values: dict[str, Any]) -> dict[str, np.ndarray]:
    """``pose (F, 48)``, ``transl (F, 3)``, ``shape (F, 10)`` where there is one, and names of the hands."""
    pose = _field(values, "pose", None, 48)
    rows = len(pose)
    found = {"pose": pose, "transl": _field(values, "transl", rows, 3)}
    if named(values, _FIELDS["shape"]):
        found["shape"] = _field(values, "shape", rows, 10)
    return found | {"frame_id": np.array([f"{name}/{k}" if rows > 1 else name for k in range(rows)], np.str_)}


def _field(values: Any, what: str, rows: int | None, width: int) -> np.ndarray:
    """``(rows, width)`` of the field that goes by a name of ``what``; None for as many rows as it has."""
    name = named(values, _FIELDS[what]) if isinstance(values, dict) else None
    if name is None:
        raise ValueError(f"no {what} under any of {', '.join(_FIELDS[what])}.")
    if rows is None:
        array = numbers(f"field {name!r}", values[name])
        rows = len(array) if array.ndim > 1 and array.size != width else 1
    return per_hand(f"field {name!r}", values[name], rows, width)


def sniff(path: Path) -> bool:
    """An .npz or .json with a pose and a translation under TACO's or OakInk's names; TACO's and OakInk's files."""
    if path.suffix.lower() in (".pkl", ".pickle"):
        return path.is_file() and path.stem in ("hand_param", "right_hand", "left_hand")
    names, places = npz_names(path), {"tsl", "hand_tsl", "hand_trans"}
    return bool(names & places and names & {"pose", "hand_pose", "theta"}) or json_names(path, places)


FORMAT = Format("pose48", read, None, sniff, "48-number poses of TACO, OakInk and others (.npz, .json, .pkl)")
