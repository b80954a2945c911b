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
- ``pose.npz`` of a recording, with ``meta.yml`` beside it: ``pose_m`` (F, H, 51) and ``pose_y`` (F, O, 7), quaternions
  x, y, z, w and translation, metres, in the world that the cameras' extrinsics map to, which stands for the camera
  (``dex_ycb_toolkit/sequence_loader.py``). Frames without a hand are passed over; an object that is not seen has a pose
  of zeros and comes out as NaN.
- an HPE result file (.txt or .csv): joints as `keypoints_3d`.

Writes HPE (``kind="hpe"``) or BOP (``kind="bop"``) results.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.spatial.transform import Rotation

from hand_models.atomic import write_atomically

from ..object_files import inside
from ..predictions import Predictions
from .columns import UNKNOWN_POSE, by_side, each_file, frame_columns, pose_columns, stacked, whole
from .files import (
    field,
    given_numbers,
    head,
    naming,
    npz_names,
    per_hand,
    read_table,
    read_tree,
    read_yaml,
)  # fmt: skip
from .format import Format, Numbers, Side
from .hands import joints_of, mano_columns, motions
from .object_poses import rigid

OBJECTS = (
    "002_master_chef_can", "003_cracker_box", "004_sugar_box", "005_tomato_soup_can", "006_mustard_bottle",
    "007_tuna_fish_can", "008_pudding_box", "009_gelatin_box", "010_potted_meat_can", "011_banana",
    "019_pitcher_base", "021_bleach_cleanser", "024_bowl", "025_mug", "035_power_drill", "036_wood_block",
    "037_scissors", "040_large_marker", "051_large_clamp", "052_extra_large_clamp", "061_foam_brick",
)  # fmt: skip
"""DexYCB's objects; the first is number 1."""
_IMAGE = (640, 480)
_EMPTY = {"pose": (51,), "keypoints_3d": (21, 3), "keypoints_2d": (21, 2), "object_pose": (4, 4)}
"""What a row that cannot be read is NaN in, and the shape of each."""
_HPE_LINE = re.compile(r"^\s*\d+\s*(,\s*[-+.\deEnainf]+\s*){63}$")


def read(
    path: Path,
    *,
    mano_dir: str | Path | None = None,
    object_id: str | None = None,
    side: Side | None = None,
    betas: Numbers = None,
) -> Predictions:
    """Read labels or an HPE result file.

    Args:
        mano_dir: the user's MANO, for principal components.
        object_id: instead of ``meta.yml``'s grasped object; with it the labels must hold one object.
        side: instead of ``meta.yml``'s; "right" for an HPE file when None.
        betas: ten coefficients of shape or a file of them, instead of the calibration's.
    """
    if path.suffix.lower() in (".txt", ".csv"):
        labels, values = read_table(path, 63, separator=",")
        return Predictions.from_columns(
            {
                "object_id": object_id or "",
                "side": side or "right",
                "frame_id": np.array(labels, np.str_),
                "keypoints_3d": values.reshape(-1, 21, 3) / 1000,
                "object_pose": UNKNOWN_POSE,
            }
        )
    if path.name == "pose.npz":
        return _read_recording(path, mano_dir, object_id, side, betas)
    files = [path]
    if path.is_dir():
        files = sorted(path.glob("labels_*.npz")) or sorted(path.glob("**/labels_*.npz"))
        if not files:
            raise ValueError("holds no labels_*.npz.")
    # Recordings first: what is wrong with one is no single frame's fault.
    folders = {file.parent: file.resolve().parent for file in files}
    recordings = {folder: _recording(camera, object_id, side, betas) for folder, camera in folders.items()}
    hands = each_file(
        files,
        lambda file: _label(file, *recordings[file.parent]),
        lambda file: [{"name": _name(file), **recordings[file.parent][1]}],
    )
    rows = [hand for of_file in hands for hand in of_file]
    if not rows:
        return Predictions.from_columns({"object_id": [], "side": [], "keypoints_3d": np.zeros((0, 21, 3))})
    columns = stacked(rows, _EMPTY)
    p, names = columns.pop("pose"), columns.pop("name").tolist()
    poses = (p[:, :3], p[:, 3:48], columns["betas"], p[:, 48:])
    parts = [
        (of, mano_columns(hand, *(value[of] for value in poses), mano_dir, components=True, add_mean=True))
        for hand, of in by_side(columns["side"])
    ]
    return Predictions.from_columns(
        columns | pose_columns(len(rows), parts) | frame_columns(names) | {"image_size": _IMAGE}
    )


