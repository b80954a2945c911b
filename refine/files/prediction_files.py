"""Reading and writing `grasp/1` files: npz without pickle, JSON, Parquet.

Files come from other people's machines, so readers trust nothing: sizes are checked against what is declared
before memory is taken, nothing is unpickled, and every fault is a ``ValueError`` that names the file.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np

from hand_models.atomic import write_atomically

from .predictions import COLUMNS, KINDS, SCHEMA, Predictions, converted, fits

MAX_NPZ_BYTES = 8 << 30
"""An npz that unpacks to more than this is refused; write one file per sequence, or Parquet."""
MAX_JSON_BYTES = 256 << 20
SUFFIXES = (".npz", ".json", ".parquet")


def read_predictions(path: str | Path, absent: Mapping[str, Any] = MappingProxyType({})) -> Predictions:
    """Read a `grasp/1` file; the suffix (.npz, .json or .parquet) says which form.

    Args:
        path: the file.
        absent: columns, in place of those that the file lacks.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a readable `grasp/1` file; the message names the file, the column and the mend.
    """
    path = Path(path)
    suffix = _known_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'is not a file' if path.exists() else 'there is no such file'}.")
    if suffix == ".parquet":
        return next(parquet_pieces(path, 1 << 40, absent=absent))
    try:
        return Predictions.from_columns({**absent, **(read_npz(path) if suffix == ".npz" else _read_json(path))})
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
    if _known_suffix(path) == ".npz":
        columns = {"schema": np.array(SCHEMA), **predictions.columns()}
        return write_atomically(path, lambda stream: np.savez_compressed(stream, allow_pickle=False, **columns))
    writer = write_json_rows if path.suffix.lower() == ".json" else write_parquet_pieces
    return write_atomically(path, lambda stream: writer(stream, [predictions]))


def _known_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: unknown kind of file {path.suffix!r}; expected one of {', '.join(SUFFIXES)}.")
    return suffix


# npz ------------------------------------------------------------------------------------------------


def read_npz(
    path: Path, only: Collection[str] | None = None, parse: Callable[[str, bytes], Any] | None = None
) -> dict[str, Any]:
    """Arrays of an .npz file by name, or ``only`` some, never more than `MAX_NPZ_BYTES`.

    ``parse`` makes something of a name and the bytes of its member; `parse_npy`, naming the column, when None.

    Raises:
        ValueError: damaged, too large, or of other content; begins with the path.
    """
    parse = parse or (lambda name, raw: parse_npy(f"{path}: column {name!r}", raw))
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > MAX_NPZ_BYTES:
                raise ValueError(
                    f"{path}: unpacks to more than {MAX_NPZ_BYTES >> 30} GB; split it, one file per sequence."
                )
            columns: dict[str, Any] = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in columns:
                    raise ValueError(f"{path}: {name!r} is there twice.")
                if only is None or name in only:
                    columns[name] = parse(name, archive.read(member))
            return columns
    except ValueError:
        raise
    except Exception as error:  # zipfile and zlib raise a dozen kinds on damaged archives
        raise ValueError(
            f"{path}: not a readable .npz file ({_brief(error)}); write it again with numpy.savez."
        ) from None


def parse_npy(what: str, raw: bytes, unpickle: Callable[[IO[bytes]], Any] | None = None) -> Any:
    """An array from the bytes of a .npy file; unlike ``numpy.load``, never allocates more than is there.

    Errors begin with ``what``. ``unpickle`` reads Python objects, whose pickle its stream holds; without it they are
    refused.
    """
    stream = io.BytesIO(raw)
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = readers[version](stream)
    except Exception as error:  # a damaged header raises whatever the parser stumbles over
        raise ValueError(f"{what}: not a readable array ({_brief(error)}).") from None
    if dtype.hasobject and unpickle is not None:
        return unpickle(stream)
    if dtype.hasobject or dtype.names:
        raise ValueError(f"{what}: holds Python objects (a pickle), which is never read; save plain arrays.")
    size = len(raw) - stream.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{what}: {size} bytes do not make an array of shape {shape} of {dtype}.")
    try:
        array = np.lib.format.read_array(io.BytesIO(raw), allow_pickle=False)
        if dtype.kind == "U":
            array.tolist()  # raises on code points that are none
        return array
    except (ValueError, MemoryError, OverflowError) as error:
        raise ValueError(f"{what}: not a readable array ({_brief(error)}).") from None


# JSON -----------------------------------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("rows"), list):
        raise ValueError(f'expected {{"schema": "{SCHEMA}", "rows": [{{"object_id": ..., "side": ..., ...}}]}}.')
    extra = sorted(set(document) - {"schema", "rows"})
    if extra:
        raise ValueError(f"unknown key {extra[0][:60]!r} beside 'schema' and 'rows'; columns belong in the rows.")
    rows = document["rows"]
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"row {index}: expected an object of columns, got {type(row).__name__}.")
    columns: dict[str, Any] = {"schema": document.get("schema", SCHEMA)}
    for name in dict.fromkeys(key for row in rows for key in row):
        columns[name] = _from_cells(name, [row.get(name) for row in rows])
    if not rows:
        columns |= {"object_id": [], "side": [], "keypoints_3d": []}
    return columns


def _from_cells(name: str, cells: Sequence[Any], start: int = 0, *, flat: bool = False) -> Any:
    """Rows of one column as one array; None in place of a cell is what `KINDS` says.

    ``start`` is the number of the first row, for errors; ``flat`` cells are lists of all their numbers.
    """
    if name not in COLUMNS:
        return []  # `Predictions.from_columns` names it and suggests the nearest
    column, arrays = COLUMNS[name], []
    missing, shapes = KINDS[column.kind].missing, column.shapes
    varied = any(-1 in shape for shape in shapes)
    for row, value in enumerate(cells, start):
        if value is None and missing is None:
            raise ValueError(f"row {row}, column {name!r}: is missing; give it in every row or in none.")
        if value is None:
            arrays.append(None)
            continue
        try:
            array = converted(name, value)
        except ValueError as error:
            raise ValueError(f"row {row}, {error}") from None
        if flat or (varied and array.size == 0):
            whole = shapes[0] if varied and array.size % math.prod(shapes[0]) == 0 else array.shape
            array = array.reshape(next((s for s in shapes if math.prod(s) == array.size), whole))
        if not fits(array.shape, shapes):
            wanted = " or ".join(map(str, shapes))
            raise ValueError(f"row {row}, column {name!r}: got shape {array.shape}, expected {wanted}.")
        shapes = shapes if varied else (array.shape,)  # of all rows
        arrays.append(array)
    if varied:  # shorter rows are filled up
        most = max((len(array) for array in arrays if array is not None), default=0)
        arrays = [a if a is None else np.pad(a, ((0, most - len(a)), (0, 0)), constant_values=missing) for a in arrays]
        shapes = ((most, *shapes[0][1:]),)
    nothing = np.full(shapes[0], missing)
    return np.stack([nothing if array is None else array for array in arrays]) if arrays else []


def write_json_rows(stream: IO[bytes], parts: Iterable[Predictions]) -> None:
    """The JSON form of the rows of all ``parts``, one after the other."""
    stream.write(f'{{"schema": "{SCHEMA}", "rows": ['.encode())
    separator = b""
    for part in parts:
        for cells in zip(*map(_plain, part.columns().values()), strict=True):
            row = dict(zip(part.columns(), cells, strict=True))
            stream.write(separator + json.dumps(row, allow_nan=False, ensure_ascii=False).encode())
            separator = b", "
    stream.write(b"]}\n")


def _plain(column: np.ndarray) -> list[Any]:
    """Cells as lists and numbers; NaN and infinity, which JSON does not have, become null."""
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        return np.where(np.isfinite(column), column.astype(object), None).tolist()
    return column.tolist()


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> Any:
    """Parse a JSON file. Raises ``ValueError`` when it is none, too deep, or larger than ``limit`` bytes."""
    if path.stat().st_size > limit:
        raise ValueError(f"{path}: larger than {limit >> 20} MB; write an .npz instead.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable JSON ({_brief(error)}).") from None


def write_json(stream: IO[bytes], document: Any) -> None:
    """Strict JSON (no NaN) as UTF-8."""
    stream.write(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False).encode() + b"\n")


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:160]


# Parquet --------------------------------------------------------------------------------------------


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError("Parquet needs pyarrow: pip install 'regrasp[ray]', or use .npz.") from None
    return pyarrow


def _has_motions(file: Any) -> bool:
    """Whether a row of an open Parquet file is of a recording."""
    if "sequence_id" not in file.schema_arrow.names:
        return False
    return any(file.read(columns=["sequence_id"])["sequence_id"].unique().to_pylist())


def parquet_pieces(
    path: Path,
    size: int | Callable[[int, bool], int],
    limit: int | None = None,
    absent: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Predictions]:
    """As `read_predictions`, but ``size`` rows at a time and never more in memory; at least one piece.

    With a ``limit`` only the first so many rows. The size may be a function of how many rows that makes,
    and whether some may be of a motion.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    pyarrow = _pyarrow()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            total = file.metadata.num_rows if limit is None else min(limit, file.metadata.num_rows)
            size = size if isinstance(size, int) else size(total, _has_motions(file))
            start, waiting = 0, file.schema_arrow.empty_table()
            if total == 0:
                yield Predictions.from_columns({**absent, **_arrow_columns(waiting, 0)})
            # Row groups end where they like, so batches are put together to full pieces.
            for batch in file.iter_batches(batch_size=size) if total else ():
                waiting = pyarrow.concat_tables([waiting, pyarrow.Table.from_batches([batch])])
                while start < total and waiting.num_rows >= (count := min(size, total - start)):
                    yield Predictions.from_columns({**absent, **_arrow_columns(waiting.slice(0, count), start)})
                    start, waiting = start + count, waiting.slice(count)
                if start >= total:
                    break
    except Exception as error:  # pyarrow has a dozen kinds for a damaged file
        message = str(error) if isinstance(error, ValueError) else f"not a readable Parquet file ({_brief(error)})."
        raise ValueError(f"{path}: {message[:300]}") from None


