"""What `regrasp view FILE --live` shows: results that Python saved, and those of a run with a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..batch.report import Report
from ..motion.sequence import SequenceResult
from ..result import RefineResult, TwoHandResult
from ..view.live import live_viewer
from ..view.pictures import GraspView

_SAVED = {"result.npz": RefineResult, "pair.npz": TwoHandResult, "sequence.npz": SequenceResult}

_KEPT = 512
"""Views that are kept: making one takes longer than a frame lasts."""


@dataclass(frozen=True)
class Views(Sequence[GraspView]):
    """Views that are made when they are asked for."""

    rows: Sequence[int]
    make: Callable[[int], GraspView]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.make(self.rows[index])


def start_live(path: Path, reports: dict[str, Report], hand_model: Any, port: int) -> Any:
    """The running viewer of what lies at ``path``.

    Args:
        path: what ``save`` of a result wrote, the folder or the file in it; or a run, or one of its result files.
        reports: of the run there, by name; none if it is no run.
        hand_model: of saved results; None for the one they name.

    Raises:
        FileNotFoundError: there is nothing of this kind.
        ValueError: there are several, or all of it failed.
        ImportError: viser is not installed.
    """
    saved = next((name for name in _SAVED if (path / name).is_file() or path.name == name), None)
    fps = None
    if saved is not None:
        folder = path if path.is_dir() else path.parent
        result = _SAVED[saved].load(folder, hand_model=hand_model)
        fps = getattr(result, "fps", None)
        views = Views(_shown(result), lru_cache(_KEPT)(result.view))
    else:
        named = {name: r for name, r in reports.items() if path.is_dir() or path.name.startswith(f"{name}.refined.")}
        if len(named) > 1:
            raise ValueError(
                f"{path}: holds {', '.join(named)}; name one, such as {path / next(iter(named))}.refined.npz."
            )
        if not named:
            raise FileNotFoundError(
                f"{path}: nothing to show live; give what result.save() wrote, or a run of regrasp refine --report."
            )
        report = next(iter(named.values()))
        views = Views(report.rows(), lru_cache(_KEPT)(report.view))
    if not len(views):
        raise ValueError(f"{path}: every grasp in it failed; there is nothing to show.")
    return live_viewer(views, port=port, fps=fps)


def _shown(result: Any) -> Sequence[int]:
    """Grasps that did not fail, of two hands both."""
    if isinstance(result, SequenceResult):
        return range(len(result))
    hands = result.hands if isinstance(result, TwoHandResult) else (result,)
    return [k for k in range(len(hands[0])) if any(hand.status[k] != "failed" for hand in hands)]
