"""Rotations as axis-angle vectors: the exponential map of SO(3), its inverse and its left Jacobian.

All functions are batched over leading dimensions, differentiable, and exact at zero angle. Formulas:
Solà, Deray, Atchuthan, "A micro Lie theory for state estimation in robotics", 2018 (eqs. 134, 145).
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALL = 1e-4  # below this angle sin(x) / x is its Taylor series, which has a derivative at zero


def skew(v: Tensor) -> Tensor:
    """Cross-product matrix: ``skew(v) @ x == cross(v, x)``. ``(..., 3) -> (..., 3, 3)``."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(*v.shape[:-1], 3, 3)


def _angle(aa: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared angle ``(..., 1, 1)``, a mask of small angles, and the angle, one where masked."""
    squared = (aa * aa).sum(-1)[..., None, None]
    small = squared < _SMALL**2
    safe = torch.where(small, torch.ones_like(squared), squared).sqrt()
    return squared, small, safe


def _versine(angle: Tensor) -> Tensor:
    """``(1 - cos x) / x²`` without the cancellation of ``1 - cos x`` at small angles."""
    half = 0.5 * angle
    return 0.5 * (torch.sin(half) / half) ** 2


def exp_so3(aa: Tensor) -> Tensor:
    """Axis-angle ``(..., 3)`` radians to rotation matrices ``(..., 3, 3)`` (Rodrigues' formula)."""
    squared, small, angle = _angle(aa)
    a = torch.where(small, 1 - squared / 6, torch.sin(angle) / angle)
    b = torch.where(small, 0.5 - squared / 24, _versine(angle))
    k = skew(aa)
    return torch.eye(3, dtype=aa.dtype, device=aa.device) + a * k + b * (k @ k)


def left_jacobian(aa: Tensor) -> Tensor:
    """Left Jacobian ``(..., 3, 3)``: ``exp(aa + d) ≈ exp(left_jacobian(aa) @ d) @ exp(aa)``."""
    squared, small, angle = _angle(aa)
    a = torch.where(small, 0.5 - squared / 24, _versine(angle))
    # This one does cancel, but times k² what is lost is one rounding error.
    b = torch.where(small, 1 / 6 - squared / 120, (angle - torch.sin(angle)) / angle**3)
    k = skew(aa)
    return torch.eye(3, dtype=aa.dtype, device=aa.device) + a * k + b * (k @ k)


def log_so3(rotation: Tensor) -> Tensor:
    """Rotation matrices ``(..., 3, 3)`` to axis-angle ``(..., 3)`` with angle in [0, π].

    Goes through the unit quaternion of largest component (Shepperd 1978), so it is stable at 0 and π.
    """
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    # Four equivalent quaternions (w, x, y, z), each scaled by 4 × one of its components.
    candidates = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0],
                         m[..., 1, 0] - m[..., 0, 1]], -1),
            torch.stack([m[..., 2, 1] - m[..., 1, 2], 1 + xx - yy - zz, m[..., 0, 1] + m[..., 1, 0],
                         m[..., 0, 2] + m[..., 2, 0]], -1),
            torch.stack([m[..., 0, 2] - m[..., 2, 0], m[..., 0, 1] + m[..., 1, 0], 1 - xx + yy - zz,
                         m[..., 1, 2] + m[..., 2, 1]], -1),
            torch.stack([m[..., 1, 0] - m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0],
                         m[..., 1, 2] + m[..., 2, 1], 1 - xx - yy + zz], -1),
        ],
        -2,
    )  # fmt: skip
    best = torch.diagonal(candidates, dim1=-2, dim2=-1).argmax(-1)
    q = torch.take_along_dim(candidates, best[..., None, None], dim=-2).squeeze(-2)
    q = torch.nn.functional.normalize(q, dim=-1)
    q = torch.where(q[..., :1] < 0, -q, q)
    w, v = q[..., :1], q[..., 1:]
    squared = (v * v).sum(-1, keepdim=True)
    small = squared < _SMALL**2
    sine = torch.where(small, torch.ones_like(squared), squared).sqrt()
    scale = torch.where(small, 2 + squared / 3, 2 * torch.atan2(sine, w) / sine)
    return scale * v


def mirror_axis_angle(aa: Tensor) -> Tensor:
    """The rotation seen in a mirror that flips x: y and z components change sign."""
    return aa * aa.new_tensor([1.0, -1.0, -1.0])
