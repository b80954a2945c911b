"""`PointJacobian`: how points move with a pose, factored by bones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .rotations import skew


@dataclass(frozen=True)
class PointJacobian:
    """Derivative of points ``(B, P, 3)`` of a hand or a rigid body by its pose: translation, then turns of ``A`` bones.

    Turning bone ``a`` by a small world rotation ``w`` moves a point by ``w × arms[a]``; ``frames`` turns a change of
    an unknown, such as an axis-angle vector, into that rotation. A hand has 16 bones, a rigid body one. Kept in this
    factored form because it is ten times smaller than the dense matrix and most costs only need it along one
    direction per point.
    """

    points: Tensor
    """(B, P, 3)"""
    arms: Tensor
    """(B, A, 3, P)"""
    frames: Tensor
    """(B, A, 3, 3)"""
    correctives: Tensor | None = None
    """(B, 45, 3, P) effect of the pose through pose-dependent shape, for models that have it."""
    shape: Tensor | None = None
    """(B, 10, 3, P) derivative by betas, when asked for."""

    def select(self, index: Tensor) -> PointJacobian:
        """The points at ``index (B, Q)``, chosen per hand."""

        def pick(t: Tensor | None) -> Tensor | None:
            if t is None:
                return None
            return t.gather(-1, index[:, None, None].expand(-1, t.shape[1], 3, -1))

        points = self.points.gather(1, index[..., None].expand(-1, -1, 3))
        return PointJacobian(points, pick(self.arms), self.frames, pick(self.correctives), pick(self.shape))

    def between(self, first: Tensor, second: Tensor, share: Tensor) -> PointJacobian:
        """Points on the lines from the points ``first (Q,)`` to ``second (Q,)``, at ``share (Q,)`` of the way."""

        def mix(t: Tensor | None) -> Tensor | None:
            return None if t is None else torch.lerp(t[..., first], t[..., second], share)

        points = torch.lerp(self.points[:, first], self.points[:, second], share[:, None])
        return PointJacobian(points, mix(self.arms), self.frames, mix(self.correctives), mix(self.shape))

    def along(self, direction: Tensor) -> Tensor:
        """Derivative of ``<direction, point>`` for ``direction (B, P, 3)``: ``(B, D, P)``, D = 51 or 61."""
        d = direction.transpose(1, 2)  # (B, 3, P)
        turned = torch.linalg.cross(self.arms, d[:, None], dim=2)
        rows = (self.frames.transpose(-1, -2) @ turned).flatten(1, 2)
        if self.correctives is not None:
            rows[:, 3:] += (self.correctives * d[:, None]).sum(2)
        parts = [d, rows]
        if self.shape is not None:
            parts.append((self.shape * d[:, None]).sum(2))
        return torch.cat(parts, 1)

    def dense(self) -> Tensor:
        """The whole derivative, ``(B, D, 3, P)``: tangent of `HandPose.retract` first, then x, y, z."""
        batch, bones, _, count = self.arms.shape
        # w × arm with w = frames[:, :, :, j] is skew(frames column j) @ arm.
        turn = skew(self.frames.transpose(-1, -2)).flatten(2, 3)  # (B, 16, 9, 3)
        rows = (turn @ self.arms).reshape(batch, 3 * bones, 3, count)
        if self.correctives is not None:
            rows[:, 3:] += self.correctives
        move = torch.eye(3, dtype=rows.dtype, device=rows.device)[None, :, :, None].expand(batch, 3, 3, count)
        return torch.cat([move, rows] + ([] if self.shape is None else [self.shape]), 1)
