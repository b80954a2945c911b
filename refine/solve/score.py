"""How plausible a hand is, given what the network predicts.

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
    """Log odds that a unit of each part costs, and what else is fitted beside them."""

    error: float = 3.0
    """per e-fold of the expected error"""
    depth: float = 100.0
    """per metre of penetration beyond `depth_free`"""
    gap: float = 100.0
    """per metre"""
    bias: float = -2.0
    """log odds that a result is nearer the truth than an input that scores as high"""
    depth_free: float = 0.004
    """metres of penetration that tell nothing: real grasps as tracked have them too"""
    deep: tuple[float, float] = (0.008, 0.012)
    """metres of penetration from which on hands that stay are brought out, in part and all the way: what skin yields,
    2 mm, and about two and three times what trackers are off by"""

    def better(self, gain: Tensor) -> Tensor:
        """Probability that results which score higher than their inputs by ``gain`` are nearer the truth."""
        return torch.sigmoid(gain + self.bias)

    def margin(self, probability: float) -> float:
        """How much higher a result scores that is nearer the truth than its input with ``probability``."""
        return math.log(probability / (1 - probability)) - self.bias


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
    known = {name: value for name, value in fitted.items() if name in asdict(ScoreWeights())}
    return ScoreWeights(**{name: tuple(v) if isinstance(v, list) else float(v) for name, v in known.items()})
