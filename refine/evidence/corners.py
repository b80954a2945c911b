"""The object's pose from the eight corners of its box, in whatever order these are named."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product

import torch
from torch import Tensor

from contact.objects.grid import SignedDistanceGrid
from pose_graph.affinity import FLESH, kabsch

_CORNERS = 8
_UPRIGHT = ((0.02, 0.0, 0.0), (0.0, 0.01, -0.05), (0.0, 0.0, 0.005))
"""What a rotation object to camera earns for each of its entries. Where corners and hand leave several poses, the
object's z axis is taken to point up in the picture. It looks at poses only, so that the order of corners does not
matter here either."""


@dataclass(frozen=True)
class CornerPose:
    """Object to camera, ``B`` poses."""

    rotation: Tensor
    """(B, 3, 3)"""
    translation: Tensor
    """(B, 3)"""
    order: Tensor
    """(B, 8) which corner of the box each given corner is"""
    rms: Tensor
    """(B,) metres, what the corners are off"""


def box_symmetries() -> Tensor:
    """``(48, 8)`` every way to name a box's corners anew by its reflections and turns; the first changes nothing.

    Row g says that given corner k is the box's corner ``g[k]``; corners as in `pose_graph.graph`, z fastest.
    """
    bits = torch.tensor(list(product((0, 1), repeat=3)))
    rows = []
    for axes in permutations(range(3)):
        for flips in product((0, 1), repeat=3):
            moved = bits[:, list(axes)] ^ torch.tensor(flips)
            rows.append(moved @ torch.tensor([4, 2, 1]))
    return torch.stack(rows)


def corner_pose(
    corners: Tensor, box: Tensor, *, sigma: Tensor, joints: Tensor | None = None,
    grid: SignedDistanceGrid | None = None, search: bool = True, rounds: int = 4,
) -> CornerPose:  # fmt: skip
    """Lay the object's box on corners seen by a camera.

    With ``search`` all 48 orders are tried. Several of them fit equally well (four for a box of three different
    edges, 24 for a cube), and which one is right only the hand can tell: the pose is taken whose object it
    touches without sinking in. Since nothing depends on the order that is given, corners shuffled by
    any of the 48 give the same pose, up to the object's own symmetry.

    Args:
        corners: ``(B, 8, 3)`` metres, camera frame.
        box: ``(8, 3)`` metres, corners in the object's frame.
        sigma: ``(B, 8)`` metres, standard deviation per axis of each; infinite where missing.
        joints: ``(B, 21, 3)`` camera frame; without them the best fit is taken.
        grid: signed distance of the object.
        rounds: of reweighting, so that corners taken for each other count less.
    """
    orders = box_symmetries().to(corners.device) if search else torch.arange(_CORNERS, device=corners.device)[None]
    weight = sigma.square().reciprocal()
    weight = torch.where(weight.isfinite(), weight, torch.zeros_like(weight))
    given = torch.where(weight[..., None] > 0, corners, torch.zeros_like(corners))
    count, ways = len(corners), len(orders)
    source = box[orders].expand(count, ways, _CORNERS, 3)
    target = given[:, None].expand(count, ways, _CORNERS, 3)
    trust = torch.ones(count, ways, _CORNERS).to(corners)
    rotation, translation = kabsch(source, target, weight[:, None] * trust)
    for _ in range(rounds):
        off = (source @ rotation.transpose(-1, -2) + translation[..., None, :] - target).norm(dim=-1)
        trust = 1 / (1 + (off / (3 * sigma[:, None])) ** 2) ** 2  # Geman and McClure 1987
        rotation, translation = kabsch(source, target, weight[:, None] * trust)
    off = (source @ rotation.transpose(-1, -2) + translation[..., None, :] - target).norm(dim=-1)
    scaled = (off / sigma[:, None]) ** 2
    cost = (0.5 * scaled / (1 + scaled / 9)).sum(-1)
    if joints is not None and grid is not None and search:
        local = (joints[:, None] - translation[..., None, :]) @ rotation
        cost = cost + _implausible(local.flatten(0, 1), grid).reshape(count, ways)
    if search:
        cost = cost - (rotation * rotation.new_tensor(_UPRIGHT)).sum((-1, -2))
    best = cost.argmin(1)
    rows = torch.arange(count, device=corners.device)
    off = torch.where(weight > 0, off[rows, best], torch.zeros_like(weight))
    rms = ((off**2).sum(1) / (weight > 0).sum(1).clamp_min(1)).sqrt()
    return CornerPose(rotation[rows, best], translation[rows, best], orders[best], rms)


def _implausible(joints: Tensor, grid: SignedDistanceGrid) -> Tensor:
    """``(N,)`` how badly hands ``(N, 21, 3)`` hold an object in its frame: joints inside it, fingertips far away."""
    distance, _ = grid.query(joints, torch.zeros(len(joints), dtype=torch.long, device=joints.device))
    off = torch.nan_to_num(distance - distance.new_tensor(FLESH), nan=0.0) / 0.01
    tips = off[:, 4::4].clamp(0, 5)
    return (off.clamp(-5, 0) ** 2).sum(1) + 0.3 * (tips**2).sum(1) + tips.amin(1) ** 2
