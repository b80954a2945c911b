"""Hand parameters between conventions: rotations, pivots, principal components, left hands.

numpy, float64, metres and radians. Rows that make no sense come out as NaN, which
`refine.files.predictions.row_problems` reports row by row; they never stop the others.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from hand_models import HandPose, MissingManoError, find_mano, load_hand_model, load_mano, load_mano_pca
from hand_models.mano import ManoFields, read_fields

from ..predictions import Predictions, has_joints, has_pose
from .columns import POSE, Columns

FLIP_YZ = np.diag([1.0, -1.0, -1.0])
"""Between OpenGL's camera (y up, z backwards) and OpenCV's, either way."""
_MIRROR = np.array([-1.0, 1.0, 1.0])
_NOT_A_ROTATION = 0.01  # largest entry of R Rᵀ - 1 that is let pass


def matrices(rotation: np.ndarray) -> np.ndarray:
    """``(..., 3)`` axis-angle to ``(..., 3, 3)``."""
    rotation = np.asarray(rotation, np.float64)
    return Rotation.from_rotvec(rotation.reshape(-1, 3)).as_matrix().reshape(*rotation.shape, 3)


def axis_angle(rotation: np.ndarray) -> np.ndarray:
    """``(..., 3, 3)`` matrices to ``(..., 3)``; NaN where one is not orthonormal to 0.01 or mirrors."""
    rotation = np.asarray(rotation, np.float64)
    with np.errstate(all="ignore"):
        off = np.abs(rotation @ np.swapaxes(rotation, -1, -2) - np.eye(3)).max((-1, -2), initial=0)
        proper = (off < _NOT_A_ROTATION) & (np.linalg.det(np.nan_to_num(rotation)) > 0)
    vectors = np.full(rotation.shape[:-1], np.nan)
    vectors[proper] = Rotation.from_matrix(rotation[proper]).as_rotvec()
    return vectors


def mirrored(rotation: np.ndarray) -> np.ndarray:
    """``(..., 3)`` axis-angle in a mirror that flips x."""
    return rotation * -_MIRROR


def moved(hand: Columns, roots: np.ndarray, rotation: np.ndarray, shift: np.ndarray | float = 0.0) -> Columns:
    """``hand`` after the motion ``x -> rotation x + shift`` of the world.

    Args:
        hand: columns, `global_orient` and `transl (N, 3)` among them.
        roots: ``(N, 3)`` joint J0 of each shape, about which hands turn; metres.
        rotation: ``(3, 3)`` or ``(N, 3, 3)``.
        shift: ``(3,)`` or ``(N, 3)`` metres.
    """
    orient, transl = hand["global_orient"], hand["transl"]
    wrist = (rotation @ (roots + transl)[..., None])[..., 0] + shift
    return hand | {"global_orient": axis_angle(rotation @ matrices(orient)), "transl": wrist - roots}


# The user's MANO ------------------------------------------------------------------------------------


def _mano(mano_dir: str | Path | None, side: str) -> ManoFields:
    return read_fields(find_mano(mano_dir, side))


def mean_root() -> np.ndarray:
    """(3,) joint J0 of the right hand of mean shape, metres: that of the open hand, which is laid on MANO's."""
    return load_hand_model("open").root(HandPose.zeros(1))[0].double().numpy()


def root_joints(betas: np.ndarray, sides: np.ndarray, mano_dir: str | Path | None = None) -> np.ndarray:
    """Joint J0 of each shape, ``(N, 3)`` metres: about it the hands of `grasp/1` turn.

    Exact with the user's MANO. Without it, that of the mean shape, with a warning where betas are not zero: the
    wrist of a usual shape lies within some millimetres of it.

    Args:
        betas: ``(N, 10)``.
        sides: ``(N,)`` "right" or "left"; left hands are mirror images of the right-hand model.
        mano_dir: as in `hand_models.find_mano`.

    Raises:
        MissingManoError: ``mano_dir`` is given and holds no MANO.
    """
    try:
        mano = _mano(mano_dir, "right")
        roots = _root(mano, betas)
    except MissingManoError:
        if mano_dir is not None:
            raise
        if np.any(np.nan_to_num(betas)):
            warnings.warn(
                "moving hands into another frame needs the wrist of their shape, which MANO knows and is not here: "
                "that of the mean shape is used, good to some millimetres (mano_dir makes it exact).",
                stacklevel=3,
            )
        roots = np.tile(mean_root(), (len(betas), 1))
    return np.where((sides == "left")[:, None], roots * _MIRROR, roots)


