"""The command line: help, exit statuses, error messages, and `regrasp refine` around a stand-in refiner."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from batch_fakes import SHIFT, fake_refine, predictions, small_box, tiny_hand, with_cell

from hand_models.model import HandModel
from refine.batch import rows, shards
from refine.batch.config import BatchConfig
from refine.batch.tally import Tally, report
from refine.commands import cli, demo, doctor, eval, hands
from refine.commands import refine as command
from refine.files.object_files import ObjectEntry
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.predictions import Predictions
from refine.files.status import Status

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def model() -> HandModel:
    return tiny_hand()


@pytest.fixture
def loaded(monkeypatch) -> list[str]:
    """Objects that were opened, in order, and for hands of which side; no mesh is needed."""
    seen: list[str] = []

    def load(entry, side):
        seen.append(f"{entry.object_id} {side}")
        return small_box()

    monkeypatch.setattr(rows, "load_object", load)
    return seen


OBJECTS = {name: ObjectEntry(name, Path(name)) for name in ("mug", "box")}


# Rows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_every_row_is_refined_in_its_own_frame(model, loaded, batch_size):
    p = predictions()
    out = rows.refine_rows(p, OBJECTS, model, fake_refine, batch_size=batch_size)
    assert out.status.tolist() == ["refined"] * len(p)
    assert out.reason.tolist() == [""] * len(p)
    np.testing.assert_allclose(out.transl, p.transl + SHIFT.numpy(), atol=1e-6)  # object_pose has no rotation
    np.testing.assert_allclose(out.global_orient, p.global_orient, atol=1e-5)
    np.testing.assert_allclose(out.hand_pose, p.hand_pose)
    assert (out.penetration_mm_before == 4).all()
    assert (out.score_after == 1).all()
    assert np.isnan(out.volume_cm3_after).all()
    assert out.uncertainty.shape == (7, 21)
    np.testing.assert_array_equal(out.frame_id, p.frame_id)
    assert loaded == ["mug right", "mug left", "box right", "box left"]  # each once


def test_the_camera_frame_is_turned_into_the_objects_and_back(model, loaded):
    p = predictions(2)
    turned = p.object_pose.copy()
    turned[:, :3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    p = Predictions.from_columns(p.columns() | {"object_pose": turned})
    out = rows.refine_rows(p, OBJECTS, model, fake_refine)
    moved = turned[:, :3, :3] @ SHIFT.numpy()
    np.testing.assert_allclose(out.transl, p.transl + moved, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("transl", np.nan, "row 3, column 'transl'"),
        ("side", "both", "neither"),
        ("object_id", "cup", "no mesh for object 'cup'"),
        ("betas", [13] + [0] * 9, "unlucky number"),
    ],
)
def test_a_bad_row_fails_alone(model, loaded, name, value, reason):
    p = with_cell(predictions(), name, 3, value)
    out = rows.refine_rows(p, OBJECTS, model, fake_refine)
    assert np.flatnonzero(out.status == "failed").tolist() == [3]
    assert reason in out.reason[3]
    np.testing.assert_array_equal(out.transl[3], p.transl[3])  # the input is kept
    assert np.isnan(out.score_after[3])
    good = np.delete(np.arange(7), 3)
    np.testing.assert_allclose(out.transl[good], p.transl[good] + SHIFT.numpy(), atol=1e-6)


def test_a_result_that_is_not_finite_is_a_failure(model, loaded):
    def refine(request):
        result = fake_refine(request)
        result.pose.transl[0] = float("nan")
        return result

    p = predictions()
    out = rows.refine_rows(p, OBJECTS, model, refine)
    failed = out.status == "failed"
    assert failed.sum() == 4  # the first of each object and side
    assert np.isfinite(out.transl).all()
    assert all("finite" in reason for reason in out.reason[failed])


def test_a_kept_row_stays_as_it_was(model, loaded):
    def keep(request):
        result = fake_refine(request)
        result.status = [Status.KEPT] * len(request.pose)
        return result

    p = with_cell(predictions(3), "hand_model", 1, "mano")
    p = with_cell(p, "betas", 1, np.arange(10))
    out = rows.refine_rows(p, OBJECTS, model, keep)
    assert out.status.tolist() == ["kept"] * 3
    assert (out.steps == 9).all()
    for name, value in p.columns().items():
        np.testing.assert_array_equal(getattr(out, name), value, err_msg=name)


def test_what_no_row_is_to_blame_for_stops_the_command(workplace, monkeypatch, capsys):
    def refine(request):
        raise FileNotFoundError("weights: contact.safetensors is not there")

    monkeypatch.setattr(BatchConfig, "refiner", lambda self: refine)
    assert cli.main(ARGUMENTS) == 2
    assert "weights" in capsys.readouterr().err


def test_an_unreadable_object_fails_its_rows(model, monkeypatch):
    def load(entry, side):
        if entry.object_id == "box":
            raise ValueError("box.obj: has no faces")
        return small_box()

    monkeypatch.setattr(rows, "load_object", load)
    out = rows.refine_rows(predictions(), OBJECTS, model, fake_refine)
    assert (out.status == "failed").tolist() == [False, True] * 3 + [False]
    assert out.reason[1] == "box.obj: has no faces"
    summary = Tally.of(out).summary()
    assert summary["status"] == {"refined": 4, "failed": 3}
    assert summary["mean"]["penetration_mm_after"] == 1
    assert summary["mean"]["volume_cm3_after"] is None
    assert "3" in report(summary | {"seconds": 1.0})


def test_no_rows_give_no_rows(model, loaded):
    out = rows.refine_rows(predictions(0), OBJECTS, model, fake_refine)
    assert len(out) == 0
    assert "nothing to do" in report(Tally.of(out).summary() | {"seconds": 0.0})


# The command ----------------------------------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path, monkeypatch, model, loaded) -> Path:
    """A folder with predictions and meshes, and the command's heavy parts replaced."""
    (tmp_path / "meshes").mkdir()
    for name in ("mug", "box"):
        (tmp_path / "meshes" / f"{name}.obj").write_text("")
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    (tmp_path / "w.json").write_text("{}")
    write_predictions(tmp_path / "p.npz", predictions())
    monkeypatch.setattr(hands.HandOptions, "load", lambda self: model)
    monkeypatch.setattr(BatchConfig, "refiner", lambda self: fake_refine)
    monkeypatch.setattr(BatchConfig, "load_model", lambda self: model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


ARGUMENTS = ["refine", "p.npz", "--objects", "meshes", "--weights", "w.safetensors", "--out", "out"]


def test_refine_writes_results_and_summary(workplace, capsys):
    assert cli.main(ARGUMENTS) == 0
    assert sorted(f.name for f in (workplace / "out").iterdir()) == ["p.refined.npz", "p.summary.json"]
    assert (read_predictions(workplace / "out" / "p.refined.npz").status == "refined").all()
    summary = json.loads((workplace / "out" / "p.summary.json").read_text())
    assert summary["status"] == {"refined": 7}
    assert summary["hand_model"] == "open"
    assert len(summary["input_sha256"]) == 64
    printed = capsys.readouterr()
    assert "7 rows: 7 refined" in printed.out
    assert printed.err == ""  # no progress bar where there is no terminal


def test_refine_says_by_its_status_that_rows_failed(workplace, capsys):
    write_predictions("p.json", with_cell(predictions(), "transl", 0, np.nan))
    assert cli.main(["refine", "p.json", *ARGUMENTS[2:], "--limit", "3", "--batch-size", "1"]) == 1
    out = read_predictions(workplace / "out" / "p.refined.json")
    assert out.status.tolist() == ["failed", "refined", "refined"]
    assert "row 0, column 'transl'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["refine", "gone.npz", "--objects", "meshes", "--out", "out"], "gone.npz: there is no such file"),
        (["refine", "p.npz", "--objects", "gone", "--out", "out"], "--objects gone"),
        (["refine", "p.npz", "--objects", ".", "--out", "out"], "meshes holds several meshes (box.obj, mug.obj)"),
        (["refine", "p.npz", "--objects", "p.npz", "--out", "out"], "p.npz: is neither a folder, nor a mesh"),
        ([*ARGUMENTS, "--scale", "0"], "--scale"),
        ([*ARGUMENTS, "--batch-size", "0"], "--batch-size"),
        ([*ARGUMENTS, "--limit", "-1"], "--limit"),
        ([*ARGUMENTS, "--steps", "0"], "--steps"),
        ([*ARGUMENTS, "--workers", "0"], "--workers"),
        ([*ARGUMENTS, "--address", "auto"], "--engine ray"),
        ([*ARGUMENTS, "--from", "telepathy"], "the formats are grasp"),
        ([*ARGUMENTS[:5], "gone.safetensors", *ARGUMENTS[6:]], "weights: "),
        ([*ARGUMENTS, "--layout", "pose"], "'layout' does not apply to format 'grasp'"),
        ([*ARGUMENTS[:-1], "p.npz"], "p.npz"),
        ([*ARGUMENTS[:-1], "p.npz/below"], "--out p.npz/below: cannot be written to"),
        ([*ARGUMENTS[:-1], "/proc/nothing"], "--out /proc/nothing: cannot be written to"),
        (["polish"], "no command 'polish'"),
    ],
)
def test_user_errors_are_one_line_and_status_2(workplace, capsys, arguments, words):
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.startswith("regrasp")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not (workplace / "out").exists()


