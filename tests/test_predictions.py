"""`grasp/1` files: columns, rows, three forms, objects, conversion to hand poses."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import fields
from pathlib import Path

import mano_file
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hand_models import HandPose, load_mano, load_open_hand
from hand_models.atomic import write_atomically
from hand_models.model import PARENTS, HandModel
from hand_models.rotations import exp_so3
from refine.files.object_files import find_objects, inside, load_object, read_objects
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.prediction_poses import hand_poses, into_camera_frame, into_object_frame, object_poses
from refine.files.predictions import COLUMNS, Predictions, groups, point_forms, row_problems


def rigid(rng: np.random.Generator, count: int) -> np.ndarray:
    pose = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    pose[:, :3, :3] = exp_so3(torch.tensor(rng.normal(size=(count, 3)), dtype=torch.float32)).numpy()
    pose[:, :3, 3] = rng.normal(size=(count, 3)) * 0.3 + [0, 0, 0.8]
    return pose


def columns(count: int = 4, seed: int = 0, **extra: object) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    return {
        "object_id": np.array(["mug", "box"] * count)[:count],
        "side": np.array(["right", "left", "right"] * count)[:count],
        "hand_model": "open",
        "frame_id": np.array([f"größe_{i}" for i in range(count)]),
        "global_orient": rng.normal(size=(count, 3)),
        "hand_pose": rng.normal(size=(count, 15, 3)) * 0.3,
        "betas": rng.normal(size=(count, 10)),
        "transl": rng.normal(size=(count, 3)) * 0.1,
        "object_pose": rigid(rng, count),
        "cam_K": np.array([[600, 0, 320], [0, 600, 240], [0, 0, 1.0]]),
        "image_size": np.array([640, 480]),
        "confidence": rng.uniform(size=count),
        "keypoints_2d": rng.uniform(size=(count, 21, 2)),
        **extra,
    }


def predictions(count: int = 4, **extra: object) -> Predictions:
    return Predictions.from_columns(columns(count, **extra))


def same(a: Predictions, b: Predictions) -> None:
    left, right = a.columns(), b.columns()
    assert list(left) == list(right)
    for name, value in left.items():
        assert value.dtype.kind == right[name].dtype.kind
        np.testing.assert_array_equal(value, right[name], err_msg=name)


@pytest.fixture(scope="module")
def model() -> HandModel:
    """A tiny random hand: conversions need nothing but a model with a root."""
    g = torch.Generator().manual_seed(0)
    weights = torch.rand(40, 16, generator=g)
    regressor = torch.rand(16, 40, generator=g)
    faces = torch.zeros(0, 3, dtype=torch.int64)
    ids = torch.arange(5)
    return HandModel(
        "open", "right", torch.rand(40, 3, generator=g) * 0.1, torch.randn(40, 3, 10, generator=g) * 1e-3, None,
        regressor / regressor.sum(1, keepdim=True), weights / weights.sum(1, keepdim=True), faces, faces,
        torch.eye(40)[:5], ids, PARENTS,
    )  # fmt: skip


# Columns --------------------------------------------------------------------------------------------


def test_every_column_is_a_field():
    assert [f.name for f in fields(Predictions) if f.metadata] == list(COLUMNS)


def test_defaults_are_filled_and_single_values_repeated():
    p = Predictions.from_columns(
        {"object_id": ["a", "b"], "side": "left", "global_orient": np.zeros((2, 3)), "hand_pose": np.zeros((2, 15, 3)),
         "transl": np.zeros(3)}
    )  # fmt: skip
    assert len(p) == 2
    assert p.side.tolist() == ["left", "left"]
    assert p.hand_model.tolist() == ["mano", "mano"]
    assert p.frame_id.tolist() == ["0", "1"]
    assert p.betas.shape == (2, 10)
    assert p.betas.dtype == np.float32
    assert p.metric_depth.all()
    assert p.object_pose is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hand_pose": np.zeros((4, 45))}, ["hand_pose", "(4, 45)", "(4, 15, 3)", "reshape"]),
        ({"hand_pose": np.zeros((4, 15, 3, 3))}, ["hand_pose", "rotation matrices", "from_rotmats"]),
        ({"hand_pose": np.zeros((4, 24))}, ["hand_pose", "PCA", "from_pca"]),
        ({"hand_pose": np.zeros((3, 15, 3))}, ["hand_pose", "3 rows", "4"]),
        ({"transl": np.array(["a"] * 4)}, ["transl", "float"]),
        ({"global_orient": None}, ["global_orient", "missing"]),
        ({"object_id": None}, ["object_id", "missing"]),
        ({"trans": np.zeros((4, 3))}, ["'trans'", "did you mean 'transl'"]),
        ({"schema": "grasp/2"}, ["grasp/2", "grasp/1"]),
        ({"keypoints_3d": np.zeros((4, 20, 3))}, ["keypoints_3d", "(4, 20, 3)", "(4, 21, 3)", "(4, 29, 3)"]),
        ({"object_pose": np.zeros((4, 3, 4))}, ["object_pose", "(4, 3, 4)", "(4, 4, 4)"]),
        ({"betas": [[1.0], [1.0, 2.0]]}, ["betas", "length"]),
    ],
)
def test_columns_that_do_not_fit_are_named_with_the_mend(change, words):
    with pytest.raises(ValueError, match=r"column|schema") as caught:
        Predictions.from_columns(columns() | change)
    for word in words:
        assert word in str(caught.value)


def test_a_file_without_hands_is_refused():
    with pytest.raises(ValueError, match="keypoints_3d"):
        Predictions.from_columns({"object_id": ["a"], "side": ["right"]})


# Rows -----------------------------------------------------------------------------------------------


def test_good_rows_have_no_problems():
    assert row_problems(predictions()) == {}


def set_row(name: str, row: int, value: object) -> Predictions:
    p = predictions()
    column = getattr(p, name).copy()
    column[row] = value
    return Predictions.from_columns(p.columns() | {name: column})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("side", "Right"[:5], "neither 'right' nor 'left'"),
        ("object_id", "", "empty"),
        ("global_orient", np.nan, "NaN"),
        ("hand_pose", np.inf, "NaN or infinity"),
        ("betas", np.nan, "NaN"),
        ("transl", 600.0, "divide millimetres by 1000"),
        ("object_pose", np.nan, "NaN"),
        ("object_pose", np.diag([1, 1, -1, 1.0]), "not a rotation"),
        ("object_pose", np.diag([2, 2, 2, 1.0]), "not a rotation"),
        ("object_pose", np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0.1, 0, 0.8, 1]]), "transpose"),
        ("object_pose", np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 800], [0, 0, 0, 1]]), "millimetres"),
    ],
)
def test_a_bad_row_is_named_and_the_others_are_not(name, value, words):
    p = set_row(name, 2, value)
    problems = row_problems(p)
    assert list(problems) == [2]
    assert f"row 2, column {name!r}" in problems[2]
    assert words in problems[2]


def test_joints_stand_in_for_a_pose_of_nan():
    joints = np.random.default_rng(0).normal(size=(4, 21, 3)) * 0.05
    nan = np.full((4, 3), np.nan)
    assert row_problems(predictions(global_orient=nan, keypoints_3d=joints)) == {}
    only = {"object_id": ["a"] * 4, "side": "left", "keypoints_3d": joints}
    assert row_problems(Predictions.from_columns(only)) == {}
    too_big = Predictions.from_columns(only | {"keypoints_3d": joints * 1000})
    assert all("millimetres" in text for text in row_problems(too_big).values())
    assert len(row_problems(too_big)) == 4
    missing = joints.copy()
    missing[1, 3] = np.nan
    assert list(row_problems(Predictions.from_columns(only | {"keypoints_3d": missing}))) == [1]


def test_points_stand_in_for_poses_of_hand_and_object():
    points = np.random.default_rng(0).normal(size=(4, 29, 3)) * 0.05
    points[0, 6:21] = points[1, 5:21] = np.nan
    only = {
        "object_id": ["a", "a", "b", "a"],
        "side": "left",
        "keypoints_3d": points,
        "object_pose": np.full((4, 4), np.nan),
    }
    p = Predictions.from_columns(only)
    assert point_forms(p).tolist() == ["space", "", "space", "space"]
    assert list(row_problems(p)) == [1]
    unsure = np.ones((4, 29))
    unsure[3, :20] = 0
    p = Predictions.from_columns(only | {"keypoint_confidence": unsure})
    assert point_forms(p).tolist() == ["space", "", "space", ""]
    p = Predictions.from_columns(only | {"corner_order": ["given", "", "given", "search"]})
    parts = {name: [rows.tolist() for rows in found] for name, found in groups(p, np.array([0, 2, 3])).items()}
    assert parts == {"a": [[0], [3]], "b": [[2]]}
    flat = {"object_id": ["a"] * 4, "side": "left", "keypoints_2d": points[..., :2], "cam_K": np.eye(3)}
    p = Predictions.from_columns(flat)
    assert np.isnan(p.object_pose).all()
    assert point_forms(p).tolist() == ["picture"] * 4
    with pytest.raises(ValueError, match=r"no hands: .*cam_K"):
        Predictions.from_columns(flat | {"cam_K": None})


def test_take_keeps_every_column():
    p = predictions(5)
    q = p.take([3, 1])
    assert q.frame_id.tolist() == [p.frame_id[3], p.frame_id[1]]
    same(p.take(np.array([False, True, False, True, False])), p.take([1, 3]))


# Files ----------------------------------------------------------------------------------------------


def test_nothing_in_parquet_is_what_null_is_in_json(tmp_path):
    """An empty cell is empty text, NaN or, for `metric_depth`, true; whole numbers have no such value."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write_predictions(tmp_path / "a.parquet", predictions()))
    gaps = {
        "object_id": (["mug", None, "box", None], ["mug", "", "box", ""]),
        "sequence_id": ([None, "None", None, None], ["", "None", "", ""]),
        "metric_depth": ([False, None, True, None], [False, True, True, True]),
        "confidence": ([0.5, None, 0.25, None], [0.5, np.nan, 0.25, np.nan]),
    }
    for name, (given_values, _) in gaps.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pyarrow.array(given_values))
    parquet.write_table(table, tmp_path / "gaps.parquet")
    whole = read_predictions(tmp_path / "gaps.parquet")
    for name, (_, wanted) in gaps.items():
        np.testing.assert_array_equal(whole.column(name), np.array(wanted))
    assert list(row_problems(whole)) == [1, 3]  # rows without an object are named, not looked for as "None"
    place = table.column_names.index("frame_index")
    table = table.set_column(place, "frame_index", pyarrow.array([0, 1, None, 3]))
    parquet.write_table(table, tmp_path / "gap.parquet")
    with pytest.raises(ValueError, match=r"row 2, column 'frame_index': is missing"):
        read_predictions(tmp_path / "gap.parquet")


