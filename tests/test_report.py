"""Reports on evaluations: closed forms of the numbers, hands moved by known amounts, the folder that is left."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.integrate import trapezoid

from contact.perturb import PROTOCOLS
from hand_models import HandPose
from hand_models.skeleton import JOINT_NAMES
from refine.commands import cli
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.predictions import Predictions
from refine.measure.joints import auc, joint_errors, pck_curve
from refine.measure.metrics import METRICS
from refine.measure.plots import draw_report
from refine.measure.published import PUBLISHED, published_under
from refine.measure.report import Report, coverage, error_by_stated


def report(before: np.ndarray | None, after: np.ndarray, std: np.ndarray | None = None) -> Report:
    """Of joint errors (N, 21) in millimetres, on the objects a, b, a, b, ..."""
    objects = np.array(["a", "b"] * len(after))[: len(after)]
    sides = [None if e is None else {"joint_error_mm": e, "mpjpe_mm": e.mean(1)} for e in (before, after)]
    return Report(objects, sides[1], sides[0], std)


def test_the_curve_of_correct_joints_has_the_area_of_the_metric():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(7, 21, 3))
    predicted = truth + rng.normal(scale=0.02, size=truth.shape)
    thresholds, before, after = report(None, 1000 * joint_errors(predicted, truth)).pck()
    assert before is None
    assert trapezoid(after, thresholds) / 50 == pytest.approx(auc(predicted, truth).mean(), abs=1e-9)


def test_a_constant_error_makes_the_curve_a_step():
    thresholds, _, after = report(None, np.full((3, 21), 20.0)).pck(steps=51)
    np.testing.assert_array_equal(after, thresholds >= 20)
    assert pck_curve(np.full((1, 4), 1.0), np.array([0.9, 1.0])).tolist() == [[0, 1]]


def test_lines_compare_the_same_grasps():
    before, after = np.full((5, 21), 30.0), np.tile([10.0, 20.0, 40.0, 8.0, 12.0], (21, 1)).T
    before[3] = np.nan
    after[4, 2] = np.nan
    (line,) = report(before, after).overall()
    assert (line.name, line.count, line.mean, line.median) == ("mpjpe_mm", 3, (30, 70 / 3), (30, 20))
    assert line.improved == pytest.approx(2 / 3)
    worst, best = report(before, after).by_object()
    assert (worst.name, worst.count, worst.mean[1]) == ("a", 2, 25)
    assert (best.name, best.count, best.mean[1]) == ("b", 1, 20)


def test_fingers_are_their_four_joints():
    errors = np.tile(np.arange(21.0), (4, 1))
    fingers = {line.name: line.mean for line in report(errors, errors / 2).by_finger()}
    assert fingers["wrist"] == (0, 0)
    assert fingers["thumb"] == (2.5, 1.25)
    assert fingers["pinky"] == (18.5, 9.25)
    assert [line.mean[0] for line in report(errors, errors).by_joint()] == list(range(len(JOINT_NAMES)))


def test_without_a_before_nothing_is_said_of_it():
    (line,) = report(None, np.ones((4, 21))).overall()
    assert np.isnan([line.mean[0], line.median[0], line.improved]).all()


def test_honest_deviations_lie_on_the_diagonal():
    rng = np.random.default_rng(1)
    std = rng.uniform(2, 20, 200_000)
    errors = np.linalg.norm(rng.normal(size=(len(std), 3)) * std[:, None], axis=1)
    levels, share = coverage(errors, std)
    np.testing.assert_allclose(share, levels, atol=0.005)
    stated, measured = error_by_stated(errors, std)
    np.testing.assert_allclose(measured, stated, rtol=0.02)
    assert (np.diff(stated) > 0).all()
    _, sure = coverage(errors, std / 2)
    assert (sure[1:-1] < levels[1:-1]).all()
    stated, measured = error_by_stated(errors, std / 2)
    np.testing.assert_allclose(measured, 2 * stated, rtol=0.02)


def test_only_joints_with_both_are_rated():
    std, errors = np.full((2, 21), 5.0), np.ones((2, 21))
    std[0, :3], errors[1, 0] = np.nan, np.nan
    rated, stated = report(None, errors, std).stated() or (None, None)
    assert len(rated) == len(stated) == 42 - 4
    assert report(None, errors, np.full((2, 21), np.nan)).stated() is None


def test_published_figures_are_of_known_metrics_and_protocols():
    columns = {metric.column for metric in METRICS}
    for figure in PUBLISHED:
        assert figure.metric in columns
        assert figure.noise in {"", *PROTOCOLS}
        assert figure.difference
    assert {figure.method for figure in published_under("contactopt")} == {"ContactOpt", "S2Contact", "NL2Contact"}
    assert published_under("") == published_under("none") == ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Truth, hands 40 mm off and hands 10 mm off it, on two meshes."""
    path = tmp_path_factory.mktemp("report")
    trimesh.creation.cylinder(0.034, 0.12, sections=48).export(path / "can.ply")
    trimesh.creation.icosphere(3, 0.04).export(path / "ball.ply")
    bend = torch.zeros(4, 15, 3)
    bend[:, :12, 2] = 0.5
    pose = HandPose.from_arrays({"global_orient": torch.zeros(4, 3), "hand_pose": bend,
                                 "transl": torch.tensor([-0.02, 0.065, 0.0]).repeat(4, 1)})  # fmt: skip
    truth = Predictions(object_id=np.array(["can", "ball", "can", "ball"]), side=np.array(["right"] * 4),
                        hand_model="open", **pose.as_arrays())  # fmt: skip
    for name, off in (("before", 0.04), ("after", 0.01)):
        moved = replace(truth, transl=truth.column("transl") + np.float32([0, off, 0]))
        if name == "after":
            moved = replace(moved, uncertainty=np.full((4, 21), 0.005, np.float32),
                            status=np.array(["refined"] * 4)).take(np.array([2, 0, 3, 1]))  # fmt: skip
        write_predictions(path / f"{name}.npz", moved)
    write_predictions(path / "truth.npz", truth)
    return path


