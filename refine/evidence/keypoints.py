"""What a picture says of a hand: its 21 joints, as a camera sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hand_models.record import Record
from hand_models.solver.point_forces import PointForces
from hand_models.solver.states import HandState
from hand_models.solver.terms import pseudo_huber

NEAREST = 0.05  # metres before the camera; nothing nearer is seen
_ENOUGH = 4  # keypoints that tell place and turn


@dataclass(frozen=True, eq=False)
class Reprojection(Record):
    """The joints of ``B`` hands, in their object's frame, lie where they are seen in the picture."""

    keypoints: Tensor
    """(B, 21, 2) pixels"""
    sigma: Tensor
    """(B, 21) pixels per axis; infinite where a keypoint is missing"""
    camera: Tensor
    """(B, 3, 3) intrinsics, pixels"""
    object_pose: Tensor
    """(B, 4, 4) object to camera"""
    robust: float = 3.0
    """standard deviations beyond which a keypoint pulls no harder"""

    @property
    def places(self) -> Tensor:
        """(B,) bool: whether there are keypoints enough to say where the hand is."""
        return self.sigma.isfinite().sum(1) >= _ENOUGH

    @property
    def known(self) -> Tensor:
        """(B, 21, 2) the keypoints; NaN where one is missing."""
        return self.keypoints.masked_fill(~self.sigma.isfinite()[..., None], torch.nan)

    def project(self, joints: Tensor) -> Tensor:
        """Pixels ``(B, 21, 2)`` of joints ``(B, 21, 3)`` in the object's frame."""
        return self._seen(joints)[0]

    def _seen(self, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels ``(B, 21, 2)`` and their derivative by the joints ``(B, 21, 2, 3)``."""
        rotation, shift = self.object_pose[:, :3, :3], self.object_pose[:, :3, 3]
        toward = self.camera @ rotation  # (B, 3, 3)
        image = joints @ toward.transpose(1, 2) + (self.camera @ shift[..., None]).transpose(1, 2)
        depth = image[..., 2:].clamp_min(NEAREST)
        pixels = image[..., :2] / depth
        slope = toward[:, None, :2] - pixels[..., None] * toward[:, None, 2:]
        return pixels, slope / depth[..., None]

    def mirrored(self) -> Reprojection:
        """Of the hands in a mirror that flips x: the camera looks at the mirror image and sees the same."""
        flip = self.object_pose.new_tensor([-1.0, 1.0, 1.0, 1.0])
        return replace(self, object_pose=self.object_pose * flip)

    def linearize(self, state: HandState) -> list[PointForces]:
        pixels, slope = self._seen(state.joints.points)
        inverse = torch.where(self.sigma.isfinite(), 1 / self.sigma, torch.zeros_like(self.sigma))
        off = (pixels - self.keypoints) * inverse[..., None]
        weight, loss = pseudo_huber(off.square().sum(2), self.robust)
        factor, cost = weight.sqrt(), 0.5 * loss.sum(1)  # the two axes share it
        return [
            PointForces.along(state.joints, slope[:, :, axis], (factor * off[..., axis], factor * inverse, cost))
            for axis in (0, 1)
        ]
