"""The batch engine: shards, resuming, merging, inputs, and workers that die."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from batch_fakes import (
    DEADLY,
    DEADLY_ONCE,
    UNLUCKY,
    FakeConfig,
    fake_config,
    fake_refine,
    predictions,
    small_box,
    tiny_hand,
    with_cell,
    with_fate,
)

from contact.objects import grid_build
from hand_models import MissingManoError
from refine.batch import Execution, refine_files, rows
from refine.batch.manifest import lock, make_manifest, object_hashes
from refine.batch.shards import give_up
from refine.batch.tally import Tally
from refine.batch.workers import ATTEMPTS, plain
from refine.files import object_files
from refine.files.input_files import find_inputs, pieces
from refine.files.object_files import find_objects, load_object
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.prediction_poses import hand_poses
from refine.files.predictions import Predictions

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def no_meshes(monkeypatch) -> None:
    """Objects are not opened."""
    monkeypatch.setattr(rows, "load_object", lambda entry, side: small_box())


def run(config: FakeConfig, *files: Path, out: Path | None = None, **execution: object) -> list:
    """Outcomes of a run whose results go to ``out`` beside the configuration's log."""
    target = out or config.log.parent / "out"
    return list(refine_files(find_inputs(files), target, config, Execution(**execution)))


def assert_same(got: Predictions, wanted: Predictions) -> None:
    assert list(got.columns()) == list(wanted.columns())
    for name, value in wanted.columns().items():
        np.testing.assert_array_equal(getattr(got, name), value, err_msg=name)


def whole(p: Predictions, config: FakeConfig) -> Predictions:
    """What comes out of all rows at once."""
    return rows.refine_rows(p, find_objects(config.objects), tiny_hand(), fake_refine)


# Results --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".json", ".parquet"])
@pytest.mark.parametrize("shard_rows", [1, 3, 7, 100])
def test_shards_together_are_the_whole(tmp_path, no_meshes, suffix, shard_rows):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    p = with_fate(with_cell(predictions(), "transl", 4, np.nan), 1, UNLUCKY)
    p = with_cell(p, "object_id", 6, "a cup of no known make")
    file = write_predictions(tmp_path / f"p{suffix}", p)
    config = fake_config(tmp_path, shard_rows=shard_rows, batch_size=2)
    (outcome,) = run(config, file)
    wanted = whole(p, config)
    assert_same(read_predictions(outcome.results), wanted)
    assert outcome.summary["status"] == {"refined": 4, "failed": 3}
    assert outcome.summary["mean"] == Tally.of(wanted).summary()["mean"]
    assert set(outcome.summary["failures"]) == {"1", "4", "6"}
    assert outcome.summary["failures"]["4"].startswith("row 4, column 'transl'")
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == [f"p.refined{suffix}", "p.summary.json"]
    if suffix == ".json":
        write_predictions(tmp_path / "wanted.json", wanted)
        assert outcome.results.read_bytes() == (tmp_path / "wanted.json").read_bytes()


def test_no_rows_give_no_rows(tmp_path, no_meshes):
    file = write_predictions(tmp_path / "p.npz", predictions(0))
    (outcome,) = run(fake_config(tmp_path), file)
    assert len(read_predictions(outcome.results)) == 0
    assert outcome.summary["rows"] == 0


def test_limit_is_of_each_file(tmp_path, no_meshes):
    files = [write_predictions(tmp_path / f"{name}.npz", predictions()) for name in "ab"]
    outcomes = run(fake_config(tmp_path, limit=4, shard_rows=3), *files)
    assert [len(read_predictions(o.results)) for o in outcomes] == [4, 4]


def test_a_limit_never_replaces_fuller_results(tmp_path, no_meshes):
    file = write_predictions(tmp_path / "p.npz", predictions(7))
    config = fake_config(tmp_path)
    (whole_file,) = run(config, file)
    before = whole_file.results.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"--limit 4: .*p\.refined\.npz holds the results of 7 rows"):
            run(replace(config, limit=4), file, overwrite=overwrite)
    assert whole_file.results.read_bytes() == before
    (fuller,) = run(replace(config, limit=9), file)
    assert fuller.summary["rows"] == 7


