"""What is known of a hand before it is refined: a pose and how sure each of its numbers is, as a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hand_models import HandPose
from hand_models.pose import TANGENT_DIM
from hand_models.record import Record
from hand_models.solver.normal_equations import NormalEquations
from hand_models.solver.states import HandState

_BROADEST = 0.1  # metres, standard deviation


@dataclass(frozen=True, eq=False)
class PosePrior(Record):
    """Gaussians over ``B`` hands in the object's frame, in the tangent space of `HandPose.retract` at ``mean``."""

    mean: HandPose
    factor: Tensor
    """(B, 51, 51) lower triangular L; the precision, in metres and radians, is L Lᵀ"""

    @staticmethod
    def from_covariance(mean: HandPose, covariance: Tensor) -> PosePrior:
        """From ``covariance (B, 51, 51)``, metres and radians, positive definite."""
        precision = torch.linalg.inv(covariance.double())
        precision = 0.5 * (precision + precision.transpose(1, 2))
        return PosePrior(mean, torch.linalg.cholesky(precision).to(mean.transl))

    @property
    def places(self) -> Tensor:
        """(B,) bool: whether it says where the hand is: one broader than a hand says nothing of that."""
        return (self.factor[:, :3, :3].square().sum(2) > _BROADEST**-2).all(1)

    def mirrored(self) -> PosePrior:
        """Of the hands in a mirror that flips x."""
        turn = [1.0, -1.0, -1.0]
        sign = self.factor.new_tensor([-1.0, 1.0, 1.0, *turn * 16])
        return PosePrior(self.mean.mirrored(), self.factor * sign[:, None])

    def linearize(self, state: HandState) -> list[NormalEquations]:
        """With the derivative at the mean, which is exact for all but large rotations."""
        residual = (self.factor.transpose(1, 2) @ state.pose.offset(self.mean)[..., None])[..., 0]
        equations = NormalEquations.of(residual, self.factor)
        return [equations if state.dim == TANGENT_DIM else equations.embedded(state.dim, 0)]
