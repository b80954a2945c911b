"""Training curves: the log of a run as one CSV table and one picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hand_models.atomic import write_atomically

_COLOURS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14))
_PANEL, _MARGIN = (420, 260), 44  # pixels


def read_log(path: Path) -> list[dict[str, float]]:
    """Lines of ``log.jsonl``, nested names joined by dots, as in ``contactopt.after_mm``."""
    rows: list[dict[str, float]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        rows.append({})
        for name, value in json.loads(line).items():
            parts = {f".{part}": v for part, v in value.items()} if isinstance(value, Mapping) else {"": value}
            rows[-1] |= {name + part: float(v) for part, v in parts.items()}
    return rows


def write_curves(log: Path) -> tuple[Path, Path]:
    """Write ``curves.csv`` and ``curves.png`` beside a run's ``log.jsonl``; return their paths.

    A panel for each measure, a line for each noise protocol, over the steps; an empty sheet when nothing was
    held out to measure.

    Raises:
        ValueError: the log is empty.
    """
    rows = read_log(log)
    if not rows:
        raise ValueError(f"log: {log} has no lines yet; train for at least `evaluate_every` steps.")
    table, picture = log.with_name("curves.csv"), log.with_name("curves.png")
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(table, lambda file: file.write(text.getvalue().encode()))

    measures = dict.fromkeys(name.split(".")[1] for name in names if "." in name)
    panels = {m: {n.split(".")[0]: [r.get(n) for r in rows] for n in names if n.endswith(f".{m}")} for m in measures}
    sheet = _draw([row["step"] for row in rows], panels)
    write_atomically(picture, lambda file: sheet.save(file, format="PNG"))
    return table, picture


def _draw(steps: Sequence[float], panels: Mapping[str, Mapping[str, Sequence[float | None]]]):
    """A Pillow image of all panels, three to a row."""
    from PIL import Image, ImageDraw

    across = min(3, max(1, len(panels)))
    down = max(1, -(-len(panels) // across))
    image = Image.new("RGB", (across * _PANEL[0], down * _PANEL[1]), "white")
    draw = ImageDraw.Draw(image)
    for k, (measure, lines) in enumerate(panels.items()):
        left, top = (k % across) * _PANEL[0], (k // across) * _PANEL[1]
        known = [v for line in lines.values() for v in line if v is not None]
        low, high = min(known), max(known)
        span = (high - low) or 1.0
        x0, x1 = left + _MARGIN + 8, left + _PANEL[0] - 12
        y0, y1 = top + _PANEL[1] - _MARGIN, top + 28
        draw.rectangle((x0, y1, x1, y0), outline=(180, 180, 180))
        draw.text((left + _PANEL[0] // 2, top + 12), measure, fill="black", anchor="mm")
        for value, y in ((low, y0), (high, y1)):
            draw.text((x0 - 4, y), f"{value:.3g}", fill="black", anchor="rm")
        draw.text((x1, y0 + 12), f"step {steps[-1]:.0f}", fill="black", anchor="rm")
        for c, (name, line) in enumerate(lines.items()):
            points = [
                (x0 + (x1 - x0) * step / max(steps[-1], 1), y0 - (y0 - y1) * (value - low) / span)
                for step, value in zip(steps, line, strict=True)
                if value is not None
            ]
            colour = _COLOURS[c % len(_COLOURS)]
            draw.line(points, fill=colour, width=2)
            for x, y in points:
                draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
            draw.text((x0 + 4 + 100 * c, y0 + 26), name, fill=colour, anchor="lm")
    return image
