"""Files of ``torch.save``, read as numbers: tensors and numpy arrays in lists and dictionaries, and nothing else."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

_MEND = "Only tensors, arrays, numbers, text, lists and dictionaries are read; save those, e.g. with numpy.savez."


_ARCHIVE = b"PK\x03\x04"
_OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""What a file of torch.save begins with; before version 1.6, the pickled magic number."""


def is_torch(path: Path) -> bool:
    """Whether ``path`` is a file of ``torch.save``, whatever it is called. Never raises.

    Other pickles are called .pt and .pth too, such as joblib's.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(len(_OLD)).startswith((_ARCHIVE, _OLD))
    except OSError:
        return False


def read_torch(path: Path) -> Any:
    """What a file of ``torch.save`` holds, tensors as arrays; no code in it is run.

    Raises:
        ValueError: damaged, or it holds objects of other kinds.
    """
    try:
        with torch.serialization.safe_globals(_numpy()):
            return _plain(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        what = str(error).replace("\n", " ").partition("Please file an issue")[0]
        asks = what[what.find("Unsupported") :] if "Unsupported" in what else what
        raise ValueError(f"{path}: refused: {asks[:160].strip()} Nothing was executed. {_MEND}") from None
    except Exception as error:  # a damaged archive raises nearly anything
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise ValueError(f"{path}: not a readable file of torch.save ({message}); write it again.") from None


def _numpy() -> list[Any]:
    """What numpy's arrays and scalars are pickled with."""
    core = getattr(np, "_core", None) or np.core
    kinds = {type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")}
    kinds |= {type(np.dtype("U1")), type(np.dtype("S1"))}
    return [core.multiarray._reconstruct, core.multiarray.scalar, np.ndarray, np.dtype, *kinds]


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.detach()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
