"""ContactPose: 15 principal components plus mean, placed in the hand's frame by ``mTc``, in the object's by ``hTo``.

Source of truth: facebookresearch/ContactPose, ``utilities/dataset.py`` (``hTm = inv(mTc)``, ``oTh = inv(hTo)`` for
hands that move against the object, else the identity; left hand first), ``utilities/misc.py`` ``load_mano_meshes``
(MANO with ``ncomps = len(pose) - 3``, ``flat_hand_mean=False``; vertices are ``oTh @ hTm`` times MANO's) and
``pose_matrix`` (quaternions, w first; metres). Left betas were fitted with MANO_LEFT.pkl: see `hands.our_left`.

Reads ``mano_fits_15.json`` (or ``_10``) or the grasp's folder, with ``annotations.json`` beside it. Hands are in the
object's frame: one row for a hand that rests on the object, one for each frame for a hand that moves.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..predictions import Predictions
from . import Adapter
from .files import field, head, read_json
from .hands import moved, our_left, pca_pose, quaternion_matrix, root_joints

_SIDES = ("left", "right")


def read(path: Path, *, mano_dir: str | Path | None = None, object_id: str | None = None) -> Predictions:
    """Read the hands of one grasp.

    Args:
        path: ``mano_fits_NN.json``, or the folder with it (the one with most components is taken).
        mano_dir: the user's MANO, of each side that is there.
        object_id: name of the object; the folder's when None.

    Raises:
        MissingManoError: MANO of a side is not there.
        ValueError: not such a file; names the field.
    """
    file = path
    if path.is_dir():
        fits = sorted(path.glob("mano_fits_*.json"), key=lambda p: (len(p.stem), p.stem))
        if not fits:
            raise ValueError(f"{path}: holds no mano_fits_*.json.")
        file = fits[-1]
    fits = read_json(file)
    if not isinstance(fits, list) or len(fits) != 2 or not all(isinstance(fit, dict) for fit in fits):
        raise ValueError(f"{file}: expected a list of two hands, left and right.")
    folder = file.resolve().parent
    annotations = _annotations(folder / "annotations.json", file)
    columns: dict[str, list[Any]] = {
        name: [] for name in ("side", "global_orient", "hand_pose", "betas", "transl", "frame_index")
    }
    for side, fit, places in zip(_SIDES, fits, annotations, strict=True):
        if fit.get("valid"):
            hand = _hand(file, fit, side, places, mano_dir)
            for name, values in hand.items():
                columns[name] += list(values)
    rows = len(columns["side"])
    session = "/".join(folder.parts[-2:])
    columns |= {
        "object_id": [object_id or folder.name] * rows,
        "sequence_id": [session] * rows,
        "frame_id": [f"{session}/{number}" for number in columns["frame_index"]],
    }
    return Predictions.from_columns({name: np.array(values) for name, values in columns.items()})


def _hand(
    path: Path, fit: dict[str, Any], side: str, places: np.ndarray, mano_dir: Any
) -> dict[str, np.ndarray]:
    """Columns of one hand at each of ``places (F, 4, 4)``, hand to object."""
    pose = field(path, fit, "pose", None)
    if not 3 < len(pose) <= 48:
        raise ValueError(f"{path}: field 'pose' has {len(pose)} numbers; expected 3 and up to 45 components.")
    betas, transl = field(path, fit, "betas", 10)[None], np.zeros((1, 3))
    if side == "left":
        betas, transl = our_left(betas, transl, mano_dir)
    roots = root_joints(betas, np.array([side]), mano_dir)
    place = places @ np.linalg.inv(_pose_matrix(path, fit.get("mTc"), "mTc"))
    count = len(place)
    orient, transl = moved(
        np.tile(pose[:3], (count, 1)), np.tile(transl, (count, 1)), roots, place[:, :3, :3], place[:, :3, 3]
    )
    angles = pca_pose(pose[None, 3:], side, mano_dir, flat_hand_mean=False)
    return {
        "side": np.full(count, side),
        "global_orient": orient,
        "hand_pose": np.repeat(angles, count, 0),
        "betas": np.repeat(betas, count, 0),
        "transl": transl,
        "frame_index": np.arange(count),
    }


def _pose_matrix(path: Path, value: Any, name: str) -> np.ndarray:
    """4×4 of ``{"translation": 3, "rotation": quaternion}``."""
    matrix = np.eye(4)
    matrix[:3, :3] = quaternion_matrix(field(path, value, "rotation", 4))
    matrix[:3, 3] = field(path, value, "translation", 3)
    if not np.isfinite(matrix).all():
        raise ValueError(f"{path}: {name} is not a rigid motion.")
    return matrix


def _annotations(path: Path, fits: Path) -> list[np.ndarray]:
    """Hand to object ``(F, 4, 4)`` of the left and the right hand; one identity where the hand rests on it."""
    still = np.eye(4)[None]
    if not path.is_file():
        warnings.warn(
            f"{fits}: there is no annotations.json beside it; hands are taken to rest on the object.",
            stacklevel=3,
        )
        return [still, still]
    document = read_json(path)
    hands = document.get("hands") if isinstance(document, dict) else None
    frames = document.get("frames") if isinstance(document, dict) else None
    if not (isinstance(hands, list) and len(hands) == 2 and isinstance(frames, list)):
        raise ValueError(f"{path}: expected frames and two hands.")
    places = []
    for index, hand in enumerate(hands):
        if not (isinstance(hand, dict) and hand.get("valid") and hand.get("moving")):
            places.append(still)
            continue
        steps = []
        for number, frame in enumerate(frames):
            motions = frame.get("hTo") if isinstance(frame, dict) else None
            if not isinstance(motions, list) or len(motions) != 2:
                raise ValueError(f"{path}: frame {number} has no hTo of two hands.")
            steps.append(np.linalg.inv(_pose_matrix(path, motions[index], f"frame {number}, hTo")))
        places.append(np.array(steps).reshape(-1, 4, 4))
    return places


def sniff(path: Path) -> bool:
    """``mano_fits_*.json``, or a folder with one."""
    if path.is_dir():
        return next(path.glob("mano_fits_*.json"), None) is not None
    return path.suffix.lower() == ".json" and '"mTc"' in head(path)


ADAPTER = Adapter("contactpose", read, None, sniff, "ContactPose mano_fits_15.json with annotations.json")