def test_refine_takes_a_folder_and_carries_on(workplace, capsys):
    write_predictions("in/day1/a.npz", predictions(3))
    write_predictions("in/b.npz", with_cell(predictions(2), "transl", 0, np.nan))
    arguments = ["refine", "in", *ARGUMENTS[2:], "--save-mesh", "--shard-rows", "2"]
    assert cli.main(arguments) == 1
    assert (workplace / "out" / "day1" / "a.refined.npz").is_file()
    assert len(list((workplace / "out" / "b.meshes").iterdir())) == 1
    printed = capsys.readouterr().out
    assert "2 files; 1 rows or files failed" in printed
    assert "there already" not in printed
    assert cli.main(arguments) == 1
    assert capsys.readouterr().out.count("there already") == 2
    assert cli.main([*arguments, "--overwrite"]) == 1
    assert "there already" not in capsys.readouterr().out


def test_options_reach_the_refiner():
    options = command.RefineOptions((Path("p.npz"),), Path("meshes"), Path("out"), steps=2, method="contactopt")
    config = command.batch_config(options)
    assert (config.refine.align.iterations, config.refine.contact.iterations) == (2, 2)
    assert config.refine.method == "contactopt"
    assert config.hand_model == "open"


def test_a_device_that_is_not_there_is_named(monkeypatch, workplace, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main([*ARGUMENTS, "--device", "cuda"]) == 2
    assert "--device cuda" in capsys.readouterr().err


def test_objects_of_another_data_set_are_noticed(workplace, capsys):
    (workplace / "other").mkdir()
    (workplace / "other" / "cup.obj").write_text("")
    assert cli.main(["refine", "p.npz", "--objects", "other", *ARGUMENTS[4:]]) == 2
    assert "'box' is not among cup" in capsys.readouterr().err


def test_the_scale_reaches_the_meshes(workplace, monkeypatch, capsys):
    scales = []
    monkeypatch.setattr(rows, "load_object", lambda entry, side: scales.append(entry.scale) or small_box())
    assert cli.main([*ARGUMENTS, "--scale", "0.01"]) == 0
    assert set(scales) == {0.01}
    capsys.readouterr()
    assert cli.main([*ARGUMENTS, "--scale", "0.01"]) == 0
    assert "there already" in capsys.readouterr().out
    assert cli.main(ARGUMENTS) == 0  # another scale is other work
    assert set(scales) == {0.01, None}


def test_one_mesh_is_not_taken_for_several_objects(workplace, capsys):
    one = ["refine", "p.npz", "--objects", "meshes/mug.obj", *ARGUMENTS[4:]]
    assert cli.main(one) == 2
    assert "is one mesh, but the rows are of 2 objects (box, mug" in capsys.readouterr().err
    p = predictions()
    write_predictions("p.npz", replace(p, object_id=np.full(len(p), "")))
    assert cli.main(one) == 0
    assert set(read_predictions(workplace / "out" / "p.refined.npz").object_id) == {"mug"}


def test_rows_that_name_no_object(workplace, capsys):
    p = predictions()
    write_predictions("p.npz", replace(p, object_id=np.full(len(p), "")))
    assert cli.main(ARGUMENTS) == 2
    assert "give --object-id, or one mesh" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["refine"], ["refine", "--bogus"], [*ARGUMENTS, "--method", "magic"]])
