"""Joint angles a hand surgeon would recognise: anatomical axes, ranges of motion and a grasping prior.

MANO poses are axis-angle vectors in the axes of the rest hand, where "bend the little finger" is a mixture
of all three numbers. Here every joint gets an orthonormal basis (flexion, abduction, twist), and the
*axis-angle vector expressed in that basis* is the coordinate in which limits and priors are stated. It is
not an Euler sequence; for the single-axis motions the literature measures the two agree.

Axes, right hand (rows of the basis; right-handed; a left hand is mirrored first):

- *twist*: along the bone at rest, outwards. Positive is supination (the pulp turns to the thumb's side).
- *flexion*: perpendicular to the bone and to the back of the finger. Positive bends to the palm.
- *abduction*: ``twist × flexion``. Positive moves the finger to the thumb's side (radially); for the
  thumb's base, out of the palm (palmar abduction), its flexion sweeping across the palm.

Where the backs of the fingers and the ranges of motion come from: docs/anatomy.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .pose import check_side
from .record import Record, shared
from .rotations import mirror_axis_angle

FINGERS = ("index", "middle", "pinky", "ring", "thumb")
JOINT_NAMES = tuple(f"{finger}{k}" for finger in FINGERS for k in (1, 2, 3))

# Bones of the mean right hand at rest, millimetres, wrist -> 1 -> 2 -> 3 -> tip. These directions are what
# axis-angle hand poses in MANO's convention refer to.
_REST_BONES_MM: dict[str, tuple[tuple[float, float, float], ...]] = {
    "index": ((-88.1, -5.2, 20.7), (-32.7, 4.0, 2.2), (-22.2, -1.3, -0.1), (-23.3, 0.7, 4.0)),
    "middle": ((-94.7, -1.5, -3.4), (-31.2, 1.9, -5.6), (-22.9, -1.3, -3.9), (-31.0, -1.4, -6.4)),
    "pinky": ((-68.8, -9.9, -43.2), (-17.0, 0.1, -12.5), (-15.9, -0.7, -10.3), (-19.6, 2.6, -11.5)),
    "ring": ((-81.7, -4.0, -26.7), (-28.3, 2.1, -5.1), (-23.5, -1.7, -7.6), (-29.2, 3.7, -8.1)),
    "thumb": ((-24.1, -15.5, 25.8), (-19.6, 0.9, 23.7), (-22.2, -5.4, 14.5), (-31.5, -6.5, 20.5)),
}
_THUMB_BACK = (1.0, 1.0, 1.0)
_ACROSS = ("index", "middle", "ring", "pinky")  # knuckles from the thumb's side outwards

# Ranges in degrees as a goniometer reads them (straight finger, parallel to the middle one, is zero; for
# the thumb's base the rest pose, a thumb held out in the plane of the palm, is zero).
# joint: (flexion lo, hi), (abduction lo, hi), (twist lo, hi)
_Range = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
_RANGES: dict[str, _Range] = {
    "index1": ((-40, 95), (-25, 30), (-25, 25)),
    "index2": ((-10, 110), (-20, 20), (-25, 25)),
    "index3": ((-20, 90), (-20, 20), (-20, 20)),
    "middle1": ((-40, 100), (-30, 25), (-20, 25)),
    "middle2": ((-10, 110), (-20, 20), (-25, 25)),
    "middle3": ((-20, 90), (-20, 20), (-20, 20)),
    "pinky1": ((-40, 115), (-55, 15), (-25, 35)),
    "pinky2": ((-10, 110), (-20, 20), (-35, 35)),
    "pinky3": ((-20, 90), (-20, 20), (-25, 40)),
    "ring1": ((-40, 105), (-30, 25), (-20, 30)),
    "ring2": ((-10, 110), (-20, 20), (-25, 25)),
    "ring3": ((-20, 90), (-20, 20), (-20, 25)),
    "thumb1": ((-25, 70), (-20, 70), (-50, 25)),
    "thumb2": ((-25, 65), (-35, 25), (-25, 40)),
    "thumb3": ((-20, 85), (-20, 45), (-35, 25)),
}

# Grasping prior, degrees, same zero. Flexion: the middle of the functional range of Bain et al. (J. Hand
# Surg. Eur. 40, 2015: 90 % of daily grasps within MCP 19-71, PIP 23-87, DIP 10-64) drawn towards the
# relaxed hand, since half of those grasps are small objects and full fists; the spread covers both.
# Thumb: functional flexion 21 (MCP) and 18 (IP), Hume et al., J. Hand Surg. 15A, 1990; the base opposed,
# i.e. flexed, abducted and pronated about half way (Cooney 1981). joint: (mean), (standard deviation)
_PRIOR: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "index1": ((30, 0, -4), (22, 9, 8)),
    "index2": ((45, 0, 0), (20, 6, 7)),
    "index3": ((20, 0, 0), (15, 5, 6)),
    "middle1": ((35, 0, 0), (22, 8, 7)),
    "middle2": ((48, 0, 0), (20, 6, 7)),
    "middle3": ((20, 0, 0), (15, 5, 6)),
    "pinky1": ((38, -12, 3), (24, 12, 9)),
    "pinky2": ((42, 0, 0), (20, 6, 10)),
    "pinky3": ((18, 0, 4), (15, 6, 9)),
    "ring1": ((36, -4, 2), (23, 9, 7)),
    "ring2": ((46, 0, 0), (20, 6, 7)),
    "ring3": ((20, 0, 0), (15, 5, 6)),
    "thumb1": ((30, 30, -18), (16, 14, 10)),
    "thumb2": ((12, 0, 5), (15, 14, 14)),
    "thumb3": ((20, 6, -5), (18, 14, 12)),
}


@dataclass(frozen=True, eq=False)
class Anatomy(Record):
    """Axes, limits and priors of the fifteen finger joints, in MANO order. Radians, float32.

    Angles are axis-angle vectors in `basis`, zero at the model's zero pose, for a right hand (left hands
    are mirrored by `to_anatomical` and `from_anatomical`, so the same numbers hold for both).
    """

    basis: Tensor = shared()
    """(15, 3, 3) rows flexion, abduction, twist: ``angles = basis @ axis_angle``; a rotation."""
    rest: Tensor = shared()
    """(15, 3) what a goniometer reads at the zero pose: ``goniometer = angles + rest``."""
    lower: Tensor = shared()
    """(15, 3) smallest angles of the range of motion."""
    upper: Tensor = shared()
    """(15, 3) largest angles."""
    mean: Tensor = shared()
    """(15, 3) centre of the grasping prior, a Gaussian independent per angle."""
    std: Tensor = shared()
    """(15, 3) its standard deviations."""

    def axes(self, side: str = "right") -> Tensor:
        """(15, 3, 3) `basis` of hands of ``side``: a left hand has the angles of its mirror image."""
        return self.basis if check_side(side) == "right" else mirror_axis_angle(self.basis)

    def to_anatomical(self, hand_pose: Tensor, *, side: str = "right") -> Tensor:
        """Axis-angle ``(..., 15, 3)`` of a hand to (flexion, abduction, twist) ``(..., 15, 3)``, radians."""
        _check_pose("hand_pose", hand_pose)
        return torch.einsum("jkc,...jc->...jk", self.axes(side).to(hand_pose), hand_pose)

    def from_anatomical(self, angles: Tensor, *, side: str = "right") -> Tensor:
        """(flexion, abduction, twist) ``(..., 15, 3)`` radians to axis-angle ``(..., 15, 3)`` of a hand."""
        _check_pose("angles", angles)
        return torch.einsum("jkc,...jk->...jc", self.axes(side).to(angles), angles)

    def violation(self, hand_pose: Tensor, *, side: str = "right") -> Tensor:
        """Excess over the range ``(..., 15, 3)`` radians: negative below, zero within, positive above."""
        angles = self.to_anatomical(hand_pose, side=side)
        return angles - torch.minimum(torch.maximum(angles, self.lower.to(angles)), self.upper.to(angles))

    def clamp(self, hand_pose: Tensor, *, side: str = "right") -> Tensor:
        """The axis-angle ``(..., 15, 3)`` with every angle brought within its range."""
        angles = self.to_anatomical(hand_pose, side=side)
        inside = torch.minimum(torch.maximum(angles, self.lower.to(angles)), self.upper.to(angles))
        return self.from_anatomical(inside, side=side)

    def sample(self, count: int, generator: torch.Generator, *, side: str = "right") -> Tensor:
        """Draw ``(count, 15, 3)`` axis-angle poses from the prior, clamped to the range of motion."""
        noise = torch.randn(count, 15, 3, generator=generator)
        return self.clamp(self.from_anatomical(self.mean + noise * self.std, side=side), side=side)


def _check_pose(name: str, value: Tensor) -> None:
    if value.shape[-2:] != (15, 3):
        raise ValueError(f"{name}: got shape {tuple(value.shape)}; expected (..., 15, 3), joints in MANO order.")


def default_skeleton() -> Tensor:
    """Joints of MANO's mean right hand at rest, ``(21, 3)`` metres from the wrist, OpenPose order."""
    points = [torch.zeros(3)]
    for finger in ("thumb", "index", "middle", "ring", "pinky"):
        points.extend(torch.tensor(_REST_BONES_MM[finger]).cumsum(0) / 1000)
    return torch.stack(points)


