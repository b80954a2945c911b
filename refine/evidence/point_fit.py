"""A hand and a rigid object fitted to points in a camera's frame, by Gauss–Newton, with the posterior's precision.

Points are given in space with their standard deviations, and where there are keypoints also as seen in the picture.
Then the picture decides across the line of sight and the points only how far each lies behind the others: what
lifts keypoints to points errs in that, and in the depth of the whole, much more than detectors do.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from hand_models import HandModel, HandPose
from hand_models.anatomy import default_anatomy
from hand_models.pose import TANGENT_DIM
from hand_models.rotations import exp_so3, skew
from hand_models.solver.least_squares import NormalEquations, Solution, Termination, minimize

_FREE = TANGENT_DIM + 10


@dataclass(frozen=True)
class PointEvidence:
    """``N`` points of each of ``B`` grasps, camera frame."""

    points: Tensor
    """(B, N, 3) metres"""
    sigma: Tensor
    """(B, N) metres per axis; infinite where a point is missing"""
    rays: Tensor | None = None
    """(B, N, 2) x / z and y / z of the keypoints"""
    rays_sigma: Tensor | None = None
    """(B, N) in the same unit; infinite where missing"""
    depth_sigma: float = 0.1
    """standard deviation of the depth of the whole, as a share of it, where keypoints are given"""
    robust: float = 3.0
    """standard deviations beyond which a point pulls no harder"""

    def __getitem__(self, index: Tensor | slice) -> PointEvidence:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return PointEvidence(**{k: v[index] if isinstance(v, Tensor) else v for k, v in values.items()})

    def of(self, nodes: slice) -> PointEvidence:
        """The evidence about some of the points."""
        rays = None if self.rays is None else self.rays[:, nodes]
        rays_sigma = None if self.rays_sigma is None else self.rays_sigma[:, nodes]
        return PointEvidence(
            self.points[:, nodes], self.sigma[:, nodes], rays, rays_sigma, self.depth_sigma, self.robust
        )

    def linear(self, at: Tensor, rows: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        """Residuals of the model's points ``at (B, N, 3)``, derivative ``rows (B, D, 3, N)``.

        Returns:
            Arguments of `NormalEquations.add`: ``(residual (B, M), rows (B, D, M), loss (B,))``.
        """
        inverse = _inverse(self.sigma)
        given = torch.where(inverse[..., None] > 0, self.points, torch.zeros_like(self.points))
        if self.rays is None or self.rays_sigma is None:
            residual = (at - given) * inverse[..., None]
            return (_robust(residual.transpose(1, 2), rows * inverse[:, None, None], self.robust),)
        sharp = _inverse(self.rays_sigma)
        seen = torch.where(sharp[..., None] > 0, self.rays, torch.zeros_like(self.rays))
        z = at[..., 2:].clamp_min(0.05)
        image = at[..., :2] / z
        residual = ((image - seen) * sharp[..., None]).transpose(1, 2)
        slope = (rows[:, :, :2] - image.transpose(1, 2)[:, None] * rows[:, :, 2:]) / z[..., 0][:, None, None]
        across = _robust(residual, slope * sharp[:, None, None], self.robust)
        # Depth: of each point among the others, and faintly of them all.
        share = inverse**2 / (inverse**2).sum(1, keepdim=True).clamp_min(1e-12)
        behind, deeper = at[..., 2] - given[..., 2], rows[:, :, 2]
        mean, mean_rows = (
            (behind * share).sum(1, keepdim=True),
            (deeper * share[:, None]).sum(2, keepdim=True),
        )
        among = _robust(
            ((behind - mean) * inverse)[:, None],
            ((deeper - mean_rows) * inverse[:, None])[:, :, None],
            self.robust,
        )
        whole = 1 / (self.depth_sigma * (given[..., 2] * share).sum(1, keepdim=True).clamp_min(0.05))
        return (
            across,
            among,
            _robust((mean * whole)[:, None], (mean_rows * whole[:, None])[:, :, None], self.robust),
        )


def _inverse(sigma: Tensor) -> Tensor:
    return torch.where(sigma.isfinite(), 1 / sigma.clamp_min(1e-6), torch.zeros_like(sigma))


def _robust(residual: Tensor, rows: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Pseudo-Huber over points: ``residual (B, A, N)`` of A axes each, ``rows (B, D, A, N)``."""
    root = (1 + (residual**2).sum(1, keepdim=True) / scale**2).sqrt()
    factor = root.rsqrt()
    loss = (scale**2 * (root - 1)).sum((1, 2))
    return (residual * factor).flatten(1), (rows * factor[:, None]).flatten(2), loss


