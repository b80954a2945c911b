"""How far a hand goes from its input to what was solved for: as far as it is probable that this is nearer the truth.

What was solved for supposes that the hand holds the object. Whether it does, and whether the solution is then better
than the input, are probabilities: the network's, and that of the score. Where both are sure the solution is returned,
where they are not the input, and between the two a hand on the way from one to the other, so that the answer changes
continuously with the input. Where a bone runs through a thin wall in one of the two, the other is surely better. A hand
that stays, or goes part of the way, is brought out of the object where it is deeper inside than hands that hold are,
and none is left with a bone in a thin wall.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from contact.field import ContactField
from contact.objects.object_set import ObjectSet
from hand_models import HandModel, HandPose
from hand_models.record import Record

from ..config import RefineConfig
from .fields import expected_variance
from .optimize import Solved
from .samples import Samples
from .score import Plausibility, ScoreWeights, plausibility, score
from .way_out import FAR, LEAST_PUSH, brought_out, in_walls, push_out


@dataclass(frozen=True)
class Refined(Record):
    """Outcome for ``B`` right hands in the object frame, before it is dressed up as a `RefineResult`."""

    pose: HandPose
    field: ContactField
    """the mean prediction"""
    holding: Tensor
    """(B,) probability that the hand holds the object: 1 or 0 where that was known"""
    share: Tensor
    """(B,) of the way from the input to its solution: 0 stays at the input, 1 is the solution"""
    stated: Tensor
    """(B,) bool: how good the input is was stated"""
    moved: Tensor
    """(B,) bool: the hand is not where it was given"""
    score_before: Tensor
    """(B,)"""
    score_after: Tensor
    """(B,) of the returned hand"""
    margin: Tensor
    """(B,) how much higher than before a solution has to score to be returned"""
    steps: Tensor
    """(B,) evaluations of the solve that gave the result"""
    variance: Tensor
    """(B, 21) square metres per axis: of each joint of the returned hand, uncalibrated"""
    samples: Samples | None = None
    """where they were asked for"""


@torch.no_grad()
def decide(
    model: HandModel, objects: ObjectSet, which: Tensor, given: HandPose, best: Solved, field: ContactField,
    weights: ScoreWeights, config: RefineConfig, *, stated: Tensor, known: Tensor, given_var: Tensor,
) -> Refined:  # fmt: skip
    """Hands between their inputs ``given`` and their solutions ``best``, brought out of the object where they stay.

    Args:
        which: ``(B,)`` object of each hand.
        field: mean prediction.
        stated: ``(B,)`` bool: how good the input is was stated, and has been weighed in solving.
        known: ``(B,)`` 1 for hands that are known to hold the object, 0 for those that do not; NaN where it is judged.
        given_var: ``(B, 21)`` square metres per axis, of the joints of hands that hold nothing; NaN where not known:
            then what the network states for a joint is taken.
    """
    assert field.holding is not None
    holding = torch.where(known.isnan(), field.holding, known)
    as_given = plausibility(model, objects, which, given, field)
    before = score(as_given, weights)
    better = weights.better(best.score - before)
    # Neither with a bone in a wall, unless that is no more than the input may be off by anyway.
    far = (2 * given_var.mean(1).sqrt()).nan_to_num(FAR).clamp_max(FAR)
    near_out, pushed = brought_out(model, objects, which, given, torch.zeros_like(before), holding, config, far)
    through, solved_through = (in_walls(model, objects, which, pose) for pose in (near_out, best.pose))
    better = torch.where(through != solved_through, through.to(better), better).masked_fill(stated, 1.0)
    share = between(holding, *config.holds) * between(better, config.undecided, config.sure)
    share = (share if config.gate else (known != 0).to(share)).nan_to_num(0.0) * best.pose.finite()
    moved, after = share > 0, torch.where(share == 1, best.score, before)
    returned, depth = best.pose.where(share == 1, given), as_given.depth
    seen = field.at(slice(0))  # the score asks for joints and the hand's contact alone

    def measured(rows: Tensor) -> Plausibility:
        parts = plausibility(model, objects, which[rows], returned[rows], seen[rows])
        after.index_copy_(0, rows, score(parts, weights))
        return parts

    part = (share % 1).nonzero()[:, 0]
    if len(part):
        returned = returned.fill(part, given[part].toward(best.pose[part], share[part]))
        depth = depth.index_copy(0, part, measured(part).depth)
    # A solution has been brought out already, as far as its contact lets it.
    push = push_out(depth, known == 0, weights) * (1 - share)
    elsewhere = (share > 0) | (push > LEAST_PUSH)  # the others are as given, and have been brought out above
    returned, pushed = returned.where(elsewhere, near_out), pushed & ~elsewhere
    rows = elsewhere.nonzero()[:, 0]
    if len(rows):
        out, left = brought_out(
            model, objects, which[rows], returned[rows], push[rows], holding[rows], config, far[rows]
        )
        returned, pushed = returned.fill(rows, out), pushed.index_copy(0, rows, left)
    if pushed.any():
        measured(pushed.nonzero()[:, 0])
        moved = moved | pushed
    own = expected_variance(model.joints(returned), field)
    assert field.joints_var is not None
    apart = torch.where(given_var.isnan(), field.joints_var, given_var)
    own = holding[:, None] * own + (1 - holding[:, None]) * apart
    variance = torch.where(share[:, None] > 0, share[:, None] * best.variance, 0) + (1 - share[:, None]) * own
    margin = torch.full_like(before, weights.margin(config.sure)).masked_fill(stated, 0.0)
    return Refined(returned, field, holding, share, stated, moved, before, after, margin, best.steps, variance)


def between(value: Tensor, low: float, high: float) -> Tensor:
    """From 0 at ``low`` and below, in a straight line, to 1 at ``high`` and above."""
    return ((value - low) / (high - low)).clamp(0, 1)
