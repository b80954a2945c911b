"""Metrics against closed forms: points moved by known amounts, spheres, boxes and slabs."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import trimesh
from scipy.integrate import trapezoid
from scipy.spatial.transform import Rotation

from contact.objects import ObjectMesh
from contact.objects.box import box_corners
from refine.measure.contact import (
    contact_f1,
    contact_precision,
    contact_ratio,
    contact_recall,
    coverage,
    penetration_depth,
)
from refine.measure.evaluate import fraction_improved
from refine.measure.joints import auc, mpcpe, mpjpe, mpjpe_procrustes, mpjpe_root_relative, mpvpe, pck, procrustes_align
from refine.measure.motion import acceleration_error, motion_consistency
from refine.measure.picture import (
    error_across_view,
    error_along_view,
    project,
    reprojection_error,
    reprojection_to_joints,
    reprojection_to_keypoints,
)
from refine.measure.simulation import convex_pieces, simulation_displacement
from refine.measure.volumes import intersection_volume, intersection_volume_voxels, penetration_depth_into_hand


def mesh_hand(mesh: trimesh.Trimesh, *shifts: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A closed mesh that stands in for the hand, once per shift: vertices (B, V, 3) and faces (F, 3)."""
    vertices = np.asarray(mesh.vertices)[None] + np.array(shifts)[:, None]
    return vertices, np.asarray(mesh.faces)


@pytest.fixture(scope="module")
def cube() -> ObjectMesh:
    """Cube of 10 cm around the origin."""
    return ObjectMesh.from_any(trimesh.creation.box((0.1, 0.1, 0.1)), resolution=48, n_points=1024, cache=False)


@pytest.fixture(scope="module")
def ball() -> ObjectMesh:
    """Ball of 4 cm radius around the origin."""
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=0.04)
    return ObjectMesh.from_any(sphere, resolution=48, n_points=512, cache=False)


@pytest.fixture
def joints() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 21, 3)) * 0.05


# ---------------------------------------------------------------- joints


def test_mpjpe_of_a_shift_is_its_length(joints):
    assert mpjpe(joints + np.array([0.003, 0, 0.004]), joints) == pytest.approx(0.005)
    assert mpvpe(torch.tensor(joints) + 0.01, torch.tensor(joints)) == pytest.approx(np.sqrt(3) * 0.01)


def test_root_relative_ignores_translation_but_not_rotation(joints):
    assert mpjpe_root_relative(joints + 0.3, joints) == pytest.approx(0, abs=1e-12)
    turned = joints @ Rotation.from_euler("z", 90, degrees=True).as_matrix().T
    expected = np.sqrt(2) * np.linalg.norm((joints - joints[:, :1])[..., :2], axis=-1).mean(axis=1)
    assert mpjpe_root_relative(turned, joints) == pytest.approx(expected)


def test_procrustes_undoes_any_similarity(joints):
    rotation = Rotation.random(5, random_state=1).as_matrix()
    moved = 1.7 * joints @ rotation.transpose(0, 2, 1) + 0.4
    assert mpjpe_procrustes(moved, joints) == pytest.approx(0, abs=1e-12)
    assert (mpjpe_procrustes(moved, joints, scale=False) > 1e-3).all()
    rigid = joints @ rotation.transpose(0, 2, 1) - 0.2
    assert mpjpe_procrustes(rigid, joints, scale=False) == pytest.approx(0, abs=1e-12)


def test_procrustes_does_not_mirror(joints):
    assert (mpjpe_procrustes(joints * [-1, 1, 1], joints) > 0.01).all()


def test_procrustes_agrees_with_scipy(joints):
    noisy = joints + np.random.default_rng(1).normal(size=joints.shape) * 0.01
    ours = procrustes_align(noisy, joints, scale=False)
    for mine, p, t in zip(ours, noisy, joints, strict=True):
        rotation, _ = Rotation.align_vectors(t - t.mean(axis=0), p - p.mean(axis=0))
        assert np.allclose(mine, rotation.apply(p - p.mean(axis=0)) + t.mean(axis=0), atol=1e-9)


def test_mpcpe_of_a_half_turn_about_the_box_axis():
    vertices = trimesh.creation.box((0.06, 0.08, 0.2)).vertices
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, :2, :2] *= -1
    corners = box_corners(vertices, poses)
    still = box_corners(vertices, np.tile(np.eye(4), (2, 1, 1)))
    assert mpcpe(corners, still) == pytest.approx([0, 0.1])
    assert np.allclose(box_corners(vertices), still[0])


