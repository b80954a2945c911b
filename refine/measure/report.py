"""What a report on an evaluation says: grasps before and after, as a whole, by object, by finger and by joint; how
many joints are right; and whether the stated uncertainty is.

Numbers alone, as tuples of `Line` and as curves; `plots` draws them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from hand_models import HandModel
from hand_models.skeleton import FINGERS, JOINT_NAMES

from ..files.object_files import ObjectEntry
from ..files.predictions import Predictions
from .arguments import Array, alike
from .evaluate import measure_rows
from .joints import pck_curve
from .metrics import JOINT_ERROR, METRICS

PCK_LARGEST = 50.0
"""Millimetres: right end of the curves of correct joints, and what their area is taken up to."""
_LEVELS = np.linspace(0.0, 1.0, 21)
_BINS = 10
_METRICS = {metric.column: metric for metric in METRICS}


@dataclass(frozen=True)
class Line:
    """One figure before and after, over the grasps where both are known; before is NaN where there is no before."""

    name: str
    unit: str
    count: int
    """grasps"""
    mean: tuple[float, float]
    """before, after; root mean square for what is in units of a standard deviation"""
    median: tuple[float, float]
    improved: float
    """share of grasps that became better; NaN where neither way is better"""


@dataclass(frozen=True, eq=False)
class Report:
    """Measurements of ``N`` grasps, NaN where one cannot be measured; lengths in millimetres."""

    object_id: np.ndarray
    """(N,) text"""
    after: Mapping[str, np.ndarray]
    """metrics by column, (N,) each, and ``joint_error_mm`` (N, 21)"""
    before: Mapping[str, np.ndarray] | None = None
    """the same of what the grasps were made from; what concerns the true hands alone is not repeated"""
    joint_std: np.ndarray | None = None
    """(N, 21) standard deviation an axis that is stated for each joint"""

    def overall(self) -> tuple[Line, ...]:
        """Every metric that was measured."""
        return tuple(self._line(c, m.unit, c, slice(None), m.better) for c, m in _METRICS.items() if c in self.after)

    def by_object(self) -> tuple[Line, ...]:
        """Mean joint error on each object, the worst first."""
        names = np.unique(self.object_id).tolist()
        lines = (self._line(str(name), "mm", "mpjpe_mm", self.object_id == name) for name in names)
        return tuple(sorted((line for line in lines if line.count), key=lambda line: -line.mean[1]))

    def by_finger(self) -> tuple[Line, ...]:
        """Mean error of the wrist and of each finger's four joints."""
        fingers = {"wrist": ["wrist"]} | {f: [j for j in JOINT_NAMES if j.startswith(f)] for f in FINGERS}
        return tuple(self._joints(name, joints) for name, joints in fingers.items())

    def by_joint(self) -> tuple[Line, ...]:
        """Mean error of each of the 21 joints."""
        return tuple(self._joints(name, [name]) for name in JOINT_NAMES)

    def values(self, column: str, rows: np.ndarray | slice = slice(None)) -> tuple[np.ndarray | None, np.ndarray]:
        """A metric of those grasps that it is known of before and after, (n,) each; None where there is no before."""
        after = self.after[column][rows]
        if self.before is None or column not in self.before:
            return None, after[_known(after)]
        before = self.before[column][rows]
        known = _known(before) & _known(after)
        return before[known], after[known]

    def pck(self, steps: int = 100) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Thresholds (K,) in millimetres, and the share of correct joints at each before and after, (K,).

        The area under a curve is the mean of `auc_50mm`.
        """
        thresholds = np.linspace(0.0, PCK_LARGEST, steps)
        before, after = self.values(JOINT_ERROR.column)
        curve = None if before is None else pck_curve(before, thresholds).mean(0)
        return thresholds, curve, pck_curve(after, thresholds).mean(0)

    def stated(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Errors and stated standard deviations of the joints that have both, (n,) millimetres; None where none has."""
        if self.joint_std is None:
            return None
        errors = self.after[JOINT_ERROR.column]
        known = np.isfinite(errors) & (self.joint_std > 0)
        return (errors[known], self.joint_std[known]) if known.any() else None

    def _joints(self, name: str, joints: list[str]) -> Line:
        index = [JOINT_NAMES.index(joint) for joint in joints]
        before, after = self.values(JOINT_ERROR.column)
        return _line(name, "mm", None if before is None else before[:, index].mean(1), after[:, index].mean(1))

    def _line(self, name: str, unit: str, column: str, rows: np.ndarray | slice, better: str = "less") -> Line:
        squares = column in _METRICS and _METRICS[column].root_mean_square
        return _line(name, unit, *self.values(column, rows), better=better, squares=squares)


