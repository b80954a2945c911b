"""Points that a depth camera measures on the skin say how far away the hand is.

    python examples/08_depth_points.py

A depth camera sees a part of the hand, the rest is behind the object or itself. Points on what is seen, some of them
wrong, and an estimator's hand that is centimetres too near or too far: made up here from a grasp of `regrasp demo`.
"""

from __future__ import annotations

import numpy as np
import torch
import trimesh

from contact.corpus.shapes import demo_shapes
from hand_models import load_hand_model
from refine import refine_grasp
from refine.commands.demo import GRASPS
from refine.files.prediction_files import read_predictions
from refine.files.prediction_poses import hand_poses, into_camera_frame

FOCAL, POINTS, NOISE, STRAY = 150.0, 200, 0.002, 10

# 1. Object and hand before the camera: metres, OpenCV axes (x right, y down, z forward).
mug, grasps, model = demo_shapes()["mug"], read_predictions(GRASPS), load_hand_model("open")
object_pose = torch.from_numpy(trimesh.transformations.euler_matrix(-1.5, 0.4, 0.3)).float()
object_pose[:3, 3] = torch.tensor([-0.02, 0.01, 0.5])
truth = into_camera_frame(hand_poses(grasps, grasps.object_id == "mug", model), object_pose[None], model)

# 2. The depth image: in each pixel the nearest of many points on hand and mug; those of the hand are kept.
hand = trimesh.Trimesh(model(truth).vertices[0].numpy(), model.closed_faces.numpy(), process=False)
held = mug.copy().apply_transform(object_pose.numpy())
points = np.concatenate([trimesh.sample.sample_surface(part, 20000, seed=0)[0] for part in (hand, held)])
order = points[:, 2].argsort()
pixels = (FOCAL * points[order, :2] / points[order, 2:]).round()
seen = order[np.unique(pixels, axis=0, return_index=True)[1]]
skin = torch.from_numpy(points[seen[seen < 20000]]).float()
skin = skin[torch.linspace(0, len(skin) - 1, POINTS).long()]

generator = torch.Generator().manual_seed(0)
measured = skin + NOISE * torch.randn(skin.shape, generator=generator)
measured[:: POINTS // STRAY] += torch.tensor([0.0, 0.0, 0.1])  # where cameras see what is behind the hand's edge

# 3. An estimator's hand: a few millimetres off on the picture, and nearer or farther than it is.
print(f"{len(measured)} points on the skin, {STRAY} of them strays")
print("depth off   error as given    refined    with points, joints in mm")
for depth in (-0.06, -0.03, 0.03, 0.06):
    given = truth.transformed(torch.eye(3), torch.tensor([0.004, -0.003, depth]), model.root(truth))
    at = {"object_pose": object_pose, "input_error": "camera"}
    alone = refine_grasp(given, mug, **at)
    scanned = refine_grasp(given, mug, depth_points=measured, **at)
    errors = [
        1000 * float((model.joints(pose) - model.joints(truth)).norm(dim=2).mean())
        for pose in (given, alone.pose, scanned.pose)
    ]
    print(f"{1000 * depth:+6.0f} mm {errors[0]:14.1f} {errors[1]:12.1f} {errors[2]:12.1f}")
