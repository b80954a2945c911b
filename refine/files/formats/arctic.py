"""ARCTIC: MANO angles without the mean pose, world frame, object translations in millimetres.

Source of truth: zc-alexfan/arctic, ``docs/data/data_doc.md`` (fields of ``*.mano.npy`` and ``*.object.npy``),
``common/body_models.py`` ``build_mano_aa`` (smplx' MANO with ``use_pca=False, flat_hand_mean=False``: the mean is to be
added), ``src/arctic/processing.py`` (``obj_trans / 1000``; ``world2cam`` applied to everything),
``common/object_tensors.py`` (meshes in millimetres; the pose is of the bottom part, the top part turns against it about
−z by the articulation) and ``src/arctic/preprocess_dataset.py`` (the object's name begins the file's). Left betas were
fitted with MANO_LEFT.pkl: see `hands.our_left`.

Reads ``raw_seqs/sNN/<sequence>.mano.npy`` with ``<sequence>.object.npy`` beside it. The world stands for the camera
unless ``view`` names one. Objects are articulated, and a row has one rigid mesh: the bottom part's, or one exported in
the frame's articulation; `object_id` is the object's name, and meshes need ``"scale": 0.001`` in `objects.json`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..predictions import Predictions
from . import Adapter
from .files import child, field, numbers, read_json, read_tree
from .hands import matrices, mean_pose, moved, our_left, root_joints

_STIFF = 0.05  # radians; articulation that changes by more deserves a word


def read(
    path: Path, *, mano_dir: str | Path | None = None, side: str | None = None, object_id: str | None = None,
    view: int | None = None,
) -> Predictions:  # fmt: skip
    """Read the hands of a sequence, frame by frame.

    Args:
        path: ``<sequence>.mano.npy``.
        mano_dir: the user's MANO, of each side that is read.
        side: "right" or "left"; None for both, right first.
        object_id: name of the object; the beginning of the file's name when None.
        view: 1 to 8, a fixed camera of ``meta/misc.json``; None for the world.

    Raises:
        MissingManoError: MANO of a side is not there.
        ValueError: a field is missing or misshapen.
    """
    if side not in (None, "right", "left"):
        raise ValueError(f"side: got {side!r}; use 'right' or 'left'.")
    values = read_tree(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected ARCTIC's hands, right and left.")
    sides = [side] if side else [s for s in ("right", "left") if s in values]
    if not sides:
        raise ValueError(f"{path}: has neither right nor left.")
    camera = np.eye(4), None, None
    if view is not None:
        camera = _camera(path, view)
    parts = [_hand(path, values, s, mano_dir, camera[0]) for s in sides]
    counts = {len(part["side"]) for part in parts}
    if len(counts) != 1:
        raise ValueError(f"{path}: right and left have different numbers of frames, {sorted(counts)}.")
    count = counts.pop()
    poses = camera[0] @ _object_poses(path, count)
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    frames = np.tile(np.arange(count), len(sides))
    stem = path.name.removesuffix(".npy").removesuffix(".mano")
    sequence = f"{path.resolve().parent.name}/{stem}"
    if view is not None:
        columns |= {
            "cam_K": np.tile(camera[1], (len(frames), 1, 1)),
            "image_size": np.tile(camera[2], (len(frames), 1)),
        }
        sequence = f"{sequence}/{view}"
    return Predictions.from_columns(
        columns
        | {
            "object_id": np.full(len(frames), object_id or stem.split("_")[0]),
            "object_pose": np.tile(poses, (len(sides), 1, 1)),
            "sequence_id": np.full(len(frames), sequence),
            "frame_id": np.array([f"{sequence}/{frame}" for frame in frames], np.str_),
            "frame_index": frames,
        }
    )


def _hand(
    path: Path, values: dict[str, Any], side: str, mano_dir: Any, world_to_camera: np.ndarray
) -> dict[str, Any]:
    part = values.get(side)
    orient = field(path, part, "rot", None, 3)
    count = len(orient)
    pose = field(path, part, "pose", count, 45).reshape(-1, 15, 3) + mean_pose(side, mano_dir)
    transl, shape = field(path, part, "trans", count, 3), field(path, part, "shape")
    if shape.size not in (10, 10 * count):
        raise ValueError(f"{path}: field 'shape' has shape {shape.shape}; expected (10,) or ({count}, 10).")
    betas = np.broadcast_to(shape.reshape(-1, 10), (count, 10))
    if side == "left":
        betas, transl = our_left(betas, transl, mano_dir)
    if not np.array_equal(world_to_camera, np.eye(4)):
        roots = root_joints(betas, np.full(count, side), mano_dir)
        orient, transl = moved(orient, transl, roots, world_to_camera[:3, :3], world_to_camera[:3, 3])
    return {
        "side": np.full(count, side),
        "global_orient": orient,
        "hand_pose": pose,
        "betas": betas,
        "transl": transl,
    }


def _object_poses(path: Path, count: int) -> np.ndarray:
    """Object to world ``(count, 4, 4)``, metres."""
    file = path.with_name(path.name.replace(".mano.", ".object."))
    if file == path or not file.is_file():
        warnings.warn(f"{path}: there is no {file.name} beside it; object poses are missing.", stacklevel=3)
        return np.full((count, 4, 4), np.nan)
    values = numbers(file, "the array", read_tree(file), count, 7)
    if count and np.ptp(values[:, 0]) > _STIFF:
        warnings.warn(
            f"{file}: the object is articulated and moves; poses are of its bottom part. Export a mesh for each state "
            "that matters and name it in object_id.",
            stacklevel=3,
        )
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = matrices(values[:, 1:4]), values[:, 4:] / 1000
    return poses


def _camera(path: Path, view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World to camera, intrinsics and image size of a fixed camera."""
    folders = path.resolve().parents
    root = folders[2] if len(folders) > 2 else folders[-1]
    file = child(root, "meta/misc.json", f"{path}: view")
    if not file.is_file():
        raise FileNotFoundError(f"view: there is no {file}, which has the cameras.")
    document, subject = read_json(file), folders[0].name
    cameras = document.get(subject) if isinstance(document, dict) else None
    extrinsics = field(file, cameras, "world2cam", None, 4, 4)
    if not 1 <= view <= len(extrinsics):
        raise ValueError(f"view: got {view}; use 1 to {len(extrinsics)}.")
    intrinsics = field(file, cameras, "intris_mat", len(extrinsics), 3, 3)[view - 1]
    sizes = field(file, cameras, "image_size", None, 2)
    size = (
        sizes[min(view, len(sizes) - 1)] if len(sizes) else np.full(2, np.nan)
    )  # the first is the moving camera's
    if not (np.isfinite(size).all() and (np.abs(size) < 1e6).all()):
        raise ValueError(f"{file}: image_size of camera {view} is no size.")
    return extrinsics[view - 1], intrinsics, size.astype(np.int64)


def sniff(path: Path) -> bool:
    """``*.mano.npy``."""
    return path.is_file() and path.name.endswith(".mano.npy")


ADAPTER = Adapter("arctic", read, None, sniff, "ARCTIC raw sequences (*.mano.npy with *.object.npy)")
