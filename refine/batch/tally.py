"""What became of rows: counts, means and reasons, for any share of a file, and added up over the shares."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files.predictions import Predictions

MEASURES = ("score", "penetration_mm", "volume_cm3", "contact_ratio")
_COLUMNS = tuple(f"{measure}_{when}" for measure in MEASURES for when in ("before", "after"))
_REASONS = 100


@dataclass(frozen=True)
class Tally:
    """Counts and sums over some rows."""

    rows: int
    status: dict[str, int]
    """rows by status"""
    sums: dict[str, float]
    """of each measure, over the rows that did not fail"""
    counts: dict[str, int]
    """how many finite values each sum has"""
    failures: dict[str, str]
    """reasons of the first hundred rows that failed, by the row's place in the file"""

    @staticmethod
    def of(refined: Predictions, start: int = 0) -> Tally:
        """Of refined rows, the first of which is row ``start`` of its file."""
        done = refined.column("status") != "failed"
        sums, counts = {}, {}
        for name in _COLUMNS:
            values = refined.column(name)[done]
            values = values[np.isfinite(values)]
            sums[name], counts[name] = float(values.sum(dtype=np.float64)), len(values)
        failed = np.flatnonzero(~done)[:_REASONS]
        return Tally(
            rows=len(refined),
            status=dict(Counter(refined.column("status").tolist())),
            sums=sums,
            counts=counts,
            failures={str(start + row): str(refined.column("reason")[row]) for row in failed},
        )

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            rows=self.rows + other.rows,
            status=dict(Counter(self.status) + Counter(other.status)),
            sums={name: self.sums[name] + other.sums[name] for name in _COLUMNS},
            counts={name: self.counts[name] + other.counts[name] for name in _COLUMNS},
            failures=dict(list((self.failures | other.failures).items())[:_REASONS]),
        )

    def summary(self) -> dict[str, Any]:
        """For a summary file: counts by status, means before and after of each measure, reasons of failure."""
        means = {
            name: round(self.sums[name] / self.counts[name], 6) if self.counts[name] else None for name in _COLUMNS
        }
        return {
            "schema": "grasp-summary/1",
            "rows": self.rows,
            "status": self.status,
            "mean": means,
            "failures": self.failures,
        }


def report(summary: dict[str, Any]) -> str:
    """A summary with its ``seconds`` as a few lines for people."""
    counts = ", ".join(f"{count} {status}" for status, count in sorted(summary["status"].items(), reverse=True))
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
    lines += [f"  failed: {reason}" for reason in list(summary["failures"].values())[:3]]
    total = summary["status"].get("failed", 0)
    if total > 3:
        lines.append(f"  … and {total - 3} more; each row's reason is in the results.")
    return "\n".join(lines)
