"""Rows of an input file, a piece at a time: other people's formats and npz in one reading, Parquet in streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .formats import get_format, read_with, sniff
from .formats.format import options_of
from .prediction_files import parquet_pieces
from .predictions import Predictions

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
    return get_format(source).name


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
    known = get_format(form)
    takes = options_of(known.read)
    given = {k: v for k, v in (options or {}).items() if k in takes or k not in SHARED_OPTIONS}
    if form == "grasp" and path.suffix.lower() == ".parquet" and not any(v is not None for v in given.values()):
        yield from parquet_pieces(path, size, limit)
        return
    rows = read_with(known, path, **given)
    count = len(rows) if limit is None else min(limit, len(rows))
    for start in range(0, max(count, 1), size):
        yield rows.take(slice(start, min(start + size, count)))
