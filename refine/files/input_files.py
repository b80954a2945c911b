"""What `regrasp refine` is to read: files, folders and globs, each with the name its results get, and their rows."""

from __future__ import annotations

import glob
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from .formats import all_formats, get_format, read_with, sniff
from .formats.format import options_of
from .prediction_files import parquet_pieces
from .predictions import Predictions

_OURS = (".refined", ".summary")
"""Ends of the names of our own results, before the suffix; a folder that holds them is not refined again."""
_MAGIC = frozenset("*?[")
_HIDDEN = re.compile(r"(^|/)\.|\.shards(/|$)")
SHARED_OPTIONS = ("mano_dir",)
"""Options that others than the reader need too, and so not refused by formats that have no use for them."""


@dataclass(frozen=True)
class InputFile:
    """One file of predictions."""

    path: Path
    form: str
    """name of its format, see `refine.files.formats`"""
    name: str
    """what its results are called, relative to the output folder, without suffix"""

    @property
    def suffix(self) -> str:
        """Of the results: the input's own form where that is `grasp/1`, else .npz."""
        return self.path.suffix.lower() if self.form == "grasp" else ".npz"


def find_inputs(sources: Sequence[str | Path], source: str | None = None) -> list[InputFile]:
    """The files that ``sources`` name.

    A folder stands for the files below it that are of a known format, unless it is itself of one (as FHAB's
    are); their results keep its structure. A glob (``**`` for any depth) stands for the files it matches.

    Args:
        sources: files, folders or globs.
        source: name of the format of all of them; None to look at each.

    Raises:
        FileNotFoundError: there is no such file, or nothing in a folder or glob.
        ValueError: a file that was named is of no known format, or two results would have the same name.
    """
    forms = all_formats().values() if source is None else [get_format(source)]
    found: list[InputFile] = []
    for given in sources:
        path = Path(given)
        if not path.exists() and _MAGIC & set(str(given)):
            root = Path(*takewhile(lambda part: not _MAGIC & set(part), path.parts[:-1]))  # before any wildcard
            found += _below(root, _glob(path), source)
        elif path.is_dir() and not any(form.sniff(path) for form in forms):
            files = sorted(p for p in path.rglob("*") if p.is_file())
            found += _below(path, [p for p in files if not _HIDDEN.search(p.relative_to(path).as_posix())], source)
        else:
            found.append(InputFile(path, _form(path, source), path.stem))
    by_name: dict[str, InputFile] = {}
    for item in found:
        other = by_name.setdefault(item.name, item)
        if other.path.resolve() != item.path.resolve():
            raise ValueError(
                f"{other.path} and {item.path}: their results would both be called {item.name!r}; "
                "rename one or give them different --out."
            )
    return list(by_name.values())


def pieces(
    path: Path,
    form: str,
    size: int | Callable[[int, bool], int],
    *,
    limit: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Predictions]:
    """The rows of ``path`` in file order, ``size`` at a time; an empty file gives one empty piece.

    Parquet is read as a stream, all else at once.

    Args:
        path: a file, or a folder where the format is one.
        form: name of its format, see `refine.files.formats`.
        size: rows of each piece but the last, or a function of how many rows there are, and whether any is of a motion.
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
    size = size if isinstance(size, int) else size(count, bool((rows.sequence_id != "").any()))
    for start in range(0, max(count, 1), size):
        yield rows.take(slice(start, min(start + size, count)))


def _form(path: Path, source: str | None) -> str:
    """Name of the format of ``path``: ``source`` when it is given, else by looking at the file."""
    if source is None:
        return sniff(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file.")
    return get_format(source).name


def _below(root: Path, files: list[Path], source: str | None) -> list[InputFile]:
    """Of ``files``, those that can be read, named by where they lie below ``root``."""
    if source is not None:  # what else lies there is left alone, if any of it looks like the format
        files = [path for path in files if get_format(source).sniff(path)] or files
    inputs, passed_over = [], []
    for path in (p for p in files if not p.stem.endswith(_OURS)):
        try:
            inputs.append(InputFile(path, _form(path, source), path.relative_to(root).with_suffix("").as_posix()))
        except ValueError:
            passed_over.append(path)
    if not inputs:
        raise FileNotFoundError(f"{root}: holds no prediction files of a known format; say which with --from.")
    if passed_over:
        more = f" and {len(passed_over) - 1} more" if len(passed_over) > 1 else ""
        warnings.warn(f"{passed_over[0]}{more}: passed over, of no known format", stacklevel=2)
    return inputs


def _glob(pattern: Path) -> list[Path]:
    files = [path for path in map(Path, sorted(glob.glob(str(pattern), recursive=True))) if path.is_file()]
    if not files:
        raise FileNotFoundError(f"{pattern}: matches no file.")
    return files
