"""Training of the contact network."""

from __future__ import annotations

from .config import TrainConfig
from .training import evaluate, train

__all__ = ["TrainConfig", "evaluate", "train"]
