"""What training runs share: a checkpoint to go on from, randomness and rates that a step determines, averaging."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from .atomic import write_atomically


class Stateful(Protocol):
    """A network or an optimiser."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def stream(seed: int, step: int, purpose: str) -> torch.Generator:
    """Random numbers for one purpose in one step of a run; no other purpose or step gets the same."""
    entropy = np.random.SeedSequence([seed % 2**32, step, *purpose.encode()])
    return torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate at a step: rising over ``warmup`` steps, then falling by a cosine to a hundredth."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    return rise * (0.5 * (1 + math.cos(math.pi * step / steps)) * 0.99 + 0.01)


def approach(mean: torch.nn.Module, network: torch.nn.Module, share: float) -> None:
    """Move the weights of ``mean`` by ``share`` of the way to those of ``network``, in place."""
    for own, other in zip(mean.parameters(), network.parameters(), strict=True):
        own.lerp_(other.detach(), share)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run in one file."""

    path: Path
    recipe: Mapping[str, Any]
    """options that the result depends on, by name"""
    parts: Mapping[str, Stateful]
    """networks and optimisers, by name"""

    def _recipe(self) -> dict[str, str]:
        return {name: json.dumps(value, sort_keys=True, default=str) for name, value in self.recipe.items()}

    def save(self, **progress: float) -> None:
        """Keep all parts, and numbers that say how far the run is."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        kept = {"recipe": self._recipe(), "progress": progress, "parts": state}
        write_atomically(self.path, lambda file: torch.save(kept, file))

    def resume(self, device: str = "cpu") -> dict[str, float]:
        """Bring all parts to where they were; return what `save` was told of the progress, nothing at the start.

        Raises:
            ValueError: the file is of a run with other options, or is no checkpoint.
        """
        if not self.path.exists():
            return {}
        try:
            kept = torch.load(self.path, map_location=device, weights_only=True)
            before, now = kept["recipe"], self._recipe()
        except Exception as error:  # damaged files raise whatever their readers raise
            raise ValueError(f"out: {self.path} is no checkpoint of this version ({error}); delete it.") from None
        changed = [name for name in now | before if now.get(name) != before.get(name)]
        if changed:
            differences = ", ".join(f"{n} {before.get(n)}, now {now.get(n)}" for n in changed)
            raise ValueError(
                f"out: {self.path} is of another network or configuration ({differences});"
                " choose another folder, or delete it."
            )
        for name, part in self.parts.items():
            part.load_state_dict(kept["parts"][name])
        return kept["progress"]
