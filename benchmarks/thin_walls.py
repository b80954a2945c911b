"""Hands through walls: how many noisy grasps of thin objects have a bone that crosses a surface, before and after.

    python benchmarks/thin_walls.py            200 grasps
    python benchmarks/thin_walls.py --quick    32

Grasps are the held-out ones of the corpus on the objects with the thinnest walls, half of all, under the noise of an
image estimator (protocol `image`). The last line of standard output is one JSON object: `crossing_before` and
`crossing_after` (grasps with a bone through a surface), `crossing_freed` (of those that had one, the share that has
none afterwards; null where none had), and the mean millimetres skin has passed through, `crossing_mm_before` and
`_after`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from contact.corpus.held_out import read_held_out
from contact.objects import ObjectMesh
from contact.perturb import perturb
from hand_models import HandPose, load_open_hand
from refine import RefineConfig, refine_grasp
from refine.measure.crossing import bones_crossing

HELD_OUT = Path(__file__).with_name("pose_graph_held_out.npz")
SEED, ROWS, QUICK_ROWS = 0, 200, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    rows = QUICK_ROWS if parser.parse_args().quick else ROWS
    held, model = read_held_out(HELD_OUT), load_open_hand()
    meshes = [ObjectMesh.from_any(mesh) for mesh in held.meshes]
    walls = np.array([float(mesh.thickness.median()) for mesh in meshes])
    thin = np.flatnonzero(np.isin(held.which, np.argsort(walls)[: len(walls) // 2]))
    chosen = np.resize(thin, rows)  # each several times, with other noise
    noisy = perturb(held.pose[torch.from_numpy(chosen)], "image", seed=SEED, model=model)
    crossing = {"before": np.zeros(rows), "after": np.zeros(rows)}
    passed = {"before": np.zeros(rows), "after": np.zeros(rows)}
    for index in np.unique(held.which[chosen]).tolist():
        at = np.flatnonzero(held.which[chosen] == index)
        hands: HandPose = noisy[torch.from_numpy(at)]
        result = refine_grasp(hands, meshes[index], config=RefineConfig(volumes=False), seed=SEED)
        for when, joints in (("before", result.joints_before), ("after", result.joints_after)):
            crossing[when][at] = bones_crossing(joints, meshes[index])
            passed[when][at] = result.metrics[f"crossing_mm_{when}"]
        counts = [int((crossing[when][at] > 0).sum()) for when in ("before", "after")]
        name = f"{held.families[index]}, walls of {1000 * walls[index]:.1f} mm"
        print(f"{name}: {len(at)} grasps, a bone crosses in {counts[0]}, then in {counts[1]}", flush=True)
    had, has = crossing["before"] > 0, crossing["after"] > 0
    freed = round(float((~has[had]).mean()), 3) if had.any() else None
    figures = {"crossing_before": int(had.sum()), "crossing_after": int(has.sum()), "crossing_freed": freed}
    means = {f"crossing_mm_{when}": round(float(values.mean()), 2) for when, values in passed.items()}
    print(json.dumps(figures | means))


if __name__ == "__main__":
    main()
