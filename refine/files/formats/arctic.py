"""ARCTIC: MANO angles without the mean pose, world frame, object translations in millimetres.

Source of truth: zc-alexfan/arctic, ``docs/data/data_doc.md`` (fields of ``*.mano.npy`` and ``*.object.npy``),
``common/body_models.py`` ``build_mano_aa`` (smplx' MANO with ``use_pca=False, flat_hand_mean=False``: the mean is to be
added), ``src/arctic/processing.py`` (``obj_trans / 1000``; ``world2cam`` applied to everything),
``common/object_tensors.py`` (meshes in millimetres; the pose is of the bottom part, the top part turns against it about
−z by the articulation) and ``src/arctic/preprocess_dataset.py`` (the object's name begins the file's). Left betas were
fitted with MANO_LEFT.pkl: see `hands.our_left`.

Reads ``raw_seqs/sNN/<sequence>.mano.npy`` with ``<sequence>.object.npy`` beside it, or a processed sequence
``processed_seqs/sNN/<sequence>.npy``, whose ``params`` hold the same under other names (``docs/data/data_doc.md``;
``obj_trans`` is still in millimetres). The world stands for the camera
unless ``view`` names one. Objects are articulated, and a row has one rigid mesh: the bottom part's, or one exported in
the frame's articulation; `object_id` is the object's name, and meshes are in millimetres (``--scale 0.001``).
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..object_files import inside
from ..predictions import Predictions
from .columns import Columns, recording
from .files import field, naming, numbers, per_hand, read_json, read_tree
from .format import Format, Side
from .hands import mano_columns, matrices, motions, moved

_STIFF = 0.05  # radians; articulation that changes by more deserves a word


def read(
    path: Path, *, mano_dir: str | Path | None = None, side: Side | None = None, object_id: str | None = None,
    view: int | None = None,
) -> Predictions:  # fmt: skip
    """Read the hands of a sequence, frame by frame.

    Args:
        path: ``<sequence>.mano.npy``, or the processed ``<sequence>.npy``.
        mano_dir: the user's MANO, of each side that is read.
        side: "right" or "left"; None for both, right first.
        object_id: name of the object; the beginning of the file's name when None.
        view: camera to use instead of the world, 1 to 8 of ``meta/misc.json``.
    """
    values = read_tree(path)
    if not isinstance(values, dict):
        raise ValueError("expected ARCTIC's hands, right and left.")
    params = values.get("params")
    if isinstance(params, dict):
        values = _from_processed(params)
    sides = [side] if side else [s for s in ("right", "left") if s in values]
    if not sides:
        raise ValueError("has neither right nor left.")
    parts = [_hand(values.get(s), s, mano_dir) for s in sides]
    count = len(parts[0]["side"])
    of_object = values["object"] if isinstance(params, dict) else _object_file(path, count)
    poses = _object_poses(of_object, count, path)
    stem = path.name.removesuffix(".npy").removesuffix(".mano")
    sequence, image = f"{path.resolve().parent.name}/{stem}", {}
    if view is not None:
        sequence += f"/{view}"
        to_camera, image = _camera(path, view)
        parts = [moved(part, to_camera[:3, :3], to_camera[:3, 3], mano_dir=mano_dir) for part in parts]
        poses = to_camera @ poses
    labels = {"object_id": object_id or stem.split("_")[0]}
    return Predictions.from_columns(recording(sequence, parts, poses) | image | labels)


def _hand(part: Any, side: str, mano_dir: Any) -> Columns:
    orient = field(part, "rot", None, 3)
    count = len(orient)
    angles, transl = field(part, "pose", count, 45), field(part, "trans", count, 3)
    betas = per_hand("field 'shape'", field(part, "shape"), count, 10)
    return mano_columns(side, orient, angles, betas, transl, mano_dir, add_mean=True)


def _from_processed(params: dict[str, Any]) -> dict[str, Any]:
    """The hands and the object of a processed sequence as those of the raw files."""
    names = ("rot", "pose", "trans", "shape")
    hands = {
        side: {name: params.get(f"{name}_{side[0]}") for name in names}
        for side in ("right", "left")
        if f"rot_{side[0]}" in params
    }
    turn = field(params, "obj_rot", None, 3)
    bend = per_hand("field 'obj_arti'", field(params, "obj_arti"), len(turn))
    return hands | {"object": np.c_[bend, turn, field(params, "obj_trans", len(turn), 3)]}


def _object_file(path: Path, count: int) -> np.ndarray | None:
    """Articulation, rotation and translation ``(count, 7)`` of the object's file."""
    file = path.with_name(path.name.replace(".mano.", ".object."))
    if file == path or not file.is_file():
        warnings.warn(f"{path}: there is no {file.name} beside it; object poses are missing.", stacklevel=3)
        return None
    with naming(file):
        return numbers("the array", read_tree(file), count, 7)


def _object_poses(values: np.ndarray | None, count: int, path: Path) -> np.ndarray:
    """Object to world ``(count, 4, 4)``, metres; NaN where nothing says it."""
    if values is None:
        return np.full((count, 4, 4), np.nan)
    if len(values) != count:
        raise ValueError(f"the object has {len(values)} frames, the hands {count}.")
    if count and np.ptp(values[:, 0]) > _STIFF:
        warnings.warn(
            f"{path}: the object is articulated and moves; poses are of its bottom part. Export a mesh for each state "
            "that matters and name it in object_id.",
            stacklevel=3,
        )
    return motions(matrices(values[:, 1:4]), values[:, 4:] / 1000)


def _camera(path: Path, view: int) -> tuple[np.ndarray, Columns]:
    """World to camera, and the columns of intrinsics and image size, of a fixed camera."""
    folders = path.resolve().parents
    root = folders[2] if len(folders) > 2 else folders[-1]
    file = inside(root, "meta/misc.json", f"{path}: view")
    if not file.is_file():
        raise FileNotFoundError(f"view: there is no {file}, which has the cameras.")
    document, subject = read_json(file), folders[0].name
    cameras = document.get(subject) if isinstance(document, dict) else None
    with naming(file):
        extrinsics = field(cameras, "world2cam", None, 4, 4)
        if not 1 <= view <= len(extrinsics):
            raise ValueError(f"view: got {view}; use 1 to {len(extrinsics)}.")
        intrinsics = field(cameras, "intris_mat", len(extrinsics), 3, 3)[view - 1]
        sizes = field(cameras, "image_size", None, 2)
        # The first is the moving camera's.
        size = sizes[min(view, len(sizes) - 1)] if len(sizes) else np.full(2, np.nan)
        if not (np.isfinite(size).all() and (np.abs(size) < 1e6).all()):
            raise ValueError(f"image_size of camera {view} is no size.")
    return extrinsics[view - 1], {"cam_K": intrinsics, "image_size": size.astype(np.int64)}


def sniff(path: Path) -> bool:
    """``*.mano.npy``, or a sequence in a folder ``processed*/…/sNN``."""
    if not path.is_file() or path.suffix != ".npy":
        return False
    above = path.resolve().parts[:-1]
    processed = re.fullmatch(r"s\d\d", above[-1]) and any(part.startswith("processed") for part in above)
    return path.name.endswith(".mano.npy") or bool(processed and "." not in path.stem)


FORMAT = Format(
    "arctic",
    read,
    None,
    sniff,
    "ARCTIC raw (*.mano.npy with *.object.npy) and processed sequences (processed_seqs/sNN/*.npy)",
)
