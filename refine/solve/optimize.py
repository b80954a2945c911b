"""From a predicted contact field to a hand that agrees with it: two batched Gauss–Newton solves.

The first brings the hand to where the network sees it, through anything in between; the second resolves contact:
touching where it is predicted, not sinking in, within the range of its joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from contact.crossing import BonesOnTheirSide
from contact.field import ContactField
from contact.objects.object_set import ObjectSet
from contact.terms import FingersApart, SkinOnSurface, SpheresOutside
from hand_models import HandModel, HandPose
from hand_models.record import Record
from hand_models.solver.least_squares import Solution, minimize
from hand_models.solver.states import HandState, Term
from hand_models.solver.terms import AnglePrior, GaussianJoints, JointLimits, PointTargets

from ..config import CostConfig, RefineConfig

_FREE = 100.0  # radians: a deviation that says nothing of an angle


@dataclass(frozen=True)
class FieldTerms(Record):
    """What a contact field and the input ask of ``B`` hands, as terms; contact itself waits for the second solve."""

    which: Tensor
    """(B,) object of each problem"""
    joints: GaussianJoints
    """where the joints are seen"""
    correspondences: PointTargets
    """where corresponding skin is seen"""
    touch: Tensor
    """(B, P) weight of each skin point's contact"""
    given: AnglePrior
    """near the joint angles of the input"""

    def terms(self, model: HandModel, config: CostConfig, evidence: Sequence[Term] = ()) -> list[Term]:
        """The field's, the hand's own (near what hands do, within what they can do), and the evidence.

        Where evidence says where the hand is, it says how far the joint angles may be off too.
        """
        known = placed(evidence, len(self))[:, None, None]
        given = replace(self.given, std=self.given.std.masked_fill(known, _FREE))
        usual = AnglePrior.grasping(model.anatomy, len(self), config.anatomy)
        return [
            self.correspondences,
            self.joints,
            given,
            usual,
            JointLimits(model.anatomy, config.limits_std),
            *evidence,
        ]


def placed(evidence: Sequence[Term], batch: int) -> Tensor:
    """(B,) bool: whether evidence says where the hand is."""
    places = [term.places for term in evidence if hasattr(term, "places")]
    return torch.stack(places).any(0) if places else torch.zeros(batch, dtype=torch.bool)


def field_terms(
    model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose, field: ContactField, config: RefineConfig
) -> FieldTerms:  # fmt: skip
    """Turn predicted fields, with joints, into terms; arguments as of `optimise`."""
    costs, skin = config.costs, model.contact_points[: config.skin_points]
    assert field.joints is not None
    assert field.joints_var is not None
    spread = field.canonical_var + field.gap_var
    covariance = field.joints_cov
    if covariance is None or not costs.trust:
        alike = field.joints_var if costs.trust else _alike(field.joints_var, torch.ones_like(field.joints_var))
        covariance = alike[..., None, None] * torch.eye(3).to(alike)
    if not costs.trust:
        spread = _alike(spread, field.near)
    confidence = field.near * (0.01**2 / (spread + 0.01**2))
    weight, chosen = confidence.topk(min(costs.correspondences, confidence.shape[1]), dim=1)
    wide = chosen[..., None].expand(-1, -1, 3)
    at = (which[:, None], chosen)
    places = objects.points[at] + field.gap.gather(1, chosen)[..., None] * objects.normals[at]
    rest = model.rest_canonical[skin].expand(len(which), -1, -1)
    on_hand = torch.cdist(field.canonical.gather(1, wide), rest).argmin(2)
    weight = weight * (costs.correspondence / weight.sum(1, keepdim=True).clamp_min(1.0))
    touch = field.hand_contact[:, : len(skin)]
    touch = touch * (touch > 0.2)
    touch = touch * (costs.contact / touch.sum(1, keepdim=True).clamp_min(4.0))
    angles = model.anatomy.to_anatomical(pose.hand_pose)
    return FieldTerms(
        which,
        GaussianJoints(field.joints, covariance, costs.joints),
        PointTargets(places, weight, spread.gather(1, chosen).sqrt().clamp_min(0.003), on_hand),
        touch,
        AnglePrior(angles, angles.new_tensor(costs.initial_pose).expand_as(angles), model.anatomy),
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
    model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose, field: ContactField, config: RefineConfig,
    evidence: Sequence[Term] = (),
) -> Solution[HandState]:  # fmt: skip
    """Refine ``B`` right hands: `align`, then `resolve_contact`.

    Args:
        which: ``(B,)`` object of each hand.
        pose: inputs, object frame.
        field: predictions for them, with joints; over the first object points if not over all.
        evidence: what else is known of the hands, such as from keypoints; it takes part in both solves.

    Returns:
        The solution of the second solve; ``iterations`` counts both.
    """
    targets = field_terms(model, objects, which, pose, field, config)
    first = align(model, targets, pose, config, evidence)
    second = resolve_contact(model, objects, targets, first.state.pose, config, evidence)
    return replace(second, iterations=first.iterations + second.iterations)