def _arrow_columns(table: Any, start: int) -> dict[str, Any]:
    """Columns of ``table``, whose first row is number ``start`` of the file."""
    numbers = np.arange(start, start + table.num_rows)  # of rows without a name, as if the file had been read whole
    columns: dict[str, Any] = {"frame_id": numbers, "frame_index": numbers}
    schema = (table.schema.metadata or {}).get(b"schema")
    columns |= {} if schema is None else {"schema": schema}
    for name in table.column_names:
        columns[name] = _from_cells(name, table.column(name).to_pylist(), start, flat=True)
    return columns


def write_parquet_pieces(stream: IO[bytes], parts: Iterable[Predictions]) -> None:
    """The Parquet form of the rows of one or more ``parts``, one after the other."""
    pyarrow, writer = _pyarrow(), None
    try:
        for part in parts:
            table = pyarrow.table({name: _arrow_array(name, value) for name, value in part.columns().items()})
            table = table.replace_schema_metadata({"schema": SCHEMA})
            writer = writer or pyarrow.parquet.ParquetWriter(stream, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _arrow_array(name: str, value: np.ndarray) -> Any:
    """A column of numbers, texts, or lists of all numbers of a row."""
    pyarrow = _pyarrow()
    flat = pyarrow.array(value.ravel().tolist() if value.dtype.kind == "U" else value.ravel())
    if value.ndim == 1:
        return flat
    width = math.prod(value.shape[1:])
    if any(-1 in shape for shape in COLUMNS[name].shapes):  # of another width in other parts
        return pyarrow.LargeListArray.from_arrays(np.arange(len(value) + 1) * width, flat)
    return pyarrow.FixedSizeListArray.from_arrays(flat, width)
