"""What became of rows: counts, means and reasons, for any share of a file, and added up over the shares."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evidence.suspicions import kind_of
from ..files.predictions import COLUMNS, SEPARATOR, Predictions

_COLUMNS = [name for name, column in COLUMNS.items() if column.is_result and name.endswith(("_before", "_after"))]
_REASONS = 100


@dataclass(frozen=True)
class Tally:
    """Counts and sums over some rows."""

    rows: int
    status: dict[str, int]
    """rows by status"""
    sums: dict[str, list[float]]
    """of each measure the sum, over the rows that did not fail, and how many finite values it has"""
    failures: dict[str, str]
    """reasons of the first hundred rows that failed, by the row's place in the file"""
    warned: dict[str, int]
    """rows with warnings by kind"""
    examples: dict[str, str]
    """of each kind of warning the first there is, with its row's place in the file"""

    @staticmethod
    def of(refined: Predictions, start: int = 0) -> Tally:
        """Of refined rows, the first of which is row ``start`` of its file."""
        done = refined.column("status") != "failed"
        finite = {name: (values := refined.column(name)[done])[np.isfinite(values)] for name in _COLUMNS}
        failed = np.flatnonzero(~done)[:_REASONS]
        warned: Counter[str] = Counter()
        examples: dict[str, str] = {}
        for row in np.flatnonzero(refined.column("warnings") != ""):
            texts = {kind_of(text): text for text in str(refined.column("warnings")[row]).split(SEPARATOR)}
            warned.update(texts.keys())
            for kind, text in texts.items():
                examples.setdefault(kind, f"row {start + row}: {text.partition(': ')[2]}")
        return Tally(
            rows=len(refined),
            status=dict(Counter(refined.column("status").tolist())),
            sums={name: [float(values.sum(dtype=np.float64)), len(values)] for name, values in finite.items()},
            failures={str(start + row): str(refined.column("reason")[row]) for row in failed},
            warned=dict(warned),
            examples=examples,
        )

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            rows=self.rows + other.rows,
            status=dict(Counter(self.status) + Counter(other.status)),
            sums={name: np.add(self.sums[name], other.sums[name]).tolist() for name in _COLUMNS},
            failures=dict(list((self.failures | other.failures).items())[:_REASONS]),
            warned=dict(Counter(self.warned) + Counter(other.warned)),
            examples=other.examples | self.examples,
        )

    def summary(self) -> dict[str, Any]:
        """For a summary file: counts by status, means before and after of each measure, reasons of failure, and
        of each kind of warning how many rows have it and what it says of one."""
        means = {name: round(total / count, 6) if count else None for name, (total, count) in self.sums.items()}
        warned = {kind: {"rows": count, "example": self.examples[kind]} for kind, count in sorted(self.warned.items())}
        counted = {
            "rows": self.rows,
            "status": self.status,
            "mean": means,
            "failures": self.failures,
            "warnings": warned,
        }
        return {"schema": "grasp-summary/1"} | counted


def report(summary: dict[str, Any]) -> str:
    """A summary with its ``seconds`` as a few lines for people."""
    counts = ", ".join(f"{count} {status}" for status, count in sorted(summary["status"].items(), reverse=True))
    lines = [f"{summary['rows']} rows: {counts or 'nothing to do'}; {summary['seconds']:.1f} s"]
    labels = (
        ("penetration_mm", "penetration, mm"),
        ("crossing_mm", "passed through, mm"),
        ("volume_cm3", "intersection, cm³"),
        ("contact_ratio", "in contact"),
        ("reprojection_px", "reprojection, px"),
    )
    for measure, label in labels:
        before, after = (summary["mean"][f"{measure}_{when}"] for when in ("before", "after"))
        if before is not None and after is not None:
            lines.append(f"  {label:<18} {before:8.2f} → {after:8.2f}")
    lines += [f"  failed: {reason}" for reason in list(summary["failures"].values())[:3]]
    total = summary["status"].get("failed", 0)
    if total > 3:
        lines.append(f"  … and {total - 3} more; each row's reason is in the results.")
    for kind, found in sorted(summary["warnings"].items(), key=lambda item: -item[1]["rows"]):
        lines.append(f"  warning ({kind}), {found['rows']} of {summary['rows']} rows, e.g. {found['example']}")
    return "\n".join(lines)
