"""Options shared by commands that need a hand model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hand_models import HandModel, load_hand_model


@dataclass(frozen=True)
class HandOptions:
    """Which hand model to use."""

    hand_model: Literal["auto", "open", "mano"] = "auto"
    """The open hand, or MANO from your own copy. auto: mano when --mano-dir is given, else open."""
    mano_dir: Path | None = None
    """Folder with MANO_RIGHT.pkl, in the layout of smplx, manopth, HaMeR or WiLoR; else $MANO_DIR is looked in."""

    def load(self) -> HandModel:
        """The hand model asked for. Raises ``FileNotFoundError`` when MANO is not found."""
        name = self.hand_model
        if name == "auto":
            name = "mano" if self.mano_dir is not None else "open"
        if name == "open" and self.mano_dir is not None:
            raise ValueError("--mano-dir: is given, but --hand-model is open; leave one of them out.")
        return load_hand_model(name, mano_dir=self.mano_dir)
