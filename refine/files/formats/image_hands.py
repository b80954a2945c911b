"""Columns of `grasp/1` from a record of HaMeR or WiLoR: pose, assumed camera, keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contact.input_error import CAMERA

from .cameras import intrinsics
from .columns import Columns, UnsaidError
from .files import field, filled, named, numbers, per_hand
from .hand_meshes import fitted, in_order, mano_for_meshes, read_mesh
from .hands import axis_angle, mirrored
from .image_records import FRAME, NUMBER, RIGHT, TRANSL, VERTICES, ImageRecord, image_name

FOCAL_PER_PIXEL = 5000 / 256
"""Assumed focal length over the longer side of the image (FOCAL_LENGTH / IMAGE_SIZE of both configurations)."""
_CROP = ("pred_cam", "box_center", "box_size", "img_size")
_SAME_PLACE = 1.0  # pixels; an estimator's own projection, computed again in other precision, is nearer than that
_CROP_EXTENT = 2.0  # keypoints in units of the crop lie within it or little beside; in pixels no hand is so small
_FLIP = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Reading:
    """What the caller says of all hands of a file."""

    side: str | None
    """where the file does not say"""
    flipped: bool | None
    """whether left hands are given as right hands of the flipped image; None: as matrices are"""
    vectors_are_left: bool
    """whether axis-angle vectors of left hands are known to be those of left hands"""
    image_size: Sequence[int] | None
    mano_dir: str | Path | None


def hands_of(record: ImageRecord, told: Reading) -> Columns:
    """Columns of the hands of a record; ``focal`` and ``centre`` are those that the estimator assumed, NaN if unknown.

    Raises:
        ValueError: a field is missing or of another form; names it.
        MissingManoError: it holds vertices alone, and MANO is not there.
    """
    fields = record.fields
    by_vertices = "global_orient" not in fields and "hand_pose" not in fields and named(fields, VERTICES)
    if by_vertices:
        surface = numbers(f"field {by_vertices!r}", filled(fields[by_vertices]))
        surface = surface.reshape(-1, 778, 3) if surface.size % (778 * 3) == 0 else surface
        surface = numbers(f"field {by_vertices!r}", surface, None, 778, 3)
        rows, is_matrix = len(surface), True
    else:
        orient, is_matrix = _rotations(fields, "global_orient", 1)
        pose, _ = _rotations(fields, "hand_pose", 15)
        rows = len(orient)
        if len(pose) != rows:
            raise ValueError(f"field 'hand_pose' has {len(pose)} hands, 'global_orient' {rows}.")
    right = _right(fields, rows, told.side)
    flip = told.flipped
    if flip is None and (is_matrix or fields.get("already_left") or told.vectors_are_left):
        flip = is_matrix and not fields.get("already_left")
    if flip is None and not right.all():
        raise UnsaidError(
            "left hands as axis-angle vectors: say whether they are right hands of the flipped image "
            "(right_hand_space=True, as HaMeR's and WiLoR's networks give them) or left hands already (False)."
        )
    size = _image_size(fields, rows, told.image_size)
    focal = _field(fields, "scaled_focal_length", rows, default=np.nan)
    focal = np.where(np.isfinite(focal), focal, FOCAL_PER_PIXEL * size.max(1))
    transl = _transl(fields, right, size, focal)
    if by_vertices:
        sides = np.where(right, "right", "left")
        columns = fitted(surface, sides, mano_for_meshes(told.mano_dir), ~right)
        columns["transl"] = columns["transl"] + transl
    else:
        left = (~right & bool(flip))[:, None]
        columns = {
            "global_orient": np.where(left, mirrored(orient[:, 0]), orient[:, 0]),
            "hand_pose": np.where(left[..., None], mirrored(pose), pose),
            "betas": _field(fields, "betas", rows, 10),
            "transl": transl,
        }
    keypoints, centre = _keypoints(fields, right, transl, focal, size / 2)
    with np.errstate(all="ignore"):
        # In pixels of this picture; where the focal length is replaced, depth goes with it.
        sigma = CAMERA.picture / np.sqrt(CAMERA.share) * focal / transl[:, 2]
    frame = _labels(fields, FRAME, rows, record.name or "")
    return columns | {
        "side": np.where(right, "right", "left"),
        "focal": focal,
        "centre": centre,
        "size": np.where(np.isfinite(size), size, 2 * centre),
        "frame_id": frame,
        "object_id": _labels(fields, ("object_id",), rows, ""),
        "frame_index": _frame_index(fields, record, rows),
        "keypoints_2d": keypoints,
        "keypoint_sigma": sigma,
        "camera": _camera(fields, rows),
    }


def no_hand(record: ImageRecord, told: Reading) -> Columns:
    """The columns of `hands_of` of a record that cannot be read: one row without numbers."""
    nothing = {"global_orient": (3,), "hand_pose": (15, 3), "betas": (10,), "transl": (3,), "focal": (), "size": (2,)}
    nothing |= {"centre": (2,), "keypoints_2d": (21, 2), "keypoint_sigma": (), "camera": (3, 3)}
    number = np.nan if record.number is None else float(record.number)
    labels = {"side": told.side or "right", "frame_id": record.name or "", "object_id": "", "frame_index": number}
    return {name: np.full((1, *shape), np.nan) for name, shape in nothing.items()} | {
        name: np.array([value]) for name, value in labels.items()
    }


def hands_of_meshes(paths: Sequence[Path], told: Reading) -> list[Columns]:
    """Columns of the hands of .obj files, one each."""
    mano = mano_for_meshes(told.mano_dir)
    read = [in_order(*read_mesh(path), mano) for path in paths]
    for path, (_, side) in zip(paths, read, strict=True):
        if side is None and told.side is None:
            raise ValueError(f"{path}: its faces are not MANO's and do not tell the side; say side='right' or 'left'.")
    if not read:
        return []
    rows = len(read)
    sides = np.array([side or told.side for _, side in read])
    vertices = np.array([surface for surface, _ in read])
    size = _image_size({}, rows, told.image_size)
    names = np.array([image_name(path) for path in paths])
    columns = fitted(vertices, sides, mano, np.zeros(rows, bool))
    unknown = {
        "frame_index": np.unique(names, return_inverse=True)[1].astype(np.float64),
        "keypoints_2d": np.full((rows, 21, 2), np.nan),
        "keypoint_sigma": np.full(rows, np.nan),
        "camera": np.full((rows, 3, 3), np.nan),
        "object_id": np.full(rows, ""),
    }
    focal = {"focal": FOCAL_PER_PIXEL * size.max(1), "centre": size / 2, "size": size}
    return [columns | focal | unknown | {"side": sides, "frame_id": names}]


# Fields ---------------------------------------------------------------------------------------------


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


def _right(record: dict[str, Any], rows: int, side: str | None) -> np.ndarray:
    """``(rows,)`` bool: right hands."""
    name = named(record, RIGHT)
    if name is None:
        if side is None:
            raise ValueError("field 'is_right' is missing; save it, or say side='right' or 'left'.")
        return np.full(rows, side == "right")
    labels = np.atleast_1d(np.asarray(record[name]))
    if labels.dtype.kind not in "US":
        return _field(record, name, rows) > 0.5
    words = np.char.lower(labels.astype(np.str_).ravel())
    if not np.isin(words, ("left", "right", "l", "r")).all() or len(words) not in (1, rows):
        raise ValueError(f"field {name!r} is not 'right' or 'left', one for each of {rows} hands.")
    return np.broadcast_to(np.char.startswith(words, "r"), rows)


def _image_size(record: dict[str, Any], rows: int, given: Sequence[int] | None) -> np.ndarray:
    """``(rows, 2)`` width and height; NaN where nobody says."""
    if given is not None:
        size = numbers("image_size", list(given), 2)
        if not ((size >= 1).all() and (size < 1e6).all()):
            raise ValueError(f"image_size: {size.tolist()} is not a width and a height in pixels.")
        return np.tile(size, (rows, 1))
    name = named(record, ("img_size", "image_size"))
    if name is None and {"width", "height"} <= set(record):
        return np.stack([_field(record, side, rows) for side in ("width", "height")], 1)
    return np.full((rows, 2), np.nan) if name is None else _field(record, name, rows, 2)


def _transl(record: dict[str, Any], right: np.ndarray, size: np.ndarray, focal: np.ndarray) -> np.ndarray:
    rows = len(right)
    if name := named(record, TRANSL):
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


def _labels(record: dict[str, Any], names: Sequence[str], rows: int, default: str) -> np.ndarray:
    """Text of each hand."""
    name = named(record, names)
    labels = np.atleast_1d(np.asarray(record[name] if name else default))
    if name and (labels.dtype.kind not in "US" or labels.shape not in ((1,), (rows,))):
        if name == "image":  # the picture itself, which some save beside its hands
            return np.full(rows, default)
        raise ValueError(f"field {name!r} is not text, one for each of {rows} hands.")
    return np.broadcast_to(labels.astype(np.str_), rows)


def _frame_index(record: dict[str, Any], known: ImageRecord, rows: int) -> np.ndarray:
    """``(rows,)`` number of the frame, NaN where nothing says it."""
    name = named(record, NUMBER)
    if name is not None and np.asarray(record[name]).dtype.kind in "iuf":
        return _field(record, name, rows)
    return np.full(rows, np.nan if known.number is None else known.number)


def _camera(record: dict[str, Any], rows: int) -> np.ndarray:
    """``(rows, 3, 3)`` true intrinsics, where the user saved them beside the hands; else NaN."""
    if "cam_K" not in record:
        return np.full((rows, 3, 3), np.nan)
    camera = intrinsics(record["cam_K"], "field 'cam_K'")
    if camera.ndim == 3 and len(camera) not in (1, rows):
        raise ValueError(f"field 'cam_K' has {len(camera)} cameras for {rows} hands.")
    return np.broadcast_to(camera, (rows, 3, 3))


# Keypoints ------------------------------------------------------------------------------------------


def _keypoints(
    record: dict[str, Any], right: np.ndarray, transl: np.ndarray, focal: np.ndarray, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``(B, 21, 2)`` pixels of the whole image and ``(B, 2)`` assumed principal points; NaN where unsure.

    WiLoR-mini gives pixels of the image, HaMeR and WiLoR parts of the crop about its middle, flipped for left hands.
    Pixels are believed where they are the projection of ``pred_keypoints_3d``; where the principal point is not
    known, they tell it.
    """
    rows = len(right)
    nothing = np.full((rows, 21, 2), np.nan)
    if "pred_keypoints_2d" not in record:
        return nothing, centre
    try:
        flat = _field(record, "pred_keypoints_2d", rows, 21, 2)
        solid = _field(record, "pred_keypoints_3d", rows, 21, 3) if "pred_keypoints_3d" in record else None
    except ValueError:  # other orders of other numbers of joints are no use
        return nothing, centre
    pixels, found = nothing.copy(), centre.copy()
    with np.errstate(all="ignore"):
        if solid is not None:
            for flip in (np.ones(3), _FLIP):
                joints = np.where(right[:, None, None], solid, solid * flip) + transl[:, None]
                seen = focal[:, None, None] * joints[..., :2] / joints[..., 2:]
                # What remains is the same for all joints where this is what they were projected from.
                middle = np.where(np.isfinite(centre), centre, np.median(flat - seen, axis=1))
                same = np.abs(flat - seen - middle[:, None]).max((1, 2)) < _SAME_PLACE
                pixels[same], found[same] = flat[same], middle[same]
    if {"box_center", "box_size"} <= set(record):
        box = _field(record, "box_size", rows)[:, None, None]
        about = _field(record, "box_center", rows, 2)[:, None]
        turned = np.where(right[:, None, None], flat, flat * _FLIP[:2])
        of_crop = np.isnan(pixels).all((1, 2)) & (np.abs(flat).max((1, 2)) < _CROP_EXTENT)
        pixels[of_crop] = (about + box * turned)[of_crop]
    return pixels, found
