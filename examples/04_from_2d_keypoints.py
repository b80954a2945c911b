"""From 2D keypoints of a hand and an object's box to a refined grasp in a web page.

    python examples/04_from_2d_keypoints.py

Writes graph_bottle/page.html and graph_bottle/keypoints.json. The command line gives the same hand, the object where
it was placed:
    regrasp refine graph_bottle/keypoints.json --from graph --objects graph_bottle/meshes --out graph_bottle/refined
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import trimesh

from contact.corpus.shapes import demo_shapes
from contact.objects.box import box_corners
from hand_models import load_hand_model
from pose_graph.graph import NODE_NAMES
from refine.api import refine_start
from refine.commands.demo import GRASPS
from refine.evidence.graph_points import from_graph
from refine.files.prediction_files import read_predictions
from refine.files.prediction_poses import hand_poses

OUT = Path("graph_bottle")
(OUT / "meshes").mkdir(parents=True, exist_ok=True)

# 1. What a detector gives: pixels of 21 joints (OpenPose order) and of the 8 corners of the object's box (z
#    fastest), NaN where it saw nothing, and how sure it is. Made up here from one of the grasps of `regrasp demo`,
#    seen from 55 cm, with 4 pixels of noise.
grasps, model = read_predictions(GRASPS), load_hand_model("open")
bottle = demo_shapes()["bottle"]
bottle.export(OUT / "meshes" / "bottle.ply")
truth = hand_poses(grasps, grasps.object_id == "bottle", model)
cam_K = np.array([[1395.7, 0, 960], [0, 1395.7, 540], [0, 0, 1]])
points = np.concatenate([model.joints(truth)[0].numpy(), box_corners(bottle.vertices)])
turn = trimesh.transformations.euler_matrix(1.9, 0.4, 0.3)[:3, :3]
points = points @ turn.T + [0.03, -0.02, 0.55]
rng = np.random.default_rng(0)
image = points @ cam_K.T
keypoints = image[:, :2] / image[:, 2:] + rng.normal(0, 4, (29, 2))
keypoints[8] = np.nan  # the tip of the index finger is hidden
confidence = np.full(29, 0.85)
confidence[8] = 0

# 2. Lift to 3D, place hand and object.
start = from_graph(keypoints, bottle, cam_K=cam_K, confidence=confidence[None])
worst = int(start.joint_sigma[0].argmax())
print(f"lifted; least certain: {NODE_NAMES[worst]}, {1e3 * float(start.joint_sigma[0, worst]):.0f} mm")

# 3. Refine: contact says how hand and object lie together, and the object takes its share of the correction.
refined = refine_start(start, optimise_object=True)
result = refined.result
print(f"status: {result.status[0].value}")
for name in ("penetration_mm", "contact_ratio"):
    print(f"{name:>15}: {result.metrics[f'{name}_before'][0]:.2f} -> {result.metrics[f'{name}_after'][0]:.2f}")
for when, joints in (("before", result.joints_before), ("after", result.joints_after)):
    error = np.linalg.norm(np.asarray(joints[0]) - model.joints(truth)[0].numpy(), axis=1).mean()
    print(f"joints {when:>6}: {1e3 * error:.1f} mm from the truth, relative to the bottle")

result.to_html(OUT / "page.html")
entry = {"format": "graph/1", "object_id": "bottle", "objects": "meshes", "cam_K": cam_K.tolist()}
rows = [[None if np.isnan(v) else round(float(v), 2) for v in xy] for xy in keypoints]
(OUT / "keypoints.json").write_text(json.dumps(entry | {"keypoints_2d": [rows], "confidence": [confidence.tolist()]}))
print(f"written: {OUT}/")
