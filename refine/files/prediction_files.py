"""Reading and writing `grasp/1` files: npz without pickle, JSON, Parquet.

Files come from other people's machines, so readers trust nothing: sizes are checked against what is declared
before memory is taken, nothing is unpickled, and every fault is a ``ValueError`` that names the file.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from hand_models.atomic import write_atomically

from .predictions import COLUMNS, SCHEMA, Column, Predictions

MAX_NPZ_BYTES = 8 << 30
"""An npz that unpacks to more than this is refused; write one file per sequence, or Parquet."""
MAX_JSON_BYTES = 256 << 20
FORMATS = (".npz", ".json", ".parquet")


def read_predictions(path: str | Path) -> Predictions:
    """Read a `grasp/1` file; the suffix (.npz, .json or .parquet) says which form.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a readable `grasp/1` file; the message names the file, the column and the mend.
    """
    path = Path(path)
    reader = {".npz": read_npz, ".json": _read_json, ".parquet": _read_parquet}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path}: unknown kind of file {path.suffix!r}; expected one of {', '.join(FORMATS)}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'is not a file' if path.exists() else 'there is no such file'}.")
    try:
        return Predictions.from_columns(reader(path))
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(str(path)) else f"{path}: {message}") from None


def write_predictions(path: str | Path, predictions: Predictions) -> Path:
    """Write a `grasp/1` file in the form its suffix names, whole or not at all; returns the path.

    An existing file is replaced. The folder is made when missing.

    Raises:
        ValueError: unknown suffix.
        ImportError: `.parquet` without pyarrow.
    """
    path = Path(path)
    writer = {".npz": _write_npz, ".json": _write_json, ".parquet": write_parquet}.get(path.suffix.lower())
    if writer is None:
        raise ValueError(
            f"{path}: unknown kind of file {path.suffix!r}; expected one of {', '.join(FORMATS)}."
        )
    return write_atomically(path, lambda stream: writer(stream, predictions))


# npz ------------------------------------------------------------------------------------------------


def read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > MAX_NPZ_BYTES:
                raise ValueError(
                    f"unpacks to more than {MAX_NPZ_BYTES >> 30} GB; split it, one file per sequence."
                )
            columns = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in columns:
                    raise ValueError(f"column {name!r} is there twice.")
                columns[name] = parse_npy(name, archive.read(member))
            return columns
    except ValueError:
        raise
    except Exception as error:  # zipfile and zlib raise a dozen kinds on damaged archives
        raise ValueError(
            f"not a readable .npz file ({_brief(error)}); write it again with numpy.savez."
        ) from None


def parse_npy(name: str, raw: bytes) -> np.ndarray:
    """An array from the bytes of a .npy file; unlike ``numpy.load``, never allocates more than is there."""
    stream = io.BytesIO(raw)
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = readers[version](stream)
    except Exception as error:  # a damaged header raises whatever the parser stumbles over
        raise ValueError(f"column {name!r}: not a readable array ({_brief(error)}).") from None
    if dtype.hasobject or dtype.names:
        raise ValueError(
            f"column {name!r}: holds Python objects (a pickle), which is never read; save plain arrays."
        )
    count = 1
    for length in shape:
        count *= length
    body = raw[stream.tell() :]
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(body):
        raise ValueError(
            f"column {name!r}: {len(body)} bytes do not make an array of shape {shape} of {dtype}."
        )
    try:
        array = np.frombuffer(body, dtype, count) if body else np.zeros(count, dtype)
        array = array.reshape(shape, order="F" if fortran else "C")
        if dtype.kind == "U":
            array.tolist()  # raises on code points that are none
        return array
    except (ValueError, MemoryError, OverflowError) as error:
        raise ValueError(f"column {name!r}: not a readable array ({_brief(error)}).") from None


def _write_npz(stream: IO[bytes], predictions: Predictions) -> None:
    np.savez_compressed(stream, allow_pickle=False, schema=np.array(SCHEMA), **predictions.columns())


# JSON -----------------------------------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("rows"), list):
        raise ValueError(
            f'expected {{"schema": "{SCHEMA}", "rows": [{{"object_id": ..., "side": ..., ...}}]}}.'
        )
    extra = sorted(set(document) - {"schema", "rows"})
    if extra:
        raise ValueError(
            f"unknown key {extra[0][:60]!r} beside 'schema' and 'rows'; columns belong in the rows."
        )
    rows = document["rows"]
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"row {index}: expected an object of columns, got {type(row).__name__}.")
    columns: dict[str, Any] = {"schema": document.get("schema", SCHEMA)}
    for name in dict.fromkeys(key for row in rows for key in row):
        if name not in COLUMNS:
            columns[name] = []  # from_columns names it and suggests the nearest
            continue
        columns[name] = _json_column(name, COLUMNS[name], [row.get(name) for row in rows])
    if not rows:
        columns |= {"object_id": [], "side": [], "keypoints_3d": []}
    return columns


def _json_column(name: str, column: Column, values: list[Any]) -> np.ndarray:
    """Rows of one column as one array; ``null`` and a missing key are NaN, "" or (metric_depth) true."""
    arrays = [
        None if value is None else _json_value(name, column, row, value) for row, value in enumerate(values)
    ]
    shape = next((array.shape for array in arrays if array is not None), column.shapes[0])
    missing = {"float": np.nan, "str": "", "bool": True}
    for row, array in enumerate(arrays):
        if array is None:
            if column.kind not in missing:
                raise ValueError(f"row {row}, column {name!r}: is missing; give it in every row or in none.")
            arrays[row] = np.full(shape, missing[column.kind])
        elif array.shape != shape:
            raise ValueError(
                f"row {row}, column {name!r}: got shape {array.shape}, but {shape} in the rows before it."
            )
    return np.stack(arrays)  # type: ignore[arg-type]  # no None is left


def _json_value(name: str, column: Column, row: int, value: Any) -> np.ndarray:
    """One cell as an array of one of the column's shapes."""
    try:
        array = np.asarray(value)
        if column.kind == "float" and array.dtype == object:
            array = array.astype(np.float64)  # numbers with null among them
    except (ValueError, TypeError, OverflowError):
        array = None
    kinds = {"float": "fiu", "int": "i", "bool": "b", "str": "Ui"}[column.kind]
    if array is None or (array.size and array.dtype.kind not in kinds):
        raise ValueError(
            f"row {row}, column {name!r}: {str(value)[:40]!r} is not {column.kind} of even shape."
        )
    if array.shape not in column.shapes:
        wanted = " or ".join(map(str, column.shapes))
        raise ValueError(f"row {row}, column {name!r}: got shape {array.shape}, expected {wanted}.")
    return array.astype(np.str_) if column.kind == "str" else array


