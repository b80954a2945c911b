"""The latent of `ContactNet`: which of the grasps that fit the observation is meant.

A small vector in the manner of Neural Processes (Garnelo et al., 2018) and conditional variational
autoencoders (Sohn et al., NeurIPS 2015). In training it is told the true joints and has to say as little as
possible about them; afterwards it is drawn, and each draw gives one plausible field. It moves every token by an
adapter in front of each later layer, which is learnt last, with all else at rest: without a latent the tokens
pass untouched, and the network gives the mean over what it cannot tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .features import LENGTH

_JOINTS = 21


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions."""

    mean: Tensor
    """(B, Z)"""
    log_std: Tensor
    """(B, Z)"""

    def draw(self, noise: Tensor) -> Tensor:
        """The point that standard normal ``noise``, broadcast to ``(..., B, Z)``, leads to."""
        return self.mean + self.log_std.exp() * noise

    def divergence(self, prior: Gaussian) -> Tensor:
        """(B,) Kullback–Leibler divergence from ``prior``, nats."""
        ratio = self.log_std - prior.log_std
        shift = (self.mean - prior.mean) * (-prior.log_std).exp()
        return (0.5 * ((2 * ratio).exp() + shift**2 - 1) - ratio).sum(-1)


class _Adapter(nn.Module):
    """Moves each token by what the latent means for it; at first by next to nothing."""

    def __init__(self, token: int, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(token)
        self.of_token, self.of_latent = nn.Linear(token, token), nn.Linear(size, token)
        self.out = nn.Linear(token, token)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor, latent: Tensor) -> Tensor:
        hidden = self.of_token(self.norm(tokens)) + self.of_latent(latent)[:, None]
        # A move counts by the size of what it moves, and tokens grow in training: fivefold under Muon.
        return tokens + tokens.std(-1, keepdim=True) * self.out(torch.relu(hidden))


class Latent(nn.Module):
    """Prior and posterior of the latent, and its way into the tokens."""

    def __init__(self, token: int, size: int, layers: int) -> None:
        super().__init__()
        self.prior_head = nn.Sequential(nn.Linear(token, token), nn.ReLU(), nn.Linear(token, 2 * size))
        told = token + 3 * _JOINTS
        self.posterior_head = nn.Sequential(nn.Linear(told, token), nn.ReLU(), nn.Linear(token, 2 * size))
        self.adapters = nn.ModuleList(_Adapter(token, size) for _ in range(layers))

    def prior(self, summary: Tensor) -> Gaussian:
        """What the observation alone leaves open; ``summary (B, token)``."""
        return _gaussian(self.prior_head(summary))

    def posterior(self, summary: Tensor, shift: Tensor) -> Gaussian:
        """Where the latent lies once the truth is known.

        Args:
            summary: ``(B, token)`` of the observation.
            shift: ``(B, 21, 3)`` true joints less observed ones, wrist frame, metres.
        """
        return _gaussian(self.posterior_head(torch.cat([summary, shift.flatten(1) / LENGTH], -1)))

    def enter(self, tokens: Tensor, latent: Tensor | None, layer: int) -> Tensor:
        """Tokens ``(B, T, token)`` in front of the ``layer``-th later layer, moved by ``latent (B, Z)`` if any."""
        return tokens if latent is None else self.adapters[layer](tokens, latent)


def _gaussian(raw: Tensor) -> Gaussian:
    mean, log_std = raw.chunk(2, -1)
    return Gaussian(mean, log_std.clamp(-4, 2))