def build_anatomy(rest_joints: Tensor | None = None) -> Anatomy:
    """Anatomy of a right hand with the given joints at rest.

    Args:
        rest_joints: ``(21, 3)`` metres, OpenPose order, zero pose and zero betas, fingers along -x and palm
            to -y; None for MANO's mean hand. Only directions matter, not size.

    Raises:
        ValueError: wrong shape, not finite, or two neighbouring joints in one place.
    """
    joints = default_skeleton() if rest_joints is None else rest_joints.detach().to("cpu", torch.float64)
    if joints.shape != (21, 3) or not joints.isfinite().all():
        raise ValueError(f"rest_joints: got shape {tuple(joints.shape)}; expected 21 finite points (21, 3).")
    joints = joints.double()
    chains = {
        finger: torch.cat([joints[:1], joints[1 + 4 * k : 5 + 4 * k]])
        for k, finger in enumerate(("thumb", "index", "middle", "ring", "pinky"))
    }
    back = _backs_of_fingers(torch.stack([chains[finger][1] for finger in _ACROSS]))
    back["thumb"] = joints.new_tensor(_THUMB_BACK)
    reference = chains["middle"][2] - chains["middle"][1]
    basis, rest = [], []
    for finger in FINGERS:
        bones = chains[finger].diff(dim=0)
        if bones.norm(dim=-1).min() < 1e-4:
            raise ValueError(f"rest_joints: two neighbouring joints of the {finger} coincide.")
        frames = torch.stack([_frame(bone, back[finger]) for bone in bones[1:]])
        basis.append(frames)
        bend = torch.zeros(3, 3, dtype=torch.float64)
        # Second joint: the bones' bend at rest. Not so the third, whose last "bone" ends on the skin.
        bend[1, 0] = _bend(bones[1], bones[2], frames[1])[0]
        if finger != "thumb":  # knuckles: sideways against the middle finger
            bend[0, 1] = _bend(reference, bones[1], frames[0])[1]
        rest.append(bend)
    rest = torch.cat(rest)

    def table(rows: Any) -> Tensor:
        return torch.deg2rad(torch.tensor([rows(name) for name in JOINT_NAMES], dtype=torch.float64))

    return Anatomy(
        basis=torch.cat(basis),
        rest=rest,
        lower=table(lambda n: [low for low, _ in _RANGES[n]]) - rest,
        upper=table(lambda n: [high for _, high in _RANGES[n]]) - rest,
        mean=table(lambda n: _PRIOR[n][0]) - rest,
        std=table(lambda n: _PRIOR[n][1]),
    ).to(torch.float32)


