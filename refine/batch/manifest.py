"""The work on one input file, cut into fixed shards that any worker can take.

A manifest is a folder: ``manifest.json`` says what is to be done to which rows, ``00000.rows.npz`` are the
rows of the first shard, ``00000.result.npz`` its results and ``00000.json`` the record that they are whole. The
folder's name is a hash of input and configuration, so that results of other rows or other options are never
taken for its own. Rows are copied in so that a worker reads its share and nothing else.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeAlias

from filelock import FileLock, Timeout

from hand_models.atomic import write_atomically

from ..files.object_files import ObjectEntry
from ..files.prediction_files import read_json, write_json, write_predictions
from ..files.predictions import Predictions
from .config import digest, file_sha256

SCHEMA = "grasp-manifest/1"
_FILE, _LOCK = "manifest.json", "lock"


@dataclass(frozen=True)
class Manifest:
    """What is to be done to the rows of one file."""

    folder: Path
    """where the shards lie; every worker must reach it by this path"""
    input_sha256: str
    config_sha256: str
    objects: Mapping[str, str | None]
    """hash of the mesh of every object among the rows; None where there was none"""
    rows: int
    shard_rows: int

    @property
    def shards(self) -> list[Shard]:
        """In file order; an empty file has one without rows."""
        return [Shard(self, number) for number in range(max(1, math.ceil(self.rows / self.shard_rows)))]

    @property
    def report(self) -> Path:
        """Folder of the grasps' records, where a report is asked for."""
        return self.folder / "report"


@dataclass(frozen=True)
class Shard:
    """Some consecutive rows of a manifest, done together by one worker."""

    manifest: Manifest
    number: int

    @property
    def rows(self) -> range:
        """Their places in the file."""
        size = self.manifest.shard_rows
        return range(self.number * size, min((self.number + 1) * size, self.manifest.rows))

    @property
    def rows_file(self) -> Path:
        """The input rows."""
        return self.manifest.folder / f"{self.number:05d}.rows.npz"

    @property
    def result_file(self) -> Path:
        """The refined rows."""
        return self.manifest.folder / f"{self.number:05d}.result.npz"

    @property
    def record_file(self) -> Path:
        """What became of them, written after the results."""
        return self.manifest.folder / f"{self.number:05d}.json"


ObjectHashes: TypeAlias = Callable[[Iterable[str]], dict[str, str | None]]


def object_hashes(objects: Mapping[str, ObjectEntry]) -> ObjectHashes:
    """A function of object ids: SHA-256 of mesh and scale by id, sorted, None without a mesh; each is read once."""

    @cache
    def of(name: str) -> str | None:
        try:
            entry = objects[name]
            return digest([file_sha256(entry.path), entry.scale, entry.sha256])
        except (KeyError, OSError):  # not there or unreadable: its rows will fail and say why
            return None

    return lambda names: {name: of(name) for name in sorted(names)}


def load_manifest(folder: Path, hashes: ObjectHashes) -> Manifest | None:
    """The manifest of earlier work in ``folder``; None when there is none or its objects have changed."""
    try:
        document = read_json(folder / _FILE)
        schema = document.pop("schema")
        manifest = Manifest(folder, **document)
        known = schema == SCHEMA and hashes(manifest.objects) == manifest.objects
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if known else None


def make_manifest(
    folder: Path, pieces: Iterable[Predictions], hashes: ObjectHashes, *, input_sha256: str, config_sha256: str
) -> Manifest:
    """Copy rows into the shards of ``folder``, a piece each, which loses what was in it.

    All pieces but the last have as many rows.

    Raises:
        ValueError: the input cannot be read; the folder is left without a manifest.
    """
    clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(folder, input_sha256, config_sha256, {}, 0, 1)
    names: set[str] = set()
    rows, shard_rows = 0, 1
    for number, piece in enumerate(pieces):
        write_predictions(Shard(manifest, number).rows_file, piece)
        names |= set(piece.object_id.tolist())
        rows, shard_rows = rows + len(piece), max(shard_rows, len(piece))
    manifest = replace(manifest, objects=hashes(names), rows=rows, shard_rows=shard_rows)
    document = {"schema": SCHEMA} | {k: v for k, v in vars(manifest).items() if k != "folder"}
    write_atomically(folder / _FILE, lambda stream: write_json(stream, document))
    return manifest


def clear(folder: Path) -> None:
    """Remove what is in ``folder`` but its lock, the manifest first, so that no part is taken for the whole."""
    if not folder.is_dir():
        return
    (folder / _FILE).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink(missing_ok=True)


def lock(folder: Path) -> FileLock:
    """Let no other run work on ``folder``, which is made if missing, until the lock is released or the process ends.

    Raises:
        ValueError: another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = FileLock(folder / _LOCK, blocking=False)
    try:
        taken.acquire()
    except Timeout:
        raise ValueError(
            f"{folder}: another regrasp is at work on the same file with the same options; "
            "wait for it, or give another --out."
        ) from None
    except (OSError, NotImplementedError):  # a network folder without locks
        pass
    return taken
