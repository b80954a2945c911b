"""Scenes of the benchmark on real grasps: its cameras, what they see of a hand, and the anchors that do not refine."""

from __future__ import annotations

import importlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import trimesh
from scipy.optimize import minimize_scalar

from contact.objects import ObjectMesh
from contact.perturb import perturb
from hand_models import HandModel, HandPose, load_open_hand
from refine.measure.picture import project

RADIUS, COUNT = 0.04, 6


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def ball() -> ObjectMesh:
    """Around the origin."""
    return ObjectMesh.from_any(trimesh.creation.icosphere(4, RADIUS), resolution=64, n_points=256, cache=False)


@pytest.fixture(scope="module")
def hands() -> HandPose:
    """Half-closed hands about the ball."""
    g = torch.Generator().manual_seed(0)
    bend = torch.zeros(COUNT, 15, 3)
    bend[:, :12, 2] = 0.5 + 0.1 * torch.randn(COUNT, 12, generator=g)
    transl = torch.tensor([-0.02, 0.065, 0.0]) + 0.01 * torch.randn(COUNT, 3, generator=g)
    return HandPose("right", 0.2 * torch.randn(COUNT, 3, generator=g), bend, torch.zeros(COUNT, 10), transl)


def benchmark_module(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def scenes() -> ModuleType:
    return benchmark_module("camera_scenes")


@pytest.fixture(scope="module")
def anchors() -> ModuleType:
    return benchmark_module("camera_anchors")


@pytest.fixture(scope="module")
def cameras(scenes, hands, model):
    return scenes.Cameras.facing(model.joints(hands).mean(1), seed=0)


def moved(pose: HandPose, by: torch.Tensor) -> HandPose:
    return replace(pose, transl=pose.transl + by)


# What cameras see -----------------------------------------------------------------------------------


def test_cameras_face_the_hands_from_their_distance(scenes, cameras, hands, model):
    centre = model.joints(hands).mean(1)
    pose = cameras.object_pose
    torch.testing.assert_close(pose[:, :3, :3] @ pose[:, :3, :3].transpose(1, 2), torch.eye(3).expand(COUNT, 3, 3))
    assert (torch.linalg.det(pose[:, :3, :3]) > 0.99).all()
    before = (pose[:, :3, :3] @ centre[..., None])[..., 0] + pose[:, :3, 3]
    torch.testing.assert_close(before, torch.tensor([0, 0, scenes.DISTANCE]).expand(COUNT, 3), atol=1e-5, rtol=0)
    there = centre - scenes.DISTANCE * cameras.view
    np.testing.assert_allclose(cameras.eye, there, atol=1e-5)
    # A step along the view stays in the middle of the picture.
    middle = project((centre + 0.1 * cameras.view)[:, None], cameras.projection)
    np.testing.assert_allclose(middle, np.broadcast_to([320, 240], middle.shape), atol=1e-2)


def test_keypoints_are_the_projection_and_noise(scenes, cameras, hands, model):
    joints = model.joints(hands)
    off = np.stack([cameras.keypoints(joints, seed) - project(joints, cameras.projection) for seed in range(40)])
    assert abs(off.mean()) < 0.1
    assert off.std() == pytest.approx(scenes.KEYPOINT_NOISE, rel=0.03)
    assert abs(np.corrcoef(off[:, 0, 3, 0], off[:, 0, 4, 0])[0, 1]) < 0.5
    np.testing.assert_array_equal(cameras.keypoints(joints, 1), cameras.keypoints(joints, 1))


def test_visible_skin_is_skin_that_faces_the_camera_and_no_ball_hides(scenes, cameras, hands, model, ball):
    skin, faces = model(hands).vertices.double().numpy(), model.faces_for("right").numpy()
    away = ObjectMesh.from_any(trimesh.creation.icosphere(2, 0.02).apply_translation([5, 0, 0]), cache=False,
                               n_points=64, resolution=16)  # fmt: skip
    hidden = 0
    for row in range(COUNT):
        eye, projection = cameras.eye[row], cameras.projection[row]
        mesh = trimesh.Trimesh(skin[row], faces, process=False)
        free = scenes.visible_skin(skin[row], faces, away, eye, projection)
        seen = scenes.visible_skin(skin[row], faces, ball, eye, projection)
        assert len(free) > 100
        _, distance, face = trimesh.proximity.closest_point(mesh, free)
        assert distance.max() < 1e-5
        assert (np.einsum("nc,nc->n", mesh.face_normals[face], free - eye) < 1e-3).mean() > 0.99
        # A point is seen beside the ball if the segment to it passes by: its distance to the centre, in closed form.
        ray = free - eye
        near = np.clip(-(ray @ eye) / (ray**2).sum(1), 0, 1)
        clear = np.linalg.norm(eye + near[:, None] * ray, axis=1)
        kept = {tuple(point) for point in seen.round(9)}
        passes = np.array([tuple(point) in kept for point in free.round(9)])
        assert passes[clear > RADIUS + 1e-4].all()
        assert not passes[clear < RADIUS - 1e-3].any()
        hidden += (~passes).sum()
    assert hidden > 50


def test_depth_points_are_noisy_skin_in_the_cameras_frame(scenes, cameras, hands, model, ball):
    rows = np.array([1, 4])
    points = cameras.depth_points(rows, hands, model, [ball, ball], seed=3)
    assert points.shape == (2, scenes.DEPTH_POINTS, 3)
    alone = cameras.depth_points(rows[1:], hands, model, [ball], seed=3)
    np.testing.assert_array_equal(alone[0], points[1])
    for k, row in enumerate(rows):
        known = points[k][np.isfinite(points[k]).all(1)].astype(np.float64)
        assert len(known) > 100
        assert np.isnan(points[k][len(known) :]).all()
        pose = cameras.object_pose[row].double().numpy()
        skin = model(hands[int(row)]).vertices[0].double().numpy() @ pose[:3, :3].T + pose[:3, 3]
        mesh = trimesh.Trimesh(skin, model.faces_for("right").numpy(), process=False)
        distance = trimesh.proximity.closest_point(mesh, known)[1]
        # Of noise in space, what is across the skin: half a normal distribution.
        assert distance.mean() == pytest.approx(scenes.DEPTH_NOISE * np.sqrt(2 / np.pi), rel=0.25)


# Anchors --------------------------------------------------------------------------------------------


def test_the_ray_anchor_ends_where_the_fingertips_touch_the_ball_best(anchors, cameras, hands, model, ball):
    """Against the distance to a ball in closed form, minimised by SciPy from many places."""
    slid = anchors.slide_to_touch(hands, cameras.object_pose, ball, model)
    before, after = model.joints(hands).double().numpy(), model.joints(slid).double().numpy()
    view = before.mean(1) - cameras.eye
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    for row in range(COUNT):
        shift = after[row] - before[row]
        along = shift @ view[row]
        np.testing.assert_allclose(shift, along[:, None] * view[row], atol=1e-5)  # along the ray as one piece

        def cost(by: float, row: int = row) -> float:
            tips = before[row, [4, 8, 12, 16, 20]] + by * view[row]
            return np.abs(np.linalg.norm(tips, axis=1) - RADIUS).mean()

        starts = np.linspace(-anchors.REACH, anchors.REACH, 31)
        best = min(minimize_scalar(cost, bounds=pair, method="bounded").fun for pair in pairwise(starts))
        assert cost(along[0]) <= best + 0.001
        assert np.abs(along).max() <= anchors.REACH + 1e-6


def test_the_ray_anchor_finds_back_from_wherever_on_the_ray(anchors, cameras, hands, model, ball):
    there = anchors.slide_to_touch(hands, cameras.object_pose, ball, model)
    again = anchors.slide_to_touch(there, cameras.object_pose, ball, model)
    torch.testing.assert_close(again.transl, there.transl, atol=2e-3, rtol=0)
    ray = torch.nn.functional.normalize(model.joints(there).mean(1) - torch.from_numpy(cameras.eye).float(), dim=1)
    for by in (-0.02, 0.01, 0.03):
        back = anchors.slide_to_touch(moved(there, by * ray), cameras.object_pose, ball, model)
        torch.testing.assert_close(back.transl, there.transl, atol=2e-3, rtol=0)


def test_the_fit_to_keypoints_lies_on_the_picture_and_knows_no_object(anchors, scenes, cameras, hands, model):
    noisy = perturb(hands, "camera", seed=1, model=model, view=cameras.view)
    truth = model.joints(hands)
    exact = project(truth, cameras.projection)
    fitted = anchors.fit_to_keypoints(noisy, cameras.object_pose, scenes.INTRINSICS, exact, model)

    def off(pose: HandPose) -> np.ndarray:
        return np.linalg.norm(project(model.joints(pose), cameras.projection) - exact, axis=2).mean(1)

    assert (off(fitted) < 0.5 * off(noisy)).all()
    assert off(fitted).mean() < 1.5
    kept = anchors.fit_to_keypoints(hands, cameras.object_pose, scenes.INTRINSICS, exact, model)
    torch.testing.assert_close(kept.transl, hands.transl, atol=1e-4, rtol=0)
