"""DexYCB: 45 principal components plus mean, metres within, millimetres in the challenges' result files.

Sources of truth: NVlabs/dex-ycb-toolkit, ``dex_ycb_toolkit/layers/mano_layer.py`` (manopth with ``ncomps=45,
use_pca=True, flat_hand_mean=False``; ``p`` 48 numbers, ``t`` added after posing about the wrist joint),
``dex_ycb_toolkit/dex_ycb.py`` (names of the objects, files, joint order), ``hpe_eval.py`` (a line holds the image's
number and 63 comma-separated coordinates, millimetres), ``bop_eval.py`` (``R``, ``t`` of the models as DexYCB ships
them; the evaluator moves them to BOP's) and bop_toolkit ``inout.save_bop_results`` (columns
``scene_id,im_id,obj_id,score,R,t,time``, rotation by rows, millimetres).

Reads

- ``labels_NNNNNN.npz``, one or a folder of them: the camera's frame is OpenCV's. Which object is grasped, which hand it
  is and its betas stand in ``meta.yml`` two folders up and in ``calibration/``; options take their place. Frames
  without a hand are passed over. Left betas were fitted with MANO_LEFT.pkl: see `hands.our_left`.
- an HPE result file (.txt or .csv): joints as `keypoints_3d`.

Writes HPE (``kind="hpe"``) or BOP (``kind="bop"``) results.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hand_models.atomic import write_atomically

from ..object_files import inside
from ..predictions import Predictions
from .columns import each_file, frame_columns, pose_columns, stacked, whole
from .files import betas_rows, field, given_numbers, head, npz_names, read_table, read_tree, read_yaml, rigid
from .format import Format, Numbers, Side
from .hands import joints_of, mano_columns

OBJECTS = (
    "002_master_chef_can", "003_cracker_box", "004_sugar_box", "005_tomato_soup_can", "006_mustard_bottle",
    "007_tuna_fish_can", "008_pudding_box", "009_gelatin_box", "010_potted_meat_can", "011_banana",
    "019_pitcher_base", "021_bleach_cleanser", "024_bowl", "025_mug", "035_power_drill", "036_wood_block",
    "037_scissors", "040_large_marker", "051_large_clamp", "052_extra_large_clamp", "061_foam_brick",
)  # fmt: skip
"""DexYCB's objects; the first is number 1."""
_IMAGE = (640, 480)
_HPE_LINE = re.compile(r"^\s*\d+\s*(,\s*[-+.\deEnainf]+\s*){63}$")


@dataclass(frozen=True)
class _Sequence:
    """What ``meta.yml`` and the calibration say of a recording."""

    grasped: int
    """Row of ``pose_y`` that is the grasped object."""
    shared: dict[str, Any]
    """Columns that all its frames share."""


def read(
    path: Path,
    *,
    mano_dir: str | Path | None = None,
    object_id: str | None = None,
    object_pose: Numbers = None,
    side: Side | None = None,
    betas: Numbers = None,
) -> Predictions:
    """Read labels or an HPE result file.

    Args:
        path: see above.
        mano_dir: the user's MANO, for the principal components of labels.
        object_id: instead of ``meta.yml``'s grasped object; with it the labels must hold one object.
        object_pose: object to camera for an HPE file, see `files.rigid`; labels have their own.
        side: instead of ``meta.yml``'s; "right" for an HPE file when None.
        betas: ten coefficients of shape or a file of them, instead of the calibration's.

    Raises:
        MissingManoError: MANO of that side is not there.
        ValueError: a file does not fit; names the field.
    """
    if path.suffix.lower() in (".txt", ".csv"):
        return _read_hpe(path, object_id or "", object_pose, side or "right")
    if object_pose is not None:
        raise ValueError(f"{path}: object_pose is for HPE files; labels have their own.")
    files = [path]
    if path.is_dir():
        files = sorted(path.glob("labels_*.npz")) or sorted(path.glob("**/labels_*.npz"))
        if not files:
            raise ValueError(f"{path}: holds no labels_*.npz.")
    sequences: dict[Path, _Sequence] = {}

    def of(file: Path) -> _Sequence:
        folder = file.resolve().parent
        if folder not in sequences:
            sequences[folder] = _sequence(file, folder, object_id, side, betas)
        return sequences[folder]

    for file in files:
        of(file)  # what is wrong with a recording is no single frame's fault
    hands = each_file(files, lambda file: _label(file, of(file)), lambda file: [_nothing(file, of(file))])
    return _predictions([hand for of_file in hands for hand in of_file], mano_dir)


