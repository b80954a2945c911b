"""Hand models: pose parameters, skinning with analytic derivatives, the open hand and MANO."""

from __future__ import annotations

from .model import Hand, HandJacobian, HandModel, PointJacobian
from .pose import HandPose

__all__ = ["Hand", "HandJacobian", "HandModel", "HandPose", "PointJacobian"]
