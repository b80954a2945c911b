"""Results of MediaPipe's hand landmarker in the forms people save them in, as hands with landmarks and side.

The frames are in any arrangement of `frame_walk`. A frame holds lists over its hands, ``landmarks / worldLandmarks /
handedness`` (tasks, JavaScript), ``hand_landmarks / hand_world_landmarks / handedness`` (tasks, Python) or
``multi_hand_landmarks / multi_hand_world_landmarks / multi_handedness`` (legacy, also in camel case); or ``hands``, a
record for each; or the fields of one hand, not in lists; or the two hands of a holistic result,
``left_hand_landmarks`` and ``right_hand_landmarks`` (which are the subject's, however the image is). In .npz, .npy and
.pkl the same names may hold arrays ``(F, 21, 3)`` or ``(F, H, 21, 3)`` over frames, NaN where there is no hand.
A landmark is ``{"x":, "y":, "z":}`` or three numbers, a hand may be wrapped in ``{"landmark": [...]}``, and handedness
is text or whatever classification wraps it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .columns import UnsaidError
from .files import filled, named, numbers, table_of
from .frame_walk import Kind, Record, listed, records_in

IMAGE = ("landmarks", "hand_landmarks", "multi_hand_landmarks", "multiHandLandmarks", "handLandmarks")
WORLD = (
    "worldLandmarks", "hand_world_landmarks", "multi_hand_world_landmarks", "multiHandWorldLandmarks",
    "world_landmarks",
)  # fmt: skip
HOLISTIC = ("left_hand_landmarks", "right_hand_landmarks", "leftHandLandmarks", "rightHandLandmarks")
_SIDES = ("handedness", "handednesses", "multi_handedness", "multiHandedness", "label", "side")
_LEGACY = ("multi_hand_landmarks", "multiHandLandmarks", "multi_handedness", "multiHandedness")
_NUMBER = ("frame_index", "frame", "frame_idx", "frame_number")
_NAME = ("frame_id", "image", "image_path", "imgname", "file_name", "filename")


@dataclass(frozen=True)
class LandmarkedHand:
    """One hand of a frame."""

    image: np.ndarray
    """(21, 3): fractions of width and height, and depth in those of the width"""
    world: np.ndarray | None
    """(21, 3) metres about the hand's centre; None where they were not saved"""
    side: str
    score: float
    """of the side; NaN where it is not said"""


@dataclass(frozen=True)
class Frame:
    """What is known of a frame besides its hands."""

    number: int
    name: str
    fields: dict[str, Any]

    def image_size(self, given: Any) -> np.ndarray:
        """``(2,)`` width and height, pixels; ``UnsaidError`` where neither the caller nor the file says it."""
        both = [self.fields.get("width"), self.fields.get("height")]
        value = self.fields.get("image_size", both) if given is None else given
        if isinstance(value, list) and value == [None, None]:
            raise UnsaidError(
                "the size of the image is unknown; give image_size (width, height), --image-size WIDTH HEIGHT."
            )
        size = numbers("image_size", value, 2)
        if not ((size >= 1).all() and (size < 1e6).all()):
            raise ValueError(f"image_size {size.tolist()} is not a width and a height in pixels.")
        return size.astype(np.int64)

    def hands(self, side: str | None, mirrored: bool | None) -> list[LandmarkedHand]:
        """Its hands; ``side`` and ``mirrored`` as the reader has them. Raises ``ValueError`` naming the field."""
        frame = _with_lists(self.fields)
        image, world = _points("landmarks", frame, IMAGE), _points("world landmarks", frame, WORLD)
        if image is None:
            raise ValueError(f"landmarks: missing; expected one of {', '.join((*IMAGE, *HOLISTIC))}.")
        if world is not None and len(image) != len(world):
            raise ValueError(f"{len(image)} hands in the image, {len(world)} in the world.")
        if not len(image):
            return []
        labels = _labels(frame, len(image), side, mirrored)
        return [LandmarkedHand(image[k], None if world is None else world[k], *label) for k, label in enumerate(labels)]


def frames_in(tree: Any, where: str) -> list[Frame]:
    """The frames with something in them, in the content of a file called ``where``.

    Raises ``ValueError`` where something in it is no result; says where.
    """
    return [frame for record in records_in(tree, _KIND, where) for frame in _frames(record)]


def _is_result(tree: Any) -> bool:
    return isinstance(tree, dict) and named(tree, (*IMAGE, *WORLD, *HOLISTIC, *_SIDES, "hands")) is not None


_KIND = Kind(_is_result, lambda result: True, "a result of the hand landmarker, such as 'landmarks'")


def _frames(record: Record) -> Iterator[Frame]:
    fields = record.shared | {name: listed(value) for name, value in record.content.items()}
    if record.side is not None:
        fields = {_SIDES[0]: record.side} | fields
    arrays = [name for name in (*IMAGE, *WORLD) if isinstance(fields.get(name), np.ndarray)]
    if not arrays:
        number = named(fields, _NUMBER)
        place = fields[number] if number and isinstance(fields[number], int) else record.number or 0
        name = named(fields, _NAME)
        yield Frame(place, str(fields[name] if name else record.name or place)[:1000], fields)
        return
    over = {name: numbers(name, fields[name]) for name in arrays}
    over = {name: value[:, None] if value.ndim == 3 else value for name, value in over.items()}
    count = min((len(value) for value in over.values() if value.ndim == 4), default=0)
    if any(value.ndim != 4 or len(value) != count for value in over.values()):
        raise ValueError(f"{record.where}: {', '.join(arrays)}: expected (F, 21, 3) or (F, H, 21, 3) for F frames.")
    sides = {name: np.asarray(fields[name]) for name in _SIDES if name in fields}
    for k in range(count):
        there = np.all([np.isfinite(value[k]).all((1, 2)) for value in over.values()], axis=0)
        frame = fields | {name: value[k][there].tolist() for name, value in over.items()}
        for name, value in sides.items():
            of_frame = value[k] if value.ndim and len(value) == count else value
            frame[name] = np.broadcast_to(of_frame, there.shape)[there].tolist()
        if there.any():
            yield Frame(k, str(k), frame)


