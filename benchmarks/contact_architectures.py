"""Other architectures that predict contact from a noisy hand and an object, to compare `ContactNet` with.

- `DeepContact`: PointNet++ (Qi et al., NeurIPS 2017) as ContactOpt uses it (Grady et al., CVPR 2021), rewritten
  from its description: 25 features a point, ten contact bins, 1.42 M parameters.
- `EdgeConvNet`: edge convolutions (Wang et al., ToG 2019) over the neighbourhoods of `contact.objects.hierarchy`.
- `BasisPointMLP`: the object as distances from fixed points (Prokudin et al., ICCV 2019), then dense layers.

All three give ten bins of contact for each object point and each of the hand's contact points, and no
correspondence, joints or variance of their own. `predict` makes what the optimiser reads of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from contact_maps import BINS, Maps, to_field
from set_abstraction import PooledEdges, Propagate, ball, farthest_points, interpolate, nearest, norm_mlp, over_rows
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from contact.field import NUM_PARTS, ContactField
from contact.network.features import HAND_FEATURES, JOINT_FEATURES, LENGTH, OBJECT_FEATURES, Observation, observe
from contact.objects.hierarchy import LEVELS, PointHierarchy
from hand_models import HandModel, HandPose
from hand_models.weight_files import read_card, read_weights, write_weights

CLOUD_FEATURES = 25
_JOINTS = 21


@dataclass(frozen=True)
class Cloud:
    """Hand and object as one set of points, hand first."""

    xyz: Tensor
    """(B, P + n, 3) metres; the object's centre is the origin, the hand's lies on the first axis, and the wrist
    has a positive second coordinate and a third of zero"""
    features: Tensor
    """(B, P + n, 25) 1 on the hand, offset from the other's centre along the normal, distance to the other's
    nearest point, the same along the normal, distances to the 21 joints; metres"""
    hand: int
    """P"""


@torch.no_grad()
def describe_cloud(model: HandModel, pose: HandPose, points: Tensor, normals: Tensor) -> Cloud:
    """The input of `DeepContact`: ``B`` right hands, at their contact points, with ``points (B, n, 3)``."""
    hand = model(pose)
    corners = hand.vertices[:, model.closed_faces]
    face_normals = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    vertex_normals = torch.zeros_like(hand.vertices)
    for k in range(3):
        vertex_normals.index_add_(1, model.closed_faces[:, k], face_normals)
    skin, outward = (t[:, model.contact_points] for t in (hand.vertices, normalize(vertex_normals, dim=-1)))

    distance = torch.cdist(skin, points)
    (on_hand, object_nearest), (on_object, skin_nearest) = distance.min(2), distance.min(1)
    described = []
    for is_hand, xyz, normal, other, gap, closest in (
        (1.0, skin, outward, points, on_hand, object_nearest),
        (0.0, points, normals, skin, on_object, skin_nearest),
    ):
        to_other = other.gather(1, closest[..., None].expand(-1, -1, 3)) - xyz
        from_centre = xyz - other.mean(1, keepdim=True)
        described.append(
            torch.cat(
                [
                    torch.full_like(gap[..., None], is_hand),
                    (from_centre * normal).sum(-1, keepdim=True),
                    gap[..., None],
                    (to_other * normal).sum(-1, keepdim=True),
                    torch.cdist(xyz, hand.joints),
                ],
                -1,
            )
        )
    centre = points.mean(1)
    first = normalize(skin.mean(1) - centre, dim=-1)
    third = normalize(torch.linalg.cross(first, hand.joints[:, 0] - centre), dim=-1)
    frame = torch.stack([first, torch.linalg.cross(third, first), third], -1)
    xyz = (torch.cat([skin, points], 1) - centre[:, None]) @ frame
    return Cloud(xyz, torch.cat(described, 1), skin.shape[1])


class DeepContact(nn.Module):
    """ContactOpt's network. Its cloud are the 700 contact points of the open hand and the object's 2,048.

    Lengths enter in decimetres, which only eases training. Centroids are farthest-point samples; neighbours
    are drawn from a ball at random, in prediction always the same.
    """

    kind = "deepcontact"

    def __init__(self, neighbours: int = 64) -> None:
        """``neighbours``: of a centroid, at most."""
        super().__init__()
        self.neighbours = neighbours
        self.sa1 = PooledEdges(3 + CLOUD_FEATURES, 64, 64, 128)
        self.sa2 = PooledEdges(3 + 128, 128, 128, 256)
        self.sa3 = norm_mlp(3 + 256, 256, 512, 1024)
        self.fp3 = Propagate(1024, 256, 256, 256)
        self.fp2 = Propagate(256, 128, 256, 128)
        self.fp1 = Propagate(128, CLOUD_FEATURES, 128, 128, 128)
        self.head = nn.Sequential(
            nn.Linear(128, 128), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(128, 128), nn.Dropout(0.5), nn.Linear(128, BINS),
        )  # fmt: skip

    @property
    def options(self) -> dict[str, int]:
        """Arguments that make another such network."""
        return {"neighbours": self.neighbours}

    def prepare(
        self, model: HandModel, pose: HandPose, points: Tensor, normals: Tensor, thickness: Tensor,
        hierarchy: PointHierarchy,
    ) -> Cloud:  # fmt: skip
        """See `predict`."""
        return describe_cloud(model, pose, points, normals)

    def forward(self, inputs: Cloud, at: tuple[Tensor, Tensor] | None = None) -> Maps:
        """Maps of all points, or of the object points and hand points ``at``."""
        xyz, hand = inputs.xyz, inputs.hand
        generator = None if self.training else torch.Generator().manual_seed(0)
        if self.training:
            xyz = _roll(xyz)
        features = torch.cat([inputs.features[..., :1], inputs.features[..., 1:] / LENGTH], -1)
        counts = [xyz.shape[1], -(-xyz.shape[1] // 5), -(-xyz.shape[1] // 20)]
        centroids = _take(xyz, farthest_points(xyz, counts[1]))
        coarse = centroids[:, : counts[2]]  # the first of farthest points are farthest points themselves

        # In training, neighbours are looked for among a random seventh of the cloud only.
        seen = torch.randperm(counts[0], generator=generator)[: counts[0] // 7 if self.training else None]
        key = 1 - torch.rand(counts[1], len(seen), generator=generator)
        index1 = seen[ball(xyz[:, seen], centroids, 0.1, self.neighbours, key)]
        key = 1 - torch.rand(counts[2], counts[1], generator=generator)
        index2 = ball(centroids, coarse, 0.2, self.neighbours, key)

        level1 = self.sa1(features, xyz / LENGTH, centroids / LENGTH, index1)
        level2 = self.sa2(level1, centroids / LENGTH, coarse / LENGTH, index2)
        whole = over_rows(self.sa3, torch.cat([level2, coarse / LENGTH], -1)).amax(1, keepdim=True)

        level2 = self.fp3(whole, level2)
        level1 = self.fp2(level2, level1, *nearest(coarse, centroids))
        if at is not None:
            chosen = torch.cat([at[1], at[0] + hand])
            xyz, features, hand = xyz[:, chosen], features[:, chosen], len(at[1])
        fine = self.fp1(level1, features, *nearest(centroids, xyz))
        logits = self.head(fine)
        return Maps(logits[:, hand:], logits[:, :hand])


def _roll(xyz: Tensor) -> Tensor:
    """Turned about the first axis by a random angle, another for each row."""
    angle = 2 * torch.pi * torch.rand(len(xyz), 1)
    cos, sin = angle.cos(), angle.sin()
    x, y, z = xyz.unbind(-1)
    return torch.stack([x, cos * y - sin * z, sin * y + cos * z], -1)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """``values (B, n, c)`` at ``index (B, m)``."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


