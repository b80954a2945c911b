"""Training of the lifting networks: seeded, resumable, one command for all kinds on the same data and budget."""

from __future__ import annotations

import copy
import logging
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hand_models.resumable import Checkpoint, approach, schedule, stream

from .affinity import AffinityConfig, affinity_loss, kabsch, surface_distance
from .cameras import CameraConfig, GraspSet, Sample, sample
from .graph import JOINTS, LearnedAdjacency
from .lifting import View, place, view_of
from .network import UNIT, LiftConfig, LiftNet, LiftOutput
from .weights import save_network

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiftTraining:
    """How a network is trained; the defaults made the shipped weights."""

    steps: int = 3000
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    adjacency_rate: float = 5.0
    """factor on the learning rate of adjacencies, which start without most of their edges"""
    warmup: int = 100
    average: float = 0.998
    """decay of the moving average of the weights, which is what is evaluated and saved"""
    affinity: float = 0.5
    """weight of the physical affinity loss, for grasps whose object's surface is known; it takes part at the end"""
    last_steps: int = 300
    """steps at the end in which only the last layer learns, with the affinity loss or, at weight 0, without: it
    speaks of millimetres, and has nothing to tell a network that still errs by more"""
    last_batch: int = 256
    """batch size of these"""
    last_rate: float = 3e-4
    """largest learning rate of these"""
    keypoints: float = 0.1
    """weight of the corrected keypoints"""
    surface_points: int = 384
    """of each object, that the affinity loss looks at"""
    checkpoint_every: int = 500
    seed: int = 0
    device: str = "cpu"
    cameras: CameraConfig = field(default_factory=CameraConfig)


