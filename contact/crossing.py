"""Fingers through thin walls, and the way back.

By signed distance the way out of a thin wall is forward as well as back, and behind it nothing is wrong. Followed along
the bones from the knuckle on, it is seen where a finger enters; whatever comes behind that surface has passed through.
Of things that are thicker than a finger depth tells all of that, and they are left to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hand_models.record import Record, shared
from hand_models.solver.point_forces import PointForces
from hand_models.solver.states import HandState

from .objects.object_set import ObjectSet

_THICK = 0.015  # metres: a wall that a finger is no thicker than
_NEAREST = 4  # points of the surface that its thickness is read at
_OPPOSITE = -0.5  # cosine from which on normals of two surfaces are opposite
_STEPS = 12  # samples a bone of a finger, 2 to 4 mm apart; three times as many from the knuckle to the wrist
_PUSHED = slice(None, None, 4)  # of the samples
_TIP = 0.75  # of a finger's last bone: its end is a point of the skin, which may sink in


@cache
def _samples(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Points on bones: first joint, second joint and share of the way, ``(chains, samples)``, from the knuckles on."""
    chains = []
    for knuckle in range(1, 21, 4):
        bones = [(knuckle + k, knuckle + k + 1, (1.0, 1.0, _TIP)[k]) for k in range(3)]
        outward = [(start, end, reach * i / _STEPS) for start, end, reach in bones for i in range(_STEPS)]
        inward = [(knuckle, 0, i / (3 * _STEPS)) for i in range(3 * _STEPS + 1)]
        chains += [[*outward, bones[-1]], inward]
    table = torch.tensor(chains, dtype=torch.float64, device=device)
    return table[..., 0].long(), table[..., 1].long(), table[..., 2].to(dtype)


def bone_points(joints: Tensor) -> Tensor:
    """Points ``(B, C, S, 3)`` on bones of hands with ``joints (B, 21, 3)``: ``C`` chains of ``S``, from each knuckle
    to the fingertip and to the wrist."""
    start, end, share = _samples(joints.dtype, joints.device)
    return torch.lerp(joints[:, start], joints[:, end], share[..., None])


@dataclass(frozen=True)
class Passage:
    """Where the bones of ``B`` hands enter thin walls."""

    depth: Tensor
    """(B, C, S) metres that `bone_points` lie behind the surface that their chain enters, 0 where it enters none"""
    normal: Tensor
    """(B, C, 3) of that surface, on the side on which the chain starts"""
    crossing: Tensor
    """(B,) bool: a bone is in a wall"""


def passage(joints: Tensor, which: Tensor, objects: ObjectSet, margin: float = 0.0) -> Passage:
    """Follow the bones of hands with ``joints (B, 21, 3)``, in the frames of their objects.

    Args:
        which: ``(B,)`` object of each.
        margin: metres around the object that are taken for a part of it.
    """
    points = bone_points(joints)
    distance, gradient = (
        value.unflatten(1, points.shape[1:3]) for value in objects.grid.query(points.flatten(1, 2), which)
    )
    inside = distance < margin
    enters, first = inside.max(2, keepdim=True)
    before = (first - 1).clamp_min(0)  # the last point outside; the knuckle where that is inside

    def at(index: Tensor, values: Tensor) -> Tensor:
        return values.gather(2, index[..., None].expand(*index.shape, 3))

    normal, origin, height = normalize(at(before, gradient), dim=-1), at(before, points), distance.gather(2, before)
    enters &= _thickness(at(distance.argmin(2, keepdim=True), points)[:, :, 0], which, objects, enters) < _THICK
    order = torch.arange(points.shape[2], device=points.device)
    beyond = enters & (order >= first)
    # A bone that comes out beside where it went in has not passed through: what follows it is where it should be.
    leaves, last = (beyond & ~inside).max(2, keepdim=True)
    beside = leaves & ((normalize(at(last, gradient), dim=-1) * normal).sum(3) > _OPPOSITE)
    beyond &= ~(beside & (order >= last))
    depth = margin - height - ((points - origin) * normal).sum(3)
    depth = depth.clamp_min(0) * beyond
    return Passage(depth, normal[:, :, 0], (enters & (distance < 0)).flatten(1).any(1))


def _thickness(points: Tensor, which: Tensor, objects: ObjectSet, wanted: Tensor) -> Tensor:
    """Metres that the object is thick at ``points (B, C, 3)``, ``(B, C, 1)``; infinite where it is not ``wanted``."""
    row, chain = wanted[..., 0].nonzero().T
    found = torch.full_like(points[..., :1], torch.inf)
    offset = objects.points[which[row]].to(points) - points[row, chain, None]
    nearest = offset.square().sum(2).topk(_NEAREST, largest=False).indices
    found[row, chain, 0] = objects.thickness[which[row, None], nearest].to(points).amin(1)
    return found


@dataclass(frozen=True, eq=False)
class BonesOnTheirSide(Record):
    """No bone comes out of a thin wall on another side than that on which its finger starts, at the knuckle."""

    which: Tensor
    """(B,) object of each problem"""
    objects: ObjectSet = shared()
    std: float = 0.0005
    """metres behind the surface that count as one"""
    margin: float = 0.001
    """metres that bones keep from it"""

    def linearize(self, state: HandState) -> list[PointForces]:
        joints = state.joints
        found = passage(joints.points, self.which, self.objects, self.margin)
        depth = found.depth[..., _PUSHED]
        if not depth.any():
            return []
        normal = found.normal[:, :, None].expand(*depth.shape, 3).flatten(1, 2)
        depth = depth.flatten(1)
        table = _samples(joints.points.dtype, joints.points.device)
        points = joints.between(*(column[:, _PUSHED].flatten() for column in table))
        return [PointForces.along(points, normal, (depth / self.std, (depth > 0).to(depth) * (-1 / self.std)))]
