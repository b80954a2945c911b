"""How like people's grasps the synthetic ones are: distributions over the corpus beside 289 grasps of DexYCB.

    python benchmarks/corpus_likeness.py --corpus runs/corpus            2,000 grasps of the corpus
    python benchmarks/corpus_likeness.py --corpus runs/corpus --quick    300 grasps, every fourth real one
    python benchmarks/corpus_likeness.py --same-objects    grasps synthesised on the people's objects; needs no corpus

Both are measured by the same code on the same hand model. The last column is the Wasserstein distance between
the two distributions in units of the people's standard deviation: 0 is equal, 1 a shift by one deviation. The
last line of standard output is one JSON object with these distances.

The real grasps are found as by `benchmarks/real_grasps.py`; they are looked at, never trained on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from real_grasps import reference_grasps, validation_folder
from scipy.stats import wasserstein_distance
from torch import Tensor

from contact.corpus import CorpusConfig, load_corpus, load_object
from contact.corpus.corpus import synthesise
from contact.corpus.grasp_types import preshapes
from contact.corpus.placement import SynthesisConfig
from contact.field import field_from_pose
from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose, load_hand_model
from hand_models.anatomy import FINGERS, default_anatomy
from hand_models.rotations import exp_so3

_TOUCH = 0.4  # contact value that counts as touching, as ContactOpt has it
_TIPS = {"thumb": 4, "index": 8, "middle": 12, "ring": 16, "pinky": 20}


def describe(model: HandModel, pose: HandPose, obj: ObjectMesh) -> dict[str, Tensor]:
    """Measures of ``B`` right hands on one object, ``(B,)`` each, in the unit the name says."""
    truth = field_from_pose(model, pose, obj)
    hand = model(pose)
    rotation, wrist = exp_so3(pose.global_orient), hand.joints[:, 0]

    def local(points: Tensor) -> Tensor:
        return (points - wrist[:, None]) @ rotation

    touched = truth.contact > _TOUCH
    skin = truth.hand_contact > _TOUCH
    part = model.part_of_vertex[model.contact_points]
    touches = torch.stack([(skin & (part == bone)).any(1) for bone in range(16)], 1).float()
    near = truth.near > 0.5
    surface = local(obj.points[None].expand(len(pose), -1, -1))
    facing = (surface * near[..., None]).sum(1) / near.sum(1, keepdim=True).clamp_min(1)
    bulk = surface.mean(1)
    distance, _ = obj.grid.query(hand.vertices.reshape(1, -1, 3))
    depth = (-distance.reshape(len(pose), -1).amin(1)).clamp_min(0)
    angles = torch.rad2deg(default_anatomy().to_anatomical(pose.hand_pose))
    closing = torch.nn.functional.normalize(hand.joints[:, 4] - hand.joints[:, 8], dim=-1)
    # The way a hand reaches: where its fingers point from the wrist, across the line it closes on.
    fingers = -rotation[..., 0]
    reach = fingers - (fingers * closing).sum(-1, keepdim=True) * closing
    reach = torch.nn.functional.normalize(reach, dim=-1)
    thumb_side = torch.linalg.cross(reach, closing)
    offset = obj.points.mean(0) - (hand.joints[:, 4] + hand.joints[:, 8]) / 2
    centred = obj.points - obj.points.mean(0)
    longest = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    measures = {
        "aperture, thumb tip to index tip (mm)": 1000 * (hand.joints[:, 4] - hand.joints[:, 8]).norm(dim=-1),
        "touching parts of 16": touches.sum(1),
        "touching: palm": touches[:, 0],
    }
    for k, finger in enumerate(FINGERS):
        measures[f"touching: {finger} end bone"] = touches[:, 3 * k + 3]
        measures[f"touching: {finger} other bones"] = touches[:, 3 * k + 1 : 3 * k + 3].amax(1)
    area = touched.float().mean(1) * float(obj.trimesh.area) * 1e4
    measures |= {
        "contact area (cm²)": area,
        "deepest penetration (mm)": 1000 * depth,
        "object surface facing the hand, along the fingers (mm)": -1000 * facing[:, 0],
        "object surface facing the hand, off the palm (mm)": -1000 * facing[:, 1],
        "object's middle, along the fingers (mm)": -1000 * bulk[:, 0],
        "object's middle, off the palm (mm)": -1000 * bulk[:, 1],
        "object's middle, to the thumb's side (mm)": 1000 * bulk[:, 2],
        "object's middle, beyond thumb and index tip (mm)": 1000 * (offset * reach).sum(-1),
        "object's middle, from there to the thumb's side (mm)": 1000 * (offset * thumb_side).sum(-1),
        "closing axis to the object's longest axis (°)": torch.rad2deg((closing @ longest).abs().acos()),
    }
    for name, joint in (("knuckle", 0), ("middle joint", 1), ("end joint", 2)):
        measures[f"flexion of the {name}s (°)"] = angles[:, [joint, 3 + joint, 6 + joint, 9 + joint], 0].mean(1)
    for joint in range(3):
        for axis, name in enumerate(("flexion", "abduction")):
            measures[f"thumb joint {joint + 1}, {name} (°)"] = angles[:, 12 + joint, axis]
    measures["spread of the fingers (°)"] = angles[:, 0, 1] - angles[:, 6, 1]
    return measures


def join(parts: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """Measures of all parts together."""
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def of_people(folder: Path, model: HandModel, every: int) -> dict[str, np.ndarray]:
    """Measures of the validation grasps."""
    rows = reference_grasps(folder, model)
    names = ("global_orient", "hand_pose", "betas", "transl")
    pose = HandPose.from_arrays({n: getattr(rows, n) for n in names})
    parts = []
    for name in sorted(set(rows.object_id.tolist())):
        chosen = torch.from_numpy(np.flatnonzero(rows.object_id == name)[::every].copy())
        parts.append(describe(model, pose[chosen], ObjectMesh.from_any(folder / "ycb" / f"{name}.ply")))
    return join(parts)


def of_corpus(folder: Path, model: HandModel, count: int) -> dict[str, np.ndarray]:
    """Measures of ``count`` grasps, a few on each of as many objects as possible."""
    corpus = load_corpus(folder)
    generator = torch.Generator().manual_seed(0)
    objects = torch.randperm(len(corpus.numbers), generator=generator)[: max(1, count // 8)]
    parts = []
    for g in objects.tolist():
        chosen = (corpus.which == g).nonzero()[:, 0]
        chosen = chosen[torch.randperm(len(chosen), generator=generator)[:8]]
        parts.append(describe(model, corpus.pose[chosen], load_object(folder, corpus.numbers[g])))
    return join(parts)


def of_synthesis(folder: Path, model: HandModel, every: int) -> dict[str, np.ndarray]:
    """Measures of grasps synthesised as those of the corpus, as many on each of the people's objects as are theirs.

    Objects lie differently in the two only by how synthesis reaches for them, which is what this is for.
    """
    names, counts = np.unique(np.load(folder / "dexycb_val.npz")["object_id"], return_counts=True)
    shapes, config, parts = preshapes(model), SynthesisConfig(), []
    for name, count in zip(names.tolist(), (counts // every).tolist(), strict=True):
        rng = np.random.default_rng(0)
        obj, poses = ObjectMesh.from_any(folder / "ycb" / f"{name}.ply"), []
        while sum(len(p) for p in poses) < count:
            poses.append(synthesise(model, obj, shapes, rng, config)[1])
        parts.append(describe(model, HandPose.cat(poses)[:count], obj))
    return join(parts)


def table(people: dict[str, np.ndarray], corpus: dict[str, np.ndarray]) -> tuple[str, dict[str, float]]:
    """A Markdown table, and the distance of every measure."""
    first = next(iter(people.values())), next(iter(corpus.values()))
    lines = [f"| | people ({len(first[0])}) | corpus ({len(first[1])}) | distance |", "|---|---|---|---|"]
    distances = {}
    for name, real in people.items():
        made = corpus[name]
        distances[name] = float(wasserstein_distance(real, made) / max(real.std(), 0.1))
        cells = [
            f"{v.mean():.2f} ± {v.std():.2f}" if v.max() <= 1 else f"{v.mean():.1f} ± {v.std():.1f}"
            for v in (real, made)
        ]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {distances[name]:.2f} |")
    return "\n".join(lines), distances


def main() -> None:
    """Print the table and the distances."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=CorpusConfig.out)
    parser.add_argument("--same-objects", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    folder = validation_folder()
    if folder is None:
        message = "no validation grasps: set REGRASP_REAL_DATA to a folder with dexycb_val.npz and ycb/"
        print(message, file=sys.stderr)
        print(json.dumps({"skipped": message}))
        return
    model = load_hand_model("open")
    count, every = (300, 4) if options.quick else (2000, 1)
    if options.same_objects:
        made = of_synthesis(folder, model, every)
    else:
        made = of_corpus(options.corpus, model, count)
    text, distances = table(of_people(folder, model, every), made)
    print(text)
    values = list(distances.values())
    figures = {"mean_distance": np.mean(values), "largest_distance": np.max(values)}
    print(json.dumps({k: round(float(v), 3) for k, v in figures.items()}))


if __name__ == "__main__":
    main()
