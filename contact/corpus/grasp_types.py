"""The grasp types the corpus is made of: which parts touch, and the hand's shape before it closes.

A selection of the GRASP taxonomy (Feix et al., IEEE Trans. Human-Machine Systems 46, 2016) by what sets them
apart for contact: power or precision, number of opposing fingers, spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from hand_models import HandModel, HandPose
from hand_models.anatomy import FINGERS, Anatomy, default_anatomy
from hand_models.model import skin_normals

_FIRST_BONE = {finger: 1 + 3 * k for k, finger in enumerate(FINGERS)}  # bone ids: 0 palm, then three a finger


@dataclass(frozen=True)
class GraspType:
    """One way of holding."""

    name: str
    share: float
    """relative frequency among the attempts"""
    fingers: tuple[str, ...]
    """fingers that oppose the thumb"""
    flexion: tuple[float, float, float]
    """degrees of knuckle, middle and end joint about a small thing, from the rest pose"""
    width: tuple[float, float]
    """metres between thumb and fingers this grasp is used for"""
    bones: int
    """how many bones of each finger touch, counted from the tip: 1 pads only, 3 the whole finger"""
    palm: bool = False
    """whether the palm touches too"""
    spread: float = 0.0
    """degrees of extra abduction between the outer fingers"""
    idle: tuple[float, float, float] = (36, 40, 18)
    """degrees of the joints of fingers that take no part: at ease beside the others"""

    def touching_bones(self) -> list[int]:
        """Bones that are drawn to the object, thumb included."""
        bones = [0] if self.palm else []
        for finger in ("thumb", *self.fingers):
            count = min(self.bones, 2) if finger == "thumb" else self.bones
            bones += [_FIRST_BONE[finger] + 2 - k for k in range(count)]
        return bones


_ALL = ("index", "middle", "ring", "pinky")
_THREE = ("index", "middle", "ring")
_TWO = ("index", "middle")
GRASP_TYPES = (
    # Power: the palm holds too.
    GraspType("large diameter", 0.04, _ALL, (28, 34, 15), (0.050, 0.118), 3, palm=True),
    GraspType("medium wrap", 0.02, _ALL, (50, 50, 26), (0.025, 0.060), 3, palm=True),
    GraspType("small diameter", 0.02, _ALL, (60, 58, 32), (0.010, 0.032), 3, palm=True),
    GraspType("power sphere", 0.02, _ALL, (28, 34, 14), (0.045, 0.118), 3, palm=True, spread=12),
    GraspType("power disk", 0.02, _ALL, (30, 36, 18), (0.055, 0.118), 2, palm=True, spread=15),
    GraspType("index finger extension", 0.02, _ALL[1:], (50, 50, 26), (0.015, 0.060), 3, palm=True, idle=(12, 12, 6)),
    # Between power and precision: fingers lie along the thing.
    GraspType("palmar prismatic 4", 0.04, _ALL, (34, 43, 12), (0.010, 0.118), 2),
    GraspType("palmar prismatic 3", 0.06, _THREE, (34, 43, 12), (0.010, 0.118), 2),
    GraspType("parallel extension", 0.03, _ALL, (38, 28, 8), (0.004, 0.070), 2),
    GraspType("ring", 0.02, ("index",), (34, 43, 20), (0.020, 0.080), 2),
    # Precision: pads only.
    GraspType("prismatic 4", 0.10, _ALL, (34, 42, 13), (0.015, 0.118), 1),
    GraspType("prismatic 3", 0.25, _THREE, (34, 42, 13), (0.015, 0.118), 1),
    GraspType("prismatic 2", 0.06, _TWO, (36, 40, 12), (0.004, 0.090), 1),
    GraspType("precision disk", 0.05, _ALL, (32, 40, 13), (0.045, 0.118), 1, spread=12),
    GraspType("quadpod", 0.11, _THREE, (34, 42, 13), (0.015, 0.110), 1, spread=12),
    GraspType("tripod", 0.08, _TWO, (34, 43, 13), (0.004, 0.100), 1, spread=8),
    GraspType("palmar pinch", 0.04, ("index",), (34, 43, 13), (0.002, 0.070), 1),
    GraspType("tip pinch", 0.02, ("index",), (42, 52, 26), (0.002, 0.040), 1),
)
# Degrees. Wide things are met by fingers straight at the knuckle and still bent at the middle joint, the
# index finger before the others (Santello et al., J. Neuroscience 18, 1998, the first synergy).
_OPEN_FLEXION = (-12, 21, 8)
_CASCADE = (-11, -3, 2, 3)  # of the knuckle: index, middle, little, ring
_SPREAD = (6, 1, -6, -1)  # between fingers at ease, which lie less close than the prior's parallel ones
_THUMB_CLOSED = ((8, -6, 0), (-7, -13, 6), (6, 12, 2))  # from the prior: opposed, its end bent to the fingers
_THUMB_OPENING = ((-16, 14, 3), (0, 6, 0), (-2, 0, 0))


@dataclass(frozen=True)
class Preshape:
    """A type's hand at several openings, in the wrist frame of the mean hand."""

    kind: GraspType
    hand_pose: Tensor
    """(N, 15, 3) axis-angle, from open to closed"""
    anatomical: Tensor
    """(N, 15, 3) the same in anatomical axes"""
    thumb: Tensor
    """(N, 3) centre of the thumb's pad, metres from the wrist"""
    opposing: Tensor
    """(N, 3) centre of the opposing fingers' pads"""

    @cached_property
    def opening(self) -> Tensor:
        """(N,) metres between the pads."""
        return (self.thumb - self.opposing).norm(dim=-1)


