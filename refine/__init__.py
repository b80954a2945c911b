"""regrasp: make a roughly right hand-object grasp physically and visually right.

``from refine import refine_grasp`` is all most programs need. Names are looked up on first use, so that
importing this package costs nothing until it works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contact.objects import ObjectMesh
    from hand_models import HandPose, load_hand_model

    from .api import refine_grasp
    from .config import RefineConfig
    from .files.status import Status
    from .motion.sequence import SequenceResult, refine_sequence
    from .motion.stream import SequenceStream
    from .result import RefineResult, TwoHandResult

__all__ = [
    "HandPose",
    "ObjectMesh",
    "RefineConfig",
    "RefineResult",
    "SequenceResult",
    "SequenceStream",
    "Status",
    "TwoHandResult",
    "load_hand_model",
    "refine_grasp",
    "refine_sequence",
]

_HOME = {
    "refine_grasp": "refine.api", "RefineConfig": "refine.config", "RefineResult": "refine.result",
    "TwoHandResult": "refine.result", "refine_sequence": "refine.motion.sequence",
    "SequenceResult": "refine.motion.sequence", "SequenceStream": "refine.motion.stream",
    "Status": "refine.files.status", "ObjectMesh": "contact.objects", "HandPose": "hand_models",
    "load_hand_model": "hand_models",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'refine' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