def fit_hand(
    evidence: PointEvidence,
    start: HandPose,
    model: HandModel,
    *,
    with_betas: bool = True,
    iterations: int = 20,
) -> Solution:
    """Right hands that agree best with the evidence on their 21 joints, the anatomical prior and betas ~ N(0, 1).

    Returns:
        The solution; its Hessian is the posterior's precision, metres and radians, then betas.
    """
    anatomy = default_anatomy().to(start.transl)
    turn = torch.block_diag(*anatomy.basis.transpose(1, 2))
    mean, std, lower, upper = (t.flatten() for t in (anatomy.mean, anatomy.std, anatomy.lower, anatomy.upper))
    none = torch.zeros(0, dtype=torch.long, device=start.transl.device)
    dim = _FREE if with_betas else TANGENT_DIM

    def linearize(pose: HandPose, index: Tensor) -> NormalEquations:
        joints = model.jacobian(pose, none, with_betas=with_betas).joints
        equations = NormalEquations.zeros(len(index), dim, pose.transl)
        for terms in evidence[index].linear(joints.points, joints.dense()):
            equations = equations.add(*terms)
        angles = pose.hand_pose.flatten(1) @ turn
        excess = angles - torch.minimum(torch.maximum(angles, lower), upper)
        for residual, slope in (
            ((angles - mean) / std, (1 / std).expand_as(angles)),
            (excess / 0.05, (excess != 0) / 0.05),
        ):
            rows = residual.new_zeros(len(index), dim, 45)
            rows[:, 6:TANGENT_DIM] = turn * slope[:, None]
            equations = equations.add(residual, rows)
        if with_betas:
            equations = equations.add_diagonal(pose.betas, torch.ones_like(pose.betas), TANGENT_DIM)
        return equations

    return minimize(linearize, start, Termination(iterations=iterations, relative_decrease=1e-4))


@dataclass(frozen=True)
class RigidFit:
    """Object to camera, ``B`` poses, and how sure they are."""

    rotation: Tensor
    """(B, 3, 3)"""
    translation: Tensor
    """(B, 3)"""
    precision: Tensor
    """(B, 6, 6) of (translation of the object's origin, rotation about it in camera axes), metres and radians"""


@torch.no_grad()
def fit_rigid(
    evidence: PointEvidence, local: Tensor, rotation: Tensor, translation: Tensor, *, iterations: int = 15
) -> RigidFit:
    """Poses that lay points ``local (B, N, 3)`` of a rigid body on the evidence, by Levenberg–Marquardt.

    Args:
        local: in the body's frame.
        rotation: ``(B, 3, 3)`` to start from.
        translation: ``(B, 3)``.
    """

    def linearize(turn: Tensor, shift: Tensor) -> NormalEquations:
        arms = local @ turn.transpose(1, 2)
        moves = torch.eye(3).to(arms)[None, :, :, None].expand(len(arms), 3, 3, arms.shape[1])
        turns = -skew(arms).permute(0, 3, 2, 1)  # row j of skew(arm)ᵀ: e_j × arm
        equations = NormalEquations.zeros(len(arms), 6, arms)
        for terms in evidence.linear(arms + shift[:, None], torch.cat([moves, turns], 1)):
            equations = equations.add(*terms)
        return equations

    damping = torch.full_like(translation[:, 0], 1e-2)
    now = linearize(rotation, translation)
    for _ in range(iterations):
        boost = damping[:, None] * torch.diagonal(now.hessian, dim1=1, dim2=2) + 1e-9
        step = -torch.linalg.solve(now.hessian + torch.diag_embed(boost), now.gradient)
        turn, shift = exp_so3(step[:, 3:]) @ rotation, translation + step[:, :3]
        new = linearize(turn, shift)
        better = new.cost < now.cost
        rotation = torch.where(better[:, None, None], turn, rotation)
        translation = torch.where(better[:, None], shift, translation)
        now = NormalEquations(
            torch.where(better, new.cost, now.cost), torch.where(better[:, None], new.gradient, now.gradient),
            torch.where(better[:, None, None], new.hessian, now.hessian),
        )  # fmt: skip
        damping = (damping * torch.where(better, 0.3, 5.0)).clamp(1e-6, 1e6)
    return RigidFit(rotation, translation, now.hessian)
