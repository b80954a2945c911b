"""Long motions piece by piece: memory is bounded, and what was solved for before stands."""

from __future__ import annotations

from dataclasses import replace

import torch

from contact.field import ContactField
from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose

from ..config import RefineConfig
from .motion import MotionInput, MotionSolved, solve_motion

LONGEST = 900
"""Frames solved for at once, beside those around them."""
_AROUND = 45  # frames before and after that are solved for with them, as a drift lasts


def solve_in_windows(
    motion: MotionInput, mesh: ObjectMesh, model: HandModel, config: RefineConfig, settled: HandPose | None = None,
    longest: int = LONGEST,
) -> MotionSolved:  # fmt: skip
    """`solve_motion`, of ``longest`` frames at a time, each piece going on from the last.

    Raises:
        FileNotFoundError: the weights do not exist.
    """
    length, parts = len(motion.pose), []
    if length <= longest + _AROUND:
        return solve_motion(motion, mesh, model, config, settled)
    for start in range(0, length, longest):
        first, stop = max(0, start - _AROUND), min(length, start + longest)
        piece = motion.rows(slice(first, min(length, stop + _AROUND)))
        before = HandPose.cat([part.pose for part in parts])[first:start] if parts else settled
        parts.append(_rows(solve_motion(piece, mesh, model, config, before), slice(start - first, stop - first)))
    return _joined(parts)


def _rows(solved: MotionSolved, rows: slice) -> MotionSolved:
    """Some of the frames, and what the network saw of these."""
    look, field = solved.look[rows], solved.field
    if field is not None:
        used, look = look.unique(return_inverse=True)
        field = field[used]
    return replace(
        solved, pose=solved.pose[rows], holding=solved.holding[rows], variance=solved.variance[rows], look=look,
        field=field,
    )  # fmt: skip


def _joined(parts: list[MotionSolved]) -> MotionSolved:
    fields, looks, count = [part.field for part in parts if part.field is not None], [], 0
    for part in parts:
        looks.append(part.look + count)
        count += 0 if part.field is None else len(part.field)
    return MotionSolved(
        HandPose.cat([part.pose for part in parts]),
        torch.cat([part.holding for part in parts]),
        torch.cat([part.variance for part in parts]),
        # Frames of which the network saw nothing do not hold, and have no contact, wherever they point.
        torch.cat(looks).clamp_max(max(count - 1, 0)),
        ContactField.cat(fields) if fields else None,
        sum(part.iterations for part in parts),
    )
