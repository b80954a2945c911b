"""Two hands on one object: each refined for itself, then both settled together where they are in each other's way.

In the joint solve all hands are problems of one batch, each with the inner spheres of its partner as obstacles,
through the same costs as the object. In every round either hand has to give way by half of what they overlap,
so that the outcome does not depend on which comes first. The gate then scores the four ways to take or leave
the two results; nothing is taken by halves, as a hand that went half the way would be in its partner's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contact.field import ContactField
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from hand_models import HandModel, HandPose
from hand_models.inner_spheres import Spheres, inner_spheres

from ..config import RefineConfig
from ..request import Request
from ..result import RefineResult
from .fields import expected_variance, weights_path
from .optimize import field_terms, keep_out, resolve_contact, solved_variance
from .refine_hands import Refined, refine_right_hands
from .score import ScoreWeights, load_score, plausibility, score
from .uncertainty import load_scale

_ROUNDS = 4


@dataclass(frozen=True)
class TwoHandResult:
    """Result of `refine_grasp` for two hands; ``first, second = result`` unpacks it in the order they were given."""

    hands: tuple[RefineResult, RefineResult]
    """as they were given"""
    overlap_mm_before: np.ndarray
    """(B,) how deep the skin of either hand is inside the other: 0 where they are apart, NaN where one
    of them failed"""
    overlap_mm_after: np.ndarray
    """(B,)"""

    def __iter__(self) -> Iterator[RefineResult]:
        return iter(self.hands)

    @property
    def right(self) -> RefineResult:
        """The right hand's result."""
        return next(hand for hand in self.hands if hand.pose.side == "right")

    @property
    def left(self) -> RefineResult:
        """The left hand's result."""
        return next(hand for hand in self.hands if hand.pose.side == "left")


def is_pair(hand_pose: Any) -> bool:
    """Whether this is a list of two hands, and not one array of numbers."""
    return (
        isinstance(hand_pose, list | tuple)
        and len(hand_pose) == 2
        and all(isinstance(hand, HandPose | Mapping) for hand in hand_pose)
    )


def refine_two_hands(
    hands: Any, obj: ObjectMesh, object_pose: Any, model: HandModel, config: RefineConfig, seed: int
) -> TwoHandResult:
    """`refine_grasp` for ``[right, left]`` or ``[left, right]``, ``B`` hands each.

    Dictionaries that do not say their ``side`` are a right hand first and a left one second.

    Raises:
        ValueError: as `refine_grasp`; also for two hands of one side, different numbers of them, or a method
            that knows single hands only.
    """
    if config.method != "regrasp":
        raise ValueError(
            f"config: method {config.method!r} knows single hands only; refine them one by one, or use 'regrasp'."
        )
    sides = ("right", "left")
    requests = [
        Request.make(hand, obj, object_pose, side, model) for hand, side in zip(hands, sides, strict=True)
    ]
    first, second = (request.pose for request in requests)
    if first.side == second.side:
        raise ValueError(
            f"hand_pose: two {first.side} hands; pass one right and one left hand, or a batch of one side."
        )
    if len(first) != len(second):
        raise ValueError(
            f"hand_pose: {len(first)} {first.side} and {len(second)} {second.side} hands; "
            "give as many of either, row by row of the same moment."
        )
    weights = weights_path(config)
    score_weights = load_score(weights)
    both = requests[0].finite & requests[1].finite
    found = [_alone(request, config, seed) for request in requests]
    overlap = torch.zeros(2, 2, len(both))  # of the first hand as given or refined with the second so
    if both.any():
        found, overlap[:, :, both] = _together(requests, found, both, score_weights, config)
    if config.gate:
        scores = [_everywhere(r, f) for r, f in zip(requests, found, strict=True)]
        before, after = (torch.stack(column) for column in zip(*scores, strict=True))
        accepted = decide(
            before, after, score_weights.depth * (overlap - score_weights.depth_free).clamp_min(0)
        )
        found = [_gated(r, f, a[r.finite]) for r, f, a in zip(requests, found, accepted, strict=True)]
    else:
        accepted = torch.stack([request.finite for request in requests])
    overlap[:, :, ~both] = torch.nan
    after = overlap[accepted[0].long(), accepted[1].long(), torch.arange(len(both))]
    scale = load_scale(weights)
    one, other = (r.answer(f, scale, config) for r, f in zip(requests, found, strict=True))
    return TwoHandResult((one, other), 1e3 * overlap[0, 0].numpy(), 1e3 * after.numpy())


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


