"""How a given hand may be off: standard deviations along named axes, as a Gaussian about it."""

from __future__ import annotations

import torch
from torch import Tensor

from contact.input_error import CAMERA, TRACKING, InputError, line_of_sight
from contact.perturb import PROTOCOLS
from hand_models import HandModel, HandPose

from .pose_prior import PosePrior

EXACT = InputError(0.0001, 0.0005, 0.003)
"""What is called exact still has the rounding of its file."""
INPUT_ERRORS: dict[str, InputError | None] = {
    "unknown": None,
    "exact": EXACT,
    "tracker": TRACKING,
    "camera": CAMERA,
    **{name: error for name, error in PROTOCOLS.items() if name not in ("none", "camera", "camera-keypoints")},
}
"""By name. "unknown" says nothing; "camera" are the hands of an image estimator: on their picture, but not at their
depth; the others are the noise of the protocols of these names."""


def input_error(name: str) -> InputError | None:
    """The error called ``name``; ``ValueError`` lists the names when there is none."""
    if name not in INPUT_ERRORS:
        raise ValueError(f"input_error: {name!r} is unknown; choose one of {', '.join(INPUT_ERRORS)}.")
    return INPUT_ERRORS[name]


def prior_of(pose: HandPose, error: InputError, model: HandModel, camera: Tensor | None) -> PosePrior:
    """The Gaussian about hands in their object's frame.

    Args:
        camera: ``(B, 4, 4)`` object to camera, which says along which line an image estimator's hand is off.

    Raises:
        ValueError: the error depends on the camera, and none is given.
    """
    if error.along is not None and camera is None:
        raise ValueError(
            "input_error: 'camera' is along the line of sight; give object_pose, the object's pose before the camera."
        )
    if pose.side == "left":
        mirror = None if camera is None else camera * camera.new_tensor([-1.0, 1.0, 1.0, 1.0])
        return prior_of(pose.mirrored(), error, model, mirror).mirrored()
    view = None if camera is None else line_of_sight(pose, model, camera)
    factor = torch.linalg.cholesky(error.precision(pose, model, view).double())
    return PosePrior(pose, factor.to(pose.transl))