def train(
    grasps: GraspSet, network: LiftConfig, config: LiftTraining, out: Path, name: str, *,
    held_out: GraspSet | None = None, card: dict[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Train one network, or go on training it, and write ``out/name.safetensors`` with its card.

    An interrupted run, started again with the same configuration, ends as it would have uninterrupted.

    Args:
        out: folder, made when absent; ``name.checkpoint`` in it holds the state of an unfinished run.
        held_out: grasps to report errors on.
        card: what else the card is to say.

    Raises:
        ValueError: ``out`` holds a checkpoint of another network or configuration; there are no grasps.
    """
    from tqdm import tqdm

    if not len(grasps):
        raise ValueError("grasps: there are none to train on; check the corpus or the splits.")
    torch.manual_seed(config.seed)
    model = LiftNet(network).to(config.device)
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    optimiser = _optimiser(model, config)
    out.mkdir(parents=True, exist_ok=True)
    recipe = {"network": asdict(network), **asdict(config), "grasps": len(grasps)}
    parts = {"network": model, "averaged": averaged, "optimiser": optimiser}
    checkpoint = Checkpoint(out / f"{name}.checkpoint", recipe, parts)
    progress = checkpoint.resume(config.device)
    start, began = int(progress.get("step", 0)), time.monotonic() - progress.get("seconds", 0.0)
    running: dict[str, float] = {}
    for step in tqdm(range(start, config.steps), total=config.steps, initial=start, desc=name, disable=None):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * schedule(step, config.steps, config.warmup) * group["factor"]
        # Everything random depends on seed and step alone, so that runs can be resumed.
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        torch.manual_seed(stream(config.seed, step, "dropout").initial_seed())
        index = _balanced(grasps, config.batch_size, generator)
        terms = losses(model, grasps, index, config, generator, with_affinity=False)
        loss = sum(terms.values())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        approach(averaged, model, 1 - min(config.average, (step + 1) / (step + 10)))
        for key, value in terms.items():
            running[key] = 0.98 * running.get(key, value.item()) + 0.02 * value.item()
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            log.info("%s step %d: %s", name, step + 1, {k: round(v, 3) for k, v in running.items()})
            checkpoint.save(step=step + 1, seconds=time.monotonic() - began)
    finish(averaged, grasps, config)
    scores = {} if held_out is None else evaluate(averaged, held_out, config.cameras)
    card = {
        **(card or {}), "training": asdict(config), "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(time.monotonic() - began), "held_out": {k: round(v, 3) for k, v in scores.items()},
    }  # fmt: skip
    return save_network(averaged, card, out / f"{name}.safetensors")


def finish(network: LiftNet, grasps: GraspSet, config: LiftTraining) -> None:
    """Train the last layer of an otherwise finished network, in place, with the affinity loss taking part.

    Networks that differ in its weight only see the same grasps through the same cameras and start from the same
    features: what they come to differ in is its doing.
    """
    layer = [module for module in network.body.modules() if isinstance(module, torch.nn.Linear)][-1]
    network.eval().requires_grad_(False)
    layer.requires_grad_(True)
    optimiser = torch.optim.Adam(layer.parameters(), lr=config.last_rate)
    for step in range(config.last_steps):
        share = 0.5 * (1 + math.cos(math.pi * step / config.last_steps)) * min(1.0, (step + 1) / 20)
        optimiser.param_groups[0]["lr"] = config.last_rate * share
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + config.steps + step)
        index = _balanced(grasps, config.last_batch, generator)
        loss = sum(losses(network, grasps, index, config, generator).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    layer.requires_grad_(False)


def losses(
    network: LiftNet, grasps: GraspSet, index: Tensor, config: LiftTraining, generator: torch.Generator,
    *, with_affinity: bool = True,
) -> dict[str, Tensor]:  # fmt: skip
    """Weighted terms for a batch: distance of the points, their spread, keypoints, affinity."""
    seen = sample(grasps, index, config.cameras, generator)
    view, output, found, truth = predict(network, seen, config.device)
    error = (found - truth) / UNIT
    squared = ((error - error.mean(1, keepdim=True)).detach() ** 2).mean(-1)
    terms = {
        "points": error.norm(dim=-1).mean(),
        # Gaussian log likelihood of the error; the points do not learn from it, so that it does not weaken them.
        "spread": 0.02 * (0.5 * squared * (-2 * output.log_sigma).exp() + output.log_sigma).mean(),
    }
    if network.keypoints is not None:
        wanted = truth[..., :2] / truth[..., 2:] / view.spread[:, None, None]
        terms["keypoints"] = config.keypoints * (output.keypoints - wanted).norm(dim=-1).clamp_max(2).mean()
    if config.affinity > 0 and with_affinity and grasps.surface is not None:
        pick = torch.randperm(grasps.surface.shape[1], generator=generator)[: config.surface_points]
        terms["affinity"] = config.affinity * affinity_loss(*_distances(grasps, index, found, pick), AffinityConfig())
    return terms


def predict(network: LiftNet, seen: Sample, device: str = "cpu") -> tuple[View, LiftOutput, Tensor, Tensor]:
    """View, network output, and points ``(B, 29, 3)``, found and true, in the virtual camera's frame."""
    view = view_of(seen.keypoints.to(device), seen.cam_K.to(device), seen.confidence.to(device))
    output = network(view.features(seen.box.to(device)))
    found = place(output, view)
    return view, output, found, seen.points.to(found) @ view.rotation.transpose(1, 2)


def _distances(grasps: GraspSet, index: Tensor, found: Tensor, pick: Tensor | slice) -> tuple[Tensor, Tensor]:
    """Distances ``(B, 21)`` of joints, found and true, from the points ``pick`` of their objects' surfaces, metres."""
    which, local = grasps.which[index], grasps.points[index].to(found)
    surface, normals = grasps.surface[which][:, pick].to(found), grasps.normals[which][:, pick].to(found)
    joints = in_object_frame(found, local[:, JOINTS:])
    return surface_distance(joints, surface, normals), surface_distance(local[:, :JOINTS], surface, normals)


def in_object_frame(points: Tensor, corners: Tensor) -> Tensor:
    """The 21 joints of ``points (B, 29, 3)`` in the object's frame, by laying its corners on ``corners (B, 8, 3)``.

    The rotation is taken as given: gradients go through the joints and the middle of the corners.
    """
    rotation, _ = kabsch(points[:, JOINTS:].detach(), corners)
    centred = points[:, :JOINTS] - points[:, JOINTS:].mean(1, keepdim=True)
    return centred @ rotation.transpose(1, 2) + corners.mean(1, keepdim=True)


@torch.no_grad()
def evaluate(
    network: LiftNet, grasps: GraspSet, cameras: CameraConfig, *, seed: int = 0, views: int = 2
) -> dict[str, float]:
    """Mean errors in millimetres over ``views`` random views of every grasp.

    ``mpjpe_mm`` and ``mpcpe_mm`` in the camera's frame, ``mpjpe_wrist_mm`` with the wrists laid on each other,
    ``mpjpe_object_mm`` in the frame of the (predicted, true) object, ``sigma_ratio`` the root mean square error
    among the points in predicted standard deviations, and with surfaces ``inside_mm`` how deep joints' flesh
    lies inside the object, deepest joint of each grasp, less what is so in truth, ``depth_mm`` the mean over all
    joints of how deep they lie inside themselves (0 outside), and ``inside_share`` how many do.
    """
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, float] = {}
    device = str(next(network.parameters()).device)
    for part in torch.arange(len(grasps)).repeat(views).split(256):
        seen = sample(grasps, part, cameras, generator)
        _, output, found, truth = predict(network, seen, device)
        values = errors(found, truth)
        error = found - truth
        among = (error - error.mean(1, keepdim=True)) / (UNIT * output.log_sigma.exp())[..., None]
        values["sigma_ratio"] = (among**2).mean((1, 2))
        if grasps.surface is not None:
            distance, true_distance = _distances(grasps, part, found, slice(None))
            deeper = (true_distance.clamp_max(0.004) - distance).amax(1)
            values["inside_mm"] = 1000 * deeper.clamp_min(0)
            values["depth_mm"] = 1000 * (-distance).clamp_min(0).mean(1)
            values["inside_share"] = (distance < 0).float().mean(1)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + float(value.sum()) / (views * len(grasps))
    sums["sigma_ratio"] = math.sqrt(sums["sigma_ratio"])
    return sums


def errors(found: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Errors ``(B,)`` in millimetres of points ``(B, 29, 3)``; names as in `evaluate`."""

    def mean(a: Tensor, b: Tensor) -> Tensor:
        return 1000 * (a - b).norm(dim=-1).mean(1)

    hand, true_hand = found[:, :JOINTS], truth[:, :JOINTS]
    return {
        "mpjpe_mm": mean(hand, true_hand),
        "mpcpe_mm": mean(found[:, JOINTS:], truth[:, JOINTS:]),
        "mpjpe_wrist_mm": mean(hand - hand[:, :1], true_hand - true_hand[:, :1]),
        "mpjpe_object_mm": mean(in_object_frame(found, truth[:, JOINTS:]), true_hand),
    }


def _optimiser(model: LiftNet, config: LiftTraining) -> torch.optim.Optimizer:
    edges = [m.matrix for m in model.modules() if isinstance(m, LearnedAdjacency)]
    ids = {id(p) for p in edges}
    groups = [{"params": [p for p in model.parameters() if id(p) not in ids], "factor": 1.0}]
    if edges:
        groups.append({"params": edges, "factor": config.adjacency_rate, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)


def _balanced(grasps: GraspSet, count: int, generator: torch.Generator) -> Tensor:
    """Objects first, grasps second: objects that were easy to grasp should not dominate."""
    order = grasps.which.argsort(stable=True)
    objects, sizes = grasps.which[order].unique_consecutive(return_counts=True)
    starts = sizes.cumsum(0) - sizes
    chosen = torch.randint(len(objects), (count,), generator=generator)
    within = (torch.rand(count, generator=generator) * sizes[chosen]).long().clamp_max(sizes[chosen] - 1)
    return order[starts[chosen] + within]


KINDS: dict[str, tuple[Literal["context", "unet", "mlp"], bool]] = {
    "context": ("context", True), "context_plain": ("context", False), "unet": ("unet", False), "mlp": ("mlp", False),
}  # fmt: skip
"""What is trained for comparison: a network, and whether the affinity loss takes part."""
