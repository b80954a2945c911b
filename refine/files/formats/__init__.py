"""Other people's prediction files, read into `grasp/1` and, where a challenge asks for it, written from it.

Each format is one small module with one constant, ``ADAPTER``; its docstring names the source of truth of
every convention. The modules are imported when they are asked for.

The protocol of a module:

- ``read(path, **options) -> Predictions``: a file, or a folder where the format is one. Only keyword options
  spelled out in its signature, all with defaults. Names in common use: ``mano_dir`` (the user's MANO, for mean
  pose, PCA or joint regressor), ``object_id``, ``object_pose`` (4×4 object to camera, an array or a file),
  ``side``, ``betas``. A format that knows nothing of the object yields ``object_id=""`` and, since its hand is in
  the camera frame, ``object_pose`` of NaN; `refine.files.predictions.row_problems` then says what to fill in.
- ``write(path, predictions, **options) -> Path``, or None; writes whole or not at all
  (`hand_models.atomic.write_atomically`).
- ``sniff(path) -> bool``: whether the file looks like this format. Cheap, never raises, unpickles nothing,
  false where in doubt.
- Errors are ``ValueError``, ``FileNotFoundError`` or ``MissingManoError`` beginning with the path, naming the
  field and the mend. Reading files is `refine.files.formats.files`' work.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..prediction_files import FORMATS, read_predictions, write_predictions
from ..predictions import Predictions

__all__ = ["MODULES", "Adapter", "adapter", "adapters", "read_any", "read_with", "sniff", "write_with"]

MODULES = (
    "hamer",
    "ho3d",
    "dexycb",
    "keypoints",
    "mediapipe",
    "fhab",
    "contactpose",
    "contactopt",
    "grab",
    "arctic",
    "pose48",
    "graph",
)
"""Modules of this package that hold an ``ADAPTER``, besides `grasp/1` itself."""


@dataclass(frozen=True)
class Adapter:
    """One file format."""

    name: str
    """What ``--from`` and ``--to`` call it; for a module of this package the module's name."""
    read: Callable[..., Predictions]
    """``(path, **options) -> Predictions``"""
    write: Callable[..., Path] | None
    """``(path, predictions, **options) -> path``; None where nobody reads the format back."""
    sniff: Callable[[Path], bool]
    """Whether a file or folder looks like this format; cheap, never raises."""
    description: str
    """One line for people."""


def adapters() -> dict[str, Adapter]:
    """Every known format by name, `grasp` first."""
    return {name: adapter(name) for name in ("grasp", *MODULES)}


def adapter(name: str) -> Adapter:
    """The format called ``name``. Raises ``ValueError`` listing the known ones."""
    if name == "grasp":
        return _GRASP
    if name not in MODULES:
        raise ValueError(f"format {name!r} is not known; the formats are grasp, {', '.join(MODULES)}.")
    return importlib.import_module(f".{name}", __name__).ADAPTER


def read_any(path: str | Path, *, source: str | None = None, **options: Any) -> Predictions:
    """Read a prediction file of any known format.

    Args:
        path: a file, or a folder where the format is one.
        source: name of the format; None to look at the file (`sniff`).
        options: passed to the format's reader; those that are None count as not given.

    Raises:
        FileNotFoundError: there is no such file, or MANO is needed and missing.
        ValueError: the format is not recognised, the file is not of it, or it does not take an option.
    """
    path = Path(path)
    return read_with(adapter(source if source is not None else sniff(path)), path, **options)


def read_with(form: Adapter, path: str | Path, **options: Any) -> Predictions:
    """Read ``path`` as ``form``; options that are None are left out. Errors as `read_any`."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file.")
    accepted = _accepted(form, form.read, options)
    try:
        with np.errstate(all="ignore"):  # overflowing numbers come out as infinite and are reported by row
            return form.read(path, **accepted)
    except (FileNotFoundError, PermissionError, ImportError):
        raise
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # what nobody thought of is still the file's fault, and must name it
        raise ValueError(
            f"{path}: not readable as {form.name} ({type(error).__name__}: {str(error)[:160]})."
        ) from error


def write_with(form: Adapter, path: str | Path, predictions: Predictions, **options: Any) -> Path:
    """Write ``predictions`` as ``form``; options that are None are left out.

    Raises:
        ValueError: the format cannot be written, or does not take an option.
    """
    if form.write is None:
        writable = [name for name, other in adapters().items() if other.write is not None]
        raise ValueError(f"format {form.name!r} is only read; those written are {', '.join(writable)}.")
    return form.write(Path(path), predictions, **_accepted(form, form.write, options))


def _accepted(form: Adapter, function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are given; ``ValueError`` for one that ``function`` has no use for."""
    given = {name: value for name, value in options.items() if value is not None}
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for name in given:
        if name not in known:
            what = f"its options are {', '.join(known)}" if known else "it has no options"
            raise ValueError(f"option {name!r} does not apply to format {form.name!r}; {what}.")
    return given


def sniff(path: str | Path) -> str:
    """Name of the format a file or folder is in, by looking at it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it looks like none of the formats, or like several; says what was tried.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file.")
    known = adapters()
    found = [name for name, form in known.items() if form.sniff(path)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{path}: could be {' or '.join(found)}; say which (--from {found[0]}, or source={found[0]!r})."
        )
    tried = "\n".join(f"  {name}: {form.description}" for name, form in known.items())
    raise ValueError(
        f"{path}: looks like none of the known formats; say which it is with --from NAME (source=). Tried:\n{tried}"
    )


def _is_grasp(path: Path) -> bool:
    from .files import head, npz_names

    if not path.is_file():
        return False
    if path.suffix.lower() == ".json":
        return '"grasp/1"' in head(path)
    if path.suffix.lower() == ".npz":
        names = set(npz_names(path))
        return not names or {"object_id", "side"} <= names  # the reader says best what ails a damaged one
    return path.suffix.lower() in FORMATS


_GRASP = Adapter(
    "grasp",
    lambda path: read_predictions(path),
    lambda path, predictions: write_predictions(path, predictions),
    _is_grasp,
    "grasp/1, this package's own .npz, .json or .parquet",
)
