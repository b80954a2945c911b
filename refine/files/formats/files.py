"""Reading the files that other people's formats are made of, trusting nothing in them."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hand_models.safe_pickle import to_array, unpickle

from ..prediction_files import parse_npy, read_json, read_npz
from .torch_files import is_torch, read_torch

MAX_FILE_BYTES = 1 << 30
"""Text and pickles larger than this are refused; split them."""
MAX_YAML_BYTES = 1 << 18
MAX_NUMBERS = 1 << 28
"""Numbers in one field."""
_HEAD = 4096  # bytes that sniffing looks at
_REFUSED = (
    "Only numpy arrays, numbers, text, lists and dictionaries are read; save the fields as plain numpy arrays "
    "(tensors with .cpu().numpy())."
)


# Looking --------------------------------------------------------------------------------------------


def npz_names(path: Path) -> set[str]:
    """Names of the arrays in an .npz file without reading them; empty when it is none. Never raises."""
    if path.suffix.lower() != ".npz":
        return set()
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception:  # zipfile has a dozen kinds for a damaged archive
        return set()


def json_names(path: Path, names: Collection[str]) -> bool:
    """Whether one of ``names`` is quoted at the beginning of a .json file. Never raises."""
    start = head(path) if path.suffix.lower() == ".json" else ""
    return any(f'"{name}"' in start for name in names)


def head(path: Path) -> str:
    """The first 4 kB of a file as text, for sniffing; empty when unreadable. Never raises."""
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""


# Reading --------------------------------------------------------------------------------------------


def read_tree(path: Path, only: Collection[str] | None = None) -> Any:
    """The content of a .json, .npz (or ``only`` some names of it), .npy, pickle (.pkl, .pickle) or torch (.pt, .pth)
    file.

    It is arrays, numbers, text, lists and dictionaries. Pickles, and arrays of objects inside .npz and .npy, go
    through the unpickler of `hand_models.safe_pickle`, which admits numpy and nothing else.

    Raises:
        FileNotFoundError: it is not a file.
        ValueError: damaged, too large, or refused; says which.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'is not a file' if path.exists() else 'there is no such file'}.")
    suffix = path.suffix.lower()
    if suffix == ".json":
        return read_json(path)
    if suffix == ".npz":
        return read_npz(path, only, lambda name, raw: _array(f"{path}: {name}", raw))
    if suffix not in (".npy", ".pkl", ".pickle", ".pt", ".pth"):
        raise ValueError(f"{path}: unknown kind of file {suffix!r}; expected .json, .npz, .npy, .pkl or .pt.")
    _check_size(path)
    if is_torch(path):
        return read_torch(path)
    if suffix == ".npy":
        return _array(str(path), path.read_bytes())
    with path.open("rb") as stream:
        return unpickle(stream, str(path), _REFUSED)


def _check_size(path: Path, limit: int = MAX_FILE_BYTES) -> None:
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f"{path}: {size >> 20} MB, more than {limit >> 20} MB; split it.")


def _array(where: str, raw: bytes) -> Any:
    """The array in the bytes of a .npy file, or the object pickled in it."""
    value = parse_npy(where, raw, unpickle=lambda stream: unpickle(stream, where, _REFUSED))
    return value.item() if isinstance(value, np.ndarray) and value.dtype == object and value.shape == () else value


def read_table(path: Path, width: int, *, separator: str | None = None) -> tuple[list[str], np.ndarray]:
    """Lines of one label and ``width`` numbers: labels and ``(N, width)``. Empty lines are passed over.

    Raises ``ValueError`` where a line has another count or something that is no number; names the line.
    """
    labels, rows = [], []
    for number, line in text_lines(path):
        cells = line.split(separator)
        if len(cells) != width + 1:
            raise ValueError(f"{path}: line {number} has {len(cells)} cells; expected a label and {width} numbers.")
        rows.append(floats(path, number, cells[1:]))
        labels.append(cells[0].strip())
    return labels, np.array(rows, np.float64).reshape(-1, width)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line that is not blank. Raises ``ValueError`` when the file is too large."""
    _check_size(path)
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, line.rstrip("\r\n")


def floats(path: Path, line: int, cells: list[str]) -> list[float]:
    """``cells`` as numbers; ``ValueError`` naming the line and the cell."""
    values = []
    for cell in cells:
        try:
            values.append(float(cell))
        except ValueError:
            raise ValueError(f"{path}: line {line}: {cell.strip()[:40]!r} is not a number.") from None
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file of plain values. Raises ``ValueError`` naming the line that is anything else."""
    _check_size(path, MAX_YAML_BYTES)
    try:
        document = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # dates that are none are ValueErrors
        raise ValueError(f"{path}: not readable YAML ({' '.join(str(error).split())[:200]}).") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: expected lines 'key: value', got a {type(document).__name__}.")
    return document


