"""FHAB (First-Person Hand Action, also FPHA): skeletons and object poses as text, millimetres, world frame.

Source of truth: guiggh/hand_pose_action, ``README.md`` (a line of ``skeleton.txt`` is the frame's number and 63
coordinates; its order of joints; a line of ``object_pose.txt`` is the frame's number and a 4×4 matrix by columns; the
extrinsics and intrinsics below) and ``load_example.py`` (the extrinsics take the world to the colour camera; object
models are metres, poses are for models in millimetres, so that only translations change).

Reads ``skeleton.txt``, or a folder with one, into the colour camera: joints as `keypoints_3d`. Object poses come from
``object_pose``, else from ``object_pose.txt`` beside the skeleton or in the dataset's parallel folder
``Object_6D_pose_annotation_v1``; frames it does not have are NaN.

Also the MANO fits that handobjectconsist, CPF and GeneOH-Diffusion ship, ``fhbhands_fits/<subject>/<action>/<n>/
pkls.pkl``: by ``<frame>.pkl`` ``fullpose`` 48, ``shape``, ``trans`` (lixiny/CPF, ``hocontact/hodatasets/fhb*.py``:
manopth with ``use_pca=False, flat_hand_mean=True``, the translation in metres added to the mesh, colour camera). Of
hands that hold the objects which have poses, ``object_pose`` is then an ``object_pose.txt``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hand_models import skeleton

from ..predictions import Predictions
from .columns import UNKNOWN_POSE, frame_columns, whole
from .files import head, read_table, read_tree
from .format import Format, Numbers, Side
from .mano_parameters import Convention, RawHand, hand_columns
from .object_poses import poses_of_rows

WORLD_TO_CAMERA = np.array(
    [
        [0.999988496304, -0.00468848412856, 0.000982563360594, 0.0257],
        [0.00469115935266, 0.999985218048, -0.00273845880292, 0.00122],
        [-0.000969709653873, 0.00274303671904, 0.99999576807, 0.003902],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
"""Published extrinsics, translation in metres."""
CAMERA = np.array([[1395.749023, 0, 935.732544], [0, 1395.749268, 540.681030], [0, 0, 1]])
"""Intrinsics of the colour camera."""
IMAGE = (1920, 1080)
OBJECTS = ("juice_bottle", "liquid_soap", "milk", "salt")
"""Objects that have poses; their names are part of the actions' names."""


_FITS = Convention(pose=("fullpose",), betas=("shape",), transl=("trans",))


def read(
    path: Path, *, object_id: str | None = None, object_pose: Numbers = None, side: Side = "right",
    mano_dir: str | Path | None = None,
) -> Predictions:  # fmt: skip
    """Read a sequence.

    Args:
        path: ``skeleton.txt`` or its folder, or ``pkls.pkl``.
        object_id: name of the object; found in the action's name (the folder above the repetition's) when None.
        object_pose: ``object_pose.txt``, or poses in the world in metres as in `object_poses.poses_of_rows`.
        side: the dataset's hands are right ones.
        mano_dir: the user's MANO; fits have no use for it.
    """
    if path.suffix.lower() in (".pkl", ".pickle"):
        return _read_fits(path, object_id, object_pose, mano_dir)
    file = path / "skeleton.txt" if path.is_dir() else path
    if not file.is_file():
        raise ValueError("holds no skeleton.txt.")
    labels, values = read_table(file, 63)
    joints = skeleton.convert(values.reshape(-1, 21, 3) / 1000, source="fhab", target="openpose")
    folders = file.resolve().parent.parts[-3:]
    columns = frame_columns(["/".join([*folders, label]) for label in labels]) | {
        "side": np.full(len(labels), side),
        "keypoints_3d": joints @ WORLD_TO_CAMERA[:3, :3].T + WORLD_TO_CAMERA[:3, 3],
    }
    return _before_camera(columns | {"frame_index": _frame_numbers(file, labels)}, file, object_id, object_pose)


