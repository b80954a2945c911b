"""Hands through walls: how many noisy grasps of thin objects have a bone that crosses a surface, before and after.

    python benchmarks/thin_walls.py                          200 grasps
    python benchmarks/thin_walls.py --quick                  32
    python benchmarks/thin_walls.py --corpus runs/corpus     on all held-out objects of a corpus, not the shipped few

Grasps are held-out ones of the corpus on mugs, cups, bowls, pitchers, goblets, plates and blades, under the noise of an
image estimator (protocol `image`). The last line of standard output is one JSON object: `crossing_before` and
`crossing_after` (grasps with a bone through a surface), `crossing_freed` (of those that had one, the share that has
none afterwards; null where none had), the same of hands that are said not to hold, which only move out of the way
(`apart_crossing_after`, `apart_moved_mm`), and the mean millimetres skin has passed through, `crossing_mm_before` and
`_after`. `crossing_true` are grasps of the corpus itself that a bone crosses in, without noise.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from contact.corpus.held_out import HeldOut, read_held_out, write_held_out
from contact.objects import ObjectMesh
from contact.perturb import perturb
from hand_models import HandPose, load_open_hand
from refine import RefineConfig, refine_grasp
from refine.measure.crossing import bones_crossing

HELD_OUT = Path(__file__).with_name("pose_graph_held_out.npz")
SEED, ROWS, QUICK_ROWS = 0, 200, 32
WALLED = ("mug", "cup", "bowl", "pitcher", "goblet", "plate", "blade")


def read(corpus: Path | None) -> HeldOut:
    """The shipped held-out grasps, or up to 16 on each held-out object of a corpus."""
    if corpus is None:
        return read_held_out(HELD_OUT)
    with tempfile.TemporaryDirectory() as folder:
        return read_held_out(write_held_out(corpus, Path(folder) / "held_out.npz", objects=1000, grasps=16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS} grasps")
    parser.add_argument("--corpus", type=Path, help="take held-out grasps from this corpus")
    options = parser.parse_args()
    rows = QUICK_ROWS if options.quick else ROWS
    held, model = read(options.corpus), load_open_hand()
    walled = np.flatnonzero(np.isin(np.array(held.families)[held.which], WALLED))
    # Of all objects in turn, and several times with other noise where there are fewer.
    turn = np.concatenate([np.arange(n) for n in np.unique(held.which[walled], return_counts=True)[1]])
    chosen = np.resize(walled[np.argsort(turn, kind="stable")], rows)
    true = held.pose[torch.from_numpy(chosen)]
    noisy = perturb(true, "image", seed=SEED, model=model)
    of = {name: np.zeros(rows) for name in ("true", "before", "after", "apart_after", "apart_moved")}
    passed = {"before": np.zeros(rows), "after": np.zeros(rows)}
    for index in np.unique(held.which[chosen]).tolist():
        at, mesh = np.flatnonzero(held.which[chosen] == index), ObjectMesh.from_any(held.meshes[index])
        hands: HandPose = noisy[torch.from_numpy(at)]
        config = RefineConfig(volumes=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hands that do not touch what they are said not to hold
            result = refine_grasp(hands, mesh, config=config, seed=SEED)
            apart = refine_grasp(hands, mesh, config=config, seed=SEED, holding=False)
        joints = {"true": model.joints(true[torch.from_numpy(at)]).numpy(), "before": result.joints_before}
        joints |= {"after": result.joints_after, "apart_after": apart.joints_after}
        for name, found in joints.items():
            of[name][at] = bones_crossing(found, mesh)
        moved = np.asarray(apart.joints_after) - np.asarray(apart.joints_before)
        of["apart_moved"][at] = 1000 * np.linalg.norm(moved, axis=2).mean(1)
        for when in passed:
            passed[when][at] = result.metrics[f"crossing_mm_{when}"]
        counts = [int((of[name][at] > 0).sum()) for name in ("before", "after", "apart_after")]
        wall = f"{held.families[index]}, walls of {1000 * float(mesh.thickness.median()):.1f} mm"
        print("{}: {} grasps, a bone crosses in {}, then in {}; said to be apart, in {}".format(wall, len(at), *counts))
    crosses = {name: values > 0 for name, values in of.items()}
    had = crosses["before"]
    figures = {f"crossing_{name}": int(crosses[name].sum()) for name in ("true", "before", "after")}
    figures["crossing_freed"] = round(float((~crosses["after"][had]).mean()), 3) if had.any() else None
    figures["apart_crossing_after"] = int(crosses["apart_after"].sum())
    figures["apart_moved_mm"] = round(float(of["apart_moved"][had].mean()), 2) if had.any() else None
    print(json.dumps(figures | {f"crossing_mm_{when}": round(float(v.mean()), 2) for when, v in passed.items()}))


if __name__ == "__main__":
    main()
