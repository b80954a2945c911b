"""A term's gradient and Hessian held against finite differences, and hands to try terms on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from synthetic_hand import random_pose
from torch import Tensor

from hand_models import HandModel, HandPose, PointJacobian
from hand_models.solver.normal_equations import NormalEquations
from hand_models.solver.states import HandState

STEP = 1e-6
SKIN = torch.arange(0, 60, 2)
WIDTHS = [51, 61]
SIDES = ["right", "left"]


@dataclass(frozen=True)
class Balls:
    """Signed distances to balls in closed form, in place of a grid of them."""

    centre: Tensor
    """(N, 3)"""
    radius: Tensor
    """(N,)"""

    def query(self, points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        offset = points - self.centre[which][:, None]
        norm = offset.norm(dim=-1)
        return norm - self.radius[which][:, None], offset / norm[..., None]


BALLS = Balls(torch.tensor([[0.5, 0.0, 0.0], [0.02, 0.0, -0.01]]).double(), torch.tensor([0.01, 0.06]).double())
WHICH = torch.tensor([1, 1])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hand_state(model: HandModel, pose: HandPose, width: int, skin: Tensor = SKIN) -> HandState:
    return HandState.of(pose, model, skin, width == 61)


def at_the_origin(model: HandModel, batch: int = 2) -> HandPose:
    """Hands whose wrists lie beside the second of `BALLS`."""
    pose = random_pose(batch)
    return replace(pose, transl=-model.root(pose) + 0.01)


def fixed_points(points: Tensor) -> PointJacobian:
    """Points that the wrist carries: their dense derivative by translation is the identity."""
    batch, count = points.shape[:2]
    frames = torch.zeros(batch, 16, 3, 3, dtype=points.dtype)
    return PointJacobian(points, torch.zeros(batch, 16, 3, count, dtype=points.dtype), frames)


def equations_of(term: Any, state: Any) -> NormalEquations:
    return state.assemble(term.linearize(state))


def check_term(
    term: Any, state: Any, residual: Callable[[Any, Any], Tensor], weight: Tensor | float = 1.0
) -> NormalEquations:
    """The term's equations, once they have been found right.

    Its gradient is the central difference of its cost, and its Hessian J W Jᵀ, where J is the central difference of
    ``residual(term, state) (B, N)`` and W the ``weight (B, N)`` on their squares.
    """
    equations, width = equations_of(term, state), state.dim
    assert equations.gradient.shape == (len(state), width)
    rows = torch.arange(len(state)).repeat_interleave(width)
    moves = (STEP * torch.eye(width, dtype=torch.float64)).repeat(len(state), 1)
    ahead, behind = (state[rows].retract(sign * moves) for sign in (1, -1))
    many = term[rows]
    slope = (equations_of(many, ahead).cost - equations_of(many, behind).cost) / (2 * STEP)
    assert slope.abs().max() > 0
    expected = slope.unflatten(0, (-1, width))
    torch.testing.assert_close(equations.gradient, expected, atol=2e-6 * slope.abs().max().item(), rtol=0)
    jacobian = ((residual(many, ahead) - residual(many, behind)) / (2 * STEP)).unflatten(0, (-1, width))
    weighted = jacobian * (weight[:, None] if isinstance(weight, Tensor) else weight)
    expected = weighted @ jacobian.transpose(1, 2)
    torch.testing.assert_close(equations.hessian, expected, atol=1e-6 * expected.abs().max().item(), rtol=0)
    return equations
