"""When a hand holds: what single frames say of it, how still it is in the object's frame, and for how long."""

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
MOST = 6.0
"""Log odds that the distance in one frame says at most."""
_MOST_OF_MORE = 2.0
"""Log odds that a frame's speed, and what a network judges of it, say at most: a network that is wrong about one frame
of a motion is so about the others."""
_SURE = 30.0  # log odds of what is known


def nearness(distance: Tensor, std: Tensor) -> Tensor:
    """Log odds ``(T,)`` that a hand holds, by the ``distance (T,)`` of its closest skin from the object, metres,
    negative inside, which may be off by ``std (T,)``."""
    odds = torch.special.log_ndtr((_TOUCH - distance) / std) - torch.special.log_ndtr((distance - _TOUCH) / std)
    return odds.clamp(-MOST, MOST)


def log_odds(probability: Tensor) -> Tensor:
    """Log odds ``(T,)`` that a hand holds, by the ``probability (T,)`` that a network gives its frame."""
    return torch.logit(probability, eps=1e-6).clamp(-_MOST_OF_MORE, _MOST_OF_MORE)


def holding(seen: Tensor, middle: Tensor, drift: float, rate: float = 1.0, known: Tensor | None = None) -> Tensor:
    """Probability ``(T,)`` that the hand holds the object in each frame.

    A hidden state, which changes seldom, is inferred from both ends (forward–backward; Rabiner, Proc. IEEE 1989).

    Args:
        seen: ``(T,)`` log odds of what each frame shows: `nearness`, and `log_odds` of what a network says.
        middle: ``(T, 3)`` middle of the hand in the object's frame.
        drift: metres a frame and axis by which the hand's error changes.
        rate: frames a second over 30.
        known: ``(T,)`` 1 where the hand is known to hold, 0 where it is known not to, NaN elsewhere; None for nowhere.
    """
    count = len(seen)
    first = (torch.arange(count) - _WINDOW).clamp_min(0)
    last = (torch.arange(count) + _WINDOW).clamp_max(count - 1)
    frames = (last - first).clamp_min(1)
    squared = ((middle[last] - middle[first]) / frames[:, None]).square().mean(1)
    still, moving = ((s / rate) ** 2 + drift**2 / (2 * _WINDOW) for s in (_HOLDING_SPEED, _FREE_SPEED))
    speed = 1.5 * (math.log(moving / still) + squared / moving - squared / still)
    odds = seen + speed.clamp(-_MOST_OF_MORE, _MOST_OF_MORE)
    if known is None:
        return _smoothed(odds, 1 / (_STAYS * rate))
    sure = ~known.isnan()
    found = _smoothed(torch.where(sure, _SURE * (2 * known - 1), odds), 1 / (_STAYS * rate))
    return torch.where(sure, known, found)


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
