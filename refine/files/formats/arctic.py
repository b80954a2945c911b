"""ARCTIC: MANO angles without the mean pose, world frame, object translations in millimetres.

Source of truth: zc-alexfan/arctic, ``docs/data/data_doc.md`` (fields of ``*.mano.npy`` and ``*.object.npy``),
``common/body_models.py`` ``build_mano_aa`` (smplx' MANO with ``use_pca=False, flat_hand_mean=False``: the mean is to be
added), ``src/arctic/processing.py`` (``obj_trans / 1000``; ``world2cam`` applied to everything),
``common/object_tensors.py`` (meshes in millimetres; the pose is of the bottom part, the top part turns against it about
−z by the articulation) and ``src/arctic/preprocess_dataset.py`` (the object's name begins the file's). Left betas were
fitted with MANO_LEFT.pkl: see `hands.our_left`.

Reads ``raw_seqs/sNN/<sequence>.mano.npy`` with ``<sequence>.object.npy`` beside it. The world stands for the camera
unless ``view`` names one. Objects are articulated, and a row has one rigid mesh: the bottom part's, or one exported in
the frame's articulation; `object_id` is the object's name, and meshes are in millimetres (``--scale 0.001``).
"""

from __future__ import annotations

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
        path: ``<sequence>.mano.npy``.
        mano_dir: the user's MANO, of each side that is read.
        side: "right" or "left"; None for both, right first.
        object_id: name of the object; the beginning of the file's name when None.
        view: camera to use instead of the world, 1 to 8 of ``meta/misc.json``.
    """
    values = read_tree(path)
    if not isinstance(values, dict):
        raise ValueError("expected ARCTIC's hands, right and left.")
    sides = [side] if side else [s for s in ("right", "left") if s in values]
    if not sides:
        raise ValueError("has neither right nor left.")
    parts = [_hand(values.get(s), s, mano_dir) for s in sides]
    poses = _object_poses(path, len(parts[0]["side"]))
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


def _object_poses(path: Path, count: int) -> np.ndarray:
    """Object to world ``(count, 4, 4)``, metres."""
    file = path.with_name(path.name.replace(".mano.", ".object."))
    if file == path or not file.is_file():
        warnings.warn(f"{path}: there is no {file.name} beside it; object poses are missing.", stacklevel=3)
        return np.full((count, 4, 4), np.nan)
    with naming(file):
        values = numbers("the array", read_tree(file), count, 7)
    if count and np.ptp(values[:, 0]) > _STIFF:
        warnings.warn(
            f"{file}: the object is articulated and moves; poses are of its bottom part. Export a mesh for each state "
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
    """``*.mano.npy``."""
    return path.is_file() and path.name.endswith(".mano.npy")


FORMAT = Format("arctic", read, None, sniff, "ARCTIC raw sequences (*.mano.npy with *.object.npy)")
