"""Weights of a network on disk: a safetensors file with a card (JSON) beside it that says what the network is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save
from torch import nn

from .atomic import write_atomically

N = TypeVar("N", bound=nn.Module)


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


def write_weights(
    network: nn.Module, settings: dict[str, Any], card: dict[str, Any], path: str | Path, *, half: bool = False
) -> Path:
    """Write weights and card, each under a temporary name first; make the folder when absent.

    Args:
        settings: what the network is built from; goes first into the card.
        card: what else is to be known (data, seed, metrics).
        path: weight file; the card goes beside it, see `card_path`.
        half: keep the weights in half precision.

    Raises:
        ValueError: ``card`` has a key of ``settings``, or a weight is not finite (in half precision).
    """
    path = Path(path)
    if taken := settings.keys() & card.keys():
        raise ValueError(f"card: {taken.pop()!r} is taken by the network itself; choose another key.")
    state = {name: v.detach().cpu().contiguous() for name, v in network.state_dict().items()}
    if half:
        state = {name: v.half() if v.is_floating_point() else v for name, v in state.items()}
    broken = [name for name, v in state.items() if not v.isfinite().all()]
    if broken:
        raise ValueError(f"network: {broken[0]} is not finite; the training has diverged, lower its learning rate.")
    write_atomically(path, lambda file: file.write(save(state)))
    write_card(path, settings | card)
    return path


def read_weights(path: Path, build: Callable[[dict[str, Any]], N], kind: str, command: str) -> N:
    """A trained network, ready to use.

    Args:
        build: from the card to an untrained network.
        kind: of network, as messages are to call it.
        command: that trains such networks, for messages.

    Raises:
        FileNotFoundError: no such weights, or no card beside them.
        ValueError: the files do not hold such a network.
    """
    for needed in (path, card_path(path)):
        if not needed.is_file():
            raise FileNotFoundError(
                f"weights: {needed} is not there; train with `{command}`, and keep the card (.json) beside the "
                "weights; those that ship come back when regrasp is reinstalled."
            )
    try:
        network = build(read_card(path))
        network.load_state_dict(load_file(path))  # casts to single precision as it copies
    except Exception as error:  # damaged files raise whatever their readers raise
        # torch lists every tensor that does not fit: the beginning says enough.
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        raise ValueError(f"weights: {path} does not hold {kind} ({reason}); train it again.") from None
    return network.eval().requires_grad_(False)
