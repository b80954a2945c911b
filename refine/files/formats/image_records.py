"""Outputs of HaMeR and WiLoR in the arrangements people save them in, as a list of records of named fields.

A record is one hand, or the arrays of several hands of one image, in any arrangement of `frame_walk`. What lies deeper
in a record, as below ``pred_mano_params`` or ``wilor_preds``, is laid flat.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .columns import whole
from .files import named
from .frame_walk import Kind, listed, records_in

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
_DEEPEST = 4


@dataclass(frozen=True)
class ImageRecord:
    """Fields of one hand or of several of one image."""

    fields: dict[str, Any]
    number: int | None
    """of the frame; None where the file does not count frames"""
    name: str | None
    """of the image, where the file's arrangement says it"""
    where: str
    """in the file, for errors"""


def records_of(tree: Any, stem: str) -> list[ImageRecord]:
    """The records in the content of a file called ``stem``; none for images without a hand.

    Raises:
        ValueError: something in it is no record; says where, and what is there.
    """
    found = []
    for record in records_in(tree, _KIND, stem):
        fields = record.shared | _flat(record.content, 0)
        if record.side is not None:
            fields = {RIGHT[0]: record.side} | fields
        if any(name in fields for name in _OUTPUT):
            found.append(ImageRecord(fields, record.number, record.name, record.where))
        elif not {*fields} <= {*_DETECTED, *_ABOUT}:  # a detector's box whose hand was not estimated is no hand
            raise ValueError(
                f"{record.where}: no 'global_orient' and 'hand_pose' in it or in a dictionary in it; it has "
                f"{', '.join(sorted(map(str, fields)))[:200]}. Save the network's pred_mano_params."
            )
    return found


def _is_record(tree: Any) -> bool:
    if not isinstance(tree, dict):
        return False
    by_side = [name for name in ("left", "right") if isinstance(listed(tree.get(name)), dict)]
    return any(name in tree and name not in by_side for name in (*_OUTPUT, *_GROUPS, *_DETECTED))


def _is_frame(record: dict[str, Any]) -> bool:
    """Whether a record holds arrays over hands."""
    fields = _flat(record, 0)
    name = named(fields, RIGHT)
    return name is not None and np.ndim(fields[name]) > 0


_KIND = Kind(_is_record, _is_frame, "named fields of a hand such as 'global_orient'", (*_ABOUT, "fps"))


def _flat(fields: dict[Any, Any], depth: int) -> dict[str, Any]:
    """``fields`` with those of the dictionaries among them in their place."""
    flat = {str(name): value for name, value in fields.items() if not isinstance(value, dict)}
    for name, value in fields.items():
        if isinstance(value, dict) and depth < _DEEPEST:
            flat |= _flat(value, depth + 1)
            if name == "wilor_preds":
                flat["already_left"] = True
    return flat


def image_name(path: Path) -> str:
    """The image that a mesh ``<image>_<hand>.obj`` of the demos was found in."""
    head, _, tail = path.stem.rpartition("_")
    return head if head and whole(tail) is not None else path.stem
