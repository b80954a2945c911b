"""Samples: not one hand, but several that the observation allows, and how probable each is.

    python examples/09_samples.py

How far they lie apart is what the observation leaves open: little where a tracker gave the hand, much along the line of
sight where an image did. The grasp is one of `regrasp demo`, put off its place here.
"""

from __future__ import annotations

import torch
import trimesh

from contact.corpus.shapes import demo_shapes
from hand_models import load_hand_model
from refine import refine_grasp
from refine.commands.demo import GRASPS
from refine.files.prediction_files import read_predictions
from refine.files.prediction_poses import hand_poses, into_camera_frame

COUNT = 8

# 1. Object and hand before the camera: metres, OpenCV axes (x right, y down, z forward). The bottle is seen from one
#    end, so that the hand may be farther up or down it and look the same.
bottle, grasps, model = demo_shapes()["bottle"], read_predictions(GRASPS), load_hand_model("open")
object_pose = torch.from_numpy(trimesh.transformations.euler_matrix(-2.6, 0.4, 0.3)).float()
object_pose[:3, 3] = torch.tensor([-0.02, 0.01, 0.5])
truth = into_camera_frame(hand_poses(grasps, grasps.object_id == "bottle", model), object_pose[None], model)
joints = model.joints(truth)

# 2. The hand as a tracker gives it, and as an image estimator does: on its picture, but nearer than it is.
given = {"tracker": torch.tensor([0.002, -0.002, 0.003]), "camera": torch.tensor([0.004, -0.003, -0.03])}

print(f"{COUNT} samples  apart along the view, across it   off: as given  refined  best sample, joints in mm")
for name, shift in given.items():
    noisy = truth.transformed(torch.eye(3), shift, model.root(truth))
    result = refine_grasp(noisy, bottle, object_pose=object_pose, input_error=name, holding=True, samples=COUNT)

    # 3. Poses are in the camera's frame, hand by hand, the most probable first.
    hands = model.joints(result.samples.pose)
    off = hands - hands.mean(0)
    along, across = (1000 * float(part.norm(dim=2).mean()) for part in (off[..., 2:], off[..., :2]))
    errors = [1000 * (h - joints).norm(dim=2).mean(1) for h in (model.joints(noisy), model.joints(result.pose), hands)]
    as_given, refined, best = (float(e.min()) for e in errors)
    print(f"{name:>9} {along:15.1f} mm {across:9.1f} mm {as_given:14.1f} {refined:10.1f} {best:8.1f}")
    print("  probabilities " + " ".join(f"{p:.2f}" for p in result.samples.probability[0].tolist()))