def test_pck_counts_and_auc_integrates(joints):
    errors = np.array([0.0, 0.01, 0.02, 0.03, 0.06])
    moved = joints[:, :5].copy()
    moved[..., 0] += errors
    target = joints[:, :5]
    assert pck(moved, target, 0.0201) == pytest.approx(0.6)
    assert auc(moved, target, steps=20001) == pytest.approx(np.clip(1 - errors / 0.05, 0, 1).mean(), abs=1e-4)


def test_auc_is_the_trapezoid_over_pck(joints):
    moved = joints + np.random.default_rng(2).normal(size=joints.shape) * 0.02
    thresholds = np.linspace(0, 0.05, 100)
    curve = np.stack([pck(moved, joints, t) for t in thresholds])
    assert auc(moved, joints) == pytest.approx(trapezoid(curve, thresholds, axis=0) / 0.05)


def test_nan_stays_in_its_row(joints, cube):
    broken = joints.copy()
    broken[2, 4] = np.nan
    for measure in (mpjpe, mpjpe_root_relative, mpjpe_procrustes, auc):
        assert np.isnan(measure(broken, joints)).tolist() == [False, False, True, False, False]
    for on_object in (penetration_depth, contact_ratio, coverage):
        assert np.isnan(on_object(broken, cube)).tolist() == [False, False, True, False, False]


# ---------------------------------------------------------------- the picture

EYE = np.array([[0.1, -0.2, -0.7]] * 5)
PROJECTION = np.tile([[600.0, 0, 320, 0], [0, 500, 240, 0], [0, 0, 1, 0]], (5, 1, 1))


def test_a_hand_that_slides_along_its_ray_has_no_error_across(joints):
    ray = joints.mean(1) - EYE
    length = np.linalg.norm(ray, axis=1)
    slid = joints + 0.03 * (ray / length[:, None])[:, None]
    assert error_along_view(slid, joints, EYE) == pytest.approx(0.03)
    assert error_across_view(slid, joints, EYE) == pytest.approx(0, abs=1e-12)
    side = np.cross(ray, [0.3, 0.5, 0.2])
    aside = joints - 0.02 * (side / np.linalg.norm(side, axis=1, keepdims=True))[:, None]
    assert error_along_view(aside, joints, EYE) == pytest.approx(0, abs=1e-12)
    assert error_across_view(aside, joints, EYE) == pytest.approx(0.02)


def test_errors_along_and_across_are_the_two_sides_of_the_whole(joints):
    """By Pythagoras joint by joint; opposite errors do not cancel."""
    moved = joints + np.random.default_rng(3).normal(size=joints.shape) * 0.02
    for joint in range(21):
        off = moved[:, [joint]], joints[:, [joint]]
        eye = EYE - joints.mean(1) + off[1][:, 0]  # the line of sight of the whole hand
        sides = error_along_view(*off, eye) ** 2 + error_across_view(*off, eye) ** 2
        assert sides == pytest.approx(mpjpe(*off) ** 2)
    apart = joints.copy()
    apart[:, 0, 2] += 0.042
    apart[:, 1, 2] -= 0.042
    assert error_along_view(apart, joints, joints.mean(1) - [0, 0, 1]) == pytest.approx(0.004)


def test_reprojection_error_of_a_shift_is_focal_length_over_depth(joints):
    flat = joints * [1, 1, 0] + [0, 0, 0.5]
    moved = flat + np.array([0.003, 0.0048, 0])
    assert reprojection_to_joints(moved, flat, PROJECTION) == pytest.approx(6.0)  # 3.6 and 4.8 px
    assert reprojection_to_joints(1.3 * flat, flat, PROJECTION) == pytest.approx(0, abs=1e-9)  # along the rays
    assert project(np.array([[[0.1, 0.2, 0.5]]]), PROJECTION[:1]) == pytest.approx(np.array([[[440, 440]]]))


def test_missing_keypoints_are_left_out_of_the_reprojection_error(joints):
    flat = joints * [1, 1, 0] + [0, 0, 0.5]
    pixels = project(flat, PROJECTION) + np.array([3, 4])
    pixels[:, 3] += 1000
    pixels[:, 3, 1] = np.nan
    pixels[4] = np.nan
    found = reprojection_to_keypoints(flat, pixels, PROJECTION)
    assert found[:4] == pytest.approx(5.0)
    assert np.isnan(found[4])
    behind = flat.copy()
    behind[0, :, 2] = -0.5  # mirrored through the camera, it would lie in the picture
    assert np.isnan(reprojection_to_keypoints(behind, pixels, PROJECTION)).tolist() == [True] + 3 * [False] + [True]


# ---------------------------------------------------------------- penetration and contact


