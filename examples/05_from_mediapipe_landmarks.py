"""From MediaPipe-style 2D hand landmarks, and an object whose pose is known, to a refined grasp.

    python examples/05_from_mediapipe_landmarks.py

MediaPipe gives 21 landmarks as fractions of the picture's width and height, and knows nothing of the object. Its
pose comes from elsewhere (a marker, a tracker), and its box's corners complete the 29 keypoints. Writes
landmarks_box/page.html.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

from contact.corpus.shapes import demo_shapes
from contact.objects.box import box_corners
from hand_models import load_hand_model
from hand_models.skeleton import convert
from refine.api import refine_start
from refine.commands.demo import GRASPS
from refine.evidence.graph_points import from_graph
from refine.files.prediction_files import read_predictions
from refine.files.prediction_poses import hand_poses

OUT = Path("landmarks_box")
OUT.mkdir(exist_ok=True)
WIDTH, HEIGHT, FOCAL = 1280, 720, 1000.0

# 1. The object in front of the camera: 4x4, metres, OpenCV axes (x right, y down, z forward).
box = demo_shapes()["box"]
object_pose = trimesh.transformations.euler_matrix(1.7, -0.5, 0.2)
object_pose[:3, 3] = [0.02, 0.03, 0.5]

# 2. The landmarks, as in result.hand_landmarks[0]: x and y from 0 to 1. Made up here from a grasp of `regrasp demo`.
grasps, model = read_predictions(GRASPS), load_hand_model("open")
truth = hand_poses(grasps, grasps.object_id == "box", model)
seen = model.joints(truth)[0].numpy() @ object_pose[:3, :3].T + object_pose[:3, 3]
pixels = FOCAL * seen[:, :2] / seen[:, 2:] + [WIDTH / 2, HEIGHT / 2]
pixels += np.random.default_rng(1).normal(0, 3, pixels.shape)
landmarks = [{"x": x / WIDTH, "y": y / HEIGHT, "z": 0.0} for x, y in pixels]

# 3. To 29 keypoints in pixels: joints in OpenPose order, and the corners where the known pose shows them.
joints = np.array([[point["x"] * WIDTH, point["y"] * HEIGHT] for point in landmarks])
joints = convert(joints, source="mediapipe", target="openpose")
cam_K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
corners = box_corners(box.vertices) @ object_pose[:3, :3].T + object_pose[:3, 3]
image = corners @ cam_K.T
keypoints = np.concatenate([joints, image[:, :2] / image[:, 2:]])
confidence = np.concatenate([np.full(21, 0.9), np.full(8, 0.96)])

# 4. Lift, place, refine. The distance of the hand comes from its size, and that is a guess: contact mends it.
start = from_graph(keypoints, box, cam_K=cam_K, confidence=confidence[None])
print(f"object within {1e3 * np.linalg.norm(start.object_pose[0, :3, 3].numpy() - object_pose[:3, 3]):.1f} mm")
print(f"hand known to {1e3 * float(start.joint_sigma.mean()):.0f} mm per axis before refinement")
refined = refine_start(start)
result = refined.result
print(f"status: {result.status[0].value}")
for when, found in (("before", result.joints_before), ("after", result.joints_after)):
    error = np.linalg.norm(np.asarray(found[0]) - model.joints(truth)[0].numpy(), axis=1).mean()
    print(f"joints {when:>6}: {1e3 * error:.1f} mm from the truth, relative to the box")
result.to_html(OUT / "page.html")
print(f"written: {OUT}/page.html")
