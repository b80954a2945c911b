"""A gallery of many grasps: thumbnails, a table to sort and filter, histograms; a page of a grasp on a click.

One HTML file with the numbers inside; pictures and pages lie beside it (`pictures/0000012.jpg`, `pages/0000012.html`)
or are made by a server when they are asked for.
"""

from __future__ import annotations

import html
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hand_models.atomic import write_atomically

from .pictures import GraspView
from .render import render
from .template import filled, script_data

THUMBNAIL = (208, 156)


@dataclass(frozen=True)
class GalleryColumn:
    """One column of the table: numbers (histogram, range) or texts (choice, search)."""

    key: str
    label: str
    values: np.ndarray
    """(N,) numbers, NaN where not known, or texts"""
    unit: str = ""
    meaning: str = ""

    @property
    def is_number(self) -> bool:
        return self.values.dtype.kind in "fiu"


def gallery_page(
    title: str, columns: Sequence[GalleryColumn], *, pictured: Collection[int] | None = None,
    motions: Collection[int] = (), note: str = "",
) -> str:  # fmt: skip
    """HTML of the gallery of ``N`` rows, the same number in each column; a complete document.

    Args:
        pictured: rows that have a picture and a page; None when a server makes those of any row that did not fail.
        motions: rows that a motion starts with that has a page on which it plays.
        note: said below the title.

    Raises:
        ValueError: no columns, or of different lengths.
    """
    lengths = {len(column.values) for column in columns}
    if len(lengths) != 1:
        raise ValueError(f"gallery_page: columns of {sorted(lengths)} rows; give at least one, and all of one length")
    data: dict[str, Any] = {
        "rows": lengths.pop(),
        "pictured": None if pictured is None else sorted(pictured),
        "motions": sorted(motions),
        "columns": [
            {"key": c.key, "label": c.label, "unit": c.unit, "meaning": c.meaning, "number": c.is_number,
             "values": _numbers(c.values) if c.is_number else [str(text) for text in c.values]}
            for c in columns
        ],
    }  # fmt: skip
    parts = {"TITLE": html.escape(title), "NOTE": html.escape(note), "DATA": script_data(data, allow_nan=False)}
    return filled("gallery.html", parts)


def thumbnail(view: GraspView, size: tuple[int, int] = THUMBNAIL) -> bytes:
    """A small JPEG of the refined grasp with the predicted contact. Raises ``ImportError`` without embreex."""
    items = [view.object_item(heat=True), view.hand_item(view.after)]
    picture = render(items, view.camera(size), size, 2, up=view.up)
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="JPEG", quality=85)
    return stream.getvalue()


def write_thumbnail(view: GraspView, path: Path) -> Path:
    """`thumbnail` into a file."""
    data = thumbnail(view)
    return write_atomically(path, lambda stream: stream.write(data))


def _numbers(values: np.ndarray) -> list[float | None]:
    """Four figures of each are enough to sort by and to read."""
    return [float(f"{x:.4g}") if np.isfinite(x) else None for x in np.asarray(values, np.float64)]
