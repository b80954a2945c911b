"""Hands without a metric depth: the object says how far along their line of sight they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from contact.input_error import CAMERA, TRACKING
from contact.objects import ObjectMesh
from hand_models import HandPose, load_open_hand
from refine.api import refine_request
from refine.commands import cli
from refine.config import RefineConfig
from refine.evidence.sight import depth_of_object, thickness
from refine.evidence.stated import Stated
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.predictions import Predictions, row_problems
from refine.request import Request

MODEL = load_open_hand()
BOX = (0.06, 0.05, 0.04)
PLACE = np.array([0.12, -0.08, 0.65])
ASIDE = np.array([0.4, 0, 0])


@pytest.fixture(scope="module")
def box() -> ObjectMesh:
    return ObjectMesh.from_any(trimesh.creation.box(BOX), cache=False)


def camera_of(turn: float = 0.0) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec([0, turn, 0]).as_matrix()
    pose[:3, 3] = PLACE
    return pose


def hand_on(ray: np.ndarray, far: float, side: str = "right") -> HandPose:
    """A flat hand whose joints' mean is ``far`` metres along ``ray``."""
    rest = HandPose.zeros(1, side=side)
    middle = MODEL.joints(rest).mean(1)
    place = torch.tensor(ray / np.linalg.norm(ray) * far, dtype=torch.float32)
    return HandPose.from_arrays({**rest.as_arrays(), "transl": (place - middle).numpy()}, side=side)


def table(pose: HandPose, camera: np.ndarray, **columns) -> Predictions:
    return Predictions.from_columns(
        pose.as_arrays()
        | {"object_id": "box", "side": pose.side, "hand_model": "open", "object_pose": camera[None]}
        | {"metric_depth": False, "input_error": "camera"}
        | columns
    )


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("turn", [0.0, 0.9])
@pytest.mark.parametrize("far", [0.3, 16.0])
def test_the_hand_starts_where_its_ray_passes_the_object(box, side, turn, far):
    camera, given = camera_of(turn), hand_on(PLACE, far, side)
    request = Request.of_rows(table(given, camera), box, MODEL)
    moved = MODEL.joints(request.given).mean(1)[0].numpy()
    # The box is the same on both sides of its middle, which the ray meets.
    np.testing.assert_allclose(moved, PLACE, atol=2e-3)
    for name in ("global_orient", "hand_pose", "betas"):
        np.testing.assert_array_equal(request.given.as_arrays()[name], given.as_arrays()[name])


def test_how_far_off_follows_from_object_and_hand(box):
    camera = torch.tensor(camera_of(), dtype=torch.float32)[None]
    _, stated = depth_of_object(hand_on(PLACE, 9.0), camera, box, MODEL, Stated("tracker"), torch.tensor([True]))
    (error,) = stated.input_error
    corners = np.array(np.meshgrid(*[(-n / 2, n / 2) for n in BOX])).reshape(3, -1).T
    along = corners @ (PLACE / np.linalg.norm(PLACE))
    assert error.along == pytest.approx(np.ptp(along) / 2 + thickness(MODEL), abs=2e-3)
    assert (error.translation, error.rotation, error.pose) == (
        TRACKING.translation, TRACKING.rotation, TRACKING.pose
    )  # fmt: skip
    assert 0.02 < thickness(MODEL) < 0.06


def test_metric_rows_and_their_keypoints_are_untouched(box):
    given = HandPose.cat([hand_on(PLACE, 0.6), hand_on(PLACE, 5.0)])
    camera = torch.tensor(camera_of(), dtype=torch.float32).expand(2, 4, 4)
    said = Stated("camera", torch.eye(3), np.zeros((2, 21, 2)))
    pose, stated = depth_of_object(given, camera, box, MODEL, said, torch.tensor([False, True]))
    torch.testing.assert_close(pose[torch.tensor([0])].transl, given[torch.tensor([0])].transl, rtol=0, atol=0)
    assert stated.input_error[0] == CAMERA
    assert stated.input_error[1].along != CAMERA.along
    assert np.isfinite(stated.keypoints_2d).all((1, 2)).tolist() == [True, False]
    same, unchanged = depth_of_object(given, camera, box, MODEL, said, torch.tensor([False, False]))
    assert same is given
    assert unchanged is said


def test_a_ray_that_misses_the_object_says_so(box):
    given = hand_on(PLACE + ASIDE, 3.0)
    with pytest.raises(ValueError, match=r"metric_depth.*true intrinsics"):
        Request.of_rows(table(given, camera_of()), box, MODEL)
    Request.of_rows(table(hand_on(PLACE + ASIDE, 0.8), camera_of(), metric_depth=True), box, MODEL)


def test_an_assumed_depth_is_no_unit_mistake():
    rows = table(hand_on(PLACE, 45.0), camera_of())
    assert row_problems(rows) == {}
    assert list(row_problems(table(hand_on(PLACE, 45.0), camera_of(), metric_depth=True))) == [0]


def test_the_result_is_in_the_cameras_frame_and_metric(box, tmp_path: Path):
    side = camera_of()
    beside = PLACE + np.array([0.0, -0.045, 0.0])
    path = write_predictions(tmp_path / "in.npz", table(hand_on(beside, 16.0), side))
    (tmp_path / "meshes").mkdir()
    trimesh.creation.box(BOX).export(tmp_path / "meshes" / "box.ply")
    out = tmp_path / "out"
    assert cli.main(["refine", str(path), "--objects", str(tmp_path / "meshes"), "--out", str(out)]) == 0
    p = read_predictions(out / "in.refined.npz")
    assert p.metric_depth.all()
    hand = HandPose.from_arrays(
        {name: p.column(name) for name in ("global_orient", "hand_pose", "betas", "transl")}, side="right"
    )
    assert np.linalg.norm(MODEL.joints(hand).mean(1)[0].numpy() - beside) < 0.08
    # Also where it is kept: the depth it was given is nobody's.
    result = refine_request(Request.of_rows(read_predictions(path), box, MODEL), RefineConfig())
    assert np.linalg.norm(result.initial_pose.transl[0].numpy()) < 1