def test_overlap_of_two_boxes_is_exact(cube):
    hand = mesh_hand(trimesh.creation.box((0.05, 0.04, 0.03)), (0.05, 0, 0), (0, 0, 0), (0.5, 0, 0))
    expected = np.array([0.025 * 0.04 * 0.03, 0.05 * 0.04 * 0.03, 0])
    assert intersection_volume(*hand, cube) == pytest.approx(expected, rel=1e-5)
    assert intersection_volume(hand[0], hand[1][:, ::-1], cube) == pytest.approx(expected, rel=1e-5)
    assert intersection_volume_voxels(*hand, cube, pitch=0.001) == pytest.approx(expected, rel=0.05)


def test_overlap_of_two_balls_is_their_lens(ball):
    radius, apart = 0.04, 0.05
    hand = mesh_hand(trimesh.creation.icosphere(subdivisions=4, radius=radius), (apart, 0, 0))
    cap = radius - apart / 2
    lens = 2 * np.pi * cap**2 * (3 * radius - cap) / 3
    assert intersection_volume(*hand, ball) == pytest.approx(lens, rel=0.04)
    assert intersection_volume_voxels(*hand, ball) == pytest.approx(lens, rel=0.3)


def test_open_hand_mesh_falls_back_to_voxels(cube):
    vertices, faces = mesh_hand(trimesh.creation.icosphere(subdivisions=3, radius=0.02), (0, 0, 0))
    closed = intersection_volume(vertices, faces, cube)
    assert intersection_volume(vertices, faces[1:], cube) == pytest.approx(closed, rel=0.03)


def test_penetration_depth_of_a_pushed_in_point(cube):
    points = np.array([[[0.047, 0, 0], [0.2, 0, 0]], [[0.06, 0, 0], [0.2, 0, 0]]])
    assert penetration_depth(points, cube) == pytest.approx([0.003, 0], abs=2e-4)


def test_thin_object_inside_the_hand_is_seen_from_the_other_side():
    sheet = ObjectMesh.from_any(trimesh.creation.box((0.2, 0.2, 0.002)), resolution=32, n_points=4096, cache=False)
    hand = mesh_hand(trimesh.creation.icosphere(subdivisions=3, radius=0.03), (0, 0, 0.001), (0, 0, 0.05))
    depth = penetration_depth_into_hand(*hand, sheet)
    assert depth[0] == pytest.approx(0.03, abs=0.004)
    assert depth[1] == 0
    assert penetration_depth(hand[0], sheet)[0] < 0.002


def test_contact_ratio_and_coverage_count_touching_skin(cube):
    gaps = np.array([-0.01, -0.0015, 0.0, 0.0015, 0.01])
    points = np.zeros((1, 5, 3))
    points[0, :, 0] = 0.05 + gaps
    hands = np.concatenate([points, points + np.array([0.1, 0, 0])])
    assert contact_ratio(hands, cube).tolist() == [1, 0]
    assert coverage(hands, cube) == pytest.approx([0.6, 0])


def test_one_object_per_grasp(cube, ball):
    points = np.tile([[[0.045, 0.0, 0.0]]], (3, 1, 1))
    depth = penetration_depth(points, [cube, ball, cube])
    assert depth == pytest.approx([0.005, 0, 0.005], abs=3e-4)
    with pytest.raises(ValueError, match="one per grasp"):
        penetration_depth(points, [cube, ball])


def test_contact_scores_on_counted_points():
    predicted = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
    target = np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    assert contact_precision(predicted, target) == pytest.approx([2 / 3, 1, 0, 0])
    assert contact_recall(predicted, target) == pytest.approx([2 / 3, 1, 0, 1])
    assert contact_f1(predicted, target) == pytest.approx([2 / 3, 1, 0, 0])


def test_fraction_improved_is_strict_and_nan_does_not_count():
    assert fraction_improved([2.0, 2, 2, 2], [1.0, 2, 3, np.nan]) == 0.25


# ---------------------------------------------------------------- sequences


def test_acceleration_error_of_a_parabola_is_its_curvature():
    time = np.arange(8) / 30
    still = np.zeros((1, 8, 21, 3))
    falling = still.copy()
    falling[..., 2] = (-0.5 * 9.81 * time**2)[None, :, None]
    assert acceleration_error(falling, still, fps=30) == pytest.approx(9.81)
    drifting = still + np.arange(8)[None, :, None, None]
    assert acceleration_error(drifting, still) == pytest.approx(0, abs=1e-12)


