"""Arrays inside a page: small integers, deflated, as base64 text that a browser unpacks by itself."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

Packed = dict[str, Any]
"""``data`` (base64 of zlib), ``kind`` (type string of numpy without byte order), and ``row``, the numbers of a frame,
where each frame but the first holds the steps from the one before (modulo the type)."""


def pack(values: np.ndarray, *, over_time: bool = False) -> Packed:
    """An array of integers or float32, little endian. `over_time`: the first axis is time; stored as steps."""
    values = np.ascontiguousarray(values)
    packed: Packed = {"kind": values.dtype.str[1:]}
    if over_time and len(values) > 1:
        values = np.concatenate([values[:1], np.diff(values, axis=0)])  # unsigned: they wrap round, and back
        packed["row"] = values[0].size
    return packed | {"data": base64.b64encode(zlib.compress(values.tobytes(), 9)).decode("ascii")}


def unpack(packed: Packed) -> np.ndarray:
    """The numbers of `pack`, flat."""
    values = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), "<" + packed["kind"])
    if row := packed.get("row"):
        return np.cumsum(values.reshape(-1, row), axis=0, dtype=values.dtype).reshape(-1)
    return values


def share(unit: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] as bytes; beyond them clipped, NaN as 0."""
    return np.round(np.clip(np.nan_to_num(unit), 0, 1) * 255).astype(np.uint8)


FINEST = 65_535


def quantised(points: np.ndarray, box: np.ndarray, steps: int = FINEST) -> np.ndarray:
    """Points (..., 3) in so many steps of the box (2, 3) around them; by default finer than 10 µm for a hand."""
    low, high = box
    return np.round((points - low) / np.maximum(high - low, 1e-9) * steps).astype("<u2")
