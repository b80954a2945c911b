"""Hands that a file gives as MANO's parameters: rotations, shape and place, under the names and in the convention of
whoever wrote it, as columns of `grasp/1`.

What data sets differ in is little: how rotations are written, whether the mean pose is among them, what the
translation says, and whose shape directions a left hand's betas belong to. That is a `Convention`; with the names of
the fields it is all that a reader of such a file needs besides the way through the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.spatial.transform import Rotation

from .columns import POSE, Columns, by_side, each, pose_columns, stacked
from .files import named, numbers, per_hand
from .hands import mano_columns, root_joints

_EMPTY = {"orient": (3,), "fingers": (45,), "betas": (10,), "transl": (3,), "object_pose": (4, 4)}


@dataclass(frozen=True)
class Convention:
    """Names and meaning of a file's numbers."""

    orient: tuple[str, ...] = ()
    """names of the wrist's rotation; none where it comes first in `pose`"""
    fingers: tuple[str, ...] = ()
    """names of the fingers' rotations; none where they follow in `pose`"""
    pose: tuple[str, ...] = ()
    """names of all rotations in one field"""
    betas: tuple[str, ...] = ("betas",)
    transl: tuple[str, ...] = ("transl",)
    rotations: Literal["angles", "quaternions", "components"] = "angles"
    """axis-angle in radians; quaternions w, x, y, z of all 16 joints; principal components of the fingers, with the
    wrist as axis-angle or quaternion"""
    add_mean: bool = False
    """whether MANO's mean pose is to be added (``flat_hand_mean=False``)"""
    at_wrist: bool = False
    """whether translations say where the wrist is (``center_idx=0``); else how far the mesh, posed about its wrist
    joint, is moved"""
    left_is_mirrored: bool = False
    """whether betas of left hands are those of a mirrored right one: the writer mended MANO_LEFT.pkl's shape
    directions (smplx, issue 48); else see `hands.our_left`"""


@dataclass(frozen=True)
class RawHand:
    """A hand in one or more frames, as a file has it."""

    values: Mapping[str, Any]
    """fields by the names of the convention, one row a frame"""
    side: str
    where: str
    """in the file, for errors"""
    frames: Sequence[int] | None = None
    """numbers of the frames; None where the file does not count them"""
    names: Sequence[str] | None = None
    """of the frames; their numbers when None"""
    kept: np.ndarray | None = None
    """``(F,)`` bool: which of the frames of ``values`` there are; all when None"""
    object_id: str = ""
    object_pose: np.ndarray | None = None
    """``(F, 4, 4)`` object to the frame of the hands, metres"""
    more: Mapping[str, Any] = field(default_factory=dict)
    """further columns, one row a frame"""


def hand_columns(
    hands: Sequence[RawHand], convention: Convention, mano_dir: str | Path | None, *, betas: np.ndarray | None = None
) -> Columns:
    """Columns of all hands, one after the other; one that cannot be read comes out as an empty row, with a warning.

    Args:
        betas: ``(10,)``, in place of the file's.

    Raises:
        ValueError: no hand can be read; names the field.
        MissingManoError: mean pose or components are needed, and MANO is not there.
    """
    rows = each(
        hands, lambda hand: _rows(hand, convention, betas), lambda hand: [_labels(hand, 0, None)], "hands",
        lambda hand: hand.where,
    )  # fmt: skip
    flat = [row for of_hand in rows for row in of_hand]
    if not flat:
        return {"side": np.zeros(0, np.str_), "object_id": np.zeros(0, np.str_), **pose_columns(0, ())}
    with_object = any("object_pose" in row for row in flat)
    shapes = {name: shape for name, shape in _EMPTY.items() if name != "object_pose" or with_object}
    shapes |= {name: np.shape(value)[1:] for hand in hands for name, value in hand.more.items()}
    columns = stacked(flat, shapes)
    if (columns["frame_index"] < 0).any():
        del columns["frame_index"]
    parameters = [columns.pop(name) for name in ("orient", "fingers", "betas", "transl")]
    parts = []
    for side, of in by_side(columns["side"]):
        width = _width(parameters[1][of])
        orient, fingers, shape, transl = (value[of] for value in parameters)
        part = mano_columns(
            side, orient, fingers[:, :width], shape, transl, mano_dir, components=convention.rotations == "components",
            add_mean=convention.add_mean, left_is_mirrored=convention.left_is_mirrored,
        )  # fmt: skip
        if convention.at_wrist:
            part["transl"] = transl - root_joints(part["betas"], part["side"], mano_dir)
        parts.append((of, {name: part[name] for name in POSE}))
    return columns | pose_columns(len(flat), parts)


def _width(fingers: np.ndarray) -> int:
    """How many coefficients rows of 45 numbers, NaN beyond their own, have."""
    known = np.isfinite(fingers).any(0)
    return int(np.flatnonzero(known)[-1]) + 1 if known.any() else fingers.shape[1]


