"""Prediction files of any number and size through a refiner, so that nothing is lost when the machine stops.

Each file is cut into fixed shards (`manifest`), whose results are written whole or not at all (`shards`) by this
process, by several, or by Ray (`workers`, `ray_engine`), and put together when all are there (`merge`).
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from hand_models.atomic import write_atomically

from ..files.input_files import SHARED_OPTIONS, InputFile, pieces
from ..files.object_files import OneObject, find_objects, near_names
from ..files.prediction_files import read_json, read_predictions, write_json
from .config import BatchConfig, describe, digest, file_sha256
from .hand_files import write_hands
from .manifest import SCHEMA, Manifest, Shard, clear, load_manifest, lock, make_manifest, object_hashes
from .merge import merge, merge_samples
from .ray_engine import run_on_ray
from .report import Photos, Report
from .shards import ShardRecord, finished, give_up
from .workers import ATTEMPTS, Outcome, run_here, run_in_processes

_log = logging.getLogger(__name__)
_DIED = (
    f"the process that refined this shard died {ATTEMPTS} times; give it more memory or a smaller --batch-size, "
    "then run again with --overwrite."
)


@dataclass(frozen=True)
class Execution:
    """Where and how the work is done; results do not depend on it."""

    engine: Literal["local", "ray"] = "local"
    workers: int = 1
    """processes (local) or cores of the Ray that is started here"""
    address: str | None = None
    """of a running Ray cluster"""
    overwrite: bool = False
    """do everything anew"""
    progress: Callable[[int], Any] = lambda count: None
    """called with the number of rows just done, earlier runs' among them"""
    expect: Callable[[int], Any] = lambda count: None
    """called with the number of rows of each file, before those of its rows are done"""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"--workers: got {self.workers}; give 1 or more.")
        if self.engine not in ("local", "ray"):
            raise ValueError(f"--engine: got {self.engine!r}; choose local or ray.")
        if self.address is not None and self.engine != "ray":
            raise ValueError("--address: is of a Ray cluster; give --engine ray with it.")

    def run(self, shards: Iterator[Shard], config: BatchConfig) -> Generator[Outcome, None, None]:
        """The outcomes of ``shards``, in any order."""
        if self.engine == "ray":
            return run_on_ray(shards, config, self.progress, self.workers, self.address)
        if self.workers > 1:
            return run_in_processes(shards, config, self.progress, self.workers)
        return run_here(shards, config, self.progress)


@dataclass(frozen=True)
class FileOutcome:
    """What became of one input file."""

    input: InputFile
    results: Path | None
    """the refined rows; None when the file could not be read"""
    summary: dict[str, Any] | None
    """as in the summary file"""
    reason: str = ""
    """why the file could not be read"""
    fresh: bool = True
    """False when all of it had been done by an earlier run"""


@dataclass
class _Open:
    """A file being worked on."""

    input: InputFile
    manifest: Manifest
    lock: FileLock
    started: float
    records: dict[int, ShardRecord] = field(default_factory=dict)


