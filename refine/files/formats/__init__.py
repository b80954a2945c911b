"""Other people's prediction files, read into `grasp/1` and, where a challenge asks for it, written from it.

Each format is one small module with one constant, ``FORMAT``; its docstring names the source of truth of every
convention. Those that only give MANO's parameters under other names are rows of one table, `datasets`. A new one is
such a module, or row, and its name in `BUILT_IN`, or comes from another package, by an entry point:

    [project.entry-points."regrasp.formats"]
    myformat = "mypackage.myformat:FORMAT"

The protocol of a format:

- ``read(path, **options) -> Predictions``: a file, or a folder where the format is one. Only keyword-only options
  spelled out in its signature, all with defaults; `regrasp convert` and `regrasp refine` take their names, types and
  words from it, and what ``--help`` says from its docstring. Names in common use: ``mano_dir`` (the user's MANO, for
  mean pose, PCA or joint regressor), ``object_id``, ``side``, ``betas``. Those of `known` (``camera``, ``focal``,
  ``input_error``, ``object_pose``, ``object_poses``) are seen to for every format, unless a reader has its own. A
  format that knows nothing of the object yields ``object_id=""`` and, since its hand is in the camera frame,
  ``object_pose`` of NaN; `refine.files.predictions.row_problems` then says what to fill in. Where the file counts
  frames, ``frame_index`` says which each row is of, as frames without a hand have none.
- Every record of the file becomes a row, or is reported: one that cannot be read is an empty row and is warned of
  (`columns.each`), and where none can be read that is an error.
- ``write(path, predictions, **options) -> Path``, or None; writes whole or not at all
  (`hand_models.atomic.write_atomically`).
- ``sniff(path) -> bool``: whether the file looks like this format. Cheap, never raises, unpickles nothing,
  false where in doubt.
- Errors, the same for every reader: ``ValueError`` naming the field, row or line and the mend (`read_with` adds the
  file), ``MissingManoError`` where numbers need MANO of a side that is not there, ``FileNotFoundError``.

What formats share: `files` reads files and trusts none, `hands` knows the conventions of hands, `columns` puts rows
together.
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from contact.objects.diagnosis import stands_for

from ..predictions import Predictions
from .datasets import FORMATS
from .files import naming
from .format import Format, accepted, options_of
from .known import KNOWN, with_known

__all__ = [
    "BUILT_IN", "ENTRY_POINTS", "Format", "all_formats", "get_format", "read_any", "read_with", "sniff", "write_with",
]  # fmt: skip

BUILT_IN = (
    "grasp", "hamer", "wilor", "ho3d", "dexycb", "keypoints", "mediapipe", "fhab", "contactpose", "contactopt", "grab",
    "arctic", "pose48", "graph", "interhand", "hoi4d", "oakink2", "hot3d", "graspxl", "hawor",
)  # fmt: skip
"""Modules of this package that hold a ``FORMAT``, and rows of `datasets`; the order is that of lists for people."""
ENTRY_POINTS = "regrasp.formats"
"""Group of entry points by which other packages add formats."""


def all_formats() -> dict[str, Format]:
    """Every known format by name, `grasp` first, other packages' last."""
    return {name: get_format(name) for name in BUILT_IN} | _from_other_packages()


def get_format(name: str) -> Format:
    """The format called ``name``. Raises ``ValueError`` listing the known ones."""
    if name in FORMATS:
        return FORMATS[name]
    if name in BUILT_IN:
        return importlib.import_module(f".{name}", __name__).FORMAT
    others = _from_other_packages()
    if name not in others:
        raise ValueError(f"format {name!r} is not known; the formats are {', '.join([*BUILT_IN, *others])}.")
    return others[name]


