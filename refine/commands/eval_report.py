"""The folder that `regrasp eval --report` leaves: a page of Markdown, tables for programs, pictures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hand_models.atomic import write_atomically

from ..files.predictions import Predictions
from ..measure.plots import draw_report
from ..measure.published import Published, published_under
from ..measure.report import Line, Report

_CAPTIONS = {
    "pck": "Share of joints within a threshold, and the area under the curve up to 50 mm",
    "histograms": "Grasps by error, depth and volume",
    "fingers": "Error by finger",
    "joints": "Error by joint",
    "objects": "Error by object",
    "reliability": "Stated uncertainty beside the errors",
}
_HEAD = ("", "grasps", "mean", "median", "became better")


def write_report(report: Report, rows: Predictions, folder: Path, noise: str = "") -> str:
    """Write ``report.md``, ``figures.csv``, ``grasps.csv`` and, with matplotlib, the pictures into ``folder``.

    Args:
        rows: what was measured; row ``i`` is the report's grasp ``i``.
        noise: protocol of `contact.perturb` that published figures are picked by.

    Returns:
        Why there are no pictures; empty where there are.
    """
    missing, pictures = "", []
    try:
        pictures = draw_report(report, folder)
    except ImportError as error:
        missing = str(error)
    groups = {
        "metric": report.overall(), "object": report.by_object(), "finger": report.by_finger(),
        "joint": report.by_joint(),
    }  # fmt: skip
    _write_csv(folder / "figures.csv", _figure_rows(groups))
    _write_csv(folder / "grasps.csv", _grasp_rows(report, rows))
    page = _page(groups, rows, [path.stem for path in pictures], noise)
    write_atomically(folder / "report.md", lambda stream: stream.write(page.encode()))
    return missing


def _page(groups: Mapping[str, Sequence[Line]], rows: Predictions, pictures: list[str], noise: str) -> str:
    count = max((line.count for line in groups["metric"]), default=0)
    lines = ["# Evaluation", "", f"{count} of {len(rows)} grasps measured. {_statuses(rows)}".rstrip(), ""]
    lines += ["Means and medians over grasps, before → after where what they were made from is known.", ""]
    lines += [*_table(_HEAD, map(_cells, groups["metric"])), ""]
    if published := published_under(noise):
        lines += ["## Beside published figures", "", *_beside(groups["metric"], published, noise), ""]
    for kind in ("object", "finger", "joint"):
        lines += [f"## Joint error by {kind}, mm", "", *_table(_HEAD, map(_cells, groups[kind])), ""]
    if pictures:
        lines += ["## Pictures", ""]
        lines += [line for name in pictures for line in (f"![{_CAPTIONS[name]}]({name}.png)", "")]
    return "\n".join(lines)


def _statuses(rows: Predictions) -> str:
    if rows.status is None:
        return ""
    names, counts = np.unique(rows.status, return_counts=True)
    return "Status: " + ", ".join(f"{n} {s}" for s, n in zip(names.tolist(), counts.tolist(), strict=True)) + "."


def _beside(measured: Sequence[Line], published: Iterable[Published], noise: str) -> list[str]:
    """Ours above theirs, metric by metric; below, what is different."""
    ours = {line.name: line for line in measured}
    rows, differences = [], []
    for figure in published:
        if figure.metric in ours:
            rows.append([f"this file, `{noise}`", "", figure.metric, _pair(ours.pop(figure.metric).mean)])
        pair = _pair((figure.before, figure.after))
        rows.append([f"{figure.method} ({figure.paper})", figure.data, figure.metric, pair])
        text = f"{figure.data.split(',')[0]}: {figure.difference}."
        differences += [] if text in differences else [text]
    rows.sort(key=lambda row: row[2])  # stable: a metric's rows stay in their order
    note = f"Same noise, other experiments: grasps, objects and hand model differ. {' '.join(differences)}"
    return [*_table(("", "data", "metric", "before → after"), rows), "", note]


def _cells(line: Line) -> list[str]:
    better = "" if math.isnan(line.improved) else f"{100 * line.improved:.0f} %"
    return [line.name, str(line.count), _pair(line.mean), _pair(line.median), better]


def _pair(values: tuple[float, float]) -> str:
    return " → ".join(f"{value:.4g}" for value in values if not math.isnan(value))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Markdown; bars would end a cell."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _figure_rows(groups: Mapping[str, Sequence[Line]]) -> list[list[object]]:
    head = ["group", "name", "unit", "grasps", "mean_before", "mean_after", "median_before", "median_after", "improved"]
    lines = ((group, line) for group, members in groups.items() for line in members)
    values: list[list[object]] = [
        [g, x.name, x.unit, x.count, *map(_blank, (*x.mean, *x.median, x.improved))] for g, x in lines
    ]
    return [[*head], *values]


def _grasp_rows(report: Report, rows: Predictions) -> list[list[object]]:
    columns: dict[str, np.ndarray] = {
        "sequence_id": rows.sequence_id, "frame_id": rows.frame_id, "object_id": rows.object_id, "side": rows.side,
    }  # fmt: skip
    if rows.status is not None:
        columns["status"] = rows.status
    for suffix, measured in (("_before", report.before), ("", report.after)):
        columns |= {name + suffix: v for name, v in (measured or {}).items() if v.ndim == 1}
    texts = ([_blank(value) for value in column.tolist()] for column in columns.values())
    return [list(columns), *map(list, zip(*texts, strict=True))]


def _blank(value: object) -> object:
    """NaN is an empty cell."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, lambda stream: stream.write(text.getvalue().encode()))
