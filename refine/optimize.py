"""From a predicted contact field to a hand that agrees with it: two batched Gauss–Newton solves.

The first brings the hand to where the network sees it, through anything in between; the second settles it on
the surface: touching where contact is predicted, not sinking in, within the range of its joints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from contact import costs
from contact.field import ContactField
from contact.object_set import ObjectSet
from hand_models import HandModel, HandPose
from hand_models.anatomy import Anatomy, default_anatomy
from hand_models.least_squares import NormalEquations, Solution, minimize
from hand_models.pose import TANGENT_DIM

from .config import CostConfig, RefineConfig


@dataclass(frozen=True)
class Targets:
    """What the optimiser aims at, ``B`` problems."""

    which: Tensor
    """(B,) object of each problem"""
    initial_angles: Tensor
    """(B, 15, 3) anatomical angles of the input"""
    joints: Tensor
    """(B, 21, 3)"""
    joints_std: Tensor
    """(B, 21)"""
    joints_weight: Tensor
    """(B, 21)"""
    places: Tensor
    """(B, Q, 3) where corresponding skin is to be"""
    places_std: Tensor
    """(B, Q)"""
    places_weight: Tensor
    """(B, Q)"""
    places_skin: Tensor
    """(B, Q) which of the skin points corresponds"""
    touch: Tensor
    """(B, P) weight of each skin point's contact"""
    allowance: Tensor
    """(B, P) metres skin may sink in"""

    def __getitem__(self, index: Tensor) -> Targets:
        return Targets(*(value[index] for value in self.__dict__.values()))


def make_targets(
    model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose, field: ContactField, skin: Tensor,
    config: CostConfig,
) -> Targets:  # fmt: skip
    """Turn a predicted field into targets for the skin points ``skin (P,)``, the first of the contact points."""
    confidence = field.near * (0.01**2 / (field.canonical_var + field.gap_var + 0.01**2))
    count = min(config.correspondences, confidence.shape[1])
    weight, chosen = confidence.topk(count, dim=1)

    def pick(t: Tensor) -> Tensor:
        return t.gather(1, chosen) if t.ndim == 2 else t.gather(1, chosen[..., None].expand(-1, -1, t.shape[-1]))

    gap = pick(field.gap)[..., None]
    places = pick(objects.points[which]) + gap * pick(objects.normals[which])
    on_hand = torch.cdist(pick(field.canonical), model.rest_canonical[skin].expand(len(which), -1, -1)).argmin(2)
    weight = weight * (config.correspondence / weight.sum(1, keepdim=True).clamp_min(1.0))
    touch = field.hand_contact[:, : len(skin)]
    touch = touch * (touch > 0.2)
    touch = touch * (config.contact / touch.sum(1, keepdim=True).clamp_min(4.0))
    assert field.joints is not None and field.joints_var is not None
    return Targets(
        which=which,
        initial_angles=default_anatomy().to(pose.hand_pose).to_anatomical(pose.hand_pose),
        joints=field.joints,
        joints_std=field.joints_var.sqrt(),
        joints_weight=torch.full_like(field.joints_var, config.joints),
        places=places,
        places_std=(pick(field.canonical_var) + pick(field.gap_var)).sqrt().clamp_min(0.003),
        places_weight=weight,
        places_skin=on_hand,
        touch=touch,
        allowance=torch.zeros_like(touch),
    )


def soft_tissue(objects: ObjectSet, which: Tensor, points: Tensor, config: CostConfig) -> Tensor:
    """(B, P) metres the skin at ``points`` may sink in: less where the object there is thin."""
    coarse = objects.points[which, :512]
    nearest = torch.cdist(points, coarse).argmin(2)
    thickness = objects.thickness[which, :512].gather(1, nearest)
    return (config.soft_share * thickness).clamp_max(config.soft_tissue)


def optimise(
    model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose, field: ContactField, config: RefineConfig
) -> Solution:
    """Refine ``B`` right hands.

    Args:
        which: ``(B,)`` object of each hand.
        pose: inputs, object frame.
        field: predictions for them, with joints.

    Returns:
        The solution of the second solve; ``iterations`` counts both.
    """
    skin = model.contact_points[: config.skin_points]
    targets = make_targets(model, objects, which, pose, field, skin, config.costs)
    anatomy = default_anatomy().to(pose.transl)

    def align(state: HandPose, index: Tensor) -> NormalEquations:
        t = targets[index]
        jacobian = model.jacobian(state, skin)
        equations = NormalEquations.zeros(len(index), TANGENT_DIM, state.transl)
        equations = equations.add(*costs.correspondence(jacobian.joints, t.joints, t.joints_weight, t.joints_std))
        chosen = jacobian.vertices.select(t.places_skin)
        equations = equations.add(*costs.correspondence(chosen, t.places, t.places_weight, t.places_std))
        return _add_priors(equations, state, t, anatomy, config.costs)

    first = minimize(align, pose, config.align)
    with torch.no_grad():
        points = model(first.pose).vertices[:, skin]
        targets = replace(targets, allowance=soft_tissue(objects, which, points, config.costs))

    def settle(state: HandPose, index: Tensor) -> NormalEquations:
        t = targets[index]
        c = config.costs
        jacobian = model.jacobian(state, skin)
        equations = NormalEquations.zeros(len(index), TANGENT_DIM, state.transl)
        equations = equations.add(*costs.correspondence(jacobian.joints, t.joints, t.joints_weight, t.joints_std))
        chosen = jacobian.vertices.select(t.places_skin)
        equations = equations.add(*costs.correspondence(chosen, t.places, t.places_weight, t.places_std))
        distance, gradient = objects.grid.query(jacobian.vertices.points, t.which)
        spheres, radius = costs.inner_spheres(jacobian.joints)
        inner, inner_gradient = objects.grid.query(spheres.points, t.which)
        # Skin that should touch rests as deep as it yields, at half its allowance.
        resting = distance + 0.5 * t.allowance
        for residual in (
            costs.attraction(jacobian.vertices, resting, gradient, t.touch, c.contact_std),
            costs.penetration(jacobian.vertices, distance, gradient, t.allowance, c.penetration_std),
            costs.penetration(spheres, inner, inner_gradient, c.soft_tissue - radius, c.penetration_std),
            costs.self_penetration(spheres, radius, c.self_penetration_std),
        ):
            equations = equations.add(*residual)
        return _add_priors(equations, state, t, anatomy, c)

    second = minimize(settle, first.pose, config.settle)
    return replace(second, iterations=first.iterations + second.iterations)


def _add_priors(
    equations: NormalEquations, state: HandPose, targets: Targets, anatomy: Anatomy, config: CostConfig
) -> NormalEquations:
    """Near the input's joint angles, near what hands do, within what they can do."""
    std = state.transl.new_tensor(config.initial_pose).expand(15, 3)
    for residual in (
        costs.pose_prior(state.hand_pose, targets.initial_angles, std, anatomy, TANGENT_DIM),
        costs.pose_prior(state.hand_pose, anatomy.mean, anatomy.std * config.anatomy, anatomy, TANGENT_DIM),
        costs.joint_limits(state.hand_pose, anatomy, config.limits_std, TANGENT_DIM),
    ):
        equations = equations.add(*residual)
    return equations