def align(
    model: HandModel, targets: FieldTerms, pose: HandPose, config: RefineConfig, evidence: Sequence[Term] = ()
) -> Solution[HandState]:
    """Bring ``B`` right hands to where the field sees them, through anything in between. See `optimise`."""
    state = HandState.of(pose, model, model.contact_points[: config.skin_points])
    return minimize(state, targets.terms(model, config.costs, evidence), config.align)


def contact_problem(
    model: HandModel, objects: ObjectSet, targets: FieldTerms, start: HandPose, config: RefineConfig,
    evidence: Sequence[Term] = (),
) -> tuple[HandState, list[Term]]:  # fmt: skip
    """``B`` right hands at ``start`` and all terms about them: touching where contact is seen, not sinking in."""
    skin, c, which = model.contact_points[: config.skin_points], config.costs, targets.which
    with torch.no_grad():
        yields = soft_tissue(objects, which, model(start).vertices[:, skin], c)
    bones = torch.full_like(yields[:, :1], c.soft_tissue)
    return HandState.of(start, model, skin), [
        *targets.terms(model, c, evidence),
        SkinOnSurface(which, targets.touch, yields, objects.grid, c.contact_std, c.penetration_std),
        SpheresOutside(which, bones, objects.grid, c.penetration_std),
        BonesOnTheirSide(which, objects, c.crossing_std),
        FingersApart(c.self_penetration_std),
    ]


def resolve_contact(
    model: HandModel, objects: ObjectSet, targets: FieldTerms, start: HandPose, config: RefineConfig,
    evidence: Sequence[Term] = (),
) -> Solution[HandState]:  # fmt: skip
    """Bring ``B`` right hands from ``start`` onto the surface, by `contact_problem`. See `optimise`."""
    state, terms = contact_problem(model, objects, targets, start, config, evidence)
    return minimize(state, terms, config.contact)


@dataclass(frozen=True)
class Solved(Record):
    """What a solve found for ``B`` noisy hands, whichever way it went about it."""

    pose: HandPose
    score: Tensor
    """(B,) against the mean prediction"""
    variance: Tensor
    """(B, 21) square metres per axis, of the joints"""
    steps: Tensor
    """(B,) evaluations"""


@torch.no_grad()
def joint_variance(state: HandState, hessian: Tensor, start: int = 0) -> Tensor:
    """Variance ``(B, 21)`` of the joints in the posterior of solved problems, square metres, mean of three axes.

    The Laplace approximation: the unknowns are normal around the solution with the inverse of the
    Gauss–Newton Hessian ``(B, D, D)`` as covariance, and the joints move with them along their Jacobian.

    Args:
        start: where the hand's unknowns begin among those of the problem.
    """
    rows = state.joints.dense()  # (B, 51, 3, 21)
    rows = pad(rows, (0, 0, 0, 0, start, hessian.shape[1] - start - rows.shape[1]))
    diagonal = torch.diagonal(hessian, dim1=1, dim2=2)
    factor, _ = torch.linalg.cholesky_ex(hessian + torch.diag_embed(1e-6 * diagonal + 1e-9))
    half = torch.linalg.solve_triangular(factor, rows.flatten(2), upper=False)
    return half.square().sum(1).unflatten(-1, (3, -1)).mean(1)


def solved_variance(state: HandState, hessian: Tensor, joints_var: Tensor, start: int = 0) -> Tensor:
    """(B, 21) square metres per axis: of the posterior, and of the error that all of a field's values share.

    Args:
        hessian: ``(B, D, D)`` of the solved problems, among whose unknowns the hand's begin at ``start``.
        joints_var: ``(B, 21)`` that their fields state, square metres.

    The posterior treats what the field says of many points and joints as independent. What is wrong with all of
    it at once does not average out, and is as large as what the network states for one joint.
    """
    return joint_variance(state, hessian, start) + joints_var
