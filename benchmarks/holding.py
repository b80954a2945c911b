"""Does the hand hold the object? Told apart on the corpus, along approaches, and in a human motion.

    python benchmarks/holding.py --corpus runs/corpus           everything
    python benchmarks/holding.py --corpus runs/corpus --quick   fewer hands

On objects of the corpus that no network has learnt from: the area under the ROC curve between noisy grasps and hands
drawn off their objects, with the noise unknown; and how much the result changes where the hand, on its way from one of
the latter to its grasp, moves on by a millimetre.

On a human motion, one hand that approaches an object, uses it and lets it go (TACO; not part of this repository, looked
for in $REGRASP_REAL_DATA, else in ../shared/real beside it: `sequences/<name>.npz` and `.ply`), each frame by itself:
how far frames with more than a centimetre between hand and object are moved, how far those that hold; and what becomes
of the error under `image` noise. Nothing is said of the hands in either.

The last line of standard output is one JSON object: lengths in millimetres.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from real_grasps import validation_folder
from scipy.stats import mannwhitneyu
from torch import Tensor

from contact.corpus import load_object
from contact.corpus.corpus import Corpus, load_held_out
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from contact.perturb import perturb
from contact.train.approaches import withdraw
from hand_models import HandModel, HandPose, load_hand_model
from refine import RefineConfig, refine_grasp
from refine.solve.fields import load_weights, predict_field, weights_path
from refine.solve.refine_hands import refine_right_hands

PROTOCOLS = ("contactopt", "image", "toch-b1", "none")
MOTION = "taco_20231104_017"
FAR, TOUCHING = 0.01, 0.002  # metres
STEP = 0.001  # metres, mean over the joints


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    grasps: int = 512
    """grasps, and as many approaches, under each protocol"""
    paths: int = 12
    longest: int = 120
    """steps of a path"""


QUICK = Plan(grasps=96, paths=2, longest=60)


@torch.no_grad()
def told_apart(corpus: Corpus, folder: Path, model: HandModel, plan: Plan) -> dict[str, float]:
    """Area under the ROC curve of the probability of holding, over all protocols and of each."""
    generator = torch.Generator().manual_seed(0)
    network = load_weights(weights_path(RefineConfig()))
    chosen = torch.randperm(len(corpus), generator=generator)[: plan.grasps]
    used, which = corpus.which[chosen].unique(return_inverse=True)
    objects = ObjectSet.of([load_object(folder, corpus.numbers[k]) for k in used.tolist()])
    away, found = withdraw(model, corpus.pose[chosen], corpus.objects[corpus.which[chosen]], generator)
    probability: dict[str, tuple[Tensor, Tensor]] = {}
    for name in PROTOCOLS:
        said = []
        for pose in (corpus.pose[chosen], away):
            noisy = perturb(pose, name, seed=generator)
            parts = [
                predict_field(network, model, objects, which[rows], noisy[rows]).holding
                for rows in torch.arange(len(chosen)).split(64)
            ]
            said.append(torch.cat([p for p in parts if p is not None]))
        probability[name] = said[0], said[1][found]
    grasps, approaches = (torch.cat([p[k] for p in probability.values()]) for k in (0, 1))
    return {"auroc": area(grasps, approaches)} | {f"auroc_{name}": area(*p) for name, p in probability.items()}


def area(positive: Tensor, negative: Tensor) -> float:
    """Probability that one of ``positive`` is larger than one of ``negative`` (Mann and Whitney)."""
    return float(mannwhitneyu(positive.numpy(), negative.numpy()).statistic) / (len(positive) * len(negative))


@torch.no_grad()
def along_approaches(corpus: Corpus, folder: Path, model: HandModel, plan: Plan) -> dict[str, float]:
    """How far results move, joints in the mean, where their input moves by a millimetre."""
    generator = torch.Generator().manual_seed(1)
    chosen = torch.randperm(len(corpus), generator=generator)[: plan.paths]
    away, found = withdraw(model, corpus.pose[chosen], corpus.objects[corpus.which[chosen]], generator)
    changes = []
    for k in found.nonzero()[:, 0].tolist():
        grasp = corpus.pose[chosen[k : k + 1]]
        way = float((model.joints(away[k : k + 1]) - model.joints(grasp)).norm(dim=-1).mean())
        steps = min(plan.longest, int(way / STEP))
        share = torch.arange(steps) * STEP / way
        rows = torch.zeros(steps, dtype=torch.long)
        path = grasp[rows].toward(away[torch.full((steps,), k)], share)
        mesh = load_object(folder, corpus.numbers[int(corpus.which[chosen[k]])])
        joints = model.joints(refine_right_hands(path, [mesh], rows, model, RefineConfig()).pose)
        input_step = (model.joints(path[1:]) - model.joints(path[:-1])).norm(dim=-1).mean(1) / STEP
        changes.append((joints[1:] - joints[:-1]).norm(dim=-1).mean(1) / input_step)
    change = 1e3 * torch.cat(changes)
    return {
        "approach_steps": len(change),
        "approach_step_mean_mm": float(change.mean()),
        "approach_step_within_5mm": float((change <= 5).float().mean()),
    }


def in_motion(folder: Path, model: HandModel) -> dict[str, float]:
    """The human motion, frame by frame."""
    with np.load(folder / "sequences" / f"{MOTION}.npz", allow_pickle=False) as data:
        arrays, closest = {name: data[name] for name in data.files}, torch.from_numpy(data["closest_skin"])
    names = ("global_orient", "hand_pose", "betas", "transl", "side")
    pose = HandPose.from_arrays({n: arrays[n] for n in names if n in arrays} | {"side": str(arrays["side"])})
    mesh = ObjectMesh.from_any(folder / "sequences" / f"{MOTION}.ply")
    far, holds = closest > FAR, closest < TOUCHING
    truth, figures, config = None, {}, RefineConfig(volumes=False)
    for protocol in ("none", "image"):
        result = refine_grasp(perturb(pose, protocol, seed=0), mesh, hand_model=model, config=config)
        truth = result.joints_before if truth is None else truth
        moved, before, after = (
            1e3 * (a - b).norm(dim=-1).mean(1)
            for a, b in (
                (result.joints_after, result.joints_before), (result.joints_before, truth), (result.joints_after, truth)
            )
        )  # fmt: skip
        figures |= {
            f"taco_{protocol}_before_mm": float(before.mean()),
            f"taco_{protocol}_after_mm": float(after.mean()),
            f"taco_{protocol}_far_moved_under_5mm": float((moved[far] < 5).float().mean()),
            f"taco_{protocol}_holding_moved_mm": float(moved[holds].mean()),
        }
    return figures


def benchmark(corpus_folder: Path, plan: Plan) -> dict[str, float]:
    """All there is data for."""
    model, figures = load_hand_model("open"), {}
    corpus = load_held_out(corpus_folder)
    figures |= told_apart(corpus, corpus_folder, model, plan) | along_approaches(corpus, corpus_folder, model, plan)
    folder = validation_folder()
    if folder is not None and (folder / "sequences" / f"{MOTION}.npz").is_file():
        figures |= in_motion(folder, model)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"), help="from `regrasp corpus`")
    parser.add_argument("--quick", action="store_true", help="fewer hands")
    options = parser.parse_args()
    result = benchmark(options.corpus, QUICK if options.quick else Plan())
    for name, value in result.items():
        print(f"{name:40}{value:10.3f}")
    print(json.dumps({name: round(value, 5) for name, value in result.items()}))
