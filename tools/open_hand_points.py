"""Regressors and named vertices of the open hand (build-time only)."""

from __future__ import annotations

import numpy as np
from open_hand_centres import PALMAR, THUMB_PALMAR, interior_point
from open_hand_rest import PARENTS, TIP_PARENT

_TIPS_THUMB_FIRST = (4, 0, 1, 3, 2)  # rows of (index, middle, pinky, ring, thumb) in thumb ... pinky order


def fit_joint_regressor(
    template: np.ndarray, shapedirs: np.ndarray, joints: np.ndarray, joint_dirs: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Non-negative rows (16,V), each summing to 1, that give the joints of the mean hand and follow its shape.

    template (V,3), shapedirs (V,3,10), joints (16,3), joint_dirs (16,3,10), metres; weights (V,16).
    """
    rows = []
    for j, centre in enumerate(joints):
        share = weights[:, j] + (weights[:, PARENTS[j]] if j else 0)
        rows.append(interior_point(template, centre, share > 0.3, 0.035, follow=(shapedirs, joint_dirs[j])))
    return np.array(rows)


def fit_tip_regressor(template: np.ndarray, tips: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Non-negative rows (5,V), thumb ... pinky, that reach the tip points (5,3) from the skin around them."""
    return np.array(
        [interior_point(template, tips[f], weights[:, TIP_PARENT[f]] > 0.5, 0.011) for f in _TIPS_THUMB_FIRST]
    )


def palm_side(normals: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How far the skin faces the palm's side (V,), -1 ... 1; the thumb's side is turned towards the palm."""
    thumb = weights[:, 13:].sum(1, keepdims=True)
    towards = (1 - thumb) * PALMAR + thumb * THUMB_PALMAR
    return np.einsum("vc,vc->v", normals, towards / np.linalg.norm(towards, axis=1, keepdims=True))


def skin_density(vertices: np.ndarray, normals: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Wanted points per area (V,), relative: more on fingers than palm, more on the palm's side than the back."""
    fingers = weights[:, 1:].sum(1)
    tips = weights[:, list(TIP_PARENT)].sum(1)
    side = np.clip(0.5 + 0.8 * palm_side(normals, weights), 0, 1)
    return (0.3 + 0.7 * side) * (1 + 0.6 * fingers + 0.6 * tips)