@dataclass(frozen=True)
class Described:
    """The input of `ContactNet`, for networks that share it."""

    observation: Observation
    hierarchy: PointHierarchy
    skin: Tensor
    """(P, 19) where on the hand a contact point is: place on the canonical hand and bone"""


def _describe(
    model: HandModel, pose: HandPose, points: Tensor, normals: Tensor, thickness: Tensor, hierarchy: PointHierarchy
) -> Described:  # fmt: skip
    observation = observe(model, pose, points, normals, thickness)
    place = model.rest_canonical[model.contact_points] / LENGTH
    part = one_hot(model.part_of_vertex[model.contact_points], NUM_PARTS).to(place)
    return Described(observation, hierarchy, torch.cat([place, part], -1))


def _hand_vector(observation: Observation) -> Tensor:
    """(B, 328) all that is said of the hand and its joints."""
    return torch.cat([observation.hand, observation.joints.flatten(1)], -1)


_HAND_VECTOR = HAND_FEATURES + _JOINTS * JOINT_FEATURES
_SKIN = 3 + NUM_PARTS


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
    return nn.Sequential(*layers)


class _EdgeConv(nn.Module):
    """``max over j of [f_j - f_i, f_i]`` through a linear map, then normalised and rectified."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.difference, self.own = nn.Linear(width_in, width_out), nn.Linear(width_in, width_out)
        self.after = nn.Sequential(nn.LayerNorm(width_out), nn.ReLU(), _mlp(width_out, width_out))

    def forward(self, features: Tensor, index: Tensor) -> Tensor:
        """``features (B, n, c)`` gathered by the first ``m`` points from ``index (B, m, k)``."""
        moved = self.difference(features)
        batch, count, width = moved.shape
        rows = index + torch.arange(batch, device=index.device)[:, None, None] * count
        found = moved.reshape(-1, width).index_select(0, rows.flatten()).unflatten(0, rows.shape)
        here = slice(index.shape[1])
        return self.after(found.max(2).values - moved[:, here] + self.own(features[:, here]))


class _SeesAsContactNet(nn.Module):
    """A network whose input is what `ContactNet` sees."""

    def prepare(
        self, model: HandModel, pose: HandPose, points: Tensor, normals: Tensor, thickness: Tensor,
        hierarchy: PointHierarchy,
    ) -> Described:  # fmt: skip
        """See `predict`."""
        return _describe(model, pose, points, normals, thickness, hierarchy)


class EdgeConvNet(_SeesAsContactNet):
    """Edge convolutions on 2,048, 512 and 128 points, a global vector, and the way back up."""

    kind = "edgeconv"
    options: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.point = _mlp(OBJECT_FEATURES, 64, 64)
        self.hand = _mlp(_HAND_VECTOR, 256, 128)
        self.edge1, self.edge2 = _EdgeConv(64, 128), _EdgeConv(128, 192)
        self.edge3, self.edge4 = _EdgeConv(192, 192), _EdgeConv(192, 192)
        self.whole = _mlp(3 * 192 + 128, 384, 256)
        self.up3, self.up2 = _mlp(3 * 192 + 256, 192), _mlp(192 + 128, 128)
        self.up1_coarse, self.up1_fine = nn.Linear(128, 128), nn.Linear(64, 128)
        self.head = nn.Sequential(nn.LayerNorm(128), nn.ReLU(), _mlp(128, 128), nn.Linear(128, BINS))
        self.skin, self.skin_whole = nn.Linear(_SKIN, 128), nn.Linear(256 + 128, 128)
        self.skin_head = nn.Sequential(nn.ReLU(), _mlp(128, 128), nn.Linear(128, BINS))

    def forward(self, inputs: Described, at: tuple[Tensor, Tensor] | None = None) -> Maps:
        """Maps of all points, or of the object points and hand points ``at``."""
        h, objects = inputs.hierarchy, inputs.observation.objects
        fine = self.point(objects)
        middle = self.edge1(fine, h.gather1)
        first = self.edge2(middle, h.gather2)
        xyz = objects[:, : LEVELS[2], :3]
        near = torch.cdist(xyz, xyz).topk(16, largest=False).indices
        second = self.edge3(first, near)
        coarse = torch.cat([first, second, self.edge4(second, near)], -1)
        hand = self.hand(_hand_vector(inputs.observation))
        whole = self.whole(torch.cat([coarse.amax(1), hand], -1))

        coarse = self.up3(torch.cat([coarse, whole[:, None].expand(-1, LEVELS[2], -1)], -1))
        middle = self.up2(torch.cat([interpolate(coarse, h.spread2, h.spread2_weight), middle], -1))
        of_object, of_hand = at or (slice(None), slice(None))
        up = self.up1_coarse(middle)
        up = interpolate(up, h.spread1[:, of_object], h.spread1_weight[:, of_object])
        on_object = self.head(up + self.up1_fine(fine[:, of_object]))
        of_whole = self.skin_whole(torch.cat([whole, hand], -1))
        return Maps(on_object, self.skin_head(self.skin(inputs.skin[of_hand]) + of_whole[:, None]))


class BasisPointMLP(_SeesAsContactNet):
    """Distances from 512 points around the wrist to the object, with the hand, through dense layers."""

    kind = "basis"
    options: ClassVar[dict[str, int]] = {}

    def __init__(self, count: int = 512, radius: float = 0.25) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        direction = normalize(torch.randn(count, 3, generator=generator), dim=-1)
        reach = radius * torch.rand(count, 1, generator=generator) ** (1 / 3)
        self.register_buffer("basis", direction * reach)
        self.trunk = _mlp(count + _HAND_VECTOR, 640, 384, 256)
        self.point, self.skin = nn.Linear(OBJECT_FEATURES, 192), nn.Linear(_SKIN, 192)
        self.from_trunk = nn.Linear(256, 2 * 192)
        self.point_head = nn.Sequential(nn.ReLU(), _mlp(192, 128), nn.Linear(128, BINS))
        self.skin_head = nn.Sequential(nn.ReLU(), _mlp(192, 128), nn.Linear(128, BINS))

    def forward(self, inputs: Described, at: tuple[Tensor, Tensor] | None = None) -> Maps:
        """Maps of all points, or of the object points and hand points ``at``."""
        objects = inputs.observation.objects
        distance = torch.cdist(self.basis.expand(len(objects), -1, -1), objects[..., :3] * LENGTH).amin(2)
        trunk = self.trunk(torch.cat([distance / LENGTH, _hand_vector(inputs.observation)], -1))
        of_object, of_hand = at or (slice(None), slice(None))
        to_object, to_hand = self.from_trunk(trunk)[:, None].chunk(2, -1)
        return Maps(
            self.point_head(self.point(objects[:, of_object]) + to_object),
            self.skin_head(self.skin(inputs.skin[of_hand]) + to_hand),
        )


ARCHITECTURES: dict[str, type[nn.Module]] = {a.kind: a for a in (DeepContact, EdgeConvNet, BasisPointMLP)}


def build_architecture(kind: str, **options: int) -> nn.Module:
    """An untrained network; ``ValueError`` lists the kinds when there is no such one."""
    if kind not in ARCHITECTURES:
        raise ValueError(f"kind: {kind!r} is unknown; choose one of {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[kind](**options)


@torch.no_grad()
def predict(
    network: nn.Module, model: HandModel, pose: HandPose, points: Tensor, normals: Tensor, thickness: Tensor,
    hierarchy: PointHierarchy,
) -> ContactField:  # fmt: skip
    """The contact field of ``B`` noisy right hands, object frame, without gradients.

    Args:
        network: one of `ARCHITECTURES`, in evaluation mode.
        pose: noisy right hands, object frame.
        points: ``(B, 2048, 3)`` of their objects, metres, in farthest-point order.
        normals: ``(B, 2048, 3)`` outward.
        thickness: ``(B, 2048)`` metres.
        hierarchy: of the ``B`` objects, one row per hand.
    """
    inputs = network.prepare(model, pose, points, normals, thickness, hierarchy)
    return to_field(network(inputs), model, pose, points)


def save_architecture(network: nn.Module, card: dict[str, Any], path: str | Path) -> Path:
    """Write the weights, in half precision, and ``card`` as JSON beside them.

    Raises:
        ValueError: ``card`` has the key ``kind`` or ``options``, or a weight is not finite in half precision.
    """
    return write_weights(network, {"kind": network.kind, "options": network.options}, card, path, half=True)


def load_architecture(path: str | Path) -> nn.Module:
    """The trained network, ready to predict.

    Raises:
        FileNotFoundError: no such weights, or no card beside them.
        ValueError: the file does not hold the network its card names.
    """

    def build(card: dict[str, Any]) -> nn.Module:
        return build_architecture(card["kind"], **card["options"])

    kind = f"a {read_card(Path(path)).get('kind')} network"
    return read_weights(Path(path), build, kind, "benchmarks/train_contact_architecture.py")
