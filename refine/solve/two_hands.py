"""Two hands on one object: each refined for itself, then solved for as one where they are in each other's way.

The joint solve has both hands' unknowns and terms, and one term more that keeps them apart, so the outcome does not
depend on which comes first. The gate then scores the four ways to take or leave the two results; nothing is taken
by halves, as a hand that went half the way would be in its partner's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from contact.terms import HandsApart
from hand_models import HandModel, HandPose
from hand_models.inner_spheres import inner_spheres
from hand_models.solver.least_squares import minimize
from hand_models.solver.states import Of, PairState, Term

from ..config import RefineConfig
from .decision import Refined
from .fields import expected_variance, weights_path
from .optimize import contact_problem, field_terms, solved_variance
from .refine_hands import refine_right_hands
from .score import ScoreWeights, load_score, plausibility, score
from .way_out import brought_out, in_walls, push_out

_SURELY = 100.0  # log odds that a hand with a bone in a thin wall is farther from the truth than one without


@dataclass(frozen=True)
class OneHand:
    """One of the two hands, of ``B`` grasps."""

    pose: HandPose
    """the usable ones, in the object's frame, as right hands"""
    object: ObjectMesh
    """as right hands hold it"""
    usable: Tensor
    """(B,) bool: which of the ``B`` are in ``pose``"""
    evidence: Sequence[Term] = ()
    """what else is known of those in ``pose``"""
    holding: Tensor | None = None
    """as `refine_right_hands` takes it, of those in ``pose``"""


def refine_two_hands(
    hands: Sequence[OneHand], model: HandModel, config: RefineConfig, seed: int
) -> tuple[list[Refined], Tensor, Tensor]:
    """Refine a right and a left hand on one object, in either order.

    Args:
        model: the right hand's.

    Returns:
        The outcome of the usable hands of each, and how deep the two overlap before and after, ``(B,)`` metres,
        NaN where one is not usable.
    """
    score_weights = load_score(weights_path(config))
    both = hands[0].usable & hands[1].usable
    alone = replace(config, gate=False)  # the gate comes last, for both together
    found = [
        refine_right_hands(
            h.pose, [h.object], torch.zeros(len(h.pose), dtype=torch.long), model, alone, seed, h.evidence, h.holding
        )
        for h in hands
    ]
    overlap = torch.zeros(2, 2, len(both))  # of the first hand as given or refined with the second so
    if both.any():
        found, overlap[:, :, both] = _together(hands, found, both, model, score_weights, config)
    if config.gate:
        before = torch.zeros(2, len(both))
        after = torch.full_like(before, -torch.inf)  # a hand that fails has a result that is never taken
        for k, (hand, f) in enumerate(zip(hands, found, strict=True)):
            objects, which = ObjectSet.of([hand.object]), torch.zeros(len(hand.pose), dtype=torch.long)
            through, solved_through = (_SURELY * in_walls(model, objects, which, p) for p in (hand.pose, f.pose))
            before[k, hand.usable] = f.score_before - through
            scored = f.score_after - f.margin - solved_through
            after[k, hand.usable] = scored.masked_fill(f.holding < config.holds[0], -torch.inf)
        accepted = decide(before, after, score_weights.depth * (overlap - score_weights.depth_free).clamp_min(0))
        found = [
            _gated(h, f, a[h.usable], model, score_weights, config)
            for h, f, a in zip(hands, found, accepted, strict=True)
        ]
    else:
        accepted = torch.stack([hand.usable for hand in hands])
    overlap[:, :, ~both] = torch.nan
    return found, overlap[0, 0], overlap[accepted[0].long(), accepted[1].long(), torch.arange(len(both))]


