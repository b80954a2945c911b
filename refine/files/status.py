"""`Status`: how refinement of a grasp ended, as results and files say it."""

from __future__ import annotations

from enum import Enum


class Status(str, Enum):
    """How refinement of a grasp ended."""

    REFINED = "refined"
    KEPT = "kept"
    APART = "apart"
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
            "failed": "The input cannot be refined, for the reason given with it, and is returned as it came.",
        }[self.value]
