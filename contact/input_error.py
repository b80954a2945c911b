"""`InputError`: how a hand that someone gives may be off, as a Gaussian; noise is drawn from the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hand_models import HandModel, HandPose
from hand_models.solver.states import HandState

POSE_UNIT = (0.41, 0.14, 0.08)
"""Radians of flexion, abduction and twist per joint and unit of pose noise. Chosen so that pose noise 0.3 and
0.5 displace the joints by as much as TOCH reports for its R.3 and R.5 (4.6 and 7.5 mm MPJPE on GRAB)."""
_LEAST = 1e-4  # metres, radians: nothing is surer than this


@dataclass(frozen=True)
class InputError:
    """Standard deviations of what hands are off by: independent errors in place, turn and fingers and, where
    ``along`` is given, of hands as an image estimator sees them.

    Their place is off along the line of sight by ``along``, across it by ``translation``; and as the picture shows
    where the joints are across the view, those are off by no more than ``picture``.
    """

    translation: float
    """metres per axis"""
    rotation: float
    """radians per axis, on the wrist"""
    pose: float
    """in the unit of ContactOpt's 15 principal components, see `POSE_UNIT`"""
    along: float | None = None
    """metres, of the place along the line of sight; None where that is as off as the other axes"""
    picture: float = 4 * 0.7 / 600
    """metres across the view, of each joint: 4 pixels at a focal length of 600 and a distance of 0.7 m"""
    share: float = 0.25
    """how much of an observation of its own each joint is: the picture shows them all displaced alike"""

    def precision(self, pose: HandPose, model: HandModel, view: Tensor | None = None) -> Tensor:
        """Inverse covariance ``(B, 51, 51)`` in the tangent space of right hands ``pose``, metres and radians.

        Args:
            view: ``(B, 3)`` unit vectors along the line of sight, in the frame of the hands.

        Raises:
            ValueError: it is not given, and the error is along it.
        """
        place, turn, angles = (max(v, _LEAST) ** -2 for v in (self.translation, self.rotation, self.pose))
        axes = model.anatomy.axes().to(pose.transl)
        bend = axes.transpose(1, 2) * (angles * axes.new_tensor(POSE_UNIT) ** -2) @ axes  # (15, 3, 3)
        diagonal = torch.diag(axes.new_tensor([place] * 3 + [turn] * 3))
        precision = torch.block_diag(diagonal, *bend).repeat(len(pose), 1, 1)
        if self.along is None:
            return precision
        if view is None:
            raise ValueError("view: missing; an image estimator's error is along the line of sight, (B, 3).")
        along = view[:, :, None] * view[:, None]
        precision[:, :3, :3] += along * (max(self.along, _LEAST) ** -2 - place)
        across = torch.eye(3).to(along) - along
        joints = HandState.of(pose, model).joints.dense()  # (B, 51, 3, 21)
        seen = torch.einsum("bcd,bkdj->bkcj", across, joints).flatten(2)
        return precision + self.share / self.picture**2 * seen @ seen.transpose(1, 2)


def line_of_sight(pose: HandPose, model: HandModel, camera: Tensor) -> Tensor:
    """Unit vectors ``(B, 3)`` from the camera to hands in their object's frame; ``camera (B, 4, 4)``: object to it."""
    centre = -(camera[:, :3, :3].transpose(1, 2) @ camera[:, :3, 3:])[..., 0]
    return normalize(model.joints(pose).mean(1) - centre, dim=1)


TRACKING = InputError(0.003, 0.03, 0.15)
"""What hands measured by cameras are typically off by: grasps of public data sets, as tracked, sink 5 to 10 mm into
their objects or float as far above them."""
CAMERA = InputError(0.05, 0.15, 0.3, along=0.04)
"""What an image estimator's hand is off by: little across the view, where the picture shows it, much along it."""
