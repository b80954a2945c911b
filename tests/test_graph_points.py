"""From 29 points to hands and object poses: order of corners, sides, confidence, the picture, the object's share."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from contact.objects import ObjectMesh
from contact.objects.box import box_corners
from hand_models import HandPose, load_hand_model
from hand_models.rotations import exp_so3
from hand_models.solver.states import HandState
from pose_graph.cameras import random_rotations
from pose_graph.lifting import mirror_nodes, project
from pose_graph.network import LiftConfig, LiftNet
from refine import api
from refine.commands.cli import main
from refine.evidence.corners import box_symmetries, corner_pose
from refine.evidence.graph_points import from_graph
from refine.evidence.pose_prior import PosePrior
from refine.files.formats import read_any, sniff
from refine.files.prediction_poses import into_object_frame
from refine.files.predictions import Predictions, point_forms, row_problems

CAMERA = torch.tensor([[1395.75, 0, 960], [0, 1395.75, 540], [0, 0, 1]])
FLIP = torch.tensor([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def model():
    return load_hand_model("open")


@pytest.fixture(scope="module")
def wedge() -> ObjectMesh:
    """An object without symmetry, 7 x 10 x 12 cm."""
    vertices = np.array(
        [[-1, -1, -1], [1, -1, -1], [1, 1, -1], [-1, 1, -1], [-1, -1, 1], [0.4, -1, 1], [0.1, 0.6, 1], [-1, 0.8, 1]]
    )
    mesh = trimesh.Trimesh(vertices * [0.035, 0.05, 0.06]).convex_hull
    return ObjectMesh.from_any(mesh, resolution=40, cache=False)


def true_pose() -> HandPose:
    """A hand with its palm on the object's slanted +y face, object frame."""
    pose = HandPose.zeros(1)
    pose.hand_pose[:, :12, 2] = 0.4
    pose.transl[:] = torch.tensor([0.06, 0.06, 0.04])
    return pose


@pytest.fixture(scope="module")
def scene(model, wedge):
    """Points (29, 3) in the camera's frame, and the object's pose (4, 4)."""
    pose = torch.eye(4)
    pose[:3, :3] = random_rotations(1, torch.Generator().manual_seed(4))[0]
    pose[:3, 3] = torch.tensor([0.05, -0.04, 0.6])
    local = torch.cat([model.joints(true_pose())[0], corners_of(wedge)])
    return local @ pose[:3, :3].T + pose[:3, 3], pose


def corners_of(obj: ObjectMesh) -> torch.Tensor:
    return torch.from_numpy(box_corners(obj.vertices)).float()


def relative_error(start, model) -> torch.Tensor:
    """(B,) mean joint error in the object's frame, metres."""
    inside = into_object_frame(start.hand_pose, start.object_pose, model)
    return (model.joints(inside) - model.joints(true_pose())).norm(dim=-1).mean(1)


# Corners --------------------------------------------------------------------------------------------


def test_box_symmetries_are_a_group_of_48_that_keeps_edges():
    group = box_symmetries()
    as_set = {tuple(row) for row in group.tolist()}
    assert len(as_set) == 48
    assert group[0].tolist() == list(range(8))
    assert {tuple(group[a][group[b]].tolist()) for a in range(48) for b in (5, 17, 40)} <= as_set
    edge = torch.tensor([bin(k).count("1") == 1 for k in range(8)])
    for row in group:
        assert edge[row[0] ^ row[1]]
        assert edge[row[2] ^ row[6]]


def test_any_order_of_the_corners_gives_the_same_object_pose(scene, wedge, model):
    points, pose = scene
    shuffled = torch.stack([torch.cat([points[:21], points[21:][row]]) for row in box_symmetries()])
    start = from_graph(shuffled, wedge, hand_model=model)
    torch.testing.assert_close(start.object_pose, pose.expand(48, 4, 4), atol=2e-4, rtol=0)
    assert torch.equal(start.corner_order, box_symmetries())
    assert (relative_error(start, model) < 0.008).all()


