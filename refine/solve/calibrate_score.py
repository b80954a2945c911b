"""Fitting of the plausibility score: on held-out grasps of the corpus, which of two hands is nearer the truth?

Noisy hands are refined without a gate; the weights of `refine.solve.score.ScoreWeights` are those of the logistic
regression that says best, from what can be known at run time, whether the result is better than its input.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize as minimise
from torch import Tensor

from contact.corpus import load_object
from contact.corpus.corpus import load_held_out
from contact.input_error import TRACKING, InputError
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from contact.perturb import PROTOCOLS, perturb
from contact.train import TrainConfig
from contact.weights import load_network, read_card, write_card
from hand_models import HandModel, HandPose, load_hand_model

from ..config import RefineConfig
from .fields import predict_field
from .optimize import optimise
from .score import ScoreWeights, features, plausibility


@dataclass(frozen=True)
class CalibrationConfig:
    """On what the score is fitted."""

    corpus: Path = TrainConfig.corpus
    weights: Path = TrainConfig.out / "weights.safetensors"
    """network weights; their card receives the score"""
    grasps: int = 512
    """held-out grasps, each under every protocol"""
    protocols: tuple[str, ...] = ("contactopt", "image", "toch-b1", "none")
    tracking: InputError = TRACKING
    """error that counts as true, whatever the network was trained with"""
    seed: int = 1


@dataclass(frozen=True)
class Trials:
    """Noisy hands and their results, ``N`` pairs."""

    before: Tensor
    """(N, 3) `features` of the inputs"""
    after: Tensor
    """(N, 3) `features` of the results"""
    error_before: Tensor
    """(N,) metres, mean joint error"""
    error_after: Tensor
    """(N,)"""


@torch.no_grad()
def run_trials(config: CalibrationConfig, model: HandModel) -> Trials:
    """Refine noisy held-out grasps without a gate."""
    generator = torch.Generator().manual_seed(config.seed)
    grasps, meshes, which = held_out_grasps(config, generator)
    objects = ObjectSet.of(meshes)
    network, options = load_network(config.weights), RefineConfig()
    parts = []
    for rows in torch.arange(len(grasps)).split(64):
        for name in config.protocols:
            truth = tracked(grasps[rows], config.tracking, generator)
            noisy = perturb(truth, PROTOCOLS[name], seed=generator)
            field = predict_field(network, model, objects, which[rows], noisy)
            found = optimise(model, objects, which[rows], noisy, field, options).state.pose
            joints = model.joints(truth)
            row = []
            for pose in (noisy, found):
                row.append(features(plausibility(model, objects, which[rows], pose, field)))
                row.append((model.joints(pose) - joints).norm(dim=-1).mean(1))
            parts.append(row)
    before, error_before, after, error_after = (torch.cat(column) for column in zip(*parts, strict=True))
    return Trials(before, after, error_before, error_after)


def tracked(grasps: HandPose, error: InputError, generator: torch.Generator) -> HandPose:
    """Hands that count as true, as well tracked as data sets differ: off by nothing to twice ``error``."""
    return perturb(grasps, error, seed=generator, scale=2 * torch.rand(len(grasps), generator=generator))


def held_out_grasps(config: CalibrationConfig, generator: torch.Generator) -> tuple[HandPose, list[ObjectMesh], Tensor]:
    """Some grasps that training did not see, their objects, and which of these each grasp is on.

    Raises:
        FileNotFoundError: there is no corpus.
        ValueError: it is too small to hold objects out.
    """
    corpus = load_held_out(config.corpus)
    chosen = torch.randperm(len(corpus), generator=generator)[: config.grasps]
    used, which = corpus.which[chosen].unique(return_inverse=True)
    meshes = [load_object(config.corpus, corpus.numbers[g]) for g in used.tolist()]
    return corpus.pose[chosen], meshes, which


def fit_score(trials: Trials) -> ScoreWeights:
    """Logistic regression of "the result is nearer the truth" on the difference of the features.

    Weights are kept non-negative: nothing bad may count as good. The constant is the bias.
    """
    difference = (trials.before - trials.after).double().numpy()
    better = np.where((trials.error_after < trials.error_before).numpy(), 1.0, -1.0)
    unit = difference.std(0) + 1e-9

    def loss(w: np.ndarray) -> float:
        odds = difference / unit @ w[:3] + w[3]
        return float(np.logaddexp(0, -better * odds).mean() + 1e-3 * (w[:3] ** 2).sum())

    found = minimise(loss, np.array([1.0, 0.1, 0.1, 0.0]), bounds=[(0, None)] * 3 + [(None, None)])
    error, depth, gap = (float(w) for w in found.x[:3] / unit)
    return ScoreWeights(error, depth, gap, float(found.x[3]))


def calibrate(config: CalibrationConfig = CalibrationConfig(), model: HandModel | None = None) -> ScoreWeights:
    """Fit the score of a network and write it into the card of its weights.

    Raises:
        FileNotFoundError: corpus or weights are not there.
        ValueError: the corpus is too small to hold objects out.
    """
    trials = run_trials(config, model or load_hand_model("open"))
    weights = fit_score(trials)
    write_card(config.weights, read_card(config.weights) | {"score": asdict(weights)})
    return weights
