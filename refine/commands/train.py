"""`regrasp train`: the options are those of `contact.train.TrainConfig`."""

from __future__ import annotations

from contact.train import TrainConfig
from contact.train import train as train_network

__all__ = ["TrainConfig", "train"]


def train(config: TrainConfig) -> int:
    """Train ContactNet and write its weights and card."""
    train_network(config)
    return 0
