"""Suspicions: what in a refined grasp hints at a mistake of its input, in words that say what to check.

One function a check, row → text, and a name for each in `CHECKS`. A limit is what hands and eyes can do (anatomy,
noise of the protocols in `contact.perturb`), so that roughly right input raises none. Nothing here changes a result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose
from hand_models.anatomy import JOINT_NAMES
from hand_models.fit import solve_joints
from hand_models.rotations import exp_so3, log_so3
from hand_models.skeleton import ORDERS, permutation

from ..files.prediction_poses import into_object_frame

APART = 0.15
"""Metres between skin and object, and of a hand's way: three standard deviations of the strongest protocol's 5 cm."""
NEAR = 0.05
"""Metres: one of these standard deviations. A hand that is as near as this may hold the object."""
LARGEST_ANGLE = 2 * math.pi
"""Radians: every rotation can be said with half of it."""
DISLOCATED = math.radians(60)
"""Beyond a joint's range of motion: five standard deviations of the strongest protocol's flexion."""
BETA = 7.0
"""Standard deviations: among eight billion people none is expected beyond 6.4."""
SMALLEST_OBJECT = 0.015
"""Metres, the diameter: the breadth of a fingertip, within which the object would vanish."""
LARGEST_OBJECT = 0.4
"""Metres, the smallest side: the breadth of shoulders, which is what two arms hold between them."""
FITS = 0.004
"""Metres in the mean: joints nearer than this to those of a hand are of that hand. The other side's hand stays
5 to 15 mm away from exact joints."""
MISFIT = 0.02
"""Metres: no hand has such joints. Right joints that are each off by 1.5 cm per axis stay as near; in a wrong order
exact ones stay 22 to 49 mm away."""
CLEARLY = 0.7
"""Of a fit's error, below which another fit is clearly better. Wrong fits of joints off by up to 1.5 cm per axis
never have less than 1.1 of the right fit's error."""

_FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))


@dataclass(frozen=True)
class Grasps:
    """What `suspicions` looks at: ``B`` hands before and after, object frame where nothing else is said."""

    given: HandPose
    """as they came"""
    given_joints: Tensor | None
    """(B, 21, 3) joints that ``given`` was fitted to, in its frame; NaN for hands that came as poses"""
    object_pose: Tensor | None
    """(B, 4, 4) object to the frame of ``given``; None when that is the object's"""
    object: ObjectMesh
    model: HandModel
    vertices_before: Tensor
    """(B, V, 3)"""
    vertices_after: Tensor
    joints_before: Tensor
    """(B, 21, 3)"""
    joints_after: Tensor
    touching_before: Tensor
    """(B,) bool"""
    touching_after: Tensor


def suspicions(grasps: Grasps, usable: Tensor) -> list[list[str]]:
    """What is suspicious of each row, ``"kind: what, and what to check"``; of ``usable (B,)`` rows only."""
    found: list[list[str]] = [[] for _ in usable]
    for kind, check in CHECKS.items():
        for row, text in check(grasps).items():
            if usable[row]:
                found[row].append(f"{kind}: {text}")
    return found


def kind_of(warning: str) -> str:
    """The kind of a warning, a name of `CHECKS`."""
    return warning.partition(":")[0]


# Frames ---------------------------------------------------------------------------------------------


def frames(g: Grasps) -> dict[int, str]:
    """Hands far from an object whose frame they are said to share, or near it once `object_pose` is read otherwise.

    A hand far from its object before a camera is not suspicious: in a video hands come and go.
    """
    gaps = _gaps(g.vertices_before, g.object, ~g.touching_before)
    far = {row: gap for row, gap in gaps.items() if gap > APART}
    if g.object_pose is not None:
        rows = list(far)
        mends = other_readings(g.given[rows], g.object_pose[rows], g.object, g.model) if far else {}
        return {rows[k]: text for k, text in mends.items()}
    return {
        row: f"hand and object are {100 * gap:.0f} cm apart, though without object_pose they share a frame. Give "
        "object_pose, or check that transl and the mesh have the same origin and axes."
        for row, gap in far.items()
    }


