"""The registry of formats, `regrasp convert`, and docs/formats.md."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import trimesh
from format_files import hands, text
from test_formats_ho3d import dataset, pred
from test_formats_keypoints import mediapipe_forms

from refine.commands import cli, convert, format_options, refine
from refine.files import formats
from refine.files.formats import BUILT_IN, all_formats, get_format, read_any, read_with, sniff, write_with
from refine.files.formats.files import read_yaml
from refine.files.formats.format import options_of
from refine.files.formats.known import KNOWN
from refine.files.formats.object_poses import poses_of_rows
from refine.files.input_files import pieces
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.predictions import COLUMNS, Predictions, row_problems

DOCS = Path(__file__).resolve().parents[1] / "docs" / "formats.md"


def predictions(count: int = 2) -> Predictions:
    rng = np.random.default_rng(0)
    joints = rng.normal(size=(count, 21, 3)) * 0.03 + [0, 0, 0.5]
    return Predictions.from_columns(
        {
            "object_id": np.full(count, "mug"),
            "side": np.full(count, "right"),
            "keypoints_3d": joints,
            "object_pose": np.tile(np.eye(4), (count, 1, 1)),
        }
    )


# The registry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_format_keeps_to_the_protocol(name, tmp_path):
    form = get_format(name)
    assert form.name == name
    assert form.description
    for odd in (tmp_path, tmp_path / "missing.json", text(tmp_path / "a.txt", "hello")):
        assert form.sniff(odd) is False
    with pytest.raises(FileNotFoundError):
        read_with(form, tmp_path / "missing.npz")
    with pytest.raises(ValueError, match="'speed' does not apply"):
        read_with(form, tmp_path / "a.txt", speed=3)
    if name != "grasp":
        source = sys.modules[form.read.__module__].__doc__
        assert re.search(r"Sources? of truth|Nobody's format|Ours,", source)


def test_unknown_formats_are_listed(tmp_path):
    with pytest.raises(ValueError, match="hamer, wilor, ho3d, dexycb"):
        get_format("smpl")
    with pytest.raises(ValueError, match="Tried:") as error:
        sniff(text(tmp_path / "a.txt", "hello"))
    assert all(f"\n  {name}: " in str(error.value) for name in all_formats())
    with pytest.raises(FileNotFoundError):
        sniff(tmp_path / "nothing")


def test_formats_that_are_only_read_say_which_are_written(tmp_path):
    with pytest.raises(ValueError, match="grasp, ho3d, dexycb, keypoints, contactopt"):
        write_with(get_format("hamer"), tmp_path / "a.npz", predictions())


def test_a_file_that_could_be_two_formats_asks(tmp_path):
    content = json.dumps({"joints": [], "worldLandmarks": []})
    with pytest.raises(ValueError, match="keypoints or mediapipe"):
        sniff(text(tmp_path / "a.json", content))


@pytest.mark.parametrize("suffix", [".npz", ".json", ".parquet"])
def test_grasp_itself(tmp_path, suffix):
    path = write_predictions(tmp_path / f"a{suffix}", predictions())
    assert sniff(path) == "grasp"
    np.testing.assert_array_equal(read_any(path).keypoints_3d, predictions().keypoints_3d)


@pytest.mark.parametrize("suffix", [".npz", ".json", ".parquet"])
def test_what_a_table_lacks_can_be_said(tmp_path, suffix):
    columns = {name: np.zeros((2, *shape)) for name, shape in (("global_orient", (3,)), ("hand_pose", (15, 3)))}
    columns |= {"transl": np.ones((2, 3))}
    path = tmp_path / f"bare{suffix}"
    if suffix == ".npz":
        np.savez(path, **columns)
        assert sniff(path) == "grasp"
    elif suffix == ".json":
        rows = [{name: value[k].tolist() for name, value in columns.items()} for k in range(2)]
        path.write_text(json.dumps({"schema": "grasp/1", "rows": rows}))
    else:
        pyarrow = pytest.importorskip("pyarrow.parquet")
        import pyarrow as pa

        pyarrow.write_table(pa.table({n: v.reshape(2, -1).tolist() for n, v in columns.items()}), path)
    with pytest.raises(ValueError, match="'object_id' is missing"):
        read_any(path, source="grasp", side="left")
    p = read_any(path, source="grasp", object_id="mug", side="left")
    assert (p.object_id.tolist(), p.side.tolist()) == (["mug"] * 2, ["left"] * 2)
    named = write_predictions(tmp_path / "named.npz", predictions())
    assert read_any(named, object_id="cup").object_id.tolist() == predictions().object_id.tolist()


def test_messages_begin_with_the_file(tmp_path):
    path = text(tmp_path / "a.csv", "1," * 62 + "1\n")
    with pytest.raises(ValueError, match="unit") as error:
        read_any(path, source="keypoints", unit="inch")
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("form", ["npy", "json", "txt", "csv"])
def test_object_poses_from_files(tmp_path, form):
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[:, :3, 3] = [[1, 2, 3], [4, 5, 6]]
    path = tmp_path / f"poses.{form}"
    if form == "npy":
        np.save(path, poses)
    elif form == "json":
        path.write_text(json.dumps(poses[:, :3].tolist()))
    else:
        np.savetxt(path, poses.reshape(2, 16), delimiter="," if form == "csv" else " ")
    np.testing.assert_array_equal(poses_of_rows(path, predictions(2)), poses)
    with pytest.raises(ValueError, match=r"got shape \(2, 4, 4\).*\(3, 4, 4\)"):
        poses_of_rows(path, predictions(3))
    with pytest.raises(FileNotFoundError):
        poses_of_rows(tmp_path / "none.npy", predictions(2))


def test_yaml_as_datasets_write_it(tmp_path):
    content = "# head\n---\na: 1\nb:\n- x\n- 'y z'\nc: [1, 2]\nd:\n  fx: 3.5\n  e:\n  - 7\nempty:\n"
    path = text(tmp_path / "a.yml", content)
    expected = {"a": 1, "b": ["x", "y z"], "c": [1, 2], "d": {"fx": 3.5, "e": [7]}, "empty": None}
    assert read_yaml(path) == expected
    for wrong in ("- a\n", "a\n", "a: b: 1\n", "a: !!python/object:os.system\n- {b\n  c"):
        with pytest.raises(ValueError, match="line"):
            read_yaml(text(path, wrong))


# Formats of other packages --------------------------------------------------------------------------

FOREIGN = """
from refine.files.formats import Format
from refine.files.formats.keypoints import FORMAT as joints