def _rows(hand: RawHand, convention: Convention, betas: np.ndarray | None) -> list[dict[str, Any]]:
    """Its frames as dictionaries of numbers and labels."""
    c, values = convention, hand.values
    orient, fingers = _rotations(values, c)
    count = len(orient)
    shape = betas if betas is not None else np.zeros(10)
    if betas is None and (name := named(values, c.betas)):
        shape = numbers(f"field {name!r}", values[name])
        shape = shape[..., :10] if shape.ndim and 10 < shape.shape[-1] <= 16 else shape  # smplx knows up to 16
    shape = per_hand(f"field {named(values, c.betas) or 'betas'!r}", shape, count, 10)
    place = _name(values, c.transl, "translation")
    transl = per_hand(f"field {place!r}", values[place], count, 3)
    padded = np.full((count, 45), np.nan)
    padded[:, : fingers.shape[1]] = fingers
    kept = np.flatnonzero(np.ones(count, bool) if hand.kept is None else hand.kept[:count])
    for name, column in (("object_pose", hand.object_pose), *hand.more.items()):
        if column is not None and len(column) != count:
            raise ValueError(f"{name} has {len(column)} frames, the hand {count}.")
    parameters = {"orient": orient, "fingers": padded, "betas": shape, "transl": transl, **hand.more}
    if hand.object_pose is not None:
        parameters["object_pose"] = hand.object_pose
    return [_labels(hand, k, count) | {name: value[k] for name, value in parameters.items()} for k in kept.tolist()]


def _labels(hand: RawHand, k: int, count: int | None) -> dict[str, Any]:
    """Labels of the frame ``k`` of ``count``; None: of a hand that cannot be read."""
    number = -1 if hand.frames is None or k >= len(hand.frames) else hand.frames[k]
    name = hand.names[k] if hand.names is not None and k < len(hand.names) else str(k if number < 0 else number)
    labels = {"side": hand.side, "object_id": hand.object_id, "frame_index": number, "frame_id": name}
    if count is None:
        labels |= {key: np.full(np.shape(value)[1:], np.nan) for key, value in hand.more.items()}
    return labels


def _rotations(values: Mapping[str, Any], c: Convention) -> tuple[np.ndarray, np.ndarray]:
    """``(F, 3)`` axis-angle of the wrist and ``(F, n)`` angles or coefficients of the fingers."""
    if c.rotations == "quaternions":
        name = _name(values, c.pose, "pose")
        full = numbers(f"field {name!r}", values[name])
        if full.ndim == 0 or full.size % 64 or full.shape[-1] not in (4, 64):
            raise ValueError(f"field {name!r} has shape {full.shape}; expected (F, 16, 4) quaternions w, x, y, z.")
        angles = _from_quaternions(full.reshape(-1, 16, 4))
        return angles[:, 0], angles[:, 1:].reshape(-1, 45)
    if c.pose:
        name = _name(values, c.pose, "pose")
        full = numbers(f"field {name!r}", values[name])
        if c.rotations == "angles":
            fits = full.size and full.size % 48 == 0 and 48 in (full.shape[-1], full.shape[-1] * full.shape[-2:][0])
            full = full.reshape(-1, 48) if fits else full
        elif full.ndim == 1:
            full = full[None]
        if full.ndim != 2 or not (full.shape[1] == 48 or (c.rotations == "components" and 3 < full.shape[1] < 48)):
            raise ValueError(f"field {name!r} has shape {full.shape}; expected 48 numbers for each frame.")
        return full[:, :3], full[:, 3:]
    turn, bend = _name(values, c.orient, "rotation of the wrist"), _name(values, c.fingers, "rotation of the fingers")
    orient, fingers = numbers(f"field {turn!r}", values[turn]), numbers(f"field {bend!r}", values[bend])
    if not orient.ndim or orient.shape[-1] not in (3, 4):
        raise ValueError(f"field {turn!r} has shape {orient.shape}; expected (F, 3) axis-angle or (F, 4) quaternions.")
    orient = orient.reshape(-1, orient.shape[-1])
    orient = orient if orient.shape[1] == 3 else _from_quaternions(orient)
    fits = fingers.size == 45 * len(orient) if c.rotations == "angles" else 0 < fingers.size <= 45 * len(orient)
    if not fits or fingers.size % len(orient):
        raise ValueError(f"field {bend!r} has shape {fingers.shape}; expected {(len(orient), 45)}.")
    return orient, fingers.reshape(len(orient), -1)


def _from_quaternions(wxyz: np.ndarray) -> np.ndarray:
    """``(..., 4)`` w, x, y, z to ``(..., 3)`` axis-angle; NaN where one has no direction."""
    flat = wxyz.reshape(-1, 4)
    length = np.linalg.norm(np.where(np.isfinite(flat), flat, 0), axis=1)
    proper = np.isfinite(flat).all(1) & (length > 1e-6)
    vectors = np.full((len(flat), 3), np.nan)
    vectors[proper] = Rotation.from_quat(flat[proper][:, [1, 2, 3, 0]]).as_rotvec()
    return vectors.reshape(*wxyz.shape[:-1], 3)


def _name(values: Mapping[str, Any], names: Sequence[str], what: str) -> str:
    name = named(values, names)
    if name is None:
        raise ValueError(f"no {what} under any of {', '.join(names)}; it has {', '.join(map(str, values))[:200]}.")
    return name
