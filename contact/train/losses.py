"""Training losses of the contact network: proper scoring rules, so that predicted variances are honest.

Lengths are in centimetres inside the likelihoods, which keeps their terms of the order of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import cross_entropy

from ..field import ContactField
from ..network.contact_net import Prediction

_CM = 100.0


@dataclass(frozen=True)
class LossWeights:
    """Share of each term."""

    joints: float = 1.0
    contact: float = 1.0
    near: float = 1.0
    part: float = 0.5
    canonical: float = 0.5
    gap: float = 0.5
    hand_contact: float = 1.0
    holding: float = 0.5


def gaussian_nll(error: Tensor, variance: Tensor, dims: int = 1) -> Tensor:
    """Negative log likelihood, up to a constant, of an isotropic Gaussian in ``dims`` dimensions, per dimension.

    Args:
        error: squared distance to the mean, any shape.
        variance: of each coordinate, the same shape and the same unit squared.
    """
    return 0.5 * (error / dims / variance + variance.log())


def gaussian_nll_of(error: Tensor, covariance: Tensor) -> Tensor:
    """`gaussian_nll` of ``error (..., 3)`` under ``covariance (..., 3, 3)``, per dimension."""
    factor = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(factor, error[..., None], upper=False)[..., 0]
    volume = torch.diagonal(factor, dim1=-2, dim2=-1).log().sum(-1)
    return (0.5 * white.square().sum(-1) + volume) / 3


def _mean(value: Tensor) -> Tensor:
    """The mean, and 0 of nothing: no hand of a batch may hold."""
    return value.sum() / max(1, value.numel())


def _mean_where(value: Tensor, mask: Tensor) -> Tensor:
    return (value * mask).sum() / mask.sum().clamp_min(1)


def _value_loss(logit: Tensor, variance: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of the mean plus the likelihood of what the mean, held fixed, leaves over."""
    error = (truth - logit.detach().sigmoid()) ** 2
    return _mean(bce(logit, truth, reduction="none")) + 0.1 * _mean(gaussian_nll(error, variance))


def losses(prediction: Prediction, truth: ContactField, joints: Tensor, holding: Tensor) -> dict[str, Tensor]:
    """Each term, unweighted: a scalar under each name of `LossWeights`.

    Args:
        prediction: raw output of the network, wrist frame.
        truth: ground-truth field.
        joints: ``(B, 21, 3)`` true joints in the noisy wrist's frame, metres.
        holding: ``(B,)`` 1 where the hand holds the object.
    """
    # The field is that of a hand that holds: hands that hold nothing teach the probability alone.
    rows = holding > 0.5
    p, truth, joints, near = prediction[rows], truth[rows], joints[rows], truth.near[rows]
    off = (p.joints - joints) * _CM
    of_joints = off.square().sum(-1)
    canonical = ((p.canonical - truth.canonical) ** 2).sum(-1) * _CM**2
    gap = (p.gap - truth.gap) ** 2 * _CM**2
    part = cross_entropy(p.part_logits.flatten(0, 1), truth.part.argmax(-1).flatten(), reduction="none")
    return {
        # The distance itself joins its likelihood, which alone would neglect the hard grasps.
        "joints": _mean(gaussian_nll_of(off, p.joints_cov * _CM**2)) + 0.3 * _mean((of_joints + 1e-6).sqrt()),
        "contact": _value_loss(p.contact_logit, p.contact_var, truth.contact),
        "near": _mean(bce(p.near_logit, near, reduction="none")),
        "part": _mean_where(part.reshape(near.shape), near),
        "canonical": _mean_where(gaussian_nll(canonical, p.canonical_var * _CM**2, 3), near),
        "gap": _mean_where(gaussian_nll(gap, p.gap_var * _CM**2), near),
        "hand_contact": _value_loss(p.hand_contact_logit, p.hand_contact_var, truth.hand_contact),
        "holding": bce(prediction.holding_logit, holding),
    }


def total(terms: dict[str, Tensor], weights: LossWeights = LossWeights()) -> Tensor:
    """Weighted sum."""
    return torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