def test_the_same_up_to_its_own_symmetry_for_a_symmetric_object(model):
    brick = ObjectMesh.from_any(trimesh.creation.box((0.06, 0.06, 0.12)), resolution=32, cache=False)
    box = corners_of(brick)
    quarter = exp_so3(torch.tensor([[0.0, 0.0, k * torch.pi / 2] for k in range(4)]))
    turns = torch.cat([quarter, quarter @ torch.diag(torch.tensor([1.0, -1.0, -1.0]))])  # of a square prism
    joints = model.joints(true_pose())[0]
    rotation = random_rotations(1, torch.Generator().manual_seed(1))[0]
    points = torch.cat([joints, box]) @ rotation.T + torch.tensor([0, 0, 0.5])
    shuffled = torch.stack([torch.cat([points[:21], points[21:][row]]) for row in box_symmetries()])
    start = from_graph(shuffled, brick, hand_model=model)
    off = rotation.T @ start.object_pose[:, :3, :3]
    nearest = (off[:, None] - turns).abs().amax((2, 3)).amin(1)
    assert (nearest < 1e-3).all()


def test_given_order_is_believed_when_asked(scene, wedge, model):
    points, pose = scene
    turned = box_symmetries()[10]
    assert turned.tolist() != list(range(8))
    shuffled = torch.cat([points[:21], points[21:][turned]])
    start = from_graph(shuffled, wedge, corner_order="given", hand_model=model)
    assert (start.object_pose[0, :3, :3] - pose[:3, :3]).abs().max() > 0.1
    straight = from_graph(points, wedge, corner_order="given", hand_model=model)
    torch.testing.assert_close(straight.object_pose[0], pose, atol=2e-4, rtol=0)


def test_two_corners_taken_for_each_other_do_little_harm(scene, wedge):
    points, pose = scene
    corners = points[None, 21:].clone()
    corners[:, [0, 7]] = corners[:, [7, 0]]
    laid = corner_pose(corners, corners_of(wedge), sigma=torch.full((1, 8), 0.01), search=False)
    assert (laid.rotation[0] - pose[:3, :3]).abs().max() < 0.02


# Hands ----------------------------------------------------------------------------------------------


def test_left_hands_are_the_mirror_image(scene, wedge, model):
    points, _ = scene
    noisy = points + 0.005 * torch.randn(3, 29, 3)
    right = from_graph(noisy, wedge, hand_model=model)
    mirrored = (noisy * FLIP)[:, mirror_nodes("left")]
    left = from_graph(mirrored, wedge.mirrored(), side="left", hand_model=model)
    assert left.hand_pose.side == "left"
    torch.testing.assert_close(model.joints(left.hand_pose), model.joints(right.hand_pose) * FLIP, atol=1e-4, rtol=0)
    turn = torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    torch.testing.assert_close(left.object_pose, turn @ right.object_pose @ turn, atol=1e-4, rtol=0)
    torch.testing.assert_close(left.joint_sigma, right.joint_sigma, atol=1e-4, rtol=0.01)


def test_missing_joints_are_filled_in(scene, wedge, model):
    points, _ = scene
    holes = points[None].clone()
    holes[:, 7:9] = torch.nan
    start = from_graph(holes, wedge, hand_model=model)
    assert start.hand_pose.finite().all()
    assert relative_error(start, model) < 0.012
    whole = from_graph(points, wedge, hand_model=model)
    assert (start.joint_sigma[0, 8] > 1.2 * whole.joint_sigma[0, 8]).all()


def test_confidence_becomes_the_noise_of_the_prior(scene, wedge, model):
    points, _ = scene
    sure = from_graph(points, wedge, confidence=torch.full((1, 29), 1.0), hand_model=model)
    unsure = from_graph(points, wedge, confidence=torch.full((1, 29), 0.1), hand_model=model)
    assert (unsure.joint_sigma > 1.5 * sure.joint_sigma).all()
    one = torch.ones(1, 29)
    one[:, 8] = 0.05
    finger = from_graph(points, wedge, confidence=one, hand_model=model)
    grown = finger.joint_sigma / sure.joint_sigma
    assert grown[0].argmax() == 8