@pytest.mark.parametrize(
    ("rows_of_file", "workers", "size"), [(300, 1, 80), (300, 4, 32), (5, 4, 16), (100_000, 4, 512), (0, 2, 16)]
)
def test_every_worker_gets_shards(tmp_path, rows_of_file, workers, size):
    assert fake_config(tmp_path).rows_a_shard(rows_of_file, False, workers) == size
    assert fake_config(tmp_path, shard_rows=7).rows_a_shard(rows_of_file, True, workers) == 7
    assert fake_config(tmp_path).rows_a_shard(rows_of_file, True, workers) == 4096
    assert fake_config(tmp_path, sequences=False).rows_a_shard(rows_of_file, True, workers) == size
    assert size % 16 == 0


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_shards_are_of_the_size_that_suits_the_rows(tmp_path, no_meshes, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    file = write_predictions(tmp_path / f"p{suffix}", predictions(11))
    (outcome,) = run(fake_config(tmp_path, batch_size=1), file)
    assert outcome.summary["shards"] == 4  # of three rows, and two
    assert_same(read_predictions(outcome.results), whole(predictions(11), fake_config(tmp_path)))


def test_how_many_rows_are_to_be_expected_is_said_first(tmp_path, no_meshes):
    files = [write_predictions(tmp_path / f"{name}.npz", predictions(count)) for name, count in (("a", 4), ("b", 7))]
    said: list[tuple[str, int]] = []
    for _ in range(2):  # the second time all is there already
        said.clear()
        run(fake_config(tmp_path), *files, progress=lambda n: said.append(("done", n)),
            expect=lambda n: said.append(("expected", n)))  # fmt: skip
        totals = np.cumsum([[n * (word == "expected"), n * (word == "done")] for word, n in said], axis=0)
        assert (totals[:, 0] >= totals[:, 1]).all()
        assert totals[-1].tolist() == [11, 11]


def test_tallies_add_up(tmp_path, no_meshes):
    out = whole(with_fate(predictions(9), 5, UNLUCKY), fake_config(tmp_path))
    parts = [Tally.of(out.take(slice(a, b)), a) for a, b in ((0, 2), (2, 7), (7, 9))]
    assert parts[0] + parts[1] + parts[2] == Tally.of(out)


def test_meshes_are_the_refined_hands(tmp_path, no_meshes):
    p = with_fate(predictions(5), 2, UNLUCKY)
    file = write_predictions(tmp_path / "p.npz", p)
    run(fake_config(tmp_path, shard_rows=2, save_mesh=True), file)
    found = sorted((tmp_path / "out" / "p.meshes").iterdir())
    assert [f.name for f in found] == [f"{row:07d}.ply" for row in (0, 1, 3, 4)]
    results = read_predictions(tmp_path / "out" / "p.refined.npz")
    skin = tiny_hand()(hand_poses(results, [3], tiny_hand())).vertices[0].numpy()
    mesh = trimesh.load(found[2], process=False)
    np.testing.assert_allclose(mesh.vertices, skin - p.object_pose[3, :3, 3], atol=1e-6)  # object_pose does not turn


def test_meshes_are_written_of_results_that_are_there(tmp_path, no_meshes):
    """Nothing is refined again, and meshes of other results are not taken for theirs."""
    file = write_predictions(tmp_path / "p.npz", predictions(5))
    config, folder = fake_config(tmp_path), tmp_path / "out" / "p.meshes"
    run(config, file)
    (outcome,) = run(replace(config, save_mesh=True), file)
    assert (outcome.fresh, len(list(folder.iterdir())), config.refined()) == (False, 5, [*range(5)])
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    run(replace(config, save_mesh=True), file)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    run(replace(config, seed=1, limit=5), file)  # other results, without meshes
    (folder / "0000000.ply").write_bytes(b"of the other results")
    run(replace(config, seed=1, limit=5, save_mesh=True), file)
    assert (folder / "0000000.ply").read_bytes().startswith(b"ply")


@pytest.mark.parametrize("shard_rows", [2, 5])
def test_samples_lie_beside_the_results_row_by_row(tmp_path, no_meshes, shard_rows):
    p = with_fate(predictions(5), 2, UNLUCKY)
    file = write_predictions(tmp_path / "p.npz", p)
    run(fake_config(tmp_path, shard_rows=shard_rows, samples=3), file)
    found = np.load(tmp_path / "out" / "p.samples.npz", allow_pickle=False)
    assert found["probability"].shape == (5, 3)
    assert found["hand_pose"].shape == (5, 3, 45)
    assert found["hand_model"] == "open"
    good = [0, 1, 3, 4]
    for name in ("probability", "joints", "global_orient", "hand_pose", "betas", "transl"):
        assert np.isnan(found[name][2]).all()
        assert np.isfinite(found[name][good]).all()
    shift = np.arange(3)[:, None] * [1, 0, 0]
    np.testing.assert_allclose(found["transl"][good], p.transl[good, None] + shift, atol=1e-6)
    np.testing.assert_allclose(found["joints"][good], found["transl"][good][:, :, None].repeat(21, 2), atol=1e-6)
    np.testing.assert_allclose(found["hand_pose"][:, 1][good], p.hand_pose.reshape(5, 45)[good], atol=1e-6)
    run(fake_config(tmp_path), file, out=tmp_path / "bare")
    assert not (tmp_path / "bare" / "p.samples.npz").exists()


def test_rows_whose_worker_died_have_no_samples(tmp_path, no_meshes):
    hashes = {"input_sha256": "", "config_sha256": ""}
    manifest = make_manifest(tmp_path / "work", [predictions(3)], object_hashes({}), **hashes)
    give_up(manifest.shards[0], fake_config(tmp_path, samples=2), "it died")
    joints = np.load(manifest.shards[0].samples_file)["joints"]
    assert joints.shape == (3, 2, 21, 3)
    assert np.isnan(joints).all()


# Resuming -------------------------------------------------------------------------------------------


class Stop(Exception):
    """Stands for the end of the process."""


def stop_after(count: int):
    """A progress callback that ends the run after ``count`` rows."""
    seen = 0

    def progress(done: int) -> None:
        nonlocal seen
        seen += done
        if seen >= count:
            raise Stop

    return progress


@pytest.mark.parametrize("stop", range(1, 11))
def test_an_interrupted_run_is_carried_on(tmp_path, no_meshes, stop):
    p = predictions(10)
    file = write_predictions(tmp_path / "p.npz", p)
    config = fake_config(tmp_path, shard_rows=3, batch_size=1)
    with pytest.raises(Stop):
        run(config, file, progress=stop_after(stop))
    assert not list((tmp_path / "out").glob("p.*.*"))  # no results, only shards
    (outcome,) = run(config, file)
    undisturbed = replace(config, log=tmp_path / "other")
    (wanted,) = run(undisturbed, file, out=tmp_path / "out2")
    assert outcome.results.read_bytes() == wanted.results.read_bytes()
    finished = stop // 3 * 3 if stop < 10 else 9  # a shard is safe once the next one has begun
    again = [row for row in range(10) if config.refined().count(row) > 1]
    assert len(again) <= 3
    assert all(row >= finished - 3 for row in again)
    assert set(config.refined()) == set(range(10))


@pytest.mark.parametrize("damage", ["cut", "gone", "record", "other", "manifest", "rows"])
def test_damaged_shards_are_done_again(tmp_path, no_meshes, damage):
    file = write_predictions(tmp_path / "p.npz", predictions(9))
    config = fake_config(tmp_path, shard_rows=3, batch_size=1)
    with pytest.raises(Stop):
        run(config, file, progress=stop_after(8))
    (folder,) = (tmp_path / "out" / "p.shards").iterdir()
    result, record = folder / "00001.result.npz", folder / "00001.json"
    if damage == "cut":
        result.write_bytes(result.read_bytes()[:-9])
    elif damage == "gone":
        result.unlink()
    elif damage == "record":
        record.write_text("{")
    elif damage == "other":
        record.write_text(record.read_text().replace('"config_sha256": "', '"config_sha256": "f'))
    elif damage == "manifest":
        (folder / "manifest.json").write_text('{"schema": "grasp-manifest/1"}')
    else:
        (folder / ".00002.json.x.tmp").write_text("left over")
    (outcome,) = run(config, file)
    assert_same(read_predictions(outcome.results), whole(predictions(9), config))
    twice = [row for row in range(6) if config.refined().count(row) > 1]
    assert twice == {"manifest": [*range(6)], "rows": []}.get(damage, [3, 4, 5])


def test_what_is_done_is_not_done_again(tmp_path, no_meshes):
    file = write_predictions(tmp_path / "p.npz", predictions())
    config = fake_config(tmp_path)
    run(config, file)
    before = (tmp_path / "out" / "p.summary.json").read_bytes()
    seen = []
    (outcome,) = run(config, file, progress=seen.append)
    assert (outcome.fresh, sum(seen), config.refined()) == (False, 7, [*range(7)])
    assert (tmp_path / "out" / "p.summary.json").read_bytes() == before
    run(config, file, overwrite=True)
    assert config.refined() == sorted([*range(7)] * 2)


@pytest.mark.parametrize(
    "change", ["input", "weights", "card", "mesh", "seed", "batch", "results", "summary", "options"]
)
def test_results_of_anything_else_do_not_count(tmp_path, no_meshes, change):
    file = write_predictions(tmp_path / "p.npz", predictions())
    config = fake_config(tmp_path)
    run(config, file)
    if change == "input":
        write_predictions(file, predictions(6))
    elif change == "weights":
        (tmp_path / "w.safetensors").write_bytes(b"better weights")
    elif change == "card":
        (tmp_path / "w.json").write_text('{"score": {"margin": 1}}')
    elif change == "mesh":
        trimesh.creation.box((0.1, 0.1, 0.1)).export(tmp_path / "meshes" / "mug.ply")
    elif change == "seed":
        config = replace(config, seed=1)
    elif change == "batch":
        config = replace(config, batch_size=2)
    elif change == "results":
        (tmp_path / "out" / "p.refined.npz").write_bytes(b"")
    elif change == "summary":
        (tmp_path / "out" / "p.summary.json").write_text("[]")
    else:
        config = replace(config, refine=replace(config.refine, gate=False))
    (outcome,) = run(config, file)
    assert outcome.fresh
    assert len(config.refined()) == 7 + len(read_predictions(file))


def test_an_object_that_no_row_is_of_changes_nothing(tmp_path, no_meshes):
    file = write_predictions(tmp_path / "p.npz", predictions())
    config = fake_config(tmp_path)
    run(config, file)
    trimesh.creation.box((0.1, 0.1, 0.1)).export(tmp_path / "meshes" / "cup.ply")
    (outcome,) = run(config, file)
    assert not outcome.fresh


def test_unfinished_work_with_other_options_is_kept_apart(tmp_path, no_meshes, caplog):
    file = write_predictions(tmp_path / "p.npz", predictions(9))
    config = fake_config(tmp_path, shard_rows=3, batch_size=1)
    with pytest.raises(Stop):
        run(config, file, progress=stop_after(8))
    run(replace(config, seed=1, log=tmp_path / "other"), file)
    assert "unfinished work" in caplog.text
    run(config, file)
    assert set(config.refined()) == set(range(9))
    assert config.refined().count(0) == 1
    assert not (tmp_path / "out" / "p.shards").exists()


def test_one_run_at_a_time(tmp_path, no_meshes):
    file = write_predictions(tmp_path / "p.npz", predictions(9))
    config = fake_config(tmp_path, shard_rows=3)
    with pytest.raises(Stop):
        run(config, file, progress=stop_after(8))
    (folder,) = (tmp_path / "out" / "p.shards").iterdir()
    held = lock(folder)
    with pytest.raises(ValueError, match="another regrasp"):
        run(config, file)
    held.release()
    assert run(config, file)[0].fresh


# Inputs ---------------------------------------------------------------------------------------------


def test_folders_and_globs_keep_their_structure(tmp_path, no_meshes):
    source = tmp_path / "in"
    for name in ("a.npz", "s1/b.npz", "s1/c.json", "a.refined.npz", ".hidden/d.npz", "old.shards/x/e.npz"):
        write_predictions(source / name, predictions(2))
    (source / "notes.txt").write_text("no predictions")
    with pytest.warns(UserWarning, match="notes.txt"):
        found = find_inputs([source])
    assert [item.name for item in found] == ["a", "s1/b", "s1/c"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [item.name for item in find_inputs([source / "s*" / "*.npz"])] == ["s1/b"]
        assert [item.name for item in find_inputs([source / "a.npz", source / "*.npz"])] == ["a"]
    outcomes = list(refine_files(found, tmp_path / "out", fake_config(tmp_path)))
    assert {o.results.relative_to(tmp_path / "out").as_posix() for o in outcomes} == {
        "a.refined.npz",
        "s1/b.refined.npz",
        "s1/c.refined.json",
    }


def test_inputs_that_cannot_be_told_apart_are_refused(tmp_path):
    for folder in "xy":
        write_predictions(tmp_path / folder / "p.npz", predictions(2))
    with pytest.raises(ValueError, match="would both be called 'p'"):
        find_inputs([tmp_path / "x" / "p.npz", tmp_path / "y" / "p.npz"])
    with pytest.raises(FileNotFoundError, match="matches no file"):
        find_inputs([tmp_path / "*.json"])
    (tmp_path / "z").mkdir()
    with pytest.raises(FileNotFoundError, match="no prediction files"):
        find_inputs([tmp_path / "z"])


def test_a_bad_file_does_not_stop_the_others(tmp_path, no_meshes):
    good = write_predictions(tmp_path / "good.npz", predictions())
    bad = write_predictions(tmp_path / "bad.npz", predictions())
    other = write_predictions(tmp_path / "other.npz", with_cell(predictions(1), "object_id", 0, "cup"))
    found = find_inputs([bad, other, good])
    bad.write_bytes(bad.read_bytes()[:200])
    outcomes = {o.input.name: o for o in refine_files(found, tmp_path / "out", fake_config(tmp_path))}
    assert outcomes["good"].summary["status"] == {"refined": 7}
    assert "bad.npz" in outcomes["bad"].reason
    assert "'cup'" in outcomes["other"].reason
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["good.refined.npz", "good.summary.json"]


def test_parquet_comes_in_pieces(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    file = write_predictions(tmp_path / "whole.parquet", predictions(23))
    table = parquet.read_table(file).drop_columns(["frame_index", "frame_id"])
    parquet.write_table(table, tmp_path / "groups.parquet", row_group_size=7)
    found = list(pieces(tmp_path / "groups.parquet", "grasp", 5, limit=21))
    assert [len(piece) for piece in found] == [5, 5, 5, 5, 1]
    joined = {name: np.concatenate([p.column(name) for p in found]) for name in found[0].columns()}
    assert_same(Predictions.from_columns(joined), predictions(23).take(slice(21)))
    (tmp_path / "cut.parquet").write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"cut\.parquet"):
        list(pieces(tmp_path / "cut.parquet", "grasp", 5))
    wrong = table.append_column("thumbs", table["object_id"])
    parquet.write_table(wrong, tmp_path / "wrong.parquet")
    with pytest.raises(ValueError, match=r"wrong\.parquet: column 'thumbs'"):
        next(pieces(tmp_path / "wrong.parquet", "grasp", 5))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"workers": 0}, "--workers"), ({"engine": "slurm"}, "--engine"), ({"address": "auto"}, "--engine ray")],
)
def test_senseless_executions_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Execution(**options)


