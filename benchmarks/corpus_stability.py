"""Do the corpus' grasps hold? Simulated displacement of the object in hands held still, beside people's grasps.

    python benchmarks/corpus_stability.py --corpus runs/corpus            120 grasps
    python benchmarks/corpus_stability.py --corpus runs/corpus --quick    20 grasps

Gravity points at the table each object stood on; for the people's grasps, whose table is not known, it points
down the object's own axis. Everything else is `refine.measure.simulation.simulation_displacement`; it needs the
extra `[sim]`. The last line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from real_grasps import reference_grasps, validation_folder

from contact.corpus import CorpusConfig, load_object
from contact.corpus.corpus import object_path
from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose, load_hand_model
from refine.measure.simulation import GRAVITY, simulation_displacement

_HELD = 0.02  # metres within half a second that count as held; free fall is 1.23 m
_FIELDS = ("global_orient", "hand_pose", "betas", "transl")


def of_corpus(folder: Path, model: HandModel, count: int) -> np.ndarray:
    """Displacements of ``count`` grasps of as many objects, metres."""
    numbers = [int(p.stem.removeprefix("object_")) for p in sorted(folder.glob("object_*.npz"))]
    rng = np.random.default_rng(0)
    moved: list[float] = []
    for number in rng.permutation(numbers):
        if len(moved) == count:
            break
        with np.load(object_path(folder, int(number)), allow_pickle=False) as data:
            if len(data["kind"]) == 0:
                continue
            row = int(rng.integers(len(data["kind"])))
            pose = HandPose("right", *(torch.from_numpy(data[n][row : row + 1]) for n in _FIELDS))
            down = (-9.81 * data["up"]).tolist()
        moved += _displacements(model, pose, [load_object(folder, int(number))], down).tolist()
    return np.array(moved)


def of_people(folder: Path, model: HandModel, count: int) -> np.ndarray:
    """Displacements of ``count`` validation grasps, metres."""
    rows = reference_grasps(folder, model)
    pose = HandPose.from_arrays({n: getattr(rows, n) for n in _FIELDS})
    some = np.random.default_rng(0).permutation(len(pose))[:count]
    names = rows.object_id[some].tolist()
    objects = {name: ObjectMesh.from_any(folder / "ycb" / f"{name}.ply") for name in sorted(set(names))}
    return _displacements(model, pose[some], [objects[name] for name in names], GRAVITY)


def _displacements(model: HandModel, pose: HandPose, objects: list[ObjectMesh], gravity: Sequence[float]) -> np.ndarray:
    vertices, faces, parts = model(pose).vertices, model.closed_faces, model.part_of_vertex
    return simulation_displacement(vertices, faces, objects, parts=parts, gravity=gravity)


def describe(name: str, moved: np.ndarray) -> tuple[str, dict[str, float]]:
    """A row of the table, and its figures."""
    known = moved[np.isfinite(moved)]
    if not len(known):
        return f"| {name} | 0 | | | |", {"median_mm": float("nan"), "held": float("nan")}
    median, mean, held = 1000 * np.median(known), 1000 * known.mean(), (known < _HELD).mean()
    return (
        f"| {name} | {len(known)} | {median:.1f} | {mean:.0f} | {100 * held:.0f} % |",
        {"median_mm": round(float(median), 2), "held": round(float(held), 3)},
    )


def main() -> None:
    """Print the table and its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=CorpusConfig.out)
    parser.add_argument("--quick", action="store_true", help="20 grasps")
    arguments = parser.parse_args()
    count = 20 if arguments.quick else 120
    model = load_hand_model("open")
    folder = validation_folder()
    print(f"| | grasps | median (mm) | mean (mm) | within {1000 * _HELD:.0f} mm |\n|---|---|---|---|---|")
    result = {}
    row, result["corpus"] = describe("corpus", of_corpus(arguments.corpus, model, count))
    print(row)
    if folder is not None:
        row, result["people"] = describe("people", of_people(folder, model, count))
        print(row)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
