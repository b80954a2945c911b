"""Muon for matrices, AdamW for the rest, as one optimiser.

Muon (Jordan et al., 2024) replaces the momentum of a weight matrix by the nearest orthogonal one, so that rare
directions are learnt as fast as common ones. `torch.optim.Muon` computes in bfloat16, which processors without
such arithmetic take longer over than over the whole rest of a step; this one stays in the weights' precision and
does all matrices of a shape at once.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_STEPS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, Jordan et al.


def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices ``(N, a, b)`` with all singular values brought near one by five Newton–Schulz iterations."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    a, b, c = _COEFFICIENTS
    for _ in range(_STEPS):
        gram = x @ x.transpose(1, 2)
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for matrices, with Nesterov momentum and decoupled weight decay.

    A step has the root mean square that one of AdamW typically has, 0.2 of the learning rate (Liu et al., 2025).
    """

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float = 0.01, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """One step; parameters without gradient stay."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, params in by_shape.items():
                updates = []
                for p in params:
                    state = self.state[p]
                    past = state.setdefault("momentum", torch.zeros_like(p))
                    past.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(torch.lerp(p.grad, past, group["momentum"]))
                turned = orthogonalise(torch.stack(updates)) * (0.2 * max(shape) ** 0.5)
                for p, update in zip(params, turned, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])