def test_stated_noise_is_honest(scene, wedge, model):
    """Errors over many draws are of the size that the prior states."""
    points, _ = scene
    sigma = 0.006
    noisy = points + sigma * torch.randn(60, 29, 3)
    start = from_graph(noisy, wedge, sigma=torch.full((60, 29), sigma), corner_order="given", hand_model=model)
    inside = into_object_frame(start.hand_pose, start.object_pose, model)
    error = model.joints(inside) - model.joints(true_pose())
    ratio = (error.square().mean((0, 2)).sqrt() / start.joint_sigma.mean(0)).mean()
    assert 0.6 < ratio < 1.5


def test_the_picture_decides_across_the_line_of_sight(scene, wedge, model):
    """Lifted points that err in depth, with exact keypoints: hands end up on their rays."""
    points, _ = scene
    keypoints = project(points[None], CAMERA)

    class Wrong(LiftNet):
        """Lifts to the true points with 3 cm noise among them."""

        def forward(self, features):
            out = super().forward(features)
            view = module_view[0]
            truth = points[None] @ view.rotation.transpose(1, 2)
            depth = 0.085 / view.spread * out.log_depth.exp()
            base = torch.cat([view.seen, torch.ones(1, 29, 1)], 2) * depth[:, None, None]
            wrong = truth + 0.02 * torch.randn(1, 29, 3)
            return replace(out, offsets=(wrong - base) / 0.05, log_sigma=torch.full((1, 29), 0.4).log())

    from pose_graph.lifting import view_of

    module_view = [view_of(keypoints, CAMERA)]
    network = Wrong(LiftConfig(width=8, readout=8)).eval()
    start = from_graph(keypoints, wedge, cam_K=CAMERA, network=network, hand_model=model)
    raw = (start.points[:, :21] - points[:21]).norm(dim=-1).mean()
    seen = project(model.joints(start.hand_pose), CAMERA)
    assert raw > 0.02
    assert (seen - keypoints[:, :21]).norm(dim=-1).mean() < 6
    corners = corners_of(wedge) @ start.object_pose[:, :3, :3].transpose(1, 2) + start.object_pose[:, None, :3, 3]
    assert (corners - points[21:]).norm(dim=-1).mean() < 0.01


def test_a_box_that_nobody_saw_is_placed_by_the_lifted_points(scene, wedge, model):
    points, _ = scene
    keypoints = project(points[None], CAMERA)
    keypoints[:, 21:] = torch.nan
    network = LiftNet(LiftConfig(width=8, readout=8)).eval()
    start = from_graph(keypoints, wedge, cam_K=CAMERA, network=network, hand_model=model)
    assert start.object_pose.isfinite().all()
    corners = corners_of(wedge) @ start.object_pose[0, :3, :3].T + start.object_pose[0, :3, 3]
    lifted = start.points[0, 21:].mean(0)
    assert (corners.mean(0)[:2] / corners.mean(0)[2] - lifted[:2] / lifted[2]).norm() < 0.02
    assert start.joint_sigma.isfinite().all()


# Prior ----------------------------------------------------------------------------------------------


def test_prior_is_zero_at_its_mean_and_differentiates_right(model):
    mean = true_pose().retract(0.3 * torch.randn(1, 51))
    root = torch.randn(1, 51, 51)
    prior = PosePrior.from_covariance(mean, root @ root.transpose(1, 2) + 0.1 * torch.eye(51))
    (found,) = prior.linearize(HandState.of(mean, model))
    assert found.cost < 1e-10
    step = 1e-3 * torch.randn(1, 51)
    (moved,) = prior.linearize(HandState.of(mean.retract(step), model))
    expected = (found.hessian @ step[..., None])[..., 0]
    torch.testing.assert_close(moved.gradient, expected, atol=2e-4, rtol=2e-3)
    torch.testing.assert_close(moved.cost, 0.5 * (expected * step).sum(1), atol=2e-6, rtol=4e-3)


def test_prior_in_the_mirror(model):
    mean = true_pose().retract(0.3 * torch.randn(1, 51))
    root = torch.randn(1, 51, 51)
    prior = PosePrior.from_covariance(mean, root @ root.transpose(1, 2) + 0.1 * torch.eye(51))
    state = mean.retract(0.1 * torch.randn(1, 51))
    (here,) = prior.linearize(HandState.of(state, model))
    (there,) = prior.mirrored().linearize(HandState.of(state.mirrored(), model))
    torch.testing.assert_close(2 * here.cost, 2 * there.cost, rtol=1e-3, atol=1e-3)