def read(path, *, hz: float = 30.0):
    \"\"\"Read.

    Args:
        hz: frames a second.
    \"\"\"
    return joints.read(path.with_suffix(".json"))

FORMAT = Format("foreign", read, None, lambda path: path.suffix == ".foreign", "what a foreign package reads")
"""


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Installs a package whose formats are given as ``name = object`` lines."""

    def install(name: str, *lines: str) -> None:
        site = tmp_path / f"site_{name}"
        points = "\n".join(["[regrasp.formats]", *lines])
        text(site / f"{name}.py", FOREIGN)
        text(site / f"{name}-1.0.dist-info" / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        text(site / f"{name}-1.0.dist-info" / "entry_points.txt", points)
        monkeypatch.syspath_prepend(site)

    formats._from_other_packages.cache_clear()
    yield install
    formats._from_other_packages.cache_clear()


def test_another_package_brings_a_format(tmp_path, distribution, capsys):
    distribution("foreign_hands", "foreign = foreign_hands:FORMAT")
    write_with(get_format("keypoints"), tmp_path / "a.json", predictions())
    path = text(tmp_path / "a.foreign", "")
    assert sniff(path) == "foreign"
    np.testing.assert_allclose(read_any(path, hz=25.0).keypoints_3d, predictions().keypoints_3d, atol=1e-6)
    assert list(all_formats()) == [*BUILT_IN, "foreign"]
    with pytest.raises(ValueError, match="hawor, foreign"):
        get_format("smpl")
    assert cli.main(["convert", str(path), str(tmp_path / "b.csv"), "--to", "keypoints", "--hz", "25"]) == 0
    with pytest.raises(SystemExit):
        cli.main(["refine", "--help"])
    assert "Frames a second (foreign)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("broken = faulty_hands:NOTHING", "faulty_hands: its format 'broken' does not load.*AttributeError"),
        ("broken = no_such_module:FORMAT", "faulty_hands: its format 'broken' does not load.*ModuleNotFoundError"),
        ("broken = faulty_hands:read", "faulty_hands: its format 'broken' does not load.*not a Format"),
        ("ho3d = faulty_hands:FORMAT", "faulty_hands: its format 'ho3d' is left out"),
    ],
)  # fmt: skip
def test_a_format_that_does_not_load_is_warned_of_and_left_out(tmp_path, distribution, line, words):
    distribution("faulty_hands", line)
    with pytest.warns(UserWarning, match=words):
        known = all_formats()
    assert list(known) == list(BUILT_IN)
    assert known["ho3d"].read.__module__ == "refine.files.formats.ho3d"
    assert sniff(write_predictions(tmp_path / "a.npz", predictions())) == "grasp"  # and all else goes on


# The commands' options -------------------------------------------------------------------------------


def test_formats_agree_on_what_an_option_is():
    """One command line serves all formats, so an option's type may not depend on which it is for."""
    kinds: dict[str, object] = {}
    for form in all_formats().values():
        for name, kind in (options_of(form.read) | options_of(form.write)).items():
            simple = format_options._on_command_line(kind)
            assert kinds.setdefault(name, simple) == simple, f"{form.name}: {name}"


def test_refine_and_convert_offer_what_formats_understand():
    readers = {name for form in all_formats().values() for name in options_of(form.read)}
    writers = {name for form in all_formats().values() for name in options_of(form.write)}
    own = {"mano_dir", "camera", "focal", "input_error", "object_poses", "holding"}
    assert {f.name for f in fields(refine._OF_FORMATS.constructor_factory())} | own == readers | {*KNOWN}
    assert {f.name for f in fields(convert._OF_FORMATS.constructor_factory())} == readers | writers | {*KNOWN}
    for form in all_formats().values():
        for name in options_of(form.read):
            assert format_options._meaning(form.read, name), f"{form.name}: {name} is not in the docstring"


