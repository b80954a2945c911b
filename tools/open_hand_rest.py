"""Bringing MakeHuman's right hand onto MANO's rest skeleton (build-time only).

MANO's rest frame: right hand, metres, wrist joint at ``WRIST``, fingers along -x, palm towards -y, thumb towards
+z.  Only the skeleton's published bone vectors are taken over; the skin is MakeHuman's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import RBFInterpolator

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
TIP_PARENT = (3, 6, 9, 12, 15)  # last joint of index, middle, pinky, ring, thumb
WRIST = np.array([0.09567, 0.00638, 0.00619])
_PALM_JOINTS = (0, 1, 4, 7, 10, 13)

# Bone vectors of the rest skeleton in millimetres: wrist -> 1 -> 2 -> 3 -> tip, joint order of the model.
_BONES_MM = {
    "index": ((-88.1, -5.2, 20.7), (-32.7, 4.0, 2.2), (-22.2, -1.3, -0.1), (-23.3, 0.7, 4.0)),
    "middle": ((-94.7, -1.5, -3.4), (-31.2, 1.9, -5.6), (-22.9, -1.3, -3.9), (-31.0, -1.4, -6.4)),
    "pinky": ((-68.8, -9.9, -43.2), (-17.0, 0.1, -12.5), (-15.9, -0.7, -10.3), (-19.6, 2.6, -11.5)),
    "ring": ((-81.7, -4.0, -26.7), (-28.3, 2.1, -5.1), (-23.5, -1.7, -7.6), (-29.2, 3.7, -8.1)),
    "thumb": ((-24.1, -15.5, 25.8), (-19.6, 0.9, 23.7), (-22.2, -5.4, 14.5), (-31.5, -6.5, 20.5)),
}
# How far the skin reaches past the tip point along the last bone (metres): the skin rounds off around the
# tip point, which must lie within it for the regressor to reach it.
TIP_MARGIN = 0.002
WRIST_GIRTH = np.array([1.0, 1.12, 1.17])
WRIST_TILT = np.deg2rad(10)  # of the ~20 degrees by which the source's forearm is bent back


def rest_skeleton() -> tuple[np.ndarray, np.ndarray]:
    """Joint centres (16,3) and finger tips (5,3; index, middle, pinky, ring, thumb) in metres at zero betas."""
    joints, tips = [WRIST], []
    for bones in _BONES_MM.values():
        chain = WRIST + np.cumsum(np.array(bones) * 1e-3, axis=0)
        joints.extend(chain[:3])
        tips.append(chain[3])
    return np.array(joints), np.array(tips)


def minimal_rotation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation (3,3) that takes the direction of ``a`` to that of ``b``."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    v, c = np.cross(a, b), float(a @ b)
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1 + c)


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Least-squares s, R, t with ``target ~ s R source + t`` for points (N,3) (Umeyama 1991)."""
    cs, ct = source.mean(0), target.mean(0)
    u, d, vt = np.linalg.svd((target - ct).T @ (source - cs))
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((d * sign).sum() / ((source - cs) ** 2).sum())
    return scale, rotation, ct - scale * rotation @ cs


