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
from hand_models.model import HandJacobian
from hand_models.pose import TANGENT_DIM

from .config import CostConfig, RefineConfig
from .priors import PosePrior


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


@dataclass(frozen=True)
class Spheres:
    """Balls that hands may not enter, ``S`` for each of ``B`` problems."""

    centres: Tensor
    """(B, S, 3) metres"""
    radius: Tensor
    """(S,)"""

    def __getitem__(self, index: Tensor) -> Spheres:
        return Spheres(self.centres[index], self.radius)

    def query(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distance ``(B, P)`` of ``points (B, P, 3)`` to the nearest ball, and its gradient ``(B, P, 3)``."""
        distance, nearest = (torch.cdist(points, self.centres) - self.radius).min(2)
        offset = points - self.centres.gather(1, nearest[..., None].expand(-1, -1, 3))
        return distance, torch.nn.functional.normalize(offset, dim=-1)


def make_targets(
    model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose, field: ContactField, skin: Tensor,
    config: CostConfig,
) -> Targets:  # fmt: skip
    """Turn a predicted field into targets for the skin points ``skin (P,)``, the first of the contact points."""
    confidence = field.near * (0.01**2 / (field.canonical_var + field.gap_var + 0.01**2))
    count = min(config.correspondences, confidence.shape[1])
    weight, chosen = confidence.topk(count, dim=1)

    def pick(t: Tensor) -> Tensor:
        return (
            t.gather(1, chosen) if t.ndim == 2 else t.gather(1, chosen[..., None].expand(-1, -1, t.shape[-1]))
        )

    gap = pick(field.gap)[..., None]
    places = pick(objects.points[which]) + gap * pick(objects.normals[which])
    on_hand = torch.cdist(
        pick(field.canonical), model.rest_canonical[skin].expand(len(which), -1, -1)
    ).argmin(2)
    weight = weight * (config.correspondence / weight.sum(1, keepdim=True).clamp_min(1.0))
    touch = field.hand_contact[:, : len(skin)]
    touch = touch * (touch > 0.2)
    touch = touch * (config.contact / touch.sum(1, keepdim=True).clamp_min(4.0))
    assert field.joints is not None
    assert field.joints_var is not None
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
    model: HandModel,
    objects: ObjectSet,
    which: Tensor,
    pose: HandPose,
    field: ContactField,
    config: RefineConfig,
    prior: PosePrior | None = None,
) -> Solution:
    """Refine ``B`` right hands: `align`, then `settle`.

    Args:
        which: ``(B,)`` object of each hand.
        pose: inputs, object frame.
        field: predictions for them, with joints; over the first object points if not over all.
        prior: what else is known of the hands, such as from keypoints; it takes part in both solves.

    Returns:
        The solution of the second solve; ``iterations`` counts both.
    """
    first = align(model, objects, which, pose, field, config, prior)
    second = settle(model, objects, which, pose, field, config, first.pose, prior=prior)
    return replace(second, iterations=first.iterations + second.iterations)


def align(
    model: HandModel,
    objects: ObjectSet,
    which: Tensor,
    pose: HandPose,
    field: ContactField,
    config: RefineConfig,
    prior: PosePrior | None = None,
) -> Solution:
    """Bring ``B`` right hands to where the field sees them, through anything in between. See `optimise`."""
    skin = model.contact_points[: config.skin_points]
    targets = make_targets(model, objects, which, pose, field, skin, config.costs)
    anatomy = default_anatomy().to(pose.transl)

    def linearize(state: HandPose, index: Tensor) -> NormalEquations:
        t = targets[index]
        jacobian = model.jacobian(state, skin)
        equations = _to_targets(jacobian, t)
        if prior is not None:
            equations = equations.add(*prior[index].residual(state))
        return _add_priors(equations, state, t, anatomy, config.costs)

    return minimize(linearize, pose, config.align)


def settle(
    model: HandModel,
    objects: ObjectSet,
    which: Tensor,
    pose: HandPose,
    field: ContactField,
    config: RefineConfig,
    start: HandPose,
    obstacles: Spheres | None = None,
    prior: PosePrior | None = None,
) -> Solution:
    """Settle ``B`` right hands on the surface: touching where contact is seen, not sinking in. See `optimise`.

    Args:
        start: where settling begins.
        obstacles: what else the hands may not enter, such as another hand. Where they do at ``start``, they are
            to give way by half: the other does the rest.
    """
    skin = model.contact_points[: config.skin_points]
    targets = make_targets(model, objects, which, pose, field, skin, config.costs)
    anatomy = default_anatomy().to(pose.transl)
    with torch.no_grad():
        points = model(start).vertices[:, skin]
        targets = replace(targets, allowance=soft_tissue(objects, which, points, config.costs))
        if obstacles is not None:
            skin_gives, flesh_gives = _give_way(model, start, points, obstacles)

    def linearize(state: HandPose, index: Tensor) -> NormalEquations:
        t = targets[index]
        c = config.costs
        jacobian = model.jacobian(state, skin)
        equations = _to_targets(jacobian, t)
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
        if obstacles is not None:
            others = obstacles[index]
            for body, gives in ((jacobian.vertices, skin_gives), (spheres, flesh_gives)):
                away, outward = others.query(body.points)
                overlap = costs.penetration(body, away, outward, gives[index], c.penetration_std)
                equations = equations.add(*overlap)
        if prior is not None:
            equations = equations.add(*prior[index].residual(state))
        return _add_priors(equations, state, t, anatomy, c)

    return minimize(linearize, start, config.settle)


def _to_targets(jacobian: HandJacobian, targets: Targets) -> NormalEquations:
    """Joints and corresponding skin to where they are seen."""
    t, joints = targets, jacobian.joints
    equations = NormalEquations.zeros(len(joints.points), TANGENT_DIM, joints.points)
    equations = equations.add(*costs.correspondence(joints, t.joints, t.joints_weight, t.joints_std))
    chosen = jacobian.vertices.select(t.places_skin)
    return equations.add(*costs.correspondence(chosen, t.places, t.places_weight, t.places_std))


def inner_spheres(model: HandModel, pose: HandPose) -> Spheres:
    """Flesh of the hands, `contact.costs.inner_spheres`."""
    nothing = torch.zeros(0, dtype=torch.long, device=pose.transl.device)
    spheres, radius = costs.inner_spheres(model.jacobian(pose, nothing).joints)
    return Spheres(spheres.points, radius)


def _give_way(model: HandModel, pose: HandPose, skin: Tensor, obstacles: Spheres) -> tuple[Tensor, Tensor]:
    """How deep skin ``(B, P)`` and centres of inner spheres ``(B, S)`` may remain in obstacles: half of now."""
    flesh = inner_spheres(model, pose)
    deep = -obstacles.query(skin)[0]
    close = flesh.radius - obstacles.query(flesh.centres)[0]
    return 0.5 * deep.clamp_min(0), 0.5 * close.clamp_min(0) - flesh.radius


@torch.no_grad()
def joint_variance(model: HandModel, pose: HandPose, hessian: Tensor) -> Tensor:
    """Variance ``(B, 21)`` of the joints in the posterior of solved problems, square metres, mean of three axes.

    The Laplace approximation: the unknowns are normal around the solution with the inverse of the
    Gauss–Newton Hessian ``(B, 51, 51)`` as covariance, and the joints move with them along their Jacobian.
    """
    nothing = torch.zeros(0, dtype=torch.long, device=hessian.device)
    rows = model.jacobian(pose, nothing).joints.dense()  # (B, 51, 3, 21)
    diagonal = torch.diagonal(hessian, dim1=1, dim2=2)
    factor, _ = torch.linalg.cholesky_ex(hessian + torch.diag_embed(1e-6 * diagonal + 1e-9))
    half = torch.linalg.solve_triangular(factor, rows.flatten(2), upper=False)
    return half.square().sum(1).unflatten(-1, (3, -1)).mean(1)


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
