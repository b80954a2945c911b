"""How far a hand has passed *through* an object, which depth does not tell of a wall thinner than a finger.

Joints (B, 21, 3) and vertices (B, V, 3) of a batch go in, metres in the object's frame, OpenPose order, and one object
or one per grasp; one value per grasp (B,) comes out, NaN for hands with NaN. Surfaces are the zeros of the object's
signed-distance grid. Wrong shapes, or as many objects as there are not grasps, are a ``ValueError``.
"""

from __future__ import annotations

import numpy as np

from hand_models.skeleton import bones

from .arguments import Array, Objects, alike, per_grasp
from .contact import signed_distance

_PARENT, _CHILD = np.array(bones()).T
_ALONG_RAY = np.linspace(0, 1, 17)
"""Of a finger's thickness: steps of half a millimetre."""
_ALONG_BONE = np.linspace(0, 1, 33)
_TIP = 0.75
"""Share of a finger's last bone that is looked at: its end is a point of the skin, which may sink in."""


def crossing_depth(joints: Array, vertices: Array, obj: Objects) -> np.ndarray:
    """How far skin has passed through the object's surface, seen from the bones: max over v of ℓ(v); metres.

    The ray of a skin point v runs to it from the nearest point of the hand's bones; ℓ(v) is the length of it that lies
    beyond where it first enters the object, all of it where the bone is inside already, 0 where it enters nowhere. Of
    skin in a solid that is its depth along the ray; of a finger around a wall, the wall and what has come out behind
    it.
    """
    (skin,) = alike("(B, V, 3)", vertices=vertices)
    (known,) = alike("(B, 21, 3)", joints=joints)
    things = per_grasp(obj, len(skin))
    deepest = np.full(len(skin), np.nan)
    for row, thing in enumerate(things):
        axis = _nearest_on_bones(known[row], skin[row])
        ray = skin[row] - axis
        samples = axis[:, None] + _ALONG_RAY[:, None] * ray[:, None]
        distance = signed_distance(samples.reshape(1, -1, 3), thing).reshape(samples.shape[:2])
        if np.isfinite(distance).all():
            beyond = (1 - _first_entry(distance)) * np.linalg.norm(ray, axis=1)
            deepest[row] = beyond.max()
    return deepest


def bones_crossing(joints: Array, obj: Objects) -> np.ndarray:
    """How many of a hand's twenty bones run through the object's surface or inside it.

    From the wrist to the fingertips; of the last bone of a finger, three quarters of it.
    """
    (known,) = alike("(B, 21, 3)", joints=joints)
    start, end = known[:, _PARENT], known[:, _CHILD]
    end = np.where(np.isin(_CHILD, _PARENT)[:, None], end, start + _TIP * (end - start))
    samples = start[:, :, None] + _ALONG_BONE[:, None] * (end - start)[:, :, None]
    distance = signed_distance(samples.reshape(len(known), -1, 3), obj).reshape(samples.shape[:3])
    nearest = distance.min(axis=2)
    return np.where(np.isnan(nearest).any(axis=1), np.nan, (nearest < 0).sum(axis=1))


def _nearest_on_bones(joints: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The nearest point (n, 3) of a hand's bones, by its joints (21, 3), to each of the points (n, 3)."""
    start, bone = joints[_PARENT], joints[_CHILD] - joints[_PARENT]
    offset = points[:, None] - start
    share = (offset * bone).sum(axis=2) / np.maximum((bone * bone).sum(axis=1), 1e-12)
    on_bone = start + np.clip(share, 0, 1)[..., None] * bone
    nearest = np.square(points[:, None] - on_bone).sum(axis=2).argmin(axis=1)
    return on_bone[np.arange(len(points)), nearest]


def _first_entry(distance: np.ndarray) -> np.ndarray:
    """Share (n,) of rays at which signed distances (n, k) first fall below zero, linear between them; 1 where never."""
    inside = distance < 0
    first = inside.argmax(axis=1)
    row, before = np.arange(len(distance)), np.maximum(first - 1, 0)
    here, there = distance[row, before], distance[row, first]
    step = np.where(first > 0, here / np.maximum(here - there, 1e-12), 0.0)
    return np.where(inside.any(axis=1), (before + step) / (distance.shape[1] - 1), 1.0)