def test_wrong_options_are_status_2(workplace, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2


def test_interruption_and_debugging(workplace, monkeypatch, capsys):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "refine_rows", interrupt)
    assert cli.main(ARGUMENTS) == 130
    assert "the same command, without --overwrite, goes on where it was" in capsys.readouterr().err
    monkeypatch.setenv("REGRASP_DEBUG", "1")
    assert cli.main(["refine", "gone.npz", *ARGUMENTS[2:]]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["demo", "refine", "eval", "doctor"])
def test_help_names_options_and_examples(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "Examples:" in text
    assert f"regrasp {name}" in text


def test_overview_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.COMMANDS)
    assert cli.main([]) == 2


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'tyro'}"
    call = "from refine.commands.cli import main; main(['--help'])"
    code = f"import sys; {call}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_mano_dir_means_mano(monkeypatch):
    asked = []
    monkeypatch.setattr(hands, "load_hand_model", lambda name, **kwargs: asked.append((name, kwargs)))
    hands.HandOptions().load()
    hands.HandOptions(mano_dir=Path("m")).load()
    hands.HandOptions("mano").load()
    assert asked == [("open", {"mano_dir": None}), ("mano", {"mano_dir": Path("m")}), ("mano", {"mano_dir": None})]
    with pytest.raises(ValueError, match="--mano-dir"):
        hands.HandOptions("open", Path("m")).load()


