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

from ..predictions import Predictions, are_rotations, has_joints, has_pose
from .columns import POSE, Columns, by_side

FLIP_YZ = np.diag([1.0, -1.0, -1.0])
"""Between OpenGL's camera (y up, z backwards) and OpenCV's, either way."""
_MIRROR = np.array([-1.0, 1.0, 1.0])


def matrices(rotation: np.ndarray) -> np.ndarray:
    """``(..., 3)`` axis-angle to ``(..., 3, 3)``."""
    rotation = np.asarray(rotation, np.float64)
    return Rotation.from_rotvec(rotation.reshape(-1, 3)).as_matrix().reshape(*rotation.shape, 3)


def axis_angle(rotation: np.ndarray) -> np.ndarray:
    """``(..., 3, 3)`` matrices to ``(..., 3)``; NaN where one is not orthonormal to 0.01 or mirrors."""
    rotation = np.asarray(rotation, np.float64)
    proper = are_rotations(rotation)
    vectors = np.full(rotation.shape[:-1], np.nan)
    vectors[proper] = Rotation.from_matrix(rotation[proper]).as_rotvec()
    return vectors


def motions(rotation: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """``(..., 4, 4)`` of ``(..., 3, 3)`` and ``(..., 3)``."""
    full = np.broadcast_to(np.eye(4), (*np.shape(shift)[:-1], 4, 4)).copy()
    full[..., :3, :3], full[..., :3, 3] = rotation, shift
    return full


def mirrored(rotation: np.ndarray) -> np.ndarray:
    """``(..., 3)`` axis-angle in a mirror that flips x."""
    return rotation * -_MIRROR


def moved(
    hand: Columns, rotation: np.ndarray, shift: np.ndarray | float = 0.0, *, roots: np.ndarray | None = None,
    mano_dir: str | Path | None = None,
) -> Columns:  # fmt: skip
    """``hand`` after the motion ``x -> rotation x + shift`` of the world.

    ``rotation (3, 3)`` or ``(N, 3, 3)``, ``shift (3,)`` or ``(N, 3)`` metres. ``roots (N, 3)`` are the joints J0 of
    each shape, about which hands turn; those of `root_joints` when None.
    """
    orient, transl = hand["global_orient"], hand["transl"]
    if roots is None:
        roots = root_joints(hand["betas"], hand["side"], mano_dir)
    wrist = (rotation @ (roots + transl)[..., None])[..., 0] + shift
    return hand | {"global_orient": axis_angle(rotation @ matrices(orient)), "transl": wrist - roots}


# The user's MANO ------------------------------------------------------------------------------------


def _mano(mano_dir: str | Path | None, side: str) -> ManoFields:
    return read_fields(find_mano(mano_dir, side))


def root_joints(betas: np.ndarray, sides: np.ndarray, mano_dir: str | Path | None = None) -> np.ndarray:
    """Joint J0 of each shape of ``betas (N, 10)``, ``(N, 3)`` metres: about it the hands of `grasp/1` turn.

    Exact with the user's MANO. Without it, that of the mean shape, with a warning where betas are not zero: the
    wrist of a usual shape lies within some millimetres of it. Left hands mirror the right-hand model.

    Raises:
        MissingManoError: ``mano_dir`` is given and holds no MANO.
    """
    try:
        roots = _root(_mano(mano_dir, "right"), betas)
    except MissingManoError:
        if mano_dir is not None:
            raise
        if np.any(np.nan_to_num(betas)):
            warnings.warn(
                "moving hands into another frame needs the wrist of their shape, which MANO knows and is not here: "
                "that of the mean shape is used, good to some millimetres (mano_dir makes it exact).",
                stacklevel=3,
            )
        mean = load_hand_model("open").root(HandPose.zeros(1))  # the open hand is laid on MANO's mean
        roots = np.tile(mean.double().numpy(), (len(betas), 1))
    return np.where((sides == "left")[:, None], roots * _MIRROR, roots)


def _root(mano: ManoFields, betas: np.ndarray) -> np.ndarray:
    shape = np.einsum("v,vcb->cb", mano.joint_regressor[0], mano.shapedirs)
    return mano.joint_regressor[0] @ mano.template + betas @ shape.T


def our_left(
    betas: np.ndarray, transl: np.ndarray, mano_dir: str | Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Betas ``(N, 10)`` and transl ``(N, 3)`` fitted with MANO_LEFT.pkl, as those of a mirrored right hand.

    The shape directions of the published left hand are not the mirror image of the right one's (smplx, issue 48),
    so its betas give another hand when mirrored. With both files at hand, betas become those whose mirrored
    right hand comes closest at rest (least squares), and transl keeps the wrist where it was. Without MANO_LEFT
    both come back as they are.
    """
    try:
        left, right = _mano(mano_dir, "left"), _mano(mano_dir, "right")
        target = (left.shapedirs * _MIRROR[:, None]).reshape(-1, 10)
        change = np.linalg.lstsq(right.shapedirs.reshape(-1, 10), target, rcond=None)[0]
    except (MissingManoError, ValueError):  # files of other shapes among them: LinAlgError is a ValueError
        return betas, transl
    ours = betas @ change.T
    return ours, transl + _root(left, betas) - _root(right, ours) * _MIRROR


def template_betas(
    template: np.ndarray, side: str, mano_dir: str | Path | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shape closest to a person's own hand ``template (778, 3)`` at rest, by least squares over its vertices.

    Returns ``(10,)`` betas, ``(3,)`` the template's wrist and ``(3,)`` joint J0 of those betas, on its side; metres.

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


def finger_angles(
    fingers: np.ndarray, side: str, mano_dir: str | Path | None, *, components: bool = False, add_mean: bool = False
) -> np.ndarray:
    """Absolute angles ``(N, 15, 3)`` of fingers as MANO's file of that side gives them.

    Args:
        fingers: ``(N, n)`` principal ``components``, or else ``(N, 45)`` angles.
        add_mean: whether the source adds MANO's mean pose (``flat_hand_mean=False``).

    Raises:
        MissingManoError: components or mean are needed, and MANO is not there; says how to get it.
        ValueError: more coefficients than components.
    """
    if components or add_mean:
        pca = load_mano_pca(mano_dir, side)
        if components:
            basis = pca.components.double().numpy()
            if fingers.shape[1] > len(basis):
                raise ValueError(f"{fingers.shape[1]} PCA coefficients, but MANO has {len(basis)} components.")
            fingers = fingers @ basis[: fingers.shape[1]]
        if add_mean:
            fingers = fingers + pca.mean.double().numpy()
    return fingers.reshape(-1, 15, 3)


def mano_columns(
    side: str, orient: np.ndarray, fingers: np.ndarray, betas: np.ndarray, transl: np.ndarray,
    mano_dir: str | Path | None, *, left_is_mirrored: bool = False, **convention: bool,
) -> Columns:  # fmt: skip
    """`side` and pose of hands of one side; left ones become those of `our_left`.

    ``orient (N, 3)``, ``betas (N, 10)``, ``transl (N, 3)``; ``fingers`` and ``convention`` as in `finger_angles`;
    ``left_is_mirrored``: left hands are mirrored right ones already.
    """
    angles = finger_angles(fingers, side, mano_dir, **convention)
    if side == "left" and not left_is_mirrored:
        betas, transl = our_left(betas, transl, mano_dir)
    sides = np.full(len(orient), side)
    return {"side": sides, "global_orient": orient, "hand_pose": angles, "betas": betas, "transl": transl}


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
    Raises ``MissingManoError`` where a row needs MANO, and it is not there.
    """
    joints = np.full((len(predictions), 21, 3), np.nan)
    posed = has_pose(predictions)
    for name in ("mano", "open"):
        rows = np.flatnonzero(posed & (predictions.hand_model == name))
        if len(rows):
            joints[rows] = _forward(predictions, rows, name, mano_dir, tips)[1]
    rest = ~posed & has_joints(predictions)
    if rest.any():
        joints[rest] = predictions.column("keypoints_3d")[rest, :21]
    return joints


def vertices_of(predictions: Predictions, mano_dir: str | Path | None) -> np.ndarray:
    """MANO's 778 vertices of every row ``(N, 778, 3)``, metres, in the file's frame; NaN where it has no MANO pose.

    Raises ``MissingManoError`` when MANO is not there.
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
    vertices, joints = np.zeros((len(rows), len(model.template), 3)), np.zeros((len(rows), 21, 3))
    for side, of_side in by_side(predictions.side[rows]):
        for chunk in np.array_split(of_side, range(256, len(of_side), 256)):
            p = predictions.take(rows[chunk])
            hand = model(HandPose.from_arrays({name: p.column(name) for name in POSE}, side=side))
            vertices[chunk], joints[chunk] = hand.vertices.numpy(), hand.joints.numpy()
    return vertices, joints
