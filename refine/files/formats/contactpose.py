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
from scipy.spatial.transform import Rotation

from ..predictions import Predictions
from .columns import Columns, frame_columns, joined
from .files import field, json_names, naming, read_json
from .format import Format
from .hands import mano_columns, motions, moved


def read(path: Path, *, mano_dir: str | Path | None = None, object_id: str | None = None) -> Predictions:
    """Read the hands of one grasp.

    Args:
        path: ``mano_fits_NN.json``, or the folder with it (the one with most components is taken).
        mano_dir: the user's MANO, of each side that is there.
        object_id: name of the object; the folder's when None.
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
    places = _places(folder / "annotations.json", file)
    with naming(file):
        parts = [
            _hand(fit, side, place, mano_dir)
            for side, fit, place in zip(("left", "right"), fits, places, strict=True)
            if fit.get("valid")
        ]
    session = "/".join(folder.parts[-2:])
    names = [f"{session}/{frame}" for part in parts for frame in range(len(part["side"]))]
    return Predictions.from_columns(joined(parts) | frame_columns(names) | {"object_id": object_id or folder.name})


def _hand(fit: dict[str, Any], side: str, places: np.ndarray, mano_dir: Any) -> Columns:
    """Columns of one hand at each of ``places (F, 4, 4)``, hand to object."""
    pose, betas = field(fit, "pose", None), field(fit, "betas", 10)
    if not 3 < len(pose) <= 48:
        raise ValueError(f"field 'pose' has {len(pose)} numbers; expected 3 and up to 45 components.")
    hand = mano_columns(
        side, pose[None, :3], pose[None, 3:], betas[None], np.zeros((1, 3)), mano_dir, components=True, add_mean=True
    )
    place = places @ np.linalg.inv(_motion(fit.get("mTc"), "mTc"))
    hand = {name: np.repeat(value, len(place), 0) for name, value in hand.items()}
    return moved(hand, place[:, :3, :3], place[:, :3, 3], mano_dir=mano_dir)


def _motion(value: Any, name: str) -> np.ndarray:
    """4×4 of ``{"translation": 3, "rotation": quaternion}``."""
    turn, shift = field(value, "rotation", 4), field(value, "translation", 3)
    if not (np.isfinite([*turn, *shift]).all() and turn.any()):
        raise ValueError(f"{name} is not a rigid motion.")
    return motions(Rotation.from_quat(np.roll(turn, -1)).as_matrix(), shift)  # scipy has w last


def _places(path: Path, fits: Path) -> list[np.ndarray]:
    """Hand to object ``(F, 4, 4)`` of the left and the right hand; one identity where the hand rests on it."""
    places = [np.eye(4)[None], np.eye(4)[None]]
    if not path.is_file():
        warnings.warn(
            f"{fits}: there is no annotations.json beside it; hands are taken to rest on the object.", stacklevel=3
        )
        return places
    document = read_json(path)
    hands, frames = (document.get(k) if isinstance(document, dict) else None for k in ("hands", "frames"))
    if not (isinstance(hands, list) and len(hands) == 2 and isinstance(frames, list)):
        raise ValueError(f"{path}: expected frames and two hands.")
    with naming(path):
        for index, hand in enumerate(hands):
            if isinstance(hand, dict) and hand.get("valid") and hand.get("moving"):
                steps = [np.linalg.inv(_object_to_hand(frame, k, index)) for k, frame in enumerate(frames)]
                places[index] = np.array(steps).reshape(-1, 4, 4)
    return places


def _object_to_hand(frame: Any, number: int, index: int) -> np.ndarray:
    """`hTo` of one of the two hands, as it stands in frame ``number``."""
    both = frame.get("hTo") if isinstance(frame, dict) else None
    if not isinstance(both, list) or len(both) != 2:
        raise ValueError(f"frame {number} has no hTo of two hands.")
    return _motion(both[index], f"frame {number}, hTo")


def sniff(path: Path) -> bool:
    """``mano_fits_*.json``, or a folder with one."""
    if path.is_dir():
        return next(path.glob("mano_fits_*.json"), None) is not None
    return json_names(path, ["mTc"])


FORMAT = Format("contactpose", read, None, sniff, "ContactPose mano_fits_15.json with annotations.json")
