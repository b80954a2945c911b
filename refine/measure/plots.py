"""A report's figures as pictures, by matplotlib (the extra `[plots]`), which is imported when one is drawn.

No picture needs a display, and none changes matplotlib's settings for the process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.integrate import trapezoid

from hand_models.atomic import write_atomically

from .report import PCK_LARGEST, Line, Report, coverage, error_by_stated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEFORE, AFTER, IDEAL = "#b4b9c0", "#2b6ea3", "#555b63"
_DPI = 120
_OBJECTS = 20
"""most bars of one picture"""
_HISTOGRAMS = (
    ("mpjpe_mm", "joint error, mm"),
    ("mpjpe_root_relative_mm", "wrists together, mm"),
    ("penetration_mm", "penetration depth, mm"),
    ("volume_cm3", "intersection volume, cm³"),
)


def draw_report(report: Report, folder: Path) -> list[Path]:
    """PNGs of what there is to draw: ``pck``, ``histograms``, ``fingers``, ``joints``, ``objects``, ``reliability``.

    An SVG lies beside each.

    Raises:
        ImportError: matplotlib is not installed; says how to get it.
    """
    drawings: dict[str, Callable[[Report], Figure | None]] = {
        "pck": pck_figure, "histograms": histogram_figure, "fingers": finger_figure, "joints": joint_figure,
        "objects": object_figure, "reliability": reliability_figure,
    }  # fmt: skip
    written = []
    for name, draw in drawings.items():
        figure = draw(report)
        if figure is not None:
            for kind in ("svg", "png"):
                path = folder / f"{name}.{kind}"
                write_atomically(path, lambda stream, f=figure, k=kind: f.savefig(stream, format=k, dpi=_DPI))
            written.append(path)
    return written


def pck_figure(report: Report) -> Figure:
    """Share of correct joints over the threshold, with the area under each curve."""
    figure, (axes,) = _figure(6.4, 4.2)
    thresholds, before, after = report.pck()
    for curve, colour, name in ((before, BEFORE, "before"), (after, AFTER, "after")):
        if curve is not None:
            area = trapezoid(curve, thresholds) / PCK_LARGEST
            axes.plot(thresholds, curve, color=colour, lw=2.2, label=f"{name}, AUC {area:.3f}")
    axes.set(xlabel="threshold, mm", ylabel="joints within it", xlim=(0, PCK_LARGEST), ylim=(0, 1))
    axes.set_title("Correct joints (PCK)")
    axes.legend(loc="upper left", frameon=False)
    return figure


def histogram_figure(report: Report) -> Figure:
    """How errors, depth and volume are spread over the grasps; dashed lines are medians."""
    figure, all_axes = _figure(9.0, 6.0, 2, 2)
    for axes, (column, label) in zip(all_axes, _HISTOGRAMS, strict=True):
        if column not in report.after:
            axes.set_visible(False)
            continue
        before, after = report.values(column)
        sides = [(s, c, n) for s, c, n in ((before, BEFORE, "before"), (after, AFTER, "after")) if s is not None]
        together = np.concatenate([side for side, _, _ in sides])
        # One grasp far off would leave the others a single bar.
        end = max(float(np.percentile(together, 99)), 1e-3) if len(together) else 1.0
        edges = np.linspace(0.0, end, 31)
        for side, colour, name in sides:
            axes.hist(np.minimum(side, end), edges.tolist(), color=colour, alpha=0.7, label=name)
            if len(side):
                axes.axvline(float(np.median(side)), color=_darker(colour), ls="--", lw=1.4)
        axes.set(xlabel=label, ylabel="grasps", xlim=(0, end))
    all_axes[0].legend(frameon=False)
    figure.suptitle("Grasps by error, depth and volume; dashed: median; the last bar holds what lies beyond")
    return figure


def finger_figure(report: Report) -> Figure:
    """Mean joint error of the wrist and each finger."""
    return _bars(report.by_finger(), "Error by finger", 7.0)


def joint_figure(report: Report) -> Figure:
    """Mean error of each of the 21 joints."""
    return _bars(report.by_joint(), "Error by joint", 11.0)


def object_figure(report: Report) -> Figure | None:
    """Mean joint error on each object, those with the largest; None where there is one object only."""
    lines = report.by_object()
    if len(lines) < 2:
        return None
    title = f"Joint error by object{f', the worst {_OBJECTS}' if len(lines) > _OBJECTS else ''}; n: grasps"
    return _bars(lines[:_OBJECTS], title, 11.0, counts=True)


def reliability_figure(report: Report) -> Figure | None:
    """Whether the stated uncertainty of joints is what they are off by; None where none is stated."""
    stated = report.stated()
    if stated is None:
        return None
    figure, (left, right) = _figure(9.6, 4.4, 1, 2)
    levels, share = coverage(*stated)
    left.plot([0, 1], [0, 1], color=IDEAL, ls="--", lw=1, label="honest")
    left.plot(levels, share, color=AFTER, lw=2.2, marker="o", ms=3.5, label="stated")
    left.set(xlabel="confidence stated", ylabel="joints within it", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    left.set_title("Below the line: too sure")
    left.legend(frameon=False, loc="upper left")
    expected, measured = error_by_stated(*stated)
    end = 1.05 * float(max(expected.max(), measured.max()))
    right.plot([0, end], [0, end], color=IDEAL, ls="--", lw=1)
    right.plot(expected, measured, color=AFTER, lw=2.2, marker="o", ms=5)
    right.set(xlabel="standard deviation stated, mm an axis", ylabel="error, mm an axis (RMS)")
    right.set(xlim=(0, end), ylim=(0, end), aspect="equal")
    right.set_title("Above the line: too sure")
    figure.suptitle("Uncertainty of joints: stated and measured")
    return figure


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'regrasp[plots]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in all_axes:
        axes.grid(color="#e6e8eb", lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, all_axes


def _bars(lines: Sequence[Line], title: str, width: float, *, counts: bool = False) -> Figure:
    """Means before and after side by side, medians as black strokes."""
    figure, (axes,) = _figure(width, 4.4)
    place = np.arange(len(lines))
    means, medians = (np.array([getattr(line, name) for line in lines]) for name in ("mean", "median"))
    shown = [(0, BEFORE, "before"), (1, AFTER, "after")] if np.isfinite(means[:, 0]).any() else [(1, AFTER, "after")]
    wide = 0.8 / len(shown)
    for number, (side, colour, name) in enumerate(shown):
        centre = place + (number - (len(shown) - 1) / 2) * wide
        axes.bar(centre, means[:, side], wide * 0.94, color=colour, label=f"{name}, mean")
        strokes = axes.hlines(medians[:, side], centre - wide * 0.47, centre + wide * 0.47, color="black", lw=1.6)
        strokes.set_label("median" if side else "")  # once in the legend
    names = [f"{line.name}\nn = {line.count}" if counts else line.name.replace("_", " ") for line in lines]
    slanted = len(lines) > 8
    axes.set_xticks(place, names, rotation=40 if slanted else 0, ha="right" if slanted else "center", fontsize=9)
    highest = float(np.nanmax(np.concatenate([means, medians]), initial=0.0))
    axes.set(ylabel="mm", ylim=(0, 1.15 * highest or 1.0))  # room for the legend
    axes.set_title(title)
    axes.grid(visible=False, axis="x")
    axes.legend(frameon=False, ncols=3, loc="upper right")
    return figure


def _darker(colour: str) -> tuple[float, ...]:
    return tuple(0.6 * int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
