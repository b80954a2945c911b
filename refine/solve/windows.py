"""Long motions piece by piece: memory is bounded, and each piece goes on from the one before."""

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
_FADES = 12.0  # frames at 30 a second, over which what one piece is off from the next is made up for


def solve_in_windows(
    motion: MotionInput, mesh: ObjectMesh, model: HandModel, config: RefineConfig, settled: HandPose | None = None,
    longest: int = LONGEST,
) -> MotionSolved:  # fmt: skip
    """`solve_motion`, of ``longest`` frames at a time.

    Args:
        settled: its first frames as they have been given out, which the others go on from.

    Raises:
        FileNotFoundError: the weights do not exist.
    """
    length = len(motion.pose)
    if length <= longest + _AROUND:
        solved = solve_motion(motion, mesh, model, config)
        return solved if settled is None else _going_on(solved, settled[-1], len(settled) - 1, motion.rate)
    parts: list[MotionSolved] = []
    for start in range(0, length, longest):
        first, stop = max(0, start - _AROUND), min(length, start + longest)
        solved = solve_motion(motion.rows(slice(first, min(length, stop + _AROUND))), mesh, model, config)
        if parts:
            solved = _going_on(solved, parts[-1].pose[-1], start - 1 - first, motion.rate)
        parts.append(_rows(solved, slice(start - first, stop - first)))
    return _joined(parts)


def _going_on(solved: MotionSolved, last: HandPose, at: int, rate: float) -> MotionSolved:
    """With frame ``at`` where it has been given out, as ``last``, and the frames after it the less off by as much.

    Held fast, a mistake of one piece would last for ever: a hand that holds stays where it is.
    """
    since = (torch.arange(len(solved.pose)) - at).clamp_min(0)
    fading = torch.exp(-since / (_FADES * rate))[:, None]
    return replace(solved, pose=solved.pose.retract(fading * last.offset(solved.pose[at])))


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
