"""Training of `ContactNet` on a corpus: resumable, on CPU or GPU, by one command."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from hand_models import HandModel

from .corpus import Corpus, corpus_hash, load_corpus
from .curves import write_curves
from .features import Observation, observe
from .field import ContactField
from .losses import LossWeights, losses, total
from .network import ContactNet, NetworkConfig, Prediction
from .perturb import PROTOCOLS, TRACKING, Protocol, perturb
from .weights import save_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainConfig:
    """How the network is trained; the defaults made the shipped weights."""

    corpus: Path = Path("runs/corpus")
    out: Path = Path("runs/contact")
    """checkpoints, log and weights"""
    steps: int = 2200
    """of the network without its latent"""
    latent_steps: int = 500
    """of the latent thereafter, the rest of the network at rest"""
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    warmup: int = 200
    average: float = 0.999
    """decay of the moving average of the weights, which is what is evaluated and saved"""
    noise: tuple[str, ...] = ("contactopt", "image")
    """protocols drawn from, each scaled by a random factor"""
    noise_scale: float = 1.3
    """largest factor"""
    clean_share: float = 0.15
    """share of hands without noise, from which the network learns to leave good ones alone"""
    tracking: Protocol = TRACKING
    """error put on truth and input alike, so that the network learns to leave alone what a tracker would call right
    and does not promise to be surer than the truth it will be judged by"""
    latent_rate: float = 4e-3
    """learning rate of the latent"""
    divergence: float = 0.02
    """weight of a nat that the latent says about the truth; grows to this in the first half of its steps, lest it
    learns to say nothing before it has learnt to say something (Bowman et al., CoNLL 2016)"""
    points: int = 512
    """object points a step learns from, of the 2,048: neighbours say much the same"""
    evaluate_every: int = 400
    device: str = "cpu"
    seed: int = 0
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossWeights = field(default_factory=LossWeights)


@dataclass(frozen=True)
class Batch:
    """Noisy observations and their truth."""

    observation: Observation
    rows: Tensor
    """(B,) which object of the corpus"""
    truth: ContactField
    joints: Tensor
    """(B, 21, 3) true joints in the noisy wrist's frame"""

    def to(self, device: torch.device | str) -> Batch:
        """Move to a device."""
        seen = {f.name: getattr(self.observation, f.name).to(device) for f in fields(self.observation)}
        truth, joints = self.truth.to(device), self.joints.to(device)
        return Batch(replace(self.observation, **seen), self.rows, truth, joints)


def make_batch(
    model: HandModel, corpus: Corpus, index: Tensor, noise: str, scale: Tensor, generator: torch.Generator,
    tracking: Protocol | None = None,
) -> Batch:  # fmt: skip
    """Perturb the grasps ``index`` by ``scale`` times the protocol ``noise`` and describe them.

    Args:
        tracking: error put on the hands first, which counts as true; contact stays that of the grasp itself.
    """
    pose, rows = corpus.pose[index], corpus.which[index]
    if tracking is not None:
        pose = perturb(pose, tracking, seed=generator)
    noisy = perturb(pose, PROTOCOLS[noise], seed=generator, scale=scale)
    observation = observe(model, noisy, corpus.points[rows], corpus.normals[rows], corpus.thickness[rows])
    joints = (model.joints(pose) - observation.origin[:, None]) @ observation.rotation
    return Batch(observation, rows, corpus.truth(index), joints)


def _stream(
    model: HandModel, corpus: Corpus, train: Tensor, config: TrainConfig, start: int
) -> Iterator[Batch]:
    """Endless training batches; that of a step depends on seed and step alone, so that runs can be resumed."""
    step = start
    while True:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        # Objects first, grasps second: objects that were easy to grasp should not dominate.
        objects = corpus.which[train].unique()
        chosen = objects[torch.randint(len(objects), (config.batch_size,), generator=generator)]
        weight = (corpus.which[train][None] == chosen[:, None]).float()
        index = train[torch.multinomial(weight, 1, generator=generator)[:, 0]]
        scale = config.noise_scale * torch.rand(config.batch_size, generator=generator)
        scale[torch.rand(config.batch_size, generator=generator) < config.clean_share] = 0
        noise = config.noise[step % len(config.noise)]
        yield make_batch(model, corpus, index, noise, scale, generator, config.tracking)
        step += 1