# Demo, eval, doctor ---------------------------------------------------------------------------------


def test_demo_table_has_means():
    metrics = {
        f"{n}_{w}": np.array([1.0, 3.0])
        for n in ("penetration_mm", "volume_cm3", "contact_ratio")
        for w in ("before", "after")
    }
    result = SimpleNamespace(metrics=metrics, status=[Status.REFINED, Status.KEPT])
    text = demo.table([demo.Case("mug", result, 0, (20.0, 5.0), None), demo.Case("box", result, 1, (10.0, 5.0), None)])
    lines = text.splitlines()
    assert len(lines) == 5
    assert "15.0 →    5.0" in lines[-1]
    assert lines[2].endswith("refined")


def test_eval_matches_rows_by_name():
    p = predictions(6)
    here, there = eval.matched_rows(p.take([5, 0, 2]), p.take([2, 3, 5]))
    assert (here.tolist(), there.tolist()) == ([0, 2], [2, 0])
    with pytest.raises(ValueError, match="same hand"):
        eval.matched_rows(p, p.take([1, 1]))


def test_doctor_reports_and_never_raises(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("REGRASP_CACHE", "off")
    found = doctor.examine(tmp_path)
    by_name = {finding.name: finding for finding in found}
    assert all(by_name[name].state == "ok" for name in doctor.CORE)
    assert by_name["MANO"].state == "absent"
    assert str(tmp_path) in by_name["MANO"].detail
    assert "REGRASP_CACHE" in by_name["grids"].detail
    broken = [replace(finding, state="missing") if finding.name == "torch" else finding for finding in found]
    monkeypatch.setattr(doctor, "examine", lambda mano_dir: broken)
    assert cli.main(["doctor"]) == 1
    assert "not ready: torch" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "examine", lambda mano_dir: [f for f in broken if f.state != "missing"])
    assert cli.main(["doctor"]) == 0


def test_doctor_explains_a_package_that_does_not_import(monkeypatch):
    def refuse(name: str) -> None:
        raise OSError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(doctor.importlib, "import_module", refuse)
    found = {finding.name: finding for finding in doctor.examine()}["scipy"]
    assert found.state == "missing"
    assert "libGL" in found.detail
    monkeypatch.setattr(doctor, "OPTIONAL", {"no-such-package-here": "why"})
    found = {finding.name: finding for finding in doctor.examine()}["no-such-package-here"]
    assert (found.state, found.detail) == ("absent", "why")
