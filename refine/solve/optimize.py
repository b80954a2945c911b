"""From a predicted contact field to a hand that agrees with it: two batched Gauss–Newton solves.

The first brings the hand to where the network sees it, through anything in between; the second settles it on
the surface: touching where contact is predicted, not sinking in, within the range of its joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from contact import costs
from contact.field import ContactField
from contact.objects.object_set import ObjectSet
from hand_models import HandModel, HandPose
from hand_models.anatomy import Anatomy, default_anatomy
from hand_models.model import HandJacobian
from hand_models.pose import TANGENT_DIM
from hand_models.solver.least_squares import NormalEquations, Solution, minimize

from ..config import CostConfig, RefineConfig
from ..evidence.pose_prior import PosePrior


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

    @staticmethod
    def cat(parts: Sequence[Targets]) -> Targets:
        """Join batches."""
        return Targets(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Targets)))


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


class _Indexed(Protocol):
    def __getitem__(self, index: Tensor, /) -> _Indexed: ...


_Data = TypeVar("_Data", bound=_Indexed)


class _Active(Generic[_Data]):
    """Data of the problems that are still being solved, selected anew only when these become fewer."""

    def __init__(self, data: _Data) -> None:
        self._data, self._index, self._chosen = data, None, data

    def at(self, index: Tensor) -> _Data:
        """The rows ``index``."""
        if index is not self._index:
            self._index, self._chosen = index, self._data[index]
        return self._chosen


def make_targets(
    model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose, field: ContactField, skin: Tensor,
    config: CostConfig,
) -> Targets:  # fmt: skip
    """Turn a predicted field into targets for the skin points ``skin (P,)``, the first of the contact points."""
    assert field.joints is not None
    assert field.joints_var is not None
    spread, joints_var = field.canonical_var + field.gap_var, field.joints_var
    if not config.trust:
        spread, joints_var = _alike(spread, field.near), _alike(joints_var, torch.ones_like(joints_var))
    confidence = field.near * (0.01**2 / (spread + 0.01**2))
    count = min(config.correspondences, confidence.shape[1])
    weight, chosen = confidence.topk(count, dim=1)

    def pick(t: Tensor) -> Tensor:
        return (
            t.gather(1, chosen) if t.ndim == 2 else t.gather(1, chosen[..., None].expand(-1, -1, t.shape[-1]))
        )

    at = (which[:, None], chosen)
    places = objects.points[at] + pick(field.gap)[..., None] * objects.normals[at]
    rest = model.rest_canonical[skin].expand(len(which), -1, -1)
    on_hand = torch.cdist(pick(field.canonical), rest).argmin(2)
    weight = weight * (config.correspondence / weight.sum(1, keepdim=True).clamp_min(1.0))
    touch = field.hand_contact[:, : len(skin)]
    touch = touch * (touch > 0.2)
    touch = touch * (config.contact / touch.sum(1, keepdim=True).clamp_min(4.0))
    return Targets(
        which=which,
        initial_angles=default_anatomy().to(pose.hand_pose).to_anatomical(pose.hand_pose),
        joints=field.joints,
        joints_std=joints_var.sqrt(),
        joints_weight=torch.full_like(joints_var, config.joints),
        places=places,
        places_std=pick(spread).sqrt().clamp_min(0.003),
        places_weight=weight,
        places_skin=on_hand,
        touch=touch,
        allowance=torch.zeros_like(touch),
    )


def _alike(variance: Tensor, weight: Tensor) -> Tensor:
    """``variance (B, n)`` replaced by that of the mean precision, taken with ``weight (B, n)``."""
    total = weight.sum(1, keepdim=True).clamp_min(1e-6)
    precision = (weight / variance.clamp_min(1e-12)).sum(1, keepdim=True) / total
    return (1 / precision.clamp_min(1e-6)).expand_as(variance)


def soft_tissue(objects: ObjectSet, which: Tensor, points: Tensor, config: CostConfig) -> Tensor:
    """(B, P) metres the skin at ``points`` may sink in: less where the object there is thin."""
    coarse = objects.points[which, :512].to(points)
    nearest = torch.cdist(points, coarse).argmin(2)
    thickness = objects.thickness[which, :512].to(points).gather(1, nearest)
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
    targets = targets_of(model, objects, which, pose, field, config)
    first = align(model, targets, pose, config, prior)
    second = settle_on(model, objects, targets, first.pose, config, prior=prior)
    return replace(second, iterations=first.iterations + second.iterations)


def targets_of(
    model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose, field: ContactField, config: RefineConfig
) -> Targets:  # fmt: skip
    """What `align` and `settle_on` aim at; arguments as of `optimise`."""
    skin = model.contact_points[: config.skin_points]
    return make_targets(model, objects, which, pose, field, skin, config.costs)


def align(
    model: HandModel, targets: Targets, pose: HandPose, config: RefineConfig, prior: PosePrior | None = None
) -> Solution:
    """Bring ``B`` right hands to where the field sees them, through anything in between. See `optimise`."""
    skin = model.contact_points[: config.skin_points]
    anatomy = default_anatomy().to(pose.transl)
    aims, known = _Active(targets), None if prior is None else _Active(prior)

    def linearize(state: HandPose, index: Tensor) -> NormalEquations:
        t = aims.at(index)
        pulls, cost = _to_targets(model.jacobian(state, skin), t)
        equations = costs.pulled(pulls, cost)
        if known is not None:
            equations = equations.add(*known.at(index).residual(state))
        return _add_posture(equations, state, t, anatomy, config.costs)

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
    """`settle_on` the targets that ``field`` gives for the inputs ``pose``; arguments as of both."""
    targets = targets_of(model, objects, which, pose, field, config)
    return settle_on(model, objects, targets, start, config, obstacles, prior)


def settle_on(
    model: HandModel,
    objects: ObjectSet,
    targets: Targets,
    start: HandPose,
    config: RefineConfig,
    obstacles: Spheres | None = None,
    prior: PosePrior | None = None,
) -> Solution:
    """Settle ``B`` right hands on the surface: touching where contact is seen, not sinking in. See `optimise`.

    Args:
        start: where settling begins.
        obstacles: what else the hands may not enter, such as another hand. Where they do at ``start``, they are
            to give way by half: the other does the rest.
    """
    skin, c = model.contact_points[: config.skin_points], config.costs
    anatomy = default_anatomy().to(start.transl)
    with torch.no_grad():
        points = model(start).vertices[:, skin]
        allowance = soft_tissue(objects, targets.which, points, c)
        if obstacles is not None:
            skin_gives, flesh_gives = _give_way(model, start, points, obstacles)
    aims = _Active(replace(targets, allowance=allowance))
    known = None if prior is None else _Active(prior)

    def linearize(state: HandPose, index: Tensor) -> NormalEquations:
        t = aims.at(index)
        jacobian = model.jacobian(state, skin)
        pulls, cost = _to_targets(jacobian, t)
        spheres, radius = costs.inner_spheres(jacobian.joints)
        distance, gradient = objects.grid.query(jacobian.vertices.points, t.which)
        inner, inner_gradient = objects.grid.query(spheres.points, t.which)
        # Skin that should touch rests as deep as it yields, at half its allowance.
        touching = costs.not_touching(distance + 0.5 * t.allowance, t.touch, c.contact_std)
        sunk = costs.too_deep(distance, t.allowance, c.penetration_std)
        flesh = costs.too_deep(inner, c.soft_tissue - radius, c.penetration_std)
        presses = [
            costs.press(jacobian.vertices, gradient, touching, sunk),
            costs.press(spheres, inner_gradient, flesh),
        ]
        if obstacles is not None:
            others = obstacles[index]
            for body, gives in ((jacobian.vertices, skin_gives), (spheres, flesh_gives)):
                away, outward = others.query(body.points)
                overlap = costs.too_deep(away, gives[index], c.penetration_std)
                presses.append(costs.press(body, outward, overlap))
        for pull, loss in presses:
            pulls, cost = [*pulls, pull], cost + loss
        equations = costs.pulled(pulls, cost)
        equations = equations.add(*costs.self_penetration(spheres, radius, c.self_penetration_std))
        if known is not None:
            equations = equations.add(*known.at(index).residual(state))
        return _add_posture(equations, state, t, anatomy, c)

    return minimize(linearize, start, config.settle)


def _to_targets(jacobian: HandJacobian, targets: Targets) -> tuple[list[costs.Pull], Tensor]:
    """Joints and corresponding skin to where they are seen, and what that costs ``(B,)``."""
    t = targets
    joints, first = costs.aim(jacobian.joints, None, t.joints, t.joints_weight, t.joints_std)
    skin, second = costs.aim(jacobian.vertices, t.places_skin, t.places, t.places_weight, t.places_std)
    return [skin, joints], first + second


def inner_spheres(model: HandModel, pose: HandPose) -> Spheres:
    """Flesh of the hands, `contact.costs.inner_spheres`."""
    start, end, share, radius = costs.sphere_table(pose.transl.dtype, pose.transl.device)
    joints = model.joints(pose)
    return Spheres(torch.lerp(joints[:, start], joints[:, end], share[:, None]), radius)


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


def _add_posture(
    equations: NormalEquations, state: HandPose, targets: Targets, anatomy: Anatomy, config: CostConfig
) -> NormalEquations:
    """Near the input's joint angles, near what hands do, within what they can do."""
    beliefs = (
        (targets.initial_angles, state.transl.new_tensor(config.initial_pose)),
        (anatomy.mean, anatomy.std * config.anatomy),
    )
    return equations.add(*costs.posture(state.hand_pose, beliefs, config.limits_std, anatomy, TANGENT_DIM))
