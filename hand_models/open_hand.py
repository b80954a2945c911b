"""Loading the open hand: a CC0 hand that MANO poses drive, shipped with the package.

Cut from MakeHuman's base mesh and laid on MANO's rest skeleton by ``tools/build_open_hand.py``; see
``assets/OPEN_HAND_LICENSE.md``.  It is not MANO: its skin, weights and betas are its own.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import torch

from .model import HandModel

ASSET = Path(__file__).parent / "assets" / "open_hand.npz"


@cache
def load_open_hand() -> HandModel:
    """The open hand as a right-hand `HandModel`, float32 metres in MANO's rest frame.

    Betas are in standard deviations of the adult population it was built from: N(0, 1) draws adult hands.
    The same object is returned on every call.

    Raises:
        FileNotFoundError: when the asset is missing from the installation.
    """
    if not ASSET.is_file():
        raise FileNotFoundError(f"open hand: {ASSET} is missing; reinstall the package (it ships this file).")
    with np.load(ASSET, allow_pickle=False) as data:
        known = {field.name for field in fields(HandModel)}
        arrays = {name: data[name] for name in known.intersection(data.files) if data[name].dtype.kind in "fiu"}
    tensors = {
        name: torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))
        for name, array in arrays.items()
    }
    return HandModel(name="open", side="right", posedirs=tensors.pop("posedirs", None), **tensors)