@pytest.mark.parametrize("suffix", [".npz", ".json", ".parquet"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_file_reads_back_as_it_was_written(tmp_path, suffix, count):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    p = predictions(count)
    if count:
        confidence = p.confidence.copy()
        confidence[0] = np.nan
        p = Predictions.from_columns(p.columns() | {"confidence": confidence, "uncertainty": np.ones((count, 21))})
    path = write_predictions(tmp_path / "deep" / f"p{suffix}", p)
    assert [f.name for f in path.parent.iterdir()] == [path.name]  # no temporary file is left
    if count or suffix != ".json":  # JSON of no rows has no columns to write down
        same(read_predictions(path), p)
    else:
        assert len(read_predictions(path)) == 0


def test_writing_is_reproducible_and_needs_no_pickle(tmp_path):
    a = write_predictions(tmp_path / "a.npz", predictions()).read_bytes()
    b = write_predictions(tmp_path / "b.npz", predictions()).read_bytes()
    assert a == b
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert str(archive["schema"]) == "grasp/1"
        assert archive["object_id"].dtype.kind == "U"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"old")

    def fail(stream):
        stream.write(b"half")
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="fire"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_for_a_handful(tmp_path):
    path = tmp_path / "p.json"
    row = {"object_id": "mug", "side": "right", "global_orient": [0, 0, 0], "hand_pose": np.zeros((15, 3)).tolist(),
           "transl": [0.1, None, 0]}  # fmt: skip
    other = row | {"transl": [0, 0, 0], "confidence": 0.5, "hand_model": "open"}
    path.write_text(json.dumps({"schema": "grasp/1", "rows": [row, other]}))
    p = read_predictions(path)
    assert np.isnan(p.transl[0, 1])
    assert np.isnan(p.confidence[0])
    assert p.confidence[1] == 0.5
    assert list(row_problems(p)) == [0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not readable JSON"),
        ("[]", "expected"),
        ('{"rows": 3}', "expected"),
        ('{"rows": [3]}', "row 0"),
        ('{"rows": [], "columns": []}', "'columns'"),
        ('{"rows": [{"object_id": "a", "side": "right", "sied": 1}]}', "'sied'"),
        (
            '{"rows": [{"object_id": "a", "side": "right", "keypoints_3d": [[1, 2], [3]]}]}',
            "row 0, column 'keypoints_3d'",
        ),
        ('{"rows": [{"object_id": "a", "side": "right", "transl": ["x", 1, 2]}]}', "row 0, column 'transl'"),
        ('{"rows": [{"object_id": "a", "side": "right", "transl": [1, 2]}]}', "row 0, column 'transl'"),
        ('{"rows": [{"object_id": {}, "side": "right", "transl": [1, 2, 3]}]}', "row 0, column 'object_id'"),
        ('{"rows": [{"object_id": "a", "frame_index": 1}, {"object_id": "a"}]}', "row 1, column 'frame_index'"),
        ("[" * 100_000, "not readable JSON"),
    ],
)
def test_bad_json_is_explained(tmp_path, text, words):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"p\.json") as caught:
        read_predictions(path)
    assert words in str(caught.value)


