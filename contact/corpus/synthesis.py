"""Grasps by optimisation: hands placed across an object's width, closed on it, and kept if they hold.

`contact.corpus.placement` proposes open hands. Gauss–Newton here closes them on the surface; what sinks in, does not
oppose, or could not hold is thrown away by `contact.corpus.holding`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hand_models import HandModel, HandPose
from hand_models.anatomy import default_anatomy
from hand_models.pose import TANGENT_DIM
from hand_models.solver.least_squares import NormalEquations, Termination, minimize

from .. import costs
from ..objects.grid import SignedDistanceGrid
from ..objects.mesh import ObjectMesh
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
        solid = SignedDistanceGrid.cat(
            [obj.grid, ObjectMesh.from_any(obj.trimesh.convex_hull, resolution=48).grid]
        )

    def surface(points: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return solid.query(points, placement.across[index].long() if len(solid) > 1 else None)

    def linearize(pose: HandPose, index: Tensor) -> NormalEquations:
        jacobian = model.jacobian(pose, skin)
        points = jacobian.vertices.points
        distance, gradient = surface(points, index)
        weight = wanted[index] * _closest_first(distance, part, config.pad)
        height = points @ up - floor
        squeeze = placement.squeeze[index][:, None]
        apart = clearance[index]
        equations = NormalEquations.zeros(len(index), TANGENT_DIM, points)
        spheres, radius = costs.inner_spheres(jacobian.joints)
        inner, inner_gradient = surface(spheres.points, index)
        for residual in (
            costs.attraction(jacobian.vertices, distance + squeeze, gradient, weight, 0.003, 4.0),
            costs.penetration(jacobian.vertices, distance - apart, gradient, squeeze * (apart == 0), 0.001),
            # Bones keep their distance too: thin walls are no barrier to the skin alone.
            costs.penetration(spheres, inner, inner_gradient, squeeze - radius, 0.001),
            costs.penetration(jacobian.vertices, height, up.expand_as(points), 0.0, 0.003),
            costs.pose_prior(pose.hand_pose, placement.anatomical[index], std, anatomy, TANGENT_DIM),
            costs.joint_limits(pose.hand_pose, anatomy, 0.05, TANGENT_DIM),
            costs.self_penetration(spheres, radius, 0.001),
        ):
            equations = equations.add(*residual)
        moved = (pose.transl - placement.pose.transl[index]) / config.arm
        return equations.add_diagonal(moved, torch.full_like(moved, 1 / config.arm), 0)

    return minimize(linearize, placement.pose, Termination(config.iterations, 3e-3)).pose


def _closest_first(distance: Tensor, part: Tensor, scale: float) -> Tensor:
    """``(B, P)`` factors that give the skin of each bone which is closest to the surface that bone's whole weight.

    Args:
        distance: ``(B, P)`` of the skin to the surface, metres.
        part: ``(P,)`` bone of each point.
        scale: metres farther away that make a point 1/e as much.
    """
    bone = part.expand(len(distance), -1)
    nearest = distance.new_full((len(distance), 16), torch.inf).scatter_reduce(1, bone, distance, "amin")
    share = ((nearest.gather(1, bone) - distance) / scale).exp()
    total = share.new_zeros(len(share), 16).scatter_add(1, bone, share).gather(1, bone)
    return share / total * torch.bincount(part, minlength=16)[part]
