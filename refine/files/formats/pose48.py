"""48-number poses of TACO, OakInk and others built on manopth or manotorch: axis-angle about the wrist.

Sources of truth: leolyliu/TACO-Instructions, ``dataset_utils/hand_pose_loader.py`` (``hand_pose`` 48, ``hand_trans`` 3,
``hand_shape`` 10; manopth with ``use_pca=False, center_idx=0``, whose ``flat_hand_mean`` is true: the mesh is moved
until its wrist is at zero, then translated, so that ``hand_trans`` is where the wrist is) and oakink/OakInk,
``oikit/oi_shape/oi_shape.py``, ``utils.py`` (``pose, shape, tsl``; manotorch with ``center_idx=0``; in the frame of the
object, centred on its bounding box).

Reads .npz, .json, .npy and .pkl: one dictionary with arrays over frames, dictionaries of single frames in any
arrangement of `frame_walk`, or an array of 48, 51 or 61 numbers a frame, whose order ``layout`` says. Fields go by the
names in `_NAMES`. TACO's shapes stand in ``right_hand_shape.pkl`` beside ``right_hand.pkl``. Its pickles hold torch
tensors, which run code when they are read and are refused; save them with ``.numpy()``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..predictions import Predictions
from .columns import UNKNOWN_POSE, UnsaidError
from .files import given_numbers, json_names, named, npz_names, numbers, per_hand, read_tree
from .format import Format, Numbers, Side
from .frame_walk import Kind, records_in
from .mano_parameters import Convention, RawHand, hand_columns

_NAMES = Convention(
    pose=("pose", "hand_pose", "theta", "mano_pose", "fullpose", "mano_params", "params"),
    betas=("shape", "hand_shape", "betas", "beta"),
    transl=("tsl", "hand_tsl", "hand_trans", "trans", "transl"),
)
_WIDTHS = {"pose": 48, "orient": 3, "fingers": 45, "betas": 10, "transl": 3}
"""What a layout may name, and how many numbers each has."""


def read(
    path: Path,
    *,
    side: Side | None = None,
    betas: Numbers = None,
    object_id: str = "",
    layout: str | None = None,
    flat_hand_mean: bool = True,
    pivot: Literal["wrist", "root"] = "wrist",
    mano_dir: str | Path | None = None,
) -> Predictions:
    """Read poses of 48 numbers. A file with ``tsl`` (OakInk-Shape) is in the object's frame.

    Args:
        side: of the hands, where the file's arrangement does not say; None: "left" where its name says so, else
            "right".
        betas: ten numbers, or a file of them, instead of the file's.
        object_id: name of the object.
        layout: order of the numbers, where pose, shape and place are one array: words among pose (48; or orient 3,
            fingers 45), betas (10) and transl (3), with commas, e.g. "pose,betas,transl".
        flat_hand_mean: whether the mean pose is in the angles already; False adds it.
        pivot: what translations say; "wrist": where the wrist is (``center_idx=0``); "root": how far MANO's mesh is
            moved that was posed about its wrist joint.
        mano_dir: the user's MANO: exact wrists of shapes, and the mean pose.
    """
    side = side or ("left" if "left" in path.stem.lower() else "right")
    records = records_in(read_tree(path), _KIND, path.stem)
    beside = path.with_name(f"{path.stem}_shape{path.suffix}")
    shape = None if betas is None else per_hand("betas", given_numbers(betas), 1, 10)[0]
    hands = []
    for record in records:
        values = record.content if isinstance(record.content, dict) else {"pose": record.content}
        values = _split(values, layout)
        if shape is None and named(values, _NAMES.betas) is None and beside.is_file():
            values = values | _shape_beside(beside)
        frames = None if record.number is None else [record.number]
        names = None if record.name is None else [record.name]
        hands.append(RawHand(values, record.side or side, record.where, frames, names, object_id=object_id))
    convention = Convention(
        pose=_NAMES.pose, betas=_NAMES.betas, transl=_NAMES.transl, add_mean=not flat_hand_mean,
        at_wrist=pivot == "wrist",
    )  # fmt: skip
    columns = hand_columns(hands, convention, mano_dir, betas=shape)
    if not all("tsl" in hand.values for hand in hands):
        columns["object_pose"] = np.tile(UNKNOWN_POSE, (len(columns["side"]), 1, 1))
    return Predictions.from_columns(columns)


def _is_record(tree: Any) -> bool:
    if isinstance(tree, dict):
        return named(tree, _NAMES.pose) is not None
    if isinstance(tree, list) and tree:
        inner = tree[0][0] if isinstance(tree[0], list) and tree[0] else tree[0]
        return isinstance(inner, int | float)
    return isinstance(tree, np.ndarray)


_KIND = Kind(_is_record, lambda record: True, f"a pose under one of {', '.join(_NAMES.pose)}")


def _split(values: dict[str, Any], layout: str | None) -> dict[str, Any]:
    """``values`` with the parts of one array as fields of their own; wrong ones are left, for the hand to fail alone.

    Raises ``ValueError`` where ``layout`` is wrong, or missing and needed.
    """
    name = named(values, _NAMES.pose)
    words = None if layout is None else [word.strip() for word in layout.split(",")]
    if words is not None and (set(words) - set(_WIDTHS) or len(set(words)) != len(words)):
        raise ValueError(f"layout: got {layout!r}; use words among {', '.join(_WIDTHS)}, with commas between.")
    array = np.asarray(values[name]) if name is not None and not isinstance(values[name], dict) else np.zeros(0)
    if array.dtype.kind not in "fiu" or not array.ndim or array.shape[-1] in (3, 48) or name is None:
        return values
    width = array.shape[-1]
    if words is None:
        raise UnsaidError(
            f"field {name!r} has {width} numbers a frame: pass layout (--layout), their order, such as 'pose,transl' "
            "(51), 'pose,betas,transl' or 'betas,pose,transl' (61)."
        )
    if sum(_WIDTHS[word] for word in words) != width:
        raise ValueError(f"layout: {layout!r} has {sum(_WIDTHS[word] for word in words)} numbers, the file {width}.")
    rows, parts, at = numbers(f"field {name!r}", values[name]).reshape(-1, width), {}, 0
    for word in words:
        parts[word], at = rows[:, at : at + _WIDTHS[word]], at + _WIDTHS[word]
    if "pose" not in parts and {"orient", "fingers"} <= set(parts):
        parts["pose"] = np.c_[parts.pop("orient"), parts.pop("fingers")]
    return {key: value for key, value in values.items() if key != name} | parts


def _shape_beside(path: Path) -> dict[str, Any]:
    shape = read_tree(path)
    if not isinstance(shape, dict) or named(shape, _NAMES.betas) is None:
        raise ValueError(f"{path}: no shape under any of {', '.join(_NAMES.betas)}.")
    return {name: value for name, value in shape.items() if name in _NAMES.betas}


def sniff(path: Path) -> bool:
    """An .npz or .json with a pose and a translation under TACO's or OakInk's names; TACO's and OakInk's files."""
    if path.suffix.lower() in (".pkl", ".pickle"):
        return path.is_file() and path.stem in ("hand_param", "right_hand", "left_hand")
    names, places = npz_names(path), {"tsl", "hand_tsl", "hand_trans"}
    return bool(names & places and names & {"pose", "hand_pose", "theta"}) or json_names(path, places)


FORMAT = Format("pose48", read, None, sniff, "48-number poses of TACO, OakInk and others (.npz, .json, .npy, .pkl)")
