"""Make the grasps that `regrasp demo` starts from: the most human-looking ones synthesised on the demo objects.

    python tools/build_demo_grasps.py            # writes refine/commands/demo_grasps.npz

Run from the repository's root; seeded, so it writes the same file again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from contact.corpus.grasp_types import preshapes
from contact.corpus.holding import find_contacts, holds
from contact.corpus.placement import SynthesisConfig, place
from contact.corpus.shapes import demo_shapes
from contact.corpus.synthesis import close_hands
from contact.objects import ObjectMesh
from hand_models import HandPose, load_open_hand
from hand_models.anatomy import default_anatomy
from refine.files.prediction_files import write_predictions
from refine.files.predictions import Predictions

TARGET = Path("refine/commands/demo_grasps.npz")
SEED = 7


def best_grasp(name: str, obj: ObjectMesh, candidates: int = 192) -> HandPose:
    """The grasp with the most touching parts and the most usual joint angles."""
    model, config = load_open_hand(), SynthesisConfig(candidates=candidates, shape_std=0.0)
    shapes, up = preshapes(model), torch.tensor([0.0, 0.0, 1.0])
    rng = np.random.default_rng([SEED, *name.encode()])
    placement = place(model, obj, shapes, up, rng, config)
    assert placement is not None, name
    pose = close_hands(model, obj, placement, shapes, up, config)
    contacts = find_contacts(model, obj, pose)
    anatomy = default_anatomy()
    strain = ((anatomy.to_anatomical(pose.hand_pose) - anatomy.mean) / anatomy.std).square().mean((1, 2))
    touching = (contacts.distance < config.touch).float()
    score = touching.sum(1) + 3 * touching[:, [3, 6, 12, 15]].sum(1) - 2 * strain - 1000 * contacts.depth
    score[~holds(contacts, placement.squeeze, config)] = -torch.inf
    return pose[int(score.argmax())]


def main() -> None:
    """Write the file."""
    rows = []
    for name, mesh in demo_shapes().items():
        obj = ObjectMesh.from_any(mesh, name=name)
        pose = replace(best_grasp(name, obj), betas=torch.zeros(1, 10))
        rows.append((name, pose))
        print(name)
    pose = HandPose.cat([p for _, p in rows])
    columns = {
        "object_id": np.array([name for name, _ in rows]),
        "frame_id": np.array([f"demo_{name}" for name, _ in rows]),
        "hand_model": np.array(["open"] * len(rows)),
        "side": np.array(["right"] * len(rows)),
        **pose.as_arrays(),
    }
    write_predictions(TARGET, Predictions.from_columns(columns))


if __name__ == "__main__":
    main()