def make_report(
    predictions: Predictions,
    reference: Predictions,
    objects: Mapping[str, ObjectEntry],
    model: HandModel,
    before: Predictions | None = None,
) -> Report:
    """Measure predictions, and what they were made from, against true grasps.

    Args:
        before: what ``predictions`` were refined from; row ``i`` is the same hand in all three.

    Other arguments and errors: `refine.measure.evaluate.evaluate_predictions`.

    Raises:
        ValueError: no grasp can be measured both before and after.
    """
    metrics = (*METRICS, JOINT_ERROR)
    after = measure_rows(predictions, reference, objects, model, metrics)
    first = None
    if before is not None:
        measured = measure_rows(before, reference, objects, model, metrics)
        first = {name: values for name, values in measured.items() if not name.startswith("reference_")}
    std = predictions.uncertainty
    errors = [side.get(JOINT_ERROR.column) for side in (after, first) if side is not None]
    if any(e is None for e in errors) or not np.all([_known(e) for e in errors if e is not None], axis=0).any():
        name = "predictions" if before is None else "before"
        raise ValueError(f"{name}: no row has a usable hand here and in what it is compared with.")
    return Report(predictions.object_id, after, first, None if std is None else 1000 * std.astype(np.float64))


def coverage(errors: Array, std: Array, levels: np.ndarray = _LEVELS) -> tuple[np.ndarray, np.ndarray]:
    """``levels`` (K,) of confidence, and the share of points that lie within their region of each (K,).

    A point's region of confidence p is the ball of radius σ √(χ²₃⁻¹(p)): the distance of a point from the mean of an
    isotropic Gaussian in space, in units of σ, is distributed as √(χ²₃). Honest deviations give the diagonal, too
    small ones lie below it (Kuleshov et al., ICML 2018).

    Args:
        errors, std: distances (n,) and standard deviations an axis, in one unit.
    """
    errors, std = alike("(n,)", errors=errors, std=std)
    radius = np.sqrt(chi2.ppf(levels, df=3))
    return levels, (errors[:, None] <= std[:, None] * radius).mean(axis=0)


def error_by_stated(errors: Array, std: Array, bins: int = _BINS) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square of stated deviation and of error an axis, (bins,) each, over points in order of the first.

    Bins hold equally many points. Equal values are honest (Levi et al., Sensors 2022).

    Args:
        errors, std: distances (n,) and standard deviations an axis, in one unit.
    """
    errors, std = alike("(n,)", errors=errors, std=std)
    parts = [part for part in np.array_split(np.argsort(std, kind="stable"), bins) if len(part)]
    means = [((std[part] ** 2).mean(), (errors[part] ** 2).mean() / 3) for part in parts]
    stated, measured = np.sqrt(np.reshape(means, (-1, 2))).T
    return stated, measured


def _known(values: np.ndarray) -> np.ndarray:
    """Grasps (N,) whose value, or all of whose joints' values, are finite."""
    return np.asarray(np.isfinite(values.reshape(len(values), -1)).all(1))


def _line(
    name: str, unit: str, before: np.ndarray | None, after: np.ndarray, *, better: str = "less", squares: bool = False
) -> Line:
    sides = (np.full(len(after), np.nan) if before is None else before, after)
    improved = np.nan
    if before is not None and better and len(after):
        improved = float((after < before if better == "less" else after > before).mean())
    if not len(after):
        return Line(name, unit, 0, (np.nan, np.nan), (np.nan, np.nan), np.nan)
    first, second = (float(np.sqrt((side**2).mean()) if squares else side.mean()) for side in sides)
    middle = (float(np.median(sides[0])), float(np.median(sides[1])))
    return Line(name, unit, len(after), (first, second), middle, improved)
