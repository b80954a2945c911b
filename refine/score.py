"""How plausible a hand is, given what the network predicts: the score that decides whether a result is kept.

The difference of two hands' scores is the log odds that the one is nearer the truth than the other (a
Bradley–Terry model). Its weights are fitted to held-out grasps of the corpus by `refine.calibrate` and lie in
the weights' card.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from contact.field import ContactField
from contact.object_set import ObjectSet
from contact.weights import read_card
from hand_models import HandModel, HandPose

from .optimize import inner_spheres

_MEAN_NORM = 8 / math.pi  # squared mean length of a standard normal vector in three dimensions
_DEEPEST, _FARTHEST = 0.012, 0.01  # metres: tracked grasps, soft tissue and all, hardly ever go beyond
_LEAST_ERROR = 0.001  # metres: below a millimetre all hands are alike


@dataclass(frozen=True)
class Plausibility:
    """What the score is made of, ``(B,)`` metres each."""

    expected_error: Tensor
    """mean distance of the joints from where they truly are, as far as the prediction knows"""
    depth: Tensor
    """deepest penetration, of the skin or of the flesh by a thin wall"""
    float_gap: Tensor
    """mean distance of skin that should touch from the surface"""
    apart: Tensor
    """distance of the closest skin from the surface, 0 where it touches or enters"""


@dataclass(frozen=True)
class ScoreWeights:
    """Log odds that a unit of each part costs."""

    error: float = 3.0
    """per e-fold of the expected error"""
    depth: float = 100.0
    """per metre of penetration beyond `depth_free`"""
    gap: float = 100.0
    """per metre"""
    margin: float = 2.0
    """how much higher than its input a result must score to be returned instead of it"""
    margin_impossible: float = 0.0
    """the same against an input that cannot be right, see `possible`"""
    depth_free: float = 0.004
    """metres of penetration that tell nothing: real grasps as tracked have them too"""


@torch.no_grad()
def plausibility(
    model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose, field: ContactField
) -> Plausibility:
    """Measure ``B`` right hands against the prediction ``field`` (with joints)."""
    hand = model(pose)
    assert field.joints is not None
    assert field.joints_var is not None
    squared = ((hand.joints - field.joints) ** 2).sum(-1)
    expected = (squared + _MEAN_NORM * field.joints_var).sqrt().mean(1)
    distance, _ = objects.grid.query(hand.vertices, which)
    skin = distance[:, model.contact_points].abs().clamp_max(0.02)
    touch = field.hand_contact * (field.hand_contact > 0.2)
    gap = (skin * touch).sum(1) / touch.sum(1).clamp_min(1.0)
    closest = distance.amin(1)
    # A thin wall is no deeper than itself under the skin; the flesh around it tells how far it has gone in.
    flesh = inner_spheres(model, pose)
    within = (flesh.radius - objects.grid.query(flesh.centres, which)[0]).amax(1)
    return Plausibility(expected, torch.maximum(-closest, within).clamp_min(0), gap, closest.clamp_min(0))


def possible(parts: Plausibility) -> Tensor:
    """``(B,)`` whether a hand may be a true grasp as measured: not far inside the object, and not off it."""
    return (parts.depth <= _DEEPEST) & (parts.apart <= _FARTHEST)


def margin_against(
    parts: Plausibility, weights: ScoreWeights, override: float | None = None, *, stated: bool = False
) -> Tensor:
    """``(B,)`` how much higher than the hands ``parts`` a result must score.

    Args:
        override: for all, where it is given.
        stated: how good the hands are was stated and has been weighed in solving; none is needed any more.
    """
    if stated and override is None:
        override = 0.0
    if override is not None:
        return torch.full_like(parts.depth, override)
    return torch.where(possible(parts), weights.margin, weights.margin_impossible).to(parts.depth)


def features(parts: Plausibility, depth_free: float = ScoreWeights.depth_free) -> Tensor:
    """``(B, 3)`` what the score is linear in: log expected error, excess depth, gap."""
    error = parts.expected_error.clamp_min(_LEAST_ERROR).log()
    return torch.stack([error, (parts.depth - depth_free).clamp_min(0), parts.float_gap], 1)


def score(parts: Plausibility, weights: ScoreWeights = ScoreWeights()) -> Tensor:
    """``(B,)`` log plausibility up to a constant; higher is better, differences are log odds."""
    unit = parts.depth.new_tensor([weights.error, weights.depth, weights.gap])
    return -features(parts, weights.depth_free) @ unit


def load_score(weights: Path) -> ScoreWeights:
    """The score that was fitted for the network in ``weights``; the default where its card has none."""
    fitted = read_card(weights).get("score", {})
    known = asdict(ScoreWeights())
    return ScoreWeights(**{k: float(v) for k, v in fitted.items() if k in known})