def _write_json(stream: IO[bytes], predictions: Predictions) -> None:
    columns = predictions.columns()
    rows = [
        {name: plain_values(value[row]) for name, value in columns.items()} for row in range(len(predictions))
    ]
    write_json(stream, {"schema": SCHEMA, "rows": rows}, indent=None)


def plain_values(value: np.ndarray) -> Any:
    """A cell as lists and numbers; NaN and infinity, which JSON does not have, become null."""
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        cells = np.array(value, dtype=object)
        cells[~np.isfinite(value)] = None
        return cells.tolist()
    return value.tolist()


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> Any:
    """Parse a JSON file. Raises ``ValueError`` when it is none, too deep, or larger than ``limit`` bytes."""
    if path.stat().st_size > limit:
        raise ValueError(f"{path}: larger than {limit >> 20} MB; write an .npz instead.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable JSON ({_brief(error)}).") from None


def write_json(stream: IO[bytes], document: Any, indent: int | None = 2) -> None:
    """Strict JSON (no NaN) as UTF-8."""
    stream.write(json.dumps(document, indent=indent, allow_nan=False, ensure_ascii=False).encode() + b"\n")


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:160]


# Parquet --------------------------------------------------------------------------------------------


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError("Parquet needs pyarrow: pip install 'regrasp[ray]', or use .npz.") from None
    return pyarrow


def _read_parquet(path: Path) -> dict[str, Any]:
    pyarrow = _pyarrow()
    try:
        table = pyarrow.parquet.read_table(path)
    except Exception as error:  # pyarrow has a dozen kinds for a damaged file
        raise ValueError(f"not a readable Parquet file ({_brief(error)}).") from None
    columns: dict[str, Any] = {"schema": (table.schema.metadata or {}).get(b"schema", SCHEMA.encode())}
    for name in table.column_names:
        if name not in COLUMNS:
            columns[name] = []  # from_columns names it and suggests the nearest
            continue
        try:
            columns[name] = arrow_column(table.column(name), COLUMNS[name])
        except (ValueError, TypeError, pyarrow.ArrowException) as error:
            raise ValueError(f"column {name!r}: {_brief(error)}; write it with write_predictions.") from None
    return columns


def arrow_column(column: Any, wanted: Column) -> np.ndarray:
    if wanted.shapes == ((),):
        values = (
            column.to_pylist() if wanted.kind in ("str", "bool") else column.to_numpy(zero_copy_only=False)
        )
        return np.array(values, dtype=np.str_) if wanted.kind == "str" else np.asarray(values)
    if column.null_count:
        raise ValueError("rows without a value; use NaN")
    flat = np.array(column.to_pylist(), dtype=np.float64)  # lists of equal length, flattened per row
    shape = next((s for s in wanted.shapes if int(np.prod(s)) == flat.shape[-1]), wanted.shapes[0])
    flat = flat.reshape(-1, *shape)
    return flat.astype(np.int64) if wanted.kind == "int" else flat


def write_parquet(stream: IO[bytes], predictions: Predictions) -> None:
    pyarrow = _pyarrow()
    arrays = {}
    for name, value in predictions.columns().items():
        if value.ndim == 1:
            arrays[name] = pyarrow.array(value.tolist() if value.dtype.kind == "U" else value)
        else:
            width = int(np.prod(value.shape[1:]))
            arrays[name] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(value.ravel()), width)
    table = pyarrow.table(arrays).replace_schema_metadata({"schema": SCHEMA})
    pyarrow.parquet.write_table(table, stream)
