"""Results of all shards as one file, a shard at a time, so that memory does not grow with the rows."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..files.prediction_files import (
    plain_values,
    read_predictions,
    write_atomically,
    write_parquet,
    write_predictions,
)
from ..files.predictions import COLUMNS, SCHEMA, Predictions
from .manifest import Manifest
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
        return write_predictions(path, read_predictions(manifest.result_file(0)))
    write = {".npz": _merge_npz, ".json": _merge_json, ".parquet": _merge_parquet}[path.suffix]
    return write_atomically(path, lambda stream: write(stream, manifest, records))


def _shards(manifest: Manifest, records: Sequence[ShardRecord]) -> Iterator[Predictions]:
    for record in records:
        yield read_predictions(manifest.result_file(record.shard))


def _merge_npz(stream: IO[bytes], manifest: Manifest, records: Sequence[ShardRecord]) -> None:
    """Column by column, as a column is one member of the archive; each shard's column is read by itself."""
    rows = sum(record.tally.rows for record in records)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        _write_member(archive, "schema", np.array(SCHEMA), [np.array(SCHEMA)], ())
        for name in COLUMNS:
            if name not in records[0].columns:
                continue
            # Texts are as wide as the widest of a shard, so widths differ between shards.
            dtype = np.result_type(*(np.dtype(record.columns[name][0]) for record in records))
            shape = (rows, *records[0].columns[name][1])
            parts = (_column(manifest, record, name).astype(dtype) for record in records)
            _write_member(archive, name, np.empty(0, dtype), parts, shape)


def _write_member(
    archive: zipfile.ZipFile, name: str, like: np.ndarray, parts: Any, shape: tuple[int, ...]
) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(like.dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for part in parts:
            member.write(part.tobytes())


def _column(manifest: Manifest, record: ShardRecord, name: str) -> np.ndarray:
    with np.load(manifest.result_file(record.shard), allow_pickle=False) as arrays:
        return arrays[name]


def _merge_json(stream: IO[bytes], manifest: Manifest, records: Sequence[ShardRecord]) -> None:
    stream.write(f'{{"schema": "{SCHEMA}", "rows": ['.encode())
    separator = b""
    for shard in _shards(manifest, records):
        columns = shard.columns()
        for row in range(len(shard)):
            cells = {name: plain_values(value[row]) for name, value in columns.items()}
            stream.write(separator + json.dumps(cells, allow_nan=False, ensure_ascii=False).encode())
            separator = b", "
    stream.write(b"]}\n")


def _merge_parquet(stream: IO[bytes], manifest: Manifest, records: Sequence[ShardRecord]) -> None:
    import pyarrow
    import pyarrow.parquet

    writer = None
    try:
        for shard in _shards(manifest, records):
            buffer = io.BytesIO()
            write_parquet(buffer, shard)
            table = pyarrow.parquet.read_table(pyarrow.BufferReader(buffer.getvalue()))
            writer = writer or pyarrow.parquet.ParquetWriter(stream, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
