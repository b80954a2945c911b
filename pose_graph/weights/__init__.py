"""Weights of the lifting networks: those that ship, and reading and writing others."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from hand_models.weight_files import read_weights, write_weights

from ..network import LiftConfig, LiftNet

FOLDER = Path(__file__).parent
DEFAULT = "context"
"""The shipped network that is used when none is named."""


def shipped() -> tuple[str, ...]:
    """Names of the networks that ship."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))


def save_network(network: LiftNet, card: dict[str, Any], path: str | Path) -> Path:
    """Write weights in half precision and the card, see `write_weights`; ``network`` is the card's own key."""
    return write_weights(network, {"network": asdict(network.config)}, card, path, half=True)


def load_network(name: str | Path | None = None) -> LiftNet:
    """A trained lifting network, ready to use.

    Args:
        name: one of `shipped`, or the path of a weight file; None for `DEFAULT`.

    Raises:
        FileNotFoundError: no such weights, or no card beside them.
        ValueError: the files are not of a lifting network.
    """
    path = Path(name or DEFAULT)
    if path.suffix != ".safetensors":
        if str(path) not in shipped():
            raise FileNotFoundError(
                f"weights: no lifting network {str(name or DEFAULT)!r}; there are {', '.join(shipped()) or 'none'}. "
                "Give the path of a .safetensors file, or train one with `regrasp pose-graph train`."
            )
        path = FOLDER / f"{path}.safetensors"

    def build(card: dict[str, Any]) -> LiftNet:
        return LiftNet(LiftConfig(**card["network"]))

    return read_weights(path, build, "a lifting network", "regrasp pose-graph train")