@cache
def default_anatomy() -> Anatomy:
    """Anatomy of MANO's mean hand, on which the open hand is laid too. Cached; on the CPU."""
    return build_anatomy()


def from_anatomical(angles: Tensor, *, side: str = "right") -> Tensor:
    """`Anatomy.from_anatomical` of the default anatomy."""
    return default_anatomy().from_anatomical(angles, side=side)


def _backs_of_fingers(knuckles: Tensor) -> dict[str, Tensor]:
    """Outward normal of the transverse arch at each knuckle, in the plane across the hand (y, z).

    Args:
        knuckles: ``(4, 3)`` MCP joints at rest from index to little finger.
    """
    backs = {}
    for k, finger in enumerate(_ACROSS):
        before, after = knuckles[max(k - 1, 0)], knuckles[min(k + 1, 3)]
        along = before - after  # towards the thumb's side
        backs[finger] = knuckles.new_tensor([0.0, float(along[2]), -float(along[1])])
    return backs


def _frame(bone: Tensor, back: Tensor) -> Tensor:
    """Rows flexion, abduction, twist for a bone direction and the direction of the finger's back."""
    twist = bone / bone.norm()
    flexion = torch.linalg.cross(back, twist)
    flexion = flexion / flexion.norm()
    return torch.stack([flexion, torch.linalg.cross(twist, flexion), twist])


def _bend(proximal: Tensor, distal: Tensor, frame: Tensor) -> Tensor:
    """Flexion and abduction ``(2,)`` radians that carry the proximal bone's direction to the distal one's."""
    a, b = proximal / proximal.norm(), distal / distal.norm()
    axis = torch.linalg.cross(a, b)
    sine = axis.norm()
    angle = torch.atan2(sine, a @ b)
    return (frame[:2] @ axis) * (angle / sine.clamp_min(1e-12))