@cache  # installed packages do not change while a process runs, and each file is sniffed
def _from_other_packages() -> dict[str, Format]:
    """Formats of installed packages; one that does not load, or whose name is taken, is warned of and left out."""
    found: dict[str, Format] = {}
    for point in entry_points(group=ENTRY_POINTS):
        owner = point.dist.name if point.dist else point.value
        if point.name in BUILT_IN or point.name in found:
            warnings.warn(f"{owner}: its format {point.name!r} is left out, there is one of that name.", stacklevel=3)
            continue
        try:
            form = point.load()
            if not isinstance(form, Format):
                raise TypeError(f"{point.value} is a {type(form).__name__}, not a Format")
            options_of(form.read), options_of(form.write)  # annotations that cannot be resolved raise here
        except Exception as error:  # other people's modules raise whatever they like when they are imported
            warnings.warn(
                f"{owner}: its format {point.name!r} does not load and is left out "
                f"({type(error).__name__}: {str(error)[:160]}).",
                stacklevel=3,
            )
            continue
        found[point.name] = replace(form, name=point.name)
    return found


def read_any(path: str | Path, *, source: str | None = None, **options: Any) -> Predictions:
    """Read a prediction file of any known format.

    Args:
        path: a file, or a folder where the format is one.
        source: name of the format; None to look at the file (`sniff`).
        options: passed to the format's reader; those that are None count as not given. Every format takes ``camera``,
            ``focal``, ``input_error``, ``object_pose`` and ``object_poses``, see `known.with_known`.

    Raises:
        FileNotFoundError: there is no such file, or MANO is needed and missing.
        ValueError: the format is not recognised, the file is not of it, or it does not take an option.
    """
    return read_with(get_format(source if source is not None else sniff(path)), path, **options)


def read_with(form: Format, path: str | Path, **options: Any) -> Predictions:
    """Read ``path`` as ``form``; options that are None are left out. Errors as `read_any`, beginning with the path."""
    path = _existing(path)
    if form.name in BUILT_IN:
        _refuse_what_stands_for(path)
    try:
        with naming(path), np.errstate(all="ignore"):  # overflowing numbers become infinite, which rows report
            own = options_of(form.read)
            known = {name: options[name] for name in KNOWN if options.get(name) is not None and name not in own}
            reads = {name: value for name, value in options.items() if name not in known}
            return with_known(form.read(path, **accepted(form, form.read, reads)), **known)
    except (ValueError, FileNotFoundError, PermissionError, ImportError):
        raise
    except Exception as error:  # what nobody thought of is still the file's fault, and must name it
        what = f"{type(error).__name__}: {str(error)[:160]}"
        raise ValueError(f"{path}: not readable as {form.name} ({what}).") from error


def _existing(path: str | Path) -> Path:
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: there is no such file.")
    return Path(path)


def _refuse_what_stands_for(path: Path) -> None:
    """Raises ``ValueError`` where a file is empty, a Git LFS pointer or a web page; says how to get it itself."""
    if path.is_file():
        with path.open("rb") as stream:
            instead = stands_for(stream.read(512), "file")
        if instead is not None:
            raise ValueError(f"{path}: {instead}.")


def write_with(form: Format, path: str | Path, predictions: Predictions, **options: Any) -> Path:
    """Write ``predictions`` as ``form``; options that are None are left out.

    Raises:
        ValueError: the format cannot be written, or does not take an option.
    """
    if form.write is None:
        writable = [name for name, other in all_formats().items() if other.write is not None]
        raise ValueError(f"format {form.name!r} is only read; those written are {', '.join(writable)}.")
    return form.write(Path(path), predictions, **accepted(form, form.write, options))


def sniff(path: str | Path) -> str:
    """Name of the format a file or folder is in, by looking at it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it looks like none of the formats, or like several; says what was tried.
    """
    path = _existing(path)
    known = all_formats()
    found = [name for name, form in known.items() if form.sniff(path)]
    if len(found) == 1:
        return found[0]
    if found:
        one = found[0]
        raise ValueError(f"{path}: could be {' or '.join(found)}; say which (--from {one}, or source={one!r}).")
    _refuse_what_stands_for(path)
    tried = "\n".join(f"  {name}: {form.description}" for name, form in known.items())
    raise ValueError(
        f"{path}: looks like none of the known formats; say which it is with --from NAME (source=). Tried:\n{tried}"
    )
