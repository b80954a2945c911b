"""How plausible a hand is, given what the network predicts: the score that decides whether a result is kept.

The difference of two hands' scores is the log odds that the one is nearer the truth than the other (a
Bradley–Terry model). Its weights are fitted to held-out grasps of the corpus by `calibrate_score` and lie in the
 weights' card.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from contact.field import ContactField
from contact.objects.object_set import ObjectSet
from contact.weights import read_card
from hand_models import HandModel, HandPose
from hand_models.inner_spheres import inner_spheres

_MEAN_NORM = 8 / math.pi  # squared mean length of a standard normal vector in three dimensions
_DEEP, _FAR = (0.014, 0.02), (0.01, 0.02)  # metres: where doubt begins and where it ends
_REACH = 0.003  # metres, mean over the joints: as far as good trackers err, too little to spoil a good hand
_LEAST_ERROR = 0.001  # metres: below a millimetre all hands are alike


@dataclass(frozen=True)
class Plausibility:
    """What the score is made of, ``(B,)`` metres each."""

    expected_error: Tensor
    """mean distance of the joints from where they truly are, as far as the prediction knows"""
    depth: Tensor
    """deepest penetration, of the skin or of the inner spheres by a thin wall"""
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
    """the same against an input that cannot be right, see `doubt`"""
    margin_probable: float = math.inf
    """the least that a result must score higher for its input to be moved towards it, if only a little"""
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
    # A thin wall is no deeper than itself under the skin; the spheres behind it tell how far it has gone in.
    inner = inner_spheres(hand.joints)
    within = (inner.radius - objects.grid.query(inner.centres, which)[0]).amax(1)
    return Plausibility(expected, torch.maximum(-closest, within).clamp_min(0), gap, closest.clamp_min(0))


def doubt(parts: Plausibility) -> Tensor:
    """``(B,)`` from 0, the hand may be a true grasp as measured, to 1: no tracker's hand is that far in, or off."""

    def between(value: Tensor, ends: tuple[float, float]) -> Tensor:
        return ((value - ends[0]) / (ends[1] - ends[0])).clamp(0, 1)

    return torch.maximum(between(parts.depth, _DEEP), between(parts.apart, _FAR))


@dataclass(frozen=True)
class Margins:
    """How much higher than its input a result must score, ``(B,)`` each."""

    sure: Tensor
    """to be returned"""
    likely: Tensor
    """for the input to go a little towards it"""

    def share_of_way(self, gain: Tensor, way: Tensor) -> Tensor:
        """How far hands go towards their results: all the way where these are sure to be better; where they are
        merely likely to be, no farther than could spoil a good hand; else nowhere.

        Args:
            gain: ``(B,)`` how much higher the results score; for NaN hands go nowhere.
            way: ``(B,)`` metres, mean distance of the joints from the result's.

        Returns:
            ``(B,)`` from 0 to 1.
        """
        part = torch.where(gain > self.likely, _REACH / way.clamp_min(_REACH), torch.zeros_like(way))
        return torch.where(gain > self.sure, torch.ones_like(way), part)


def margins_against(
    parts: Plausibility, weights: ScoreWeights, override: float | None = None, *, stated: Tensor | None = None
) -> Margins:
    """How much higher than the hands ``parts`` results must score.

    Args:
        override: for all, where it is given; nothing is done by halves then.
        stated: ``(B,)`` how good the hands are was stated and has been weighed in solving; none is needed any more.
    """
    if override is not None:
        margin = torch.full_like(parts.depth, override)
        return Margins(margin, margin)
    sure = weights.margin + doubt(parts) * (weights.margin_impossible - weights.margin)
    likely = sure.clamp_max(weights.margin_probable)
    if stated is None:
        return Margins(sure, likely)
    return Margins(sure.masked_fill(stated, 0.0), likely.masked_fill(stated, 0.0))


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
