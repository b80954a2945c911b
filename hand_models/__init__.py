"""Hand models: pose parameters, skinning with analytic derivatives, the open hand and MANO."""

from __future__ import annotations

from pathlib import Path

from .fit import fit_joints, fit_vertices
from .mano import MissingManoError, find_mano, load_mano, load_mano_pca
from .model import Hand, HandJacobian, HandModel
from .open_hand import load_open_hand
from .point_jacobian import PointJacobian
from .pose import HandPose

__all__ = [
    "Hand",
    "HandJacobian",
    "HandModel",
    "HandPose",
    "MissingManoError",
    "PointJacobian",
    "find_mano",
    "fit_joints",
    "fit_vertices",
    "load_hand_model",
    "load_mano",
    "load_mano_pca",
    "load_open_hand",
]


def load_hand_model(name: str = "open", *, mano_dir: str | Path | None = None, side: str = "right") -> HandModel:
    """The hand model called ``name``.

    Args:
        name: "open", the hand that ships (a right one, serving left hands by mirroring), or "mano".
        mano_dir: folder with the user's MANO files; None to look in ``$MANO_DIR`` and the user data directory.
        side: which MANO file to read.

    Raises:
        ValueError: another name.
        MissingManoError: MANO is not found; says where it was looked for.
    """
    if name == "open":
        return load_open_hand()
    if name == "mano":
        return load_mano(mano_dir, side=side)
    raise ValueError(f"hand_model: {name!r} is unknown; choose 'open' or 'mano'.")
