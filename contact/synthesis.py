"""Grasps by optimisation: hands placed across an object's width, closed on it, and kept if they hold.

A candidate starts from a pair of opposite surface points: the thumb goes to one, the fingers to the other,
turned about that axis the way a person reaching from above or beside a table would come. Gauss–Newton then
closes the hand on the surface. What sinks in, does not oppose, or could not hold is thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from hand_models import HandModel, HandPose
from hand_models.anatomy import default_anatomy
from hand_models.least_squares import NormalEquations, Termination, minimize
from hand_models.pose import TANGENT_DIM
from hand_models.rotations import log_so3

from . import costs
from .grasp_types import Preshape, fingertip_skin, palmar_skin
from .grid import SignedDistanceGrid
from .objects import ObjectMesh

THUMB = (13, 14, 15)
_TURNS = 16  # directions tried about the closing axis


@dataclass(frozen=True)
class SynthesisConfig:
    """How candidates are made and which are kept."""

    candidates: int = 96
    """attempts per object"""
    off_centre: float = 0.8
    """standard deviation of where on the object people grasp, in units of the object's own spread"""
    pitch: tuple[float, float] = (-0.4, 0.45)
    """mean and deviation of the upward component of the reaching direction (-1: straight down)"""
    shape_std: float = 0.8
    """standard deviation of the sampled betas"""
    crosswise: float = 2.5
    """log odds of closing across the object's longest axis against closing along it"""
    ahead: float = 0.006
    """metres that the bulk of the object lies ahead of the grasp and to the thumb's side, which makes a direction
    of reach e times as likely"""
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
    axis = torch.nn.functional.normalize(n[first] - n[second], dim=-1)
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
    # People grasp near the middle of what they see.
    mean = obj.points.mean(0)
    whiten = torch.linalg.inv(torch.cov(obj.points.T) + 1e-5 * torch.eye(3))
    away = torch.einsum("mi,ij,mj->m", centre - mean, whiten, centre - mean)
    likely = torch.exp(-away / (2 * config.off_centre**2))
    # Nor lengthways, if they can help it; and narrow places give more pairs than their share of grasps.
    longest = torch.linalg.svd(obj.points - mean, full_matrices=False).Vh[0]
    likely = likely * torch.exp(-config.crosswise * (axis @ longest) ** 2) * (0.05 + (width / 0.05) ** 3)

    usable, kinds = [], []
    for k, shape in enumerate(shapes):
        fits = (width >= shape.kind.width[0]) & (width <= shape.kind.width[1])
        weight = likely * fits
        if weight.sum() > 1e-6:
            usable.append(weight)
            kinds.append(k)
    if not usable:
        return None
    shares = torch.tensor([shapes[k].kind.share for k in kinds])
    chosen = torch.multinomial(shares, config.candidates, replacement=True, generator=generator)
    pair = torch.cat([torch.multinomial(usable[c], 1, generator=generator) for c in chosen.tolist()])
    kind = torch.tensor(kinds)[chosen]

    # The opening that lets the object in with a centimetre to spare.
    opening = torch.stack([s.opening for s in shapes])[kind]
    step = (opening - (width[pair] + 0.012)[:, None]).abs().argmin(1)
    thumb = torch.stack([s.thumb for s in shapes])[kind, step]
    opposing = torch.stack([s.opposing for s in shapes])[kind, step]

    # Hand frame: closing axis, reaching direction across it, and their normal; the same three on the object.
    close = torch.nn.functional.normalize(thumb - opposing, dim=-1)
    middle = (thumb + opposing) / 2
    reach = middle - (middle * close).sum(-1, keepdim=True) * close
    reach = torch.nn.functional.normalize(reach, dim=-1)
    hand_frame = torch.stack([close, reach, torch.linalg.cross(close, reach)], -1)
    target = torch.where(torch.rand(len(pair), 1, generator=generator) < 0.5, 1.0, -1.0) * axis[pair]
    angle = (torch.arange(_TURNS) + torch.rand(len(pair), 1, generator=generator)) * (2 * torch.pi / _TURNS)
    side = torch.nn.functional.normalize(torch.linalg.cross(target, _least_aligned(target)), dim=-1)
    other = torch.linalg.cross(target, side)
    directions = angle.cos()[..., None] * side[:, None] + angle.sin()[..., None] * other[:, None]
    about = target[:, None].expand_as(directions)
    frames = torch.stack([about, directions, torch.linalg.cross(about, directions, dim=-1)], -1)
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
    score = -0.5 * ((lift - config.pitch[0]) / config.pitch[1]) ** 2 + torch.nn.functional.logsigmoid(
        5 * (thumb_up + 0.3)
    )
    # People reach from the near side of things and hold them low: the bulk lies beyond the fingers and thumb.
    bulk = torch.nn.functional.normalize(rotation[..., 2] - back, dim=-1)
    score = score + ((mean - centre[pair])[:, None] * bulk).sum(-1) / config.ahead
    score = score - 200 * (0.015 - clear).clamp_min(0) - 100 * (0.02 - height).clamp_min(0)
    gumbel = -torch.log(-torch.log(torch.rand(score.shape, generator=generator)))
    turn = (score + gumbel).argmax(1)
    row = torch.arange(len(pair))
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
    squeeze = (config.squeeze * torch.randn(len(row), generator=generator).abs()).clamp_max(
        2 * config.squeeze
    )
    squeeze = squeeze.minimum(config.yielding * width[pair[row]])
    centres = centre[pair[row]]
    hollow = obj.grid.query(centres[None])[0][0] > 0
    return Placement(pose, kind[row], angles, squeeze, hollow)