def blend(weights: np.ndarray, linear: np.ndarray, offset: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Linear blend skinning of points (V,3): per joint x -> linear (16,3,3) x + offset (16,3), weights (V,16)."""
    return np.einsum("vj,jab,vb->va", weights, linear, points) + weights @ offset


def unpose(
    vertices: np.ndarray, joints: np.ndarray, ends: np.ndarray, weights: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn every finger bone to the unit ``directions`` (16,3; row 0 unused), keeping bone lengths.

    Returns the new vertices (V,3), joints (16,3) and finger ends (5,3).
    """
    rotations, new_joints = np.tile(np.eye(3), (16, 1, 1)), joints.copy()
    new_ends = ends.copy()
    for j in range(1, 16):
        parent = PARENTS[j]
        bone = ends[TIP_PARENT.index(j)] - joints[j] if j in TIP_PARENT else joints[j + 1] - joints[j]
        if parent:
            new_joints[j] = new_joints[parent] + rotations[parent] @ (joints[j] - joints[parent])
        rotations[j] = minimal_rotation(rotations[parent] @ bone, directions[j]) @ rotations[parent]
        if j in TIP_PARENT:
            new_ends[TIP_PARENT.index(j)] = new_joints[j] + rotations[j] @ bone
    offset = new_joints - np.einsum("jab,jb->ja", rotations, joints)
    return blend(weights, rotations, offset, vertices), new_joints, new_ends


def bone_directions(joints: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Unit direction (16,3) of the bone that starts at each joint (row 0: zeros)."""
    out = np.zeros((16, 3))
    for j in range(1, 16):
        bone = ends[TIP_PARENT.index(j)] - joints[j] if j in TIP_PARENT else joints[j + 1] - joints[j]
        out[j] = bone / np.linalg.norm(bone)
    return out


@dataclass(frozen=True)
class RestWarp:
    """Map from the source hand to the rest frame: blended affine maps plus a smooth displacement of the palm.

    linear (16,3,3), offset (16,3): per joint affine map; weights (V,16); palm_shift (V,3) metres, already weighted.
    """

    linear: np.ndarray
    offset: np.ndarray
    weights: np.ndarray
    palm_shift: np.ndarray

    def points(self, vertices: np.ndarray) -> np.ndarray:
        """Source vertices (V,3) brought to rest."""
        return blend(self.weights, self.linear, self.offset, vertices) + self.palm_shift

    def offsets(self, deviations: np.ndarray) -> np.ndarray:
        """Small source displacements (...,V,3) brought to rest (the linear part of the map)."""
        per_vertex = np.einsum("vj,jab->vab", self.weights, self.linear)
        return np.einsum("vab,...vb->...va", per_vertex, deviations)


def fit_rest_warp(
    vertices: np.ndarray, joints: np.ndarray, ends: np.ndarray, weights: np.ndarray, girth: np.ndarray
) -> RestWarp:
    """Fit the map that lays the joints (16,3) of the source hand exactly on the rest skeleton.

    girth (16,) scales each finger bone across its axis.
    """
    target, tips = rest_skeleton()
    scale, rotation, shift = similarity(joints[list(_PALM_JOINTS)], target[list(_PALM_JOINTS)])
    linear, offset = np.tile(scale * rotation, (16, 1, 1)), np.tile(shift, (16, 1))
    turned = np.tile(rotation, (16, 1, 1))
    for j in range(1, 16):
        last = j in TIP_PARENT
        bone = ends[TIP_PARENT.index(j)] - joints[j] if last else joints[j + 1] - joints[j]
        goal = tips[TIP_PARENT.index(j)] - target[j] if last else target[j + 1] - target[j]
        axis = goal / np.linalg.norm(goal)
        turned[j] = minimal_rotation(turned[PARENTS[j]] @ bone, goal) @ turned[PARENTS[j]]
        if last:  # the skin, not the bone's nominal end, is to reach the tip
            own = weights[:, j] > 0.5
            reach = ((vertices[own] - joints[j]) @ turned[j].T @ axis).max()
            stretch = (np.linalg.norm(goal) + TIP_MARGIN) / reach
        else:
            stretch = np.linalg.norm(goal) / np.linalg.norm(bone)
        across = scale * girth[j]
        linear[j] = (across * np.eye(3) + (stretch - across) * np.outer(axis, axis)) @ turned[j]
        offset[j] = target[j] - linear[j] @ joints[j]

    palm = scale * joints[list(_PALM_JOINTS)] @ rotation.T + shift
    residual = target[list(_PALM_JOINTS)] - palm
    field = RBFInterpolator(palm, residual, kernel="gaussian", epsilon=1 / 0.05, degree=0)
    moved = scale * vertices @ rotation.T + shift
    shift = field(moved)
    shift += _fuller_wrist(moved + shift)
    return RestWarp(linear, offset, weights, weights[:, :1] * shift)


def _fuller_wrist(vertices: np.ndarray) -> np.ndarray:
    """Displacement (V,3) that widens the wrist, slimmer in the source than in people, and levels the forearm stub."""
    along = np.clip((vertices[:, 0] - 0.055) / 0.05, 0, 1)
    ramp = (along * along * (3 - 2 * along))[:, None]
    turned = (vertices - WRIST) @ _axis_rotation(np.array([0.0, 0.0, 1.0]), -WRIST_TILT).T
    return ramp * (turned * WRIST_GIRTH + WRIST - vertices)


def _axis_rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def flexed(vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, angle: float) -> np.ndarray:
    """Rest hand (V,3) with every finger joint but the thumb's bent by ``angle`` about +z, the thumb's by half."""
    rotations, posed = np.tile(np.eye(3), (16, 1, 1)), joints.copy()
    for j in range(1, 16):
        parent = PARENTS[j]
        local = _axis_rotation(np.array([0.0, 0.0, 1.0]), angle if j < 13 else 0.5 * angle)
        posed[j] = posed[parent] + rotations[parent] @ (joints[j] - joints[parent])
        rotations[j] = rotations[parent] @ local
    return blend(weights, rotations, posed - np.einsum("jab,jb->ja", rotations, joints), vertices)


def stretch_bones(
    vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, palm: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scale the palm (2,) in thickness (y) and width (z) and each finger (5,) along its own bones.

    Works in the rest frame on a hand already there; joints follow.  Returns skin (V,3) and joints (16,3).
    """
    linear, moved = np.tile(np.eye(3), (16, 1, 1)), joints.copy()
    linear[0] = np.diag([1.0, *palm])
    for j in range(1, 16):
        parent, finger = PARENTS[j], (j - 1) // 3
        moved[j] = moved[parent] + linear[parent] @ (joints[j] - joints[parent])
        first = 3 * finger + 1
        axis = joints[first + 2] - joints[first]
        axis = axis / np.linalg.norm(axis)
        linear[j] += (lengths[finger] - 1) * np.outer(axis, axis)
    return blend(weights, linear, moved - np.einsum("jab,jb->ja", linear, joints), vertices), moved
