"""How the error of a motion hangs together in time: new in every frame, or a drift, and how much of either.

Of three groups of numbers, place, turn and joint angles, the second differences tell. Errors that are independent
between frames show at high frequencies, a drift (AR(1)) less, the motion of a hand hardly at all; the spectrum that
all three add up to is fitted by Whittle's likelihood (Whittle, Bull. Int. Stat. Inst. 34, 1953). A drift and a
motion cannot be told apart by this alone: how large a drift may be has to be stated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import dct
from torch import Tensor

from contact.input_error import TRACKING, InputError
from hand_models import HandPose
from hand_models.rotations import exp_so3, log_so3

CORRELATION = 0.95
"""Of a drift, from one frame to the next at 30 frames a second."""
_CORNER = 0.15
"""In units of `_curvature`: hands do little that is faster, 1.9 Hz at 30 frames a second"""
_SHORTEST = 12  # frames; less says nothing of its error
_SHARES = np.linspace(0, 1, 21)


@dataclass(frozen=True)
class ErrorInTime:
    """Of place, turn and joint angles each, which share of the error's variance is new in every frame."""

    place: float
    turn: float
    bend: float

    def weights(self) -> tuple[list[float], list[float]]:
        """``level`` and ``change`` of `CorrelatedInput`, of each group."""
        return tuple(map(list, zip(*(level_and_change(s) for s in (self.place, self.turn, self.bend)), strict=True)))  # type: ignore[return-value]


def level_and_change(share: float, correlation: float = CORRELATION) -> tuple[float, float]:
    """Weights on the square of an error of unit variance and on that of its change, as `CorrelatedInput` has them.

    Args:
        share: of the variance that is white; the rest is AR(1).

    The spectral density of precision ``level + change · c``, c = 2 − 2 cos ω, is that of the error at ω = 0 and at
    c = 1, an error that lasts for six frames: exact for either kind alone.
    """
    at_rest = 1 / _density(share, np.zeros(1), correlation)[0]
    at_one = 1 / _density(share, np.ones(1), correlation)[0]
    return float(at_rest), float(max(at_one - at_rest, 0.0))


def white_shares(pose: HandPose, variance: tuple[float, float, float]) -> ErrorInTime:
    """Judge a motion whose error's variance is known.

    Args:
        pose: ``T`` hands in time, in the frame that their error is in.
        variance: of place, turn and joint angles, square metres and radians, mean of their numbers.

    Returns:
        Of motions of less than 12 frames that all of it is white.
    """
    if len(pose) < _SHORTEST:
        return ErrorInTime(1.0, 1.0, 1.0)
    return ErrorInTime(*(_share(d, v) for d, v in zip(_second_differences(pose), variance, strict=True)))


def judged_error(pose: HandPose) -> InputError:
    """The error of a motion of which nothing is stated: what is white of it, beyond what trackers are off by too.

    That much is surely no motion. Of a drift nothing is known, so that none is assumed.
    """
    if len(pose) < _SHORTEST:
        return InputError(0.0, 0.0, 0.0)
    units = (TRACKING.translation, TRACKING.rotation, TRACKING.pose * _BEND)
    white = [max(_white(d) - u**2, 0.0) ** 0.5 for d, u in zip(_second_differences(pose), units, strict=True)]
    return InputError(white[0], white[1], white[2] / _BEND)


_BEND = float(np.sqrt(np.mean(np.square([0.41, 0.14, 0.08]))))
"""Radians of a joint angle, root mean square, in the unit of `InputError.pose`."""


def _second_differences(pose: HandPose) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of place, turn and joint angles, ``(T - 2, k)``."""
    rotation = exp_so3(pose.global_orient)
    turned = log_so3(rotation[1:] @ rotation[:-1].transpose(1, 2))

    def floats(t: Tensor) -> np.ndarray:
        return t.double().numpy()

    bend = pose.hand_pose.flatten(1)
    return floats(pose.transl.diff(n=2, dim=0)), floats(turned.diff(dim=0)), floats(bend.diff(n=2, dim=0))


def _spectrum(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Power ``(n,)``, mean of the numbers, and c = 2 − 2 cos ω of each frequency."""
    power = np.square(dct(differences, type=2, axis=0, norm="ortho")).mean(1)
    return np.maximum(power, 1e-18), _curvature(len(differences))


def _curvature(count: int) -> np.ndarray:
    return 2 - 2 * np.cos(np.pi * np.arange(count) / count)


def _density(share: float, c: np.ndarray, correlation: float = CORRELATION) -> np.ndarray:
    """Spectral density of white noise and AR(1), together of unit variance."""
    drift = (1 - correlation**2) / ((1 - correlation) ** 2 + correlation * c)
    return share + (1 - share) * drift


def _motion(c: np.ndarray) -> np.ndarray:
    """Spectral density of a hand's acceleration, up to a factor."""
    return 1 / (1 + (c / _CORNER) ** 2)


def _share(differences: np.ndarray, variance: float) -> float:
    """White share of an error of ``variance``: the likeliest, with as much motion as goes best with it.

    A share in between has to be worth its number (Schwarz, Ann. Stat. 6, 1978): motion that is faster than most passes
    for a little drift, and where there is some, no frame's place is worth much. The numbers of a group, which err
    together, count as one.
    """
    power, c = _spectrum(differences)
    error = variance * np.stack([_density(s, c) for s in _SHARES]) * c**2  # (shares, n)
    motion = np.geomspace(1e-10, 1.0, 60)[:, None] * _motion(c)  # (factors, n)
    density = error[:, None] + motion + 1e-18
    cost = 0.5 * (np.log(density) + power / density).sum(2).min(1)
    cost[1:-1] += 0.5 * np.log(len(power))
    return float(_SHARES[cost.argmin()])


def _white(differences: np.ndarray) -> float:
    """Variance of the white part, the rest being drift and motion of any size."""
    power, c = _spectrum(differences)
    parts = np.stack([c**2, _density(0.0, c) * c**2, _motion(c)])
    size = np.array([power.mean() / part.mean() / 3 for part in parts])
    for _ in range(200):  # multiplicative updates, each of which makes it likelier (Févotte & Idier 2011)
        density = size @ parts + 1e-18
        size = size * np.sqrt((parts * power / density**2).sum(1) / (parts / density).sum(1))
    return float(size[0])