def other_readings(given: HandPose, object_pose: Tensor, obj: ObjectMesh, model: HandModel) -> dict[int, str]:
    """Hands that are far from the object as ``object_pose (B, 4, 4)`` stands, and near it in another reading."""
    every = torch.ones(len(given), dtype=torch.bool)

    def gaps(pose: Tensor) -> dict[int, float]:
        return _gaps(model(into_object_frame(given, pose, model)).vertices, obj, every)

    readings = {
        "with the inverse of object_pose. Is it object to camera, as it must be?": torch.linalg.inv(object_pose),
        "without object_pose. Is the hand in the object's frame already?": torch.eye(4).expand_as(object_pose),
        "with y and z of the hand flipped. Is it in OpenGL's camera frame? Convert it.": _FLIP @ object_pose,
    }
    stated, found = gaps(object_pose), {}
    for text, reading in readings.items():
        for row, gap in gaps(reading).items():
            if stated[row] > APART and gap <= NEAR:
                said = f"the hand is {100 * stated[row]:.0f} cm away from the object, but {100 * gap:.0f} cm {text}"
                found.setdefault(row, said)
    return found


def _gaps(vertices: Tensor, obj: ObjectMesh, rows: Tensor) -> dict[int, float]:
    """Metres from the skin ``(B, V, 3)`` to the object, 0 when inside, of ``rows (B,)`` bool: row → gap."""
    wanted = rows.nonzero()[:, 0]
    if not len(wanted):
        return {}
    # The grid is exact near the object and too large beyond its box, the points are too far by their spacing.
    to_surface = obj.grid.query(vertices[wanted])[0].amin(1)
    to_points = torch.stack([torch.cdist(skin, obj.points).amin() for skin in vertices[wanted]])
    gaps = torch.minimum(to_surface, to_points).clamp_min(0)
    return dict(zip(wanted.tolist(), gaps.tolist(), strict=True))


# Angles, shape, sizes -------------------------------------------------------------------------------


def angles(g: Grasps) -> dict[int, str]:
    """Rotations by more than a turn, and joints bent as no hand bends them."""
    largest = torch.cat([g.given.global_orient[:, None], g.given.hand_pose], 1).norm(dim=-1).amax(1)
    found = {
        row: f"a rotation of {float(largest[row]):.0f} rad. Angles are axis-angle in radians: are these degrees, or "
        "principal components (HandPose.from_pca)?"
        for row in (largest > LARGEST_ANGLE).nonzero()[:, 0].tolist()
    }
    pose = log_so3(exp_so3(g.given.hand_pose))  # a turn by 350° is one by −10°
    excess, joint = g.model.anatomy.violation(pose, side=g.given.side).abs().amax(-1).max(1)
    for row in (excess > DISLOCATED).nonzero()[:, 0].tolist():
        degrees = math.degrees(float(excess[row]))
        found.setdefault(
            row,
            f"{JOINT_NAMES[joint[row]]} is bent {degrees:.0f}° beyond what a hand can. Check side, order of the "
            "joints (index, middle, pinky, ring, thumb), and that hand_pose holds absolute axis-angle, not principal "
            "components (HandPose.from_pca).",
        )
    return found


def shape(g: Grasps) -> dict[int, str]:
    """Betas that no person has."""
    largest = g.given.betas.abs().amax(1)
    return {
        row: f"betas reach {float(largest[row]):.0f} standard deviations, which no hand has. Check that betas hold the "
        f"shape, and for the hand model {g.model.name!r}, or that joints are in metres."
        for row in (largest > BETA).nonzero()[:, 0].tolist()
    }


def size(g: Grasps) -> dict[int, str]:
    """Objects too small or too large to be held."""
    centred = g.object.vertices.double() - g.object.vertices.double().mean(0)
    along = centred @ torch.linalg.svd(centred.T @ centred)[0]
    sides = along.amax(0) - along.amin(0)
    if g.object.diameter < SMALLEST_OBJECT:
        text = f"the object is only {1000 * g.object.diameter:.0f} mm across, less than a fingertip"
    elif sides.amin() > LARGEST_OBJECT:
        text = f"the object is {100 * float(sides.amin()):.0f} cm across where it is thinnest, more than arms can hold"
    else:
        return {}
    return dict.fromkeys(range(len(g.given)), f"{text}. Is the mesh in metres?")