def run(folder: Path, *more: str) -> int:
    common = ["--reference", str(folder / "truth.npz"), "--objects", str(folder)]
    return cli.main(["eval", str(folder / "after.npz"), *common, *more])


def test_the_command_leaves_a_report(folder, tmp_path, capsys):
    out = tmp_path / "report"
    assert run(folder, "--report", str(out), "--before", str(folder / "before.npz"), "--noise", "toch-b1") == 0
    assert "report.md" in capsys.readouterr().out
    with open(out / "figures.csv", newline="") as stream:
        lines = list(csv.DictReader(stream))
    rows = {(row["group"], row["name"]): row for row in lines}
    for key in (("metric", "mpjpe_mm"), ("object", "can"), ("finger", "index"), ("joint", "thumb_tip")):
        assert float(rows[key]["mean_before"]) == pytest.approx(40, abs=0.01)
        assert float(rows[key]["mean_after"]) == pytest.approx(10, abs=0.01)
        assert float(rows[key]["improved"]) == 1
    with open(out / "grasps.csv", newline="") as stream:
        grasps = list(csv.DictReader(stream))
    assert [row["frame_id"] for row in grasps] == ["2", "0", "3", "1"]
    assert {row["object_id"] for row in grasps[:2]} == {"can"}
    assert all(float(row["mpjpe_mm_before"]) == pytest.approx(40, abs=0.01) for row in grasps)
    page = (out / "report.md").read_text()
    assert "4 of 4 grasps measured. Status: 4 refined." in page
    assert "| this file, `toch-b1` |  | mpjpe_mm | 40 → 10 |" in page
    assert "| TOCH (Zhou et al., ECCV 2022) | GRAB, B 0.01, 0.3 | mpjpe_mm | 17.3 → 10.3 |" in page


def test_mistakes_are_told_before_anything_is_written(folder, tmp_path, capsys):
    out = tmp_path / "report"
    assert run(folder, "--noise", "contactopt") == 2
    assert "--noise: is for the report; give its folder with --report" in capsys.readouterr().err
    assert run(folder, "--report", str(out), "--noise", "toch") == 2
    assert "'toch' is unknown; choose one of contactopt" in capsys.readouterr().err
    (trimesh.creation.box((0.1, 0.1, 0.1))).export(folder / "box.ply")
    other = replace(read_predictions(folder / "before.npz"), object_id=np.array(["box"] * 4))
    write_predictions(tmp_path / "other.npz", other)
    assert run(folder, "--report", str(out), "--before", str(tmp_path / "other.npz")) == 2
    assert "no row has the frame, object and side" in capsys.readouterr().err
    twice = read_predictions(folder / "before.npz").take(np.array([0, 1, 2, 3, 0]))
    write_predictions(tmp_path / "twice.npz", twice)
    assert run(folder, "--report", str(out), "--before", str(tmp_path / "twice.npz")) == 2
    assert "--before: rows 0 and 4 are the same hand" in capsys.readouterr().err
    broken = read_predictions(folder / "before.npz")
    write_predictions(tmp_path / "nan.npz", replace(broken, transl=np.full((4, 3), np.nan, np.float32)))
    assert run(folder, "--report", str(out), "--before", str(tmp_path / "nan.npz")) == 2
    assert "no row has a usable hand here" in capsys.readouterr().err
    assert not out.exists()


def test_pictures_are_drawn_of_what_is_there(tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    errors = np.random.default_rng(2).gamma(4.0, 5.0, (9, 21))
    names = {path.stem for path in draw_report(report(2 * errors, errors, np.full((9, 21), 12.0)), tmp_path)}
    assert names == {"pck", "histograms", "fingers", "joints", "objects", "reliability"}
    assert {path.stem for path in tmp_path.glob("*.svg")} == names
    assert all(path.read_text(encoding="utf-8").rstrip().endswith("</svg>") for path in tmp_path.glob("*.svg"))
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    one = replace(report(None, errors), object_id=np.array(["a"] * 9))
    assert {path.stem for path in draw_report(one, tmp_path / "one")} == {"pck", "histograms", "fingers", "joints"}


def test_a_report_without_matplotlib_has_no_pictures(folder, tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = sys.modules['matplotlib.figure'] = None\n"
        "from refine.commands.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "report"
    command = ["eval", folder / "after.npz", "--reference", folder / "truth.npz", "--objects", folder, "--report", out]
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no pictures: plots need matplotlib: pip install 'regrasp[plots]'" in done.stderr
    assert "## Pictures" not in (out / "report.md").read_text()
    assert list(out.glob("*.png")) == []
