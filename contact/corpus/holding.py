"""Whether a synthetic grasp holds: where the hand touches, how deep it sinks in, and force closure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from hand_models import HandModel, HandPose
from hand_models.model import skin_normals

from ..objects.mesh import ObjectMesh
from .placement import SynthesisConfig

_THUMB = (13, 14, 15)


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
    depth = torch.maximum(-distance.amin(1), pierced)
    return Contacts(depth, distance.gather(1, closest), vertices.gather(1, pick), normal)


def object_inside_hand(model: HandModel, vertices: Tensor, points: Tensor) -> Tensor:
    """(B,) how deep the deepest object point lies under the skin, metres, measured along the skin's normal.

    Sees what the object's own distance field cannot: a finger that has gone right through a thin wall.
    """
    normals = skin_normals(vertices, model.faces_for("right"))
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
    fingers = torch.tensor([b for b in range(1, 16) if b not in _THUMB])
    thumb = list(_THUMB)
    cosine = contacts.normal[:, thumb] @ contacts.normal[:, fingers].transpose(1, 2)
    both = touching[:, thumb][:, :, None] & touching[:, fingers][:, None]
    opposed = ((cosine < config.opposition) & both).flatten(1).any(1)
    good = opposed & (contacts.depth <= squeeze + config.max_penetration)
    for row in good.nonzero()[:, 0].tolist():
        mask = touching[row]
        points, normals = (values[row, mask].double().numpy() for values in (contacts.point, contacts.normal))
        good[row] = force_closure(points, normals, config.friction)
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
    moments = [np.cross(np.tile(centred + r, (edges, 1)), force) / scale for r in ring]
    wrench = np.concatenate([np.hstack([force, moment]) for moment in moments]).T
    if np.linalg.matrix_rank(wrench, tol=1e-3) < 6:
        return False
    _, residual = nnls(wrench, -wrench.mean(1))
    return bool(residual < slack)