def _read_recording(path: Path, mano_dir: Any, object_id: str | None, side: str | None, betas: Any) -> Predictions:
    """All frames of a recording, in the world."""
    folder = path.resolve().parent
    grasped, shared = _recording(folder / "world", object_id, side, betas)
    values = read_tree(path, only=("pose_m", "pose_y"))
    hands, objects = field(values, "pose_m", None, None, 51)[:, 0], field(values, "pose_y", None, None, 7)
    if grasped >= objects.shape[1] or len(objects) != len(hands):
        raise ValueError(f"field 'pose_y' has shape {objects.shape}; expected ({len(hands)}, > {grasped}, 7).")
    turn, shift = objects[:, grasped, :4], objects[:, grasped, 4:]
    seen = (turn[:, :3] != 0).any(1) | (shift != 0).any(1)
    poses = np.full((len(hands), 4, 4), np.nan)
    proper = seen & np.isfinite(turn).all(1) & (np.abs(turn).max(1) > 1e-6)
    poses[proper] = motions(Rotation.from_quat(turn[proper]).as_matrix(), shift[proper])
    kept = np.flatnonzero((hands != 0).any(1))
    if not len(kept):
        return Predictions.from_columns({"object_id": [], "side": [], "keypoints_3d": np.zeros((0, 21, 3))})
    p, shape = hands[kept], np.tile(shared["betas"], (len(kept), 1))
    columns = mano_columns(
        shared["side"], p[:, :3], p[:, 3:48], shape, p[:, 48:], mano_dir, components=True, add_mean=True
    )
    name = "/".join(path.resolve().parts[-3:-1])
    labels = frame_columns([f"{name}/{frame}" for frame in kept.tolist()])
    return Predictions.from_columns(columns | labels | {"object_id": shared["object_id"], "object_pose": poses[kept]})


def _recording(camera: Path, object_id: str | None, side: str | None, betas: Any) -> tuple[int, dict[str, Any]]:
    """Row of ``pose_y`` that is the grasped object, and the columns that all frames of the folder ``camera`` share.

    Options first, then ``meta.yml`` of the recording above.
    """
    folder = camera.parent
    file = folder / "meta.yml"
    meta = read_yaml(file) if file.is_file() else {}
    if not meta and (object_id is None or side is None):
        raise ValueError(f"there is no {file}, which names object and hand; give object_id and side (and betas).")
    grasped, shape, people = 0, np.zeros(10), meta.get("mano_calib")
    with naming(file):
        if object_id is None:
            grasped = meta.get("ycb_grasp_ind")
            try:
                number = meta["ycb_ids"][grasped] if type(grasped) is int and grasped >= 0 else None
                object_id = dict(enumerate(OBJECTS, 1))[number]
            except (KeyError, IndexError, TypeError):
                raise ValueError("ycb_ids and ycb_grasp_ind do not name a DexYCB object; give object_id.") from None
        if side is None:
            sides = meta.get("mano_sides")
            side = sides[0] if isinstance(sides, list) and sides else None
        if side not in ("right", "left"):
            raise ValueError(f"mano_sides is {str(side)[:20]!r}; expected right or left.")
        if meta and betas is None and not isinstance(people, list):
            raise ValueError("key 'mano_calib' is missing or no list.")
    if betas is not None:
        shape = per_hand("betas", given_numbers(betas), 1, 10)[0]
    elif people:
        name, where = f"mano_{people[0]}/mano.yml", f"{file}: mano_calib"
        shape = _calibration(folder, name, where, lambda values: _floats("betas", values.get("betas"), 10), shape)
    lens = f"intrinsics/{camera.name}_{_IMAGE[0]}x{_IMAGE[1]}.yml"
    intrinsics = _calibration(folder, lens, str(camera), _intrinsics, np.full((3, 3), np.nan))
    return grasped, {"object_id": object_id, "side": side, "betas": shape, "cam_K": intrinsics}


