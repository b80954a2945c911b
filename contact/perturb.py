"""Named, seeded noise on hand poses: the protocols grasp refinement is measured under."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hand_models import HandModel, HandPose
from hand_models.anatomy import from_anatomical
from hand_models.rotations import exp_so3, log_so3

from .input_error import CAMERA, POSE_UNIT, InputError

PROTOCOLS = {
    "contactopt": InputError(0.05, 0.1, 0.5),
    "image": InputError(0.02, 0.1, 0.3),
    "toch-t1": InputError(0.01, 0.0, 0.0),
    "toch-t2": InputError(0.02, 0.0, 0.0),
    "toch-r3": InputError(0.0, 0.0, 0.3),
    "toch-r5": InputError(0.0, 0.0, 0.5),
    "toch-b1": InputError(0.01, 0.05, 0.3),
    "toch-b2": InputError(0.02, 0.1, 0.5),
    "none": InputError(0.0, 0.0, 0.0),
    "camera": CAMERA,
    "camera-keypoints": CAMERA,
}
"""`camera-keypoints` puts the same noise on hands as `camera`; what it adds are keypoints beside them.

Sources: `contactopt`: Perturbed ContactPose (Grady et al., CVPR 2021); `toch-*`: TOCH (Zhou et al., ECCV 2022)."""

WALK = 0.95
"""Correlation of noise from one frame to the next where it drifts, as that of estimators does."""


def protocol(name: str) -> InputError:
    """The protocol called ``name``; ``ValueError`` lists the names when there is none."""
    if name not in PROTOCOLS:
        raise ValueError(f"protocol: {name!r} is unknown; choose one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def perturb(
    pose: HandPose,
    noise: InputError | str,
    *,
    seed: int | torch.Generator = 0,
    scale: Tensor | None = None,
    model: HandModel | None = None,
    view: Tensor | None = None,
    correlation: float = 0.0,
) -> HandPose:
    """Add a protocol's noise to every hand, wrists turning about the root joint, which stays where it is by that.

    Args:
        noise: a protocol or its name.
        seed: integer, or a CPU generator to continue.
        scale: ``(B,)`` optional factor on all the noise of each hand.
        model: right hand, needed for camera noise.
        view: ``(B, 3)`` unit vectors along the line of sight, for camera noise; random when None.
        correlation: of the noise of a hand with that of the next, for hands that are frames of a motion: every number
            is then an AR(1) process, whose standard deviation is the protocol's as ever. 0 for independent noise
            (``iid``), `WALK` for a drift (``walk``).

    Raises:
        ValueError: the protocol is unknown, ``scale`` is not ``(B,)``, or ``correlation`` not in [0, 1).
    """
    noise = protocol(noise) if isinstance(noise, str) else noise
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    batch = len(pose)
    draw = torch.randn(batch, 51, generator=generator)
    if correlation:
        draw = _walk(draw, correlation)
    if scale is not None:
        if scale.shape != (batch,):
            raise ValueError(f"scale: got shape {tuple(scale.shape)}; expected ({batch},), a factor for each hand.")
        draw = draw * scale[:, None].to(draw)
    draw = draw.to(pose.transl)
    if noise.along is not None:
        return _seen_by_camera(pose, noise, draw, view, model, generator)
    angles = draw[:, 6:].reshape(batch, 15, 3) * draw.new_tensor(POSE_UNIT) * noise.pose
    turn = exp_so3(draw[:, 3:6] * noise.rotation)
    return HandPose(
        pose.side,
        log_so3(turn @ exp_so3(pose.global_orient)),
        pose.hand_pose + from_anatomical(angles, side=pose.side),
        pose.betas,
        pose.transl + draw[:, :3] * noise.translation,
    )


def _walk(draw: Tensor, correlation: float) -> Tensor:
    """AR(1) processes of unit variance along the first dimension of standard normal ``draw``."""
    if not 0 <= correlation < 1:
        raise ValueError(f"correlation: got {correlation}; give 0 for independent noise, or less than 1.")
    new = (1 - correlation**2) ** 0.5
    rows = [draw[0]] if len(draw) else []
    for row in draw[1:]:
        rows.append(correlation * rows[-1] + new * row)
    return torch.stack(rows) if rows else draw


def _seen_by_camera(
    pose: HandPose,
    noise: InputError,
    draw: Tensor,
    view: Tensor | None,
    model: HandModel | None,
    generator: torch.Generator,
) -> HandPose:
    """Hands drawn from the noise's Gaussian, linearised at the truth."""
    if model is None:
        raise ValueError("model: missing; camera noise needs the hand that poses drive.")
    if pose.side == "left":
        flip = draw.new_tensor([-1.0, 1.0, 1.0])
        mirror = None if view is None else view * flip
        return _seen_by_camera(pose.mirrored(), noise, draw, mirror, model, generator).mirrored()
    if view is None:
        view = normalize(torch.randn(len(pose), 3, generator=generator), dim=1).to(draw)
    factor = torch.linalg.cholesky(noise.precision(pose, model, view).double())
    off = torch.linalg.solve_triangular(factor.transpose(1, 2), draw.double()[..., None], upper=True)
    return pose.retract(off[..., 0].to(draw))
