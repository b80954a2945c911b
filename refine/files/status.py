"""`Status`: how refinement of a grasp ended, as results and files say it."""

from __future__ import annotations

from enum import Enum

from torch import Tensor

HOLDS = 0.5
"""Probability from which on a hand counts as holding."""
STAYED = 0.001
"""Metres by which a hand may have moved that counts as kept."""


class Status(str, Enum):
    """How refinement of a grasp ended."""

    REFINED = "refined"
    KEPT = "kept"
    APART = "apart"
    FILLED = "filled"
    FAILED = "failed"

    @property
    def explanation(self) -> str:
        """What it means, and what to change."""
        return {
            "refined": "The hand holds the object, and has moved to where that is more plausible, or part of the way.",
            "kept": "The hand has moved by less than a millimetre: nothing else is surely more plausible; try "
            "RefineConfig(gate=False).",
            "apart": "The hand does not hold the object, or moved and touches nothing. One that does not hold is as it "
            "came, but for what it sank in; give holding=True where it is known to hold.",
            "filled": "A frame of a motion was missing or garbage, and is filled in from those around it.",
            "failed": "The input cannot be refined, for the reason given with it, and is returned as it came.",
        }[self.value]


class Statuses(list[Status]):
    """A status for each row; that of a single one also equals its own: ``result.status == "kept"``."""

    def __eq__(self, other: object) -> bool:
        return (len(self) == 1 and self[0] == other) if isinstance(other, str) else super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as of every list


def statuses(usable: Tensor, holds: Tensor, way: Tensor, touches: Tensor) -> list[Status]:
    """Status of each row ``(B,)``.

    Args:
        usable: bool, whether it could be refined.
        holds: bool, whether the hand is taken to hold the object.
        way: metres, mean distance of the joints from where they were given.
        touches: bool, whether the hand touches the object now.
    """

    def of(usable: bool, holds: bool, way: float, touches: bool) -> Status:
        if not usable:
            return Status.FAILED
        if not holds:
            return Status.APART
        if way < STAYED:
            return Status.KEPT
        return Status.REFINED if touches else Status.APART

    columns = zip(usable.tolist(), holds.tolist(), way.tolist(), touches.tolist(), strict=True)
    return [of(*row) for row in columns]
