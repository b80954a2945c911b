"""Training of `ContactNet` on a corpus: resumable, on CPU or GPU, by one command."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from hand_models import HandModel
from hand_models.resumable import Checkpoint, approach, schedule, stream

from ..corpus.corpus import Corpus, corpus_hash, load_corpus
from ..network.contact_net import ContactNet
from ..weights import load_network, save_weights
from .batches import Batch, make_batch, training_batch
from .config import TrainConfig
from .curves import write_curves
from .losses import losses, total
from .muon import Muon

log = logging.getLogger(__name__)
_SMALLEST_MATRIX = 8  # fewer inputs or outputs make an embedding or a head
_NO_MATTER = ("corpus", "out", "device", "evaluate_every")  # options that may differ when a run goes on


def _skin(model: HandModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Canonical position and bone of the hand points, on the batch's device."""
    ids, device = model.contact_points, batch.joints.device
    return model.rest_canonical[ids].to(device), model.part_of_vertex[ids].to(device)


def _loss(network: ContactNet, model: HandModel, at: Tensor, config: TrainConfig, batch: Batch) -> Tensor:
    """What a step descends: the losses of the mean prediction at the object points ``at``."""
    mean = network(batch.observation, batch.hierarchy, *_skin(model, batch), at)
    return total(losses(mean, batch.truth.at(at), batch.joints, batch.holding), config.loss)


def _draw_loss(
    network: ContactNet, model: HandModel, at: Tensor, config: TrainConfig, done: float, batch: Batch, noise: Tensor
) -> Tensor:
    """What a step of the latent descends: a draw's losses, drawn knowing the truth, and what that knowledge costs.

    ``done`` is the share of the latent's steps that is done, ``noise (B, Z)`` standard normal.
    """
    observation, hierarchy = batch.observation, batch.hierarchy
    with torch.no_grad():
        encoding = network.encode(observation, hierarchy)
    posterior = network.posterior(encoding, batch.joints - observation.joint_positions)
    draw = network.decode(encoding, observation, hierarchy, *_skin(model, batch), at, posterior.draw(noise))
    divergence = posterior.divergence(network.prior(encoding)).mean()
    weight = config.divergence * min(1.0, 2 * done)
    return total(losses(draw, batch.truth.at(at), batch.joints, batch.holding), config.loss) + weight * divergence


def _some_points(corpus: Corpus, config: TrainConfig, step: int) -> Tensor:
    """The object points whose outputs this step learns from."""
    generator = stream(config.seed, step, "points")
    return torch.randperm(corpus.objects.points.shape[1], generator=generator)[: config.points]


def _latent_noise(config: TrainConfig, step: int) -> Tensor:
    """``(B, Z)`` standard normal."""
    generator = stream(config.seed, step, "latent")
    return torch.randn(config.batch_size, config.network.latent, generator=generator).to(config.device)


@torch.no_grad()
def evaluate(
    network: ContactNet, model: HandModel, corpus: Corpus, index: Tensor, noise: str, seed: int = 0, told: bool = False
) -> dict[str, float]:
    """Mean loss terms and joint errors (mm) before and after, on the grasps ``index (N,)`` under a noise protocol.

    ``told``: the network knows it.

    Without any grasps the result is empty.
    """
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, float] = {}
    device = next(network.parameters()).device
    for part in index.split(64) if len(index) else ():
        state = torch.full((len(part),), told)
        scale = torch.ones(len(part))
        batch = make_batch(model, corpus, part, noise, scale, generator, told=state).to(device)
        p = network(batch.observation, batch.hierarchy, *_skin(model, batch))
        values = {k: float(v) for k, v in losses(p, batch.truth, batch.joints, batch.holding).items()}
        values["before_mm"] = 1000 * float((batch.observation.joint_positions - batch.joints).norm(dim=-1).mean())
        values["after_mm"] = 1000 * float((p.joints - batch.joints).norm(dim=-1).mean())
        near = batch.truth.near.bool()
        values["canonical_mm"] = 1000 * float((p.canonical - batch.truth.canonical).norm(dim=-1)[near].median())
        said, event = p.contact_logit > math.log(0.4 / 0.6), batch.truth.contact > 0.4
        values["contact_f1"] = float(2 * (said & event).sum() / (said.sum() + event.sum()).clamp_min(1))
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value * len(part) / len(index)
    return sums


