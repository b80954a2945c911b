"""Train one of the architectures of `contact_architectures` on a corpus, for a given time of one processor core.

    python benchmarks/train_contact_architecture.py --kind deepcontact --corpus runs/corpus --out runs/deepcontact

Batches are those `ContactNet` is trained with: objects first, grasps second, the same noise. The learning rate
falls along a cosine over the time given. What is done is kept in ``--out`` every few minutes; the same command
goes on from there. Written at the end: ``<kind>.safetensors`` with its card; all along: ``log.jsonl``.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from contact_architectures import ARCHITECTURES, build_architecture, save_architecture
from contact_maps import map_loss
from torch import Tensor, nn

from contact.corpus import Corpus, corpus_hash, load_corpus
from contact.evaluate import average_precision
from contact.perturb import perturb
from contact.train.batches import draw_grasps, perturbed
from contact.train.config import TrainConfig
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.atomic import write_atomically


@dataclass(frozen=True)
class Options:
    """How a network is trained."""

    kind: str
    corpus: Path
    out: Path
    minutes: float = 65.0
    """of processor time"""
    batch_size: int = 16
    threads: int = 1
    learning_rate: float = 2e-3
    points: int = 512
    """object points and a quarter as many hand points a step learns from: neighbours say much the same"""
    neighbours: int = 32
    """of a centroid of DeepContact, at most, in training"""
    save_every: float = 180.0
    """seconds of processor time between checkpoints, each with an evaluation"""
    seed: int = 0


@dataclass(frozen=True)
class Noisy:
    """Noisy hands, their objects and their true contact."""

    pose: HandPose
    rows: Tensor
    contact: Tensor
    hand_contact: Tensor


def draw_batch(corpus: Corpus, train: Tensor, options: Options, step: int) -> Noisy:
    """The batch of a step, drawn as by `contact.train`."""
    mix = TrainConfig(seed=options.seed)
    index, scale, generator = draw_grasps(corpus, train, options.batch_size, mix, step)
    noise = mix.noise[step % len(mix.noise)]
    _, seen = perturbed(corpus.pose[index], noise, scale, generator, mix.tracking)
    return _with_truth(corpus, index, seen)


def _with_truth(corpus: Corpus, index: Tensor, pose: HandPose) -> Noisy:
    contact, hand_contact = (t[index].float() / 255 for t in (corpus.contact, corpus.hand_contact))
    return Noisy(pose, corpus.which[index], contact, hand_contact)


def prepare(network: nn.Module, model: HandModel, corpus: Corpus, batch: Noisy) -> object:
    """The network's input for a batch."""
    rows = batch.rows
    seen = corpus.objects[rows]
    return network.prepare(model, batch.pose, seen.points, seen.normals, seen.thickness, seen.hierarchy)


@torch.no_grad()
def evaluate(
    network: nn.Module, model: HandModel, corpus: Corpus, index: Tensor, noise: str = "contactopt"
) -> dict[str, float]:
    """Loss and average precision (contact above 0.4) on the grasps ``index`` under a protocol; empty without any."""
    if not len(index):
        return {}
    training = network.training
    network.eval()
    generator = torch.Generator().manual_seed(0)
    loss, found = 0.0, []
    for part in index.split(16):
        batch = _with_truth(corpus, part, perturb(corpus.pose[part], noise, seed=generator))
        maps = network(prepare(network, model, corpus, batch))
        loss += float(map_loss(maps, batch.contact, batch.hand_contact)) * len(part) / len(index)
        (on_object, _), (on_hand, _) = maps.values()
        found.append((on_object, batch.contact > 0.4, on_hand, batch.hand_contact > 0.4))
    network.train(training)
    on_object, touched, on_hand, touching = (torch.cat(column) for column in zip(*found, strict=True))
    return {"loss": loss, "ap": average_precision(on_object, touched), "ap_hand": average_precision(on_hand, touching)}


