"""Results of all shards as one file, put together by the shard, or by the column for .npz, never whole in memory."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from hand_models.atomic import write_atomically

from ..files.prediction_files import read_predictions, write_json_rows, write_parquet_pieces, write_predictions
from .manifest import Manifest


def merge(manifest: Manifest, path: Path) -> Path:
    """Write the results of all shards, in file order, to ``path`` (.npz, .json or .parquet); returns it.

    Raises:
        ValueError: another suffix.
        OSError: a shard's results are gone, or the file cannot be written.
    """
    results = [shard.result_file for shard in manifest.shards]
    if len(results) == 1:
        return write_predictions(path, read_predictions(results[0]))
    if path.suffix == ".npz":
        return write_atomically(path, lambda stream: _merge_npz(stream, results))
    write = {".json": write_json_rows, ".parquet": write_parquet_pieces}[path.suffix]
    return write_atomically(path, lambda stream: write(stream, map(read_predictions, results)))


def merge_samples(manifest: Manifest, path: Path) -> Path:
    """Write the samples of all shards, row by row of the results, to ``path`` (.npz); errors as `merge`."""
    parts = [shard.samples_file for shard in manifest.shards]
    return write_atomically(path, lambda stream: _merge_npz(stream, parts))


def _merge_npz(stream: IO[bytes], results: list[Path]) -> None:
    """A column is one member of the archive, of which each shard's part is read by itself."""
    with zipfile.ZipFile(results[0]) as first:
        members = first.namelist()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for member in members:
            parts = []
            for path in results:
                with np.load(path, allow_pickle=False) as arrays:
                    parts.append(arrays[member.removesuffix(".npy")])
            with archive.open(member, "w", force_zip64=True) as column:
                np.lib.format.write_array(column, np.concatenate(parts) if parts[0].ndim else parts[0])
