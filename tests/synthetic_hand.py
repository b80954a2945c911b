"""A small hand of random numbers: every term of skinning is exercised, nothing is symmetric by accident."""

from __future__ import annotations

import torch
from torch import Tensor

from hand_models.model import HandModel
from hand_models.pose import HandPose


def random_hand(*, side: str = "right", posedirs: bool = True, vertices: int = 60, seed: int = 0) -> HandModel:
    """A float64 model with dense random weights, shapes and regressors; its faces mean nothing."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    every = torch.arange(vertices)
    tips = draw(5, vertices, scale=2.0).masked_fill(every % 3 != 0, -torch.inf).softmax(1)
    return HandModel(
        name="random",
        side=side,
        template=draw(vertices, 3, scale=0.05),
        shapedirs=draw(vertices, 3, 10, scale=0.01),
        posedirs=draw(vertices, 3, 135, scale=0.01) if posedirs else None,
        joint_regressor=draw(16, vertices, scale=2.0).softmax(1),
        weights=draw(vertices, 16, scale=2.0).softmax(1),
        faces=every[: 3 * (vertices // 3)].reshape(-1, 3),
        closed_faces=every.flip(0)[: 3 * (vertices // 3)].reshape(-1, 3),
        tip_regressor=tips,
        contact_points=every[::2],
    )


def random_pose(batch: int = 3, *, side: str = "right", dtype: torch.dtype = torch.float64, seed: int = 0) -> HandPose:
    """Generic poses and shapes, far from zero in every component."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float) -> Tensor:
        return (scale * torch.randn(batch, *shape, generator=generator, dtype=torch.float64)).to(dtype)

    return HandPose(side, draw(3, scale=1.0), draw(15, 3, scale=0.4), draw(10, scale=1.0), draw(3, scale=0.2))