def _sequence(file: Path, camera: Path, object_id: str | None, side: str | None, betas: Any) -> _Sequence:
    """Options first, then ``meta.yml`` of the recording above the folder ``camera``."""
    folder = camera.parent
    meta_file = folder / "meta.yml"
    meta = read_yaml(meta_file) if meta_file.is_file() else {}
    if not meta and (object_id is None or side is None):
        raise ValueError(
            f"{file}: there is no {meta_file}, which names object and hand; give object_id and side (and betas)."
        )
    grasped = 0
    if object_id is None:
        ids, grasped = _list(meta_file, meta, "ycb_ids"), meta.get("ycb_grasp_ind")
        numbers = all(type(i) is int and 1 <= i <= len(OBJECTS) for i in ids)
        if not (numbers and type(grasped) is int and 0 <= grasped < len(ids)):
            raise ValueError(f"{meta_file}: ycb_ids and ycb_grasp_ind do not name a DexYCB object; give object_id.")
        object_id = OBJECTS[ids[grasped] - 1]
    if side is None:
        side = (_list(meta_file, meta, "mano_sides") or [""])[0]
    if side not in ("right", "left"):
        raise ValueError(f"{meta_file}: mano_sides is {str(side)[:20]!r}; expected right or left.")
    if betas is not None:
        shape = betas_rows(given_numbers(betas), 1)[0]
    else:
        names = _list(meta_file, meta, "mano_calib") if meta else []
        shape = _calibrated_betas(folder, str(names[0])) if names else np.zeros(10)
    return _Sequence(grasped, {"object_id": object_id, "side": side, "betas": shape, "cam_K": _camera(camera)})


def _list(path: Path, meta: dict[str, Any], name: str) -> list[Any]:
    value = meta.get(name)
    if not isinstance(value, list):
        raise ValueError(f"{path}: key {name!r} is missing or no list.")
    return value


def _calibrated_betas(folder: Path, name: str) -> np.ndarray:
    """Betas in ``calibration/mano_<name>/mano.yml`` of the dataset that the recording lies in; zeros without it."""
    root = folder.parents[1] if len(folder.parents) > 1 else folder
    path = inside(root / "calibration", f"mano_{name}/mano.yml", f"{folder / 'meta.yml'}: mano_calib")
    if not path.is_file():
        return np.zeros(10)
    values = read_yaml(path).get("betas")
    try:
        return np.array([float(value) for value in values], np.float64).reshape(10)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        raise ValueError(f"{path}: betas are not ten numbers.") from None


def _camera(folder: Path) -> np.ndarray:
    """Intrinsics of the camera whose serial number the folder is called by; NaN when they are not there."""
    camera = np.full((3, 3), np.nan)
    if len(folder.parents) < 3:
        return camera
    calibration = folder.parents[2] / "calibration"
    path = inside(calibration, f"intrinsics/{folder.name}_{_IMAGE[0]}x{_IMAGE[1]}.yml", str(folder))
    if path.is_file():
        color = read_yaml(path).get("color")
        try:
            fx, fy, x, y = (float(color[key]) for key in ("fx", "fy", "ppx", "ppy"))  # type: ignore[index]
        except (TypeError, KeyError, ValueError):
            raise ValueError(f"{path}: color has no fx, fy, ppx, ppy.") from None
        camera = np.array([[fx, 0, x], [0, fy, y], [0, 0, 1]])
    return camera


def _label(path: Path, sequence: _Sequence) -> list[dict[str, Any]]:
    """Pose, joints and object of the hands of one frame: one, or none."""
    values = read_tree(path, only=("pose_m", "pose_y", "joint_3d", "joint_2d"))
    hands = field(path, values, "pose_m", None, 51)
    objects = field(path, values, "pose_y", None, 3, 4)
    if sequence.grasped >= len(objects):
        raise ValueError(f"{path}: field 'pose_y' has {len(objects)} objects; meta.yml asks for {sequence.grasped}.")
    joints = {name: field(path, values, name, None, 21, d) for name, d in (("joint_3d", 3), ("joint_2d", 2))}
    if any(len(value) != len(hands) for value in joints.values()):
        raise ValueError(f"{path}: 'joint_3d', 'joint_2d' and 'pose_m' have different numbers of hands.")
    return [
        {
            "pose": hand,
            "keypoints_3d": joints["joint_3d"][k],
            "keypoints_2d": joints["joint_2d"][k],
            "object_pose": rigid(objects[sequence.grasped], 1)[0],
            "name": _name(path),
        }
        | sequence.shared
        for k, hand in enumerate(hands)
        if np.any(hand)  # all zero, and joints of -1, where there is no hand
    ]


def _nothing(path: Path, sequence: _Sequence) -> dict[str, Any]:
    """The hand of a frame that cannot be read."""
    shapes = {"pose": 51, "keypoints_3d": (21, 3), "keypoints_2d": (21, 2), "object_pose": (4, 4)}
    return {name: np.full(shape, np.nan) for name, shape in shapes.items()} | {"name": _name(path)} | sequence.shared


def _name(path: Path) -> str:
    """Recording, camera and number of a frame."""
    return "/".join([*path.resolve().parts[-4:-1], path.stem.rpartition("_")[2]])


