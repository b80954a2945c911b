"""Data sets and estimators that write MANO's parameters: one row of `DATASETS` each, and a way through the file.

Sources of truth, by name of the format:

- `interhand`: facebookresearch/InterHand2.6M, ``InterHand2.6M_*_MANO_NeuralAnnot.json`` and ``MANO_render/render.py``:
  by capture, frame and side ``pose`` 48, ``shape`` 10, ``trans`` 3 or null; smplx' MANO with ``use_pca=False`` (the
  mean is added) whose left shape directions are mirrored; metres, world.
- `hoi4d`: leolyliu/HOI4D-Instructions, ``prepare_4Dseg/vis_hand``: a pickle for each frame with ``poseCoeff`` 48,
  ``beta`` 10, ``trans`` 3; manopth with ``use_pca=False, flat_hand_mean=True``, the translation added to the mesh;
  metres, camera; ``kps2D`` are 21 joints in the image, OpenPose order. Object poses are other files.
- `oakink2`: oakink/OakInk2, ``README.md`` and its toolkit: ``raw_mano`` by frame, ``rh__pose_coeffs`` and
  ``lh__pose_coeffs`` (1, 16, 4) quaternions w, x, y, z, ``*__tsl``, ``*__betas``; manotorch with ``rot_mode="quat",
  center_idx=0, flat_hand_mean=True``, so that translations are where wrists are; ``obj_transf`` by object and frame;
  metres, world. Its pickles hold torch tensors, which are refused; save them with ``.numpy()``.
- `hot3d`: facebookresearch/hot3d, ``data_loaders/loader_hand_poses.py`` and ``mano_layer.py``: a line of
  ``mano_hand_pose_trajectory.jsonl`` has ``timestamp_ns`` and ``hand_poses`` of "0" (left) and "1" (right):
  ``wrist_xform`` (``q_wxyz``, ``t_xyz``: smplx' ``global_orient`` and ``transl``), ``pose`` of 15 components with the
  mean added, ``betas``; left shape directions are mirrored; metres, world.
- `graspxl`: zdchan/GraspXL, dataset's ``README.md`` and its viewer: ``right_hand`` and the object's id, each with
  ``trans`` and ``rot``, and ``pose`` (F, 45); smplx' MANO with ``use_pca=False, flat_hand_mean=False`` and no shape;
  metres, world.
- `hawor`: ThunderVVV/HaWoR, ``scripts/scripts_test_video/hawor_video.py`` (``world_space_res.pth``: a list of
  ``pred_trans, pred_rot, pred_hand_pose, pred_betas, pred_valid``, each of left and right and the frames) and
  ``hawor/utils/process.py`` (MANO takes the angles as they are; left shape directions are mirrored); metres, world.
  That file is joblib's and holds tensors, which is refused; save the five with ``numpy.savez``, by these names.
- `pose48`: see `pose48`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..predictions import Predictions
from .columns import each_file, number_in, whole
from .files import field, head, json_names, naming, npz_names, numbers, read_tree, text_lines
from .format import Format, Side
from .frame_walk import listed
from .hands import matrices, motions
from .mano_parameters import Convention, RawHand, hand_columns

_SIDES = ("left", "right")
_HAWOR = ("pred_trans", "pred_rot", "pred_hand_pose", "pred_betas", "pred_valid")


@dataclass(frozen=True)
class Dataset:
    """How one data set writes hands."""

    summary: str
    convention: Convention
    hands: Callable[[Path, str | None], Iterator[RawHand]]
    """The hands of a file or folder; the argument is the object that is wanted, where there are several."""
    sniff: Callable[[Path], bool]
    in_object_pose: bool = False
    """whether the file has the object's poses; else `object_pose` is left to be given"""


# Ways through the files -----------------------------------------------------------------------------


def _interhand(path: Path, object_id: str | None) -> Iterator[RawHand]:
    tree = _mapping(read_tree(path), "captures")
    for capture, frames in tree.items():
        for frame, hands in _mapping(frames, f"frames of capture {capture!r}").items():
            where = f"capture {capture}, frame {frame}"
            for side, values in _mapping(hands, f"hands of {where}").items():
                if values is not None and side in _SIDES:
                    more = {"sequence_id": [str(capture)]}
                    yield RawHand(
                        _fields(values), side, where, _number(frame), [f"{capture}/{frame}"], object_id=object_id or "",
                        more=more,
                    )  # fmt: skip