# Values ---------------------------------------------------------------------------------------------


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Inside, faults are told as those of ``path``: a ``ValueError`` that does not name it begins with it."""
    try:
        yield
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def field(values: Any, name: str, *shape: int | None) -> np.ndarray:
    """``values[name]`` as float64 of ``shape``, as `numbers`; ``ValueError`` where there is none."""
    if not isinstance(values, dict):
        raise ValueError(f"holds a {type(values).__name__}, not named fields such as {name!r}.")
    if name not in values:
        there = ", ".join(sorted(map(str, values)))[:200]
        raise ValueError(f"field {name!r} is missing; it has {there or 'none'}.")
    return numbers(f"field {name!r}", values[name], *shape)


def numbers(what: str, value: Any, *shape: int | None) -> np.ndarray:
    """``value`` as float64 of ``shape``, where None stands for any length; no shape at all lets any pass.

    Raises:
        ValueError: not numbers or of another shape; says ``what`` it is and what was expected.
    """
    try:
        array = to_array(value)
        if array.size > MAX_NUMBERS:  # a small pickle can ask for any amount of memory
            raise ValueError(f"{array.size} numbers, more than {MAX_NUMBERS}")
        array = array.astype(np.float64)
    except Exception as error:  # stand-ins of damaged pickles raise whatever their state lacks
        raise ValueError(f"{what} is not an array of numbers ({str(error)[:120]}).") from None
    fits = len(shape) == array.ndim and all(n is None or n == m for n, m in zip(shape, array.shape, strict=True))
    if shape and not fits:
        wanted = "(" + ", ".join("N" if n is None else str(n) for n in shape) + ")"
        raise ValueError(f"{what} has shape {array.shape}; expected {wanted}.")
    return array


def named(values: Mapping[str, Any], names: Collection[str]) -> str | None:
    """The first of the ``names`` a field goes by that is among ``values``."""
    return next((name for name in names if name in values), None)


def per_hand(what: str, value: Any, rows: int, *shape: int) -> np.ndarray:
    """Numbers ``(rows, *shape)``; those of one hand serve all."""
    array, width = numbers(what, value), math.prod(shape)
    if array.size != width and not (array.ndim and len(array) == rows and array.size == rows * width):
        raise ValueError(f"{what} has shape {array.shape}; expected {(rows, *shape)}, or {shape} for all.")
    return np.broadcast_to(array.reshape(-1, *shape), (rows, *shape)).copy()


def filled(value: Any) -> Any:
    """Nested lists with NaN for null."""
    if isinstance(value, list):
        return [filled(item) for item in value]
    return np.nan if value is None else value


def table_of(tree: Any, what: str) -> list[dict[str, Any]]:
    """The dictionaries in ``tree``, which is one or a list of them. ``what`` was expected, for errors."""
    items = tree if isinstance(tree, list) else [tree]
    if any(not isinstance(item, dict) for item in items):
        raise ValueError(f"expected {what}, or a list of them.")
    return items


def given_numbers(value: Any) -> Any:
    """An option's value: what is in the .npy, .json or text file when it is a path, else itself."""
    if not isinstance(value, str | Path):
        return value
    path = Path(value)
    if path.suffix.lower() in (".npy", ".json"):
        return read_tree(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    with naming(path):
        return np.loadtxt([re.sub(r"[,;]", " ", line) for _, line in text_lines(path)], ndmin=2)
