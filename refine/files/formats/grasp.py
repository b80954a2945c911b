"""grasp/1. Ours, see `refine.files.predictions` and docs/formats.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..prediction_files import SUFFIXES, read_predictions, write_predictions
from ..predictions import COLUMNS, SCHEMA, Predictions
from .files import json_names, npz_names
from .format import Format, Side

_POSE = {"global_orient", "hand_pose", "transl"}


def read(path: Path, *, object_id: str | None = None, side: Side | None = None) -> Predictions:
    """Read a file of our own columns.

    Args:
        object_id: name of the object, where the file does not say.
        side: of all hands, where the file does not say.
    """
    said = {name: value for name, value in (("object_id", object_id), ("side", side)) if value is not None}
    rows = read_predictions(path, absent=said)
    if object_id is None:
        return rows
    return replace(rows, object_id=np.where(rows.object_id == "", object_id, rows.object_id))


def sniff(path: Path) -> bool:
    """An .npz or .json of our columns, any .parquet."""
    suffix = path.suffix.lower()
    if not path.is_file():
        return False
    if suffix == ".json":
        return json_names(path, [SCHEMA])
    if suffix == ".npz":
        names = npz_names(path)
        ours = {"object_id", "side"} <= names or _POSE <= names <= {*COLUMNS, "schema"}
        return not names or ours  # the reader says best what ails a damaged one
    return suffix in SUFFIXES


FORMAT = Format("grasp", read, write_predictions, sniff, "grasp/1, this package's own .npz, .json or .parquet")