def test_pickles_and_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "pickled.npz", object_id=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"pickled\.npz.*object_id.*never read"):
        read_predictions(tmp_path / "pickled.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.npz: not a readable \.npz"):
        read_predictions(tmp_path / "text.npz")
    with pytest.raises(FileNotFoundError, match=r"absent\.npz: there is no such file"):
        read_predictions(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match=r"unknown kind of file '\.pkl'.*\.npz"):
        read_predictions(tmp_path / "x.pkl")
    with pytest.raises(ValueError, match=r"unknown kind of file '\.csv'"):
        write_predictions(tmp_path / "x.csv", predictions())


def test_a_declared_size_is_not_believed(tmp_path):
    """A header that promises terabytes must not be given them."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"shape": (10**12, 3), "fortran_order": False, "descr": "<f4"})
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("transl.npy", stream.getvalue() + b"\0" * 12)
    with pytest.raises(ValueError, match=r"transl.*12 bytes do not make"):
        read_predictions(tmp_path / "huge.npz")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from([".npz", ".json"]))
def test_damaged_files_give_our_error_or_a_valid_file(tmp_path, data, suffix):
    whole = write_predictions(tmp_path / f"whole{suffix}", predictions(2)).read_bytes()
    raw = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))]
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(raw)
    try:
        row_problems(read_predictions(path))
    except ValueError as error:
        explained = str(path) in str(error)
    else:
        explained = True
    assert explained


# Objects --------------------------------------------------------------------------------------------

TRIANGLE = "v 0 0 0\nv 0.1 0 0\nv 0 0.1 0\nv 0 0 0.1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\n"


def test_a_folder_of_meshes(tmp_path):
    for name in ("mug.stl", "mug.obj", "box.PLY", "note.txt"):
        (tmp_path / name).write_text(TRIANGLE)
    found = find_objects(tmp_path)
    assert {name: entry.path.name for name, entry in found.items()} == {"mug": "mug.obj", "box": "box.PLY"}
    assert found["mug"].scale is None


def test_a_sidecar_with_scale_and_hash(tmp_path):
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "a.obj").write_text(TRIANGLE)
    (tmp_path / "objects.json").write_text(
        json.dumps({"mug/1": {"mesh": "meshes/a.obj", "scale": 0.5, "sha256": "A" * 64}})
    )
    for found in (
        find_objects(tmp_path),
        find_objects(tmp_path / "objects.json"),
        read_objects(tmp_path / "objects.json"),
    ):
        entry = found["mug/1"]
        assert entry.path == (tmp_path / "meshes" / "a.obj").resolve()
        assert (entry.scale, entry.sha256) == (0.5, "a" * 64)
    with pytest.raises(ValueError, match="sha256"):
        load_object(entry)


@pytest.mark.parametrize("relative", ["../out.obj", "/etc/passwd", "a/../../out.obj", "link/out.obj", "nul\0.obj"])
def test_paths_may_not_leave_the_root(tmp_path, relative):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "out.obj").write_text(TRIANGLE)
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leaves"):
        inside(root, relative, "here")
    (root / "objects.json").write_text(json.dumps({"a": {"mesh": relative}}))
    with pytest.raises(ValueError, match="leaves"):
        find_objects(root)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "expected"),
        ({"a": "b.obj"}, "expected"),
        ({"a": {"mesh": "t.obj", "unit": "mm"}}, "'unit'"),
        ({"a": {"mesh": "t.obj", "scale": 0}}, "scale"),
        ({"a": {"mesh": "t.obj", "scale": True}}, "scale"),
        ({"a": {"mesh": "t.obj", "scale": "mm"}}, "scale"),
        ({"a": {"mesh": "t.obj", "sha256": "abc"}}, "sha256"),
        ({"a": {"mesh": "gone.obj"}}, "gone.obj"),
    ],
)
def test_bad_sidecars_are_explained(tmp_path, document, words):
    (tmp_path / "t.obj").write_text(TRIANGLE)
    (tmp_path / "objects.json").write_text(json.dumps(document))
    with pytest.raises((ValueError, FileNotFoundError), match=r"objects\.json") as caught:
        find_objects(tmp_path)
    assert words in str(caught.value)


def test_missing_folders_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_objects(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="no meshes"):
        find_objects(tmp_path)


# Poses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["right", "left"])
def test_into_the_object_frame_moves_the_whole_hand(model, side):
    p = predictions(6, side=side)
    rows = [4, 0, 5]
    pose, to_camera = hand_poses(p, rows, model), object_poses(p, rows)
    moved = into_object_frame(pose, to_camera, model)
    in_camera = model(pose).vertices.double()
    back = (model(moved).vertices.double() @ to_camera[:, :3, :3].double().mT) + to_camera[:, None, :3, 3].double()
    torch.testing.assert_close(back, in_camera, atol=2e-6, rtol=0)
    again = into_camera_frame(moved, to_camera, model)
    torch.testing.assert_close(model(again).vertices, model(pose).vertices, atol=2e-6, rtol=0)
    torch.testing.assert_close(pose.transl, torch.from_numpy(p.transl[rows]))


def test_without_object_pose_the_frame_is_the_objects(model):
    p = predictions(2, object_pose=None, side="right")
    pose = hand_poses(p, [0, 1], model)
    assert object_poses(p, [0, 1]) is None
    assert into_object_frame(pose, None, model) is pose


def test_betas_of_another_model_count_as_zero(model):
    p = predictions(3, hand_model=["open", "mano", "open"], side="right")
    with pytest.warns(UserWarning, match="betas of the hand model 'mano'"):
        pose = hand_poses(p, slice(None), model)
    assert (pose.betas[1] == 0).all()
    torch.testing.assert_close(pose.betas[[0, 2]], torch.from_numpy(p.betas[[0, 2]]))


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_wrist_stays_where_betas_are_left_out(side, tmp_path, monkeypatch):
    mano_file.write_mano(tmp_path, "right")
    monkeypatch.setenv("MANO_DIR", str(tmp_path))
    mano, ours = load_mano(), load_open_hand()
    p = predictions(4, hand_model=["mano", "open", "mano", "mano"], side=side)
    p.betas[3] = 0
    with pytest.warns(UserWarning, match="the wrist stays"):
        pose = hand_poses(p, slice(None), ours)
    given = HandPose.from_arrays(
        {n: getattr(p, n) for n in ("global_orient", "hand_pose", "betas", "transl")}, side=side
    )
    wrist = ours.joints(pose)[:, 0]
    torch.testing.assert_close(wrist[[0, 2]], mano.joints(given)[[0, 2], 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(wrist[1], ours.joints(given)[1, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(pose.transl[[1, 3]], given.transl[[1, 3]], atol=0, rtol=0)
    monkeypatch.setenv("MANO_DIR", str(tmp_path / "gone"))
    with pytest.warns(UserWarning, match="may move by some millimetres"):
        moved = hand_poses(p, slice(None), ours).transl
    torch.testing.assert_close(moved, given.transl, atol=1e-6, rtol=0)


def test_one_side_at_a_time(model):
    with pytest.raises(ValueError, match="one side"):
        hand_poses(predictions(3), [0, 1, 2], model)


def test_rows_with_joints_alone_are_fitted(model, monkeypatch):
    seen = []

    def fake(joints, model, *, side):
        seen.append(joints)
        return HandPose.zeros(len(joints), side=side)

    monkeypatch.setattr("refine.files.prediction_poses.fit_joints", fake)
    joints = np.random.default_rng(0).normal(size=(3, 29, 3)) * 0.05
    orient = np.random.default_rng(1).normal(size=(3, 3))
    orient[1] = np.nan
    p = predictions(3, side="right", keypoints_3d=joints, global_orient=orient)
    pose = hand_poses(p, [0, 1, 2], model)
    np.testing.assert_allclose(seen[0].numpy(), joints[1:2, :21], rtol=1e-6)
    assert (pose.global_orient[1] == 0).all()
    torch.testing.assert_close(pose.global_orient[[0, 2]], torch.from_numpy(p.global_orient[[0, 2]]))


def test_validation_grasps_make_a_file(validation_folder: Path, tmp_path):
    with np.load(validation_folder / "dexycb_val.npz", allow_pickle=False) as data:
        p = Predictions.from_columns(
            {"object_id": data["object_id"], "side": "right", "hand_model": "mano", "keypoints_3d": data["joints"]}
        )
    assert row_problems(p) == {}
    assert len(read_predictions(write_predictions(tmp_path / "p.npz", p))) == len(p)
    assert set(p.object_id) <= set(find_objects(validation_folder / "ycb"))