# Objects --------------------------------------------------------------------------------------------


def test_objects_are_opened_once_until_they_change(tmp_path, monkeypatch):
    opened = []

    def load(path, side, *, name, scale):
        opened.append(f"{name} {side}")
        return small_box()

    monkeypatch.setattr(object_files, "object_for", load)
    file = write_predictions(tmp_path / "p.npz", predictions(12))
    config = fake_config(tmp_path, shard_rows=2)
    run(config, file)
    load_object(find_objects(config.objects)["mug"])  # as `regrasp eval` does
    assert opened == ["mug right", "box right", "mug left", "box left"]
    trimesh.creation.box((0.1, 0.1, 0.1)).export(tmp_path / "meshes" / "mug.ply")
    run(config, file)
    assert opened[4:] == ["mug right", "mug left"]


def test_the_grid_cache_stays_small_whoever_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("REGRASP_CACHE", str(tmp_path))
    folder = tmp_path / "grids"
    folder.mkdir()
    old, new = folder / "old.tmp", folder / "new.tmp"
    for left in (old, new):
        left.write_bytes(b"half a grid")
    long_ago = time.time() - 2 * grid_build.ABANDONED_SECONDS
    os.utime(old, (long_ago, long_ago))
    monkeypatch.setattr(grid_build, "CACHE_LIMIT_BYTES", 40_000)
    boxes = [trimesh.creation.box((0.01 * i, 0.05, 0.05)) for i in range(1, 13)]

    def build(box: trimesh.Trimesh) -> np.ndarray:
        return grid_build.build_grid(box.vertices, box.faces, 12).values.numpy()

    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(build, boxes))
    assert not old.exists()
    assert new.exists()  # its writer may be at it still
    grids = list(folder.glob("*.npz"))
    size = built[0].nbytes
    assert sum(path.stat().st_size for path in grids) <= 40_000
    assert len(grids) >= 40_000 // (2 * size)
    for path in grids:
        assert grid_build._read(path) is not None
    again = [build(box) for box in boxes]
    for first, second in zip(built, again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_hand_model_is_loaded_once_for_all_shards(tmp_path, no_meshes, monkeypatch):
    loads = []
    monkeypatch.setattr(FakeConfig, "load_model", lambda self: loads.append(self) or tiny_hand())
    file = write_predictions(tmp_path / "p.npz", predictions(12))
    config = fake_config(tmp_path, shard_rows=2)
    run(config, file)
    assert len(loads) == 2  # to know whether earlier results hold, and to refine six shards
    run(replace(config, seed=1), file)
    assert len(loads) == 4  # another configuration, another hand


# Processes ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_give_what_one_process_gives(tmp_path):
    p = predictions(20)
    file = write_predictions(tmp_path / "p.npz", with_fate(p, 11, DEADLY_ONCE))
    config = fake_config(tmp_path, shard_rows=3)
    (outcome,) = run(config, file, workers=2)
    assert (tmp_path / "log.died").exists()  # a worker was killed, and its shard begun again
    (wanted,) = run(replace(config, log=config.log), file, out=tmp_path / "alone")
    assert outcome.results.read_bytes() == wanted.results.read_bytes()
    assert outcome.summary["status"] == {"refined": 20}


@pytest.mark.slow
def test_a_shard_that_kills_its_workers_fails_alone(tmp_path):
    file = write_predictions(tmp_path / "p.npz", with_fate(predictions(6), 3, DEADLY))
    seen = []
    (outcome,) = run(fake_config(tmp_path, shard_rows=2), file, workers=2, progress=seen.append)
    status = read_predictions(outcome.results).status
    assert status.tolist() == ["refined"] * 2 + ["failed"] * 2 + ["refined"] * 2
    assert f"died {ATTEMPTS} times" in outcome.summary["failures"]["2"]
    assert sum(seen) == 6


@pytest.mark.slow
def test_what_no_row_is_to_blame_for_stops_all_workers(tmp_path):
    file = write_predictions(tmp_path / "p.npz", predictions(6))
    config = fake_config(tmp_path, shard_rows=2)
    with pytest.raises(FileNotFoundError):
        run(replace(config, log=tmp_path / "gone" / "log"), file, workers=2, out=tmp_path / "out")


class TwoArguments(Exception):
    """As errors of some libraries: can be pickled, but not unpickled."""

    def __init__(self, code: int, where: str) -> None:
        super().__init__(f"code {code} at {where}")


def nameless() -> Exception:
    """An error of a class that pickle does not find."""
    return type("Nameless", (Exception,), {})("code 7 at the mesh")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (nameless(), RuntimeError, "Nameless: code 7 at the mesh"),
        (TwoArguments(7, "the mesh"), RuntimeError, "TwoArguments: code 7 at the mesh"),
        (MissingManoError("no MANO"), FileNotFoundError, "no MANO"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"), ValueError, "can't decode"),
    ],
)
def test_errors_cross_to_another_process(error, kind, words):
    sent = pickle.loads(pickle.dumps(plain(error)))
    assert type(sent) is kind
    assert words in str(sent)


