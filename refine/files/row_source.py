"""Rows of an input file, a piece at a time: other people's formats and npz in one reading, Parquet in streams."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .formats import adapter, read_with, sniff
from .prediction_files import arrow_column, read_predictions
from .predictions import COLUMNS, Predictions

SHARED_OPTIONS = ("mano_dir",)
"""Options that others than the reader need too, and so not refused by formats that have no use for them."""


def form_of(path: Path, source: str | None) -> str:
    """Name of the format of ``path``: ``source`` when it is given, else by looking at the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown format.
    """
    if source is None:
        return sniff(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file.")
    return adapter(source).name


def pieces(
    path: Path, form: str, size: int, *, limit: int | None = None, options: Mapping[str, Any] | None = None
) -> Iterator[Predictions]:
    """The rows of ``path`` in file order, ``size`` at a time; an empty file gives one empty piece.

    Args:
        path: a file, or a folder where the format is one.
        form: name of its format, see `refine.files.formats`.
        size: rows of each piece but the last.
        limit: only the first so many rows.
        options: of the format's reader.

    Raises:
        ValueError: the file is not of the format; names the column and the mend.
    """
    if form == "grasp" and path.suffix.lower() == ".parquet" and not _given(options):
        yield from _parquet_pieces(path, size, limit)
        return
    rows = _read(path, form, options or {})
    count = len(rows) if limit is None else min(limit, len(rows))
    for start in range(0, max(count, 1), size):
        yield rows.take(slice(start, min(start + size, count)))


def _given(options: Mapping[str, Any] | None) -> dict[str, Any]:
    return {k: v for k, v in (options or {}).items() if v is not None and k not in SHARED_OPTIONS}


def _read(path: Path, form: str, options: Mapping[str, Any]) -> Predictions:
    known = adapter(form)
    takes = inspect.signature(known.read).parameters
    return read_with(
        known, path, **{k: v for k, v in options.items() if k not in SHARED_OPTIONS or k in takes}
    )


def _parquet_pieces(path: Path, size: int, limit: int | None) -> Iterator[Predictions]:
    """As `read_predictions`, but never more than a piece in memory."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError("Parquet needs pyarrow: pip install 'regrasp[ray]', or use .npz.") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            total = file.metadata.num_rows if limit is None else min(limit, file.metadata.num_rows)
            schema = (file.schema_arrow.metadata or {}).get(b"schema")
            start, waiting = 0, file.schema_arrow.empty_table()
            for batch in file.iter_batches(batch_size=size):
                # Row groups end where they like, so batches are put together to full pieces.
                waiting = pyarrow.concat_tables([waiting, pyarrow.Table.from_batches([batch])])
                while start < total and waiting.num_rows >= (count := min(size, total - start)):
                    yield _piece(waiting.slice(0, count), schema, start)
                    start, waiting = start + count, waiting.slice(count)
                if start >= total:
                    break
    except Exception as error:  # pyarrow has a dozen kinds for a damaged file
        message = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: {message[:300]}") from None
    if total == 0:
        yield read_predictions(path)


def _piece(table: Any, schema: bytes | None, start: int) -> Predictions:
    """Rows ``start``, … of the file, numbered as if it had been read whole."""
    columns: dict[str, Any] = {} if schema is None else {"schema": schema}
    for name in table.column_names:
        # An unknown column goes on as it is: from_columns names it and suggests the nearest.
        columns[name] = arrow_column(table.column(name), COLUMNS[name]) if name in COLUMNS else []
    for name in ("frame_id", "frame_index"):
        columns.setdefault(name, np.arange(start, start + table.num_rows))
    return Predictions.from_columns(columns)
