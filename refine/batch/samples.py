"""Samples of the rows of a shard, which are no columns of the table: an .npz of arrays, row by row of the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..files.result_arrays import write_arrays

_SHAPES: dict[str, tuple[int, ...]] = {
    "probability": (),
    "joints": (21, 3),
    "global_orient": (3,),
    "hand_pose": (45,),
    "betas": (10,),
    "transl": (3,),
}


class SampleTable:
    """Arrays ``(N, K, ...)`` of the ``K`` samples of each row; NaN where a row has none.

    ``probability``, ``joints`` (metres, object frame), and the hands' poses, in the frame of the results' own.
    """

    def __init__(self, rows: range, count: int, hand_model: str) -> None:
        self._rows, self._hand_model = rows, hand_model
        self._columns = {
            name: np.full((len(rows), count, *shape), np.nan, np.float32) for name, shape in _SHAPES.items()
        }

    def store(self, numbers: np.ndarray, result: Any) -> None:
        """Take the samples of a `RefineResult` of the rows with these numbers in their file."""
        samples = result.samples
        found = samples.pose.as_arrays() | {name: getattr(samples, name).numpy() for name in ("probability", "joints")}
        for name, column in self._columns.items():
            column[numbers - self._rows.start] = found[name].reshape(len(numbers), *column.shape[1:])

    def write(self, path: Path) -> Path:
        """Write the arrays, whole or not at all."""
        return write_arrays(path, self._columns | {"hand_model": np.array(self._hand_model)})
