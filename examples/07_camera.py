"""An image estimator's hand: it lies on its picture, but not at its depth.

    python examples/07_camera.py

Told so, refinement looks for the hand along the line of sight; given the keypoints of the picture as well, it keeps
the hand on them. Eight such hands around a bottle are made up here from a grasp of `regrasp demo`, with the errors
that image estimators make.
"""

from __future__ import annotations

import torch
import trimesh
from torch import Tensor

from contact.corpus.shapes import demo_shapes
from contact.perturb import perturb
from hand_models import HandPose, load_hand_model
from refine import refine_grasp
from refine.commands.demo import GRASPS
from refine.evidence.input_error import line_of_sight
from refine.files.prediction_files import read_predictions
from refine.files.prediction_poses import hand_poses, into_camera_frame

COUNT, CAMERA = 8, torch.tensor([[600.0, 0.0, 320.0], [0.0, 600.0, 240.0], [0.0, 0.0, 1.0]])

# 1. The object in front of the camera: 4x4, metres, OpenCV axes (x right, y down, z forward).
bottle, grasps, model = demo_shapes()["bottle"], read_predictions(GRASPS), load_hand_model("open")
object_pose = torch.from_numpy(trimesh.transformations.euler_matrix(1.9, 0.3, -0.4)).float()
object_pose[:3, 3] = torch.tensor([0.02, 0.03, 0.6])
poses = object_pose.expand(COUNT, 4, 4)

# 2. What an estimator gives, in the camera's frame: hands, and the pixels where its 2D half sees the 21 joints.
truth = hand_poses(grasps, grasps.object_id == "bottle", model)[[0] * COUNT]
given = perturb(truth, "camera", seed=1, model=model, view=line_of_sight(truth, model, poses))
truth, given = (into_camera_frame(pose, poses, model) for pose in (truth, given))
image = model.joints(truth) @ CAMERA.T
keypoints = image[..., :2] / image[..., 2:]
keypoints += 3 * torch.randn(keypoints.shape, generator=torch.Generator().manual_seed(2))


# 3. Refine: knowing nothing of how the hands may be off, and knowing ever more.
def show(name: str, pose: HandPose) -> None:
    """Mean error of the joints: all of it, along the line of sight, across it."""
    joints, off = model.joints(truth), model.joints(pose) - model.joints(truth)
    ray = torch.nn.functional.normalize(joints, dim=2)
    along = (off * ray).sum(2)
    across = (off - along[..., None] * ray).norm(dim=2)

    def mm(error: Tensor) -> float:
        return 1000 * float(error.mean())

    print(f"{name:32} {mm(off.norm(dim=2)):10.1f} {mm(along.abs()):10.1f} {mm(across):10.1f}")


print(f"{'error in mm':32} {'joints':>10} {'along':>10} {'across':>10}")
show("as given", given)
for name, known in (
    ("refined, nothing said", {}),
    ('input_error="camera"', {"input_error": "camera"}),
    ("keypoints", {"camera": CAMERA, "keypoints_2d": keypoints}),
    ("both", {"input_error": "camera", "camera": CAMERA, "keypoints_2d": keypoints, "keypoint_sigma": 3.0}),
):
    show(name, refine_grasp(given, bottle, object_pose=object_pose, **known).pose)