def refine_files(
    inputs: Sequence[InputFile],
    out: Path,
    config: BatchConfig,
    execution: Execution | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[FileOutcome]:
    """Refine every row of every file; outcomes come as files are finished.

    ``<name>.refined.npz`` (or .json, .parquet where the input is one) and ``<name>.summary.json`` are written to
    ``out``, the hands' meshes to ``<name>.meshes/`` and samples to ``<name>.samples.npz``. Until a file is finished its
    shards lie in ``<name>.shards/``.
    A file whose results are there, for the same input, options, weights, hand model and meshes, is not done again.

    Args:
        inputs: from `refine.files.input_files.find_inputs`.
        options: of the formats' readers.

    Raises:
        ValueError: the only file cannot be read, or none of its objects is there. Of several files those are
            recorded, and the others done.
        FileNotFoundError: objects, weights or hand model are missing.
    """
    yield from _Run(inputs, out, config, execution or Execution(), options or {}).outcomes()


@dataclass
class _Run:
    """One call of `refine_files`."""

    _inputs: Sequence[InputFile]
    _out: Path
    _config: BatchConfig
    _execution: Execution
    _options: Mapping[str, Any]

    def __post_init__(self) -> None:
        self._objects = find_objects(self._config.objects, self._config.scale)
        self._hashes = object_hashes(self._objects)
        self._model = self._config.load_model()
        self._configuration = describe(self._config, self._model)
        self._open: dict[Path, _Open] = {}
        self._finished: list[FileOutcome] = []

    def outcomes(self) -> Iterator[FileOutcome]:
        try:
            with closing(self._execution.run(self._shards(), self._config)) as done:
                for shard, record in done:
                    work = self._open[shard.manifest.folder]
                    work.records[shard.number] = record or give_up(shard, self._config, _DIED)
                    self._finish_if_done(work)
                    while self._finished:
                        yield self._finished.pop(0)
            yield from self._finished
        finally:
            for work in self._open.values():
                work.lock.release()

    def _shards(self) -> Iterator[Shard]:
        """What is left to be done, file by file; a file is opened when its first shard is asked for."""
        for item in self._inputs:
            try:
                work = self._begin(item)
            except (ValueError, OSError) as error:
                if len(self._inputs) == 1:
                    raise
                self._finished.append(FileOutcome(item, None, None, str(error)))
                continue
            if work is None:
                continue
            self._open[work.manifest.folder] = work
            self._execution.expect(work.manifest.rows)
            work.records = {s.number: record for s in work.manifest.shards if (record := finished(s))}
            self._execution.progress(sum(record.tally.rows for record in work.records.values()))
            missing = [shard for shard in work.manifest.shards if shard.number not in work.records]
            self._finish_if_done(work)
            yield from missing

    def _begin(self, item: InputFile) -> _Open | None:
        """Open the work on a file, that of an earlier run if there is any; None when it is finished."""
        started = time.monotonic()
        reading = {
            name: file_sha256(value) if isinstance(value, Path) and value.exists() else str(value)
            for name, value in self._options.items()
            if value is not None and name not in SHARED_OPTIONS
        }
        settings = self._configuration | {"options": {"form": item.form} | reading}
        keys = {"input_sha256": file_sha256(item.path), "config_sha256": digest(settings)}
        # Resolved, because workers of a cluster have other current folders.
        folder = self._out.resolve() / f"{item.name}.shards" / digest([SCHEMA, *keys.values()])[:16]
        if not self._execution.overwrite and (summary := self._earlier(item, keys)):
            _remove(folder)
            if self._config.save_mesh and not (summary.get("meshes") and self._meshes(item).is_dir()):
                write_hands(self._results(item), self._meshes(item), self._model)
                summary |= {"meshes": True}
                self._write_summary(item, summary)
            self._execution.expect(summary["rows"])
            self._execution.progress(summary["rows"])
            self._finished.append(FileOutcome(item, self._results(item), summary, fresh=False))
            return None
        self._check_limit(item)
        size = partial(self._config.rows_a_shard, workers=self._execution.workers)
        rows = pieces(item.path, item.form, size, limit=self._config.limit, options=self._options)
        existed = [parent for parent in folder.parents if parent.is_dir()]
        held = lock(folder)
        try:
            manifest = None if self._execution.overwrite else load_manifest(folder, self._hashes)
            if manifest is None:
                manifest = make_manifest(folder, rows, self._hashes, **keys)
            self._check_objects(manifest)
        except BaseException:
            held.release()
            _remove(folder, keep=existed)
            raise
        return _Open(item, manifest, held, started)

    def _check_objects(self, manifest: Manifest) -> None:
        """``ValueError`` when none of a file's objects is there, or one mesh is to serve several."""
        where, wanted = f"--objects {self._config.objects}", sorted(filter(None, manifest.objects))
        if isinstance(self._objects, OneObject):
            if len(wanted) > 1:
                raise ValueError(
                    f"{where}: is one mesh, but the rows are of {len(wanted)} objects ({', '.join(wanted[:3])}, ...); "
                    "give the folder of their meshes."
                )
        elif manifest.rows and not wanted:
            raise ValueError(
                f"{where}: the rows name no object (object_id is empty); give --object-id, or one mesh as --objects."
            )
        elif manifest.rows and not any(manifest.objects.values()):
            there = sorted(self._objects)
            near = near_names(wanted[0], there)
            raise ValueError(
                f"{where}: has none of the file's objects; e.g. {wanted[0]!r} is not among {', '.join(there[:5])}."
                + (f" Did you mean {' or '.join(map(repr, near))}?" if near else "")
            )

    def _results(self, item: InputFile) -> Path:
        return self._out / f"{item.name}.refined{item.suffix}"

    def _summary(self, item: InputFile) -> Path:
        return self._out / f"{item.name}.summary.json"

    def _meshes(self, item: InputFile) -> Path:
        return self._out / f"{item.name}.meshes"

    def _write_summary(self, item: InputFile, summary: Mapping[str, Any]) -> None:
        write_atomically(self._summary(item), lambda stream: write_json(stream, summary))

    def _check_limit(self, item: InputFile) -> None:
        """``ValueError`` when results of more rows than are asked for would be replaced."""
        if self._config.limit is None or not self._results(item).is_file():
            return
        try:
            rows = int(read_json(self._summary(item))["rows"])
        except (OSError, ValueError, KeyError, TypeError):  # not a summary of ours
            return
        if rows > self._config.limit:
            raise ValueError(
                f"--limit {self._config.limit}: {self._results(item)} holds the results of {rows} rows, which fewer "
                "would replace; give another --out, or move them away."
            )

    def _earlier(self, item: InputFile, keys: Mapping[str, str]) -> dict[str, Any] | None:
        """The summary of an earlier run's results when they are whole and would come out the same again."""
        try:
            summary = read_json(self._summary(item))
            same = (
                all(summary[name] == value for name, value in keys.items())
                and summary["objects"] == self._hashes(summary["objects"])
                and summary["results_sha256"] == file_sha256(self._results(item))
                and {"rows", "status", "mean", "failures", "seconds"} <= set(summary)
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return summary if same else None

    def _finish_if_done(self, work: _Open) -> None:
        """When all shards are there, put them together, then let the results appear, the summary last."""
        item, manifest = work.input, work.manifest
        if len(work.records) < len(manifest.shards):
            return
        records = [work.records[shard.number] for shard in manifest.shards]
        merged = merge(manifest, manifest.folder / f"merged{item.suffix}")
        summary = reduce(add, (record.tally for record in records)).summary() | {
            "input": item.path.name,
            "input_sha256": manifest.input_sha256,
            "config_sha256": manifest.config_sha256,
            "results_sha256": file_sha256(merged),
            "method": self._config.refine.method,
            **{name: self._configuration[name] for name in ("batch_size", "seed", "hand_model")},
            "configuration": self._configuration,
            "objects": manifest.objects,
            "shards": len(records),
            "seconds": round(time.monotonic() - work.started, 3),
            "seconds_of_shards": round(sum(record.seconds for record in records), 3),
            "meshes": self._config.save_mesh,
        }
        if self._config.report is not None:
            self._report(item, manifest, merged)
        if self._config.samples is not None:
            drawn = merge_samples(manifest, manifest.folder / "samples.npz")
            drawn.replace(self._out / f"{item.name}.samples.npz")
        results = self._results(item)
        merged.replace(results)
        if self._config.save_mesh:
            write_hands(results, self._meshes(item), self._model)
        self._write_summary(item, summary)
        self._finished.append(FileOutcome(item, results, summary))
        del self._open[manifest.folder]
        work.lock.release()  # before its file goes, which Windows asks for
        _remove(manifest.folder)
        left = manifest.folder.parent
        if left.is_dir():
            _log.warning("%s: holds unfinished work with other options; delete it if you do not need it", left)

    def _report(self, item: InputFile, manifest: Manifest, merged: Path) -> None:
        """Let the report appear, with pictures of some rows; rows may be anywhere, so the records are all there is."""
        folder = self._out / f"{item.name}.report"
        if folder.is_dir():
            shutil.rmtree(folder)
        manifest.report.mkdir(exist_ok=True)
        manifest.report.replace(folder)
        refined, images = read_predictions(merged), self._config.images
        photos = None if images is None else Photos(Path(images), refined)
        Report(folder, photos).write(refined, item.name, self._config.report or 0)


def _remove(folder: Path, keep: Sequence[Path] = ()) -> None:
    """Remove a folder of shards, and the folders around it that are empty then, up to one in ``keep``."""
    if folder.is_dir():
        clear(folder)
        shutil.rmtree(folder)
    for parent in folder.parents:
        if parent in keep or (parent.is_dir() and any(parent.iterdir())):
            return
        if parent.is_dir():
            parent.rmdir()
