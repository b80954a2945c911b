"""Contact on the hand's own map: what is known at points of the skin as flat pictures, mean and variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import igl
import numpy as np

from hand_models import HandModel
from hand_models.hand_map import open_hand_uv

from .appearance import SKIN, contact_colours, spread_weights, uncertainty_colours

_PAPER = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class ContactTexture:
    """Contact of ``B`` hands as images of their skin, NaN where the map has none. Row 0 is the top."""

    mean: np.ndarray
    """(B, S, 2 S) float32 contact in [0, 1]"""
    variance: np.ndarray
    """(B, S, 2 S) float32; of a place between the network's points it is the mean of theirs, as neighbours err alike"""

    def picture(self, index: int = 0) -> np.ndarray:
        """(2 S, 2 S, 3) uint8: the mean of hand ``index``, and its standard deviation (0 to 0.5) below.

        Raises:
            IndexError: there is no such hand.
        """
        maps = contact_colours(self.mean[index], SKIN), uncertainty_colours(np.sqrt(self.variance[index]), SKIN, 0.5)
        blank = np.isnan(self.mean[index])
        drawn = [np.where(blank[..., None], _PAPER, colours) for colours in maps]
        return np.round(np.concatenate(drawn) * 255).astype(np.uint8)


def contact_texture(model: HandModel, field: Any, size: int = 256, uv: np.ndarray | None = None) -> ContactTexture:
    """Contact predicted at the hand's points, on the map of its skin: palm at the left, back at the right, fingers up.

    A left hand is drawn on the right hand's map, as in a mirror.

    Args:
        model: the hands' model.
        field: contact of ``B`` hands: ``hand_contact`` and ``hand_contact_var`` ``(B, P)``, such as a `ContactField`.
        size: pixels of height ``S``; the images are twice as wide.
        uv: ``(F, 3, 2)`` in [0, 1], u to the right and v upwards, for the corners of ``model.faces``; None for the
            open hand's own. MANO comes without one.

    Raises:
        ValueError: ``size`` is below 8, or ``uv`` is not given for another hand model or does not fit its faces.
    """
    if size < 8:
        raise ValueError(f"size: got {size}; give 8 pixels or more.")
    faces = model.faces.numpy()
    if uv is None:
        if model.name != "open":
            raise ValueError(
                f"uv: the hand model {model.name!r} comes without a map of its skin; pass uv=, "
                f"({len(faces)}, 3, 2) in [0, 1] for the corners of its faces."
            )
        uv = open_hand_uv() if model.side == "right" else open_hand_uv()[:, ::-1]  # a mirrored model's faces turn
    uv = np.asarray(uv, np.float64)
    if uv.shape != (len(faces), 3, 2) or not np.isfinite(uv).all():
        raise ValueError(
            f"uv: must be finite ({len(faces)}, 3, 2), one pair a corner of the model's faces, not {uv.shape}"
        )
    corners, weights, covered = _pixels(uv, faces, size)
    template = model.template.numpy()
    nearest, share = spread_weights(template[model.contact_points], template)

    def image(values: np.ndarray) -> np.ndarray:
        skin = np.einsum("vk,bvk->bv", share, values[:, nearest])
        flat = np.full((len(values), size * 2 * size), np.nan, np.float32)
        flat[:, covered] = np.einsum("pc,bpc->bp", weights, skin[:, corners])
        return flat.reshape(len(values), size, 2 * size)

    return ContactTexture(*(image(v.float().numpy()) for v in (field.hand_contact, field.hand_contact_var)))


def _pixels(uv: np.ndarray, faces: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (P, 3) and their weights (P, 3) at the centres of the pixels that show skin, and those pixels (P,)."""
    flat = np.concatenate([uv.reshape(-1, 2) * (2 * size, size), np.zeros((3 * len(uv), 1))], 1)
    own = np.arange(3 * len(uv)).reshape(-1, 3)
    x, y = np.meshgrid(np.arange(2 * size) + 0.5, size - 0.5 - np.arange(size))
    centres = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)
    square, face, closest = igl.point_mesh_squared_distance(centres, flat, own)
    covered = np.flatnonzero(square < 0.5**2)  # half a pixel beyond the rim, so that the seam shows no gaps
    triangles = flat[own[face[covered]]]
    ab, ac = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    at = closest[covered] - triangles[:, 0]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    area = np.where(np.abs(area) < 1e-12, 1e-12, area)
    b = (at[:, 0] * ac[:, 1] - at[:, 1] * ac[:, 0]) / area
    c = (ab[:, 0] * at[:, 1] - ab[:, 1] * at[:, 0]) / area
    return faces[face[covered]], np.clip(np.stack([1 - b - c, b, c], 1), 0, 1), covered
