"""Contact maps in ten bins, as ContactOpt's network gives them (Grady et al., CVPR 2021): loss, moments, field."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from contact.field import NUM_PARTS, ContactField
from hand_models import HandModel, HandPose

BINS = 10


@dataclass(frozen=True)
class Maps:
    """Scores of the ten contact bins."""

    object_logits: Tensor
    """(B, n, 10)"""
    hand_logits: Tensor
    """(B, P, 10) of ``model.contact_points``"""

    def values(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Mean contact and its variance on the object, ``(B, n)`` each, and on the hand, ``(B, P)`` each."""
        return _moments(self.object_logits), _moments(self.hand_logits)


def _moments(logits: Tensor) -> tuple[Tensor, Tensor]:
    share = logits.softmax(-1)
    middle = (torch.arange(BINS, device=logits.device) + 0.5) / BINS
    mean = share @ middle
    # Within a bin, contact is spread over its width.
    return mean, share @ middle**2 - mean**2 + 1 / (12 * BINS**2)


def map_loss(maps: Maps, contact: Tensor, hand_contact: Tensor) -> Tensor:
    """Cross entropy of the bins that true contact ``(B, n)`` and hand contact ``(B, P)``, in [0, 1], fall into."""
    terms = []
    for logits, value in ((maps.object_logits, contact), (maps.hand_logits, hand_contact)):
        bin_index = (value * BINS).long().clamp(0, BINS - 1)
        terms.append(cross_entropy(logits.flatten(0, 1), bin_index.flatten()))
    return terms[0] + terms[1]


@torch.no_grad()
def to_field(maps: Maps, model: HandModel, pose: HandPose, points: Tensor) -> ContactField:
    """Maps as the optimiser reads them; what they do not say is taken from the noisy hands themselves.

    An object point corresponds to the closest contact point of the noisy hand, as near as there is contact and
    without a gap; joints are where they are, give or take 5 cm.
    """
    (contact, contact_var), (hand_contact, hand_contact_var) = maps.values()
    hand = model(pose)
    closest = model.contact_points[torch.cdist(points, hand.vertices[:, model.contact_points]).argmin(2)]
    loose = torch.full_like(contact, 0.01**2)
    return ContactField(
        contact=contact,
        contact_var=contact_var,
        part=one_hot(model.part_of_vertex[closest], NUM_PARTS).to(contact),
        canonical=model.rest_canonical[closest],
        canonical_var=loose,
        gap=torch.zeros_like(contact),
        gap_var=loose,
        near=contact,
        hand_contact=hand_contact,
        hand_contact_var=hand_contact_var,
        joints=hand.joints,
        joints_var=torch.full_like(hand.joints[..., 0], 0.05**2),
    )