def _alone(request: Request, config: RefineConfig, seed: int) -> Refined:
    """Every finite hand's best solution, without a gate."""
    hands, free = request.right_hands(), replace(config, gate=False)
    which = torch.zeros(len(hands), dtype=torch.long)
    return refine_right_hands(hands, [request.scene()], which, request.right_model(), free, seed)


def _everywhere(request: Request, refined: Refined) -> tuple[Tensor, Tensor]:
    """Scores ``(B,)`` before, and after less the margin; a failed hand has a result that is never taken."""
    before, after = torch.zeros(len(request.pose)), torch.full((len(request.pose),), -torch.inf)
    before[request.finite], after[request.finite] = refined.score_before, refined.score_after - refined.margin
    return before, after


def _gated(request: Request, refined: Refined, accepted: Tensor) -> Refined:
    """With the hands that were not ``accepted`` as they were given."""
    given = request.right_hands()
    own = expected_variance(request.right_model().joints(given), refined.field)
    return replace(
        refined,
        pose=refined.pose.where(accepted, given),
        share=accepted.float(),
        accepted=accepted,
        score_after=torch.where(accepted, refined.score_after, refined.score_before),
        variance=torch.where(accepted[:, None], refined.variance, own),
    )


def _together(
    requests: Sequence[Request],
    found: Sequence[Refined],
    both: Tensor,
    score_weights: ScoreWeights,
    config: RefineConfig,
) -> tuple[list[Refined], Tensor]:
    """Settle the hands of the rows ``both`` beside each other.

    Returns:
        The two outcomes with those rows replaced, and how deep the hands overlap, metres, ``(2, 2, N)``: the
        first as given or refined, the second as given or refined.
    """
    device, model = torch.device(config.device), requests[0].right_model().to(config.device)
    objects = ObjectSet.of([request.scene() for request in requests]).to(device)
    rows = [both[request.finite].nonzero()[:, 0] for request in requests]
    count = len(rows[0])
    which = torch.arange(2, device=device).repeat_interleave(count)
    given = HandPose.cat([r.right_hands()[i] for r, i in zip(requests, rows, strict=True)]).to(device)
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
        targets = field_terms(model, objects, which[busy], given[busy], field[busy], config)
        others = keep_out(model, pose[busy], _spheres(model, pose[partner]), config)
        solution = resolve_contact(model, objects, targets, pose[busy], config, [others])
        solved = solution.state.pose
        pose = pose.fill(busy, solved)
        parts = plausibility(model, objects, which[busy], solved, field[busy])
        score_after = score_after.index_copy(0, busy, score(parts, score_weights))
        assert field.joints_var is not None
        hessian = solution.equations.hessian
        posterior = solved_variance(model, solved, hessian, field.joints_var[busy])
        variance = variance.index_copy(0, busy, posterior)
        steps = steps.index_add(0, busy, solution.iterations)
    choices = [(given[:count], pose[:count]), (given[count:], pose[count:])]
    overlap = torch.stack([torch.stack([_overlap(model, a, b) for b in choices[1]]) for a in choices[0]])
    settled = [
        replace(
            f,
            pose=f.pose.fill(i, pose[part].to("cpu")),
            score_after=f.score_after.index_copy(0, i, score_after[part].cpu()),
            variance=f.variance.index_copy(0, i, variance[part].cpu()),
            steps=f.steps.index_copy(0, i, steps[part].cpu()),
        )
        for f, i, part in zip(found, rows, (slice(count), slice(count, None)), strict=True)
    ]
    return settled, overlap.cpu()


def _spheres(model: HandModel, pose: HandPose) -> Spheres:
    """Inner spheres of hands as their partners see them: mirrored, as everything inside is a right hand."""
    return inner_spheres(model.joints(pose)).mirrored()


def _overlap(model: HandModel, one: HandPose, other: HandPose) -> Tensor:
    """(N,) metres: how deep the skin of either of two hands is inside the other, 0 when apart."""
    depth = [
        -_spheres(model, inner).query(model(skin).vertices)[0].amin(1)
        for skin, inner in ((one, other), (other, one))
    ]
    return torch.maximum(*depth).clamp_min(0)
