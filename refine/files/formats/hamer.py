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

from collections import ChainMap
from pathlib import Path
from typing import Any

import numpy as np

from ..predictions import Predictions
from .columns import Columns, joined
from .files import field, json_names, named, npz_names, numbers, per_hand, read_tree, rigid, table_of
from .format import Format, Numbers, Side
from .hands import axis_angle, mirrored

FOCAL_PER_PIXEL = 5000 / 256
"""Assumed focal length over the longer side of the image (FOCAL_LENGTH / IMAGE_SIZE of both configurations)."""
_NESTED = ("pred_mano_params", "wilor_preds", "mano_params")
_TRANSL = ("pred_cam_t_full", "cam_t", "cam_transl")
_RIGHT = ("is_right", "right")
_FRAME = ("imgname", "img_path", "img_name", "image_path", "frame_id")
_CROP = ("pred_cam", "box_center", "box_size", "img_size")


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
        side: side of all hands, where the file does not say.
        object_id: name of the object.
        object_pose: object to camera, 4×4, one or one for each row, in metres, see `files.rigid`.
        focal: true focal length, pixels; depth becomes metric up to the size of the hand.
        right_hand_space: whether left hands are given as the right hands of the flipped image. None: matrices
            are, the axis-angle vectors of WiLoR-mini are not, others must say.
    """
    records = _records(read_tree(path))
    if focal is not None and not 0 < focal < np.inf:
        raise ValueError(f"focal: got {focal}; give the focal length in pixels.")
    parts = [_hands(record, side, right_hand_space) for record in records]
    columns = joined(parts)
    rows = len(columns["side"])
    assumed, size = columns.pop("focal", np.zeros(0)), columns.pop("size", np.zeros((0, 2)))
    known = bool(rows) and bool(np.isfinite(assumed).all())
    if rows and not known and focal is not None:
        raise ValueError("focal: the assumed focal length is unknown; save img_size or scaled_focal_length.")
    if known and focal is not None:
        columns["transl"][:, 2] *= focal / assumed
        assumed = np.full(rows, float(focal))
    if known and np.isfinite(size).all() and np.abs(size).max() < 1e9:
        # The principal point is in the middle, as both programs assume.
        camera = np.tile(np.eye(3), (rows, 1, 1))
        camera[:, 0, 0] = camera[:, 1, 1] = assumed
        camera[:, :2, 2] = size / 2
        columns |= {"cam_K": camera, "image_size": size.astype(np.int64)}
    labels = {"object_id": object_id, "metric_depth": focal is not None}
    return Predictions.from_columns(columns | labels | {"object_pose": rigid(object_pose, rows)})


def _records(tree: Any) -> list[dict[str, Any]]:
    """The dictionaries of hands, what is nested in them laid flat."""
    records = []
    for item in table_of(tree, "named fields of a hand"):
        nested = [item[name] for name in _NESTED if isinstance(item.get(name), dict)]
        records.append(dict(ChainMap(*reversed(nested), item)) | {"already_left": "wilor_preds" in item})
    if isinstance(tree, list):  # detections without a hand are listed by WiLoR-mini
        records = [record for record in records if "global_orient" in record]
    return records


def _hands(record: dict[str, Any], side: str | None, right_hand_space: bool | None) -> Columns:
    orient, is_matrix = _rotations(record, "global_orient", 1)
    pose, _ = _rotations(record, "hand_pose", 15)
    rows = len(orient)
    if len(pose) != rows:
        raise ValueError(f"field 'hand_pose' has {len(pose)} hands, 'global_orient' {rows}.")
    if name := named(record, _RIGHT):
        right = _field(record, name, rows) > 0.5
    elif side is not None:
        right = np.full(rows, side == "right")
    else:
        raise ValueError("field 'is_right' is missing; save it, or say side='right' or 'left'.")
    flip = right_hand_space
    if flip is None and (is_matrix or record["already_left"]):
        flip = is_matrix
    if flip is None and not right.all():
        raise ValueError(
            "left hands as axis-angle vectors: say whether they are right hands of the flipped image "
            "(right_hand_space=True, as HaMeR's and WiLoR's networks give them) or left hands already (False)."
        )
    size = _field(record, "img_size", rows, 2, default=np.nan)
    focal = _field(record, "scaled_focal_length", rows, default=np.nan)
    focal = np.where(np.isfinite(focal), focal, FOCAL_PER_PIXEL * size.max(1))
    frame = named(record, _FRAME)
    labels = np.atleast_1d(np.asarray(record[frame] if frame else ""))
    if labels.dtype.kind not in "US" or labels.shape not in ((1,), (rows,)):
        raise ValueError(f"field {frame!r} is not text, one for each of {rows} hands.")
    left = (~right & bool(flip))[:, None]
    return {
        "side": np.where(right, "right", "left"),
        "global_orient": np.where(left, mirrored(orient[:, 0]), orient[:, 0]),
        "hand_pose": np.where(left[..., None], mirrored(pose), pose),
        "betas": _field(record, "betas", rows, 10),
        "transl": _transl(record, right, size, focal),
        "focal": focal,
        "size": size,
        "frame_id": np.broadcast_to(labels.astype(np.str_), rows),
    }


def _rotations(record: dict[str, Any], name: str, count: int) -> tuple[np.ndarray, bool]:
    """Axis-angle ``(B, count, 3)`` of a field of matrices or vectors, and whether it held matrices."""
    if name not in record:
        raise ValueError(f"field {name!r} is missing; save the network's pred_mano_params.")
    value = numbers(f"field {name!r}", record[name])
    is_matrix = value.shape[-2:] == (3, 3) and value.ndim >= (2 if count == 1 else 3)
    if is_matrix and value.size % (9 * count) == 0:
        return axis_angle(value.reshape(-1, count, 3, 3)), True
    if value.ndim and value.shape[-1] in (3, 3 * count) and value.size % (3 * count) == 0:
        return value.reshape(-1, count, 3), False
    raise ValueError(
        f"field {name!r} has shape {value.shape}; expected (B, {count}, 3, 3) matrices or (B, {count}, 3)."
    )


def _field(record: dict[str, Any], name: str, rows: int, *shape: int, default: float | None = None) -> np.ndarray:
    """A field as ``(rows, *shape)``; ``default`` where it is not there."""
    if name not in record and default is not None:
        return np.full((rows, *shape), default)
    return per_hand(f"field {name!r}", field(record, name), rows, *shape)


def _transl(record: dict[str, Any], right: np.ndarray, size: np.ndarray, focal: np.ndarray) -> np.ndarray:
    rows = len(right)
    if name := named(record, _TRANSL):
        return _field(record, name, rows, 3)
    if not {*_CROP} <= set(record):
        raise ValueError(
            "field 'pred_cam_t_full' is missing; save it (or pred_cam, box_center, box_size and img_size). "
            "pred_cam_t alone is the camera of the crop, not of the image."
        )
    if not right.all():
        raise ValueError(
            "field 'pred_cam_t_full' is missing; pred_cam of a left hand may be flipped or not, "
            "since demo.py flips it in place."
        )
    camera = _field(record, "pred_cam", rows, 3)
    box = _field(record, "box_size", rows) * camera[:, 0] + 1e-9
    middle = 2 * (_field(record, "box_center", rows, 2) - size / 2) / box[:, None] + camera[:, 1:]
    return np.c_[middle, 2 * focal / box]


def sniff(path: Path) -> bool:
    """HaMeR's or WiLoR's field names in an .npz or at the beginning of a .json."""
    names = npz_names(path)
    ours = {"global_orient", "hand_pose"} <= names and names & {*_TRANSL, *_RIGHT, "pred_cam"}
    return bool(ours) or json_names(path, (*_NESTED[:2], "pred_cam", "pred_cam_t_full"))


FORMAT = Format("hamer", read, None, sniff, "HaMeR and WiLoR outputs (.npz, .pkl, .json) with pred_cam_t_full")
