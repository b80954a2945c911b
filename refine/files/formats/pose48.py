"""48-number poses of TACO, OakInk and others built on manopth or manotorch: axis-angle about the wrist.

Sources of truth: leolyliu/TACO-Instructions, ``dataset_utils/hand_pose_loader.py`` (``hand_pose`` 48, ``hand_trans`` 3,
``hand_shape`` 10; manopth with ``use_pca=False, center_idx=0``, whose ``flat_hand_mean`` is true: the mesh is moved
until its wrist is at zero, then translated, so that ``hand_trans`` is where the wrist is) and oakink/OakInk,
``oikit/oi_shape/oi_shape.py``, ``utils.py`` (``pose, shape, tsl``; manotorch with ``center_idx=0``; in the frame of the
object, centred on its bounding box).

Reads .npz, .json and .pkl: one dictionary with arrays over frames, a dictionary of frames, or a list of them.

===========  ======================================================
pose 48      ``pose``, ``hand_pose``, ``theta``, ``mano_pose``
shape 10     ``shape``, ``hand_shape``, ``betas``, ``beta``
translation  ``tsl``, ``hand_tsl``, ``hand_trans``, ``trans``, ``transl``
===========  ======================================================

TACO's shapes stand in ``right_hand_shape.pkl`` beside ``right_hand.pkl``. Its pickles hold torch tensors, which run
code when they are read and are refused; save them with ``.numpy()``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..predictions import Predictions
from .files import betas_rows, given_numbers, json_names, npz_names, numbers, read_tree, rigid
from .format import Format, Numbers, Side
from .hands import mano_columns, root_joints

_POSE = ("pose", "hand_pose", "theta", "mano_pose")
_SHAPE = ("shape", "hand_shape", "betas", "beta")
_TRANSL = ("tsl", "hand_tsl", "hand_trans", "trans", "transl")


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
        path: .npz, .json or .pkl, see above.
        side: of the hands; None: "left" where the file's name says so, else "right".
        betas: ten numbers, or a file of them, where the file has none.
        object_id: name of the object.
        object_pose: object to camera (or world), see `files.rigid`. None: a file with ``tsl`` (OakInk-Shape) is in
            the object's frame; others lack it.
        flat_hand_mean: whether the mean pose is in the angles already; False adds it.
        pivot: what translations say; "wrist": where the wrist is (``center_idx=0``); "root": how far MANO's mesh is
            moved that was posed about its wrist joint.
        mano_dir: the user's MANO: exact wrists of shapes, and the mean pose.

    Raises:
        MissingManoError: MANO is needed and not there.
        ValueError: a field is missing or misshapen.
    """
    side = side or ("left" if "left" in path.stem.lower() else "right")
    frames = _frames(path, read_tree(path))
    parts = [_arrays(path, values) for _, values in frames]
    pose = np.concatenate([part["pose"] for part in parts]) if parts else np.zeros((0, 48))
    transl = np.concatenate([part["transl"] for part in parts]) if parts else np.zeros((0, 3))
    rows = len(pose)
    names = [
        f"{name}/{k}" if len(part["pose"]) > 1 else name
        for (name, _), part in zip(frames, parts, strict=True)
        for k in range(len(part["pose"]))
    ]
    shape = _shapes(path, parts, betas, rows)
    columns = mano_columns(side, pose[:, :3], pose[:, 3:], shape, transl, mano_dir, add_mean=not flat_hand_mean)
    if pivot == "wrist":
        columns["transl"] = transl - root_joints(columns["betas"], columns["side"], mano_dir)
    if object_pose is not None or not all("tsl" in values for _, values in frames):
        columns["object_pose"] = rigid(object_pose, rows)
    labels = np.array(names, np.str_) if len(frames) > 1 else np.arange(rows)
    return Predictions.from_columns(columns | {"object_id": np.full(rows, object_id), "frame_id": labels})


def _frames(path: Path, tree: Any) -> list[tuple[str, dict[str, Any]]]:
    """Named dictionaries that each hold a pose."""
    if isinstance(tree, list):
        named = [(str(k), item) for k, item in enumerate(tree)]
    elif isinstance(tree, dict) and not any(name in tree for name in _POSE):
        items = ((str(name)[:200], item) for name, item in tree.items() if isinstance(item, dict))
        named = sorted(items, key=lambda pair: pair[0])
    else:
        named = [("0", tree)]
    if not named or any(not isinstance(item, dict) for _, item in named):
        raise ValueError(f"{path}: no pose under any of {', '.join(_POSE)}.")
    return named


def _arrays(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """``pose (F, 48)``, ``transl (F, 3)`` and ``shape`` as it is, of one dictionary."""
    found = {}
    for what, names, width in (("pose", _POSE, 48), ("transl", _TRANSL, 3)):
        name = next((name for name in names if name in values), None)
        if name is None:
            raise ValueError(f"{path}: no {what} under any of {', '.join(names)}.")
        array = numbers(path, f"field {name!r}", values[name])
        if array.size % width or (array.size != width and (array.ndim < 2 or array.size != len(array) * width)):
            raise ValueError(f"{path}: field {name!r} has shape {array.shape}; expected ({width},) or (N, {width}).")
        found[what] = array.reshape(-1, width)
    if len(found["pose"]) != len(found["transl"]):
        raise ValueError(f"{path}: {len(found['pose'])} poses, but {len(found['transl'])} translations.")
    name = next((name for name in _SHAPE if name in values), None)
    if name is not None:
        found["shape"] = betas_rows(values[name], len(found["pose"]), f"{path}: field {name!r}")
    return found


def _shapes(path: Path, parts: list[dict[str, Any]], betas: Any, rows: int) -> np.ndarray:
    """Betas of every row: the option's, the file's, those of TACO's shape file, else zeros."""
    if betas is not None:
        return betas_rows(given_numbers(betas), rows)
    if parts and all("shape" in part for part in parts):
        return np.concatenate([part["shape"] for part in parts])
    beside = path.with_name(f"{path.stem}_shape{path.suffix}")
    if not beside.is_file():
        return np.zeros((rows, 10))
    values = read_tree(beside)
    name = next((name for name in _SHAPE if isinstance(values, dict) and name in values), None)
    if name is None:
        raise ValueError(f"{beside}: no shape under any of {', '.join(_SHAPE)}.")
    return betas_rows(values[name], rows, f"{beside}: field {name!r}")


def sniff(path: Path) -> bool:
    """An .npz or .json with a pose and a translation under TACO's or OakInk's names; TACO's and OakInk's files."""
    if path.suffix.lower() in (".pkl", ".pickle"):
        return path.is_file() and path.stem in ("hand_param", "right_hand", "left_hand")
    names, places = npz_names(path), {"tsl", "hand_tsl", "hand_trans"}
    return bool(names & places and names & {"pose", "hand_pose", "theta"}) or json_names(path, places)


FORMAT = Format("pose48", read, None, sniff, "48-number poses of TACO, OakInk and others (.npz, .json, .pkl)")
