"""`regrasp eval`: predictions measured against reference grasps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from ..object_files import find_objects
from ..prediction_files import read_predictions, write_atomically, write_json
from .hands import HandOptions

if TYPE_CHECKING:
    from ..predictions import Predictions


@dataclass(frozen=True)
class EvalOptions:
    """Options of `regrasp eval`."""

    file: Annotated[Path, tyro.conf.Positional]
    """Predictions or results: grasp/1 as .npz, .json or .parquet."""
    reference: Path
    """True grasps, grasp/1. Rows are matched by sequence, frame, object and side."""
    objects: Path
    """Folder of meshes named <object_id>.obj (.ply, .stl, .off, .glb), or a side-car objects.json."""
    out: Path | None = None
    """File for the figures as JSON."""
    hands: HandOptions = field(default_factory=HandOptions)


def evaluate(options: EvalOptions) -> int:
    """Run the command: a table on standard output, and JSON where ``--out`` says."""
    predictions, reference = read_predictions(options.file), read_predictions(options.reference)
    here, there = matched_rows(predictions, reference)
    if not len(here):
        raise ValueError(
            f"--reference {options.reference}: no row has the frame, object and side of a row of {options.file}."
        )
    from ..evaluate import evaluate_predictions

    figures = evaluate_predictions(
        predictions.take(here), reference.take(there), find_objects(options.objects), options.hands.load()
    )
    figures = {"rows": len(here), "rows_without_reference": len(predictions) - len(here)} | figures
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:.4g}" if isinstance(value, float) else f"{name:<{width}}  {value}")
    if options.out is not None:
        strict = {
            name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in figures.items()
        }
        write_atomically(options.out, lambda stream: write_json(stream, strict))
    return 0


def matched_rows(predictions: Predictions, reference: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of both files that are the same hand, in the order of the first.

    Raises:
        ValueError: a hand is in the reference twice.
    """
    truth: dict[tuple[str, ...], int] = {}
    for row, key in enumerate(_keys(reference)):
        if key in truth:
            raise ValueError(
                f"reference: rows {truth[key]} and {row} are the same hand {key}; frame_id must tell them apart."
            )
        truth[key] = row
    pairs = [(row, truth[key]) for row, key in enumerate(_keys(predictions)) if key in truth]
    return np.array([a for a, _ in pairs], int), np.array([b for _, b in pairs], int)


def _keys(predictions: Predictions) -> list[tuple[str, ...]]:
    names = ("sequence_id", "frame_id", "object_id", "side")
    return list(zip(*(getattr(predictions, name).tolist() for name in names), strict=True))
