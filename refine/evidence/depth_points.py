"""What a depth camera says of a hand: points measured on the skin that it sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hand_models import HandPose
from hand_models.record import Record
from hand_models.solver.point_forces import PointForces
from hand_models.solver.states import HandState
from hand_models.solver.terms import pseudo_huber

_ENOUGH = 10  # points, on three sides of a finger at least


@dataclass(frozen=True, eq=False)
class DepthPoints(Record):
    """Points of ``B`` scans lie on the visible skin of the hands, in their object's frame.

    Each is drawn to the plane of the nearest skin that faces the camera (Chen and Medioni 1992).
    """

    points: Tensor
    """(B, n, 3) metres; NaN where there are fewer"""
    eye: Tensor
    """(B, 3) where the camera is"""
    std: float = 0.004
    """metres, of a measured point from the plane"""
    share: float = 0.2
    """how much of an observation of its own each point is: neighbours err alike"""
    robust: float = 3.0
    """standard deviations beyond which a point pulls no harder"""

    @cached_property
    def _measured(self) -> tuple[Tensor, Tensor]:
        """(B, n) bool: which points there are; and ``points``, zero for the others."""
        there = self.points.isfinite().all(2)
        return there, torch.where(there[..., None], self.points, torch.zeros_like(self.points))

    @property
    def places(self) -> Tensor:
        """(B,) bool: whether there are points enough to say where the hand is."""
        return self._measured[0].sum(1) >= _ENOUGH

    def mirrored(self) -> DepthPoints:
        """Of the hands in a mirror that flips x."""
        flip = self.points.new_tensor([-1.0, 1.0, 1.0])
        return replace(self, points=self.points * flip, eye=self.eye * flip)

    def start(self, state: HandState) -> HandPose:
        """The hands moved along the line of sight to where the points are in the mean: nearest skin is wrong before."""
        there, measured = self._measured
        count = there.sum(1, keepdim=True).clamp_min(1)
        ray = state.skin.points - self.eye[:, None]
        seen = ((ray * state.skin_normals).sum(2) < 0).to(ray)[..., None]
        skin = (state.skin.points * seen).sum(1) / seen.sum(1).clamp_min(1)
        view = normalize(skin - self.eye, dim=1)
        off = ((measured.sum(1) / count - skin) * view).sum(1, keepdim=True) * (there.sum(1, keepdim=True) > 0)
        return replace(state.pose, transl=state.pose.transl + off * view)

    def loosened(self, factor: float) -> DepthPoints:
        """As if the points were ``factor`` times less sure: while the hand is far from them, nearest skin is often
        the wrong one (graduated non-convexity; Blake and Zisserman 1987)."""
        return replace(self, std=factor * self.std)

    def linearize(self, state: HandState) -> list[PointForces]:
        skin, normals = state.skin.points, state.skin_normals
        hidden = ((skin - self.eye[:, None]) * normals).sum(2) > 0
        there, measured = self._measured
        nearest = torch.cdist(measured, skin).masked_fill(hidden[:, None], torch.inf).argmin(2)  # (B, n)
        wide = nearest[..., None].expand(-1, -1, 3)
        facing = normals.gather(1, wide)
        off = ((skin.gather(1, wide) - measured) * facing).sum(2) / self.std * there
        weight, loss = pseudo_huber(off.square(), self.robust)
        weight = weight * self.share * there
        pull = torch.zeros_like(skin[..., 0]).scatter_add(1, nearest, weight * off / self.std)
        stiff = torch.zeros_like(pull).scatter_add(1, nearest, weight / self.std**2)
        return [
            PointForces(
                state.skin, self.share * (loss * there).sum(1), normals * pull[..., None], None,
                normals * stiff.sqrt()[..., None],
            )
        ]  # fmt: skip