# Refinement -----------------------------------------------------------------------------------------


def test_the_object_takes_its_share_of_the_correction(scene, wedge, model, monkeypatch):
    """The refiner knows the truth; a start that misplaced the object is mended by moving the object."""
    points, pose = scene
    wrong = points.clone()
    wrong[21:] += torch.tensor([0.0, 0.0, 0.03])
    sigma = torch.full((1, 29), 0.004)
    sigma[:, 21:] = 0.02
    start = from_graph(wrong, wedge, sigma=sigma, corner_order="given", hand_model=model)

    class Told:
        joints_after = model.joints(true_pose())
        uncertainty = np.full((1, 21), 0.002)

        def __init__(self, object_pose):
            root = model.root(true_pose())
            self.pose = true_pose().transformed(object_pose[:, :3, :3], object_pose[:, :3, 3], root)

    monkeypatch.setattr(api, "refine_grasp", lambda *a, object_pose, **k: Told(object_pose))
    hand_only = api.refine_start(start)
    both = api.refine_start(start, optimise_object=True)
    before = (hand_only.object_pose[0, :3, 3] - pose[:3, 3]).norm()
    after = (both.object_pose[0, :3, 3] - pose[:3, 3]).norm()
    assert before > 0.025
    assert after < 0.008
    assert (model.joints(both.hand_pose) - points[:21]).norm(dim=-1).mean() < 0.008
    # Hand and object lie together as the refiner said, wherever they are.
    inside = into_object_frame(both.hand_pose, both.object_pose, model)
    torch.testing.assert_close(model.joints(inside), model.joints(true_pose()), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": np.zeros((2, 21, 3))}, "expected \\(B, 29, 3\\)"),
        ({"points": np.zeros((2, 29, 2))}, "cam_K: missing"),
        ({"points": np.full((1, 29, 3), np.nan)}, "fewer than 6 joints"),
        ({"confidence": np.ones((2, 29))}, "confidence: got shape"),
        ({"confidence": -np.ones((1, 29))}, "negative"),
        ({"corner_order": "any"}, "corner_order"),
        ({"side": "both"}, "side"),
    ],
)
def test_errors_say_what_is_wrong(scene, wedge, change, message):
    with pytest.raises(ValueError, match=message):
        from_graph(**({"points": scene[0], "object_mesh": wedge} | change))


def test_millimetres_are_refused(scene, wedge):
    with pytest.raises(ValueError, match="divide millimetres"):
        from_graph(scene[0] * 1000, wedge)
    few = scene[0].clone()
    few[21:26] = torch.nan
    with pytest.raises(ValueError, match="fewer than 4 of the 8 corners"):
        from_graph(few, wedge)


# Files ----------------------------------------------------------------------------------------------


FIELDS = ("global_orient", "hand_pose", "betas", "transl")


@pytest.fixture
def graph_file(scene, wedge, tmp_path):
    """A file of one row beside a folder of meshes."""
    (tmp_path / "meshes").mkdir()
    wedge.trimesh.export(tmp_path / "meshes" / "wedge.ply")
    file = tmp_path / "keypoints.json"
    entry = {"format": "graph/1", "object_id": "wedge", "side": "right", "keypoints_3d": scene[0].tolist()}
    file.write_text(json.dumps(entry))
    return file