def test_refine_hands_the_readers_options_on(tmp_path, monkeypatch):
    points = predictions().keypoints_3d
    path = text(tmp_path / "hands.json", json.dumps(mediapipe_forms(points)["javascript"]))
    np.save(tmp_path / "pose.npy", np.eye(4))
    seen = {}

    def refine_files(inputs, out, config, execution, options):
        (item,) = inputs
        (seen["rows"],) = pieces(item.path, item.form, 512, options=options)
        return iter(())

    monkeypatch.setattr("refine.commands.refine.refine_files", refine_files)
    trimesh.creation.box((0.05, 0.05, 0.05)).export(tmp_path / "mug.ply")
    arguments = ["--from", "mediapipe", "--objects", str(tmp_path), "--out", str(tmp_path / "out")]
    options = ["--object-id", "mug", "--object-pose", str(tmp_path / "pose.npy"), "--focal", "600"]
    assert cli.main(["refine", str(path), *arguments, *options, "--image-size", "640", "480"]) == 0
    wanted = read_any(path, image_size=(640, 480), focal=600.0, object_id="mug", object_pose=np.eye(4))
    for name, value in wanted.columns().items():
        np.testing.assert_array_equal(seen["rows"].column(name), value, err_msg=name)
    assert row_problems(wanted) == {}


# The command ----------------------------------------------------------------------------------------


def test_convert_from_ho3d(tmp_path, capsys):
    folder = dataset(tmp_path / "HO3D", hands(3, place=(0.0, 0, -0.7)))
    out = tmp_path / "out" / "abf10.npz"
    assert cli.main(["convert", str(folder), str(out), "--from", "ho3d", "--to", "grasp"]) == 0
    assert "3 rows: ho3d → grasp" in capsys.readouterr().out
    np.testing.assert_array_equal(read_predictions(out).transl, read_any(folder).transl)
    assert cli.main(["convert", str(folder), str(tmp_path / "b.json")]) == 0  # the format is found by looking
    assert len(read_predictions(tmp_path / "b.json")) == 3


def test_convert_says_what_is_missing_for_refining(tmp_path, capsys):
    path = pred(tmp_path / "pred.json", hands(2, place=(0.0, 0, -0.7)))
    assert cli.main(["convert", str(path), str(tmp_path / "a.npz")]) == 1
    assert "Give --object-id" in capsys.readouterr().err
    np.save(tmp_path / "pose.npy", np.eye(4))
    options = ["--object-id", "mug", "--object-pose", str(tmp_path / "pose.npy")]
    assert cli.main(["convert", str(path), str(tmp_path / "a.npz"), *options]) == 0


def test_convert_to_what_others_read(tmp_path):
    path = write_predictions(tmp_path / "a.npz", predictions())
    assert cli.main(["convert", str(path), str(tmp_path / "a.csv"), "--to", "keypoints", "--unit", "mm"]) == 0
    assert cli.main(["convert", str(path), str(tmp_path / "hpe.txt"), "--to", "dexycb", "--kind", "hpe"]) == 0
    assert len((tmp_path / "hpe.txt").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.npz", "b.npz", "--order", "mano"], "--order: neither grasp takes it when read nor grasp"),
        (["a.npz", "a.npz"], "is the input"),
        (["a.npz", "b.npz", "--to", "hamer"], "is only read"),
        (["a.npz", "b.npz", "--from", "smpl"], "'smpl' is not known"),
        (["nothing.npz", "b.npz"], "no such file"),
        (["a.npz", "b.xyz"], "unknown kind of file"),
    ],
)
def test_convert_faults(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_predictions(tmp_path / "a.npz", predictions())
    assert cli.main(["convert", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz"]


# The documentation ----------------------------------------------------------------------------------


def table_rows() -> list[list[str]]:
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_docs_list_every_column_with_its_shape():
    documented = {name: row for row in table_rows() for name in re.findall(r"`(\w+)`", row[0])}
    assert set(COLUMNS) <= set(documented)
    for name, column in COLUMNS.items():
        shapes = [str(("N", *shape)).replace("'", "").replace("-1", "n") for shape in column.shapes]
        assert documented[name][1] == " or ".join(shapes), name


def test_docs_list_every_format():
    rows = {row[0].strip("`"): row for row in table_rows() if len(row) == 7}
    others = [name for name in BUILT_IN if name != "grasp"]
    assert set(others) <= set(rows)
    for name in others:
        assert bool(rows[name][2]) == (get_format(name).write is not None), name


def test_every_form_in_the_docs_has_its_test():
    section = DOCS.read_text().partition("## Forms that are read")[2].partition("\n## ")[0]
    named = re.findall(r"^\|.*\| `(\w+)` \|$", section, re.M)
    tests = Path(__file__).parent.glob("test_*.py")
    defined = {name for file in tests for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)}
    assert len(named) > 30
    assert [name for name in named if name not in defined] == []
    assert len(named) == len([line for line in section.splitlines() if line.startswith("| ")]) - 1
