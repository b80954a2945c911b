"""What a step of training sees: noisy hands, drawn from a corpus, and the truth about them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hand_models import HandModel, HandPose
from hand_models.record import Record

from ..corpus.corpus import Corpus
from ..field import ContactField
from ..input_error import InputError
from ..network.features import Observation, observe
from ..objects.hierarchy import PointHierarchy
from ..perturb import PROTOCOLS, perturb
from .approaches import withdraw
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
    holding: Tensor
    """(B,) 1 where the hand holds the object"""


def perturbed(
    pose: HandPose, noise: InputError | str, scale: Tensor, generator: torch.Generator,
    tracking: InputError | None = None, model: HandModel | None = None, view: Tensor | None = None,
) -> tuple[HandPose, HandPose]:  # fmt: skip
    """Hands that count as true, and as they are seen: ``scale (B,)`` times the protocol ``noise`` off.

    Args:
        tracking: error put on the hands first, which counts as true: from none to this, as data sets differ.
        model: right hand, and
        view: ``(B, 3)`` lines of sight, for noise that is along them.
    """
    if tracking is not None:
        pose = perturb(pose, tracking, seed=generator, scale=torch.rand(len(pose), generator=generator))
    return pose, perturb(pose, noise, seed=generator, scale=scale, model=model, view=view)


def make_batch(
    model: HandModel, corpus: Corpus, index: Tensor, noise: InputError | str, scale: Tensor,
    generator: torch.Generator, tracking: InputError | None = None, told: Tensor | None = None,
    apart: Tensor | None = None,
) -> Batch:  # fmt: skip
    """Perturb the grasps ``index`` by ``scale`` times the protocol ``noise`` and describe them.

    Args:
        tracking: as `perturbed` takes it; contact stays that of the grasp itself.
        told: ``(B,)`` bool: observations that state the error; None for none of them.
        apart: ``(B,)`` bool: hands drawn off their objects, so that they hold nothing; None for none of them.
    """
    objects = corpus.objects[corpus.which[index]]
    noise = PROTOCOLS[noise] if isinstance(noise, str) else noise
    view = normalize(torch.randn(len(index), 3, generator=generator), dim=1)
    pose, truth = corpus.pose[index], corpus.truth(index)
    holding = torch.ones(len(index))
    if apart is not None and apart.any():
        rows = apart.nonzero()[:, 0]
        drawn, off = withdraw(model, pose[rows], objects[rows], generator)
        pose = pose.fill(rows, drawn)
        holding[rows[off]] = 0
    pose, noisy = perturbed(pose, noise, scale, generator, tracking, model, view)
    covariance = None
    if told is not None:
        covariance = torch.linalg.inv(noise.precision(noisy, model, view).double()) * scale[:, None, None] ** 2
        covariance = covariance.float().masked_fill(~told[:, None, None], torch.nan)
    observation = observe(model, noisy, objects.points, objects.normals, objects.thickness, covariance)
    joints = (model.joints(pose) - observation.origin[:, None]) @ observation.rotation
    return Batch(observation, objects.hierarchy, truth, joints, holding)


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
    told = torch.rand(config.batch_size, generator=generator) < config.told_share
    noise = varied(PROTOCOLS[config.noise[step % len(config.noise)]], generator)
    apart = torch.rand(config.batch_size, generator=generator) < config.apart_share
    t, most = config.tracking, config.tracking_scale
    tracking = InputError(most * t.translation, most * t.rotation, most * t.pose)
    return make_batch(model, corpus, index, noise, scale, generator, tracking, told, apart)


def varied(noise: InputError, generator: torch.Generator) -> InputError:
    """Noise of another make: what one estimator is off by differs from the next, in each of its parts."""
    rotation, pose, translation, along, picture = (0.4 + 1.2 * torch.rand(5, generator=generator)).tolist()
    noise = replace(noise, rotation=noise.rotation * rotation, pose=noise.pose * pose)
    if noise.along is None:
        return replace(noise, translation=noise.translation * translation)
    return replace(noise, along=noise.along * along, picture=noise.picture * picture)
