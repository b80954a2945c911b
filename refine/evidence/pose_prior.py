"""What is known of a hand before it is refined: a pose and how sure each of its numbers is, as a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hand_models import HandPose
from hand_models.pose import TANGENT_DIM
from hand_models.rotations import exp_so3, log_so3


@dataclass(frozen=True)
class PosePrior:
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

    def __getitem__(self, index: Tensor | slice) -> PosePrior:
        return PosePrior(self.mean[index], self.factor[index])

    def to(self, device: torch.device | str) -> PosePrior:
        """Move to a device."""
        return PosePrior(self.mean.to(device), self.factor.to(device))

    def mirrored(self) -> PosePrior:
        """Of the hands in a mirror that flips x."""
        turn = [1.0, -1.0, -1.0]
        sign = self.factor.new_tensor([-1.0, 1.0, 1.0, *turn * 16])
        return PosePrior(self.mean.mirrored(), self.factor * sign[:, None])

    def residual(self, state: HandPose) -> tuple[Tensor, Tensor]:
        """Whitened deviation ``(B, 51)`` of ``state`` from the mean and its derivative, transposed, ``(B, 51, 51)``.

        The derivative is that at the mean, which is exact for all but large rotations.
        """
        rotation = exp_so3(state.global_orient) @ exp_so3(self.mean.global_orient).transpose(1, 2)
        off = torch.cat(
            [
                state.transl - self.mean.transl,
                log_so3(rotation),
                (state.hand_pose - self.mean.hand_pose).flatten(1),
            ],
            1,
        )
        assert off.shape[1] == TANGENT_DIM
        return (self.factor.transpose(1, 2) @ off[..., None])[..., 0], self.factor
