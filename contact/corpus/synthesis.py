"""Grasps by optimisation: hands placed across an object's width, closed on it, and kept if they hold.

`contact.corpus.placement` proposes open hands. Gauss–Newton here closes them on the surface; what sinks in, does not
oppose, or could not hold is thrown away by `contact.corpus.holding`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hand_models import HandModel, HandPose
from hand_models.anatomy import default_anatomy
from hand_models.inner_spheres import sphere_radius
from hand_models.record import Record, shared
from hand_models.solver.least_squares import Termination, minimize
from hand_models.solver.normal_equations import NormalEquations
from hand_models.solver.point_forces import PointForces
from hand_models.solver.states import HandState
from hand_models.solver.terms import AnglePrior, JointLimits

from ..objects.grid import SignedDistanceGrid
from ..objects.mesh import ObjectMesh
from ..terms import FingersApart, attraction, penetration
from .grasp_types import Preshape, fingertip_skin, palmar_skin
from .placement import Placement, SynthesisConfig


def close_hands(
    model: HandModel, obj: ObjectMesh, placement: Placement, shapes: tuple[Preshape, ...], up: Tensor,
    config: SynthesisConfig,
) -> HandPose:  # fmt: skip
    """Close every hand on the object: touch with the parts its type touches with, without sinking in."""
    anatomy = default_anatomy()
    skin = model.contact_points[: len(model.contact_points) // 2]
    palmar = palmar_skin(model, anatomy)
    # Each touching bone counts the same, however many points it has. What does not touch keeps clear.
    wanted = torch.zeros(len(shapes), len(skin))
    clearance = torch.full((len(shapes), len(skin)), config.clearance)
    for k, shape in enumerate(shapes):
        for bone in shape.kind.touching_bones():
            tip_only = bone % 3 == 0 and bone > 0 and shape.kind.bones == 1
            whole = model.part_of_vertex == bone
            members = (fingertip_skin(model, palmar, bone) if tip_only else palmar & whole)[skin]
            wanted[k, members] = (2.0 if bone else 4.0) / members.sum().clamp_min(1)
            clearance[k, whole[skin]] = 0.0
    # Fingers that miss keep as clear as those the type has no use for.
    part = model.part_of_vertex[skin]
    finger = torch.div(part - 1, 3, rounding_mode="floor")  # the palm, -1, is the thumb's case: always able
    able = placement.able[:, finger]
    wanted = wanted[placement.kind] * able
    clearance = torch.where(able, clearance[placement.kind], config.clearance)
    floor = (obj.points @ up).min()
    std = anatomy.std * 0.6
    # A hand round a cavity must not end up inside it: it closes on the object's convex hull.
    solid = obj.grid
    if placement.across.any():
        solid = SignedDistanceGrid.cat([obj.grid, ObjectMesh.from_any(obj.trimesh.convex_hull, resolution=48).grid])

    terms = [
        _Closing(wanted, clearance, placement.squeeze, placement.across.long(), part, up, floor, solid, config.pad),
        AnglePrior(placement.anatomical, std.expand_as(placement.anatomical), anatomy),
        JointLimits(anatomy, 0.05),
        FingersApart(0.001),
        _Wrist(placement.pose.transl, config.arm),
    ]
    return minimize(HandState.of(placement.pose, model, skin), terms, Termination(config.iterations, 3e-3)).state.pose


@dataclass(frozen=True, eq=False)
class _Closing(Record):
    """Skin that should touch drawn to the surface, the rest kept clear of it, and all of the hand above the table."""

    wanted: Tensor
    """(B, P) weight of the contact of skin"""
    clearance: Tensor
    """(B, P) metres that skin keeps from the object; 0 where it may touch"""
    squeeze: Tensor
    """(B,) metres that skin sinks in where it touches"""
    across: Tensor
    """(B,) which surface: 1 for the convex hull of hands round a cavity"""
    part: Tensor = shared()
    """(P,) bone of each skin point"""
    up: Tensor = shared()
    floor: Tensor = shared()
    solid: SignedDistanceGrid = shared()
    pad: float = 0.003

    def linearize(self, state: HandState) -> list[PointForces]:
        skin, spheres, up = state.skin, state.spheres, self.up
        distance, gradient = self._surface(skin.points)
        inner, inner_gradient = self._surface(spheres.points)
        squeeze = self.squeeze[:, None]
        weight = self.wanted * _closest_first(distance, self.part, self.pad)
        touching = attraction(distance + squeeze, weight, 0.003, 4.0)
        sunk = penetration(distance - self.clearance, squeeze * (self.clearance == 0), 0.001)
        # Bones keep their distance too: thin walls are no barrier to the skin alone.
        bones = penetration(inner, squeeze - sphere_radius(inner), 0.001)
        table = penetration(skin.points @ up - self.floor, 0.0, 0.003)
        return [
            PointForces.along(skin, gradient, touching, sunk),
            PointForces.along(spheres, inner_gradient, bones),
            PointForces.along(skin, up.expand_as(skin.points), table),
        ]

    def _surface(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return self.solid.query(points, self.across if len(self.solid) > 1 else None)


@dataclass(frozen=True, eq=False)
class _Wrist(Record):
    """The hand stays where it was placed, to ``std`` metres."""

    transl: Tensor
    std: float

    def linearize(self, state: HandState) -> list[NormalEquations]:
        rows = torch.eye(3).to(self.transl).expand(len(self.transl), 3, 3) / self.std
        moved = (state.pose.transl - self.transl) / self.std
        return [NormalEquations.of(moved, rows).embedded(state.dim, 0)]


def _closest_first(distance: Tensor, part: Tensor, scale: float) -> Tensor:
    """``(B, P)`` factors that give the skin of each bone which is closest to the surface that bone's whole weight.

    ``distance (B, P)`` is the skin's from the surface, metres; ``part (P,)`` its bone; ``scale`` the metres farther
    away that make a point 1/e as much.
    """
    bone = part.expand(len(distance), -1)
    nearest = distance.new_full((len(distance), 16), torch.inf).scatter_reduce(1, bone, distance, "amin")
    share = ((nearest.gather(1, bone) - distance) / scale).exp()
    total = share.new_zeros(len(share), 16).scatter_add(1, bone, share).gather(1, bone)
    return share / total * torch.bincount(part, minlength=16)[part]
