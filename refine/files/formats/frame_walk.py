"""The records of hands in what people save of a video or a folder of images, with the frame that each is of.

A record comes alone; in a list, each for a hand or for a frame; or in a dictionary by number or name of the frame, or
by side. Frames without a hand, which are None, {} or [], count as frames and give no record.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .columns import whole

_DEEPEST = 4
_WRAPPERS = (
    "frames", "hands", "results", "outputs", "predictions", "detections", "data", "annotations", "joints", "arr_0",
)  # fmt: skip
"""Lone names that say only that here are hands."""
_ABOUT = ("meta", "metadata", "meta_data", "info", "fps", "video", "version", "width", "height", "image_size")
"""Names beside those that say nothing of a hand."""


@dataclass(frozen=True)
class Record:
    """A record of one hand or of the hands of one frame."""

    content: Any
    number: int | None
    """of the frame; None where the file does not count frames"""
    name: str | None
    """of the frame, where the arrangement says it"""
    side: str | None
    """"right" or "left", where the arrangement says it"""
    where: str
    """in the file, for errors"""
    shared: dict[str, Any]
    """what stands beside the frames, such as the size of all images"""


@dataclass(frozen=True)
class Kind:
    """What records of a format are."""

    is_record: Callable[[Any], bool]
    is_frame: Callable[[Any], bool]
    """Whether a record in a list is a frame of its own rather than one of the hands of a frame."""
    expected: str
    """what a record holds, for errors"""
    about: Collection[str] = _ABOUT


def records_in(tree: Any, kind: Kind, where: str) -> list[Record]:
    """The records in the content of a file called ``where``, in its order; none for frames without a hand.

    Raises:
        ValueError: something in it is neither a record nor an arrangement of them; says where and what it is.
    """
    return list(_walk(tree, kind, Record(None, None, None, None, where, {}), 0))


def listed(value: Any) -> Any:
    """Arrays of objects as what they hold."""
    return value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value


def _walk(tree: Any, kind: Kind, at: Record, depth: int) -> Iterator[Record]:
    tree, shared = _unwrapped(listed(tree), kind)
    at = replace(at, shared=at.shared | shared)
    if _is_nothing(tree):
        return
    if kind.is_record(tree):
        yield replace(at, content=tree)
    elif depth > _DEEPEST or not _is_arrangement(tree):
        raise ValueError(f"{at.where}: a {_kind_of(tree)}; expected {kind.expected}, or a list of them.")
    elif isinstance(tree, list):
        counted = at.number is None and any(_counts(item, kind) for item in tree)
        for k, item in enumerate(tree):
            number = k if counted else at.number
            yield from _walk(item, kind, replace(at, number=number, where=f"{at.where}, item {k}"), depth + 1)
    else:
        for k, (key, item) in enumerate(tree.items()):
            item, text = listed(item), str(key)
            if not (_is_nothing(item) or _is_arrangement(item) or kind.is_record(item)):
                raise ValueError(
                    f"{at.where}: expected {kind.expected}; it has {', '.join(sorted(map(str, tree)))[:200]}."
                )
            inside = replace(at, where=f"{at.where}, {text[:60]!r}")
            if len(tree) == 1 and isinstance(item, list) and any(map(_is_nothing, item)):
                yield from _walk(item, kind, inside, depth + 1)  # a name for all frames, since hands leave no gap
                continue
            if (side := text.lower()) in ("left", "right"):
                yield from _walk(item, kind, replace(inside, side=side), depth + 1)
                continue
            counts = whole(text)
            place = (k if counts is None else counts) if at.number is None else at.number
            name = at.name if counts is not None and at.name is not None else text
            yield from _walk(item, kind, replace(inside, number=place, name=name), depth + 1)


def _is_nothing(tree: Any) -> bool:
    return tree is None or (isinstance(tree, dict | list) and not tree)


def _is_arrangement(tree: Any) -> bool:
    """Whether it may hold records: a dictionary, or a list of other things than numbers and words."""
    return isinstance(tree, dict) or (isinstance(tree, list) and not isinstance(tree[0], str | int | float))


def _counts(item: Any, kind: Kind) -> bool:
    """Whether an item of a list shows that the list is one of frames."""
    item = listed(item)
    return not kind.is_record(item) or kind.is_frame(item)


def _unwrapped(tree: Any, kind: Kind) -> tuple[Any, dict[str, Any]]:
    """What is below a name that only says that here are hands, and what stands beside it."""
    beside: dict[str, Any] = {}
    while isinstance(tree, dict) and not kind.is_record(tree):
        inner = [name for name in tree if name in _WRAPPERS and isinstance(listed(tree[name]), dict | list)]
        if len(inner) != 1 or not {*tree} - {*inner} <= {*kind.about}:
            break
        beside |= {name: value for name, value in tree.items() if name != inner[0]}
        tree = listed(tree[inner[0]])
    return tree, beside


def _kind_of(value: Any) -> str:
    return f"array of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