# Joints ---------------------------------------------------------------------------------------------


def side(g: Grasps) -> dict[int, str]:
    """Joints that the other side's hand fits clearly better."""
    rows, joints, error = _misfits(g, FITS)
    if not len(rows):
        return {}
    other = "left" if g.given.side == "right" else "right"
    mirrored = solve_joints(joints, g.model, side=other).error
    return {
        int(rows[k]): f"a {other} hand fits the joints better ({1000 * float(mirrored[k]):.0f} mm off in the mean, a "
        f"{g.given.side} hand {1000 * float(error[k]):.0f}). Check side."
        for k in (mirrored < CLEARLY * error).nonzero()[:, 0].tolist()
    }


def joint_order(g: Grasps) -> dict[int, str]:
    """Joints that no hand has, and the order in which one would have them."""
    rows, joints, error = _misfits(g, MISFIT)
    if not len(rows):
        return {}
    found = {
        row: f"no hand comes nearer to the joints than {1000 * float(e):.0f} mm in the mean. Check their order "
        "(OpenPose: wrist, then thumb to little finger from palm to tip) and unit (metres)."
        for row, e in zip(rows.tolist(), error, strict=True)
    }
    best = CLEARLY * error
    for name, wanted in _other_orders().items():
        off = solve_joints(joints[:, wanted], g.model, side=g.given.side).error
        for k in (off < best).nonzero()[:, 0].tolist():
            found[int(rows[k])] = (
                f"the joints seem to be in the order {name!r} (a hand is {1000 * float(off[k]):.0f} mm off then, "
                f"{1000 * float(error[k]):.0f} in OpenPose's). Convert them: hand_models.skeleton.convert(joints, "
                f"source={name!r}, target='openpose')."
            )
        best = torch.minimum(best, off)
    return found


def _misfits(g: Grasps, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows ``(n,)`` given as joints ``(n, 21, 3)`` that the hand stays away from by more than ``limit`` in the mean,
    with these joints and this error ``(n,)``."""
    if g.given_joints is None:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, 21, 3), torch.zeros(0)
    error = (g.model.joints(g.given) - g.given_joints).norm(dim=-1).mean(1)
    rows = (error > limit).nonzero()[:, 0]
    return rows, g.given_joints[rows], error[rows]


def _other_orders() -> dict[str, list[int]]:
    """Orders of 21 joints that are not OpenPose's, once each, and where they have its joints."""
    found: dict[str, list[int]] = {}
    for name, order in ORDERS.items():
        places = list(permutation(source=name, target="openpose")) if len(order) == 21 else list(range(21))
        if places != list(range(21)) and places not in found.values():
            found[name] = places
    return found


# Outcome --------------------------------------------------------------------------------------------


def jump(g: Grasps) -> dict[int, str]:
    """Hands that went further than hands are usually off by."""
    way = (g.joints_after - g.joints_before).norm(dim=-1).mean(1)
    return {
        row: f"the hand moved by {100 * float(way[row]):.0f} cm. If the input is not that far off, check frames and "
        "units, and whether this hand holds the object at all."
        for row in (way > APART).nonzero()[:, 0].tolist()
    }


def contact(g: Grasps) -> dict[int, str]:
    """Hands that do not touch the object in the end."""
    return {
        row: f"the hand returned does not touch the object ({1000 * gap:.0f} mm apart). Check that it holds the "
        "object, and frames and units."
        for row, gap in _gaps(g.vertices_after, g.object, ~g.touching_after & g.given.finite()).items()
    }


CHECKS: Mapping[str, Callable[[Grasps], dict[int, str]]] = MappingProxyType(
    {
        "size": size,
        "frames": frames,
        "angles": angles,
        "shape": shape,
        "side": side,
        "joint order": joint_order,
        "jump": jump,
        "contact": contact,
    }
)
"""Kinds of warnings, in the order they are given."""
