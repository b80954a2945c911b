"""Several plausible contact fields per grasp, each solved side by side: which of the solutions is the hand.

A network that sees a noisy hand cannot always tell how the hand is meant to hold the object. Its latent gives ``K``
fields that fit what it saw. All are brought to where their field sees the hand; contact is resolved for those that
score best there, and the one that scores best then is taken. The first hypothesis is the mean prediction, which has
the least joint error to be expected: another takes its place only where it is as much more plausible as a result
has to be than its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contact.field import ContactField
from contact.objects.object_set import ObjectSet
from hand_models import HandModel, HandPose
from hand_models.record import Record
from hand_models.solver.states import Term

from ..config import RefineConfig
from .fields import EncodedGrasps, draw_fields
from .optimize import FieldTerms, Solved, align, field_terms, resolve_contact, solved_variance
from .score import ScoreWeights, plausibility, score


@dataclass(frozen=True)
class Finalists(Record):
    """Hypotheses whose contact is resolved: ``F`` for each of ``B`` hands, hand by hand."""

    pose: HandPose
    """brought to where the hypothesis' field sees the hand, ``B · F`` as all here"""
    targets: FieldTerms
    """of that field"""
    joints_var: Tensor
    """(B · F, 21) that the field states, square metres"""
    bonus: Tensor
    """(B · F,) log odds granted to the first hypothesis"""
    spread: Tensor
    """(B · F, 21) square metres per axis: of all hypotheses around this one, each as probable as it scores"""
    steps: Tensor
    """(B · F,)"""


def solve_hypotheses(
    grasps: EncodedGrasps, objects: ObjectSet, which: Tensor, pose: HandPose, mean: ContactField,
    score_weights: ScoreWeights, config: RefineConfig, seed: int, evidence: Sequence[Term] = (),
) -> Solved:  # fmt: skip
    """The best of ``config.hypotheses`` for each of ``B`` hands, at most ``config.batch_size`` in memory at once."""
    size, found = max(1, config.batch_size // config.hypotheses), []
    for start in range(0, len(pose), size):
        rows = slice(start, start + size)
        drawn = draw_fields(grasps[rows], mean[rows], config.hypotheses, seed)
        known = [term[rows] for term in evidence]
        found.append(
            find_finalists(
                grasps.model, objects, which[rows], pose[rows], mean[rows], drawn, score_weights, config, known
            )
        )
    return best_finalist(grasps.model, objects, mean, Finalists.cat(found), score_weights, config, evidence)


def find_finalists(
    model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose, mean: ContactField, fields: ContactField,
    score_weights: ScoreWeights, config: RefineConfig, evidence: Sequence[Term] = (),
) -> Finalists:  # fmt: skip
    """Bring every hypothesis to where its field sees the hand; the best ``config.finalists``.

    Args:
        pose: ``B`` noisy right hands.
        mean: their mean prediction.
        fields: ``K · B`` rows, field by field, the mean prediction first.
        evidence: what else is known of the hands.
    """
    batch, count = len(pose), len(fields) // len(pose)
    hand = torch.arange(batch, device=which.device)
    owner = hand.repeat(count)
    targets = field_terms(model, objects, which[owner], pose[owner], fields, config)
    aligned = align(model, targets, pose[owner], config, [term[owner] for term in evidence])
    joints = model.joints(aligned.state.pose).unflatten(0, (count, batch))
    scores = _scores(model, objects, which[owner], aligned.state.pose, mean, owner, score_weights)
    scores = scores.view(count, batch)
    bonus = torch.zeros_like(scores)
    bonus[0] = score_weights.margin(config.sure)
    finals = (scores + bonus).topk(min(config.finalists, count), dim=0).indices.T  # (B, F)
    away = joints[:, :, None] - joints[finals, hand[:, None]]  # (K, B, F, 21, 3)
    spread = (scores.softmax(0)[..., None, None] * away.square().mean(-1)).sum(0)
    rows = (finals * batch + hand[:, None]).flatten()
    assert fields.joints_var is not None
    return Finalists(
        aligned.state.pose[rows], targets[rows], fields.joints_var[rows], bonus.flatten()[rows],
        spread.flatten(0, 1), aligned.iterations[rows],
    )  # fmt: skip


def best_finalist(
    model: HandModel, objects: ObjectSet, mean: ContactField, found: Finalists, score_weights: ScoreWeights,
    config: RefineConfig, evidence: Sequence[Term] = (),
) -> Solved:  # fmt: skip
    """Resolve the contact of the finalists of ``B`` hands; of each hand the one that scores best.

    Returns:
        The variance is `solved_variance` of the chosen solution and that of the other hypotheses around it,
        each counted as its score says it is probable.
    """
    batch, count = len(mean), len(found.pose) // len(mean)
    owner = torch.arange(batch, device=found.steps.device).repeat_interleave(count)
    known = [term[owner] for term in evidence]
    solution = resolve_contact(model, objects, found.targets, found.pose, config, known)
    scores = _scores(model, objects, found.targets.which, solution.state.pose, mean, owner, score_weights)
    chosen = (scores + found.bonus).view(batch, count).argmax(1)
    chosen = chosen + count * torch.arange(batch, device=chosen.device)
    state = solution.state[chosen]
    posterior = solved_variance(state, solution.equations.hessian[chosen], found.joints_var[chosen])
    return Solved(
        state.pose, scores[chosen], posterior + found.spread[chosen], found.steps[chosen] + solution.iterations[chosen]
    )


def _scores(
    model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose, mean: ContactField, owner: Tensor,
    score_weights: ScoreWeights,
) -> Tensor:  # fmt: skip
    """Score of each of ``pose (N)`` against the mean prediction for the hand ``owner (N,)``."""
    seen = mean.at(slice(0))[owner]  # the score asks for joints and the hand's contact alone
    return score(plausibility(model, objects, which, pose, seen), score_weights).nan_to_num(-torch.inf)