def _calibration(folder: Path, name: str, where: str, parse: Any, otherwise: np.ndarray) -> np.ndarray:
    """What ``parse`` finds in a file of ``calibration/`` of the dataset that the recording ``folder`` lies in."""
    root = [folder, *folder.parents][:3][-1]
    path = inside(root / "calibration", name, where)
    if not path.is_file():
        return otherwise
    with naming(path):
        return parse(read_yaml(path))


def _intrinsics(values: dict[str, Any]) -> np.ndarray:
    color = values.get("color")
    names = ("fx", "fy", "ppx", "ppy")
    cells = [color.get(name) for name in names] if isinstance(color, dict) else None
    fx, fy, x, y = _floats(f"{', '.join(names)} of color", cells, 4)
    return np.array([[fx, 0, x], [0, fy, y], [0, 0, 1]])


def _floats(what: str, cells: Any, count: int) -> np.ndarray:
    """Numbers of a YAML file, which takes such as 1e-05 for text."""
    try:
        return np.array([float(cell) for cell in cells]).reshape(count)
    except (TypeError, ValueError):
        raise ValueError(f"{what}: expected {count} numbers.") from None


def _label(path: Path, grasped: int, shared: dict[str, Any]) -> list[dict[str, Any]]:
    """Pose, joints and object of the hands of one frame: one, or none."""
    values = read_tree(path, only=("pose_m", "pose_y", "joint_3d", "joint_2d"))
    hands = field(values, "pose_m", None, 51)
    objects = field(values, "pose_y", None, 3, 4)
    if grasped >= len(objects):
        raise ValueError(f"field 'pose_y' has {len(objects)} objects; meta.yml asks for {grasped}.")
    space = field(values, "joint_3d", len(hands), 21, 3)
    image = field(values, "joint_2d", len(hands), 21, 2)
    frame = {"object_pose": rigid(objects[grasped])[0], "name": _name(path), **shared}
    return [
        {"pose": hand, "keypoints_3d": space[k], "keypoints_2d": image[k], **frame}
        for k, hand in enumerate(hands)
        if np.any(hand)  # all zero, and joints of -1, where there is no hand
    ]


def _name(path: Path) -> str:
    """Recording, camera and number of a frame."""
    return "/".join([*path.resolve().parts[-4:-1], path.stem.rpartition("_")[2]])


# Result files ---------------------------------------------------------------------------------------


def write(
    path: Path, predictions: Predictions, *, kind: Literal["hpe", "bop"] = "hpe", mano_dir: str | Path | None = None
) -> Path:
    """Write a result file of the DexYCB benchmarks.

    Args:
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
    lines = []
    for row, joints in enumerate(joints_of(predictions, mano_dir, "manopth")):
        values = joints.ravel() * 1000
        image = _whole(row, "frame_id", str(predictions.frame_id[row]), "the image's number in the split")
        if not np.isfinite(values).all():
            raise ValueError(f"row {row}: has no finite joints; HPE needs every image.")
        lines.append(",".join([str(image), *(f"{value:.4f}" for value in values)]))
    return lines


def _bop_lines(predictions: Predictions) -> list[str]:
    lines = ["scene_id,im_id,obj_id,score,R,t,time"]
    score = np.ones(len(predictions)) if predictions.confidence is None else predictions.confidence
    poses = predictions.column("object_pose").astype(np.float64)
    for row, name in enumerate(predictions.object_id.tolist()):
        scene = _whole(row, "sequence_id", str(predictions.sequence_id[row]), "the scene's number")
        if name not in OBJECTS:
            raise ValueError(f"row {row}, column 'object_id': {name[:40]!r} is not an object of DexYCB.")
        if not (np.isfinite(poses[row]).all() and np.isfinite(score[row])):
            raise ValueError(f"row {row}: object_pose or confidence is not finite.")
        rotation = " ".join(f"{value:.8f}" for value in poses[row, :3, :3].ravel())
        shift = " ".join(f"{value:.5f}" for value in poses[row, :3, 3] * 1000)
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
    if {"pose_m", "pose_y"} <= npz_names(path):  # labels, and recordings
        return True
    return path.suffix.lower() in (".txt", ".csv") and bool(_HPE_LINE.match(head(path).partition("\n")[0]))


FORMAT = Format(
    "dexycb", read, write, sniff, "DexYCB labels_*.npz and pose.npz; HPE results in and out, BOP results out"
)