def _with_lists(frame: dict[str, Any]) -> dict[str, Any]:
    """A frame with its hands as lists, where it has them as records, by side, or one hand without a list."""
    if named(frame, HOLISTIC):
        return _of_holistic(frame)
    if isinstance(frame.get("hands"), list):
        records = table_of(frame["hands"], "the hands of a frame")
        of_hands: dict[str, Any] = {name: value for name, value in frame.items() if name != "hands"}
        for names in (IMAGE, WORLD, _SIDES):
            found = [record.get(named(record, names) or "") for record in records]
            if all(value is not None for value in found):  # what is missing, others say
                of_hands[names[0]] = found
        if all("score" in record for record in records) and _SIDES[0] in of_hands:
            of_hands[_SIDES[0]] = [
                {"label": side, "score": record["score"]} if isinstance(side, str) else side
                for side, record in zip(of_hands[_SIDES[0]], records, strict=True)
            ]
        return of_hands
    alone = dict(frame)
    for names in (IMAGE, WORLD):
        name = named(frame, names)
        if name and _is_one_hand(frame[name]):
            alone[name] = [frame[name]]
    name = named(frame, _SIDES)
    if name and isinstance(frame[name], str | dict):
        alone[name] = [frame[name]]
    return alone


def _of_holistic(frame: dict[str, Any]) -> dict[str, Any]:
    """The two hands of a holistic result as lists; without the landmarks of face and body."""
    hands: dict[str, list[Any]] = {IMAGE[0]: [], WORLD[0]: [], _SIDES[0]: []}
    for side in ("left", "right"):
        image = frame.get(named(frame, (f"{side}_hand_landmarks", f"{side}HandLandmarks")) or "")
        world = frame.get(named(frame, (f"{side}_hand_world_landmarks", f"{side}HandWorldLandmarks")) or "")
        marks = [value[0] if _is_nested(value) else value for value in (image, world)]
        if marks[0]:
            hands[IMAGE[0]].append(marks[0])
            hands[_SIDES[0]].append(side)
            if marks[1]:
                hands[WORLD[0]].append(marks[1])
    if not hands[WORLD[0]] and hands[IMAGE[0]]:
        del hands[WORLD[0]]
    return {name: frame[name] for name in ("width", "height", "image_size") if name in frame} | hands


def _is_nested(value: Any) -> bool:
    """Whether a hand's landmarks are in a list of hands."""
    return isinstance(value, list) and len(value) == 1 and not _is_landmark(value[0])


def _is_one_hand(value: Any) -> bool:
    """Whether landmarks are those of a hand rather than of a list of hands."""
    return isinstance(value, dict) or (isinstance(value, list) and len(value) == 21 and _is_landmark(value[0]))


def _is_landmark(item: Any) -> bool:
    return {"x", "y"} <= set(item) if isinstance(item, dict) else isinstance(item, list) and len(item) == 3


def _points(what: str, frame: dict[str, Any], names: tuple[str, ...]) -> np.ndarray | None:
    """``(H, 21, 3)`` landmarks of the hands of a frame; None where they are not among its fields."""
    name = named(frame, names)
    if name is None:
        return None
    hands = frame[name] or []
    if not isinstance(hands, list):
        raise ValueError(f"{what}: expected a list of hands.")
    points = []
    for hand in hands:
        marks = hand.get("landmark", hand.get("landmarks")) if isinstance(hand, dict) else hand
        if not isinstance(marks, list) or len(marks) != 21:
            raise ValueError(f"{what}: expected 21 landmarks.")
        cells = [[p.get(axis) for axis in "xyz"] if isinstance(p, dict) else p for p in marks]
        points.append(numbers(what, filled(cells), 21, 3))
    return np.array(points).reshape(-1, 21, 3)


def _labels(frame: dict[str, Any], count: int, side: str | None, mirrored: bool | None) -> list[tuple[str, float]]:
    """Side and score of each hand."""
    name = named(frame, _SIDES)
    if name is None and side is not None:
        return [(side, np.nan)] * count
    found = frame[name] if name else None
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(f"handedness is missing or not of {count} hands; give side.")
    swap = named(frame, _LEGACY) is not None if mirrored is None else mirrored
    labels = []
    for item in found:
        label, score = _handedness(item)
        if side is None and label not in ("left", "right"):
            raise ValueError(f"handedness {label[:20]!r} is neither Left nor Right; give side.")
        labels.append((side or ("right" if (label == "right") != swap else "left"), score))
    return labels


def _handedness(item: Any) -> tuple[str, float]:
    """Name, in lower case, and score of the likelier side, in whatever it is wrapped."""
    if isinstance(item, dict) and isinstance(item.get("classification"), list):
        item = item["classification"]
    if isinstance(item, list):
        item = item[0] if item else None
    if not isinstance(item, dict):
        return str(item).lower(), np.nan
    names = ("categoryName", "category_name", "label", "displayName", "display_name")
    label, score = next((item[name] for name in names if item.get(name)), None), item.get("score")
    return str(label).lower(), score if isinstance(score, float) else np.nan