def learning_rate(options: Options, progress: float) -> float:
    """A short rise, then a cosine down to nothing, over ``progress`` from 0 to 1."""
    rise = min(1.0, progress / 0.02 + 0.02)
    return options.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def train(options: Options, model: HandModel | None = None) -> Path:
    """Train, or go on training, and return the weight file."""
    torch.manual_seed(options.seed)
    model = model or load_open_hand()
    corpus = load_corpus(options.corpus)
    training, held_out = corpus.split()
    watched = held_out[:: max(len(held_out) // 128, 1)][:128]
    arguments = {"neighbours": options.neighbours} if options.kind == "deepcontact" else {}
    network = build_architecture(options.kind, **arguments).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    checkpoint, step, spent = options.out / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["seconds"]
    budget = 60 * options.minutes
    began, saved, running = time.process_time() - spent, spent, 0.0
    while spent < budget:
        torch.manual_seed(options.seed * 1_000_003 + step)  # a run that goes on is as random as one that did not stop
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(options, spent / budget)
        batch = draw_batch(corpus, training, options, step)
        inputs = prepare(network, model, corpus, batch)
        at = (
            torch.randperm(batch.contact.shape[1])[: options.points],
            torch.randperm(batch.hand_contact.shape[1])[: options.points // 4],
        )
        optimiser.zero_grad()
        loss = map_loss(network(inputs, at), batch.contact[:, at[0]], batch.hand_contact[:, at[1]])
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        running = float(loss.detach()) if running == 0 else 0.98 * running + 0.02 * float(loss.detach())
        step += 1
        spent = time.process_time() - began
        if spent - saved >= options.save_every or spent >= budget:
            # Neither evaluating nor saving counts.
            scores = evaluate(network, model, corpus, watched)
            line = {"step": step, "seconds": round(spent), "training_loss": running, **scores}
            _keep(options, checkpoint, network, optimiser, step, spent, line)
            began, saved = time.process_time() - spent, spent
    judged = held_out[:: max(len(held_out) // 256, 1)][:256]
    noises = ("contactopt", "image", "none")
    scores = {noise: evaluate(network, model, corpus, judged, noise) for noise in noises}
    card = {
        "corpus_sha256": corpus_hash(options.corpus),
        "grasps": len(corpus),
        "objects": len(corpus.families),
        "hand_model": model.name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": step,
        "batch_size": options.batch_size,
        "seconds": round(spent),
        "learning_rate": options.learning_rate,
        "points": options.points,
        "seed": options.seed,
        "held_out": scores,
    }
    return save_architecture(network, card, options.out / f"{options.kind}.safetensors")


def _keep(
    options: Options, checkpoint: Path, network: nn.Module, optimiser: torch.optim.Optimizer, step: int, spent: float,
    line: dict[str, float],
) -> None:  # fmt: skip
    """Write the checkpoint and a line of the log."""
    state = {
        "network": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "seconds": spent
    }  # fmt: skip
    write_atomically(checkpoint, lambda file: torch.save(state, file))
    with open(options.out / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), file=sys.stderr, flush=True)


def keep_memory() -> None:
    """Let the C library keep freed memory instead of handing large blocks back."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            no_mmap, trim_threshold = -4, -1
            libc.mallopt(no_mmap, 0)
            libc.mallopt(trim_threshold, -1)


def main(arguments: list[str] | None = None) -> Path:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=sorted(ARCHITECTURES), required=True)
    parser.add_argument("--corpus", type=Path, required=True, help="folder made by `regrasp corpus`")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log and weights")
    parser.add_argument("--minutes", type=float, default=Options.minutes, help="of processor time")
    parser.add_argument("--batch-size", type=int, default=Options.batch_size)
    parser.add_argument("--threads", type=int, default=Options.threads)
    parser.add_argument("--learning-rate", type=float, default=Options.learning_rate)
    parser.add_argument("--neighbours", type=int, default=Options.neighbours, help="of a centroid, deepcontact only")
    parser.add_argument("--save-every", type=float, default=Options.save_every, help="seconds of processor time")
    parser.add_argument("--seed", type=int, default=Options.seed)
    options = Options(**vars(parser.parse_args(arguments)))
    torch.set_num_threads(options.threads)
    keep_memory()
    return train(options)


if __name__ == "__main__":
    print(main())
