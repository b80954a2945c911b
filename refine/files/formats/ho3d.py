"""HO-3D: OpenGL camera, absolute MANO angles; the challenge's ``pred.json`` in and out.

Sources of truth: shreyashampali/ho3d, ``README.md`` (submissions are in OpenGL's camera, hand along −z), ``pred.py``
(``[xyz, verts]``, metres, frames in the order of ``evaluation.txt``), ``vis_HO3D.py`` (joint order; MANO with
``flat_hand_mean=True``, ``m.trans`` added after posing; ``objCorners3DRest @ R.T + objTrans``), ``setup_mano.py``
(fingertip vertices).

Reads

- ``pred.json``: joints as `keypoints_3d`; with ``mano_dir`` also poses, fitted to the vertices;
- annotations ``<split>/<sequence>/meta/<frame>.pkl``, one of them or any folder above: `object_pose` from ``objRot``
  and ``objTrans``, the wrist's place from ``handJoints3D``, so that MANO is not needed. Frames that nobody
  annotated are passed over; those of the evaluation split lack the hand's pose and come out as rows of NaN.

Writes ``pred.json`` for CodaLab (zip it yourself): needs MANO for the vertices.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import IO, Any

import numpy as np

from hand_models import load_mano, skeleton
from hand_models.atomic import write_atomically
from hand_models.fit import fit_vertices

from ..predictions import Predictions
from .columns import POSE, UNKNOWN_POSE, each_file, frame_columns, pose_columns, stacked
from .files import MAX_FILE_BYTES, field, head, numbers, read_tree, text_lines
from .format import Format
from .hands import FLIP_YZ, hand_sized, joints_of, matrices, motions, moved, root_joints, vertices_of

MAX_PRED_BYTES = 4 * MAX_FILE_BYTES
"""``pred.json`` of version 3 has 20,137 frames and about 1 GB."""
_FLIP = np.diag(FLIP_YZ)
_IMAGE = (640, 480)


def read(
    path: Path, *, object_id: str = "", frames: str | Path | None = None, mano_dir: str | Path | None = None
) -> Predictions:
    """Read ``pred.json``, an annotation, or a folder of annotations.

    Args:
        object_id: name of the object of all frames of a ``pred.json``; annotations name their own.
        frames: ``evaluation.txt``, the names of the frames of a ``pred.json``.
        mano_dir: folder with the user's MANO_RIGHT.pkl; here to fit poses to the vertices of a ``pred.json``.
    """
    if path.suffix.lower() == ".json":
        return _read_pred(path, object_id, frames, mano_dir)
    if frames is not None:
        raise ValueError("frames: is for pred.json; annotations have their own.")
    files = [path]
    if path.is_dir():
        files = sorted(path.glob("*.pkl") if path.name == "meta" else path.glob("**/meta/*.pkl"))
        if not files:
            raise ValueError("holds no annotations meta/*.pkl.")
    found = each_file(files, lambda file: _annotation(file, object_id), lambda file: _labels(file, ""))
    rows = [row for row in found if row is not None]
    if not rows:
        raise ValueError(f"none of its {len(files)} annotations has an object.")
    columns = stacked(rows, POSE | {"wrist": (3,), "object_pose": (4, 4), "cam_K": (3, 3)})
    columns |= frame_columns(columns.pop("name").tolist())
    roots = columns.pop("wrist") - columns["transl"]  # J0 of the shape, since the wrist lies at J0 + transl
    unknown = ~np.isfinite(roots).all(1) & np.isfinite(columns["transl"]).all(1)
    if unknown.any():
        roots[unknown] = root_joints(columns["betas"][unknown], columns["side"][unknown])
    return Predictions.from_columns(moved(columns, FLIP_YZ, roots=roots) | {"image_size": _IMAGE})


# pred.json ------------------------------------------------------------------------------------------


def _read_pred(path: Path, object_id: str, frames: Any, mano_dir: Any) -> Predictions:
    joints, vertices = _pred_lists(path, with_vertices=mano_dir is not None)
    joints = numbers("the list of joints", joints or np.zeros((0, 21, 3)), None, 21, 3)
    rows = len(joints)
    columns: dict[str, Any] = {
        "object_id": object_id,
        "side": "right",
        "keypoints_3d": skeleton.convert(joints, source="ho3d", target="openpose") * _FLIP,
        "object_pose": UNKNOWN_POSE,
        "image_size": _IMAGE,
    }
    if frames is not None:
        names = [name for _, name in _named_frames(Path(frames))]
        if len(names) != rows:
            raise ValueError(f"{path}: has {rows} frames, {frames} names {len(names)}.")
        columns |= frame_columns(names)
    if vertices is not None:  # poses whose MANO surface comes closest; NaN where that is no hand
        surface = numbers("the list of vertices", vertices or np.zeros((0, 778, 3)), rows, 778, 3) * _FLIP
        shown, model = hand_sized(surface), load_mano(mano_dir, tips="ho3d")
        parts = [(shown, fit_vertices(surface[shown], model).as_arrays())] if shown.any() else []
        columns |= pose_columns(rows, parts)
    return Predictions.from_columns(columns)


def _pred_lists(path: Path, *, with_vertices: bool) -> tuple[list[Any], list[Any] | None]:
    """The list of joints, and of vertices when wanted: they are most of the file and are else not parsed."""
    size = path.stat().st_size
    if size > MAX_PRED_BYTES:
        raise ValueError(f"{path}: {size >> 20} MB; a pred.json has less than {MAX_PRED_BYTES >> 20} MB.")
    try:
        text = path.read_text(encoding="utf-8").strip()
        decoder = json.JSONDecoder()
        start = text.index("[", 1)
        joints, end = decoder.raw_decode(text, start)
        rest = text[end : end + 64].lstrip()
        if text[:1] != "[" or text[1:start].strip() or rest[:1] != "," or not re.search(r"\]\s*\]$", text[-64:]):
            raise ValueError("other brackets")
        return joints, decoder.raw_decode(text, text.index("[", end))[0] if with_vertices else None
    except (ValueError, RecursionError) as error:
        raise ValueError(
            "expected [[joints of each frame], [vertices of each frame]], the challenge's pred.json "
            f"({str(error)[:80]})."
        ) from None


def _named_frames(frames: Path) -> list[tuple[int, str]]:
    """Line and name ``sequence/frame`` of each frame of ``evaluation.txt``."""
    if not frames.is_file():
        raise FileNotFoundError(f"frames {frames}: there is no such file.")
    return [(number, line.strip()) for number, line in text_lines(frames)]


def write(
    path: Path, predictions: Predictions, *, mano_dir: str | Path | None = None, frames: str | Path | None = None
) -> Path:  # fmt: skip
    """Write ``pred.json``: joints and MANO vertices in OpenGL's camera, in HO-3D's order.

    Args:
        predictions: right hands in the camera frame, one for each frame.
        mano_dir: the user's MANO, for the vertices.
        frames: ``evaluation.txt``; rows are put in its order, by `frame_id`. None keeps theirs.

    Raises:
        MissingManoError: MANO is not there.
        ValueError: a left hand, a hand of the open model, a row without a finite pose, or frames that are missing.
    """
    if frames is not None:
        place = {name: row for row, name in enumerate(predictions.frame_id.tolist())}
        order = _named_frames(Path(frames))
        for number, name in order:
            if name not in place:
                raise ValueError(f"frames {frames}: line {number}: no row has frame_id {name[:60]!r}.")
        predictions = predictions.take([place[name] for _, name in order])
    for wrong, what in (
        (predictions.side != "right", "is a left hand; the challenge has right hands only"),
        (predictions.hand_model != "mano", "is not MANO's, whose vertices the challenge wants"),
        (np.full(len(predictions), predictions.object_pose is None), "is in the object frame; give object_pose"),
    ):
        if wrong.any():
            raise ValueError(f"row {int(np.argmax(wrong))}: {what}.")
    joints = joints_of(predictions, mano_dir, "ho3d")
    vertices = vertices_of(predictions, mano_dir)
    bad = ~np.isfinite(joints).all((1, 2)) | ~np.isfinite(vertices).all((1, 2))
    if bad.any():
        raise ValueError(f"row {int(np.argmax(bad))}: has no finite MANO pose; every frame needs one.")
    joints = skeleton.convert(joints, source="openpose", target="ho3d") * _FLIP

    def dump(stream: IO[bytes]) -> None:
        for opening, frames in ((b"[[", joints), (b"], [", vertices * _FLIP)):
            stream.write(opening)
            for row, frame in enumerate(frames):
                stream.write((", " if row else "").encode() + json.dumps(np.round(frame, 7).tolist()).encode())
        stream.write(b"]]\n")

    return write_atomically(path, dump)


# Annotations ----------------------------------------------------------------------------------------


def _annotation(path: Path, object_id: str) -> dict[str, Any] | None:
    """What is known of one frame, still in OpenGL's camera but for the object; None where nothing is annotated."""
    values = read_tree(path)
    if not isinstance(values, dict) or "objRot" not in values:
        raise ValueError("not an HO-3D annotation: field 'objRot' is missing.")
    there = {name for name, value in values.items() if value is not None}
    if not {"objRot", "objTrans"} <= there:
        return None
    turn, shift = (field(values, name).reshape(-1)[:3] for name in ("objRot", "objTrans"))
    known = _labels(path, str(values.get("objName") or object_id)[:200])
    known["object_pose"] = motions(FLIP_YZ @ matrices(turn), _FLIP * shift)
    if "handPose" in there:
        full = field(values, "handPose", 48)
        known |= {"global_orient": full[:3], "hand_pose": full[3:].reshape(15, 3)}
        known |= {"betas": field(values, "handBeta", 10), "transl": field(values, "handTrans", 3)}
    if "handJoints3D" in there:
        wrist = field(values, "handJoints3D").reshape(-1)[:3]
        known |= {"wrist": wrist} if len(wrist) == 3 else {}
    if "camMat" in there:
        known["cam_K"] = field(values, "camMat", 3, 3)
    return known


def _labels(path: Path, object_id: str) -> dict[str, Any]:
    """What a frame is called, and its object."""
    return {"name": f"{path.parent.parent.name}/{path.stem}", "object_id": object_id, "side": "right"}


def sniff(path: Path) -> bool:
    """A ``pred.json`` (three brackets and a number), or annotations in folders called ``meta``."""
    if path.is_dir():
        patterns = ("*.pkl",) if path.name == "meta" else ("meta/*.pkl", "*/meta/*.pkl", "*/*/meta/*.pkl")
        return any(next(path.glob(pattern), None) is not None for pattern in patterns)
    if path.suffix.lower() == ".pkl":
        return path.parent.name == "meta"
    return path.suffix.lower() == ".json" and path.stem.startswith("pred") and head(path).lstrip()[:1] == "["


FORMAT = Format("ho3d", read, write, sniff, "HO-3D pred.json (in and out) and annotations meta/*.pkl")
