"""Tables for people on standard output, and figures for programs in JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hand_models.atomic import write_atomically

from ..files.prediction_files import write_json


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Figures as JSON, which knows no NaN: null instead."""
    write_atomically(path, lambda stream: write_json(stream, _strict(figures)))


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _strict(item) for name, item in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value
