"""Columns of `grasp/1` put together from frames, hands and files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

POSE = {"global_orient": (3,), "hand_pose": (15, 3), "betas": (10,), "transl": (3,)}
"""Columns of a pose and the shape of a row of each."""
UNKNOWN_POSE = np.full((4, 4), np.nan)
"""`object_pose` of hands before a camera whose file knows nothing of the object."""
UNKNOWN_POSE.setflags(write=False)
T, R = TypeVar("T"), TypeVar("R")
Columns = dict[str, np.ndarray]


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> Columns:
    """The rows of ``parts``, one after the other, of the columns that all have; without parts, no rows of poses."""
    parts = parts or [{"side": np.zeros(0, np.str_), **pose_columns(0, ())}]
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def stacked(rows: Sequence[Mapping[str, Any]], shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> Columns:
    """Columns from one or more rows; those named in ``shapes`` are NaN of that shape in the rows without them."""
    full = [{name: np.full(shape, np.nan) for name, shape in shapes.items()} | dict(row) for row in rows]
    return {name: np.array([row[name] for row in full]) for name in full[0]}


def pose_columns(rows: int, parts: Iterable[tuple[np.ndarray, Mapping[str, np.ndarray]]]) -> Columns:
    """The pose of each of ``rows``, from that of some: pairs of their places or mask and their columns; else NaN."""
    columns = {name: np.full((rows, *shape), np.nan) for name, shape in POSE.items()}
    for places, part in parts:
        for name, column in columns.items():
            column[places] = part[name]
    return columns


def by_side(sides: np.ndarray, among: np.ndarray | bool = True) -> Iterator[tuple[str, np.ndarray]]:
    """Each side that some of the rows ``among (N,)`` bool are of, with their numbers."""
    for side in ("right", "left"):
        rows = np.flatnonzero((sides == side) & among)
        if len(rows):
            yield side, rows


def recording(name: str, parts: Sequence[Mapping[str, np.ndarray]], object_poses: np.ndarray) -> Columns:
    """Columns of a recording's hands, one after the other, each frame by frame.

    ``object_poses (F, 4, 4)`` are object to camera. Raises ``ValueError`` where a hand has another number of frames.
    """
    if any(len(part["side"]) != len(object_poses) for part in parts):
        raise ValueError(
            f"its hands have {[len(part['side']) for part in parts]} frames; expected {len(object_poses)}."
        )
    frames = [f"{name}/{frame}" for _ in parts for frame in range(len(object_poses))]
    poses = np.tile(object_poses, (len(parts), 1, 1))
    return joined(parts) | frame_columns(frames) | {"object_pose": poses}


def frame_columns(names: Sequence[str]) -> Columns:
    """Labels of frames called ``sequence/number``; a frame without a number has that of its row."""
    sequences, tails = zip(*(name.rpartition("/")[::2] for name in names), strict=True) if names else ((), ())
    return {
        "frame_id": np.array(names, np.str_),
        "sequence_id": np.array(sequences, np.str_),
        "frame_index": np.array([row if (n := whole(t)) is None else n for row, t in enumerate(tails)], np.int64),
    }


def whole(text: str) -> int | None:
    """The number that a text of digits stands for; None where it is none or has more than 18."""
    return int(text) if text.isdecimal() and len(text) <= 18 else None


def number_in(name: str) -> int | None:
    """The number that a name ends with, as ``frame_0012`` does; None where there is none."""
    digits = re.search(r"\d+$", name)
    return whole(digits[0]) if digits else None


class UnsaidError(ValueError):
    """What the caller alone can say, and once for all records, so that `each` does not go on without it."""


def each(
    records: Sequence[T], read: Callable[[T], R], otherwise: Callable[[T], R], kind: str, name: Callable[[T], str]
) -> list[R]:
    """What ``read`` makes of each record, or ``otherwise``, empty rows, where one is damaged, which is warned of.

    Args:
        kind: what records are, in the plural, for the warning.
        name: what one is called.

    Raises:
        ValueError: no record can be read: then it is the file, or what was said of it, that is wrong; or an
            `UnsaidError`.
    """
    found, damaged = [], []
    for record in records:
        try:
            found.append(read(record))
        except UnsaidError:
            raise
        except ValueError as error:
            message = str(error)
            damaged.append(message if name(record) in message else f"{name(record)}: {message}")
            found.append(otherwise(record))
    if damaged and len(damaged) == len(records):
        raise ValueError(damaged[0])
    if damaged:
        warnings.warn(
            f"{len(damaged)} of {len(records)} {kind} are damaged and come out as empty rows; the first: {damaged[0]}",
            stacklevel=4,
        )
    return found


def each_file(files: Sequence[Path], read: Callable[[Path], R], otherwise: Callable[[Path], R]) -> list[R]:
    """`each` of the files of a folder."""
    return each(files, read, otherwise, "files", str)
