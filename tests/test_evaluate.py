"""Evaluation: figures against hands moved by known amounts, frames, result columns, rows that cannot be used."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from contact import weights as shipped
from contact.network import ContactNet, NetworkConfig
from contact.objects import ObjectMesh
from contact.weights import save_weights
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.rotations import exp_so3
from refine.commands import cli
from refine.commands.eval import matched_rows
from refine.files.object_files import ObjectEntry, find_objects
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.predictions import Predictions
from refine.files.status import Status
from refine.measure.contact import contact_ratio, penetration_depth
from refine.measure.evaluate import evaluate_predictions, measure_rows
from refine.measure.joints import auc, mpjpe, mpjpe_procrustes
from refine.measure.metrics import METRICS
from refine.measure.volumes import intersection_volume

ROWS = 6
PHYSICAL = ("penetration_mm", "crossing_mm", "volume_cm3", "contact_ratio")


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Meshes of a can and a ball."""
    path = tmp_path_factory.mktemp("objects")
    trimesh.creation.cylinder(0.034, 0.12, sections=48).export(path / "can.ply")
    trimesh.creation.icosphere(3, 0.04).export(path / "ball.ply")
    return path


@pytest.fixture(scope="module")
def objects(folder) -> dict[str, ObjectEntry]:
    return find_objects(folder)


def hands(side: str, count: int, seed: int) -> HandPose:
    """Half-closed hands near the origin, some of them in it."""
    g = torch.Generator().manual_seed(seed)
    bend = torch.zeros(count, 15, 3)
    bend[:, :12, 2] = 0.5 + 0.1 * torch.randn(count, 12, generator=g)
    transl = torch.tensor([-0.02, 0.065, 0.0]) + 0.015 * torch.randn(count, 3, generator=g)
    pose = HandPose("right", 0.2 * torch.randn(count, 3, generator=g), bend, torch.zeros(count, 10), transl)
    return pose if side == "right" else pose.mirrored()


