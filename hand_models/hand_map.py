"""The open hand's own map: where each corner of its triangles lies in a flat picture of the skin (UV coordinates).

The palm fills the left half and the back the right, each as seen from outside with the fingers up, nearly true to its
areas; made by ``tools/build_open_hand_uv.py``. A picture twice as wide as high shows it undistorted.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

ASSET = Path(__file__).parent / "assets" / "open_hand_uv.npz"


@cache
def open_hand_uv() -> np.ndarray:
    """(F, 3, 2) u to the right and v upwards, in [0, 1], of the corners of the open hand's ``faces``. Read-only.

    Raises:
        FileNotFoundError: when the asset is missing from the installation.
    """
    if not ASSET.is_file():
        raise FileNotFoundError(f"open hand: {ASSET} is missing; reinstall the package (it ships this file).")
    with np.load(ASSET, allow_pickle=False) as data:
        uv = data["uv"].astype(np.float32) / 65535
    uv.flags.writeable = False
    return uv
