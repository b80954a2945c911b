"""`regrasp train`: the options are those of `contact.train.TrainConfig`."""

from __future__ import annotations

import logging

from contact.train import TrainConfig
from contact.train import train as train_network

__all__ = ["TrainConfig", "train"]
log = logging.getLogger(__name__)


def train(config: TrainConfig) -> int:
    """Train ContactNet, write its weights and card, and fit the score that decides what is kept."""
    from ..calibrate import CalibrationConfig, calibrate

    weights = train_network(config)
    try:
        calibrate(CalibrationConfig(corpus=config.corpus, weights=weights, tracking=config.tracking))
    except ValueError as error:  # a corpus too small to hold anything out still trains a network
        log.warning("the score was not fitted: %s", error)
    return 0
