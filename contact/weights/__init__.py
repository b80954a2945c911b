"""Weights of `ContactNet`: those that ship, and reading and writing others."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from hand_models.weight_files import card_path, read_card, read_weights, write_card, write_weights

from ..network import ContactNet, NetworkConfig

__all__ = ["DEFAULT", "card_path", "load_network", "read_card", "save_weights", "write_card"]

DEFAULT = Path(__file__).with_name("contact.safetensors")
"""The weights that ship."""


def save_weights(network: ContactNet, card: dict[str, Any], path: str | Path) -> Path:
    """Write weights and card, see `write_weights`; the card's key ``network`` is the network's configuration."""
    return write_weights(network, {"network": asdict(network.config)}, card, path)


def load_network(path: str | Path | None = None) -> ContactNet:
    """The trained network, ready to predict.

    Args:
        path: weight file; None for the one that ships.

    Raises:
        FileNotFoundError: no such weights, or no card beside them.
        ValueError: the file is not a weight file of this network.
    """

    def build(card: dict[str, Any]) -> ContactNet:
        return ContactNet(NetworkConfig(**card["network"]))

    return read_weights(Path(path) if path else DEFAULT, build, "this network", "regrasp train")