def test_motion_consistency_is_zero_when_hand_and_object_move_as_one(cube):
    frames = 5
    poses = np.tile(np.eye(4), (1, frames, 1, 1))
    turns = Rotation.from_rotvec(np.linspace(0, 1, frames)[:, None] * [0.3, 0.5, 0.7])
    poses[0, :, :3, :3] = turns.as_matrix()
    poses[0, :, :3, 3] = np.linspace(0, 0.2, frames)[:, None]
    skin = np.array([[0.05, 0.01, 0.0], [0.05, -0.01, 0.02]])
    hand = skin @ poses[:, :, :3, :3].swapaxes(-1, -2) + poses[:, :, None, :3, 3]
    assert motion_consistency(hand, poses, cube) == pytest.approx(0, abs=1e-9)
    sliding = skin + np.arange(frames)[:, None, None] * [0, 0.003, 0]
    hand = sliding[None] @ poses[:, :, :3, :3].swapaxes(-1, -2) + poses[:, :, None, :3, 3]
    assert motion_consistency(hand, poses, cube) == pytest.approx(0.003)
    assert np.isnan(motion_consistency(hand + 1.0, poses, cube)).all()


# ---------------------------------------------------------------- simulation


def test_simulation_free_fall_and_rest(ball):
    pytest.importorskip("mujoco")
    pytest.importorskip("coacd")
    floor = trimesh.creation.box((0.3, 0.3, 0.02))
    hands = mesh_hand(floor, (0, 0, -0.0505), (0, 0, -5))
    moved = simulation_displacement(*hands, ball, duration=0.3)
    assert moved[0] < 0.01
    assert moved[1] == pytest.approx(0.5 * 9.81 * 0.3**2, rel=0.02)


def test_simulation_hand_of_parts_holds_a_box_from_two_sides(cube):
    pytest.importorskip("mujoco")
    pytest.importorskip("coacd")
    left = trimesh.creation.box((0.02, 0.06, 0.06)).apply_translation((-0.0595, 0, 0))
    right = trimesh.creation.box((0.02, 0.06, 0.06)).apply_translation((0.0595, 0, 0))
    both = trimesh.util.concatenate([left, right])
    parts = np.repeat([0, 1], [len(left.vertices), len(right.vertices)])
    held = simulation_displacement(np.asarray(both.vertices)[None], both.faces, cube, parts=parts, duration=0.3)
    assert held[0] < 0.02


def test_convex_pieces_cover_a_ring_closely():
    pytest.importorskip("coacd")
    pytest.importorskip("mujoco")
    ring = trimesh.creation.annulus(r_min=0.03, r_max=0.05, height=0.03)
    pieces = convex_pieces(np.asarray(ring.vertices), np.asarray(ring.faces), 16)
    hulls = [trimesh.convex.convex_hull(points).volume for points in pieces]
    assert 3 < len(pieces) <= 16
    assert ring.volume < sum(hulls) < 1.15 * ring.volume


def test_a_missing_simulation_package_says_what_to_install(ball, monkeypatch):
    monkeypatch.setitem(sys.modules, "coacd", None)
    with pytest.raises(ImportError, match=r"coacd.*pip install 'regrasp\[sim\]'"):
        simulation_displacement(np.zeros((1, 4, 3)), np.array([[0, 1, 2]]), ball)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mpjpe(np.zeros((2, 21, 3)), np.zeros((2, 20, 3))), "predicted and target"),
        (lambda: mpjpe_root_relative(np.zeros((1, 3, 3)), np.zeros((1, 3, 3)), root=5), "root"),
        (lambda: reprojection_error(np.zeros((2, 21, 2)), np.zeros((2, 21, 3))), "predicted and target"),
        (lambda: mpcpe(np.zeros((2, 7, 3)), np.zeros((2, 7, 3))), "8 corners"),
        (lambda: auc(np.zeros((1, 1, 3)), np.zeros((1, 1, 3)), largest=0), "largest"),
        (lambda: contact_f1(np.zeros(3), np.zeros(3)), r"\(B, n\)"),
        (lambda: fraction_improved(np.zeros(3), np.zeros(2)), "before and after"),
        (lambda: acceleration_error(np.zeros((1, 2, 1, 3)), np.zeros((1, 2, 1, 3))), "3 frames"),
    ],
)
def test_bad_shapes_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_hand_arrays_name_the_argument(cube):
    with pytest.raises(ValueError, match="vertices"):
        penetration_depth(np.zeros((3, 3)), cube)
    with pytest.raises(ValueError, match="faces"):
        intersection_volume(np.zeros((1, 4, 3)), np.zeros((2, 4)), cube)
    with pytest.raises(ValueError, match="pitch"):
        intersection_volume_voxels(np.zeros((1, 4, 3)), np.zeros((2, 3)), cube, pitch=0)
    with pytest.raises(ValueError, match="object_pose"):
        motion_consistency(np.zeros((1, 3, 4, 3)), np.zeros((1, 2, 4, 4)), cube)
