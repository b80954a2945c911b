"""One shard of a manifest: refine its rows, leave results and a record, or know that this is done already."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from hand_models import HandModel
from hand_models.atomic import write_atomically

from ..files.object_files import find_objects
from ..files.prediction_files import read_json, read_predictions, write_json, write_predictions
from ..files.predictions import Predictions
from ..motion.sequence import SequenceResult
from ..result import RefineResult
from .config import BatchConfig, file_sha256
from .manifest import Manifest, Shard
from .report import Photos, Report
from .rows import failed_rows, refine_rows
from .samples import SampleTable
from .tally import Tally

SCHEMA = "grasp-shard/1"


@dataclass(frozen=True)
class ShardRecord:
    """What became of a shard."""

    shard: int
    tally: Tally
    seconds: float
    result_sha256: str


def run_shard(shard: Shard, config: BatchConfig, progress: Callable[[int], Any] | None = None) -> ShardRecord:
    """Refine the rows of ``shard``; the results depend on the arguments alone, wherever and whenever it runs.

    A shard is done when its record is there, which is written after the results. Running it again writes the same
    again, so two workers at once do no harm. ``progress`` is called with the number of rows just done.

    Raises:
        OSError: rows, weights or objects cannot be read, or results not written. What is wrong with single
            rows is recorded with them instead.
    """
    started = time.monotonic()
    model, samples = _model(config, shard.manifest.config_sha256), _sample_table(shard, config)
    rows, report = read_predictions(shard.rows_file), None
    if config.report is not None:
        photos = None if config.images is None else Photos(Path(config.images), rows, shard.rows.start)
        report = Report(shard.manifest.report, photos)
    refined = refine_rows(
        rows,
        find_objects(config.objects, config.scale),
        model,
        config.refiner(),
        batch_size=config.batch_size,
        first=shard.rows.start,
        progress=progress,
        keep=partial(_keep, report, samples),
        refine_motion=config.motion_refiner(),
    )
    return _commit(shard, refined, samples, time.monotonic() - started)


@lru_cache(maxsize=1)  # MANO takes as long to load as a small shard to refine
def _model(config: BatchConfig, sha256: str) -> HandModel:
    """Hand model of a configuration; ``sha256``, its manifest's, changes with what its files hold."""
    return config.load_model()


def give_up(shard: Shard, config: BatchConfig, reason: str) -> ShardRecord:
    """Record every row of ``shard`` as failed, for ``reason``."""
    model = _model(config, shard.manifest.config_sha256)
    failed = failed_rows(read_predictions(shard.rows_file), model, reason)
    return _commit(shard, failed, _sample_table(shard, config), 0.0)


def _sample_table(shard: Shard, config: BatchConfig) -> SampleTable | None:
    """For the samples of the rows of ``shard``, where they are asked for."""
    return None if config.samples is None else SampleTable(shard.rows, config.samples, config.hand_model)


def _commit(shard: Shard, refined: Predictions, samples: SampleTable | None, seconds: float) -> ShardRecord:
    if samples is not None:
        samples.write(shard.samples_file)
    whole = file_sha256(write_predictions(shard.result_file, refined))
    record = ShardRecord(shard.number, Tally.of(refined, shard.rows.start), round(seconds, 3), whole)
    document = _origin(shard.manifest) | asdict(record)
    write_atomically(shard.record_file, lambda stream: write_json(stream, document))
    return record


def _origin(manifest: Manifest) -> dict[str, str]:
    """What a record says of where it belongs."""
    return {"schema": SCHEMA, "input_sha256": manifest.input_sha256, "config_sha256": manifest.config_sha256}


def finished(shard: Shard) -> ShardRecord | None:
    """The record of ``shard`` when its results are there, whole, and of this input and configuration."""
    origin = _origin(shard.manifest)
    try:
        document = read_json(shard.record_file)
        if {name: document.pop(name) for name in origin} != origin:
            return None
        record = ShardRecord(**document | {"tally": Tally(**document["tally"])})
        whole = file_sha256(shard.result_file) == record.result_sha256
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if whole and record.tally.rows == len(shard.rows) else None


def _keep(
    report: Report | None, samples: SampleTable | None, numbers: np.ndarray, result: RefineResult | SequenceResult
) -> None:
    """What is not a column of the results."""
    if isinstance(result, SequenceResult):  # which has no samples
        if report is not None:
            report.record_motion(numbers, result)
        return
    if report is not None:
        report.record(numbers, result)
    if samples is not None:
        samples.store(numbers, result)