def decide(before: Tensor, after: Tensor, penalty: Tensor) -> Tensor:
    """Which of two hands' results to take: the choice with the highest total of scores.

    Args:
        before: ``(2, B)`` scores of the hands as given.
        after: ``(2, B)`` scores of their results, less the margin that a change has to win by.
        penalty: ``(2, 2, B)`` what the overlap costs of the first hand as given or refined with the second so.

    Returns:
        ``(2, B)`` bool.
    """
    values = torch.stack([before, after], 1)  # (hand, given or refined, B)
    total = values[0][:, None] + values[1][None] - penalty
    best = total.flatten(0, 1).argmax(0)  # the first of equals: rather as given
    return torch.stack([best // 2, best % 2]).bool()


def _gated(
    hand: OneHand, refined: Refined, accepted: Tensor, model: HandModel, score_weights: ScoreWeights,
    config: RefineConfig,
) -> Refined:  # fmt: skip
    """With the hands that were not ``accepted`` as they were given, but for what they sank into the object, and none
    with a bone in a thin wall."""
    objects, which = ObjectSet.of([hand.object]), torch.zeros(len(hand.pose), dtype=torch.long)
    depth = plausibility(model, objects, which, hand.pose, refined.field).depth
    apart = torch.zeros_like(accepted) if hand.holding is None else hand.holding == 0
    push = push_out(depth, apart, score_weights).masked_fill(accepted, 0.0)
    taken = refined.pose.where(accepted, hand.pose)
    pose, left = brought_out(model, objects, which, taken, push, refined.holding, config)
    after = score(plausibility(model, objects, which, pose, refined.field), score_weights)
    own = expected_variance(model.joints(pose), refined.field)
    return replace(
        refined,
        pose=pose,
        share=accepted.float(),
        moved=accepted | left,
        score_after=torch.where(left, after, torch.where(accepted, refined.score_after, refined.score_before)),
        variance=torch.where(accepted[:, None], refined.variance, own),
    )


def _together(
    hands: Sequence[OneHand],
    found: Sequence[Refined],
    both: Tensor,
    model: HandModel,
    score_weights: ScoreWeights,
    config: RefineConfig,
) -> tuple[list[Refined], Tensor]:
    """Solve for the two hands of the rows ``both`` as one, where they are in each other's way.

    Returns:
        The two outcomes with those rows replaced, and how deep the hands overlap, metres, ``(2, 2, N)``: the
        first as given or refined, the second as given or refined.
    """
    device, model = torch.device(config.device), model.to(config.device)
    objects = ObjectSet.of([hand.object for hand in hands]).to(device)
    rows = [both[hand.usable].nonzero()[:, 0] for hand in hands]
    given = [h.pose[i].to(device) for h, i in zip(hands, rows, strict=True)]
    pose = [f.pose[i].to(device) for f, i in zip(found, rows, strict=True)]
    # A hand that is known to hold nothing is no part of a problem that supposes that both hold.
    holds = torch.stack([f.share[i] for f, i in zip(found, rows, strict=True)]).gt(0).all(0).to(device)
    busy = ((_overlap(model, *pose) > 0) & holds).nonzero()[:, 0]
    if len(busy):
        fields = [f.field[i].to(device)[busy] for f, i in zip(found, rows, strict=True)]
        states, terms = [], [HandsApart(config.costs.penetration_std)]
        for k, half in enumerate(("first", "second")):
            which = torch.full_like(busy, k)
            targets = field_terms(model, objects, which, given[k][busy], fields[k], config)
            known = [term[rows[k]].to(device)[busy] for term in hands[k].evidence]
            state, own = contact_problem(model, objects, targets, pose[k][busy], config, known)
            states.append(state)
            terms += [Of(half, term) for term in own]
        solution = minimize(PairState(*states), terms, config.contact)
        found = list(found)
        for k, state in enumerate((solution.state.first, solution.state.second)):
            seen = plausibility(model, objects, torch.full_like(busy, k), state.pose, fields[k])
            variance = solved_variance(
                state, solution.equations.hessian, fields[k].joints_var, k * solution.state.first.dim
            )
            pose[k] = pose[k].fill(busy, state.pose)
            f, i = found[k], rows[k][busy.cpu()]
            found[k] = replace(
                f,
                pose=f.pose.fill(i, state.pose.to("cpu")),
                score_after=f.score_after.index_copy(0, i, score(seen, score_weights).cpu()),
                variance=f.variance.index_copy(0, i, variance.cpu()),
                steps=f.steps.index_add(0, i, solution.iterations.cpu()),
            )
    overlap = [[_overlap(model, a, b) for b in (given[1], pose[1])] for a in (given[0], pose[0])]
    return list(found), torch.stack([torch.stack(row) for row in overlap]).cpu()


def _overlap(model: HandModel, one: HandPose, other: HandPose) -> Tensor:
    """(N,) metres: how deep the skin of either of two hands is inside the other, 0 when apart."""
    depth = [
        -inner_spheres(model.joints(inner)).mirrored().query(model(skin).vertices)[0].amin(1)
        for skin, inner in ((one, other), (other, one))  # seen in the mirror, as all inside are right hands
    ]
    return torch.maximum(*depth).clamp_min(0)
