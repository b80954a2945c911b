"""`ContactNet`: what it sees, how it is built, what it says."""

from __future__ import annotations

from .contact_net import ContactNet, Encoding, NetworkConfig, Prediction

__all__ = ["ContactNet", "Encoding", "NetworkConfig", "Prediction"]
