"""Results of all shards as one file, a shard at a time, so that memory does not grow with the rows."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from hand_models.atomic import write_atomically

from ..files.prediction_files import (
    read_predictions,
    write_json_rows,
    write_parquet_pieces,
    write_predictions,
)
from ..files.predictions import COLUMNS, SCHEMA
from .manifest import Manifest, Shard
from .shards import ShardRecord


def merge(manifest: Manifest, records: Sequence[ShardRecord], path: Path) -> Path:
    """Write the results of all shards, in file order, to ``path`` (.npz, .json or .parquet); returns it.

    Args:
        records: of every shard, in order.

    Raises:
        ValueError: another suffix.
        OSError: a shard's results are gone, or the file cannot be written.
    """
    if len(records) == 1:
        return write_predictions(path, read_predictions(manifest.shards[0].result_file))
    if path.suffix == ".npz":
        return write_atomically(path, lambda stream: _merge_npz(stream, manifest, records))
    write = {".json": write_json_rows, ".parquet": write_parquet_pieces}[path.suffix]
    shards = (read_predictions(shard.result_file) for shard in manifest.shards)
    return write_atomically(path, lambda stream: write(stream, shards))


def _merge_npz(stream: IO[bytes], manifest: Manifest, records: Sequence[ShardRecord]) -> None:
    """Column by column, as a column is one member of the archive; each shard's column is read by itself."""
    rows = manifest.rows
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        _write_member(archive, "schema", np.array(SCHEMA), [np.array(SCHEMA)], ())
        for name in COLUMNS:
            if name not in records[0].columns:
                continue
            # Texts are as wide as the widest of a shard, so widths differ between shards.
            dtype = np.result_type(*(np.dtype(record.columns[name][0]) for record in records))
            shape = (rows, *records[0].columns[name][1])
            parts = (_column(shard, name).astype(dtype) for shard in manifest.shards)
            _write_member(archive, name, np.empty(0, dtype), parts, shape)


def _write_member(archive: zipfile.ZipFile, name: str, like: np.ndarray, parts: Any, shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(like.dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for part in parts:
            member.write(part.tobytes())


def _column(shard: Shard, name: str) -> np.ndarray:
    with np.load(shard.result_file, allow_pickle=False) as arrays:
        return arrays[name]
