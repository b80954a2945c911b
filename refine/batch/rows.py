"""Rows of a prediction file through a refiner: grouped by object and side, in batches, none stopping the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from contact.objects import ObjectMesh
from hand_models import HandModel

from ..files.object_files import ObjectEntry, OneObject, load_object, no_mesh
from ..files.predictions import COLUMNS, SEPARATOR, Predictions, groups, has_pose, pose_columns, row_problems
from ..motion.sequence import SequenceResult
from ..request import Request
from ..result import RefineResult
from .motions import motions

_log = logging.getLogger(__name__)
_LONGEST_REASON, _LONGEST_WARNINGS = 300, 600
"""Characters; a column of text is as wide as the longest of all rows."""


def refine_rows(
    predictions: Predictions,
    objects: dict[str, ObjectEntry],
    model: HandModel,
    refine: Callable[[Request], RefineResult],
    *,
    batch_size: int = 16,
    first: int = 0,
    progress: Callable[[int], Any] | None = None,
    keep: Callable[[np.ndarray, Any], Any] | None = None,
    refine_motion: Callable[[Predictions, ObjectMesh, HandModel], SequenceResult] | None = None,
) -> Predictions:
    """The rows with refined poses and result columns, in their order; those that fail keep their input pose.

    Args:
        predictions: any rows; those of `row_problems` come out as `failed`.
        objects: object id to mesh, from `find_objects`.
        model: hand model the poses are for.
        refine: what becomes of the rows of one batch, e.g. `refine.api.refine_request` with its options bound.
        batch_size: most rows in one call of ``refine``.
        first: place of the first row in its file, from which rows are numbered in reasons.
        progress: called with the number of rows just done.
        keep: called with the numbers of the rows of a batch and their result, for what is not a column.
        refine_motion: what becomes of the frames of a motion, `refine.batch.motions`; None to take them one by one.
    """
    progress = progress or (lambda count: None)
    if isinstance(objects, OneObject):  # which needs no name
        named = np.where(predictions.object_id == "", next(iter(objects)), predictions.object_id)
        predictions = replace(predictions, object_id=named)
    table = _ResultTable(predictions, model, first)
    problems = row_problems(predictions)
    done: set[int] = set()
    for rows in motions(predictions, problems) if refine_motion is not None else ():
        result = _motion(predictions.take(rows), objects, model, refine_motion)
        if result is not None:
            table.store_motion(rows, result)
            if keep is not None:
                keep(first + rows, result)
            done |= set(rows.tolist())
            progress(len(rows))
    problems = {row: reason for row, reason in problems.items() if row not in done}
    for row, reason in problems.items():
        table.fail([row], f"row {first + row}{reason.removeprefix(f'row {row}')}")
    progress(len(problems))
    good = np.setdiff1d(np.arange(len(predictions)), [*problems, *done])
    for object_id, parts in groups(predictions, good).items():
        for rows in parts:
            side = str(predictions.side[rows[0]])
            try:
                if object_id not in objects:
                    raise FileNotFoundError(no_mesh(object_id, objects))
                mesh = load_object(objects[object_id], side)
            except Exception as error:  # meshes come from elsewhere and set off whatever the libraries raise
                known = isinstance(error, (ValueError, OSError))
                table.fail(rows, str(error) if known else f"{object_id}: {type(error).__name__}: {error}")
                progress(len(rows))
                continue
            for start in range(0, len(rows), batch_size):
                batch = rows[start : start + batch_size]
                for part, result in table.refine(batch, mesh, refine):
                    if keep is not None:
                        keep(first + part, result)
                progress(len(batch))
    return table.finish()


def _motion(
    frames: Predictions, objects: dict[str, ObjectEntry], model: HandModel,
    refine: Callable[[Predictions, ObjectMesh, HandModel], SequenceResult],
) -> SequenceResult | None:  # fmt: skip
    """The frames as a motion; None where that cannot be, so that each is taken by itself, which says why."""
    try:
        return refine(frames, load_object(objects[str(frames.object_id[0])], str(frames.side[0])), model)
    except ImportError:
        raise
    except Exception as error:  # whatever one motion sets off, the others must still go through
        _log.warning("motion %s: taken frame by frame: %s", frames.sequence_id[0], error)
        return None


def failed_rows(predictions: Predictions, model: HandModel, reason: str) -> Predictions:
    """The rows as `failed`, all for one reason."""
    table = _ResultTable(predictions, model)
    table.fail(range(len(predictions)), reason)
    return table.finish()


class _ResultTable:
    """Result columns being filled in, row by row."""

    def __init__(self, predictions: Predictions, model: HandModel, first: int = 0) -> None:
        self.input, self.model, self.first = predictions, model, first
        rows = len(predictions)
        results = {name: column for name, column in COLUMNS.items() if column.is_result and column.kind == "float"}
        self._columns = {
            "status": np.full(rows, "failed", "U16"),
            "steps": np.full(rows, -1),
            **{name: np.full((rows, *column.shapes[0]), np.nan, np.float32) for name, column in results.items()},
            **pose_columns(predictions),
            "metric_depth": predictions.metric_depth.copy(),
        }
        self._reasons = [""] * rows
        self._warnings = [""] * rows
        self._posed = has_pose(predictions)
        self._hand_model = predictions.hand_model.astype(object)

    def fail(self, rows: Iterable[int], reason: str) -> None:
        for row in rows:
            self._reasons[row] = reason[:_LONGEST_REASON]

    def refine(
        self, rows: np.ndarray, mesh: ObjectMesh, refine: Callable[[Request], RefineResult]
    ) -> Iterator[tuple[np.ndarray, RefineResult]]:
        """Refine ``rows`` together; where that raises, each half by itself, down to the row at fault."""
        try:
            result = refine(Request.of_rows(self.input.take(rows), mesh, self.model))
            self.store(rows, result)
        except (ImportError, FileNotFoundError):
            raise  # weights or a package are missing, which is no row's fault and would fail them all
        except Exception as error:  # whatever one row sets off, the others must still go through
            if len(rows) == 1:
                _log.debug("row %d failed", rows[0], exc_info=True)
                self.fail(rows, f"{type(error).__name__}: {error}")
                return
            for half in np.array_split(rows, 2):
                yield from self.refine(half, mesh, refine)
        else:
            yield rows, result

    def store(self, rows: np.ndarray, result: RefineResult) -> None:
        status = np.array([s.value for s in result.status])
        arrays = result.pose.as_arrays()
        finite = np.all([np.isfinite(a).reshape(len(rows), -1).all(1) for a in arrays.values()], axis=0)
        good = finite & (status != "failed")
        self._columns["status"][rows] = np.where(good, status, "failed")
        for row, reason in zip(rows[~good], np.array(result.reason)[~good], strict=True):
            self.fail([row], f"row {self.first + row}: {reason or 'the optimiser found no finite pose.'}")
        for k in np.flatnonzero(good):
            texts = list(result.warnings[k])
            while len(joined := SEPARATOR.join(texts)) > _LONGEST_WARNINGS:
                texts.pop()
            self._warnings[rows[k]] = joined
        # A row that did not move stays to the letter what it was, unless its pose, or its depth, was found here.
        placed = np.zeros(len(rows), bool) if result.object_pose is None else ~self._columns["metric_depth"][rows]
        given = result.initial_pose.as_arrays()
        moved = np.any([(arrays[n] != given[n]).reshape(len(rows), -1).any(1) for n in given], axis=0)
        new = good & (moved | ~self._posed[rows] | placed)
        self._columns["metric_depth"][rows[good & placed]] = True
        if result.object_pose is not None:
            arrays["object_pose"] = result.object_pose
        for name, value in arrays.items():
            self._columns[name][rows[new]] = value[new]
        self._hand_model[rows[new]] = self.model.name
        names = ("score_before", "score_after", "uncertainty", "steps")
        found = result.metrics | {n: getattr(result, n) for n in names} | {"holding_probability": result.holding}
        for name, value in found.items():
            if name in self._columns:
                self._columns[name][rows] = np.asarray(value)

    def store_motion(self, rows: np.ndarray, result: SequenceResult) -> None:
        status = np.array([s.value for s in result.status])
        self._columns["status"][rows] = status
        new = (status != "kept") | ~self._posed[rows]  # a kept row stays to the letter what it was
        for name, value in result.pose.as_arrays().items():
            self._columns[name][rows[new]] = value[new]
        self._hand_model[rows[new]] = self.model.name
        self._columns["uncertainty"][rows] = result.uncertainty
        self._columns["holding_probability"][rows] = result.holding

    def finish(self) -> Predictions:
        """The rows with what was filled in."""
        texts = {
            "reason": np.array(self._reasons, np.str_),
            "warnings": np.array(self._warnings, np.str_),
            "hand_model": self._hand_model.astype(np.str_),
        }
        return Predictions.from_columns(self.input.columns() | self._columns | texts)