def _hoi4d(path: Path, object_id: str | None) -> Iterator[RawHand]:
    files = [path]
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.suffix.lower() in (".pickle", ".pkl")]
        files.sort(key=lambda file: (file.parent, number_in(file.stem) or 0, file.name))
        if not files:
            raise ValueError("holds no <frame>.pickle.")

    def read(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        with naming(file):
            values = _fields(read_tree(file))
            return values, {"keypoints_2d": numbers("kps2D", values["kps2D"], 21, 2)[None]} if "kps2D" in values else {}

    for file, (values, more) in zip(files, each_file(files, read, lambda file: ({}, {})), strict=True):
        side = "left" if "left" in str(file).lower() else "right"
        yield RawHand(
            values, side, str(file), _number(number_in(file.stem)), [file.stem], None, object_id or "", more=more
        )


def _oakink2(path: Path, object_id: str | None) -> Iterator[RawHand]:
    tree = _mapping(read_tree(path), "OakInk2's annotation")
    hands, poses = _mapping(listed(tree.get("raw_mano")), "raw_mano"), listed(tree.get("obj_transf")) or {}
    name = _one_object([str(key) for key in _mapping(poses, "obj_transf")], object_id)
    of_object = _mapping(poses[name], f"obj_transf of {name!r}") if name in poses else {}
    for frame, values in hands.items():
        values = _fields(values)
        pose = numbers("obj_transf", of_object[frame], 4, 4) if frame in of_object else np.full((4, 4), np.nan)
        for prefix, side in (("lh__", "left"), ("rh__", "right")):
            ours = {key.removeprefix(prefix): value for key, value in values.items() if str(key).startswith(prefix)}
            if ours:
                yield RawHand(
                    ours, side, f"frame {frame}", _number(frame), object_id=name or object_id or "",
                    object_pose=pose[None],
                )  # fmt: skip


def _hot3d(path: Path, object_id: str | None) -> Iterator[RawHand]:
    for frame, (number, line) in enumerate(text_lines(path)):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError(f"line {number} is no JSON.") from None
        for key, values in _mapping(_fields(entry).get("hand_poses"), f"hand_poses of line {number}").items():
            values = _fields(values)
            wrist = values.get("wrist_xform")
            ours = values | (wrist if isinstance(wrist, dict) else {})
            side = _SIDES[int(key)] if key in ("0", "1") else str(key)
            name = str(entry.get("timestamp_ns", frame))
            yield RawHand(ours, side, f"line {number}", [frame], [name], object_id=object_id or "")


def _graspxl(path: Path, object_id: str | None) -> Iterator[RawHand]:
    tree = _mapping(listed(read_tree(path)), "right_hand and an object")
    names = [name for name in tree if str(name) not in ("right_hand", "left_hand") and not str(name).endswith("_gt")]
    name = _one_object(names, object_id)
    turn = field(tree[name], "rot", None, 3) if name in tree else None
    pose = None if turn is None else motions(matrices(turn), field(tree[name], "trans", len(turn), 3))
    for side in ("right", "left"):
        if (values := tree.get(f"{side}_hand")) is not None:
            count = len(numbers("field 'rot'", _fields(values).get("rot"), None, 3))
            yield RawHand(values, side, f"{side}_hand", range(count), object_id=name or "", object_pose=pose)


def _hawor(path: Path, object_id: str | None) -> Iterator[RawHand]:
    tree = listed(read_tree(path))
    if isinstance(tree, list) and len(tree) == len(_HAWOR):
        tree = dict(zip(_HAWOR, tree, strict=True))
    arrays = {name: field(tree, name) for name in _HAWOR[:4]}
    count = arrays["pred_trans"].shape[1] if arrays["pred_trans"].ndim == 3 else -1
    for name, width in (("pred_trans", 3), ("pred_rot", 3), ("pred_hand_pose", 45), ("pred_betas", 10)):
        if arrays[name].shape[:2] != (2, count) or arrays[name].size != 2 * count * width:
            raise ValueError(
                f"field {name!r} has shape {arrays[name].shape}; expected (2, F, {width}), left and right."
            )
    valid = field(tree, "pred_valid", 2, count) > 0.5 if "pred_valid" in tree else np.ones((2, count), bool)
    for k, side in enumerate(_SIDES):
        ours = {name: value[k].reshape(count, -1) for name, value in arrays.items()}
        yield RawHand(ours, side, side, range(count), kept=valid[k], object_id=object_id or "")


def _mapping(value: Any, what: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected {what}, got a {type(value).__name__}.")
    return value


def _fields(value: Any) -> dict[str, Any]:
    """Fields of a hand; what is none has none, so that it fails alone."""
    return value if isinstance(value, dict) else {}


def _number(frame: Any) -> list[int] | None:
    number = whole(str(frame))
    return None if number is None else [number]


def _one_object(names: Sequence[str], wanted: str | None) -> str | None:
    """The object that is ``wanted``, or the only one there is."""
    if wanted is not None and (wanted in names or not names):
        return wanted if wanted in names else None
    if wanted is not None or len(names) > 1:
        raise ValueError(
            f"object_id (--object-id): got {wanted!r}; name one of its objects: {', '.join(map(str, names))[:300]}."
        )
    return names[0] if names else None


def _is_hoi4d(path: Path) -> bool:
    if path.is_dir():
        return "handpose" in path.as_posix().lower() and next(path.glob("*.pickle"), None) is not None
    return path.suffix.lower() == ".pickle" and "handpose" in path.resolve().as_posix().lower()


# The table ------------------------------------------------------------------------------------------

DATASETS = {
    "interhand": Dataset(
        "InterHand2.6M's MANO annotations (*_MANO_NeuralAnnot.json)",
        Convention(pose=("pose",), betas=("shape",), transl=("trans",), add_mean=True, left_is_mirrored=True),
        _interhand,
        lambda path: path.name.endswith("MANO_NeuralAnnot.json"),
    ),
    "hoi4d": Dataset(
        "HOI4D hand poses (<frame>.pickle, or a folder of them)",
        Convention(pose=("poseCoeff",), betas=("beta",), transl=("trans",)),
        _hoi4d,
        _is_hoi4d,
    ),
    "oakink2": Dataset(
        "OakInk2 annotations (scene_*.pkl) with their tensors as numpy",
        Convention(pose=("pose_coeffs",), transl=("tsl",), rotations="quaternions", at_wrist=True),
        _oakink2,
        lambda path: path.suffix.lower() == ".pkl" and path.name.startswith("scene_"),
        in_object_pose=True,
    ),
    "hot3d": Dataset(
        "HOT3D's mano_hand_pose_trajectory.jsonl",
        Convention(
            orient=("q_wxyz",), fingers=("pose",), transl=("t_xyz",), rotations="components", add_mean=True,
            left_is_mirrored=True,
        ),
        _hot3d,
        lambda path: path.suffix.lower() == ".jsonl" and '"hand_poses"' in head(path),
    ),
    "graspxl": Dataset(
        "GraspXL's MANO sequences (mano_*.npy)",
        Convention(orient=("rot",), fingers=("pose",), transl=("trans",), add_mean=True, left_is_mirrored=True),
        _graspxl,
        lambda path: path.suffix.lower() == ".npy" and path.name.startswith("mano_"),
        in_object_pose=True,
    ),
    "hawor": Dataset(
        "HaWoR's pred_trans, pred_rot, pred_hand_pose, pred_betas, pred_valid (.npz, .pkl, .json)",
        Convention(
            orient=("pred_rot",), fingers=("pred_hand_pose",), betas=("pred_betas",), transl=("pred_trans",),
            left_is_mirrored=True,
        ),
        _hawor,
        lambda path: {*_HAWOR[:2]} <= npz_names(path) or json_names(path, _HAWOR[:1]),
    ),
}  # fmt: skip
"""By the name of the format."""


def _format(name: str, dataset: Dataset) -> Format:
    def read(
        path: Path, *, mano_dir: str | Path | None = None, side: Side | None = None, object_id: str | None = None
    ) -> Predictions:
        """Read the hands, frame by frame.

        Args:
            mano_dir: the user's MANO, for the mean pose, principal components and exact wrists.
            side: only hands of this side.
            object_id: name of the object; which, where the file has several.
        """
        hands = [hand for hand in dataset.hands(path, object_id) if side in (None, hand.side)]
        odd = next((hand for hand in hands if hand.side not in _SIDES), None)
        if odd is not None:
            raise ValueError(f"{odd.where}: the hand {odd.side[:20]!r} is neither left nor right.")
        columns = hand_columns(hands, dataset.convention, mano_dir)
        if not dataset.in_object_pose and len(columns["side"]):
            columns["object_pose"] = np.full((len(columns["side"]), 4, 4), np.nan)
        sequence = {"sequence_id": path.stem} if "sequence_id" not in columns else {}
        return Predictions.from_columns(columns | sequence)

    return Format(name, read, None, dataset.sniff, dataset.summary)


FORMATS = {name: _format(name, dataset) for name, dataset in DATASETS.items()}
"""The formats of `DATASETS`."""