def _least_aligned(v: Tensor) -> Tensor:
    """The coordinate axis least aligned with each vector."""
    return torch.nn.functional.one_hot(v.abs().argmin(-1), 3).to(v)


def close_hands(
    model: HandModel, obj: ObjectMesh, placement: Placement, shapes: tuple[Preshape, ...], up: Tensor,
    config: SynthesisConfig,
) -> HandPose:  # fmt: skip
    """Close every hand on the object: touch with the parts its type touches with, without sinking in."""
    anatomy = default_anatomy()
    skin = model.contact_points[: len(model.contact_points) // 2]
    palmar = palmar_skin(model, anatomy)
    # Each touching bone counts the same, however many points it has. What does not touch keeps clear.
    wanted = torch.zeros(len(shapes), len(skin))
    clearance = torch.full((len(shapes), len(skin)), config.clearance)
    for k, shape in enumerate(shapes):
        for bone in shape.kind.touching_bones():
            tip_only = bone % 3 == 0 and bone > 0 and shape.kind.bones == 1
            part = model.part_of_vertex == bone
            members = (fingertip_skin(model, palmar, bone) if tip_only else palmar & part)[skin]
            wanted[k, members] = (2.0 if bone else 4.0) / members.sum().clamp_min(1)
            clearance[k, part[skin]] = 0.0
    floor = (obj.points @ up).min()
    std = anatomy.std * 0.6
    # A hand round a cavity must not end up inside it: it closes on the object's convex hull.
    solid = obj.grid
    if placement.across.any():
        solid = SignedDistanceGrid.stack(
            [obj.grid, ObjectMesh.from_any(obj.trimesh.convex_hull, resolution=48).grid]
        )

    def surface(points: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return solid.query(points, placement.across[index].long() if solid.count > 1 else None)

    def linearize(pose: HandPose, index: Tensor) -> NormalEquations:
        jacobian = model.jacobian(pose, skin)
        points = jacobian.vertices.points
        distance, gradient = surface(points, index)
        weight = wanted[placement.kind[index]]
        height = points @ up - floor
        squeeze = placement.squeeze[index][:, None]
        apart = clearance[placement.kind[index]]
        equations = NormalEquations.zeros(len(index), TANGENT_DIM, points)
        spheres, radius = costs.inner_spheres(jacobian.joints)
        inner, inner_gradient = surface(spheres.points, index)
        for residual in (
            costs.attraction(jacobian.vertices, distance + squeeze, gradient, weight, 0.003, 4.0),
            costs.penetration(jacobian.vertices, distance - apart, gradient, squeeze * (apart == 0), 0.001),
            # Bones keep their distance too: thin walls are no barrier to the skin alone.
            costs.penetration(spheres, inner, inner_gradient, squeeze - radius, 0.001),
            costs.penetration(jacobian.vertices, height, up.expand_as(points), 0.0, 0.003),
            costs.pose_prior(pose.hand_pose, placement.anatomical[index], std, anatomy, TANGENT_DIM),
            costs.joint_limits(pose.hand_pose, anatomy, 0.05, TANGENT_DIM),
            costs.self_penetration(spheres, radius, 0.001),
        ):
            equations = equations.add(*residual)
        return equations

    return minimize(linearize, placement.pose, Termination(config.iterations, 3e-3)).pose


@dataclass(frozen=True)
class Contacts:
    """The closest skin of each bone of each hand, and how the object meets it."""

    depth: Tensor
    """(B,) deepest penetration, metres"""
    distance: Tensor
    """(B, 16) of each bone's closest skin"""
    point: Tensor
    """(B, 16, 3)"""
    normal: Tensor
    """(B, 16, 3) outward normal of the object there"""


def find_contacts(model: HandModel, obj: ObjectMesh, pose: HandPose) -> Contacts:
    """Measure where the hands touch, over the whole skin."""
    vertices = model(pose).vertices
    pierced = object_inside_hand(model, vertices, obj.points)
    distance, gradient = obj.grid.query(vertices.reshape(1, -1, 3))
    distance, gradient = distance.reshape(vertices.shape[:2]), gradient.reshape(vertices.shape)
    closest = torch.stack(
        [distance.masked_fill(model.part_of_vertex != bone, torch.inf).argmin(1) for bone in range(16)], 1
    )
    pick = closest[..., None].expand(-1, -1, 3)
    normal = torch.nn.functional.normalize(gradient.gather(1, pick), dim=-1)
    return Contacts(
        torch.maximum(-distance.amin(1), pierced),
        distance.gather(1, closest),
        vertices.gather(1, pick),
        normal,
    )


def object_inside_hand(model: HandModel, vertices: Tensor, points: Tensor) -> Tensor:
    """(B,) how deep the deepest object point lies under the skin, metres, measured along the skin's normal.

    Sees what the object's own distance field cannot: a finger that has gone right through a thin wall.
    """
    faces = model.faces_for("right")
    corners = vertices[:, faces]
    area = torch.linalg.cross(
        corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0], dim=-1
    )
    normals = torch.zeros_like(vertices)
    for k in range(3):
        normals.index_add_(1, faces[:, k], area)
    normals = torch.nn.functional.normalize(normals, dim=-1)
    depth = []
    for v, n in zip(vertices, normals, strict=True):
        near = points[((points > v.amin(0)) & (points < v.amax(0))).all(1)]
        if len(near) == 0:
            depth.append(v.new_zeros(()))
            continue
        closest = torch.cdist(near, v).argmin(1)
        depth.append(((v[closest] - near) * n[closest]).sum(1).amax().clamp_min(0))
    return torch.stack(depth)


def holds(contacts: Contacts, squeeze: Tensor, config: SynthesisConfig) -> Tensor:
    """(B,) bool: no deeper than pressed ``squeeze (B,)``, the thumb opposed by a finger, and force closure."""
    touching = contacts.distance < config.touch
    fingers = torch.tensor([b for b in range(1, 16) if b not in THUMB])
    thumb = list(THUMB)
    cosine = contacts.normal[:, thumb] @ contacts.normal[:, fingers].transpose(1, 2)
    both = touching[:, thumb][:, :, None] & touching[:, fingers][:, None]
    opposed = ((cosine < config.opposition) & both).flatten(1).any(1)
    good = opposed & (contacts.depth <= squeeze + config.max_penetration)
    for row in good.nonzero()[:, 0].tolist():
        mask = touching[row]
        good[row] = force_closure(
            contacts.point[row, mask].double().numpy(),
            contacts.normal[row, mask].double().numpy(),
            config.friction,
        )
    return good


def force_closure(
    points: np.ndarray, normals: np.ndarray, friction: float, edges: int = 6, slack: float = 0.02
) -> bool:
    """Whether contacts with friction can resist every small wrench.

    The friction cones are linearised; they close if some strictly positive combination of their edges gives
    no wrench while the edges span all six dimensions (Murray, Li, Sastry 1994, prop. 5.3), found by
    non-negative least squares. Soft fingertips are stood for by three points around each contact.

    Args:
        points: ``(K, 3)`` metres.
        normals: ``(K, 3)`` outward of the object; the hand pushes against them.
        friction: Coulomb coefficient.
        edges: edges per linearised cone.
        slack: residual wrench, relative to the sum of the pushes, that still counts as none.
    """
    if len(points) < 2:
        return False
    tangent = np.cross(normals, np.eye(3)[np.abs(normals).argmin(1)])
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    bitangent = np.cross(normals, tangent)
    angle = np.arange(edges) * (2 * np.pi / edges)
    around = np.cos(angle)[:, None, None] * tangent + np.sin(angle)[:, None, None] * bitangent
    force = (-normals + friction * around).reshape(-1, 3)
    patch = np.arange(3) * (2 * np.pi / 3)
    ring = 0.005 * (np.cos(patch)[:, None, None] * tangent + np.sin(patch)[:, None, None] * bitangent)
    centred = points - points.mean(0)
    scale = max(np.abs(centred).max(), 0.01)
    wrench = np.concatenate(
        [np.hstack([force, np.cross(np.tile(centred + r, (edges, 1)), force) / scale]) for r in ring]
    ).T
    if np.linalg.matrix_rank(wrench, tol=1e-3) < 6:
        return False
    _, residual = nnls(wrench, -wrench.mean(1))
    return bool(residual < slack)
