"""Terms of sequences of hands: an input whose error is correlated in time, a hand that moves with what it holds, and
motion as another frame has it.

They reach from one frame to the next, so that the banded solve of `hand_models.solver.sequence` takes them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..pose import HandPose
from ..record import Record, shared
from ..rotations import left_jacobian, log_so3
from .sequence import SequenceEquations, SequenceState, frames_of
from .terms import pseudo_huber

KNUCKLES = [5, 9, 13, 17]
"""Joints of the palm's far end, which fingers do not move, nearest to what is held."""
_NEAREST = 0.05  # metres before a camera


@dataclass(frozen=True, eq=False)
class _OfSequences(Record):
    """Base of terms that hold a row for every frame, ``B · T``, and of which whole sequences are selected."""

    length: int
    """T"""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(frames_of(index, len(self) // self.length, self.length))


@dataclass(frozen=True, eq=False)
class CorrelatedInput(_OfSequences):
    """Hands near those given, whose error keeps from frame to frame what `change` says it keeps.

    The error of a frame, in units of its standard deviation, costs ``level`` times its square, and that of two
    successive frames ``change`` times the square of their difference. Of an AR(1) process of coefficient ρ and unit
    variance this is exact with level (1 − ρ)/(1 + ρ) and change ρ/(1 − ρ²), but for its two ends (Rue & Held,
    Gaussian Markov Random Fields, 2005, ch. 1.1); independent errors have level 1 and change 0.
    """

    mean: HandPose
    """``B · T`` hands as they were given"""
    factor: Tensor
    """(B · T, 51, 51) F, the precision of a frame's error being F Fᵀ; zero of frames not given"""
    level: Tensor
    """(B · T, 51)"""
    change: Tensor
    """(B · T, 51) between a frame and the next; that of the last frame has no meaning"""
    joints: Tensor
    """(B · T, 21, 3) of the hands as they were given"""
    seen: Tensor
    """(B · T, 3, 3) what weighs the errors of their joints: a projection across the view over its standard deviation,
    where pictures show the joints; zero elsewhere"""

    def linearize(self, state: SequenceState) -> list[SequenceEquations]:
        """With the derivative of turns at the mean, which is exact for all but large rotations."""
        shape = (len(state), state.length)
        error = (self.factor.transpose(1, 2) @ state.frames.pose.offset(self.mean)[..., None])[..., 0]
        rows, level, change = self.factor, self.level, self.change
        if (self.seen != 0).any():
            joints = state.frames.joints
            on_picture = (joints.points - self.joints) @ self.seen
            error = torch.cat([error, on_picture.flatten(1)], 1)
            moved = torch.einsum("bdcj,bce->bdje", joints.dense(), self.seen).flatten(2)
            rows = torch.cat([rows, moved], 2)
            level, change = (torch.cat([t, t[:, :1].expand(-1, moved.shape[2])], 1) for t in (level, change))
        error, rows, level, change = (t.unflatten(0, shape) for t in (error, rows, level, change))
        given = (self.factor != 0).any(2).any(1).view(shape)
        change = change[:, :-1] * (given[:, 1:] & given[:, :-1])[..., None]
        level = level * given[..., None]
        step = error.diff(dim=1)
        pull, stiff = level * error, level.clone()
        pull[:, :-1] -= change * step
        pull[:, 1:] += change * step
        stiff[:, :-1] += change
        stiff[:, 1:] += change
        transposed = rows.transpose(2, 3)
        return [
            SequenceEquations(
                0.5 * ((level * error.square()).sum((1, 2)) + (change * step.square()).sum((1, 2))),
                (rows @ pull[..., None])[..., 0],
                (rows * stiff[:, :, None]) @ transposed,
                -(rows[:, :-1] * change[:, :, None]) @ transposed[:, 1:],
            )
        ]


@dataclass(frozen=True, eq=False)
class MovesWith(_OfSequences):
    """Hands that hold an object stay where they are in its frame, but for a random walk.

    What walks is the middle of the knuckles and the turn (the rotation vector from one frame to the next, in the
    world's axes): of a hand that is turned about the object it holds, the wrist goes farther than the grip. Fingers
    are free to move: where they regrip, or feel their way, that they should not would be made up for elsewhere.
    """

    weight: Tensor
    """(B · T,) of the step from a frame to the next; that of the last frame has no meaning"""
    counts: Tensor
    """(B · T, 3, 3) projection of the place's step onto the directions in which it counts"""
    place: float = shared()
    """standard deviation of a step whose weight is 1, metres a frame and axis"""
    turn: float = shared()
    """radians"""
    robust: float = shared(default=1.0)
    """standard deviations, root mean square, above which a step costs no more than in proportion"""

    def linearize(self, state: SequenceState) -> list[SequenceEquations]:
        shape, dim = (len(state), state.length), state.frames.dim
        rotation = state.frames.motion[1].unflatten(0, shape)
        joints = state.frames.joints
        middle = joints.points[:, KNUCKLES].mean(1).unflatten(0, shape)
        turned = log_so3(rotation[:, 1:] @ rotation[:, :-1].transpose(2, 3))
        inverse = torch.linalg.inv(left_jacobian(turned))  # by the later rotation; transposed by the earlier one
        onto = self.counts.unflatten(0, shape)[:, :-1]
        step = torch.cat([(onto @ middle.diff(dim=1)[..., None])[..., 0], turned], 2)
        std = step.new_tensor([self.place] * 3 + [self.turn] * 3)
        # Robust for either kind by itself: a hand that re-grips goes far in a few frames.
        kinds = (step / std).split([3, 3], 2)
        shares, losses = zip(*(pseudo_huber(k.square().mean(2, keepdim=True), self.robust) for k in kinds), strict=True)
        share = torch.cat([s.expand_as(k) for s, k in zip(shares, kinds, strict=True)], 2)
        weight = self.weight.unflatten(0, shape)[:, :-1, None]
        scale = (weight * share).sqrt() / std  # (B, T - 1, D)
        rows = torch.eye(dim)[:, :6].to(step).repeat(*shape, 1, 1)  # of unknowns by residuals
        rows[..., :3] = joints.dense()[..., KNUCKLES].mean(3).unflatten(0, shape)
        ahead, back = rows[:, 1:].clone(), rows[:, :-1].clone()
        ahead[..., :3], back[..., :3] = ahead[..., :3] @ onto, back[..., :3] @ onto
        ahead[..., 3:6, 3:6], back[..., 3:6, 3:6] = inverse.transpose(2, 3), inverse
        ahead, back = ahead * scale[:, :, None], -back * scale[:, :, None]
        residual = (step * scale)[..., None]
        gradient, own = step.new_zeros(*shape, dim), step.new_zeros(*shape, dim, dim)
        gradient[:, :-1] += (back @ residual)[..., 0]
        gradient[:, 1:] += (ahead @ residual)[..., 0]
        own[:, :-1] += back @ back.transpose(2, 3)
        own[:, 1:] += ahead @ ahead.transpose(2, 3)
        cost = sum((weight * loss * k.shape[2]).sum((1, 2)) for loss, k in zip(losses, kinds, strict=True))
        return [SequenceEquations(cost, gradient, own, back @ ahead.transpose(2, 3))]


@dataclass(frozen=True, eq=False)
class _Motion(Record):
    """What moves in time, without the hand that does."""

    place: Tensor
    rotation: Tensor
    bend: Tensor
    dim: int

    @property
    def motion(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.place, self.rotation, self.bend


@dataclass(frozen=True, eq=False)
class InFrame(_OfSequences):
    """A term about motion as another frame has it, such as that of a camera before which the hands' object moves.

    In the frame of an object that turns, and whose turns err, a hand seems to move the less the nearer it is to where
    the object turns about. Before a camera it seems to move the less the nearer it is to the camera: in a
    `picture`, places are where that shows them, and the logarithm of their depth (Civera et al., Inverse depth
    parametrization, T-RO 2008, to the same end), so that motions of all sizes that look the same move alike.
    """

    rotation: Tensor
    """(B · T, 3, 3) from the hands' frame to that frame"""
    shift: Tensor
    """(B · T, 3) metres, added to the turned place"""
    term: Any = shared()
    """which asks its frames for `motion` and `dim` alone, such as `Acceleration`"""
    picture: float | None = shared(default=None)
    """metres from the camera at which a picture is as large as what it shows, where places are those in a picture of
    a camera that looks along z; None where they are places"""

    def linearize(self, state: SequenceState) -> list[SequenceEquations]:
        place, rotation, bend = state.frames.motion
        shape, dim = (len(state), state.length), state.frames.dim
        turned, slope = (self.rotation @ place[..., None])[..., 0] + self.shift, self.rotation
        if self.picture is not None:
            turned, shown = _shown(turned, self.picture)
            slope = shown @ slope
        moved: Any = _Motion(turned, self.rotation @ rotation, bend, dim)
        turn = torch.eye(dim).to(place).repeat(*shape, 1, 1)
        turn[..., :3, :3], turn[..., 3:6, 3:6] = slope.unflatten(0, shape), self.rotation.unflatten(0, shape)
        back = turn.transpose(2, 3)

        def between(block: Tensor | None, reach: int) -> Tensor | None:
            return None if block is None else back[:, : state.length - reach] @ block @ turn[:, reach:]

        return [
            SequenceEquations(
                e.cost,
                (back @ e.gradient[..., None])[..., 0],
                back @ e.own @ turn,
                between(e.next, 1),
                between(e.after, 2),
            )
            for e in self.term.linearize(replace(state, frames=moved))
        ]


def _shown(place: Tensor, distance: float) -> tuple[Tensor, Tensor]:
    """``distance`` times (x / z, y / z, log z) of places ``(N, 3)``, and its derivative ``(N, 3, 3)``."""
    depth = place[:, 2:].clamp_min(_NEAREST)
    ray = place[:, :2] / depth
    slope = place.new_zeros(len(place), 3, 3)
    slope[:, 0, 0] = slope[:, 1, 1] = slope[:, 2, 2] = 1.0
    slope[:, :2, 2] = -ray
    return distance * torch.cat([ray, depth.log()], 1), distance / depth[..., None] * slope