def _predictions(rows: list[dict[str, Any]], mano_dir: Any) -> Predictions:
    if not rows:
        return Predictions.from_columns({"object_id": [], "side": [], "keypoints_3d": np.zeros((0, 21, 3))})
    columns = stacked(rows)
    pose, names = columns.pop("pose"), columns.pop("name").tolist()
    parts = []
    for side in ("right", "left"):
        of_side = columns["side"] == side
        if of_side.any():
            p, betas = pose[of_side], columns["betas"][of_side]
            options = {"components": True, "add_mean": True}
            parts.append((of_side, mano_columns(side, p[:, :3], p[:, 3:48], betas, p[:, 48:], mano_dir, **options)))
    columns |= pose_columns(len(rows), parts) | frame_columns(names)
    return Predictions.from_columns(columns | {"image_size": np.tile(_IMAGE, (len(rows), 1))})


# Result files ---------------------------------------------------------------------------------------


def _read_hpe(path: Path, object_id: str, object_pose: Any, side: str) -> Predictions:
    labels, values = read_table(path, 63, separator=",")
    rows = len(labels)
    return Predictions.from_columns(
        {
            "object_id": np.full(rows, object_id),
            "side": np.full(rows, side),
            "frame_id": np.array(labels, np.str_),
            "keypoints_3d": values.reshape(rows, 21, 3) / 1000,
            "object_pose": rigid(object_pose, rows),
        }
    )


def write(
    path: Path,
    predictions: Predictions,
    *,
    kind: Literal["hpe", "bop"] = "hpe",
    mano_dir: str | Path | None = None,
) -> Path:
    """Write a result file of the DexYCB benchmarks.

    Args:
        path: the file to write.
        predictions: hands in the camera frame. HPE: `frame_id` is the image's number in the split. BOP:
            `sequence_id` is the scene's number, `frame_index` the image's, `object_id` one of `OBJECTS`.
        kind: which result file: "hpe" for the hands' joints, "bop" for the objects' poses.
        mano_dir: the user's MANO, where rows have MANO poses.

    Raises:
        MissingManoError: MANO is needed and not there.
        ValueError: a row lacks what the file wants.
    """
    if predictions.object_pose is None:
        raise ValueError("object_pose: the hands are in the object frame; the benchmarks want the camera's.")
    lines = _hpe_lines(predictions, mano_dir) if kind == "hpe" else _bop_lines(predictions)
    return write_atomically(path, lambda stream: stream.write("".join(f"{x}\n" for x in lines).encode()))


def _hpe_lines(predictions: Predictions, mano_dir: Any) -> list[str]:
    millimetres = joints_of(predictions, mano_dir, "manopth").reshape(len(predictions), 63) * 1000
    lines = []
    for row, values in enumerate(millimetres):
        image = _whole(row, "frame_id", str(predictions.frame_id[row]), "the image's number in the split")
        if not np.isfinite(values).all():
            raise ValueError(f"row {row}: has no finite joints; HPE needs every image.")
        lines.append(",".join([str(image), *(f"{value:.4f}" for value in values)]))
    return lines


def _bop_lines(predictions: Predictions) -> list[str]:
    lines = ["scene_id,im_id,obj_id,score,R,t,time"]
    score = np.ones(len(predictions)) if predictions.confidence is None else predictions.confidence
    for row in range(len(predictions)):
        scene = _whole(row, "sequence_id", str(predictions.sequence_id[row]), "the scene's number")
        name, pose = (
            str(predictions.object_id[row]),
            predictions.column("object_pose")[row].astype(np.float64),
        )
        if name not in OBJECTS:
            raise ValueError(f"row {row}, column 'object_id': {name[:40]!r} is not an object of DexYCB.")
        if not (np.isfinite(pose).all() and np.isfinite(score[row])):
            raise ValueError(f"row {row}: object_pose or confidence is not finite.")
        rotation = " ".join(f"{value:.8f}" for value in pose[:3, :3].ravel())
        shift = " ".join(f"{value:.5f}" for value in pose[:3, 3] * 1000)
        image = int(predictions.frame_index[row])
        lines.append(f"{scene},{image},{OBJECTS.index(name) + 1},{score[row]:.6f},{rotation},{shift},-1")
    return lines


def _whole(row: int, column: str, text: str, what: str) -> int:
    number = whole(text)
    if number is None:
        raise ValueError(f"row {row}, column {column!r}: {text[:40]!r} is not a number; give {what}.")
    return number


def sniff(path: Path) -> bool:
    """``labels_*.npz`` with a ``pose_m``, a folder of them, or a first line of a number and 63 more."""
    if path.is_dir():
        patterns = ("labels_*.npz", "*/labels_*.npz", "*/*/labels_*.npz")
        return any(next(path.glob(pattern), None) is not None for pattern in patterns)
    if {"pose_m", "pose_y"} <= npz_names(path):
        return True
    return path.suffix.lower() in (".txt", ".csv") and bool(_HPE_LINE.match(head(path).partition("\n")[0]))


FORMAT = Format("dexycb", read, write, sniff, "DexYCB labels_*.npz; HPE results in and out, BOP results out")
