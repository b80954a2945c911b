"""Hands brought out of the objects they have sunk into or passed through, by the smallest motions that do it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import normalize

from contact.crossing import BonesOnTheirSide, bone_points, passage
from contact.input_error import TRACKING
from contact.objects.object_set import ObjectSet
from contact.terms import SkinOnSurface, SpheresOutside
from hand_models import HandModel, HandPose
from hand_models.solver.least_squares import minimize
from hand_models.solver.states import HandState

from ..config import RefineConfig
from ..evidence.input_error import prior_of
from .optimize import soft_tissue
from .score import ScoreWeights

_FREE = 0.002  # metres beyond what skin yields that tell nothing: real grasps as tracked have them too
LEAST_PUSH = 0.01
"""Share of the way out of the object that is worth a solve."""
_STEPS = (0.004, 0.008, 0.012, 0.016, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.2, 0.3)  # metres that a hand is lifted off
_CLEAR = 0.001  # metres that bones of hands lifted off keep
FAR = 2 * TRACKING.translation
"""Metres, mean of the joints, that a hand goes out of a wall at most: what trackers err by. A hand that has to go
farther is not where it was given, and to get it out alone would not tell where it is."""


def push_out(depth: Tensor, apart: Tensor, weights: ScoreWeights) -> Tensor:
    """``(B,)`` share of the way out of the object that hands which stay go, 0 to 1: all of it where they are deeper
    inside than hands that hold are, and where they are known to hold nothing, ``apart (B,)``. One that is merely taken
    to hold nothing and is in the object after all more probably holds it."""
    sunk = ((depth - weights.deep[0]) / (weights.deep[1] - weights.deep[0])).clamp(0, 1)
    return torch.maximum(sunk, (apart & (depth > 0)).to(depth))


def brought_out(
    model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose, push: Tensor, holding: Tensor,
    config: RefineConfig, far: Tensor | float = FAR,
) -> tuple[HandPose, Tensor]:  # fmt: skip
    """Hands that went the share ``push (B,)`` of the way out of their objects, and all of it where a bone is in a thin
    wall, if that is not as far as ``far (B,)``, metres; and which of them moved, ``(B,)``."""
    inside = push > LEAST_PUSH
    rows = inside.nonzero()[:, 0]
    if len(rows):
        out = bring_out(model, objects, which[rows], pose[rows], holding[rows], config)
        pose = pose.fill(rows, pose[rows].toward(out, push[rows]))
    rows = in_walls(model, objects, which, pose).nonzero()[:, 0]
    if len(rows):
        out = out_of_walls(model, objects, which[rows], pose[rows], holding[rows], config)
        way = (model.joints(out) - model.joints(pose[rows])).norm(dim=2).mean(1)
        near = way <= (far[rows] if isinstance(far, Tensor) else far)
        pose = pose.fill(rows[near], out[near])
        inside = inside.index_fill(0, rows[near], True)
    return pose, inside


def bring_out(
    model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose, holding: Tensor, config: RefineConfig,
    start: HandPose | None = None,
) -> HandPose:  # fmt: skip
    """``B`` right hands out of their objects by the smallest motion that does it, in what hands as tracked are off by.

    Skin may stay as deep as it yields, `CostConfig.soft_tissue`, and that of hands which hold as deep as tracked
    ones sink in anyway. Of several ways out the one is found that is nearest to ``start``, by default ``pose``.
    """
    skin, costs = model.contact_points[: config.skin_points], config.costs
    free = _FREE * holding[:, None]
    yields = soft_tissue(objects, which, model(pose).vertices[:, skin], costs) + free
    touch, bones = torch.zeros_like(yields), costs.soft_tissue + free
    terms = [
        prior_of(pose, TRACKING, model, None),
        SkinOnSurface(which, touch, yields, objects.grid, costs.contact_std, costs.penetration_std),
        SpheresOutside(which, bones, objects.grid, costs.penetration_std),
        BonesOnTheirSide(which, objects, costs.crossing_std),
    ]
    start = pose if start is None else start
    found = minimize(HandState.of(start, model, skin), terms, config.contact).state.pose
    return found.where(found.finite(), start)


def in_walls(model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose) -> Tensor:
    """``(B,)`` whether a bone of the hand runs through a thin wall."""
    return passage(model.joints(pose), which, objects).crossing


def out_of_walls(
    model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose, holding: Tensor, config: RefineConfig
) -> HandPose:
    """``B`` right hands out of the walls that their bones are in, each finger on the side of its knuckle.

    Where a hand cannot be both near where it was and all of it on one side, it is first lifted off the object, and
    comes back as near as the walls let it.
    """
    config = replace(config, skin_points=1)  # through a thin wall skin tells nothing, and takes most of the time
    out = bring_out(model, objects, which, pose, holding, config)
    stuck = in_walls(model, objects, which, out).nonzero()[:, 0]
    if len(stuck):
        which, holding, pose = which[stuck], holding[stuck], pose[stuck]
        off = lifted(model, objects, which, pose)
        back = bring_out(model, objects, which, pose, holding, config, start=off)
        out = out.fill(stuck, off.where(in_walls(model, objects, which, back), back))
    return out


def lifted(model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose) -> HandPose:
    """``B`` hands moved off their objects until no bone is inside: the least of some steps in 26 directions, 30 cm at
    most."""
    ways = normalize(pose.transl.new_tensor([way for way in product((-1, 0, 1), repeat=3) if any(way)]), dim=1)
    points, shift = bone_points(model.joints(pose)).flatten(1, 2), torch.zeros_like(pose.transl)
    left = torch.arange(len(pose), device=which.device)
    for step in _STEPS:
        moved = (points[left, None] + step * ways[:, None]).flatten(1, 2)
        distance = objects.grid.query(moved, which[left])[0].unflatten(1, (len(ways), -1)).amin(2)
        clear, way = distance.max(1)
        free = clear > _CLEAR
        shift[left[free]] = step * ways[way[free]]
        left = left[~free]
        if len(left) == 0:
            break
    return replace(pose, transl=pose.transl + shift)
