"""`Solved`: what a solve found for noisy hands, whichever way it went about it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hand_models import HandPose
from hand_models.record import Record


@dataclass(frozen=True)
class Solved(Record):
    """One solution for each of ``B`` hands."""

    pose: HandPose
    score: Tensor
    """(B,) against the mean prediction"""
    variance: Tensor
    """(B, 21) square metres per axis, of the joints"""
    steps: Tensor
    """(B,) evaluations"""