def _root(mano: ManoFields, betas: np.ndarray) -> np.ndarray:
    shape = np.einsum("v,vcb->cb", mano.joint_regressor[0], mano.shapedirs)
    return mano.joint_regressor[0] @ mano.template + betas @ shape.T


def our_left(
    betas: np.ndarray, transl: np.ndarray, mano_dir: str | Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Betas and transl fitted with MANO_LEFT.pkl, as those of a mirrored right hand.

    The shape directions of the published left hand are not the mirror image of the right one's (smplx, issue 48),
    so its betas give another hand when mirrored. With both files at hand, betas become those whose mirrored
    right hand comes closest at rest (least squares), and transl keeps the wrist where it was. Without MANO_LEFT
    both come back as they are.

    Args:
        betas, transl: ``(N, 10)`` and ``(N, 3)`` of left hands.
    """
    try:
        left, right = _mano(mano_dir, "left"), _mano(mano_dir, "right")
    except (MissingManoError, ValueError):
        return betas, transl
    if left.shapedirs.shape != right.shapedirs.shape:
        return betas, transl
    target = (left.shapedirs * _MIRROR[:, None]).reshape(-1, 10)
    change = np.linalg.lstsq(right.shapedirs.reshape(-1, 10), target, rcond=None)[0]
    ours = betas @ change.T
    return ours, transl + _root(left, betas) - _root(right, ours) * _MIRROR


def template_betas(
    template: np.ndarray, side: str, mano_dir: str | Path | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shape closest to a person's own hand, by least squares over its vertices.

    Args:
        template: ``(778, 3)`` metres, MANO's topology at rest, of ``side``.

    Returns:
        ``(10,)`` betas, ``(3,)`` the template's wrist and ``(3,)`` joint J0 of those betas, on its side.

    Raises:
        MissingManoError: MANO's right hand is not there.
    """
    mano = _mano(mano_dir, "right")
    flip = _MIRROR if side == "left" else np.ones(3)
    if template.shape != mano.template.shape or not np.isfinite(template).all():
        raise ValueError(f"template: got shape {template.shape}; expected {mano.template.shape}, finite, as MANO's.")
    offset = (template * flip - mano.template).ravel()
    betas = np.linalg.lstsq(mano.shapedirs.reshape(-1, 10), offset, rcond=None)[0]
    return betas, mano.joint_regressor[0] @ template, _root(mano, betas[None])[0] * flip


def pca_pose(coefficients: np.ndarray, side: str, mano_dir: str | Path | None, *, flat_hand_mean: bool) -> np.ndarray:
    """Principal components ``(N, n)`` to absolute angles ``(N, 15, 3)``, by MANO's file of that side.

    Args:
        flat_hand_mean: True where the source does not add MANO's mean pose.

    Raises:
        MissingManoError: they cannot be read without MANO; says how to get it.
        ValueError: more coefficients than components.
    """
    pca = load_mano_pca(mano_dir, side)
    components = pca.components.double().numpy()
    if coefficients.shape[1] > len(components):
        raise ValueError(f"{coefficients.shape[1]} PCA coefficients, but MANO has {len(components)} components.")
    pose = coefficients @ components[: coefficients.shape[1]]
    if not flat_hand_mean:
        pose = pose + pca.mean.double().numpy()
    return pose.reshape(-1, 15, 3)


def mean_pose(side: str, mano_dir: str | Path | None) -> np.ndarray:
    """MANO's mean pose ``(15, 3)``, radians. Raises ``MissingManoError`` without the file of that side."""
    return load_mano_pca(mano_dir, side).mean.double().numpy().reshape(15, 3)


def mano_columns(
    side: str, orient: np.ndarray, fingers: np.ndarray, betas: np.ndarray, transl: np.ndarray,
    mano_dir: str | Path | None, *, components: bool = False, add_mean: bool = False,
) -> Columns:  # fmt: skip
    """`side` and pose of hands of one side as MANO's own file of that side gives them.

    Args:
        orient, betas, transl: ``(N, 3)``, ``(N, 10)``, ``(N, 3)``; left ones as in `our_left`.
        fingers: ``(N, n)`` principal components or ``(N, 45)`` angles.
        mano_dir: the user's MANO.
        components: whether ``fingers`` are principal components.
        add_mean: whether MANO's mean pose is to be added to ``fingers``.

    Raises:
        MissingManoError: components or mean are needed, and MANO is not there.
    """
    if components:
        angles = pca_pose(fingers, side, mano_dir, flat_hand_mean=not add_mean)
    else:
        angles = fingers.reshape(-1, 15, 3) + (mean_pose(side, mano_dir) if add_mean else 0)
    if side == "left":
        betas, transl = our_left(betas, transl, mano_dir)
    return {
        "side": np.full(len(orient), side), "global_orient": orient, "hand_pose": angles, "betas": betas,
        "transl": transl,
    }  # fmt: skip


def hand_sized(points: np.ndarray) -> np.ndarray:
    """``(N,)`` bool: rows of ``points (N, P, 3)`` that are finite and as large as hands, so that they can be fitted."""
    finite = np.isfinite(points).all((1, 2))
    extent = np.linalg.norm(np.ptp(np.where(finite[:, None, None], points, 0), axis=1), axis=1)
    near = np.abs(np.where(finite[:, None, None], points, np.inf)).max((1, 2), initial=0) < 100
    return finite & near & (extent > 0.05) & (extent < 0.5)


# From grasp/1 to points -----------------------------------------------------------------------------


def joints_of(predictions: Predictions, mano_dir: str | Path | None, tips: str) -> np.ndarray:
    """21 joints of every row ``(N, 21, 3)``, metres, OpenPose order, in the file's frame.

    Rows with a pose are posed by their own hand model (MANO with the fingertips called ``tips`` in
    `hand_models.skeleton.TIP_VERTICES`); the others give their `keypoints_3d`, NaN when they have none.

    Raises:
        MissingManoError: a row needs MANO, and it is not there.
    """
    joints = np.full((len(predictions), 21, 3), np.nan)
    posed = has_pose(predictions)
    for name in ("mano", "open"):
        rows = np.flatnonzero(posed & (predictions.hand_model == name))
        joints[rows] = _forward(predictions, rows, name, mano_dir, tips)[1] if len(rows) else 0
    rest = ~posed & has_joints(predictions)
    if rest.any():
        joints[rest] = predictions.column("keypoints_3d")[rest, :21]
    return joints


def vertices_of(predictions: Predictions, mano_dir: str | Path | None) -> np.ndarray:
    """MANO's 778 vertices of every row ``(N, 778, 3)``, metres, in the file's frame; NaN where it has no MANO pose.

    Raises:
        MissingManoError: MANO is not there.
    """
    vertices = np.full((len(predictions), 778, 3), np.nan)
    rows = np.flatnonzero(has_pose(predictions) & (predictions.hand_model == "mano"))
    if len(rows):
        vertices[rows] = _forward(predictions, rows, "mano", mano_dir, "smplx")[0]
    return vertices


def _forward(
    predictions: Predictions, rows: np.ndarray, name: str, mano_dir: str | Path | None, tips: str
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and joints of ``rows``, in chunks that bound memory."""
    model = load_mano(mano_dir, tips=tips) if name == "mano" else load_hand_model(name)
    count = len(model.template)
    vertices, joints = np.zeros((len(rows), count, 3)), np.zeros((len(rows), 21, 3))
    for side in ("right", "left"):
        of_side = np.flatnonzero(predictions.side[rows] == side)
        for chunk in np.array_split(of_side, range(256, len(of_side), 256)):
            if not len(chunk):
                continue
            p = predictions.take(rows[chunk])
            hand = model(HandPose.from_arrays({name: p.column(name) for name in POSE}, side=side))
            vertices[chunk], joints[chunk] = hand.vertices.numpy(), hand.joints.numpy()
    return vertices, joints