@pytest.mark.slow
def test_an_error_that_cannot_be_sent_is_told_as_it_is(tmp_path):
    """It must not look like a worker that died for want of memory."""
    file = write_predictions(tmp_path / "p.npz", predictions(2))
    with pytest.raises(RuntimeError, match="Nameless: code 7 at the mesh"):
        run(NamelessConfig(**vars(fake_config(tmp_path))), file, workers=2)


@dataclass(frozen=True)
class NamelessConfig(FakeConfig):
    def refiner(self) -> Callable[..., Any]:
        raise nameless()


@pytest.mark.slow
@pytest.mark.parametrize("guarded", [True, False])
def test_the_script_of_the_docs_runs(tmp_path, guarded):
    """As it stands; without its guard it says what is missing, rather than to buy memory."""
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    code = page.split("## From Python")[1].split("```python\n")[1].split("```")[0]
    assert "workers=8" in code
    code = code.replace("workers=8", "workers=2")  # which take seconds to start, each
    guard = 'if __name__ == "__main__":'
    assert guard in code
    (tmp_path / "sequences").mkdir()
    fake_config(tmp_path)  # which makes the meshes
    write_predictions(tmp_path / "sequences" / "p.npz", predictions(0))
    (tmp_path / "script.py").write_text(code if guarded else code.replace(guard, "if True:"))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if guarded:
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("p {")
        assert (tmp_path / "refined" / "p.refined.npz").is_file()
    else:
        assert "put what it does under `if __name__" in done.stderr


@pytest.mark.slow
def test_a_killed_process_loses_nothing(tmp_path):
    file = write_predictions(tmp_path / "p.npz", predictions(12))
    config = fake_config(tmp_path, shard_rows=3)
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from batch_fakes import fake_config\n"
        "from refine.batch import Execution, refine_files\n"
        "from refine.files.input_files import find_inputs\n"
        "folder = Path(sys.argv[1]); config = fake_config(folder, shard_rows=3)\n"
        "execution = Execution(workers=2, progress=lambda count: time.sleep(1))\n"
        "list(refine_files(find_inputs([folder / 'p.npz']), folder / 'out', config, execution))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(ROOT / "tests")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("p.shards/*/0000?.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "out" / "p.summary.json").exists()
    (outcome,) = run(config, file)
    assert_same(read_predictions(outcome.results), whole(predictions(12), config))
    assert json.loads((tmp_path / "out" / "p.summary.json").read_text())["rows"] == 12
