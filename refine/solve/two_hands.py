"""Two hands on one object: each refined for itself, then both settled together where they are in each other's way.

In the joint solve all hands are problems of one batch, each with the inner spheres of its partner as obstacles,
through the same costs as the object. In every round either hand has to give way by half of what they overlap,
so that the outcome does not depend on which comes first. The gate then judges the four ways to take or leave
the two results; nothing is taken by halves, as a hand that went half the way would be in its partner's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from contact.field import ContactField
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from hand_models import HandModel, HandPose

from ..config import RefineConfig
from .hypotheses import (
    Refined,
    expected_variance,
    fill,
    refine_right_hands,
    select,
    solved_variance,
    weights_path,
)
from .optimize import Spheres, inner_spheres, settle
from .score import ScoreWeights, load_score, plausibility, score

_ROUNDS = 4


@dataclass(frozen=True)
class OneHand:
    """One of the two hands, of ``B`` grasps."""

    pose: HandPose
    """the usable ones, in the object's frame, as right hands"""
    object: ObjectMesh
    """as right hands hold it"""
    usable: Tensor
    """(B,) bool: which of the ``B`` are in ``pose``"""


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
    judge = load_score(weights_path(config))
    both = hands[0].usable & hands[1].usable
    found = [_alone(hand, model, config, seed) for hand in hands]
    overlap = torch.zeros(2, 2, len(both))  # of the first hand as given or refined with the second so
    if both.any():
        found, overlap[:, :, both] = _together(hands, found, both, model, judge, config)
    if config.gate:
        scores = [_everywhere(h, f) for h, f in zip(hands, found, strict=True)]
        before, after = (torch.stack(column) for column in zip(*scores, strict=True))
        accepted = decide(before, after, judge.depth * (overlap - judge.depth_free).clamp_min(0))
        found = [_gated(h, f, a[h.usable], model) for h, f, a in zip(hands, found, accepted, strict=True)]
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


def _alone(hand: OneHand, model: HandModel, config: RefineConfig, seed: int) -> Refined:
    """Every usable hand's best solution, without a gate."""
    which = torch.zeros(len(hand.pose), dtype=torch.long)
    return refine_right_hands(hand.pose, [hand.object], which, model, replace(config, gate=False), seed)


def _everywhere(hand: OneHand, refined: Refined) -> tuple[Tensor, Tensor]:
    """Scores ``(B,)`` before, and after less the margin; a failed hand has a result that is never taken."""
    before = torch.zeros(len(hand.usable))
    after = torch.full_like(before, -torch.inf)
    before[hand.usable], after[hand.usable] = refined.score_before, refined.score_after - refined.margin
    return before, after


def _gated(hand: OneHand, refined: Refined, accepted: Tensor, model: HandModel) -> Refined:
    """With the hands that were not ``accepted`` as they were given."""
    own = expected_variance(model.joints(hand.pose), refined.field)
    return replace(
        refined,
        pose=select(accepted, refined.pose, hand.pose),
        share=accepted.float(),
        score_after=torch.where(accepted, refined.score_after, refined.score_before),
        variance=torch.where(accepted[:, None], refined.variance, own),
    )


def _together(
    hands: Sequence[OneHand],
    found: Sequence[Refined],
    both: Tensor,
    model: HandModel,
    judge: ScoreWeights,
    config: RefineConfig,
) -> tuple[list[Refined], Tensor]:
    """Settle the hands of the rows ``both`` beside each other.

    Returns:
        The two outcomes with those rows replaced, and how deep the hands overlap, metres, ``(2, 2, N)``: the
        first as given or refined, the second as given or refined.
    """
    device, model = torch.device(config.device), model.to(config.device)
    objects = ObjectSet.of([hand.object for hand in hands]).to(device)
    rows = [both[hand.usable].nonzero()[:, 0] for hand in hands]
    count = len(rows[0])
    which = torch.arange(2, device=device).repeat_interleave(count)
    given = HandPose.cat([h.pose[i] for h, i in zip(hands, rows, strict=True)]).to(device)
    pose = HandPose.cat([f.pose[i] for f, i in zip(found, rows, strict=True)]).to(device)
    field = ContactField.cat([f.field[i] for f, i in zip(found, rows, strict=True)]).to(device)
    score_after, variance, steps = (
        torch.cat([getattr(f, name)[i] for f, i in zip(found, rows, strict=True)]).to(device)
        for name in ("score_after", "variance", "steps")
    )
    for _ in range(_ROUNDS):
        busy = (_overlap(model, pose[:count], pose[count:]) > 0).repeat(2).nonzero()[:, 0]
        if len(busy) == 0:
            break
        partner = (busy + count) % (2 * count)
        solution = settle(
            model, objects, which[busy], given[busy], field[busy], config, pose[busy],
            _flesh(model, pose[partner]),
        )  # fmt: skip
        pose = fill(pose, busy, solution.pose)
        parts = plausibility(model, objects, which[busy], solution.pose, field[busy])
        score_after = score_after.index_copy(0, busy, score(parts, judge))
        assert field.joints_var is not None
        hessian = solution.equations.hessian
        posterior = solved_variance(model, solution.pose, hessian, field.joints_var[busy])
        variance = variance.index_copy(0, busy, posterior)
        steps = steps.index_add(0, busy, solution.iterations)
    choices = [(given[:count], pose[:count]), (given[count:], pose[count:])]
    overlap = torch.stack([torch.stack([_overlap(model, a, b) for b in choices[1]]) for a in choices[0]])
    settled = [
        replace(
            f,
            pose=fill(f.pose, i, pose[part].to("cpu")),
            score_after=f.score_after.index_copy(0, i, score_after[part].cpu()),
            variance=f.variance.index_copy(0, i, variance[part].cpu()),
            steps=f.steps.index_copy(0, i, steps[part].cpu()),
        )
        for f, i, part in zip(found, rows, (slice(count), slice(count, None)), strict=True)
    ]
    return settled, overlap.cpu()


def _flesh(model: HandModel, pose: HandPose) -> Spheres:
    """Inner spheres of hands as their partners see them: mirrored, as everything inside is a right hand."""
    flesh = inner_spheres(model, pose)
    return Spheres(flesh.centres * flesh.centres.new_tensor([-1.0, 1.0, 1.0]), flesh.radius)


def _overlap(model: HandModel, one: HandPose, other: HandPose) -> Tensor:
    """(N,) metres: how deep the skin of either of two hands is in the flesh of the other, 0 when apart."""
    depth = [
        -_flesh(model, inner).query(model(skin).vertices)[0].amin(1)
        for skin, inner in ((one, other), (other, one))
    ]
    return torch.maximum(*depth).clamp_min(0)
