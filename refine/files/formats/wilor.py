"""WiLoR and WiLoR-mini: as HaMeR, or with left hands as left hands.

Sources of truth: rolpotamias/WiLoR, ``demo.py`` (the fields, conventions, focal length and meshes of HaMeR) and
warmshao/WiLoR-mini, ``wilor_hand_pose3d_estimation_pipeline.py``: a list with ``hand_bbox``, ``is_right`` and
``wilor_preds`` of each hand of an image, axis-angle, left hands already mirrored, ``pred_keypoints_2d`` in pixels of
the image; a detection without a hand lacks ``wilor_preds``. The image's size is not among them: it follows from the
keypoints, since the principal point is assumed in its middle.

Fields and files are those of `hamer`; angles as vectors count as WiLoR-mini's.
"""

from __future__ import annotations

from pathlib import Path

from ..predictions import Predictions
from .files import json_names
from .format import Format, Numbers, Side
from .hamer import read_images
from .image_hands import Reading


def read(
    path: Path,
    *,
    side: Side | None = None,
    object_id: str = "",
    camera: Numbers = None,
    focal: float | None = None,
    image_size: tuple[int, int] | None = None,
    right_hand_space: bool | None = None,
    mano_dir: str | Path | None = None,
) -> Predictions:
    """Read the outputs of WiLoR or WiLoR-mini.

    Args:
        side: side of all hands, where the file does not say.
        object_id: name of the object, where the file does not say.
        camera: true intrinsics, see `cameras.intrinsics`; depth becomes metric up to the size of the hand.
        focal: true focal length, pixels, where the principal point is in the middle, instead of ``camera``.
        image_size: width and height, pixels, where the file does not say.
        right_hand_space: whether left hands are given as the right hands of the flipped image. None: matrices
            are, axis-angle vectors are not.
        mano_dir: the user's MANO, where the file holds vertices.
    """
    told = Reading(side, right_hand_space, True, image_size, mano_dir)
    return read_images(path, told, object_id, camera, focal)


def sniff(path: Path) -> bool:
    """WiLoR-mini's field name at the beginning of a .json; what WiLoR itself gives cannot be told from HaMeR's."""
    return json_names(path, ("wilor_preds",))


FORMAT = Format("wilor", read, None, sniff, "WiLoR and WiLoR-mini outputs (.npz, .pkl, .json, .pt), or their .obj")
