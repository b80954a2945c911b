"""Where synthetic grasps start: hands open around a pair of opposite surface points.

The thumb goes to one point, the fingers to the other, turned about that axis the way a person reaching from
above or beside a table would come, and holding the object by its near part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize, one_hot

from hand_models import HandModel, HandPose
from hand_models.anatomy import default_anatomy
from hand_models.rotations import log_so3

from ..objects.mesh import ObjectMesh
from .grasp_types import Preshape

_TURNS = 16  # directions tried about the closing axis
_PLACES = 8  # pairs tried for each candidate


@dataclass(frozen=True)
class SynthesisConfig:
    """How candidates are made and which are kept."""

    candidates: int = 96
    """attempts per object"""
    off_centre: float = 1.2
    """standard deviation of where on the object people grasp, in units of the object's own spread"""
    pitch: tuple[float, float] = (-0.4, 0.45)
    """mean and deviation of the upward component of the reaching direction (-1: straight down)"""
    shape_std: float = 0.8
    """standard deviation of the sampled betas"""
    crosswise: float = 2.5
    """log odds of closing across the object's longest axis against closing along it"""
    ahead: tuple[float, float, float] = (0.034, 0.005, 0.12)
    """metres that the object's middle lies beyond the pads, the way the hand reaches: mean, and deviation, to which
    this share of the object's radius of gyration is added"""
    beside: tuple[float, float] = (-0.012, 0.22)
    """metres that the object's middle lies to the little finger's side of the pads: mean, and deviation in radii of
    gyration"""
    miss: float = 0.2
    """share of the fingers a grasp type holds with that stay off the surface"""
    arm: float = 0.01
    """metres that closing moves the wrist: fingers close, rather than the hand sliding on over the object"""
    pad: float = 0.002
    """metres of greater distance to the surface that make a skin point 1/e as much drawn to it as the closest of its
    bone: of a pad that overhangs an edge, a part touches"""
    squeeze: float = 0.006
    """metres the skin is pressed in: the deviation of a half-normal distribution, from light touch to firm hold"""
    yielding: float = 0.2
    """share of the object's width that the skin is pressed in at most"""
    clearance: float = 0.002
    """metres that bones which do not take part stay off the surface"""
    max_penetration: float = 0.003
    """metres that skin may sink in deeper than it is pressed"""
    touch: float = 0.002
    """metres within which skin counts as touching"""
    opposition: float = -0.3
    """largest cosine between the push of the thumb and of a finger that still counts as opposing"""
    friction: float = 0.7
    iterations: int = 26


@dataclass(frozen=True)
class Placement:
    """Starting hands and what they are meant to do."""

    pose: HandPose
    kind: Tensor
    """(B,) index of the preshape"""
    anatomical: Tensor
    """(B, 15, 3) angles to stay near"""
    squeeze: Tensor
    """(B,) metres"""
    able: Tensor
    """(B, 5) bool: which fingers may touch, in the order of the joints"""
    across: Tensor
    """(B,) bool: thumb and fingers lie on the two sides of a cavity, not of one wall"""


