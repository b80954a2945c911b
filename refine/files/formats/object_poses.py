"""Where objects are, as callers have it: poses by row, by frame or by name, in arrays, mappings, files and folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..predictions import Predictions
from .columns import whole
from .files import given_numbers, named, numbers, read_tree

_LONE = ("object_pose", "object_poses", "pose", "poses", "ob_in_cam", "arr_0")
"""Names of the only value of a file, which say nothing of a frame."""
_FOLDER = (".txt", ".npy", ".json", ".csv")
"""Files of a folder that holds one pose for each frame, such as ``ob_in_cam/0001.txt`` of FoundationPose."""


def poses_of_rows(value: Any, predictions: Predictions, name: str = "object_poses") -> np.ndarray:
    """Object poses ``(N, 4, 4)`` of the rows, object to camera, metres; NaN where there is none.

    Args:
        value: ``(4, 4)`` for all rows; ``(N, 4, 4)``, one a row; ``(F, 4, 4)``, one for each frame of the recording,
            those without a hand among them, matched by `frame_index`; or a mapping of names (`frame_id`, with or
            without folder and suffix) or numbers of frames to ``(4, 4)``. ``(3, 4)`` does as well, and None in a list.
            Or a file of any of these (.npy, .npz, .json, .pkl, or text of numbers), or a folder with a file a frame.
        predictions: the rows. One pose a row counts before one a frame where both could be meant, unless rows of one
            frame and object would differ.
        name: of the argument, for errors.

    Raises:
        ValueError: of another shape or number; says how many rows and frames there are.
        FileNotFoundError: there is no such file.
    """
    where = f"{name} {value}" if isinstance(value, str | Path) else name
    content = _content(value, where)
    if isinstance(content, Mapping) and len(content) == 1 and named(content, _LONE):
        content = next(iter(content.values()))
    if isinstance(content, Mapping):
        return _by_name(content, predictions, where)
    if isinstance(content, list) and any(item is None for item in content):
        content = [np.full((4, 4), np.nan) if item is None else np.asarray(rigid(item, where))[0] for item in content]
    return _by_place(rigid(content, where), predictions, where)


def rigid(value: Any, name: str = "object_pose") -> np.ndarray:
    """``(P, 4, 4)`` of one or more poses given as 3×4 or 4×4, also as 12 or 16 numbers; ``ValueError`` for others."""
    pose = numbers(name, value)
    if pose.ndim <= 2 and pose.size in (12, 16):
        pose = pose.reshape(1, -1, 4)
    elif pose.ndim == 2 and pose.shape[1] in (12, 16):
        pose = pose.reshape(len(pose), -1, 4)
    if pose.ndim != 3 or pose.shape[1:] not in ((3, 4), (4, 4)):
        raise ValueError(f"{name}: got shape {pose.shape}; expected (4, 4) or (N, 4, 4).")
    full = np.tile(np.eye(4), (len(pose), 1, 1))
    full[:, : pose.shape[1]] = pose
    return full


def _content(value: Any, where: str) -> Any:
    """What is in a file or folder, else the value itself."""
    if not isinstance(value, str | Path):
        return value
    path = Path(value)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _FOLDER)
        if not files:
            raise ValueError(f"{where}: the folder holds no pose; expected one for each frame, {', '.join(_FOLDER)}.")
        return {file.stem: given_numbers(file) for file in files}
    if path.suffix.lower() in (".npz", ".pkl", ".pickle"):
        return read_tree(path)
    return given_numbers(path)


def _by_place(poses: np.ndarray, p: Predictions, where: str) -> np.ndarray:
    count, frames = len(poses), p.frame_index
    if count == 1:
        return np.repeat(poses, len(p), 0)
    one_recording = len(set(p.sequence_id.tolist())) <= 1
    is_frame = p.counts_frames and one_recording and len(frames) and frames.min() >= 0 and frames.max() < count
    if count == len(p) and not (is_frame and _differ_in_a_frame(poses, p)):
        return poses
    if is_frame:
        return poses[frames]
    of_frames = "" if not (p.counts_frames and len(frames)) else f", or one for each frame from 0 to {frames.max()}"
    raise ValueError(
        f"{where}: got shape {poses.shape}; expected (4, 4), or {(len(p), 4, 4)} for the rows{of_frames}, or a mapping "
        "of names or numbers of frames to poses."
    )


def _differ_in_a_frame(poses: np.ndarray, p: Predictions) -> bool:
    """Whether rows of one frame and object would have different poses, which no object has."""
    first: dict[tuple[int, str], np.ndarray] = {}
    for frame, name, pose in zip(p.frame_index.tolist(), p.object_id.tolist(), poses, strict=True):
        if not np.array_equal(first.setdefault((frame, name), pose), pose, equal_nan=True):
            return True
    return False


def _by_name(value: Mapping[Any, Any], p: Predictions, where: str) -> np.ndarray:
    known: dict[str | int, np.ndarray] = {}
    given = [(name, rigid(pose, f"{where}: {name!r}")) for name, pose in value.items() if pose is not None]
    for name, pose in given:
        if len(pose) != 1:
            raise ValueError(f"{where}: {name!r} has {len(pose)} poses; give one a frame.")
    for spelling in (str, _file, _stem):  # a whole name counts before what is left of one
        for name, pose in given:
            known.setdefault(spelling(name), pose[0])
    if p.counts_frames:  # names first: numbers of frames may be called otherwise than they count
        for name, pose in given:
            if (number := whole(_stem(name))) is not None:
                known.setdefault(number, pose[0])
    found = np.full((len(p), 4, 4), np.nan)
    lacking = []
    for row, (frame, number) in enumerate(zip(p.frame_id.tolist(), p.frame_index.tolist(), strict=True)):
        key = next((key for key in (frame, _file(frame), _stem(frame), number) if key in known), None)
        if key is None:
            lacking.append(frame)
        else:
            found[row] = known[key]
    if len(p) and len(lacking) == len(p):
        raise ValueError(
            f"{where}: has none of the file's images, e.g. {lacking[0]!r}; its names are "
            f"{', '.join(map(str, list(value)[:5]))}."
        )
    return found


def _file(name: Any) -> str:
    return PurePosixPath(str(name)).name


def _stem(name: Any) -> str:
    return PurePosixPath(str(name)).stem
