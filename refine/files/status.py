"""`Status`: how refinement of a grasp ended, as results and files say it."""

from __future__ import annotations

from enum import Enum


class Status(str, Enum):
    """How refinement of a grasp ended."""

    REFINED = "refined"
    NUDGED = "nudged"
    KEPT = "kept"
    FILLED = "filled"
    FAILED = "failed"

    @property
    def explanation(self) -> str:
        """What it means, and what to change."""
        return {
            "refined": "The result is more plausible than the input.",
            "nudged": "A better grasp is likely but not sure, so the hand went 3 mm towards it, as little as a "
            "tracker may err by; try RefineConfig(gate=False).",
            "kept": "Nothing more plausible was found, so the input is returned; try RefineConfig(gate=False).",
            "filled": "A frame of a motion was missing or garbage, and is filled in from those around it.",
            "failed": "The input cannot be refined, for the reason given with it, and is returned as it came.",
        }[self.value]