def opposite_pairs(obj: ObjectMesh, max_width: float, count: int = 768) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of surface points that face away from each other across the object.

    Returns:
        ``(first (M, 3), second (M, 3), axis (M, 3))``, the axis pointing from second to first.
    """
    p, n = obj.points[:count], obj.normals[:count]
    offset = p[:, None] - p[None]
    along = (offset * n[:, None]).sum(-1)
    aside = (offset - along[..., None] * n[:, None]).norm(dim=-1)
    facing = n @ n.T < -0.6
    good = facing & (along > 0.001) & (along < max_width) & (aside < 0.15 * along + 0.003)
    first, second = good.nonzero(as_tuple=True)
    axis = normalize(n[first] - n[second], dim=-1)
    return p[first], p[second], axis


def place(
    model: HandModel, obj: ObjectMesh, shapes: tuple[Preshape, ...], up: Tensor, rng: np.random.Generator,
    config: SynthesisConfig,
) -> Placement | None:  # fmt: skip
    """Sample starting hands around one object standing on a table.

    Args:
        up: ``(3,)`` the direction away from the table, object frame.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    first, second, axis = opposite_pairs(obj, max(s.kind.width[1] for s in shapes))
    if len(first) == 0:
        return None
    width = ((first - second) * axis).sum(-1).abs()
    centre = (first + second) / 2
    mean = obj.points.mean(0)
    drawn = _draw_pairs(obj, shapes, centre, axis, width, generator, config)
    if drawn is None:
        return None
    pair, kind = drawn

    # The opening that lets the object in with a centimetre to spare.
    opening = torch.stack([s.opening for s in shapes])[kind]
    step = (opening - (width[pair] + 0.012)[:, None]).abs().argmin(1)
    thumb = torch.stack([s.thumb for s in shapes])[kind, step]
    opposing = torch.stack([s.opposing for s in shapes])[kind, step]

    # Hand frame: closing axis, reaching direction across it, and their normal; the same three on the object.
    close = normalize(thumb - opposing, dim=-1)
    middle = (thumb + opposing) / 2
    reach = normalize(middle - (middle * close).sum(-1, keepdim=True) * close, dim=-1)
    hand_frame = torch.stack([close, reach, torch.linalg.cross(close, reach)], -1)
    target = torch.where(torch.rand(len(pair), 1, generator=generator) < 0.5, 1.0, -1.0) * axis[pair]
    frames = _turned(target, generator)
    rotation = frames @ hand_frame.transpose(1, 2)[:, None]  # (B, T, 3, 3)
    wrist = centre[pair][:, None] - (rotation @ middle[:, None, :, None])[..., 0]

    # Keep the forearm out of the object and the table, and prefer the way people reach.
    back = rotation[..., 0]  # fingers run along -x of the hand: the forearm lies along +x
    arm = wrist[..., None, :] + back[..., None, :] * torch.tensor([0.0, 0.05, 0.10, 0.15])[:, None]
    clear = obj.grid.query(arm.reshape(1, -1, 3))[0].reshape(*arm.shape[:-1]).amin(-1)
    floor = (obj.points @ up).min()
    height = ((arm @ up) - floor).amin(-1)
    lift = -(back @ up)
    thumb_up = rotation[..., 2] @ up
    score = -0.5 * ((lift - config.pitch[0]) / config.pitch[1]) ** 2 + logsigmoid(5 * (thumb_up + 0.3))
    score = score - 200 * (0.015 - clear).clamp_min(0) - 100 * (0.02 - height).clamp_min(0)
    # And the way they hold things: by the near part, which little of the hand goes past.
    offset = (mean - centre[pair])[:, None]
    gyration = (obj.points - mean).square().sum(-1).mean().sqrt()
    beyond = (offset * frames[..., 1]).sum(-1) - config.ahead[0]
    aside = (offset * frames[..., 2]).sum(-1) - config.beside[0]
    near = (beyond / (config.ahead[1] + config.ahead[2] * gyration)) ** 2
    near = near + (aside / (config.beside[1] * gyration)) ** 2
    gumbel = -torch.log(-torch.log(torch.rand(score.shape, generator=generator)))
    best = (score - 0.5 * near + gumbel).reshape(config.candidates, -1).argmax(1)
    row, turn = torch.arange(config.candidates) * _PLACES + best // _TURNS, best % _TURNS
    good = score[row, turn] > -4.0
    if not good.any():
        return None
    row, turn = row[good], turn[good]

    betas = (torch.randn(len(row), 10, generator=generator) * config.shape_std).clamp(-2, 2)
    angles = torch.stack([s.anatomical for s in shapes])[kind[row], step[row]]
    angles = angles + 0.35 * default_anatomy().std * torch.randn(angles.shape, generator=generator)
    pose = HandPose(
        "right",
        log_so3(rotation[row, turn]),
        default_anatomy().from_anatomical(angles),
        betas,
        torch.zeros(len(row), 3),
    )
    jitter = 0.006 * torch.randn(len(row), 3, generator=generator)
    pose = replace(pose, transl=wrist[row, turn] + jitter - model.root(pose))
    squeeze = (config.squeeze * torch.randn(len(row), generator=generator).abs()).clamp_max(2 * config.squeeze)
    squeeze = squeeze.minimum(config.yielding * width[pair[row]])
    able = torch.rand(len(row), 5, generator=generator) >= config.miss
    able[:, 4] = True  # nothing is held without the thumb
    hollow = obj.grid.query(centre[pair[row]][None])[0][0] > 0
    return Placement(pose, kind[row], angles, squeeze, able, hollow)


def _draw_pairs(
    obj: ObjectMesh, shapes: tuple[Preshape, ...], centre: Tensor, axis: Tensor, width: Tensor,
    generator: torch.Generator, config: SynthesisConfig,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """Several pairs to choose from for every candidate and its grasp type, ``(candidates * _PLACES,)`` each."""
    # People grasp near the middle of what they see.
    mean = obj.points.mean(0)
    whiten = torch.linalg.inv(torch.cov(obj.points.T) + 1e-5 * torch.eye(3))
    away = torch.einsum("mi,ij,mj->m", centre - mean, whiten, centre - mean)
    likely = torch.exp(-away / (2 * config.off_centre**2))
    # Nor lengthways, if they can help it; and narrow places give more pairs than their share of grasps.
    longest = torch.linalg.svd(obj.points - mean, full_matrices=False).Vh[0]
    likely = likely * torch.exp(-config.crosswise * (axis @ longest) ** 2) * (0.05 + (width / 0.05) ** 3)
    fits = torch.stack([(width >= s.kind.width[0]) & (width <= s.kind.width[1]) for s in shapes])
    weight = likely * fits
    usable = (weight.sum(1) > 1e-6).nonzero()[:, 0]
    if len(usable) == 0:
        return None
    shares = torch.tensor([shapes[k].kind.share for k in usable.tolist()])
    kind = usable[torch.multinomial(shares, config.candidates, replacement=True, generator=generator)]
    pairs = [torch.multinomial(weight[k], _PLACES, replacement=True, generator=generator) for k in kind]
    return torch.cat(pairs), kind.repeat_interleave(_PLACES)


def _turned(axis: Tensor, generator: torch.Generator) -> Tensor:
    """``(B, _TURNS, 3, 3)`` frames with the first column along ``axis (B, 3)``, turned about it."""
    angle = (torch.arange(_TURNS) + torch.rand(len(axis), 1, generator=generator)) * (2 * torch.pi / _TURNS)
    # Any direction across will do: that of the coordinate axis least along it.
    side = normalize(torch.linalg.cross(axis, one_hot(axis.abs().argmin(-1), 3).to(axis)), dim=-1)
    other = torch.linalg.cross(axis, side)
    across = angle.cos()[..., None] * side[:, None] + angle.sin()[..., None] * other[:, None]
    along = axis[:, None].expand_as(across)
    return torch.stack([along, across, torch.linalg.cross(along, across, dim=-1)], -1)
