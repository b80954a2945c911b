"""Fitting of the uncertainty's scale: on held-out grasps of the corpus, how large are the errors really?

Noisy hands are refined as users' are, with the score that is already in the weights' card, once judged by what is seen
and once with their error stated; the factors of `refine.solve.uncertainty.UncertaintyScale` are then read off the
errors and written beside it.

    from pathlib import Path
    from refine.solve.calibrate_score import CalibrationConfig
    from refine.solve.calibrate_uncertainty import calibrate_uncertainty

    calibrate_uncertainty(CalibrationConfig(corpus=Path("corpus"), weights=Path("weights.safetensors")))
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from contact.perturb import PROTOCOLS, perturb
from contact.weights import read_card, write_card
from hand_models import HandModel, load_hand_model

from ..config import RefineConfig
from ..evidence.pose_prior import PosePrior
from .calibrate_score import CalibrationConfig, held_out_grasps, tracked
from .refine_hands import refine_right_hands
from .uncertainty import coverage, fit_scale

Cases = tuple[tuple[str, bool], ...]
CASES: Cases = (
    *((name, False) for name in ("contactopt", "image", "toch-b1", "none")),
    *((name, True) for name in ("contactopt", "image", "toch-b1", "camera")),
)
"""Protocols, and whether it is stated that hands are as far off."""


@dataclass(frozen=True)
class Outcomes:
    """Hands after refinement, ``N``, and how far off they are."""

    variance: Tensor
    """(N, 21) square metres per axis, uncalibrated"""
    error: Tensor
    """(N, 21, 3) metres"""
    share: Tensor
    """(N,) of the way to their solutions that they went"""
    stated: Tensor
    """(N,) bool: their error was stated"""
    case: Tensor
    """(N,) which of the cases"""


def run_outcomes(config: CalibrationConfig, model: HandModel, cases: Cases = CASES) -> Outcomes:
    """Refine noisy held-out grasps.

    Raises:
        FileNotFoundError: corpus or weights are not there.
        ValueError: the corpus is too small to hold objects out.
    """
    generator = torch.Generator().manual_seed(config.seed)
    grasps, meshes, which = held_out_grasps(config, generator)
    options, holding = RefineConfig(weights=config.weights), torch.ones(len(grasps))
    parts = []
    for number, (name, stated) in enumerate(cases):
        truth = tracked(grasps, config.tracking, generator)
        view = normalize(torch.randn(len(truth), 3, generator=generator), dim=1)
        noisy = perturb(truth, name, seed=generator, model=model, view=view)
        known = []
        if stated:
            precision = PROTOCOLS[name].precision(noisy, model, view).double()
            known = [PosePrior(noisy, torch.linalg.cholesky(precision).float())]
        refined = refine_right_hands(noisy, meshes, which, model, options, config.seed, known, holding)
        error = model.joints(refined.pose) - model.joints(truth)
        parts.append((refined.variance, error, refined.share, refined.stated, torch.full((len(truth),), number)))
    return Outcomes(*(torch.cat(column) for column in zip(*parts, strict=True)))


def calibrate_uncertainty(
    config: CalibrationConfig, model: HandModel | None = None, cases: Cases = CASES
) -> dict[str, float]:
    """Fit the factors on half of the held-out grasps, check them on the other half, write them into the card.

    Returns:
        The factors of `UncertaintyScale`; ``coverage`` and ``coverage_<protocol>``, also ``_stated``, the share of
        errors within one standard deviation on the half that was not fitted to. All of it lies in the card's
        ``uncertainty``.

    Raises:
        FileNotFoundError: corpus or weights are not there.
        ValueError: the corpus is too small to hold objects out, or ``config.grasps`` is.
    """
    outcomes = run_outcomes(config, model or load_hand_model("open"), cases)
    fitted = torch.arange(len(outcomes.error)) % 2 == 0
    variance, error, share, stated = outcomes.variance, outcomes.error, outcomes.share, outcomes.stated
    # A hand without noise that is kept is off by nothing at all, which no input of a user is.
    exact = torch.tensor([name == "none" for name, _ in cases])[outcomes.case]
    # An error that lies along a ray is within one figure for all axes more often than others are: it is not fitted to.
    ray = torch.tensor([PROTOCOLS[name].along is not None for name, _ in cases])[outcomes.case]
    used = fitted & ((share > 0.5) | ~exact) & ~ray
    scale = fit_scale(variance[used], error[used], share[used], stated[used])
    std = scale.std(variance, share, stated)
    found = {**asdict(scale), "coverage": coverage(std[~fitted], error[~fitted])}
    for number, (name, said) in enumerate(cases):
        rows = ~fitted & (outcomes.case == number)
        found[f"coverage_{name}" + "_stated" * said] = coverage(std[rows], error[rows])
    write_card(config.weights, read_card(config.weights) | {"uncertainty": found})
    return found
