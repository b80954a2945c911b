"""A hand and a rigid object fitted to points in a camera's frame, by Gauss–Newton, with the posterior's precision.

Points are given in space with their standard deviations, and where there are keypoints also as seen in the picture.
Then the picture decides across the line of sight and the points only how far each lies behind the others: what
lifts keypoints to points errs in that, and in the depth of the whole, much more than detectors do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hand_models import HandModel, HandPose
from hand_models.record import Record
from hand_models.solver.least_squares import Solution, Termination, minimize
from hand_models.solver.normal_equations import NormalEquations
from hand_models.solver.states import HandState, RigidState
from hand_models.solver.terms import AnglePrior, JointLimits, ShapePrior, pseudo_huber


@dataclass(frozen=True, eq=False)
class PointEvidence(Record):
    """``N`` points of each of ``B`` grasps, camera frame; as a term, a state's landmarks lie where they are seen."""

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

    def of(self, nodes: slice) -> PointEvidence:
        """The evidence about some of the points."""
        rays = None if self.rays is None else self.rays[:, nodes]
        rays_sigma = None if self.rays_sigma is None else self.rays_sigma[:, nodes]
        return PointEvidence(
            self.points[:, nodes], self.sigma[:, nodes], rays, rays_sigma, self.depth_sigma, self.robust
        )

    def linearize(self, state: HandState | RigidState) -> list[NormalEquations]:
        at, rows = state.landmarks.points, state.landmarks.dense()  # (B, N, 3), (B, D, 3, N)
        inverse = _inverse(self.sigma)
        given = torch.where(inverse[..., None] > 0, self.points, torch.zeros_like(self.points))
        if self.rays is None or self.rays_sigma is None:
            off = (at - given) * inverse[..., None]
            return [self._robust(off.transpose(1, 2), rows * inverse[:, None, None])]
        sharp = _inverse(self.rays_sigma)
        seen = torch.where(sharp[..., None] > 0, self.rays, torch.zeros_like(self.rays))
        z = at[..., 2:].clamp_min(0.05)
        image = at[..., :2] / z
        off = ((image - seen) * sharp[..., None]).transpose(1, 2)
        slope = (rows[:, :, :2] - image.transpose(1, 2)[:, None] * rows[:, :, 2:]) / z[..., 0][:, None, None]
        across = self._robust(off, slope * sharp[:, None, None])
        # Depth: of each point among the others, and faintly of them all.
        share = inverse**2 / (inverse**2).sum(1, keepdim=True).clamp_min(1e-12)
        behind, deeper = at[..., 2] - given[..., 2], rows[:, :, 2]
        mean, mean_rows = ((behind * share).sum(1, keepdim=True), (deeper * share[:, None]).sum(2, keepdim=True))
        among = self._robust(
            ((behind - mean) * inverse)[:, None], ((deeper - mean_rows) * inverse[:, None])[:, :, None]
        )
        whole = 1 / (self.depth_sigma * (given[..., 2] * share).sum(1, keepdim=True).clamp_min(0.05))
        return [across, among, self._robust((mean * whole)[:, None], (mean_rows * whole[:, None])[:, :, None])]

    def _robust(self, residual: Tensor, rows: Tensor) -> NormalEquations:
        """Pseudo-Huber over points: ``residual (B, A, N)`` of A axes each, ``rows (B, D, A, N)``."""
        weight, loss = pseudo_huber((residual**2).sum(1, keepdim=True), self.robust)
        factor = weight.sqrt()
        return NormalEquations.of((residual * factor).flatten(1), (rows * factor[:, None]).flatten(2), loss.sum((1, 2)))


def _inverse(sigma: Tensor) -> Tensor:
    return torch.where(sigma.isfinite(), 1 / sigma.clamp_min(1e-6), torch.zeros_like(sigma))


def fit_hand(
    evidence: PointEvidence, start: HandPose, model: HandModel, *, with_betas: bool = True, iterations: int = 20
) -> Solution[HandState]:
    """Right hands that agree best with the evidence on their 21 joints, the anatomical prior and betas ~ N(0, 1).

    Returns:
        The solution; its Hessian is the posterior's precision, metres and radians, then betas.
    """
    terms = [evidence, AnglePrior.grasping(model.anatomy, len(start)), JointLimits(model.anatomy, 0.05)]
    if with_betas:
        terms.append(ShapePrior())
    return minimize(HandState.of(start, model, with_betas=with_betas), terms, Termination(iterations=iterations))


def fit_rigid(
    evidence: PointEvidence, local: Tensor, rotation: Tensor, translation: Tensor, *, iterations: int = 15
) -> Solution[RigidState]:
    """Poses that lay points ``local (B, N, 3)`` of a rigid body on the evidence.

    Args:
        local: in the body's frame.
        rotation: ``(B, 3, 3)`` to start from.
        translation: ``(B, 3)``.

    Returns:
        The solution; its Hessian is the posterior's precision of (translation of the body's origin, rotation about
        it in camera axes), metres and radians.
    """
    state = RigidState(local, rotation, translation)
    return minimize(state, [evidence], Termination(iterations=iterations, relative_decrease=1e-6))