def _read_fits(path: Path, object_id: str | None, object_pose: Any, mano_dir: Any) -> Predictions:
    frames = read_tree(path)
    if not isinstance(frames, dict):
        raise ValueError(
            "expected the fits of a sequence, {'000000.pkl': {'fullpose': ..., 'trans': ..., 'shape': ...}}."
        )
    folders = path.resolve().parent.parts[-3:]
    hands = []
    for label, values in frames.items():
        stem = Path(str(label)).stem
        number = whole(stem)
        hands.append(
            RawHand(
                values if isinstance(values, dict) else {}, "right", f"fit {label}",
                None if number is None else [number], ["/".join([*folders, stem])],
            )
        )  # fmt: skip
    columns = hand_columns(hands, _FITS, mano_dir)
    return _before_camera(columns, path, object_id, object_pose)


def _before_camera(columns: dict[str, Any], file: Path, object_id: str | None, object_pose: Any) -> Predictions:
    """Rows of hands before the colour camera, with the object's poses."""
    if object_id is None:
        object_id = next((name for name in OBJECTS if name in "_".join(file.resolve().parent.parts[-3:])), "")
    rows = len(columns["side"])
    labels = {"object_id": np.full(rows, object_id), "cam_K": CAMERA, "image_size": IMAGE}
    labels["object_pose"] = np.tile(UNKNOWN_POSE, (rows, 1, 1))
    predictions = Predictions.from_columns(columns | labels)
    poses = _object_poses(file, object_pose, predictions)
    return replace(predictions, object_pose=(WORLD_TO_CAMERA @ poses).astype(np.float32))


def _frame_numbers(path: Path, labels: list[str]) -> list[int]:
    numbers = [whole(label) for label in labels]
    if None in numbers:
        row = numbers.index(None)
        raise ValueError(f"{path}: row {row} begins with {labels[row][:40]!r}, which is no frame number.")
    return numbers  # type: ignore[return-value]


def _object_poses(skeleton_file: Path, given: Any, predictions: Predictions) -> np.ndarray:
    """Object to world ``(N, 4, 4)``, metres; NaN where there is none."""
    if given is None:
        folder = skeleton_file.resolve().parent
        folders = [folder]
        if len(folder.parents) > 3 and folder.parents[2].name.startswith("Hand_pose_annotation"):
            folders.append(folder.parents[3].joinpath("Object_6D_pose_annotation_v1", *folder.parts[-3:]))
        given = next((file for of in folders if (file := of / "object_pose.txt").is_file()), None)
    if not isinstance(given, str | Path) or Path(given).name != "object_pose.txt":
        if given is None:
            return np.tile(UNKNOWN_POSE, (len(predictions), 1, 1))
        return poses_of_rows(given, predictions, "object_pose")
    path = Path(given)
    if not path.is_file():
        raise FileNotFoundError(f"object_pose {path}: there is no such file.")
    labels, values = read_table(path, 16)
    matrices = values.reshape(-1, 4, 4).transpose(0, 2, 1).copy()
    matrices[:, :3, 3] /= 1000
    known = dict(zip(_frame_numbers(path, labels), matrices, strict=True))
    return np.array([known.get(number, UNKNOWN_POSE) for number in predictions.frame_index.tolist()]).reshape(-1, 4, 4)


def sniff(path: Path) -> bool:
    """A folder with ``skeleton.txt``, a text whose first line has 64 numbers, or a ``pkls.pkl``."""
    if path.name == "pkls.pkl":
        return path.is_file()
    if path.is_dir():
        return (path / "skeleton.txt").is_file()
    cells = head(path).partition("\n")[0].split()
    return path.suffix.lower() == ".txt" and len(cells) == 64 and cells[0].isdecimal()


FORMAT = Format("fhab", read, None, sniff, "FHAB / FPHA skeleton.txt with object_pose.txt; MANO fits (pkls.pkl)")
