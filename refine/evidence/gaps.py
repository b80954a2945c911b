"""Frames of a motion that are missing or cannot be right, and what goes in their place until they are solved for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hand_models import HandModel, HandPose
from hand_models.rotations import exp_so3, log_so3

_AROUND = 3  # frames before and after that a frame is held against
_LEAST_JUMP = (0.08, 1.2)  # metres, radians: what hands and estimators do between frames is less
_OUTLIER = 8.0  # times the usual distance


def missing_frames(pose: HandPose, model: HandModel) -> Tensor:
    """(T,) bool: frames that hold NaN, or whose hand is somewhere else than in the frames around (garbage).

    A frame is garbage when its joints' middle or its turn is farther from the median of the three frames before and
    after than 8 times what is usual in this motion, and than 8 cm or 70°.
    """
    known = pose.finite()
    rows = known.nonzero()[:, 0]
    if len(rows) < 2 * _AROUND + 1:
        return ~known
    seen = pose[rows]
    middle = model.joints(seen).mean(1).double().numpy()
    rotation = exp_so3(seen.global_orient).double().numpy()
    jump = np.zeros(len(rows), bool)
    for values, least in ((middle, _LEAST_JUMP[0]), (rotation.reshape(-1, 9), np.sqrt(2) * _LEAST_JUMP[1])):
        off = np.linalg.norm(values - _medians(values), axis=1)
        jump |= off > max(least, _OUTLIER * float(np.median(off)))
    gone = ~known
    gone[rows[torch.from_numpy(jump)]] = True
    return gone


def _medians(values: np.ndarray) -> np.ndarray:
    """(T, k) medians of the frames around each, itself left out."""
    count, offsets = len(values), [k for k in range(-_AROUND, _AROUND + 1) if k]
    index = np.clip(np.arange(count)[:, None] + offsets, 0, count - 1)
    return np.median(values[index], axis=1)


def filled_in(pose: HandPose, gone: Tensor) -> HandPose:
    """The motion with frames ``gone (T,)`` on the way from the frame before to the one after; ends stay as they are.

    Raises:
        ValueError: all frames are gone.
    """
    if gone.all():
        raise ValueError("hand_poses: every frame holds NaN or infinity; check the estimator's output.")
    if not gone.any():
        return pose
    there = (~gone).nonzero()[:, 0]
    at = torch.arange(len(pose))
    after = torch.searchsorted(there, at).clamp_max(len(there) - 1)
    before = torch.where(there[after] > at, (after - 1).clamp_min(0), after)
    first, last = there[before], there[after]
    share = ((at - first) / (last - first).clamp_min(1)).clamp(0, 1).to(pose.transl)
    start, end = pose[first], pose[last]
    rotation = exp_so3(start.global_orient)
    turn = log_so3(exp_so3(end.global_orient) @ rotation.transpose(1, 2)) * share[:, None]
    between = replace(
        start,
        transl=torch.lerp(start.transl, end.transl, share[:, None]),
        global_orient=log_so3(exp_so3(turn) @ rotation),
        hand_pose=torch.lerp(start.hand_pose, end.hand_pose, share[:, None, None]),
        betas=torch.lerp(start.betas, end.betas, share[:, None]),
    )
    return between.where(gone, pose)
