"""Reading the files that other people's formats are made of, trusting nothing in them."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hand_models.safe_pickle import GuardedUnpickler, UnsafePickleError, to_array

from ..prediction_files import MAX_NPZ_BYTES, parse_npy, read_json

__all__ = [
    "MAX_FILE_BYTES",
    "betas_rows",
    "child",
    "field",
    "given_numbers",
    "head",
    "npz_names",
    "numbers",
    "read_json",
    "read_table",
    "read_tree",
    "read_yaml",
    "rigid",
    "text_lines",
    "warn_damaged",
]

MAX_FILE_BYTES = 1 << 30
"""Text and pickles larger than this are refused; split them."""
MAX_YAML_BYTES = 1 << 20
MAX_NUMBERS = 1 << 28
"""Numbers in one field."""
_HEAD = 4096  # bytes that sniffing looks at
_REFUSED = (
    "Nothing was executed. Only numpy arrays, numbers, text, lists and dictionaries are read; save the fields as "
    "plain numpy arrays (tensors with .cpu().numpy())."
)


# Looking --------------------------------------------------------------------------------------------


def npz_names(path: Path) -> tuple[str, ...]:
    """Names of the arrays in an .npz file without reading them; empty when it is none. Never raises."""
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist())
    except Exception:  # zipfile has a dozen kinds for a damaged archive
        return ()


def head(path: Path) -> str:
    """The first 4 kB of a file as text, for sniffing; empty when unreadable. Never raises."""
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""


def child(root: Path, relative: str, where: str) -> Path:
    """``root / relative``, which may not lead out of ``root``, links included; ``ValueError`` when it does."""
    from ..object_files import inside

    return inside(root, relative, where)


# Reading --------------------------------------------------------------------------------------------


def read_tree(path: Path, only: Collection[str] | None = None) -> Any:
    """The content of a .json, .npz, .npy or pickle (.pkl, .pickle) file: arrays, numbers, text, lists, dictionaries.

    Pickles, and arrays of objects inside .npz and .npy, go through the unpickler of `hand_models.safe_pickle`,
    which admits numpy and nothing else.

    Args:
        path: the file; its suffix says what it is.
        only: names of an .npz to read; None for all.

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
        return read_npz(path, only)
    if suffix not in (".npy", ".pkl", ".pickle"):
        raise ValueError(f"{path}: unknown kind of file {suffix!r}; expected .json, .npz, .npy or .pkl.")
    _check_size(path)
    if suffix == ".npy":
        return _array(str(path), path.read_bytes())
    with path.open("rb") as stream:
        return _unpickle(str(path), stream)


def _check_size(path: Path, limit: int = MAX_FILE_BYTES) -> None:
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f"{path}: {size >> 20} MB, more than {limit >> 20} MB; split it.")


def read_npz(path: Path, only: Collection[str] | None) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > MAX_NPZ_BYTES:
                raise ValueError(f"{path}: unpacks to more than {MAX_NPZ_BYTES >> 30} GB; split it.")
            names = {member: member.filename.removesuffix(".npy") for member in members}
            wanted = {member: name for member, name in names.items() if only is None or name in only}
            return {name: _array(f"{path}: {name}", archive.read(member)) for member, name in wanted.items()}
    except ValueError:
        raise
    except Exception as error:  # zipfile and zlib raise a dozen kinds on damaged archives
        raise ValueError(
            f"{path}: not a readable .npz file ({type(error).__name__}: {str(error)[:120]})."
        ) from None


def _array(where: str, raw: bytes) -> Any:
    """The array in the bytes of a .npy file, or the object pickled in it."""
    stream = io.BytesIO(raw)
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        pickled = readers[version](stream)[2].hasobject
    except Exception:  # a damaged header raises whatever the parser stumbles over
        raise ValueError(f"{where}: not a readable array.") from None
    if not pickled:
        try:
            return parse_npy("array", raw)
        except ValueError as error:
            raise ValueError(f"{where}: {str(error).removeprefix('column ')}") from None
    value = _unpickle(where, stream)
    return value.item() if isinstance(value, np.ndarray) and value.shape == () else value


def _unpickle(where: str, stream: Any) -> Any:
    try:
        return GuardedUnpickler(stream).load()
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{where}: refused: {error} {_REFUSED}") from None
    except Exception as error:  # a broken pickle can raise nearly anything
        raise ValueError(
            f"{where}: not a readable pickle ({type(error).__name__}: {str(error)[:120]})."
        ) from None


def read_table(path: Path, width: int, *, separator: str | None = None) -> tuple[list[str], np.ndarray]:
    """Lines of one label and ``width`` numbers: labels and ``(N, width)``. Empty lines are passed over.

    Raises:
        ValueError: too large, or a line with another count or something that is no number; names the line.
    """
    labels, rows = [], []
    for number, line in text_lines(path):
        cells = line.split(separator)
        if len(cells) != width + 1:
            raise ValueError(
                f"{path}: line {number} has {len(cells)} cells; expected a label and {width} numbers."
            )
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