@pytest.fixture(scope="module")
def truth() -> Predictions:
    """Right and left hands on two objects, mixed, object frame."""
    right, left = hands("right", ROWS // 2, 0).as_arrays(), hands("left", ROWS // 2, 1).as_arrays()
    order = np.array([0, 3, 1, 4, 2, 5])
    return Predictions(
        object_id=np.array(["can", "ball", "can", "can", "ball", "ball"]),
        side=np.array(["right", "left"] * (ROWS // 2)),
        hand_model="open",
        **{name: np.concatenate([right[name], left[name]])[order] for name in right},
    )


def shifted(p: Predictions, by: tuple[float, float, float]) -> Predictions:
    return replace(p, transl=p.column("transl") + np.array(by, np.float32))


def pose_of(p: Predictions, row: int) -> HandPose:
    return HandPose.from_arrays(
        {n: getattr(p, n)[row] for n in ("global_orient", "hand_pose", "betas", "transl")}, side=str(p.side[row])
    )


def test_a_perfect_file_has_no_error(truth, objects, model):
    figures = evaluate_predictions(truth, truth, objects, model)
    assert figures["rows_measured"] == ROWS
    assert figures["rows_unusable"] == 0
    for name in ("mpjpe_mm", "mpjpe_root_relative_mm", "mpjpe_procrustes_mm", "mpvpe_mm"):
        assert figures[name] == pytest.approx(0.0, abs=1e-4)
    assert figures["auc_50mm"] == pytest.approx(1.0)
    assert figures["pck_20mm"] == figures["pck_50mm"] == 1.0
    for name in PHYSICAL:
        assert figures[name] == pytest.approx(figures[f"reference_{name}"])
    assert all(isinstance(v, int | float) for v in figures.values())
    assert not any(name.startswith("fraction_") for name in figures)  # no results, nothing to say of them


def test_a_shift_is_an_absolute_error_only(truth, objects, model):
    rows = measure_rows(shifted(truth, (0.0, 0.03, 0.04)), truth, objects, model)
    np.testing.assert_allclose(rows["mpjpe_mm"], 50.0, atol=1e-3)
    np.testing.assert_allclose(rows["mpvpe_mm"], 50.0, atol=1e-3)
    np.testing.assert_allclose(rows["mpjpe_root_relative_mm"], 0.0, atol=1e-3)
    np.testing.assert_allclose(rows["mpjpe_procrustes_mm"], 0.0, atol=1e-3)
    assert (rows["pck_20mm"] == 0).all()


def test_rows_are_those_of_the_metrics_module(truth, objects, model):
    moved = shifted(truth, (0.0, -0.01, 0.0))
    bent = replace(moved, hand_pose=moved.column("hand_pose") * np.float32(1.1))
    rows = measure_rows(bent, truth, objects, model)
    meshes = {name: ObjectMesh.from_any(entry.path) for name, entry in objects.items()}
    for row in range(ROWS):
        found, wanted = model(pose_of(bent, row)), model(pose_of(truth, row))
        mesh, faces = meshes[truth.object_id[row]], model.faces_for(str(truth.side[row]))
        expected = {
            "mpjpe_mm": 1e3 * mpjpe(found.joints, wanted.joints),
            "mpjpe_procrustes_mm": 1e3 * mpjpe_procrustes(found.joints, wanted.joints),
            "auc_50mm": auc(found.joints, wanted.joints),
            "penetration_mm": 1e3 * penetration_depth(found.vertices, mesh),
            "volume_cm3": 1e6 * intersection_volume(found.vertices, faces, mesh),
            "contact_ratio": contact_ratio(found.vertices, mesh),
            "reference_volume_cm3": 1e6 * intersection_volume(wanted.vertices, faces, mesh),
        }
        for name, value in expected.items():
            assert rows[name][row] == pytest.approx(float(value[0]), rel=1e-3, abs=1e-3), name


def test_figures_are_means_and_medians_over_rows(truth, objects, model):
    moved = replace(truth, transl=truth.column("transl").copy())
    moved.transl[:, 0] += np.array([0, 1, 2, 3, 4, 20], np.float32) / 1000
    figures = evaluate_predictions(moved, truth, objects, model)
    assert figures["mpjpe_mm"] == pytest.approx(5.0, abs=1e-3)
    assert figures["mpjpe_mm_median"] == pytest.approx(2.5, abs=1e-3)


# Frames ---------------------------------------------------------------------------------------------


def in_camera(p: Predictions, model: HandModel, shift: float = 0.0) -> Predictions:
    """The same grasps before a camera; ``shift`` moves hand and object together."""
    rotation, translation = exp_so3(torch.tensor([0.4, -0.8, 0.3])), torch.tensor([0.05, 0.0, 0.6 + shift])
    rows = [pose_of(p, row) for row in range(len(p))]
    rows = [r.transformed(rotation, translation, model.root(r)).as_arrays() for r in rows]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation.numpy(), translation.numpy()
    return replace(
        p, object_pose=np.tile(matrix, (len(p), 1, 1)),
        **{n: np.concatenate([r[n] for r in rows]) for n in ("global_orient", "transl")},
    )  # fmt: skip


def test_camera_frames_are_compared_as_they_are(truth, objects, model):
    seen, deeper = in_camera(truth, model), in_camera(truth, model, 0.02)
    same = evaluate_predictions(seen, seen, objects, model)
    assert same["mpjpe_mm"] == pytest.approx(0.0, abs=1e-3)
    assert same["mpcpe_mm"] == pytest.approx(0.0, abs=1e-3)
    off = evaluate_predictions(deeper, seen, objects, model)
    assert off["mpjpe_mm"] == pytest.approx(20.0, abs=1e-2)
    assert off["mpcpe_mm"] == pytest.approx(20.0, abs=1e-2)
    for name in PHYSICAL:  # the grasp itself is the same
        assert off[name] == pytest.approx(off[f"reference_{name}"], rel=2e-3, abs=1e-3)


def test_one_camera_frame_is_turned_into_the_objects(truth, objects, model):
    rows = measure_rows(in_camera(truth, model), truth, objects, model)
    np.testing.assert_allclose(rows["mpjpe_mm"], 0.0, atol=1e-2)
    assert "mpcpe_mm" not in rows


# The picture ----------------------------------------------------------------------------------------

CAMERA = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], np.float32)
SEEN = [metric for metric in METRICS if metric.unit == "px" or "_view" in metric.name]


def pixels_of(p: Predictions, model: HandModel) -> np.ndarray:
    seen = joints_of(p, model) @ CAMERA.T
    return seen[..., :2] / seen[..., 2:]


def slid(p: Predictions, model: HandModel, by: float) -> Predictions:
    """Hands moved along the line of sight; the object stays."""
    ray = joints_of(p, model).mean(1)
    return replace(p, transl=p.column("transl") + by * ray / np.linalg.norm(ray, axis=1, keepdims=True))


@pytest.mark.parametrize("which", ["both", "predictions", "reference"])
def test_errors_are_split_along_the_line_of_sight_whichever_file_has_the_camera(truth, objects, model, which):
    seen = in_camera(truth, model)
    there = slid(seen, model, 0.03)
    predicted, true = there, seen
    if which == "predictions":
        true = truth
    if which == "reference":
        poses = seen.column("object_pose")[:, :3, :3].astype(np.float64)
        by = np.einsum("nji,nj->ni", poses, there.column("transl") - seen.column("transl"))
        predicted = replace(truth, transl=truth.column("transl") + by)
    rows = measure_rows(predicted, true, objects, model, SEEN)
    np.testing.assert_allclose(rows["along_view_mm"], 30.0, atol=2e-2)
    np.testing.assert_allclose(rows["across_view_mm"], 0.0, atol=2e-2)
    assert "reprojection_truth_px" not in rows  # without intrinsics there is no picture
    # A file that has intrinsics besides: the hand grows or shrinks on the picture.
    rows = measure_rows(predicted, replace(true, cam_K=CAMERA), objects, model, SEEN)
    expected = np.linalg.norm(pixels_of(there, model) - pixels_of(seen, model), axis=2).mean(1)
    assert (expected > 1).all()
    np.testing.assert_allclose(rows["reprojection_truth_px"], expected, atol=2e-2)
    assert "reprojection_px" not in rows


def test_keypoints_of_the_file_are_measured_against_too(truth, objects, model):
    seen = replace(in_camera(truth, model), cam_K=CAMERA)
    pixels = pixels_of(seen, model) + np.array([3, -4], np.float32)
    pixels[:, 5], pixels[1] = 1000, np.nan
    trust = np.ones((ROWS, 21))
    trust[:, 5] = 0
    predicted = replace(seen, keypoints_2d=pixels, keypoint_confidence=trust)
    rows = measure_rows(predicted, seen, objects, model, SEEN)
    np.testing.assert_allclose(np.delete(rows["reprojection_px"], 1), 5.0, atol=1e-2)
    assert np.isnan(rows["reprojection_px"][1])
    np.testing.assert_allclose(rows["reprojection_truth_px"], 0.0, atol=1e-2)


# Joints in place of poses ---------------------------------------------------------------------------


def joints_of(p: Predictions, model: HandModel) -> np.ndarray:
    return np.concatenate([model.joints(pose_of(p, row)).numpy() for row in range(len(p))])


def test_reference_joints_stand_for_a_missing_pose(truth, objects, model):
    keypoints = joints_of(truth, model)
    bare = Predictions(truth.object_id, truth.side, "open", keypoints_3d=keypoints + np.float32([0.01, 0, 0]))
    rows = measure_rows(truth, bare, objects, model)
    np.testing.assert_allclose(rows["mpjpe_mm"], 10.0, atol=1e-3)  # exactly theirs, not the fitted hand's
    assert "mpvpe_mm" not in rows
    assert "mpjpe_keypoints_mm" not in rows
    back = measure_rows(bare, truth, objects, model)
    np.testing.assert_allclose(back["mpjpe_mm"], 10.0, atol=1e-3)
    assert np.isfinite(back["penetration_mm"]).all()


def test_measured_joints_beside_a_pose_are_measured_against_too(truth, objects, model):
    beside = replace(truth, keypoints_3d=joints_of(truth, model) + np.array([0, 0.002, 0], np.float32))
    beside.keypoints_3d[2] = np.nan
    figures = evaluate_predictions(truth, beside, objects, model)
    assert figures["mpjpe_mm"] == pytest.approx(0.0, abs=1e-4)
    assert figures["mpjpe_keypoints_mm"] == pytest.approx(2.0, abs=1e-3)
    # The prediction's own keypoints are what its pose came from, and do not count.
    other = replace(truth, keypoints_3d=joints_of(truth, model) + np.float32(0.1))
    assert evaluate_predictions(other, truth, objects, model)["mpjpe_mm"] == pytest.approx(0.0, abs=1e-4)


# Results and unusable rows --------------------------------------------------------------------------


def test_result_columns_are_summed_up(truth, objects, model):
    values = np.array([5, 5, 5, 5, 5, np.nan], np.float32)
    results = replace(
        truth, status=np.array(["refined", "refined", "refined", "kept", "refined", "failed"]),
        penetration_mm_before=values, penetration_mm_after=np.array([1, 2, 6, 5, 4, 0], np.float32),
        volume_cm3_before=values, volume_cm3_after=values - 1, contact_ratio_before=np.ones(ROWS),
        contact_ratio_after=np.ones(ROWS), reprojection_px_before=values, reprojection_px_after=values * 2,
        score_before=values, score_after=values + 1,
        uncertainty=np.full((ROWS, 21), 0.01 / 3**0.5, np.float32),
    )  # fmt: skip
    figures = evaluate_predictions(shifted(results, (0.0, 0.02, 0.0)), truth, objects, model)
    assert figures["fraction_refined"] == pytest.approx(4 / 6)
    assert figures["fraction_kept"] == figures["fraction_failed"] == pytest.approx(1 / 6)
    assert figures["penetration_mm_before"] == 5.0
    assert figures["fraction_improved_penetration_mm"] == pytest.approx(3 / 5)
    assert figures["fraction_improved_volume_cm3"] == 1.0
    assert figures["reprojection_px_before"] == 5.0
    assert figures["fraction_improved_reprojection_px"] == 0.0
    assert figures["fraction_improved_score"] == 1.0  # more is better
    assert figures["contact_ratio_before"] == 1.0
    assert figures["joint_error_in_std"] == pytest.approx(2.0, rel=1e-3)  # 20 mm where 10 mm were expected


def test_a_metric_is_left_out_where_it_lacks_something(truth, objects, model):
    """Every row of the table is measured as soon as its needs are there, under its own name and unit."""
    seen = in_camera(replace(truth, keypoints_3d=joints_of(truth, model)), model)
    pixels = np.zeros((ROWS, 21, 2))
    full = replace(seen, cam_K=CAMERA, keypoints_2d=pixels, uncertainty=np.full((ROWS, 21), 0.01, np.float32))
    assert set(measure_rows(full, seen, objects, model)) == {metric.column for metric in METRICS}
    bare = measure_rows(truth, truth, objects, model)
    needs = {"predicted.corners", "true.keypoints", "joint_std", "eye", "projection"}
    assert set(bare) == {metric.column for metric in METRICS if not needs & set(metric.needs)}


def test_the_docs_say_what_every_metric_is():
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    assert [metric.column for metric in METRICS if f"`{metric.column}`" not in page] == []


def test_unusable_rows_are_left_out_and_counted(truth, objects, model):
    broken = replace(truth, transl=truth.column("transl").copy())
    broken.transl[1] = np.nan
    reference = replace(truth, hand_pose=truth.column("hand_pose").copy())
    reference.hand_pose[4, 2, 1] = np.inf
    rows = measure_rows(broken, reference, objects, model)
    assert np.flatnonzero(np.isnan(rows["mpjpe_mm"])).tolist() == [1, 4]
    figures = evaluate_predictions(broken, reference, objects, model)
    assert (figures["rows_measured"], figures["rows_unusable"]) == (4, 2)
    with pytest.raises(ValueError, match="predictions: no row has a usable hand"):
        evaluate_predictions(broken.take([1]), truth.take([1]), objects, model)


def test_points_that_were_not_placed_are_not_measured(truth, objects, model):
    poses = np.tile(np.eye(4), (len(truth), 1, 1))
    reference = replace(truth, object_pose=poses)
    nowhere, points = poses.copy(), np.zeros((len(truth), 29, 3))
    points[3, 8] = np.nan
    nowhere[3] = np.nan
    lifted = replace(reference, transl=truth.column("transl").copy(), object_pose=nowhere, keypoints_3d=points)
    lifted.transl[3] = np.nan
    rows = measure_rows(lifted, reference, objects, model)
    assert np.flatnonzero(np.isnan(rows["mpjpe_mm"])).tolist() == [3]


def test_files_that_do_not_belong_together_are_refused(truth, objects, model):
    with pytest.raises(ValueError, match="reference: 5 rows for 6 predictions"):
        measure_rows(truth, truth.take(slice(5)), objects, model)
    with pytest.raises(ValueError, match="reference: row 1 is of another object or side"):
        measure_rows(truth.take([0, 1]), truth.take([0, 3]), objects, model)
    with pytest.raises(FileNotFoundError, match="objects: no mesh for object 'ball'; the objects are can"):
        measure_rows(truth, truth, {"can": objects["can"]}, model)


# The command and the benchmark ----------------------------------------------------------------------


def test_the_command_prints_and_writes_the_figures(truth, folder, tmp_path, capsys):
    moved = write_predictions(tmp_path / "moved.npz", shifted(truth, (0.0, 0.003, 0.0)).take([3, 0, 5]))
    true = write_predictions(tmp_path / "true.npz", truth)
    out = tmp_path / "figures.json"
    arguments = ["eval", str(moved), "--reference", str(true), "--objects", str(folder), "--out", str(out)]
    assert cli.main(arguments) == 0
    figures = json.loads(out.read_text())
    assert figures["rows"] == 3
    assert figures["mpjpe_mm"] == pytest.approx(3.0, abs=1e-3)
    printed = capsys.readouterr().out
    assert "mpjpe_mm" in printed
    lines = [line.split()[0] for line in printed.splitlines()]
    # Volume means little without contact: they stand together.
    assert abs(lines.index("volume_cm3") - lines.index("contact_ratio")) == 1


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("real_grasps")


def test_the_benchmark_says_when_there_are_no_grasps(benchmark, monkeypatch, tmp_path):
    monkeypatch.setenv("REGRASP_REAL_DATA", str(tmp_path))
    assert benchmark.validation_folder() is None
    assert benchmark.benchmark(quick=True, method="regrasp") is None


@pytest.mark.slow
def test_the_benchmark_runs_on_the_validation_grasps(benchmark, validation_folder, monkeypatch, tmp_path):
    torch.manual_seed(0)
    network = ContactNet(NetworkConfig(fine=8, middle=8, token=16, layers=1, heads=2))
    monkeypatch.setattr(shipped, "DEFAULT", save_weights(network, {}, tmp_path / "tiny.safetensors"))
    monkeypatch.setenv("REGRASP_REAL_DATA", str(validation_folder))
    monkeypatch.setattr(benchmark, "QUICK_EVERY", 40)
    kept = tmp_path / "kept"
    figures = benchmark.benchmark(quick=True, method="regrasp", kept=kept)
    assert figures["grasps"] == 8
    reference = read_predictions(kept / "reference.npz")
    for name in ("contactopt", "camera"):
        refined = read_predictions(kept / "refined" / f"{name}.refined.npz")
        here, there = matched_rows(refined, reference)
        assert here.tolist() == there.tolist() == list(range(8))
    assert 50 < figures["contactopt_mpjpe_before_mm"] < 110
    assert figures["none_mpjpe_before_mm"] < 0.1
    assert abs(figures["none_measured_mpjpe_before_mm"]) < 2.0  # how well hands were fitted to the joints
    assert figures["none_mpjpe_change_mm"] == figures["none_mpjpe_after_mm"]
    assert 0 <= figures["contactopt_fraction_improved"] <= 1
    for name in ("contactopt", "camera", "camera_keypoints", "camera_depth_points"):
        assert sum(figures[f"{name}_{status.value}"] for status in Status) == 8
        assert figures[f"{name}_failed"] == 0
    for name in ("camera", "camera_keypoints", "camera_depth_points", "camera_ray", "camera_keypoints_fit"):
        assert figures[f"{name}_mpjpe_before_mm"] == figures["camera_mpjpe_before_mm"]  # the same hands
        for measure in ("mpjpe_{}_mm", "along_{}_mm", "across_{}_mm", "reprojection_px_{}"):
            assert figures[f"{name}_{measure.format('after')}"] > 0
        assert 0 <= figures[f"{name}_fraction_improved"] <= 1
    assert figures["camera_along_before_mm"] > 3 * figures["camera_across_before_mm"]
    assert figures["camera_ray_across_after_mm"] == pytest.approx(figures["camera_across_before_mm"], rel=0.05)
    assert figures["camera_keypoints_fit_reprojection_px"] < figures["camera_reprojection_px_before"]
    json.dumps(figures, allow_nan=False)
