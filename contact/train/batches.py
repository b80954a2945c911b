"""What a step of training sees: noisy hands, drawn from a corpus, and the truth about them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hand_models import HandModel, HandPose
from hand_models.record import Record

from ..corpus.corpus import Corpus
from ..field import ContactField
from ..input_error import InputError
from ..network.features import Observation, observe
from ..objects.hierarchy import PointHierarchy
from ..perturb import PROTOCOLS, perturb
from .config import TrainConfig


@dataclass(frozen=True)
class Batch(Record):
    """Noisy observations and their truth."""

    observation: Observation
    hierarchy: PointHierarchy
    """of the objects, row by row"""
    truth: ContactField
    joints: Tensor
    """(B, 21, 3) true joints in the noisy wrist's frame"""


def perturbed(
    pose: HandPose, noise: str, scale: Tensor, generator: torch.Generator, tracking: InputError | None = None
) -> tuple[HandPose, HandPose]:
    """Hands that count as true, and as they are seen: ``scale (B,)`` times the protocol ``noise`` off.

    Args:
        tracking: error put on the hands first, which counts as true.
    """
    if tracking is not None:
        pose = perturb(pose, tracking, seed=generator)
    return pose, perturb(pose, PROTOCOLS[noise], seed=generator, scale=scale)


def make_batch(
    model: HandModel, corpus: Corpus, index: Tensor, noise: str, scale: Tensor, generator: torch.Generator,
    tracking: InputError | None = None,
) -> Batch:  # fmt: skip
    """Perturb the grasps ``index`` by ``scale`` times the protocol ``noise`` and describe them.

    Args:
        tracking: as `perturbed` takes it; contact stays that of the grasp itself.
    """
    objects = corpus.objects[corpus.which[index]]
    pose, noisy = perturbed(corpus.pose[index], noise, scale, generator, tracking)
    observation = observe(model, noisy, objects.points, objects.normals, objects.thickness)
    joints = (model.joints(pose) - observation.origin[:, None]) @ observation.rotation
    return Batch(observation, objects.hierarchy, corpus.truth(index), joints)


def draw_grasps(
    corpus: Corpus, among: Tensor, size: int, config: TrainConfig, step: int
) -> tuple[Tensor, Tensor, torch.Generator]:
    """What a step learns from: ``size`` of the grasps ``among``, the factor on the noise of each, and the generator
    that this noise goes on from. All depend on seed and step alone, so that runs can be resumed.
    """
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    # Objects first, grasps second: objects that were easy to grasp should not dominate.
    which = corpus.which[among]
    objects = which.unique()
    chosen = objects[torch.randint(len(objects), (size,), generator=generator)]
    weight = (which[None] == chosen[:, None]).float()
    index = among[torch.multinomial(weight, 1, generator=generator)[:, 0]]
    scale = config.noise_scale * torch.rand(size, generator=generator)
    scale[torch.rand(size, generator=generator) < config.clean_share] = 0
    return index, scale, generator


def training_batch(model: HandModel, corpus: Corpus, among: Tensor, config: TrainConfig, step: int) -> Batch:
    """The batch of a step, from the grasps ``among``."""
    index, scale, generator = draw_grasps(corpus, among, config.batch_size, config, step)
    noise = config.noise[step % len(config.noise)]
    return make_batch(model, corpus, index, noise, scale, generator, config.tracking)
