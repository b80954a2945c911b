"""Named, seeded noise on hand poses: the protocols grasp refinement is measured under."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hand_models import HandPose
from hand_models.anatomy import from_anatomical
from hand_models.rotations import exp_so3, log_so3


@dataclass(frozen=True)
class Protocol:
    """Standard deviations of Gaussian noise."""

    translation: float
    """metres per axis"""
    rotation: float
    """radians per axis, on the wrist"""
    pose: float
    """in the unit of ContactOpt's 15 principal components, see `POSE_UNIT`"""


PROTOCOLS = {
    "contactopt": Protocol(0.05, 0.1, 0.5),
    "image": Protocol(0.02, 0.1, 0.3),
    "toch-t1": Protocol(0.01, 0.0, 0.0),
    "toch-t2": Protocol(0.02, 0.0, 0.0),
    "toch-r3": Protocol(0.0, 0.0, 0.3),
    "toch-r5": Protocol(0.0, 0.0, 0.5),
    "toch-b1": Protocol(0.01, 0.05, 0.3),
    "toch-b2": Protocol(0.02, 0.1, 0.5),
    "none": Protocol(0.0, 0.0, 0.0),
}
"""Sources: `contactopt`: Perturbed ContactPose (Grady et al., CVPR 2021); `toch-*`: TOCH (Zhou et al., ECCV 2022)."""

TRACKING = Protocol(0.003, 0.03, 0.15)
"""What hands measured by cameras are typically off by: grasps of public data sets, as tracked, sink 5 to 10 mm into
their objects or float as far above them."""

POSE_UNIT = (0.41, 0.14, 0.08)
"""Radians of flexion, abduction and twist per joint and unit of pose noise. Chosen so that pose noise 0.3 and
0.5 displace the joints by as much as TOCH reports for its R.3 and R.5 (4.6 and 7.5 mm MPJPE on GRAB)."""


def protocol(name: str) -> Protocol:
    """The protocol called ``name``; ``ValueError`` lists the names when there is none."""
    if name not in PROTOCOLS:
        raise ValueError(f"protocol: {name!r} is unknown; choose one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def perturb(
    pose: HandPose, noise: Protocol | str, *, seed: int | torch.Generator = 0, scale: torch.Tensor | None = None
) -> HandPose:
    """Add a protocol's noise to every hand, wrists turning about the root joint, which stays where it is by that.

    Args:
        noise: a protocol or its name.
        seed: integer, or a CPU generator to continue.
        scale: ``(B,)`` optional factor on all the noise of each hand.

    Raises:
        ValueError: the protocol is unknown, or ``scale`` is not ``(B,)``.
    """
    noise = protocol(noise) if isinstance(noise, str) else noise
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    batch = len(pose)
    draw = torch.randn(batch, 51, generator=generator)
    if scale is not None:
        if scale.shape != (batch,):
            raise ValueError(f"scale: got shape {tuple(scale.shape)}; expected ({batch},), a factor for each hand.")
        draw = draw * scale[:, None].to(draw)
    draw = draw.to(pose.transl)
    angles = draw[:, 6:].reshape(batch, 15, 3) * draw.new_tensor(POSE_UNIT) * noise.pose
    turn = exp_so3(draw[:, 3:6] * noise.rotation)
    return HandPose(
        pose.side,
        log_so3(turn @ exp_so3(pose.global_orient)),
        pose.hand_pose + from_anatomical(angles, side=pose.side),
        pose.betas,
        pose.transl + draw[:, :3] * noise.translation,
    )
