"""Outputs of HaMeR and WiLoR in the arrangements people save them in, as a list of records of named fields.

A record is one hand, or the arrays of several hands of one image. Records come alone; in a list, each for a hand or
for a frame; or in a dictionary by frame number, image name or side. What lies deeper in a record, as below
``pred_mano_params`` or ``wilor_preds``, is laid flat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .columns import whole

POSE = ("global_orient", "hand_pose")
VERTICES = ("verts", "all_verts", "vertices", "pred_vertices")
TRANSL = ("pred_cam_t_full", "cam_t", "all_cam_t", "cam_transl")
RIGHT = ("is_right", "right", "is_rights", "all_right", "handedness", "hand_side", "side")
_DETECTED = (*RIGHT, "hand_bbox", "bbox", "box", "boxes", "bboxes", "score", "scores", "conf", "confidence")
FRAME = ("imgname", "img_path", "img_name", "image_path", "image", "frame_id")
NUMBER = ("frame_index", "frame", "frame_idx")
_ABOUT = (*FRAME, *NUMBER, "img_size", "image_size", "width", "height", "scaled_focal_length", "cam_K", "personid")
_OUTPUT = (*POSE, *VERTICES, *TRANSL, "betas", "pred_cam", "pred_cam_t", "pred_keypoints_3d", "pred_keypoints_2d")
_GROUPS = ("pred_mano_params", "wilor_preds", "mano_params", "mano", "camera", "out", "preds")
_WRAPPERS = ("frames", "hands", "results", "outputs", "predictions", "detections", "arr_0")
_DEEPEST = 4


@dataclass(frozen=True)
class ImageRecord:
    """Fields of one hand or of several of one image."""

    fields: dict[str, Any]
    number: int | None
    """of the frame; None where the file does not count frames"""
    name: str | None
    """of the image, where the file's arrangement says it"""


def records_of(tree: Any, stem: str) -> list[ImageRecord]:
    """The records in the content of a file called ``stem``; none for images without a hand.

    Raises:
        ValueError: something in it is no record; says where, and what is there.
    """
    return list(_walk(tree, None, None, stem, 0))


def frames_of(tree: Any) -> int | None:
    """How many frames the file counts, those without a hand among them; None where it does not."""
    tree = _unwrapped(_listed(tree))
    if isinstance(tree, dict):
        return None if _is_record(tree) else len(tree)
    return len(tree) if isinstance(tree, list) and any(map(_is_frame, tree)) else None


def _walk(tree: Any, number: int | None, name: str | None, where: str, depth: int) -> Iterator[ImageRecord]:
    tree = _unwrapped(_listed(tree))
    if tree is None or (isinstance(tree, dict | list) and not tree):
        return
    if depth > _DEEPEST or not isinstance(tree, dict | list):
        raise ValueError(
            f"{where}: a {type(tree).__name__}; expected named fields of a hand such as 'global_orient', or a list of "
            "them."
        )
    if isinstance(tree, list):
        counted = number is None and any(map(_is_frame, tree))
        for k, item in enumerate(tree):
            yield from _walk(item, k if counted else number, name, f"{where}, item {k}", depth + 1)
    elif _is_record(tree):
        fields = _flat(tree, 0)
        if any(field in fields for field in (*POSE, *VERTICES)) or any(field in fields for field in _OUTPUT):
            yield ImageRecord(fields, number, name)
        elif not {*fields} <= {*_DETECTED, *_ABOUT}:
            raise _no_hand(where, fields)
    else:
        for k, (key, item) in enumerate(tree.items()):
            if not isinstance(_listed(item), dict | list | None):
                raise _no_hand(where, tree)
            text = str(key)
            if text in ("left", "right") and isinstance(item, dict):
                yield from _walk({RIGHT[0]: text} | item, number, name, f"{where}, {text}", depth + 1)
                continue
            counts = whole(text)
            label = name if counts is not None else text
            place = (k if counts is None else counts) if number is None else number
            yield from _walk(item, place, label, f"{where}, {text[:60]!r}", depth + 1)


def _listed(value: Any) -> Any:
    """Arrays of objects as what they hold."""
    return value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value


def _unwrapped(tree: Any) -> Any:
    """What is below a lone name that only says that here are hands."""
    while isinstance(tree, dict) and len(tree) == 1 and next(iter(tree)) in _WRAPPERS:
        tree = _listed(next(iter(tree.values())))
    return tree


def _is_record(tree: dict[Any, Any]) -> bool:
    by_side = [name for name in ("left", "right") if isinstance(_listed(tree.get(name)), dict)]
    return any(name in tree and name not in by_side for name in (*_OUTPUT, *_GROUPS, *_DETECTED))


def _is_frame(item: Any) -> bool:
    """Whether an item of a list is a frame rather than one hand: a list, empty, or with arrays over hands."""
    if item is None or not isinstance(item, dict) or not item:
        return True
    if not _is_record(item):
        return True
    fields = _flat(item, 0)
    side = next((fields[name] for name in RIGHT if name in fields), None)
    return side is not None and np.ndim(side) > 0


def _flat(fields: dict[Any, Any], depth: int) -> dict[str, Any]:
    """``fields`` with those of the dictionaries among them in their place."""
    flat = {str(name): value for name, value in fields.items() if not isinstance(value, dict)}
    for name, value in fields.items():
        if isinstance(value, dict) and depth < _DEEPEST:
            flat |= _flat(value, depth + 1)
            if name == "wilor_preds":
                flat["already_left"] = True
    return flat


def _no_hand(where: str, fields: dict[Any, Any]) -> ValueError:
    return ValueError(
        f"{where}: no 'global_orient' and 'hand_pose' in it or in a dictionary in it; it has "
        f"{', '.join(sorted(map(str, fields)))[:200]}. Save the network's pred_mano_params."
    )


def image_name(path: Path) -> str:
    """The image that a mesh ``<image>_<hand>.obj`` of the demos was found in."""
    head, _, tail = path.stem.rpartition("_")
    return head if head and whole(tail) is not None else path.stem
