"""Several hypotheses of each grasp solved side by side: which of them is the hand.

All are brought to where their field sees the hand; those that score best there settle on the surface, and the
one that scores best then is taken. The first hypothesis is the mean prediction, which has the least joint error to
be expected: another takes its place only where it is as much more plausible as a result has to be than its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contact.field import ContactField
from contact.objects.object_set import ObjectSet
from hand_models import HandModel, HandPose

from ..config import RefineConfig
from ..evidence.pose_prior import PosePrior
from .optimize import Targets, align, joint_variance, settle_on, targets_of
from .score import ScoreWeights, plausibility, score


@dataclass(frozen=True)
class Candidates:
    """The best of ``K`` solutions for each of ``B`` hands."""

    pose: HandPose
    score: Tensor
    """(B,)"""
    variance: Tensor
    """(B, 21) square metres per axis"""
    steps: Tensor
    """(B,)"""


@dataclass(frozen=True)
class Finalists:
    """Hypotheses that go on to settle on the surface: ``F`` for each of ``B`` hands, hand by hand."""

    pose: HandPose
    """brought to where the hypothesis' field sees the hand, ``B · F`` as all here"""
    targets: Targets
    """of that field"""
    joints_var: Tensor
    """(B · F, 21) that the field states, square metres"""
    favour: Tensor
    """(B · F,) log odds granted to the first hypothesis"""
    spread: Tensor
    """(B · F, 21) square metres per axis: of all hypotheses around this one, each as probable as it scores"""
    steps: Tensor
    """(B · F,)"""

    @staticmethod
    def cat(parts: Sequence[Finalists]) -> Finalists:
        """Join hands."""
        if len(parts) == 1:
            return parts[0]
        return Finalists(
            HandPose.cat([p.pose for p in parts]),
            Targets.cat([p.targets for p in parts]),
            *(
                torch.cat([getattr(p, name) for p in parts])
                for name in ("joints_var", "favour", "spread", "steps")
            ),
        )


def solve_best(
    model: HandModel,
    objects: ObjectSet,
    which: Tensor,
    pose: HandPose,
    mean: ContactField,
    fields: ContactField,
    judge: ScoreWeights,
    config: RefineConfig,
    prior: PosePrior | None = None,
) -> Candidates:
    """Solve every hypothesis and choose, per hand, the solution that scores best against the mean prediction.

    All are brought to where their field sees the hand; only the best ``config.finalists`` go on to settle on
    the surface, which is most of the work.

    Args:
        pose: ``B`` noisy right hands.
        mean: their mean prediction.
        fields: ``K · B`` rows, field by field, the mean prediction first.
        prior: what else is known of the hands.

    Returns:
        The variance is `solved_variance` of the chosen solution and that of the other hypotheses around it,
        each counted as its score says it is probable.
    """
    found = find_finalists(model, objects, which, pose, mean, fields, judge, config, prior)
    return settle_best(model, objects, mean, found, judge, config, prior)


def find_finalists(
    model: HandModel,
    objects: ObjectSet,
    which: Tensor,
    pose: HandPose,
    mean: ContactField,
    fields: ContactField,
    judge: ScoreWeights,
    config: RefineConfig,
    prior: PosePrior | None = None,
) -> Finalists:
    """Bring every hypothesis to where its field sees the hand; the best few. Arguments as of `solve_best`."""
    batch, count = len(pose), len(fields) // len(pose)
    hand = torch.arange(batch, device=which.device)
    owner = hand.repeat(count)
    targets = targets_of(model, objects, which[owner], pose[owner], fields, config)
    aligned = align(model, targets, pose[owner], config, None if prior is None else prior[owner])
    joints = model.joints(aligned.pose).unflatten(0, (count, batch))
    # A single hypothesis has won before it is scored.
    scores = joints.new_zeros(1, batch)
    if count > 1:
        scores = _judged(model, objects, which[owner], aligned.pose, mean, owner, judge).view(count, batch)
    favour = torch.zeros_like(scores)
    favour[0] = judge.margin
    finals = (scores + favour).topk(min(config.finalists, count), dim=0).indices.T  # (B, F)
    away = joints[:, :, None] - joints[finals, hand[:, None]]  # (K, B, F, 21, 3)
    spread = (scores.softmax(0)[..., None, None] * away.square().mean(-1)).sum(0)
    rows = (finals * batch + hand[:, None]).flatten()
    assert fields.joints_var is not None
    return Finalists(
        aligned.pose[rows], targets[rows], fields.joints_var[rows], favour.flatten()[rows], spread.flatten(0, 1),
        aligned.iterations[rows],
    )  # fmt: skip


def settle_best(
    model: HandModel,
    objects: ObjectSet,
    mean: ContactField,
    found: Finalists,
    judge: ScoreWeights,
    config: RefineConfig,
    prior: PosePrior | None = None,
) -> Candidates:
    """Settle the finalists of ``B`` hands on the surface; the best of each hand. See `solve_best`."""
    batch, count = len(mean), len(found.pose) // len(mean)
    owner = torch.arange(batch, device=found.steps.device).repeat_interleave(count)
    known = None if prior is None else prior[owner]
    settled = settle_on(model, objects, found.targets, found.pose, config, prior=known)
    scores = _judged(model, objects, found.targets.which, settled.pose, mean, owner, judge)
    chosen = (scores + found.favour).view(batch, count).argmax(1)
    chosen = chosen + count * torch.arange(batch, device=chosen.device)
    pose = settled.pose[chosen]
    posterior = solved_variance(model, pose, settled.equations.hessian[chosen], found.joints_var[chosen])
    return Candidates(
        pose,
        scores[chosen],
        posterior + found.spread[chosen],
        found.steps[chosen] + settled.iterations[chosen],
    )


def _judged(
    model: HandModel,
    objects: ObjectSet,
    which: Tensor,
    pose: HandPose,
    mean: ContactField,
    owner: Tensor,
    judge: ScoreWeights,
) -> Tensor:
    """Score of each of ``pose (N)`` against the mean prediction for the hand ``owner (N,)``."""
    seen = mean.at(slice(0))[owner]  # the score asks for joints and the hand's contact alone
    return score(plausibility(model, objects, which, pose, seen), judge).nan_to_num(-torch.inf)


def solved_variance(model: HandModel, pose: HandPose, hessian: Tensor, joints_var: Tensor) -> Tensor:
    """(B, 21) square metres per axis: of the posterior, and of the error that all of a field's values share.

    Args:
        hessian: ``(B, 51, 51)`` of the solved problems.
        joints_var: ``(B, 21)`` that their fields state, square metres.

    The posterior treats what the field says of many points and joints as independent. What is wrong with all of
    it at once does not average out, and is as large as what the network states for one joint.
    """
    return joint_variance(model, pose, hessian) + joints_var
