"""How far off a joint of the result may be: the posterior of the solved problem, calibrated.

The uncalibrated variance (`refine.solve.optimize.solved_variance`) is the posterior's and that of the error that the
whole prediction shares. One factor, fitted to held-out grasps of the corpus, makes 68 %
of joint errors lie within one standard deviation. A hand that was kept has no posterior; what is known of it is
how far it lies from where the prediction sees it and how sure the prediction is, with a factor of its own. Both
factors lie in the weights' card.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from contact.weights import read_card

COVERAGE = math.erf(math.sqrt(0.5))
"""68.27 %: the share of normal errors within one standard deviation."""
_FEWEST = 100


@dataclass(frozen=True)
class UncertaintyScale:
    """Factors on uncalibrated standard deviations."""

    refined: float = 1.0
    """of hands that were refined"""
    stated: float = 1.0
    """of hands that were refined and whose error was stated"""
    kept: float = 1.0
    """of hands that were returned as they came"""

    def std(self, variance: Tensor, share: Tensor, stated: Tensor) -> Tensor:
        """Calibrated standard deviation per axis.

        Args:
            variance: ``(B, 21)`` square metres per axis.
            share: ``(B,)`` of the way to its solution that the hand went.
            stated: ``(B,)`` bool, whether its error was stated.

        Returns:
            ``(B, 21)`` metres.
        """
        arrived = torch.where(stated, self.stated, self.refined).to(variance)
        factor = self.kept + share.to(variance) * (arrived - self.kept)
        return variance.sqrt() * factor[:, None]


def coverage(std: Tensor, error: Tensor) -> float:
    """Share of joint errors ``(N, 21, 3)`` that lie, axis by axis, within one ``std (N, 21)``."""
    return float((error.abs() <= std[..., None]).float().mean())


def fit_scale(variance: Tensor, error: Tensor, share: Tensor, stated: Tensor) -> UncertaintyScale:
    """The factors that make `coverage` 68.27 % among the refined, by whether their error was stated, and the kept.

    Args:
        variance: ``(N, 21)`` square metres per axis, uncalibrated.
        error: ``(N, 21, 3)`` metres, joints less their true places.
        share: ``(N,)`` of the way to their solutions that the hands went.
        stated: ``(N,)`` bool.

    Raises:
        ValueError: fewer than a hundred joints altogether.
    """
    if error.shape[:2].numel() < _FEWEST:
        raise ValueError(f"error: {error.shape[:2].numel()} joints; give {_FEWEST} or more, i.e. five hands.")
    ratio = error.abs() / variance.sqrt()[..., None]

    def within(rows: Tensor) -> float:
        # A kind of outcome that hardly ever happens is calibrated as all together are.
        values = ratio[rows] if ratio[rows].shape[:2].numel() >= _FEWEST else ratio
        ordered = values.flatten().sort().values  # `torch.quantile` takes 16 million values at most
        return float(ordered[min(len(ordered) - 1, round(COVERAGE * len(ordered)))])

    refined = share > 0.5
    return UncertaintyScale(within(refined & ~stated), within(refined & stated), within(~refined))


def load_scale(weights: Path) -> UncertaintyScale:
    """The factors fitted for the network in ``weights``; ones where its card has none."""
    fitted = read_card(weights).get("uncertainty", {})
    known = asdict(UncertaintyScale())
    return UncertaintyScale(**{k: float(v) for k, v in fitted.items() if k in known})
