"""Results in few words: a few lines for the terminal, a small table for notebooks."""

from __future__ import annotations

import html
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ROWS_SHOWN = 8
"""Grasps that a table shows one by one."""


@dataclass(frozen=True)
class Measure:
    """One number of each of ``B`` grasps, NaN where it is not known."""

    name: str
    after: np.ndarray
    """(B,)"""
    before: np.ndarray | None = None
    """(B,)"""
    unit: str = ""

    def of(self, row: int | None = None) -> str:
        """``before → after unit`` of a grasp; their means over all for None."""
        values = [v for v in (self.before, self.after) if v is not None]
        numbers = [_number(_mean(v) if row is None else v[row]) for v in values]
        return f"{' → '.join(numbers)} {self.unit}".rstrip()


@dataclass(frozen=True)
class Summary:
    """What there is to say of ``B`` grasps."""

    hands: str
    """whose hands, singular: "right hand"."""
    object_name: str
    hand_model: str
    status: Sequence[str]
    """(B,)"""
    measures: Sequence[Measure]
    warnings: Sequence[Sequence[str]]
    """(B,)"""
    reason: Sequence[str] = ()
    """(B,) why a grasp failed"""

    @property
    def title(self) -> str:
        """How many hands, whose, on what."""
        count = len(self.status)
        hands = self.hands if count == 1 else f"{self.hands}s"
        return f"{count} {hands} ({_quoted(self.hand_model)} model) on {_quoted(self.object_name)}"

    @property
    def outcome(self) -> str:
        """How many ended how, and how many texts of warning there are."""
        counts = Counter(self.status)
        told = sum(map(len, self.warnings))
        ended = ", ".join(f"{counts[status]} {status}" for status in sorted(counts)) or "none"
        return f"{ended}; {told} warning{'' if told == 1 else 's'}"

    def text(self) -> str:
        """Three lines, together below 300 characters: hands, statuses and warnings, means of the measures."""
        means = ", ".join(f"{measure.name} {measure.of()}" for measure in self.measures)
        return f"{self.title}\n  {self.outcome}\n  mean {means}"

    def table(self) -> str:
        """An HTML fragment: the means, and the first grasps one by one. All text is escaped."""
        names = [measure.name for measure in self.measures]
        head = _row(["", "status", *names, "what to look at"], "th")
        rows = [
            _row([str(k), self.status[k], *(m.of(k) for m in self.measures), "; ".join(self._notes(k))])
            for k in range(min(len(self.status), ROWS_SHOWN))
        ]
        more = len(self.status) - ROWS_SHOWN
        if more > 0:
            rows.append(_row([f"{more} more", *[""] * (len(names) + 2)]))
        mean = _row(["mean", self.outcome, *(measure.of() for measure in self.measures), ""], "th")
        title = html.escape(self.title)
        return f"<table><caption>{title}</caption><thead>{head}{mean}</thead><tbody>{''.join(rows)}</tbody></table>"

    def _notes(self, row: int) -> list[str]:
        return [text for text in (*self.reason[row : row + 1], *self.warnings[row]) if text]


def data_frame(columns: Mapping[str, Any]) -> Any:
    """The columns as a pandas table. Raises ``ImportError`` without pandas, which is an extra."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "to_dataframe needs the pandas package, which is not installed: pip install 'regrasp[pandas]'"
        ) from error
    return pandas.DataFrame(dict(columns))


def _quoted(name: str) -> str:
    """A name in quotes and cut: an object's is whatever its file is called, line breaks and all."""
    short = reprlib.Repr()
    short.maxstring = 24
    return short.repr(name)


def _row(cells: Sequence[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _mean(values: np.ndarray) -> float:
    """Mean of what is known; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3g}"
