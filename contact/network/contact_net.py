"""`ContactNet`: contact, correspondence and joints, each with its variance, from a noisy hand and an object.

A PointNet++-like encoder (Qi et al., NeurIPS 2017; edge features as in DGCNN, Wang et al., ToG 2019) brings
2,048 object points down to 128 tokens. A few transformer layers let these and one token per hand joint
exchange what they know; the joint tokens leave as denoised joints, the object tokens go back up to a contact
field. Each output has its own variance and is trained by a proper scoring rule. A latent (`contact.network.latent`)
moves the tokens from halfway on: drawn, it gives one plausible field; absent, the mean over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, scaled_dot_product_attention, softplus

from hand_models import HandModel
from hand_models.record import Record

from ..field import ContactField
from ..objects.hierarchy import LEVELS, PointHierarchy
from .features import HAND_FEATURES, JOINT_FEATURES, LENGTH, OBJECT_FEATURES, Observation
from .latent import Gaussian, Latent

NUM_PARTS, NUM_JOINTS = 16, 21
# Token of the joint a bone starts from and of the one it ends in, OpenPose order, for MANO's 16 bones.
_BONE_TOKENS = (
    (0, 9), (5, 6), (6, 7), (7, 8), (9, 10), (10, 11), (11, 12), (17, 18), (18, 19), (19, 20),
    (13, 14), (14, 15), (15, 16), (1, 2), (2, 3), (3, 4),
)  # fmt: skip
_TOLD_UNIT = 0.04  # metres: an input that is off by this much is corrected as one of which nothing is known
_MIN_STD = 0.001  # metres: below a millimetre nothing is gained by more confidence


@dataclass(frozen=True)
class NetworkConfig:
    """Widths of the network; the defaults are the shipped one."""

    fine: int = 64
    """channels of the 2,048 points"""
    middle: int = 96
    """channels of the 512 points"""
    token: int = 128
    """channels of the 128 + 21 tokens"""
    layers: int = 4
    """transformer layers; the latent comes in after the first half of them"""
    heads: int = 4
    latent: int = 8
    """numbers in the latent"""


@dataclass(frozen=True)
class Encoding(Record):
    """What the first half of the network makes of ``B`` observations."""

    fine: Tensor
    """(B, 2048, fine)"""
    middle: Tensor
    """(B, 512, middle)"""
    tokens: Tensor
    """(B, 128 + 21, token) object and joint tokens"""


@dataclass(frozen=True)
class Prediction(Record):
    """Raw network output: a `ContactField` with logits in place of probabilities and joints in the wrist frame."""

    contact_logit: Tensor
    contact_var: Tensor
    near_logit: Tensor
    part_logits: Tensor
    canonical: Tensor
    canonical_var: Tensor
    gap: Tensor
    gap_var: Tensor
    hand_contact_logit: Tensor
    hand_contact_var: Tensor
    joints: Tensor
    joints_cov: Tensor
    holding_logit: Tensor

    @property
    def joints_var(self) -> Tensor:
        """(B, 21) mean over the axes."""
        return torch.diagonal(self.joints_cov, dim1=2, dim2=3).mean(2)

    def to_field(self, observation: Observation) -> ContactField:
        """The contact field in the object frame."""
        turn = observation.rotation[:, None]
        as_it_is = [name for name in vars(self) if name in ContactField.__dataclass_fields__]
        return ContactField(**{name: getattr(self, name) for name in as_it_is} | {
            "contact": self.contact_logit.sigmoid(), "near": self.near_logit.sigmoid(),
            "part": self.part_logits.softmax(-1), "hand_contact": self.hand_contact_logit.sigmoid(),
            "joints": self.joints @ observation.rotation.transpose(1, 2) + observation.origin[:, None],
            "joints_var": self.joints_var, "holding": self.holding_logit.sigmoid(),
            "joints_cov": turn @ self.joints_cov @ turn.transpose(2, 3),
        })  # fmt: skip


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
    return nn.Sequential(*layers)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """``values (B, n, c)`` at ``index (B, m, k)``: ``(B, m, k, c)``."""
    batch, count, width = values.shape
    offset = torch.arange(batch, device=values.device)[:, None, None] * count
    return values.reshape(-1, width).index_select(0, (index + offset).flatten()).reshape(*index.shape, width)


class _Gather(nn.Module):
    """Coarse points from their fine neighbours: the largest ``A f_j + B (x_j - x_i)``, then one layer.

    Both maps are applied before the gather, once per point and not once per edge.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.feature = nn.Linear(width_in, width_out)
        self.position = nn.Linear(3, width_out, bias=False)
        self.after = _mlp(width_out, width_out)

    def forward(self, features: Tensor, xyz: Tensor, index: Tensor) -> Tensor:
        shift = self.position(xyz / (0.2 * LENGTH))
        edges = self.feature(features) + shift
        # Which neighbour is the largest takes no derivative: only the winners are gathered with one.
        with torch.no_grad():
            best = _take(edges, index).max(2).indices
            winner = index.gather(2, best)
        return self.after(edges.gather(1, winner) - shift[:, : index.shape[1]])


