"""Reading and writing network weights: safetensors with a card (JSON) beside them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save

from contact.network import ContactNet, NetworkConfig
from hand_models.atomic import write_atomically

DEFAULT = Path(__file__).with_name("contact.safetensors")
"""The weights that ship."""


def card_path(weights: Path) -> Path:
    """The card that belongs to a weight file."""
    return weights.with_suffix(".json")


def read_card(weights: Path) -> dict[str, Any]:
    """What the card beside ``weights`` says; empty where there is none."""
    path = card_path(weights)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_card(weights: Path, card: dict[str, Any]) -> None:
    """Put ``card`` beside ``weights``, under a temporary name first."""
    text = json.dumps(card, indent=1, default=str) + "\n"
    write_atomically(card_path(weights), lambda file: file.write(text.encode()))


def save_weights(network: ContactNet, card: dict[str, Any], path: str | Path) -> Path:
    """Write weights and card, each under a temporary name first; make the folder when absent.

    Args:
        card: what is to be known about the weights (corpus, seed, command, metrics); the key ``network`` is
            taken by the network's configuration.
        path: weight file; the card goes beside it, see `card_path`.

    Raises:
        ValueError: ``card`` has the key ``network``, or a weight is not finite.
    """
    path = Path(path)
    if "network" in card:
        raise ValueError("card: 'network' is taken by the network's configuration; choose another key.")
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    broken = [k for k, v in state.items() if not v.isfinite().all()]
    if broken:
        raise ValueError(
            f"network: {broken[0]} is not finite; the training has diverged, lower its learning rate."
        )
    write_atomically(path, lambda file: file.write(save(state)))
    write_card(path, {"network": asdict(network.config), **card})
    return path


def load_network(path: str | Path | None = None) -> ContactNet:
    """The trained network, ready to predict.

    Args:
        path: weight file; None for the one that ships.

    Raises:
        FileNotFoundError: no such weights, or no card beside them.
        ValueError: the file is not a weight file of this network.
    """
    weights = Path(path) if path else DEFAULT
    for needed in (weights, card_path(weights)):
        if not needed.is_file():
            raise FileNotFoundError(
                f"weights: {needed} is not there; train with `regrasp train` or reinstall regrasp."
            )
    try:
        network = ContactNet(NetworkConfig(**read_card(weights)["network"]))
        network.load_state_dict(load_file(weights))
    except Exception as error:
        # torch lists every tensor that does not fit: the beginning says enough.
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        raise ValueError(
            f"weights: {weights} does not hold this network ({reason}); train it again."
        ) from None
    return network.eval().requires_grad_(False)
