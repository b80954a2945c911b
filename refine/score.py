"""How plausible a hand is, given what the network predicts: the score that decides whether a result is kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from contact.field import ContactField
from contact.object_set import ObjectSet
from hand_models import HandModel, HandPose


@dataclass(frozen=True)
class Plausibility:
    """What the score is made of, ``(B,)`` each."""

    disagreement: Tensor
    """mean squared distance of the joints from their prediction, in predicted variances"""
    depth: Tensor
    """deepest penetration, metres"""
    float_gap: Tensor
    """mean distance of skin that should touch from the surface, metres"""


@dataclass(frozen=True)
class ScoreWeights:
    """Unit of each part: how much of it makes a hand half as plausible, roughly."""

    disagreement: float = 1.0
    depth: float = 0.004
    depth_free: float = 0.004
    """penetration that tells nothing: real grasps as tracked have it too"""
    float_gap: float = 0.004


@torch.no_grad()
def plausibility(
    model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose, field: ContactField
) -> Plausibility:
    """Measure ``B`` right hands against the prediction ``field`` (with joints)."""
    hand = model(pose)
    assert field.joints is not None
    assert field.joints_var is not None
    squared = ((hand.joints - field.joints) ** 2).sum(-1) / (3 * field.joints_var)
    distance, _ = objects.grid.query(hand.vertices, which)
    skin = distance[:, model.contact_points].abs().clamp_max(0.02)
    touch = field.hand_contact * (field.hand_contact > 0.2)
    gap = (skin * touch).sum(1) / touch.sum(1).clamp_min(1.0)
    return Plausibility(squared.mean(1), (-distance.amin(1)).clamp_min(0), gap)


def score(parts: Plausibility, weights: ScoreWeights = ScoreWeights()) -> Tensor:
    """(B,) log plausibility up to a constant; higher is better."""
    deep = (parts.depth - weights.depth_free).clamp_min(0) / weights.depth
    return -(
        torch.log1p(parts.disagreement / weights.disagreement) + deep + parts.float_gap / weights.float_gap
    )
