"""Refine a file of predictions: write grasp/1, run it through, read the results.

    python examples/02_refine_prediction_file.py

The middle step is also a command:
    regrasp refine predictions/estimates.npz --objects predictions/objects --out predictions/refined
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

from refine.commands.refine import RefineOptions, refine
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.predictions import Predictions

FOLDER = Path("predictions")
FRAMES = 6

# 1. Meshes, one file per object; the file's name is the object's id. Metres.
(FOLDER / "objects").mkdir(parents=True, exist_ok=True)
trimesh.creation.cylinder(radius=0.034, height=0.12, sections=96).export(FOLDER / "objects" / "can.ply")

# 2. What an estimator gives for each frame, here in the camera's frame (OpenCV axes): the pose of the hand
#    and the pose of the object. The made-up numbers are a half-closed hand near the can, with some noise.
rng = np.random.default_rng(0)
hand_pose = np.zeros((FRAMES, 15, 3))
hand_pose[:, :12, 2] = 0.5
object_pose = np.tile(np.eye(4), (FRAMES, 1, 1))
object_pose[:, 2, 3] = 0.6  # the can stands 60 cm in front of the camera
estimates = Predictions(
    object_id=np.array(["can"] * FRAMES),
    side=np.array(["right"] * FRAMES),
    sequence_id=np.array(["kitchen"] * FRAMES),
    frame_index=np.arange(FRAMES),
    global_orient=rng.normal(0.0, 0.1, (FRAMES, 3)),
    hand_pose=hand_pose + rng.normal(0.0, 0.05, hand_pose.shape),
    transl=np.array([-0.02, 0.075, 0.6]) + rng.normal(0.0, 0.01, (FRAMES, 3)),
    object_pose=object_pose,
)
path = write_predictions(FOLDER / "estimates.npz", estimates)

# 3. Refine. Rows come back in their order and in the camera's frame, whatever happens to any one of them.
refine(RefineOptions(files=(path,), objects=FOLDER / "objects", out=FOLDER / "refined"))

# 4. Read the results: the same columns, and those of the refinement.
refined = read_predictions(FOLDER / "refined" / "estimates.refined.npz")
print("\nframe  status    penetration (mm)    moved (mm)")
for row in range(len(refined)):
    before = refined.column("penetration_mm_before")[row]
    after = refined.column("penetration_mm_after")[row]
    moved = 1e3 * np.linalg.norm(refined.column("transl")[row] - estimates.column("transl")[row])
    print(f"{row:5d}  {refined.column('status')[row]:8}  {before:6.1f} -> {after:5.1f}     {moved:7.1f}")