def _with_next(
    draw: Callable[[int], Batch], steps: Iterable[int], config: TrainConfig
) -> Iterator[tuple[int, Batch, Executor]]:
    """Steps, their batches, the next one being made meanwhile, and threads to work on them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // config.shards))
    try:
        with ThreadPoolExecutor(config.shards + 1) as pool:
            ahead: Future[Batch] | None = None
            for step in steps:
                batch = draw(step) if ahead is None else ahead.result()
                ahead = pool.submit(draw, step + 1)
                yield step, batch, pool
    finally:
        torch.set_num_threads(threads)


def _descend(
    network: ContactNet, pool: Executor, loss: Callable[..., Tensor], data: tuple[Batch | Tensor, ...],
    config: TrainConfig,
) -> None:  # fmt: skip
    """Set the gradients of what learns to those of ``loss(*data)``, each thread working on a share of the rows."""
    learning = [p for p in network.parameters() if p.requires_grad]
    size = -(-config.batch_size // config.shards)

    def of(start: int) -> tuple[Tensor | None, ...]:
        rows = slice(start, start + size)
        value = loss(*(d[rows] for d in data)) * (len(range(config.batch_size)[rows]) / config.batch_size)
        return torch.autograd.grad(value, learning, allow_unused=True)

    network.zero_grad()
    for gradients in list(pool.map(of, range(0, config.batch_size, size))):
        for parameter, gradient in zip(learning, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    torch.nn.utils.clip_grad_norm_(learning, 1.0)


def _optimisers(network: ContactNet, config: TrainConfig) -> dict[torch.optim.Optimizer, float]:
    """Muon for the matrices between hidden layers, AdamW for all else; each with its learning rate."""
    matrices = [
        layer.weight
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear)
        and min(layer.weight.shape) >= _SMALLEST_MATRIX
        and not name.startswith(("latent.", "point_head"))
    ]
    taken = {id(p) for p in matrices} if config.matrix_rate else set()
    rest = [p for p in network.parameters() if id(p) not in taken]
    rates = {torch.optim.AdamW(rest, weight_decay=config.weight_decay): config.learning_rate}
    if config.matrix_rate:
        rates[Muon(matrices, config.matrix_rate, config.weight_decay)] = config.matrix_rate
    return rates


def _first_network(config: TrainConfig) -> ContactNet:
    """A network with random weights, or those of ``config.start``."""
    network = ContactNet(config.network).to(config.device)
    if config.start is not None:
        try:
            network.load_state_dict(load_network(config.start).state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"start: {config.start} is of a network with other widths;"
                f" give the options it was trained with ({error})."
            ) from None
    return network


def _scores(network: ContactNet, model: HandModel, corpus: Corpus, index: Tensor) -> dict[str, dict[str, float]]:
    """`evaluate` under each of the protocols that a run reports."""
    unknown = {name: evaluate(network, model, corpus, index, name) for name in ("contactopt", "image", "none")}
    told = ("contactopt", "image", "camera", "none")
    return unknown | {f"{name}_told": evaluate(network, model, corpus, index, name, told=True) for name in told}


def train(config: TrainConfig, model: HandModel | None = None) -> Path:
    """Train, or go on training, and write ``weights.safetensors`` with its card into ``config.out``,
    beside ``curves.csv`` and ``curves.png``.

    An interrupted run, started again with the same configuration, ends as it would have uninterrupted.

    Args:
        model: hand of the corpus; None for the open hand.

    Raises:
        FileNotFoundError: the corpus is not there.
        ValueError: ``config.out`` holds a checkpoint of other options or another corpus, or ``config.start`` the
            weights of another network.
    """
    from tqdm import tqdm

    from hand_models.open_hand import load_open_hand

    torch.manual_seed(config.seed)
    model = model or load_open_hand()
    corpus = load_corpus(config.corpus)
    training, held_out = corpus.split()
    log.info("%d grasps on %d objects, %d held out", len(corpus), len(corpus.families), len(held_out))
    network = _first_network(config)
    averaged = copy.deepcopy(network).eval().requires_grad_(False)
    began_with = copy.deepcopy(averaged)
    optimisers = _optimisers(network, config)
    config.out.mkdir(parents=True, exist_ok=True)
    made_from = corpus_hash(config.corpus)
    # Names in place of the paths of a machine.
    options = {k: v.name if isinstance(v, Path) else v for k, v in asdict(config).items()}
    recipe = {name: value for name, value in options.items() if name not in _NO_MATTER}
    parts = {"network": network, "averaged": averaged, **{type(o).__name__: o for o in optimisers}}
    checkpoint = Checkpoint(config.out / "checkpoint.pt", recipe | {"corpus_sha256": made_from}, parts)
    start = int(checkpoint.resume(config.device).get("step", 0))

    began = time.monotonic()
    total_steps = config.steps + config.latent_steps
    steps = tqdm(range(start, total_steps), total=total_steps, initial=start, disable=None)
    draw = partial(training_batch, model, corpus, training, config)
    for step, batch, pool in _with_next(draw, steps, config):
        of_latent = step >= config.steps
        if of_latent and network.point[0].weight.requires_grad:
            # From here on the network stays as it will be saved, and only the latent learns.
            rest = {k: v for k, v in averaged.state_dict().items() if not k.startswith("latent.")}
            network.load_state_dict(rest, strict=False)
            network.requires_grad_(False).latent.requires_grad_(True)
        done, phase = (step - config.steps, config.latent_steps) if of_latent else (step, config.steps)
        share = schedule(done, phase, min(config.warmup, phase // 10))
        common = network, model, _some_points(corpus, config, step), config
        batch = batch.to(config.device)
        if of_latent:
            data = (batch, _latent_noise(config, step))
            _descend(network, pool, partial(_draw_loss, *common, done / phase), data, config)
        else:
            _descend(network, pool, partial(_loss, *common), (batch,), config)
        for optimiser, rate in optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = share * (config.latent_rate if of_latent else rate)
            optimiser.step()
        # A short memory at first, so that the average forgets the start.
        decay = min(config.average, (done + 1) / (done + 10))
        approach(averaged, network, 1 - decay)
        if step + 1 == config.steps and config.start is not None:
            approach(averaged, began_with, config.start_share)
        if (step + 1) % config.evaluate_every == 0 or step + 1 in (config.steps, total_steps):
            scores = _scores(averaged, model, corpus, held_out[:256])
            line = {"step": step + 1, "seconds": round(time.monotonic() - began), **scores}
            with open(config.out / "log.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
            write_curves(config.out / "log.jsonl")
            checkpoint.save(step=step + 1)
    card = {
        "corpus_sha256": made_from,
        "grasps": len(corpus),
        "objects": len(corpus.families),
        "hand_model": model.name,
        "config": options,
        "held_out": _scores(averaged, model, corpus, held_out),
    }
    return save_weights(averaged, card, config.out / "weights.safetensors")
