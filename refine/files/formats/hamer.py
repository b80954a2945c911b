"""HaMeR and WiLoR: rotation matrices in the space of a right hand, an assumed focal length.

Sources of truth: geopavlakos/hamer, ``demo.py`` (left hands are shown by flipping x of a right hand; focal length
5000 / 256 times the longer side of the image) and ``hamer/utils/renderer.py`` ``cam_crop_to_full``; MANO there is
smplx' ``MANOLayer``, which adds no mean pose: angles are absolute. rolpotamias/WiLoR has the same outputs.
warmshao/WiLoR-mini, ``wilor_hand_pose3d_estimation_pipeline.py``: axis-angle, left hands already mirrored.

Neither program writes its parameters, so this reads what their users save: an .npz, .pkl or .json with the output's
own names, either arrays over hands or a list with one dictionary for each hand.

============================================  =========================================================
``global_orient``, ``hand_pose``, ``betas``    at the top or below ``pred_mano_params`` / ``wilor_preds``
``pred_cam_t_full`` (or ``cam_t``)             metres; translation in the camera of the whole image
``pred_cam, box_center, box_size, img_size``   instead of it, right hands only
``is_right`` (or ``right``)                    1 or 0
``img_size``, ``scaled_focal_length``          optional: ``cam_K`` and ``image_size``
``imgname`` (``img_path``, ``img_name``)       optional: ``frame_id``
============================================  =========================================================

The hand stands where it fits the image under the assumed focal length, some 16 m away in a usual picture:
`metric_depth` is false unless ``focal`` gives the true one, which moves hands along their ray.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..predictions import Predictions
from .columns import Columns, joined, pose_columns
from .files import json_names, npz_names, numbers, read_tree, rigid
from .format import Format, Numbers, Side
from .hands import axis_angle, mirrored

FOCAL_PER_PIXEL = 5000 / 256
"""Assumed focal length over the longer side of the image (FOCAL_LENGTH / IMAGE_SIZE of both configurations)."""
_NESTED = ("pred_mano_params", "wilor_preds", "mano_params")
_TRANSL = ("pred_cam_t_full", "cam_t", "cam_transl")
_FRAME = ("imgname", "img_path", "img_name", "image_path", "frame_id")


def read(
    path: Path,
    *,
    side: Side | None = None,
    object_id: str = "",
    object_pose: Numbers = None,
    focal: float | None = None,
    right_hand_space: bool | None = None,
) -> Predictions:
    """Read the outputs of HaMeR or WiLoR.

    Args:
        path: .npz, .pkl or .json, see above.
        side: side of all hands, where the file does not say.
        object_id: name of the object.
        object_pose: object to camera, 4×4, one or one for each row, in metres, see `files.rigid`.
        focal: true focal length, pixels; depth becomes metric up to the size of the hand.
        right_hand_space: whether left hands are given as the right hands of the flipped image. None: matrices
            are, the axis-angle vectors of WiLoR-mini are not, others must say.

    Raises:
        ValueError: a field is missing or misshapen, or what a left hand means is unclear.
    """
    records = _records(path, read_tree(path))
    if focal is not None and not 0 < focal < np.inf:
        raise ValueError(f"focal: got {focal}; give the focal length in pixels.")
    parts = [_hands(path, record, side, right_hand_space) for record in records]
    columns = joined(parts) if parts else {"side": np.zeros(0, np.str_), **pose_columns(0, ())}
    rows = len(columns["side"])
    columns["metric_depth"] = np.full(rows, focal is not None)
    assumed, size = columns.pop("focal", np.zeros(0)), columns.pop("size", np.zeros((0, 2)))
    if rows and np.isfinite(assumed).all():
        if focal is not None:
            columns["transl"][:, 2] *= focal / assumed
            assumed = np.full(rows, float(focal))
        columns |= _camera(assumed, size)
    elif rows and focal is not None:
        raise ValueError(f"{path}: focal: the assumed focal length is unknown; save img_size or scaled_focal_length.")
    return Predictions.from_columns(
        columns | {"object_id": np.full(rows, object_id), "object_pose": rigid(object_pose, rows)}
    )


def _camera(focal: np.ndarray, size: np.ndarray) -> Columns:
    """`cam_K` with the principal point in the middle, as both programs assume, and `image_size`."""
    if not np.isfinite(size).all() or np.abs(size).max(initial=0) > 1e9:
        return {}
    camera = np.tile(np.eye(3), (len(focal), 1, 1))
    camera[:, 0, 0] = camera[:, 1, 1] = focal
    camera[:, :2, 2] = size / 2
    return {"cam_K": camera, "image_size": size.astype(np.int64)}


def _records(path: Path, tree: Any) -> list[dict[str, Any]]:
    """The dictionaries of hands, what is nested in them laid flat."""
    items = tree if isinstance(tree, list) else [tree]
    if any(not isinstance(item, dict) for item in items):
        raise ValueError(f"{path}: expected named fields, or a list with one dictionary for each hand.")
    records = []
    for item in items:
        flat = dict(item)
        for name in _NESTED:
            if isinstance(item.get(name), dict):
                flat |= item[name]
        records.append(flat | {"already_left": "wilor_preds" in item})
    if len(items) > 1 or isinstance(tree, list):  # detections without a hand are listed by WiLoR-mini
        records = [record for record in records if "global_orient" in record]
    return records


def _hands(path: Path, record: dict[str, Any], side: str | None, right_hand_space: bool | None) -> Columns:
    orient, is_matrix = _rotations(path, record, "global_orient", 1)
    pose, _ = _rotations(path, record, "hand_pose", 15)
    rows = len(orient)
    betas = _rows(path, record, "betas", rows, 10)
    if len(pose) != rows:
        raise ValueError(f"{path}: field 'hand_pose' has {len(pose)} hands, 'global_orient' {rows}.")
    right = _is_right(path, record, rows, side)
    flip = right_hand_space
    if flip is None:
        flip = True if is_matrix else False if record["already_left"] else None
    if flip is None and not right.all():
        raise ValueError(
            f"{path}: left hands as axis-angle vectors: say whether they are right hands of the flipped image "
            "(right_hand_space=True, as HaMeR's and WiLoR's networks give them) or left hands already (False)."
        )
    size = _rows(path, record, "img_size", rows, 2, default=np.nan)
    focal = _rows(path, record, "scaled_focal_length", rows, default=np.nan)
    focal = np.where(np.isfinite(focal), focal, FOCAL_PER_PIXEL * size.max(1))
    left = (~right & bool(flip))[:, None]
    return {
        "side": np.where(right, "right", "left"),
        "global_orient": np.where(left, mirrored(orient[:, 0]), orient[:, 0]),
        "hand_pose": np.where(left[..., None], mirrored(pose), pose),
        "betas": betas,
        "transl": _transl(path, record, rows, right, size, focal),
        "focal": focal,
        "size": size,
        "frame_id": _frame_ids(path, record, rows),
    }


def _rotations(path: Path, record: dict[str, Any], name: str, count: int) -> tuple[np.ndarray, bool]:
    """Axis-angle ``(B, count, 3)`` of a field of matrices or vectors, and whether it held matrices."""
    if name not in record:
        raise ValueError(f"{path}: field {name!r} is missing; save the network's pred_mano_params.")
    value = numbers(path, f"field {name!r}", record[name])
    if value.shape[-2:] == (3, 3) and value.size % (9 * count) == 0 and value.ndim >= 2 and (
        count == 1 or value.ndim >= 3
    ):  # fmt: skip
        return axis_angle(value.reshape(-1, count, 3, 3)), True
    if value.ndim and value.shape[-1] in (3, 3 * count) and value.size % (3 * count) == 0:
        return value.reshape(-1, count, 3), False
    raise ValueError(
        f"{path}: field {name!r} has shape {value.shape}; expected (B, {count}, 3, 3) matrices or (B, {count}, 3)."
    )


def _rows(
    path: Path, record: dict[str, Any], name: str, rows: int, *shape: int, default: float | None = None
) -> np.ndarray:
    """A field as ``(rows, *shape)``; one value serves all rows, and ``default`` where it is not there."""
    if name not in record and default is not None:
        return np.full((rows, *shape), default)
    if name not in record:
        raise ValueError(f"{path}: field {name!r} is missing.")
    value = numbers(path, f"field {name!r}", record[name])
    width = int(np.prod(shape))
    if value.size not in (width, rows * width):
        raise ValueError(f"{path}: field {name!r} has shape {value.shape}; expected {(rows, *shape)}.")
    return np.broadcast_to(value.reshape(-1, *shape), (rows, *shape)).copy()


def _is_right(path: Path, record: dict[str, Any], rows: int, side: str | None) -> np.ndarray:
    for name in ("is_right", "right"):
        if name in record:
            return _rows(path, record, name, rows) > 0.5
    if side not in ("right", "left"):
        raise ValueError(f"{path}: field 'is_right' is missing; save it, or say side='right' or 'left'.")
    return np.full(rows, side == "right")


def _transl(
    path: Path, record: dict[str, Any], rows: int, right: np.ndarray, size: np.ndarray, focal: np.ndarray
) -> np.ndarray:
    for name in _TRANSL:
        if name in record:
            return _rows(path, record, name, rows, 3)
    if not {"pred_cam", "box_center", "box_size", "img_size"} <= set(record):
        raise ValueError(
            f"{path}: field 'pred_cam_t_full' is missing; save it (or pred_cam, box_center, box_size and img_size). "
            "pred_cam_t alone is the camera of the crop, not of the image."
        )
    if not right.all():
        raise ValueError(
            f"{path}: field 'pred_cam_t_full' is missing; pred_cam of a left hand may be flipped or not, "
            "since demo.py flips it in place."
        )
    camera = _rows(path, record, "pred_cam", rows, 3)
    box = _rows(path, record, "box_size", rows) * camera[:, 0] + 1e-9
    middle = 2 * (_rows(path, record, "box_center", rows, 2) - size / 2) / box[:, None] + camera[:, 1:]
    return np.concatenate([middle, (2 * focal / box)[:, None]], 1)


def _frame_ids(path: Path, record: dict[str, Any], rows: int) -> np.ndarray:
    for name in _FRAME:
        if name in record:
            names = np.atleast_1d(np.asarray(record[name]))
            if names.dtype.kind in "US" and names.size in (1, rows) and names.ndim == 1:
                return np.broadcast_to(names.astype(np.str_), rows)
            raise ValueError(f"{path}: field {name!r} is not text, one for each of {rows} hands.")
    return np.full(rows, "")


def sniff(path: Path) -> bool:
    """HaMeR's or WiLoR's field names in an .npz or at the beginning of a .json."""
    names = npz_names(path)
    ours = {"global_orient", "hand_pose"} <= names and names & {*_TRANSL, "pred_cam", "is_right", "right"}
    return bool(ours) or json_names(path, (*_NESTED[:2], "pred_cam", "pred_cam_t_full"))


FORMAT = Format(
    "hamer",
    read,
    None,
    sniff,
    "HaMeR and WiLoR outputs (.npz, .pkl, .json) with matrices and pred_cam_t_full",
)
