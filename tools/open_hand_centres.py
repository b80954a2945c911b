"""Where the joints of the source hand are, anatomically (build-time only).

MakeHuman's helper cubes put the finger joints 3-4 mm under the skin of the back.  Anatomy (and MANO, whose joints
are averages of rings of skin around them) has them near the middle of the finger; left where they are, laying them
on MANO's skeleton would carry all pads several millimetres too far towards the palm's side.
"""

from __future__ import annotations

import numpy as np
from open_hand_rest import PARENTS, TIP_PARENT, bone_directions, rest_skeleton, similarity
from scipy.optimize import nnls

# Depth of each joint under the back's skin as a share of the thickness there; None keeps the source's centre.
_KNUCKLE, _FINGER_JOINT = 0.40, 0.45
_DEPTH: tuple[float | None, ...] = (None, *4 * (_KNUCKLE, _FINGER_JOINT, _FINGER_JOINT), None, 0.42, _FINGER_JOINT)
# The finger's end is taken this far (metres) inside its furthest skin.
_END_INSET = 0.0015
_END_ROUND = 0.005
# The side of the pad in MANO's rest frame: the thumb's back faces (1, 1, 1) across its bone, as MANO's users take it.
PALMAR = np.array([0.0, -1.0, 0.0])
THUMB_PALMAR = -np.array([0.65, 1.0, 1.0]) / np.linalg.norm([0.65, 1.0, 1.0])


def joint_regressors(
    skin: np.ndarray, faces: np.ndarray, joints: np.ndarray, ends: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Regressors (16,V) and (5,V) from the source's skin to its joint centres and finger ends.

    skin (V,3), joints (16,3) and ends (5,3) in metres, the source's frame; weights (V,16).
    """
    palm = [0, 1, 4, 7, 10, 13]
    _, rotation, _ = similarity(joints[palm], rest_skeleton()[0][palm])
    directions = bone_directions(joints, ends)
    centres, tips = joints.copy(), ends.copy()
    for j, depth in enumerate(_DEPTH):
        if depth is None:
            continue
        along = directions[j] + (directions[PARENTS[j]] if PARENTS[j] else 0)
        palmar = across(rotation.T @ (THUMB_PALMAR if j > 12 else PALMAR), along)
        back, front = (ray_length(joints[j], d, skin, faces) for d in (-palmar, palmar))
        centres[j] = joints[j] + (depth * (back + front) - back) * palmar
    for finger, j in enumerate(TIP_PARENT):
        own = skin[weights[:, j] > 0.5]
        reach = (own - centres[j]) @ directions[j]
        # The middle of the finger's thickness where its end begins to round off, carried on to the end.
        start = own[reach > reach.max() - 2 * _END_ROUND].mean(0)
        start += (reach.max() - _END_ROUND - (start - centres[j]) @ directions[j]) * directions[j]
        palmar = across(rotation.T @ (THUMB_PALMAR if j > 12 else PALMAR), directions[j])
        back, front = (ray_length(start, d, skin, faces) for d in (-palmar, palmar))
        end = start + 0.5 * (front - back) * palmar - centres[j]
        tips[finger] = centres[j] + end * (reach.max() - _END_INSET) / (end @ directions[j])
    share = [weights[:, j] + (weights[:, PARENTS[j]] if j else 0) for j in range(16)]
    regressor = np.array([interior_point(skin, c, s > 0.3, 0.05) for c, s in zip(centres, share, strict=True)])
    end_regressor = np.array(
        [interior_point(skin, t, weights[:, j] > 0.5, 0.015) for t, j in zip(tips, TIP_PARENT, strict=True)]
    )
    return regressor, end_regressor


def across(direction: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Unit part of ``direction`` (3,) at right angles to ``axis`` (3,)."""
    axis = axis / np.linalg.norm(axis)
    direction = direction - axis * (direction @ axis)
    return direction / np.linalg.norm(direction)


def ray_length(origin: np.ndarray, direction: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> float:
    """Distance from ``origin`` (3,) along the unit ``direction`` (3,) to the first triangle it meets.

    Möller and Trumbore 1997.  Raises ValueError when it meets none.
    """
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    e1, e2 = b - a, c - a
    p = np.cross(direction, e2)
    det = np.einsum("fc,fc->f", e1, p)
    inverse = 1 / np.where(np.abs(det) < 1e-15, np.inf, det)
    t = origin - a
    u = np.einsum("fc,fc->f", t, p) * inverse
    q = np.cross(t, e1)
    v = q @ direction * inverse
    length = np.einsum("fc,fc->f", e2, q) * inverse
    hit = (det != 0) & (u >= 0) & (v >= 0) & (u + v <= 1) & (length > 1e-9)
    if not hit.any():
        raise ValueError("ray_length: the ray meets no triangle; is the origin inside the mesh?")
    return float(length[hit].min())


def interior_point(
    vertices: np.ndarray,
    point: np.ndarray,
    allowed: np.ndarray,
    reach: float,
    follow: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Non-negative row (V,), sum 1, that gives ``point`` (3,) exactly from the ``allowed`` skin within ``reach``.

    Near vertices are preferred, and many to few.  follow: shape directions of the skin (V,3,K) and of the point
    (3,K) that the row should reproduce as well as it can.
    """
    distance = np.linalg.norm(vertices - point, axis=1)
    ids = np.flatnonzero(allowed & (distance < reach))
    rows = [1e3 * vertices[ids].T, 10.0 * np.ones((1, len(ids))), np.diag(0.3 * distance[ids])]
    goal = [1e3 * point, [10.0], np.zeros(len(ids))]
    if follow is not None:
        rows.append(30.0 * follow[0][ids].transpose(1, 2, 0).reshape(-1, len(ids)))
        goal.append(30.0 * follow[1].ravel())
    row = nnls(np.concatenate(rows), np.concatenate(goal))[0]
    # Meet the point and the sum exactly; large entries change more than small ones, so that none turns negative.
    used = row > 0
    a = np.concatenate([vertices[ids[used]].T - point[:, None], np.ones((1, used.sum()))])
    row[used] += row[used] * (np.linalg.pinv(a * row[used]) @ (np.array([0, 0, 0, 1.0]) - a @ row[used]))
    out = np.zeros(len(vertices))
    out[ids] = row
    return out
