"""The grasp types the corpus is made of: which parts touch, and the hand's shape before it closes.

A selection of the GRASP taxonomy (Feix et al., IEEE Trans. Human-Machine Systems 46, 2016) by what sets them
apart for contact: power or precision, number of opposing fingers, spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hand_models import HandModel, HandPose
from hand_models.anatomy import FINGERS, Anatomy, default_anatomy

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
    """degrees of knuckle, middle and end joint when closed"""
    width: tuple[float, float]
    """metres between thumb and fingers this grasp is used for"""
    bones: int
    """how many bones of each finger touch, counted from the tip: 1 pads only, 3 the whole finger"""
    palm: bool = False
    """whether the palm touches too"""
    spread: float = 0.0
    """degrees of extra abduction between the outer fingers"""

    def touching_bones(self) -> list[int]:
        """Bones that are drawn to the object, thumb included."""
        bones = [0] if self.palm else []
        for finger in ("thumb", *self.fingers):
            first = _FIRST_BONE[finger]
            count = min(self.bones, 2) if finger == "thumb" else self.bones
            bones += [first + 2 - k for k in range(count)]
        return bones


_ALL = ("index", "middle", "ring", "pinky")
GRASP_TYPES = (
    GraspType("large diameter", 0.10, _ALL, (30, 45, 28), (0.045, 0.100), 3, palm=True),
    GraspType("medium wrap", 0.08, _ALL, (50, 60, 38), (0.020, 0.060), 3, palm=True),
    GraspType("power sphere", 0.05, _ALL, (26, 40, 24), (0.045, 0.105), 3, palm=True, spread=14),
    GraspType("palmar prismatic 4", 0.20, _ALL, (24, 38, 20), (0.010, 0.100), 2),
    GraspType("prismatic 4 tips", 0.20, _ALL, (22, 42, 22), (0.004, 0.095), 1),
    GraspType("precision disk", 0.08, _ALL, (18, 36, 20), (0.045, 0.110), 1, spread=16),
    GraspType("prismatic 3", 0.13, ("index", "middle", "ring"), (22, 42, 22), (0.004, 0.090), 1),
    GraspType("tripod", 0.11, ("index", "middle"), (24, 42, 22), (0.004, 0.080), 1),
    GraspType("palmar pinch", 0.05, ("index",), (26, 42, 22), (0.002, 0.055), 1),
)


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
    vertices, faces = model.rest_canonical, model.closed_faces
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices)
    for k in range(3):
        normals.index_add_(0, faces[:, k], area)
    normals = torch.nn.functional.normalize(normals, dim=-1)
    backs = torch.cat([vertices.new_tensor([[0.0, 1.0, 0.0]]), anatomy.basis[:, 1].to(vertices)])
    return (normals * backs[model.part_of_vertex]).sum(-1) < -0.35


def preshapes(model: HandModel, steps: int = 12) -> tuple[Preshape, ...]:
    """Every grasp type at ``steps`` openings of the mean hand."""
    anatomy = default_anatomy()
    palmar = palmar_skin(model, anatomy)

    def pad(finger: str) -> Tensor:
        return (palmar & (model.part_of_vertex == _FIRST_BONE[finger] + 2)).nonzero()[:, 0]

    shapes = []
    for kind in GRASP_TYPES:
        closed = anatomy.mean.clone()
        for k, finger in enumerate(FINGERS[:4]):
            held = finger in kind.fingers
            flexion = kind.flexion if held else (55, 60, 35)  # fingers not in use curl out of the way
            closed[3 * k : 3 * k + 3, 0] = (
                torch.deg2rad(torch.tensor(flexion)) - anatomy.rest[3 * k : 3 * k + 3, 0]
            )
            closed[3 * k, 1] += torch.deg2rad(torch.tensor(kind.spread)) * (1, 0.3, -1, -0.5)[k]
        closed[12:, 0] += torch.deg2rad(
            torch.tensor([6.0, -8.0, 8.0])
        )  # the thumb meets the fingers with its end bent
        closed[12:, 1] += torch.deg2rad(torch.tensor([0.0, -9.0, 8.0]))
        opened = closed.clone()
        for k, finger in enumerate(FINGERS[:4]):
            if finger in kind.fingers:
                opened[3 * k : 3 * k + 3, 0] = torch.tensor([0.1, 0.2, 0.1])
        opened[12, 0] -= 0.35
        opened[14, 0] -= 0.2
        blend = torch.linspace(0, 1.5, steps)[:, None, None]
        angles = opened + (closed - opened) * blend
        pose = anatomy.from_anatomical(angles)
        flat = HandPose.zeros(steps)
        hand = model(HandPose("right", flat.global_orient, pose, flat.betas, flat.transl))
        pads = torch.stack([hand.vertices[:, pad(f)].mean(1) for f in kind.fingers])
        thumb = hand.vertices[:, pad("thumb")].mean(1)
        wrist = hand.joints[:, 0]
        shapes.append(Preshape(kind, pose, angles, thumb - wrist, pads.mean(0) - wrist))
    return tuple(shapes)