def palmar_skin(model: HandModel, anatomy: Anatomy) -> Tensor:
    """(V,) bool: skin on the gripping side, by the rest normal against the back of each bone."""
    normals = skin_normals(model.rest_canonical, model.closed_faces)
    backs = torch.cat([normals.new_tensor([[0.0, 1.0, 0.0]]), anatomy.basis[:, 1].to(normals)])
    return (normals * backs[model.part_of_vertex]).sum(-1) < -0.35


def fingertip_skin(model: HandModel, palmar: Tensor, bone: int) -> Tensor:
    """(V,) bool: the far half of the palmar skin of an end bone, which is what fingertips hold with."""
    members = palmar & (model.part_of_vertex == bone)
    outwards = default_anatomy().basis[bone - 1, 2].to(model.rest_canonical)
    along = model.rest_canonical @ outwards
    return members & (along >= along[members].median())


def preshapes(model: HandModel, steps: int = 12) -> tuple[Preshape, ...]:
    """Every grasp type at ``steps`` openings of the mean hand."""
    anatomy = default_anatomy()
    palmar = palmar_skin(model, anatomy)

    def pad(finger: str) -> Tensor:
        return fingertip_skin(model, palmar, _FIRST_BONE[finger] + 2).nonzero()[:, 0]

    shapes = []
    for kind in GRASP_TYPES:
        closed = anatomy.mean.clone()
        opened = closed.clone()
        for k, finger in enumerate(FINGERS[:4]):
            held = finger in kind.fingers
            joints = slice(3 * k, 3 * k + 3)
            lean = torch.tensor([_CASCADE[k], 0.0, 0.0])
            closed[joints, 0] = torch.deg2rad(torch.tensor(kind.flexion if held else kind.idle) + lean)
            closed[3 * k, 1] += math.radians(_SPREAD[k] + kind.spread * (1, 0.3, -1, -0.5)[k])
            opened[joints] = closed[joints]
            if held:
                opened[joints, 0] = torch.deg2rad(torch.tensor(_OPEN_FLEXION) + lean)
        closed[12:] += torch.deg2rad(torch.tensor(_THUMB_CLOSED, dtype=torch.float32))
        opened[12:] = closed[12:] + torch.deg2rad(torch.tensor(_THUMB_OPENING, dtype=torch.float32))
        blend = torch.linspace(-0.15, 1.3, steps)[:, None, None]
        angles = opened + (closed - opened) * blend
        pose = anatomy.from_anatomical(angles)
        hand = model(replace(HandPose.zeros(steps), hand_pose=pose))
        pads = torch.stack([hand.vertices[:, pad(f)].mean(1) for f in kind.fingers])
        thumb = hand.vertices[:, pad("thumb")].mean(1)
        wrist = hand.joints[:, 0]
        shapes.append(Preshape(kind, pose, angles, thumb - wrist, pads.mean(0) - wrist))
    return tuple(shapes)
