"""`regrasp refine`: every row of a prediction file through `refine_grasp`.

Rows are grouped by object and side and go through in batches. A row that cannot be refined is recorded with
status `failed` and the reason, and never stops the others.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from ..object_files import ObjectEntry, find_objects, load_object
from ..prediction_files import read_predictions, write_atomically, write_json, write_predictions
from ..predictions import COLUMNS, Predictions, has_pose, row_problems
from .hands import HandOptions

if TYPE_CHECKING:
    from hand_models import HandModel

_log = logging.getLogger(__name__)
_MEASURES = ("score", "penetration_mm", "volume_cm3", "contact_ratio")
_REASONS_IN_SUMMARY = 100


@dataclass(frozen=True)
class RefineOptions:
    """Options of `regrasp refine`."""

    file: Annotated[Path, tyro.conf.Positional]
    """Predictions: grasp/1 as .npz, .json or .parquet."""
    objects: Path
    """Folder of meshes named <object_id>.obj (.ply, .stl, .off, .glb), or a side-car objects.json."""
    out: Path
    """Folder for the results: <name>.refined.npz (or the input's own form) and <name>.summary.json."""
    method: Literal["regrasp", "contactopt"] = "regrasp"
    """The network and optimiser of this package, or ContactOpt's published procedure."""
    batch_size: int = 16
    """Rows refined together: more is faster and takes more memory."""
    seed: int = 0
    """Same seed, same results."""
    limit: int | None = None
    """Refine only the first so many rows."""
    hands: HandOptions = field(default_factory=HandOptions)


def refine(options: RefineOptions) -> int:
    """Run the command; returns 0 when every row went through, 1 when some failed.

    Raises:
        ValueError, FileNotFoundError: an option or the file is wrong; nothing was written.
    """
    started = time.monotonic()
    for name in ("batch_size", "limit"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')}: got {getattr(options, name)}; give 1 or more.")
    predictions = read_predictions(options.file)
    if options.limit is not None:
        predictions = predictions.take(slice(options.limit))
    objects = find_objects(options.objects)
    if len(predictions) and not set(predictions.object_id.tolist()) & set(objects):
        wanted, there = str(predictions.object_id[0]), ", ".join(sorted(objects)[:5])
        raise ValueError(
            f"--objects {options.objects}: has none of the file's objects; e.g. {wanted!r} is not among {there}."
        )
    model = options.hands.load()
    options.out.mkdir(parents=True, exist_ok=True)  # now, so that a folder that cannot be made costs no work
    refined = refine_rows(
        predictions, objects, model, _refiner(options, model), batch_size=options.batch_size
    )
    stem = options.file.name[: -len(options.file.suffix)]
    written = write_predictions(options.out / f"{stem}.refined{options.file.suffix.lower()}", refined)
    summary = summarise(refined) | {
        "input": options.file.name,
        "input_sha256": hashlib.sha256(options.file.read_bytes()).hexdigest(),
        "method": options.method,
        "batch_size": options.batch_size,
        "seed": options.seed,
        "hand_model": model.name,
        "seconds": round(time.monotonic() - started, 3),
    }
    write_atomically(options.out / f"{stem}.summary.json", lambda stream: write_json(stream, summary))
    print(report(summary))
    print(f"results: {written}")
    return 1 if summary["status"].get("failed") else 0


def _refiner(options: RefineOptions, model: HandModel) -> Callable[..., Any]:
    """`refine_grasp` with the options bound: ``(hand_pose, object_mesh) -> RefineResult``."""
    from ..api import refine_grasp
    from ..config import RefineConfig

    config = RefineConfig(method=options.method)

    def run(pose: Any, mesh: Any) -> Any:
        return refine_grasp(pose, mesh, side=pose.side, config=config, hand_model=model, seed=options.seed)

    return run


def refine_rows(
    predictions: Predictions,
    objects: dict[str, ObjectEntry],
    model: HandModel,
    refine: Callable[..., Any],
    *,
    batch_size: int = 16,
) -> Predictions:
    """The rows with refined poses and result columns, in their order.

    Args:
        predictions: any rows; those of `row_problems` come out as `failed`.
        objects: object id to mesh, from `find_objects`.
        model: hand model the poses are for.
        refine: ``(HandPose in the object frame, ObjectMesh) -> RefineResult`` for a batch of one side.
        batch_size: most rows in one call of ``refine``.

    A row that fails keeps its input pose.
    """
    table = _ResultTable(predictions, model)
    problems = row_problems(predictions)
    for row, reason in problems.items():
        table.fail([row], reason)
    with _progress(len(predictions)) as bar:
        bar.update(len(problems))
        for object_id, by_side in _groups(predictions, set(problems)).items():
            rows_of_object = np.concatenate(list(by_side.values()))
            try:
                if object_id not in objects:
                    raise FileNotFoundError(f"no mesh for object {object_id!r} in the objects folder.")
                mesh = load_object(objects[object_id])
            except (ValueError, OSError) as error:
                table.fail(rows_of_object, str(error))
                bar.update(len(rows_of_object))
                continue
            for rows in by_side.values():
                for start in range(0, len(rows), batch_size):
                    batch = rows[start : start + batch_size]
                    _refine_batch(batch, table, mesh, refine)
                    bar.update(len(batch))
    return table.finish()


def _groups(predictions: Predictions, skip: set[int]) -> dict[str, dict[str, np.ndarray]]:
    """Rows by object and side, each in file order."""
    groups: dict[str, dict[str, list[int]]] = {}
    for row, (object_id, side) in enumerate(
        zip(predictions.object_id.tolist(), predictions.side.tolist(), strict=True)
    ):
        if row not in skip:
            groups.setdefault(object_id, {}).setdefault(side, []).append(row)
    return {name: {side: np.array(rows) for side, rows in sides.items()} for name, sides in groups.items()}


def _refine_batch(rows: np.ndarray, table: _ResultTable, mesh: Any, refine: Callable[..., Any]) -> None:
    """Refine ``rows`` together; where that raises, each half by itself, down to the row at fault."""
    try:
        table.store(rows, refine(table.object_frame_pose(rows), mesh))
    except (ImportError, FileNotFoundError):
        raise  # weights or a package are missing, which is no row's fault and would fail them all
    except Exception as error:  # whatever one row sets off, the others must still go through
        if len(rows) == 1:
            _log.debug("row %d failed", rows[0], exc_info=True)
            table.fail(rows, f"{type(error).__name__}: {error}")
            return
        half = len(rows) // 2
        _refine_batch(rows[:half], table, mesh, refine)
        _refine_batch(rows[half:], table, mesh, refine)


class _ResultTable:
    """Result columns being filled in, row by row."""

    def __init__(self, predictions: Predictions, model: HandModel) -> None:
        self._input, self._model = predictions, model
        rows = len(predictions)
        self._columns: dict[str, np.ndarray] = {
            "status": np.full(rows, "failed", "U16"),
            "steps": np.full(rows, -1),
        }
        self._reasons = [""] * rows
        for name, column in COLUMNS.items():
            if column.is_result and column.kind == "float":
                self._columns[name] = np.full((rows, *column.shapes[0]), np.nan, np.float32)
        for name, shape in {
            "global_orient": (3,),
            "hand_pose": (15, 3),
            "betas": (10,),
            "transl": (3,),
        }.items():
            value = getattr(predictions, name)
            self._columns[name] = (
                np.full((rows, *shape), np.nan, np.float32) if value is None else value.copy()
            )
        self._posed = has_pose(predictions)
        self._hand_model = predictions.hand_model.astype(object)

    def object_frame_pose(self, rows: np.ndarray) -> Any:
        from ..prediction_poses import hand_poses, into_object_frame, object_poses

        pose = hand_poses(self._input, rows, self._model)
        return into_object_frame(pose, object_poses(self._input, rows), self._model)

    def fail(self, rows: Any, reason: str) -> None:
        for row in rows:
            self._reasons[row] = reason

    def store(self, rows: np.ndarray, result: Any) -> None:
        from ..prediction_poses import into_camera_frame, object_poses

        pose = into_camera_frame(result.pose, object_poses(self._input, rows), self._model)
        status = np.array([s.value for s in result.status])
        arrays = pose.as_arrays()
        finite = np.all([np.isfinite(a).reshape(len(rows), -1).all(1) for a in arrays.values()], axis=0)
        good = finite & (status != "failed")
        self._columns["status"][rows] = np.where(good, status, "failed")
        for row in rows[~good]:
            self._reasons[row] = f"row {row}: the optimiser found no finite pose."
        # A kept row stays to the letter what it was, unless its pose was fitted to its joints here.
        new = good & ((status != "kept") | ~self._posed[rows])
        for name, value in arrays.items():
            self._columns[name][rows[new]] = value[new]
        self._hand_model[rows[new]] = self._model.name
        measured = dict(result.metrics)
        measured |= {
            name: getattr(result, name) for name in ("score_before", "score_after", "uncertainty", "steps")
        }
        for name, value in measured.items():
            if name in self._columns:
                self._columns[name][rows] = np.asarray(value)

    def finish(self) -> Predictions:
        columns = self._input.columns() | self._columns
        columns |= {
            "reason": np.array(self._reasons, np.str_),
            "hand_model": self._hand_model.astype(np.str_),
        }
        return Predictions.from_columns(columns)


def _progress(total: int) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=total, unit="grasp", disable=None
    )  # to standard error, and not when that is no terminal


# Summary --------------------------------------------------------------------------------------------


def summarise(refined: Predictions) -> dict[str, Any]:
    """Counts by status, means before and after of each measure over rows that did not fail, reasons of failure."""
    statuses = refined.column("status").tolist()
    done = refined.status != "failed"
    means = {}
    for name in (f"{measure}_{when}" for measure in _MEASURES for when in ("before", "after")):
        values = refined.column(name)[done]
        values = values[np.isfinite(values)]
        means[name] = round(float(values.mean(dtype=np.float64)), 6) if len(values) else None
    failed = np.flatnonzero(~done)
    return {
        "schema": "grasp-summary/1",
        "rows": len(refined),
        "status": dict(Counter(statuses)),
        "mean": means,
        "failures": {str(row): str(refined.column("reason")[row]) for row in failed[:_REASONS_IN_SUMMARY]},
    }


def report(summary: dict[str, Any]) -> str:
    """The summary as a few lines for people."""
    counts = ", ".join(
        f"{count} {status}" for status, count in sorted(summary["status"].items(), reverse=True)
    )
    lines = [f"{summary['rows']} rows: {counts or 'nothing to do'}; {summary['seconds']:.1f} s"]
    names = {
        "penetration_mm": "penetration, mm",
        "volume_cm3": "intersection, cm³",
        "contact_ratio": "in contact",
    }
    for measure, label in names.items():
        before, after = (summary["mean"][f"{measure}_{when}"] for when in ("before", "after"))
        if before is not None and after is not None:
            lines.append(f"  {label:<18} {before:8.2f} → {after:8.2f}")
    failures = list(summary["failures"].values())
    lines += [f"  failed: {reason}" for reason in failures[:3]]
    total = summary["status"].get("failed", 0)
    if total > 3:
        lines.append(f"  … and {total - 3} more; each row's reason is in the results.")
    return "\n".join(lines)