def rewrite(file, **change) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def test_graph_files_carry_points_and_no_poses(graph_file, scene):
    assert sniff(graph_file) == "graph"
    rows = read_any(graph_file)
    assert row_problems(rows) == {}
    np.testing.assert_allclose(rows.keypoints_3d[0], scene[0], atol=1e-6)
    assert rows.global_orient is None
    assert np.isnan(rows.object_pose).all()
    assert rows.corner_order.tolist() == ["search"]
    assert (rows.keypoint_confidence == 1).all()
    gappy = scene[0].tolist()
    gappy[3] = [None, None, None]
    rewrite(graph_file, keypoints_3d=[gappy], confidence=[[0.5] * 29], corner_order="given")
    row = json.loads(graph_file.read_text())
    seen = project(scene[0][None], CAMERA)[0].tolist()
    flat = {k: v for k, v in row.items() if k != "keypoints_3d"} | {"keypoints_2d": seen, "cam_K": CAMERA.tolist()}
    graph_file.write_text(json.dumps([row, flat]))
    rows = read_any(graph_file, source="graph")
    assert row_problems(rows) == {}
    assert point_forms(rows).tolist() == ["space", "picture"]
    few = rows.keypoints_3d.copy()
    few[0, 21:26] = np.nan
    assert list(row_problems(Predictions.from_columns(rows.columns() | {"keypoints_3d": few}))) == [0]


@pytest.mark.parametrize("target", ["grasp", "keypoints"])
def test_points_are_placed_on_the_way_to_another_format(graph_file, scene, model, target, capsys):
    points, pose = scene
    out = graph_file.with_suffix(".npz" if target == "grasp" else ".csv")
    arguments = ["convert", str(graph_file), str(out), "--to", target]
    if target != "grasp":  # which carries the points as they are
        assert main(arguments) == 2
        assert "--objects: " in capsys.readouterr().err
    rewrite(graph_file, objects="meshes")
    assert main(arguments) == 0
    rows = read_any(out)
    if target == "keypoints":
        assert (torch.from_numpy(rows.keypoints_3d[0]) - points[:21]).norm(dim=-1).mean() < 0.008
        return
    np.testing.assert_allclose(rows.object_pose[0], pose.numpy(), atol=5e-4)
    hand = HandPose.from_arrays({n: getattr(rows, n) for n in FIELDS})
    assert (model.joints(hand)[0] - points[:21]).norm(dim=-1).mean() < 0.008


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_command_refines_points_as_python_does(graph_file, scene, side, tmp_path):
    """With the same prior and the same gate, from the same object points."""
    points, _ = scene
    points = points + 0.004 * torch.randn(29, 3, generator=torch.Generator().manual_seed(2))
    if side == "left":
        points = (points * FLIP)[mirror_nodes("left")]
        mesh = trimesh.load(tmp_path / "meshes" / "wedge.ply")
        trimesh.Trimesh(mesh.vertices * [-1, 1, 1], mesh.faces[:, ::-1]).export(tmp_path / "meshes" / "wedge.ply")
    rewrite(graph_file, side=side, keypoints_3d=points.tolist())
    meshes = tmp_path / "meshes"
    assert main(["refine", str(graph_file), "--objects", str(meshes), "--out", str(tmp_path / "out")]) == 0
    rows = read_any(tmp_path / "out" / "keypoints.refined.npz")
    start = from_graph(points, meshes / "wedge.ply", side=side)
    result = api.refine_start(start).result
    assert rows.status.tolist() == [s.value for s in result.status]
    np.testing.assert_allclose(rows.score_after, result.score_after, rtol=1e-4)
    np.testing.assert_allclose(rows.object_pose, start.object_pose, atol=1e-6)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(rows, name), getattr(result.pose, name), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints_3d": [[0, 0, 0]]}, "expected \\(N, 29, 3\\)"),
        ({"colour": 1}, "'colour' is not known"),
        ({"object_id": None}, "object_id: expected a name"),
        ({"objects": "../.."}, "leaves"),
        ({"side": "middle"}, "side"),
        ({"corner_order": "any"}, "corner_order"),
        ({"confidence": [1, 2]}, "confidence has shape"),
        ({"cam_K": [1, 2]}, "cam_K has shape"),
    ],
)
def test_faulty_graph_files(change, message, graph_file):
    rewrite(graph_file, **change)
    with pytest.raises(ValueError, match=message):
        read_any(graph_file, source="graph")


def test_a_missing_mesh_is_named(graph_file, tmp_path, capsys):
    rewrite(graph_file, object_id="cup")
    out = tmp_path / "out.npz"
    assert main(["convert", str(graph_file), str(out), "--objects", str(tmp_path / "meshes")]) == 2
    assert "no mesh for object 'cup'" in capsys.readouterr().err
    assert not out.exists()
