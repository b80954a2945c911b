"""Fitting of the uncertainty's scale: on held-out grasps of the corpus, how large are the errors really?

Noisy hands are refined as users' are, gate included, with the score that is already in the weights' card; the
factors of `refine.solve.uncertainty.UncertaintyScale` are then read off the errors and written beside it.

    from pathlib import Path
    from refine.calibrate import CalibrationConfig
    from refine.calibrate_uncertainty import calibrate_uncertainty

    calibrate_uncertainty(CalibrationConfig(corpus=Path("corpus"), weights=Path("weights.safetensors")))
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from contact.perturb import PROTOCOLS, perturb
from contact.weights import read_card, write_card
from hand_models import HandModel, load_hand_model

from ..config import RefineConfig
from .calibrate_score import CalibrationConfig, held_out_grasps
from .refine_hands import refine_right_hands
from .uncertainty import coverage, fit_scale


@dataclass(frozen=True)
class Outcomes:
    """Hands after refinement, ``N``, and how far off they are."""

    variance: Tensor
    """(N, 21) square metres per axis, uncalibrated"""
    error: Tensor
    """(N, 21, 3) metres"""
    share: Tensor
    """(N,) of the way to their solutions that they went"""
    protocol: Tensor
    """(N,) which of the configuration's protocols"""


def run_outcomes(config: CalibrationConfig, model: HandModel) -> Outcomes:
    """Refine noisy held-out grasps.

    Raises:
        FileNotFoundError: corpus or weights are not there.
        ValueError: the corpus is too small to hold objects out.
    """
    generator = torch.Generator().manual_seed(config.seed)
    grasps, meshes, which = held_out_grasps(config, generator)
    options = RefineConfig(weights=config.weights)
    parts = []
    for number, name in enumerate(config.protocols):
        truth = perturb(grasps, config.tracking, seed=generator)
        noisy = perturb(truth, PROTOCOLS[name], seed=generator)
        refined = refine_right_hands(noisy, meshes, which, model, options, config.seed)
        error = model.joints(refined.pose) - model.joints(truth)
        parts.append((refined.variance, error, refined.share, torch.full((len(truth),), number)))
    return Outcomes(*(torch.cat(column) for column in zip(*parts, strict=True)))


def calibrate_uncertainty(config: CalibrationConfig, model: HandModel | None = None) -> dict[str, float]:
    """Fit the factors on half of the held-out grasps, check them on the other half, write them into the card.

    Returns:
        ``refined`` and ``kept``, the factors; ``coverage`` and ``coverage_<protocol>``, the share of errors
        within one standard deviation on the half that was not fitted to. All of it lies in the card's
        ``uncertainty``.

    Raises:
        FileNotFoundError: corpus or weights are not there.
        ValueError: the corpus is too small to hold objects out, or ``config.grasps`` is.
    """
    outcomes = run_outcomes(config, model or load_hand_model("open"))
    fitted = torch.arange(len(outcomes.error)) % 2 == 0
    variance, error, share = outcomes.variance, outcomes.error, outcomes.share
    accepted = share > 0.5
    # A hand without noise that is kept is off by nothing at all, which no input of a user is.
    exact = torch.tensor([PROTOCOLS[name] == PROTOCOLS["none"] for name in config.protocols])
    used = fitted & (accepted | ~exact[outcomes.protocol])
    scale = fit_scale(variance[used], error[used], accepted[used])
    std = scale.std(variance, share)
    found = {**asdict(scale), "coverage": coverage(std[~fitted], error[~fitted])}
    for number, name in enumerate(config.protocols):
        rows = ~fitted & (outcomes.protocol == number)
        found[f"coverage_{name}"] = coverage(std[rows], error[rows])
    write_card(config.weights, read_card(config.weights) | {"uncertainty": found})
    return found
