"""`regrasp train`: the options are those of `contact.train.TrainConfig`."""

from __future__ import annotations

import logging

from contact.train import TrainConfig
from contact.train import train as train_network

from ..solve.calibrate_score import CalibrationConfig, calibrate
from ..solve.calibrate_uncertainty import calibrate_uncertainty

__all__ = ["TrainConfig", "train"]
log = logging.getLogger(__name__)


def train(config: TrainConfig) -> int:
    """Train ContactNet, write its weights and card, and fit the score and the uncertainty of what it leads to."""
    weights = train_network(config)
    held_out = CalibrationConfig(corpus=config.corpus, weights=weights)
    try:
        calibrate(held_out)
        calibrate_uncertainty(held_out)  # of what the score lets through
    except ValueError as error:  # a corpus too small to hold anything out still trains a network
        log.warning("score and uncertainty were not fitted: %s", error)
    return 0
