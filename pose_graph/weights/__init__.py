"""Reading and writing lifting networks: safetensors with a card (JSON) beside them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save

from hand_models.atomic import write_atomically
from pose_graph.network import LiftConfig, LiftNet

FOLDER = Path(__file__).parent
DEFAULT = "context"
"""The shipped network that is used when none is named."""


def shipped() -> tuple[str, ...]:
    """Names of the networks that ship."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))


def save_network(network: LiftNet, card: dict[str, Any], path: str | Path) -> Path:
    """Write weights in half precision, and the card beside them, each under a temporary name first.

    Args:
        card: what is to be known (data, seed, command, metrics); the key ``network`` is taken.
        path: weight file; its folder is made when absent.

    Raises:
        ValueError: a weight is not finite, or the card has the key ``network``.
    """
    path = Path(path)
    if "network" in card:
        raise ValueError("card: 'network' is taken by the network's configuration; choose another key.")
    state = {name: v.detach().cpu().half().contiguous() for name, v in network.state_dict().items()}
    broken = [name for name, v in state.items() if not v.isfinite().all()]
    if broken:
        raise ValueError(f"network: {broken[0]} is not finite; train with a lower learning rate.")
    text = json.dumps({"network": asdict(network.config), **card}, indent=1, default=str)
    write_atomically(path, lambda file: file.write(save(state)))
    write_atomically(path.with_suffix(".json"), lambda file: file.write((text + "\n").encode()))
    return path


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
    card = path.with_suffix(".json")
    for needed in (path, card):
        if not needed.is_file():
            raise FileNotFoundError(
                f"weights: {needed} is not there; train with `regrasp pose-graph train`, and keep the card "
                "(.json) beside the weights."
            )
    try:
        values = json.loads(card.read_text(encoding="utf-8"))["network"]
        network = LiftNet(LiftConfig(**values))
        network.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    except Exception as error:  # damaged files raise whatever their readers raise
        raise ValueError(
            f"weights: {path} does not hold a lifting network ({error}); train it again."
        ) from None
    return network.eval().requires_grad_(False)
