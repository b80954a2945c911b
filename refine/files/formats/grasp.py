"""grasp/1. Ours, see `refine.files.predictions` and docs/formats.md."""

from __future__ import annotations

from pathlib import Path

from ..prediction_files import SUFFIXES, read_predictions, write_predictions
from ..predictions import SCHEMA
from .files import json_names, npz_names
from .format import Format


def sniff(path: Path) -> bool:
    """An .npz or .json of our columns, any .parquet."""
    suffix = path.suffix.lower()
    if not path.is_file():
        return False
    if suffix == ".json":
        return json_names(path, [SCHEMA])
    if suffix == ".npz":
        names = npz_names(path)
        return not names or {"object_id", "side"} <= names  # the reader says best what ails a damaged one
    return suffix in SUFFIXES


FORMAT = Format(
    "grasp", read_predictions, write_predictions, sniff, "grasp/1, this package's own .npz, .json or .parquet"
)
