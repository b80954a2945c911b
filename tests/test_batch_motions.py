"""Files with motions: which rows belong together, gaps in them, and what goes on frame by frame."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from batch_fakes import fake_refine, predictions, small_box, tiny_hand
from motion_scene import HELD, motion_scene

from contact.perturb import perturb
from hand_models import HandPose
from refine.batch import rows
from refine.batch.motions import motions, refine_motion
from refine.commands import cli
from refine.config import RefineConfig
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.predictions import Predictions

OBJECTS = {"cup": None, "box": None}


def filed(count: int = 8) -> Predictions:
    """Two motions of three and four frames, the first in reverse order, and a row of no motion."""
    p = predictions(count)
    names = np.array(["a"] * 3 + ["b"] * 4 + [""])
    return replace(
        p,
        object_id=np.array(["cup"] * count),
        side=np.array(["right"] * count),
        sequence_id=names,
        frame_index=np.array([2, 1, 0, 0, 1, 2, 3, 0]),
    )


def test_rows_of_a_motion_are_put_in_order() -> None:
    p = filed()
    assert [m.tolist() for m in motions(p, {})] == [[2, 1, 0], [3, 4, 5, 6]]
    assert [m.tolist() for m in motions(p, {0: "far"})] == [[3, 4, 5, 6]]  # two are no motion
    assert [m.tolist() for m in motions(p, {5: "NaN"})] == [[2, 1, 0], [3, 4, 5, 6]]  # missing in between
    assert [m.tolist() for m in motions(p, {6: "NaN"})] == [[2, 1, 0], [3, 4, 5]]  # after the last there is nothing
    other = replace(p, side=np.array(["right"] * 5 + ["left"] * 3))
    assert [m.tolist() for m in motions(other, {})] == [[2, 1, 0]]
    late = replace(p, frame_index=np.array([2, 1, 0, 0, 1, 2, 90, 0]))
    assert [m.tolist() for m in motions(late, {})] == [[2, 1, 0], [3, 4, 5]]  # what comes much later is not of it
    relative = replace(p, metric_depth=np.array([False] * 3 + [True] * 5))
    assert [m.tolist() for m in motions(relative, {})] == [[3, 4, 5, 6]]


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "load_object", lambda entry, side: small_box())


class Recorder:
    """A stand-in for `refine_motion` that lifts hands by a centimetre and refuses motions called ``bad``."""

    def __init__(self, bad: str = "") -> None:
        self.bad, self.seen = bad, []

    def __call__(self, frames: Predictions, mesh: Any, model: Any) -> Any:
        from types import SimpleNamespace

        from hand_models import HandPose
        from refine.files.status import Status

        if frames.sequence_id[0] == self.bad:
            raise ValueError("no such motion")
        self.seen.append(frames.frame_index.tolist())
        pose = HandPose.from_arrays({n: frames.column(n) for n in ("global_orient", "hand_pose", "betas", "transl")})
        lifted = replace(pose, transl=pose.transl.nan_to_num() + 0.01)
        gone = (~np.isfinite(frames.transl).all(1)).tolist()
        status = [Status.FILLED if missing else Status.REFINED for missing in gone]
        whole = lifted.map(lambda t: t.nan_to_num())
        return SimpleNamespace(
            pose=whole,
            status=status,
            uncertainty=np.full((len(gone), 21), 0.002, np.float32),
            holding=torch.full((len(gone),), 0.25),
        )


def test_motions_are_refined_whole_and_the_rest_by_itself(no_files: None) -> None:
    p = filed()
    p.transl[5] = np.nan
    refine, done = Recorder(), []
    out = rows.refine_rows(p, OBJECTS, tiny_hand(), fake_refine, refine_motion=refine, progress=done.append)
    assert refine.seen == [[0, 1, 2], [0, 1, 2, 3]]
    assert sum(done) == len(p)
    assert out.status.tolist() == ["refined"] * 5 + ["filled", "refined", "refined"]
    assert out.reason.tolist() == [""] * 8
    np.testing.assert_allclose(out.transl[:5], p.transl[:5] + 0.01, atol=1e-6)
    assert np.isfinite(out.transl).all()
    assert out.uncertainty[:7].max() == pytest.approx(0.002)
    assert out.holding_probability[:7].tolist() == [0.25] * 7
    assert out.steps[7] == 9  # by the refiner of single frames
    assert out.sequence_id.tolist() == p.sequence_id.tolist()


def test_a_motion_that_cannot_be_goes_on_frame_by_frame(no_files: None) -> None:
    p = filed()
    p.transl[5] = np.nan
    out = rows.refine_rows(p, OBJECTS, tiny_hand(), fake_refine, refine_motion=Recorder("b"))
    assert out.status.tolist() == ["refined"] * 5 + ["failed", "refined", "refined"]
    assert "transl" in out.reason[5] or "pose" in out.reason[5]


def test_without_a_refiner_of_motions_rows_are_single(no_files: None) -> None:
    out = rows.refine_rows(filed(), OBJECTS, tiny_hand(), fake_refine)
    assert out.steps.tolist() == [9] * 8


def test_frames_of_a_file_are_what_refine_sequence_takes() -> None:
    """Confidence 0 is a frame that is missing; two input errors in one motion are refused."""
    scene, count = motion_scene(), 12
    noisy = perturb(scene.pose[:count], "toch-r5", seed=0)
    frames = Predictions(
        np.array(["box"] * count),
        np.array(["right"] * count),
        "open",
        **noisy.as_arrays(),
        object_pose=scene.object_poses[:count].numpy(),
        confidence=np.array([1.0, 1, 1, 1, 0] + [1.0] * (count - 5)),
        holding=np.array([0.0, 0.0] + [np.nan] * (count - 2)),
    )
    result = refine_motion(frames, scene.mesh, scene.model, RefineConfig())
    assert [s.value for s in result.status].index("filled") == 4
    assert (result.holding[:2] == 0).all()
    assert result.holding[2] > 0
    assert torch.equal(result.initial_pose.transl[:4], noisy.transl[:4])
    named = replace(frames, input_error=np.array(["image"] * 6 + ["camera"] * 6))
    with pytest.raises(ValueError, match="input_error"):
        refine_motion(named, scene.mesh, scene.model, RefineConfig())


def test_pictures_that_have_nothing_to_do_with_one_another_are_no_motion() -> None:
    scene, count = motion_scene(), 8
    generator = torch.Generator().manual_seed(0)
    pose = scene.pose[torch.arange(count)]
    pose = replace(pose, transl=pose.transl + 0.4 * torch.randn(count, 3, generator=generator))
    frames = Predictions(np.array(["box"] * count), np.array(["right"] * count), "open", **pose.as_arrays())
    with pytest.raises(ValueError, match=r"cm and .*no-sequences"):
        refine_motion(frames, scene.mesh, scene.model, RefineConfig())


def test_a_file_of_a_motion_is_refined_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line: frames in any order, one missing, one of no motion; pages, and measures over time."""
    scene, count = motion_scene(), 14
    start = HELD.start - 4
    true, poses = scene.pose[start : start + count], scene.object_poses[start : start + count].numpy()
    order = np.random.default_rng(0).permutation(count)

    def rows_of(pose: HandPose) -> Predictions:
        arrays = {name: value[order] for name, value in pose.as_arrays().items()}
        return Predictions(
            np.array(["box"] * count), np.array(["right"] * count), "open", **arrays, object_pose=poses[order],
            input_error=np.array(["image"] * count), sequence_id=np.array(["lift"] * count), frame_index=order,
        )  # fmt: skip

    noisy = perturb(true, "image", seed=3)
    noisy.transl[6] = torch.nan
    (tmp_path / "meshes").mkdir()
    trimesh.creation.box((0.10, 0.06, 0.08)).export(tmp_path / "meshes" / "box.obj")
    given, truth, out = tmp_path / "p.npz", tmp_path / "truth.npz", tmp_path / "out"
    write_predictions(given, rows_of(noisy))
    write_predictions(truth, rows_of(true))
    options = ["--objects", str(tmp_path / "meshes"), "--hand-model", "open"]
    arguments = ["refine", str(given), *options, "--out", str(out), "--report", "--report-rows", "0"]
    assert cli.main(arguments) == 0
    refined = read_predictions(out / "p.refined.npz")
    assert refined.frame_index.tolist() == order.tolist()
    assert refined.status[order.tolist().index(6)] == "filled"
    assert (refined.holding_probability >= 0).all()
    assert len(list((out / "p.report" / "rows").glob("*.npz"))) == count
    (playing,) = (out / "p.report" / "motions").glob("*.html")
    assert f'"motions":[{int(playing.stem)}]' in (out / "p.report" / "index.html").read_text(encoding="utf-8")
    capsys.readouterr()
    figures = []
    for path in (given, out / "p.refined.npz"):
        found = tmp_path / "figures.json"
        assert cli.main(["eval", str(path), "--reference", str(truth), *options, "--out", str(found)]) == 0
        figures.append(json.loads(found.read_text()))
    for name in ("acceleration_error_mm_per_frame2", "jitter_mm_per_frame2"):
        assert figures[1][name] < 0.5 * figures[0][name]