def _predict(network: ContactNet, model: HandModel, corpus: Corpus, batch: Batch) -> Prediction:
    """Network output for a batch, on the batch's device."""
    hierarchy = corpus.hierarchy[batch.rows].to(batch.joints.device)
    return network(batch.observation, hierarchy, *_skin(model, batch))


def _skin(model: HandModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Canonical position and bone of the hand points, on the batch's device."""
    ids, device = model.contact_points, batch.joints.device
    return model.rest_canonical[ids].to(device), model.part_of_vertex[ids].to(device)


def _loss(
    network: ContactNet, model: HandModel, corpus: Corpus, batch: Batch, at: Tensor, config: TrainConfig
) -> Tensor:
    """What a step descends: the losses of the mean prediction."""
    skin = _skin(model, batch)
    hierarchy = corpus.hierarchy[batch.rows].to(batch.joints.device)
    mean = network(batch.observation, hierarchy, *skin, at)
    return total(losses(mean, batch.truth.at(at), batch.joints), config.loss)


def _draw_loss(
    network: ContactNet, model: HandModel, corpus: Corpus, batch: Batch, at: Tensor, config: TrainConfig,
    noise: Tensor, done: float,
) -> Tensor:  # fmt: skip
    """What a step of the latent descends: a draw's losses, drawn knowing the truth, and what that knowledge costs.

    Args:
        noise: ``(B, Z)`` standard normal.
        done: share of the latent's steps that is done.
    """
    observation, skin = batch.observation, _skin(model, batch)
    hierarchy = corpus.hierarchy[batch.rows].to(batch.joints.device)
    with torch.no_grad():
        encoding = network.encode(observation, hierarchy)
    posterior = network.posterior(encoding, batch.joints - observation.joint_positions)
    draw = network.decode(encoding, observation, hierarchy, *skin, at, posterior.draw(noise))
    divergence = posterior.divergence(network.prior(encoding)).mean()
    weight = config.divergence * min(1.0, 2 * done)
    return total(losses(draw, batch.truth.at(at), batch.joints), config.loss) + weight * divergence


def _some_points(corpus: Corpus, config: TrainConfig, step: int) -> Tensor:
    """The object points whose outputs this step learns from."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    return torch.randperm(corpus.points.shape[1], generator=generator)[: config.points]


def _latent_noise(config: TrainConfig, step: int) -> Tensor:
    """``(B, Z)`` standard normal."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    noise = torch.randn(config.batch_size, config.network.latent, generator=generator)
    return noise.to(config.device)


@torch.no_grad()
def evaluate(
    network: ContactNet, model: HandModel, corpus: Corpus, index: Tensor, noise: str, seed: int = 0
) -> dict[str, float]:
    """Mean loss terms and joint errors (mm) before and after, on the grasps ``index`` under a protocol.

    Args:
        network: on any device.
        index: ``(N,)`` grasps of ``corpus``; without any the result is empty.
        noise: name of a protocol of `contact.perturb`.
        seed: of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, float] = {}
    device = next(network.parameters()).device
    for part in index.split(64) if len(index) else ():
        batch = make_batch(model, corpus, part, noise, torch.ones(len(part)), generator).to(device)
        p = _predict(network, model, corpus, batch)
        values = {k: float(v) for k, v in losses(p, batch.truth, batch.joints).items()}
        values["before_mm"] = 1000 * float(
            (batch.observation.joint_positions - batch.joints).norm(dim=-1).mean()
        )
        values["after_mm"] = 1000 * float((p.joints - batch.joints).norm(dim=-1).mean())
        near = batch.truth.near.bool()
        values["canonical_mm"] = 1000 * float(
            (p.canonical - batch.truth.canonical).norm(dim=-1)[near].median()
        )
        values["contact_f1"] = _f1(p.contact_logit > math.log(0.4 / 0.6), batch.truth.contact > 0.4)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value * len(part) / len(index)
    return sums


def _f1(predicted: Tensor, truth: Tensor) -> float:
    hits = (predicted & truth).sum()
    return float(2 * hits / (predicted.sum() + truth.sum()).clamp_min(1))


def train(config: TrainConfig = TrainConfig(), model: HandModel | None = None) -> Path:
    """Train, or go on training, and write ``weights.safetensors`` with its card into ``config.out``,
    beside ``curves.csv`` and ``curves.png``.

    An interrupted run, started again with the same configuration, ends as it would have uninterrupted.

    Args:
        model: hand of the corpus; None for the open hand.

    Raises:
        FileNotFoundError: the corpus is not there.
        ValueError: ``config.out`` holds a checkpoint of another network.
    """
    from tqdm import tqdm

    from hand_models.open_hand import load_open_hand

    torch.manual_seed(config.seed)
    model = model or load_open_hand()
    corpus = load_corpus(config.corpus)
    training, held_out = corpus.split()
    log.info("%d grasps on %d objects, %d held out", len(corpus), len(corpus.families), len(held_out))
    network = ContactNet(config.network).to(config.device)
    averaged = copy.deepcopy(network).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    config.out.mkdir(parents=True, exist_ok=True)
    checkpoint = config.out / "checkpoint.pt"
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=config.device, weights_only=True)
        try:
            network.load_state_dict(state["network"])
            averaged.load_state_dict(state["averaged"])
            optimiser.load_state_dict(state["optimiser"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"out: the checkpoint in {config.out} is of another network; choose another folder ({error})."
            ) from None
        start = int(state["step"])

    began = time.monotonic()
    total_steps = config.steps + config.latent_steps
    for step, batch in tqdm(
        zip(range(start, total_steps), _stream(model, corpus, training, config, start), strict=False),
        total=total_steps, initial=start, disable=None,
    ):  # fmt: skip
        of_latent = step >= config.steps
        if of_latent and network.point[0].weight.requires_grad:
            # From here on the network stays as it will be saved, and only the latent learns.
            rest = {k: v for k, v in averaged.state_dict().items() if not k.startswith("latent.")}
            network.load_state_dict(rest, strict=False)
            network.requires_grad_(False).latent.requires_grad_(True)
        done, phase = (step - config.steps, config.latent_steps) if of_latent else (step, config.steps)
        rate = config.latent_rate if of_latent else config.learning_rate
        rate *= min(1.0, (done + 1) / (config.warmup * phase / max(config.steps, 1)))
        rate *= 0.5 * (1 + math.cos(math.pi * done / phase)) * 0.99 + 0.01
        for group in optimiser.param_groups:
            group["lr"] = rate
        at = _some_points(corpus, config, step)
        batch = batch.to(config.device)
        optimiser.zero_grad()
        if of_latent:
            noise = _latent_noise(config, step)
            loss = _draw_loss(network, model, corpus, batch, at, config, noise, done / phase)
        else:
            loss = _loss(network, model, corpus, batch, at, config)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        # A short memory at first, so that the average forgets the start.
        decay = min(config.average, (done + 1) / (done + 10))
        for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
            mean.lerp_(value.detach(), 1 - decay)
        if (step + 1) % config.evaluate_every == 0 or step + 1 in (config.steps, total_steps):
            scores = {
                name: evaluate(averaged, model, corpus, held_out[:256], name)
                for name in ("contactopt", "image", "none")
            }
            line = {"step": step + 1, "seconds": round(time.monotonic() - began), **scores}
            with open(config.out / "log.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
            write_curves(config.out / "log.jsonl")
            state = {
                "network": network.state_dict(), "averaged": averaged.state_dict(),
                "optimiser": optimiser.state_dict(), "step": step + 1,
            }  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".partial"))
            checkpoint.with_suffix(".partial").replace(checkpoint)
    scores = {
        name: evaluate(averaged, model, corpus, held_out, name) for name in ("contactopt", "image", "none")
    }
    card = {
        "corpus_sha256": corpus_hash(config.corpus),
        "grasps": len(corpus),
        "objects": len(corpus.families),
        "hand_model": model.name,
        "config": {**asdict(replace(config, corpus=Path(config.corpus.name), out=Path(config.out.name)))},
        "held_out": scores,
    }
    return save_weights(averaged, card, config.out / "weights.safetensors")
