"""What the contact network predicts for noisy hands: the mean field, and plausible ones drawn from its latent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from contact import weights as shipped
from contact.field import ContactField
from contact.network import ContactNet, Encoding
from contact.network.features import Observation, observe
from contact.objects.hierarchy import PointHierarchy
from contact.objects.object_set import ObjectSet
from hand_models import HandModel, HandPose
from hand_models.record import Record

from ..config import RefineConfig

DRAWN_POINTS = 512
"""Object points that drawn fields cover: of the mean prediction's 2,048 the optimiser uses 160."""


def weights_path(config: RefineConfig) -> Path:
    """Where the network's weights are."""
    return Path(config.weights) if config.weights else shipped.DEFAULT


def load_weights(path: Path, device: torch.device | str = "cpu") -> ContactNet:
    """The network, read once; again when the file has changed, as after another training."""
    return _load_network(path, path.stat().st_mtime_ns if path.is_file() else 0, torch.device(device))


@lru_cache(maxsize=4)
def _load_network(path: Path, changed: int, device: torch.device) -> ContactNet:
    return shipped.load_network(path).to(device)


@dataclass(frozen=True)
class EncodedGrasps(Record):
    """What the network has seen of ``B`` noisy right hands, before the latent comes in."""

    network: ContactNet
    model: HandModel
    observation: Observation
    hierarchy: PointHierarchy
    encoding: Encoding

    @staticmethod
    @torch.no_grad()
    def of(
        network: ContactNet, model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose,
        covariance: Tensor | None = None,
    ) -> EncodedGrasps:  # fmt: skip
        """Look at the hands and their objects, object frame; ``covariance`` as `observe` takes it."""
        points, normals, thickness = objects.points[which], objects.normals[which], objects.thickness[which]
        seen = observe(model, pose, points, normals, thickness, covariance)
        hierarchy = objects.hierarchy[which]
        return EncodedGrasps(network, model, seen, hierarchy, network.encode(seen, hierarchy))

    @torch.no_grad()
    def mean(self) -> ContactField:
        """The mean prediction, ``B`` rows."""
        raw = self.network.decode(self.encoding, self.observation, self.hierarchy, *self._skin())
        return raw.to_field(self.observation)

    @torch.no_grad()
    def draws(self, noise: Tensor) -> ContactField:
        """Plausible fields over the first `DRAWN_POINTS` object points.

        Args:
            noise: ``(K, Z)`` standard normal. All hands share it, so that none depends on its place in the batch.

        Returns:
            ``K · B`` rows, draw by draw.
        """
        count, batch, at = len(noise), len(self.observation.origin), slice(DRAWN_POINTS)
        rows = torch.arange(batch, device=noise.device).repeat(count)
        latent = self.network.prior(self.encoding).draw(noise[:, None].expand(-1, batch, -1)).flatten(0, 1)
        encoding = replace(self.encoding, fine=self.encoding.fine[:, at])[rows]
        # The object's features have done their work in the encoding: not worth copying.
        seen = replace(self.observation, objects=self.observation.objects[:, :0])[rows]
        raw = self.network.decode(encoding, seen, self.hierarchy[rows], *self._skin(), at=at, latent=latent)
        return raw.to_field(seen)

    def _skin(self) -> tuple[Tensor, Tensor]:
        points = self.model.contact_points
        return self.model.rest_canonical[points], self.model.part_of_vertex[points]


def predict_field(
    network: ContactNet, model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose,
    covariance: Tensor | None = None,
) -> ContactField:  # fmt: skip
    """What the network makes of ``B`` noisy right hands, object frame; ``covariance`` as `observe` takes it."""
    return EncodedGrasps.of(network, model, objects, which, pose, covariance).mean()


def expected_variance(joints: Tensor, field: ContactField) -> Tensor:
    """(B, 21) square metres per axis: how far off the prediction believes ``joints (B, 21, 3)`` to be."""
    assert field.joints is not None
    assert field.joints_var is not None
    return (joints - field.joints).square().mean(-1) + field.joints_var