class _Spread(nn.Module):
    """Fine points from the coarse ones around them, joined with what they knew before."""

    def __init__(self, coarse: int, fine: int, width_out: int) -> None:
        super().__init__()
        self.coarse, self.fine = nn.Linear(coarse, width_out), nn.Linear(fine, width_out)
        self.after = nn.Sequential(nn.LayerNorm(width_out), nn.ReLU(), nn.Linear(width_out, width_out), nn.ReLU())

    def forward(self, coarse: Tensor, fine: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        interpolated = (_take(self.coarse(coarse), index) * weight[..., None]).sum(2)
        return self.after(interpolated + self.fine(fine))


class _Attention(nn.Module):
    """One pre-norm transformer layer (Vaswani et al., NeurIPS 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        tokens = tokens + self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return tokens + self.feed(self.norm2(tokens))


class ContactNet(nn.Module):
    """See the module's text. About 1 M parameters with the default configuration."""

    def __init__(self, config: NetworkConfig = NetworkConfig()) -> None:
        super().__init__()
        self.config = config
        c = config
        self.point = _mlp(OBJECT_FEATURES, c.fine, c.fine)
        self.gather1, self.gather2 = _Gather(c.fine, c.middle), _Gather(c.middle, c.token)
        self.hand = _mlp(HAND_FEATURES, c.token, c.token)
        self.joint = nn.Linear(JOINT_FEATURES, c.token)
        self.joint_name = nn.Parameter(0.02 * torch.randn(NUM_JOINTS, c.token))
        self.place = nn.Linear(3, c.token)
        self.attention = nn.ModuleList(_Attention(c.token, c.heads) for _ in range(c.layers))
        self.latent = Latent(c.token, c.latent, c.layers - c.layers // 2)
        self.norm = nn.LayerNorm(c.token)
        self.spread2 = _Spread(c.token, c.middle, c.middle)
        self.spread1 = _Spread(c.middle, c.fine, c.middle)
        # contact 2, near 1, part 16, canonical offset 3 and spread 1, gap 1 and spread 1
        self.point_head = nn.Linear(c.middle, 9 + NUM_PARTS)
        self.joint_head = nn.Sequential(nn.Linear(c.token, c.token), nn.ReLU(), nn.Linear(c.token, 9))
        self.holding_head = nn.Sequential(nn.Linear(2 * c.token, 64), nn.ReLU(), nn.Linear(64, 1))
        self.skin_place, self.skin_token = nn.Linear(3, 64), nn.Linear(2 * c.token, 64)
        self.skin_head = nn.Sequential(nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
        self.part_centre = nn.Parameter(torch.zeros(NUM_PARTS, 3))

    def forward(
        self,
        observation: Observation,
        hierarchy: PointHierarchy,
        skin: Tensor,
        skin_part: Tensor,
        at: Tensor | slice = slice(None),
    ) -> Prediction:
        """Predict for ``B`` grasps, without a latent; the arguments are those of `encode` and `decode`."""
        return self.decode(self.encode(observation, hierarchy), observation, hierarchy, skin, skin_part, at)

    def encode(self, observation: Observation, hierarchy: PointHierarchy) -> Encoding:
        """The half of the network that does not depend on the latent.

        Args:
            observation: from `contact.network.features.observe`.
            hierarchy: of the ``B`` objects, one row per grasp.
        """
        xyz = observation.objects[..., :3] * LENGTH
        fine = self.point(observation.objects)
        middle = self.gather1(fine, xyz, hierarchy.gather1)
        coarse = self.gather2(middle, xyz[:, : LEVELS[1]], hierarchy.gather2)
        of_object = coarse + self.place(observation.objects[:, : LEVELS[2], :3])
        of_joints = self.joint(observation.joints) + self.place(observation.joint_positions / LENGTH) + self.joint_name
        tokens = torch.cat([of_object, of_joints], 1) + self.hand(observation.hand)[:, None]
        for layer in self.attention[: self.config.layers // 2]:
            tokens = layer(tokens)
        return Encoding(fine, middle, tokens)

    def prior(self, encoding: Encoding) -> Gaussian:
        """Distribution of the latent given the observation."""
        return self.latent.prior(_summary(encoding))

    def posterior(self, encoding: Encoding, shift: Tensor) -> Gaussian:
        """Distribution of the latent given observation and truth, see `Latent.posterior`; for training."""
        return self.latent.posterior(_summary(encoding), shift)

    def decode(
        self,
        encoding: Encoding,
        observation: Observation,
        hierarchy: PointHierarchy,
        skin: Tensor,
        skin_part: Tensor,
        at: Tensor | slice = slice(None),
        latent: Tensor | None = None,
    ) -> Prediction:
        """The half of the network after the latent.

        Args:
            encoding: from `encode`; observation and hierarchy row by row the ones it was made from.
            skin: ``(P, 3)`` canonical positions of the hand points to predict contact at, metres.
            skin_part: ``(P,)`` bone of each, 0 to 15.
            at: object points to predict at; training needs only a few of them at a time.
            latent: ``(B, Z)``, or None for the mean over all that the observation leaves open.
        """
        tokens = encoding.tokens
        for k, layer in enumerate(self.attention[self.config.layers // 2 :]):
            tokens = layer(self.latent.enter(tokens, latent, k))
        tokens = self.norm(tokens)
        of_object, of_joints = tokens[:, : LEVELS[2]], tokens[:, LEVELS[2] :]

        middle = self.spread2(of_object, encoding.middle, hierarchy.spread2, hierarchy.spread2_weight)
        fine, spread, weight = encoding.fine[:, at], hierarchy.spread1[:, at], hierarchy.spread1_weight[:, at]
        fine = self.spread1(middle, fine, spread, weight)
        on_object = self.point_head(fine).split([1, 1, 1, 3, 1, 1, 1, NUM_PARTS], -1)
        contact, contact_spread, near, offset, offset_spread, gap, gap_spread, part = on_object
        joints = self.joint_head(of_joints)
        # In units of the input's own error, where that is known: what cannot be off is not moved.
        told = observation.told[:, None, None, None]
        unit = told * observation.spread / _TOLD_UNIT + (1 - told) * torch.eye(3).to(told)
        root = unit @ _root(joints[..., 3:])
        least = _MIN_STD**2 * torch.eye(3).to(unit)
        ends = torch.tensor(_BONE_TOKENS, device=tokens.device)
        of_bone = self.skin_token(of_joints[:, ends].flatten(2))
        on_skin = self.skin_head(self.skin_place(skin / LENGTH) + of_bone[:, skin_part])
        centre = part.softmax(-1) @ self.part_centre
        return Prediction(
            contact_logit=contact[..., 0],
            contact_var=_variance(contact_spread[..., 0], 0.01),
            near_logit=near[..., 0],
            part_logits=part,
            canonical=(centre + offset) * LENGTH,
            canonical_var=_variance(offset_spread[..., 0], _MIN_STD / LENGTH) * LENGTH**2,
            gap=gap[..., 0] * 0.1 * LENGTH,
            gap_var=_variance(gap_spread[..., 0], 0.1 * _MIN_STD / LENGTH) * LENGTH**2,
            hand_contact_logit=on_skin[..., 0],
            hand_contact_var=_variance(on_skin[..., 1], 0.01),
            joints=observation.joint_positions + (unit @ joints[..., :3, None])[..., 0] * LENGTH,
            holding_logit=self.holding_head(torch.cat([of_joints.mean(1), of_object.amax(1)], 1))[:, 0],
            joints_cov=root @ root.transpose(2, 3) + least,
        )

    def predict(
        self, model: HandModel, observation: Observation, hierarchy: PointHierarchy, noise: Tensor | None = None
    ) -> ContactField:
        """The contact field of ``B`` right hands over ``model.contact_points``, object frame, without gradients.

        Args:
            model: the right-hand model the observation was made with.
            observation: from `contact.network.features.observe`.
            hierarchy: of the ``B`` objects, one row per grasp.
            noise: ``(K, B, Z)`` standard normal, for ``K`` draws of a plausible field instead of the mean;
                ``Z`` is ``config.latent``.

        Returns:
            A field of ``B`` rows, or of ``K · B``, draw by draw; joints included.
        """
        skin = model.rest_canonical[model.contact_points]
        part = model.part_of_vertex[model.contact_points]
        with torch.no_grad():
            encoding = self.encode(observation, hierarchy)
            if noise is None:
                return self.decode(encoding, observation, hierarchy, skin, part).to_field(observation)
            latent = self.prior(encoding).draw(noise).flatten(0, 1)
            rows = torch.arange(len(observation), device=latent.device).repeat(len(noise))
            encoding, observation, hierarchy = encoding[rows], observation[rows], hierarchy[rows]
            raw = self.decode(encoding, observation, hierarchy, skin, part, latent=latent)
        return raw.to_field(observation)


def _summary(encoding: Encoding) -> Tensor:
    """What the joint tokens know, on average, whatever size tokens have grown to in training."""
    joints = encoding.tokens[:, LEVELS[2] :]
    return layer_norm(joints, joints.shape[-1:]).mean(1)


def _root(x: Tensor) -> Tensor:
    """Lower triangular root ``(..., 3, 3)`` of a covariance, units of `LENGTH` squared, from ``x (..., 6)``: its size,
    how this differs by axis, and how the axes go together."""
    size = 0.3 * LENGTH * softplus(x[..., :1])
    first, second = x[..., 1:3].tanh().unbind(-1)
    diagonal = torch.stack([first, second, -first - second], -1).exp()
    # The unit lower triangle in columns; nothing above its diagonal.
    one, none = torch.ones_like(first), torch.zeros_like(first)
    below = 0.5 * x[..., 3:]
    rows = one, none, none, below[..., 0], one, none, below[..., 1], below[..., 2], one
    return torch.stack(rows, -1).unflatten(-1, (3, 3)) * (size * diagonal)[..., None, :]


def _variance(x: Tensor, floor: float) -> Tensor:
    """A positive variance, never below ``floor`` squared."""
    return (0.3 * softplus(x)) ** 2 + floor**2
