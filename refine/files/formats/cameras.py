"""Intrinsics in the forms people have them, and hands that were placed under another focal length than the true one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..predictions import Predictions, has_pose
from .files import filled, given_numbers, named, numbers

_MATRIX = ("cam_K", "K", "intrinsics", "intrinsic", "camera_matrix", "cam_intr")
_NUMBERS = ("fx", "fy", "cx", "cy")
_FORMS = "give fx,fy,cx,cy, or a .json or .npy of a 3x3 matrix or of fx, fy, cx and cy, in pixels"


def intrinsics(value: Any, name: str = "camera") -> np.ndarray:
    """``(3, 3)`` or ``(N, 3, 3)`` intrinsics in pixels.

    Args:
        value: such an array; four numbers ``fx, fy, cx, cy``; a mapping with those or with a matrix; text of four
            numbers; or the path of any of these.
        name: of the argument, for errors.

    Raises:
        ValueError: none of these, or not of a pinhole camera in pixels; names the argument.
        FileNotFoundError: there is no such file.
    """
    if isinstance(value, str | Path):
        cells = [cell for cell in re.split(r"[,;\s]+", str(value).strip("[]() ")) if cell]
        try:
            value = [float(cell) for cell in cells]
        except ValueError:
            value = _from_file(Path(value), name)
    if isinstance(value, dict):
        if key := named(value, _MATRIX):
            value = value[key]
        elif set(_NUMBERS) <= set(value):
            value = [value[number] for number in _NUMBERS]
        else:
            raise ValueError(f"{name}: has none of {', '.join(_MATRIX)} and not all of fx, fy, cx, cy; {_FORMS}.")
    array = numbers(name, filled(value))
    if array.shape in ((4,), (1, 4)):
        fx, fy, cx, cy = array.ravel()
        array = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    if array.shape[-2:] != (3, 3) or array.ndim > 3:
        raise ValueError(f"{name}: got shape {array.shape}; {_FORMS}.")
    if np.isfinite(array).all() and np.abs(array[..., 2, :2]).max(initial=0) > 1e-6:
        raise ValueError(f"{name}: its last row is not 0 0 1; transpose it.")
    focal = np.stack([array[..., 0, 0], array[..., 1, 1]])
    if not np.isfinite(array).all() or (focal <= 1).any() or (array[..., 2, 2] != 1).any():
        raise ValueError(f"{name}: is not of a pinhole camera in pixels, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]].")
    return array


def _from_file(path: Path, name: str) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{name}: {str(path)!r} is neither a file nor four numbers; {_FORMS}.")
    try:
        return given_numbers(path)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def focal_length(value: Any, name: str = "focal") -> float:
    """A focal length in pixels; ``ValueError`` naming the argument where it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not 1 < number < np.inf:
        raise ValueError(f"{name}: got {value}; give the focal length in pixels.")
    return number


def true_camera(camera: Any, focal: float | None) -> tuple[np.ndarray | None, float | None]:
    """The arguments ``camera`` and ``focal`` of readers as `intrinsics` and `focal_length`; ``ValueError`` for both."""
    if camera is not None and focal is not None:
        raise ValueError("focal: camera says it already; give one of the two.")
    return None if camera is None else intrinsics(camera), None if focal is None else focal_length(focal)


def with_focal(predictions: Predictions, focal: float) -> np.ndarray:
    """``(N, 3, 3)`` intrinsics of rows whose focal length is ``focal``; the principal point is the file's.

    Raises ``ValueError`` for a row that has neither `cam_K` nor `image_size`, whose middle it may be.
    """
    p = predictions
    camera = np.full((len(p), 3, 3), np.nan) if p.cam_K is None else p.cam_K.astype(np.float64)
    known = np.isfinite(camera).all((1, 2))
    if p.image_size is not None:
        camera[~known] = np.eye(3)
        camera[~known, :2, 2] = p.image_size[~known] / 2
        known = known | True
    if not known.all():
        raise ValueError(
            f"focal: row {int(np.argmin(known))} has no principal point (cam_K, image_size); give the whole camera "
            "instead: fx,fy,cx,cy."
        )
    camera[:, 0, 0] = camera[:, 1, 1] = focal
    camera[:, 0, 1] = 0
    return camera


def seen_by(predictions: Predictions, camera: np.ndarray) -> Predictions:
    """The rows before their true camera, whose intrinsics are ``camera (3, 3)`` or ``(N, 3, 3)``, NaN where unknown.

    A hand whose depth is not metric stands where it fits its picture under the focal length of the file's `cam_K`. It
    is moved to where it is as large, and at the same place, in the picture of the true one; its depth is metric then,
    up to the size of the hand. Exact for the origin of the hand's model, which lies in the palm, as in the code of
    HaMeR and WiLoR; the rest of the hand follows as far as it is small against its distance.
    """
    p = predictions
    true = np.broadcast_to(camera, (len(p), 3, 3)).astype(np.float64)
    told = np.isfinite(true).all((1, 2))
    columns: dict[str, Any] = {}
    if p.cam_K is not None:
        true = np.where(told[:, None, None], true, p.cam_K)
        posed = has_pose(p)
        anchor = np.full((len(p), 3), np.nan)
        if p.keypoints_3d is not None:
            anchor = p.keypoints_3d[:, :21].mean(1).astype(np.float64)
        if p.transl is not None:
            anchor[posed] = p.transl[posed]
        with np.errstate(all="ignore"):
            moved = replaced(anchor, p.cam_K.astype(np.float64), true)
        rows = told & ~p.metric_depth & np.isfinite(moved).all(1) & (anchor[:, 2] > 0)
        shift = np.where(rows[:, None], moved - anchor, 0)
        for name, lift in (("transl", shift), ("keypoints_3d", shift[:, None])):
            if (value := getattr(p, name)) is not None:
                columns[name] = (value + lift).astype(np.float32)
        columns["metric_depth"] = p.metric_depth | rows
    return replace(p, cam_K=true.astype(np.float32), **columns)


def replaced(points: np.ndarray, assumed: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Points ``(N, 3)`` that one camera ``(N, 3, 3)`` sees where, and as near by its focal length, as another does."""
    focal, others = (np.stack([k[:, 0, 0], k[:, 1, 1]], 1) for k in (true, assumed))
    depth = points[:, 2] * np.sqrt((focal / others).prod(1))
    pixel = (assumed @ points[..., None])[..., 0]
    ray = (np.linalg.inv(true) @ np.c_[pixel[:, :2] / pixel[:, 2:], np.ones(len(points))][..., None])[..., 0]
    return ray * depth[:, None]
