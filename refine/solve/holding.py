"""When a hand holds: how near it is to the object, how still it is in the object's frame, and for how long."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TOUCH = 0.005
"""metres; skin that is nearer than this to the surface, or inside, may hold"""
_HOLDING_SPEED, _FREE_SPEED = 0.0025, 0.012
"""metres a frame and axis at 30 frames a second: of a hand in the frame of what it holds, and of one that reaches"""
_WINDOW = 3  # frames before and after over which speed is taken
_STAYS = 30.0  # frames that hands hold, or do not, at the least, as a rule
_MOST = (6.0, 2.0)  # log odds that one frame's distance and speed say at most


def holding(distance: Tensor, middle: Tensor, std: Tensor, drift: float, rate: float = 1.0) -> Tensor:
    """Probability ``(T,)`` that the hand holds the object in each frame.

    A hidden state, which changes seldom, is inferred from both ends (forward–backward; Rabiner, Proc. IEEE 1989).

    Args:
        distance: ``(T,)`` of the closest skin from the object, metres, negative inside.
        middle: ``(T, 3)`` middle of the hand in the object's frame.
        std: ``(T,)`` metres that the hand may be off by along any axis.
        drift: metres a frame and axis by which the error changes.
        rate: frames a second over 30.
    """
    near = torch.special.log_ndtr((_TOUCH - distance) / std) - torch.special.log_ndtr((distance - _TOUCH) / std)
    count = len(distance)
    first = (torch.arange(count) - _WINDOW).clamp_min(0)
    last = (torch.arange(count) + _WINDOW).clamp_max(count - 1)
    frames = (last - first).clamp_min(1)
    squared = ((middle[last] - middle[first]) / frames[:, None]).square().mean(1)
    still, moving = ((s / rate) ** 2 + drift**2 / (2 * _WINDOW) for s in (_HOLDING_SPEED, _FREE_SPEED))
    speed = 1.5 * (math.log(moving / still) + squared / moving - squared / still)
    odds = near.clamp(-_MOST[0], _MOST[0]) + speed.clamp(-_MOST[1], _MOST[1])
    return _smoothed(odds, 1 / (_STAYS * rate))


def _smoothed(odds: Tensor, switch: float) -> Tensor:
    """Posterior ``(T,)`` of a chain of two states, from the log odds ``(T,)`` that each frame says."""
    stay = torch.tensor([[1 - switch, switch], [switch, 1 - switch]], dtype=torch.float64)
    like = torch.stack([torch.sigmoid(-odds), torch.sigmoid(odds)], 1).double().clamp_min(1e-12)
    ahead, belief = [], torch.full((2,), 0.5, dtype=torch.float64)
    for row in like:
        belief = row * (stay @ belief)
        belief = belief / belief.sum()
        ahead.append(belief)
    back, message = [], torch.ones(2, dtype=torch.float64)
    for row in like.flip(0):
        back.append(message)
        message = stay @ (row * message)
        message = message / message.sum()
    both = torch.stack(ahead) * torch.stack(back[::-1])
    return (both[:, 1] / both.sum(1)).float()