_YAML_LINE = re.compile(
    r"^( *)(?:- *(?P<item>[^:]*)|(?P<key>[\w.-]+|'[^']*'|\"[^\"]*\") *:(?: +(?P<value>.*))?)$"
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The flat part of a YAML file that datasets use: ``key: value``, lists of values, one level of nested keys.

    Values stay text. Flow lists (``[1, 2]``) are read too. Anything else is a ``ValueError`` naming the line.
    """
    _check_size(path, MAX_YAML_BYTES)
    document: dict[str, Any] = {}
    outer = inner = None
    for number, line in text_lines(path):
        line = line.rstrip()
        if line.lstrip().startswith("#") or line.strip() in ("---", "..."):
            continue
        match = _YAML_LINE.match(line)
        if match is None or (match["key"] is None and outer is None):
            raise ValueError(f"{path}: line {number} is not 'key: value' nor '- value': {line[:60]!r}.")
        if match["key"] is None:
            holder, name = (document, outer) if inner is None else (document[outer], inner)
            if not isinstance(holder[name], list):
                holder[name] = []
            holder[name].append(_scalar(match["item"]))
            continue
        name, value = _scalar(match["key"]), _value(match["value"])
        if not match[1]:
            document[name], outer, inner = value, name, None
            continue
        if outer is None:
            raise ValueError(f"{path}: line {number} is indented below no key.")
        if not isinstance(document[outer], dict):
            document[outer] = {}
        document[outer][name], inner = value, name
    return document


def _scalar(text: str) -> str:
    return text.strip().strip("'\"")


def _value(text: str | None) -> Any:
    text = (text or "").strip()
    if text.startswith("[") and text.endswith("]"):
        return [_scalar(cell) for cell in text[1:-1].split(",") if cell.strip()]
    return _scalar(text)


def warn_damaged(messages: list[str], count: int) -> None:
    """Say that some of ``count`` files of a folder could not be read; their rows are NaN and fail alone."""
    if messages:
        warnings.warn(
            f"{len(messages)} of {count} files are damaged and come out as empty rows; the first: {messages[0]}",
            stacklevel=4,
        )


# Values ---------------------------------------------------------------------------------------------


def field(path: Path, values: Any, name: str, *shape: int | None) -> np.ndarray:
    """``values[name]`` as float64 of ``shape``, where None stands for any length; no shape at all lets any pass.

    Raises:
        ValueError: missing, not numbers or of another shape; names the file, the field and what was expected.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds a {type(values).__name__}, not named fields such as {name!r}.")
    if name not in values:
        there = ", ".join(sorted(map(str, values)))[:200]
        raise ValueError(f"{path}: field {name!r} is missing; it has {there or 'none'}.")
    return numbers(path, f"field {name!r}", values[name], *shape)


def numbers(path: Path | str, what: str, value: Any, *shape: int | None) -> np.ndarray:
    """``value`` as float64 of ``shape`` (None: any length; none given: any shape); ``what`` it is, for errors."""
    try:
        array = to_array(value)
        if array.size > MAX_NUMBERS:  # a small pickle can ask for any amount of memory
            raise ValueError(f"{array.size} numbers, more than {MAX_NUMBERS}")
        array = array.astype(np.float64)
    except Exception as error:  # stand-ins of damaged pickles raise whatever their state lacks
        raise ValueError(f"{path}: {what} is not an array of numbers ({str(error)[:120]}).") from None
    fits = len(shape) == array.ndim and all(
        n is None or n == m for n, m in zip(shape, array.shape, strict=True)
    )
    if shape and not fits:
        wanted = "(" + ", ".join("N" if n is None else str(n) for n in shape) + ")"
        raise ValueError(f"{path}: {what} has shape {array.shape}; expected {wanted}.")
    return array


def given_numbers(value: Any) -> Any:
    """An option's value: what is in the file when it is a path, else itself. Not for what stands in files."""
    return _number_file(Path(value)) if isinstance(value, str | Path) else value


def betas_rows(value: Any, rows: int, where: str = "betas") -> np.ndarray:
    """Betas ``(rows, 10)`` from ten numbers for all rows, or ``(rows, 10)``.

    Raises:
        ValueError: another shape, or no numbers.
    """
    array = numbers(where, "value", value)
    array = array.reshape(1, -1) if array.size == 10 else array
    if array.ndim != 2 or array.shape[1] != 10 or len(array) not in (1, rows):
        raise ValueError(f"{where}: got shape {array.shape}; expected (10,) or ({rows}, 10).")
    return np.broadcast_to(array, (rows, 10)).copy()


def rigid(value: Any, rows: int, *, unit: float = 1.0) -> np.ndarray:
    """Object poses ``(rows, 4, 4)`` from an array or a file, or NaN from None.

    Args:
        value: None; ``(4, 4)``, ``(3, 4)`` or ``(rows, ...)`` of those, column vectors, object to camera; or the
            path of such an array as .npy, .json or text of numbers.
        rows: how many are wanted; one pose serves all.
        unit: factor that turns its translations into metres.

    Raises:
        ValueError: another shape or number of poses.
        FileNotFoundError: there is no such file.
    """
    if value is None:
        return np.full((rows, 4, 4), np.nan)
    where = f"object_pose {value}" if isinstance(value, str | Path) else "object_pose"
    pose = numbers(where, "value", given_numbers(value))
    if pose.ndim <= 2 and pose.size in (12, 16):
        pose = pose.reshape(1, -1, 4)
    elif pose.ndim == 2 and pose.shape[1] in (12, 16):
        pose = pose.reshape(len(pose), -1, 4)
    if pose.ndim != 3 or pose.shape[1:] not in ((3, 4), (4, 4)) or len(pose) not in (1, rows):
        raise ValueError(f"{where}: got shape {pose.shape}; expected (4, 4) or ({rows}, 4, 4).")
    full = np.tile(np.eye(4), (rows, 1, 1))
    full[:, : pose.shape[1]] = pose
    full[:, :3, 3] *= unit
    return full


def _number_file(path: Path) -> Any:
    """The numbers in a .npy, .json or text file of them."""
    if path.suffix.lower() in (".npy", ".json"):
        return read_tree(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    rows = [floats(path, number, re.split(r"[\s,;]+", line.strip())) for number, line in text_lines(path)]
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"{path}: its lines differ in length; expected a table of numbers.")
    return np.array(rows)
