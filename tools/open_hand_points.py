"""Regressors and named vertices of the open hand (build-time only)."""

from __future__ import annotations

import numpy as np
from open_hand_rest import PARENTS, TIP_PARENT, WRIST
from scipy.optimize import nnls

_TIPS_THUMB_FIRST = (4, 0, 1, 3, 2)  # rows of (index, middle, pinky, ring, thumb) in thumb ... pinky order


def fit_joint_regressor(template: np.ndarray, shapedirs: np.ndarray, joints: np.ndarray, joint_dirs: np.ndarray,
                        weights: np.ndarray, reach: float = 0.035) -> np.ndarray:
    """Non-negative rows (16,V), each summing to 1, that give the joints of the mean hand and follow its shape.

    template (V,3), shapedirs (V,3,10), joints (16,3), joint_dirs (16,3,10), metres; weights (V,16).  Each row uses
    vertices of the joint's two bones within ``reach`` metres, spread out rather than few.
    """
    out = np.zeros((len(joints), len(template)))
    for j, centre in enumerate(joints):
        share = weights[:, j] + (weights[:, PARENTS[j]] if j else 0)
        distance = np.linalg.norm(template - centre, axis=1)
        ids = np.flatnonzero((share > 0.3) & (distance < reach))
        rows = [
            1e3 * template[ids].T,
            10.0 * np.ones((1, len(ids))),
            30.0 * shapedirs[ids].transpose(1, 2, 0).reshape(-1, len(ids)),
            np.diag(distance[ids] * 0.3),
        ]
        goal = [1e3 * centre, [10.0], 30.0 * joint_dirs[j].ravel(), np.zeros(len(ids))]
        out[j, ids] = nnls(np.concatenate(rows), np.concatenate(goal))[0]
        out[j] = _exact(out[j], template, centre)
    return out


def fit_tip_regressor(template: np.ndarray, tips: np.ndarray, weights: np.ndarray, reach: float = 0.011) -> np.ndarray:
    """Non-negative rows (5,V) in thumb ... pinky order that reach the tip points (5,3) from the skin around them."""
    out = np.zeros((5, len(template)))
    for row, finger in enumerate(_TIPS_THUMB_FIRST):
        distance = np.linalg.norm(template - tips[finger], axis=1)
        ids = np.flatnonzero((weights[:, TIP_PARENT[finger]] > 0.5) & (distance < reach))
        a = np.concatenate([1e3 * template[ids].T, 10.0 * np.ones((1, len(ids))), np.diag(distance[ids])])
        out[row, ids] = nnls(a, np.concatenate([1e3 * tips[finger], [10.0], np.zeros(len(ids))]))[0]
        out[row] = _exact(out[row], template, tips[finger])
    return out


def _exact(row: np.ndarray, template: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The nearest row with the same support that sums to 1 and meets ``goal`` exactly."""
    ids = np.flatnonzero(row > 0)
    a = np.concatenate([template[ids].T - goal[:, None], np.ones((1, len(ids)))])
    fixed = row.copy()
    scale = row[ids]  # change large entries more than small ones, so that none turns negative
    fixed[ids] += scale * (np.linalg.pinv(a * scale) @ (np.array([0, 0, 0, 1.0]) - a @ row[ids]))
    return fixed


def palm_side(normals: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How far the skin faces the palm's side (V,), -1 ... 1; the thumb's side is turned towards the palm."""
    thumb = weights[:, 13:].sum(1, keepdims=True)
    towards = (1 - thumb) * np.array([0.0, -1.0, 0.0]) + thumb * _THUMB_PALMAR
    return np.einsum("vc,vc->v", normals, towards / np.linalg.norm(towards, axis=1, keepdims=True))


# The thumb's back faces (1, 1, 1) in MANO's rest frame, across its bone; its pad the other way.
_THUMB_PALMAR = -np.array([0.65, 1.0, 1.0]) / np.linalg.norm([0.65, 1.0, 1.0])


def skin_density(vertices: np.ndarray, normals: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Wanted points per area (V,), relative: more on fingers than palm, more on the palm's side than the back."""
    fingers = weights[:, 1:].sum(1)
    tips = weights[:, list(TIP_PARENT)].sum(1)
    side = np.clip(0.5 + 0.8 * palm_side(normals, weights), 0, 1)
    return (0.3 + 0.7 * side) * (1 + 0.6 * fingers + 0.6 * tips)


def palm_vertices(template: np.ndarray, normals: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Skin of the palm with the ball of the thumb: facing the palm's side, in front of the wrist."""
    of_palm = weights[:, [0, 13]].sum(1) > 0.5
    return np.flatnonzero(of_palm & (palm_side(normals, weights) > 0.4) & (template[:, 0] < WRIST[0] - 0.012))


def pad_vertices(template: np.ndarray, normals: np.ndarray, tips: np.ndarray, joints: np.ndarray,
                 weights: np.ndarray) -> np.ndarray:
    """The vertex in the middle of each finger pad's end (5,), thumb ... pinky.

    It is the one nearest to a ray that leaves the finger's axis 6 mm short of the tip towards the palmar side.
    """
    out = []
    for finger in _TIPS_THUMB_FIRST:
        j = TIP_PARENT[finger]
        axis = tips[finger] - joints[j]
        axis = axis / np.linalg.norm(axis)
        palmar = _THUMB_PALMAR if j == 15 else np.array([0.0, -1.0, 0.0])
        palmar = palmar - axis * (palmar @ axis)
        palmar = palmar / np.linalg.norm(palmar)
        ids = np.flatnonzero((weights[:, j] > 0.5) & (normals @ palmar > 0.3))
        seen = template[ids] - (tips[finger] - 0.006 * axis)
        out.append(ids[np.linalg.norm(seen - np.outer(seen @ palmar, palmar), axis=1).argmin()])
    return np.array(out)
