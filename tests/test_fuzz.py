"""Damaged and hostile files: every reader says what is wrong with one of our errors, and touches nothing else.

Valid files of every format are damaged in three ways: bytes (flipped, cut, doubled, inserted), numbers in texts
(replaced by extremes), and whole values in JSON, .npz and pickles (replaced by values of another kind, with the
container kept valid). ``FUZZ_FILES=10000 pytest tests/test_fuzz.py -m slow`` runs as many files.
"""

from __future__ import annotations

import copy
import functools
import io
import itertools
import json
import os
import pickle
import re
import sys
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from format_files import hands, hands_in_span, principal, text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mano_file import write_mano
from record_forms import Form, content, forms, mano_read_once, reads, with_damage
from test_formats_datasets import arctic, contactpose, fhab, forms48, grab
from test_formats_dexycb import dataset as dexycb
from test_formats_hamer import output as hamer
from test_formats_ho3d import dataset as ho3d
from test_formats_ho3d import pred
from test_formats_images import demo_mesh
from test_formats_keypoints import json_forms, mediapipe_forms, more_forms
from test_formats_parameters import fhab_fits, graspxl, hawor_arrays, hoi4d, hot3d, interhand, oakink2

from hand_models import HandPose, MissingManoError, load_open_hand, safe_pickle
from refine.files.formats import BUILT_IN, read_any
from refine.files.object_files import find_objects
from refine.files.prediction_files import write_predictions
from refine.files.predictions import Predictions, row_problems

OUR_ERRORS = (ValueError, FileNotFoundError, MissingManoError)
MOST_SECONDS = 5.0
UNFORESEEN = "nobody thought of"


@dataclass(frozen=True)
class Sample:
    """A valid file, and how it is read."""

    name: str
    path: Path
    """the file that is damaged"""
    read: Callable[[], Any]
    content: bytes
    alone: bool
    """whether it is all that is read; in a folder, other files go on without a damaged one"""


# Valid files ----------------------------------------------------------------------------------------


def samples(root: Path, mano_dir: Path) -> list[Sample]:
    """A file of every format, in small."""
    rng = np.random.default_rng(0)
    found: list[tuple[str, Path, Path, dict[str, Any]]] = []  # format, damaged file, path that is read, options

    def add(name: str, damaged: Path, read: Path | None = None, **options: Any) -> None:
        found.append((name, damaged, read or damaged, options))

    table = {
        "object_id": np.array(["mug", "cup"]),
        "side": np.array(["right", "left"]),
        "global_orient": rng.normal(size=(2, 3)),
        "hand_pose": np.zeros((2, 15, 3)),
        "transl": np.zeros((2, 3)),
        "object_pose": np.tile(np.eye(4), (2, 1, 1)),
        "keypoints_3d": rng.normal(size=(2, 21, 3)) * 0.05,
    }
    for suffix in (".npz", ".json", ".parquet"):
        add("grasp", write_predictions(root / f"table{suffix}", Predictions.from_columns(table)))
    hand = hands(3)
    np.savez(root / "hamer.npz", **hamer(hand))
    add("hamer", root / "hamer.npz", focal=600.0)
    lists = {name: value.tolist() for name, value in hamer(hand).items()}
    add("hamer", text(root / "hamer.json", json.dumps(lists)), side="right")
    (root / "hamer.pkl").write_bytes(pickle.dumps([hamer(hand)]))
    add("hamer", root / "hamer.pkl")
    torch.save(hamer(hand), root / "hamer.pt")
    add("wilor", root / "hamer.pt", camera="600,600,320,240")
    (root / "frames.pkl").write_bytes(pickle.dumps({"a.jpg": [hamer(hand)], "b.jpg": []}))
    add("wilor", root / "frames.pkl", image_size=(640, 480))
    demo_mesh(root / "a_0.obj", hand.vertices[0], True)
    add("hamer", root / "a_0.obj", mano_dir=mano_dir)
    folder = ho3d(root / "ho3d", hand)
    for damaged in sorted(folder.glob("**/meta/*.pkl"))[:1]:
        add("ho3d", damaged)
        add("ho3d", damaged, folder)
    names = text(root / "evaluation.txt", "a/0\n")
    one = hands(1)
    add("ho3d", pred(root / "pred.json", one), frames=names)
    add("ho3d", names, root / "pred.json", frames=names)
    labels = dexycb(root / "dexycb", hands_in_span(1, "right", 45, flat=False))
    for damaged in (
        labels / "labels_000001.npz",
        labels.parent / "meta.yml",
        *(root / "dexycb/calibration").glob("**/*.yml"),
    ):
        add("dexycb", damaged, labels, mano_dir=mano_dir)
    row = ",".join(["7", *map(str, rng.normal(size=63) * 50)])
    add("dexycb", text(root / "hpe.txt", row + "\n"))
    joints = rng.normal(size=(2, 21, 3)) * 0.04 + [0, 0, 0.6]
    header = "frame_id,side," + ",".join(f"x{k}" for k in range(63))
    lines = [f"{k},right," + ",".join(map(str, j.ravel())) for k, j in enumerate(joints)]
    add("keypoints", text(root / "joints.csv", "\n".join([header, *lines])))
    for k, form in enumerate(json_forms(np.repeat(joints, 2, 0)[:3])):
        add("keypoints", text(root / f"joints{k}.json", json.dumps(form)))
    np.save(root / "joints.npy", joints)
    add("keypoints", root / "joints.npy")
    for name, form in mediapipe_forms(joints[:1]).items():
        add("mediapipe", text(root / f"{name}.json", json.dumps(form)), image_size=(640, 480))
    skeleton = fhab(root / "fhab", joints * 1000, np.tile(np.eye(4), (2, 1, 1)))
    add("fhab", skeleton, object_id="salt")
    add("fhab", next((root / "fhab").glob("**/object_pose.txt")), skeleton)
    fits, _ = contactpose(root / "contactpose")
    add("contactpose", fits, mano_dir=mano_dir)
    add("contactpose", fits.with_name("annotations.json"), fits.parent, mano_dir=mano_dir)
    demo = {"beta": [0.1] * 10, "pose": principal(hand, "right", 18, flat=False)[0].tolist(), "trans": [0.0, 0.1, 0.2]}
    add("contactopt", text(root / "demo.json", json.dumps(demo)), mano_dir=mano_dir)
    sequence, *_ = grab(root / "grab")
    add("grab", sequence, mano_dir=mano_dir)
    for template in sorted((root / "grab").glob("**/*.ply"))[:1]:
        add("grab", template, sequence, mano_dir=mano_dir)
    parameters, *_ = arctic(root / "arctic")
    add("arctic", parameters, mano_dir=mano_dir, view=1)
    add("arctic", parameters.with_name("box_grab_01.object.npy"), parameters, mano_dir=mano_dir)
    add("arctic", root / "arctic/meta/misc.json", parameters, mano_dir=mano_dir, view=2)
    for name, fields in forms48(hand).items():
        path = root / name
        if path.suffix == ".npz":
            np.savez(path, **fields)
        else:
            path.write_bytes(json.dumps(fields).encode() if path.suffix == ".json" else pickle.dumps(fields))
        add("pose48", path, mano_dir=mano_dir)
    made_by = root / "parameters"
    add("interhand", interhand(made_by), mano_dir=mano_dir)
    posed = hoi4d(made_by)
    add("hoi4d", posed / "4.pickle")
    add("hoi4d", posed / "4.pickle", posed)
    add("oakink2", oakink2(made_by), mano_dir=mano_dir, object_id="O02@01")
    add("hot3d", hot3d(made_by)[0], mano_dir=mano_dir)
    add("graspxl", graspxl(made_by), mano_dir=mano_dir)
    np.savez(root / "hawor.npz", **hawor_arrays())
    add("hawor", root / "hawor.npz", mano_dir=mano_dir)
    add("fhab", fhab_fits(made_by))
    recording = labels.parent / "pose.npz"
    np.savez(recording, pose_m=np.ones((3, 1, 51)), pose_y=np.ones((3, 2, 7)))
    add("dexycb", recording, mano_dir=mano_dir)
    (root / "joints.pkl").write_bytes(pickle.dumps([joints[0], None, joints[1]]))
    add("keypoints", root / "joints.pkl")
    np.save(root / "61.npy", np.c_[hand.orient, hand.pose.reshape(3, 45), hand.betas, hand.transl])
    add("pose48", root / "61.npy", layout="pose,betas,transl", mano_dir=mano_dir)
    for name, form in more_forms(joints[:1]).items():
        if name.startswith(("arrays", "holistic tasks")):
            np.savez(root / f"{name}.npz", **form) if "arrays" in name else text(
                root / f"{name}.json", json.dumps(form)
            )
            add("mediapipe", root / (name + (".npz" if "arrays" in name else ".json")), image_size=(640, 480))
    (root / "objects").mkdir()
    trimesh.creation.box((60, 50, 80)).export(root / "objects/mug.obj")
    corners = np.array(list(itertools.product((-0.03, 0.03), (-0.025, 0.025), (0.56, 0.64))))
    flat = load_open_hand()(HandPose.zeros(1)).joints[0].numpy() + np.array([0, 0, 0.6])
    points = np.concatenate([flat, corners]).tolist()
    graph = {"format": "graph/1", "object_id": "mug", "side": "right", "keypoints_3d": points, "objects": "objects"}
    add("graph", text(root / "graph.json", json.dumps(graph)))
    sidecar = text(root / "objects/objects.json", json.dumps({"mug": {"mesh": "mug.obj", "scale": 0.001}}))
    made = [
        Sample(
            name,
            damaged,
            functools.partial(read_any, path, source=name, **options),
            damaged.read_bytes(),
            damaged == path,
        )
        for name, damaged, path, options in found
    ]
    sniffed = [replace(s, name="sniffed", read=functools.partial(read_any, s.path), alone=True) for s in made[::3]]
    objects = functools.partial(find_objects, sidecar.parent)
    return [*made, *sniffed, Sample("objects", sidecar, objects, sidecar.read_bytes(), False)]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Sample]]:
    """The samples; MANO is read once, since it is not what is damaged."""
    root = tmp_path_factory.mktemp("fuzz")
    write_mano(root / "mano")
    write_mano(root / "mano", "left")
    with mano_read_once():
        yield samples(root, root / "mano")


# Damage ---------------------------------------------------------------------------------------------

EXTREMES = [
    b"nan",
    b"-inf",
    b"1e999",
    b"-1",
    b"0",
    b"99999999999999999999",
    b"1e-320",
    b'""',
    b"null",
    b"[]",
    b"../..",
    b"\x00",
]
ODD = [
    None, True, -1, 0, 10**30, float("nan"), float("inf"), "", "../../../etc/passwd", "\x00", "x" * 300, [], {}, [[]],
    [None], {"a": 1}, [[1, 2], [3]], [1e308] * 3, [0.0] * 10, [0.0] * 45, [0.0] * 48, [[[0.0] * 3] * 21], 1 + 2j,
    np.zeros(0), np.zeros((0, 3)), np.zeros((2, 3, 4)), np.full(3, np.nan), np.full((1, 51), np.inf), np.array("x"),
    np.array([None]), np.zeros((1, 48), np.float16), np.array(["a", "b"]), np.zeros(3, "M8[s]"), np.ones((3, 3), bool),
]  # fmt: skip
KINDS = ["flip", "cut", "double", "insert", "zero", "number"]
edits = st.lists(
    st.tuples(st.sampled_from(KINDS), st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4
)
places = st.lists(st.integers(0, 40), min_size=1, max_size=6)


def damage_bytes(content: bytes, changes: list[tuple[str, float, int]]) -> bytes:
    data = bytearray(content)
    for kind, where, value in changes:
        at = int(where * len(data))
        if kind == "flip" and data:
            data[at] ^= value or 1
        elif kind == "cut":
            del data[at : at + 1 + value * (value > 127) * 8]
        elif kind == "double":
            data[at:at] = data[at : at + value + 1]
        elif kind == "insert":
            data[at:at] = bytes([value]) * (1 + value % 5)
        elif kind == "zero":
            data[at : at + 4] = b"\xff" * 4 if value % 2 else b"\0" * 4
        elif kind == "number":
            numbers = list(re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", bytes(data[at : at + 400])))
            if numbers:
                found = numbers[value % len(numbers)]
                data[at + found.start() : at + found.end()] = EXTREMES[value % len(EXTREMES)]
    return bytes(data)


def damage_value(tree: Any, path: list[int], odd: Any) -> Any:
    """``tree`` with the value at ``path`` (turns taken at each container) replaced, removed or renamed."""
    turn, *rest = path
    if isinstance(tree, dict) and tree:
        name = list(tree)[turn % len(tree)]
        if rest:
            return tree | {name: damage_value(tree[name], rest, odd)}
        left = {key: value for key, value in tree.items() if key != name}
        return left if turn % 3 == 0 else tree | {name: odd}
    if isinstance(tree, list) and tree:
        at = turn % len(tree)
        new = damage_value(tree[at], rest, odd) if rest else odd
        return [*tree[:at], new, *tree[at + 1 :]]
    return odd


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value if isinstance(value, dict | str | int | float | type(None)) else str(value)


def wrapped(value: Any) -> np.ndarray:
    """What numpy makes of a value; an array of one object where it makes nothing of it."""
    if isinstance(value, np.ndarray):
        return value
    holder = np.empty((), object)
    holder[()] = value
    if isinstance(value, dict):
        return holder
    try:
        return np.asarray(value)
    except (ValueError, OverflowError):
        return holder


def damage_tree(sample: Sample, path: list[int], odd: Any) -> bytes:
    """The file with one value in it replaced; the file itself stays readable. Texts lose a line instead."""
    suffix, stream = sample.path.suffix, io.BytesIO()
    if suffix == ".jsonl":
        lines = [json.loads(line) for line in sample.content.splitlines()]
        return "\n".join(map(json.dumps, map(plain, damage_value(lines, path, plain(odd))))).encode("utf-8", "replace")
    if suffix == ".json":
        return json.dumps(damage_value(json.loads(sample.content), path, plain(odd))).encode("utf-8", "replace")
    if suffix in (".pkl", ".pickle"):
        return pickle.dumps(damage_value(pickle.loads(sample.content), path, odd))
    if suffix == ".npz":
        with np.load(io.BytesIO(sample.content), allow_pickle=True) as archive:
            content = {name: archive[name] for name in archive.files}
        unwrapped = {k: v.item() if v.dtype == object and v.shape == () else v for k, v in content.items()}
        changed = damage_value(unwrapped, path, odd)
        changed = changed if isinstance(changed, dict) else {"value": changed}
        np.savez(stream, **{str(name): wrapped(value) for name, value in changed.items()})
        return stream.getvalue()
    if suffix == ".npy":
        array = np.load(io.BytesIO(sample.content), allow_pickle=True)
        tree = array.item() if array.dtype == object and array.shape == () else array
        np.save(stream, wrapped(damage_value(tree, path, odd)))
        return stream.getvalue()
    lines = sample.content.splitlines(keepends=True)
    del lines[path[0] % len(lines)]
    return b"".join(lines)


# The checks -----------------------------------------------------------------------------------------


class _Watch:
    """Files opened for writing, processes started and names changed while it is on, by Python's audit events."""

    on = False
    seen: list[str] = []  # noqa: RUF012 - one list, since audit hooks stay for good

    @classmethod
    def hook(cls, event: str, arguments: tuple[Any, ...]) -> None:
        cache = os.environ.get("REGRASP_CACHE")  # distance grids of meshes are kept there
        if not cls.on or (cache and arguments and str(arguments[0]).startswith(cache)):
            return
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(mode, str) and any(c in mode for c in "wax+")
            if isinstance(path, int):
                return  # a descriptor, whose opening was an event of its own
            if writes or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                cls.seen.append(f"{event} {path!r}")
        elif event.split(".")[0] in ("subprocess", "shutil", "socket") or event in (
            "os.system", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.exec",
        ):  # fmt: skip
            cls.seen.append(event)


sys.addaudithook(_Watch.hook)


@contextmanager
def nothing_is_touched() -> Iterator[None]:
    _Watch.seen.clear()
    _Watch.on = True
    try:
        yield
    finally:
        _Watch.on = False
    assert _Watch.seen == []


def check(sample: Sample, damaged: bytes) -> str:
    """Read ``damaged`` in the place of the sample's file: "read", or the kind of our error."""
    sample.path.write_bytes(damaged)
    try:
        with warnings.catch_warnings(), nothing_is_touched():
            warnings.simplefilter("ignore")
            result = sample.read()
            if isinstance(result, Predictions):
                row_problems(result)
    except OUR_ERRORS as error:
        cause = error.__cause__
        if cause is not None and not isinstance(cause, OUR_ERRORS):
            return f"{UNFORESEEN} {sample.name}: {cause!r}"
        return type(error).__name__ if str(error) else "no message"
    finally:
        sample.path.write_bytes(sample.content)
    if isinstance(result, Predictions) and len(result) < 100:
        stream = io.BytesIO()
        np.savez(stream, **result.columns())
    return "read"


def test_the_samples_are_valid(cases):
    assert {case.name for case in cases} >= {"objects", "sniffed", *BUILT_IN}
    kinds = {(case.name, case.path.name): check(case, case.content) for case in cases if case.name != "sniffed"}
    assert {case: kind for case, kind in kinds.items() if kind != "read"} == {}


FAST = settings(max_examples=3, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@FAST
@given(changes=edits, path=places, odd=st.sampled_from(ODD))
def test_damaged_files(cases, changes, path, odd):
    for case in cases:
        for damaged in (damage_bytes(case.content, changes), damage_tree(case, path, copy.deepcopy(odd))):
            assert not check(case, damaged).startswith(UNFORESEEN)


@FAST
@given(content=st.binary(max_size=200))
def test_files_of_random_bytes(cases, content):
    for case in cases:
        assert not check(case, content).startswith(UNFORESEEN)


HOSTILE = {
    "code": pickle.dumps(os.getcwd),
    "a call": b"cos\nsystem\n(S'true'\ntR.",
    "an attribute": b"cnumpy\nndarray\n(K\x01tR}X\x01\x00\x00\x00aK\x01sb.",
    "much memory": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L9999999999L\ntS'b'\ntR.",
    "deep nesting": b"(" * 20000 + b"." ,
    "itself": b"(lp0\ng0\na.",
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_pickles(cases, what):
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(69) + b"\n"
    npy = np.lib.format.magic(1, 0) + b"\x46\x00" + header
    for case in cases:
        if case.path.suffix in (".pkl", ".npy"):
            kind = check(case, (npy if case.path.suffix == ".npy" else b"") + HOSTILE[what])
            assert not kind.startswith(UNFORESEEN)
            assert kind != "read" or not case.alone


def test_archives_are_not_unpacked_and_bombs_are_refused(cases, tmp_path):
    """Members named to leave the folder, members that unpack to gigabytes: nothing is written."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escaped.npy", b"x")
        archive.writestr("/etc/escaped.npy", b"x")
    for case in cases:
        if case.path.suffix == ".npz" and case.alone:
            assert check(case, stream.getvalue()) != "read"
    assert not list(tmp_path.parent.glob("**/escaped*"))


def test_unpickler_of_formats_is_the_guarded_one():
    from refine.files.formats import files

    assert files.unpickle is safe_pickle.unpickle


@pytest.mark.slow
def test_many_files(cases, tmp_path):
    """As many damaged files as FUZZ_FILES says, spread over the formats; none takes more than five seconds.

    A quarter has one damaged record of several, and must have as many rows as records, or be refused. The counts are
    written to FUZZ_REPORT (`benchmarks/fuzz_readers.py`).
    """
    total, slowest, kinds = int(os.environ.get("FUZZ_FILES", "10000")), 0.0, {}
    rng = np.random.default_rng(int(os.environ.get("FUZZ_SEED", "0")))
    records, lost = [form for form in forms(tmp_path).values() if form.suffix != ".npz"], 0
    for done in range(total):
        started = time.process_time()
        if done % 4 == 3:
            kind = _one_damaged_record(records[done // 4 % len(records)], rng, tmp_path)
            lost += kind == "lost"
        else:
            kind = _one_damaged_file(cases[done % len(cases)], rng)
        seconds = time.process_time() - started
        slowest = max(slowest, seconds)
        kinds[kind] = kinds.get(kind, 0) + 1
    report = {"files": total, "slowest_s": round(slowest, 2), "lost": lost, "kinds": kinds}
    if path := os.environ.get("FUZZ_REPORT"):
        Path(path).write_text(json.dumps(report))
    assert set(kinds) <= {"read", "ValueError", "UnsafePickleError", "FileNotFoundError", "MissingManoError"}, report
    assert slowest < MOST_SECONDS


def _one_damaged_file(case: Sample, rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        changes = [
            (KINDS[rng.integers(len(KINDS))], float(rng.random()), int(rng.integers(256)))
            for _ in range(rng.integers(1, 5))
        ]
        damaged = damage_bytes(case.content, changes)
    else:
        path = rng.integers(0, 40, rng.integers(1, 7)).tolist()
        damaged = damage_tree(case, path, copy.deepcopy(ODD[rng.integers(len(ODD))]))
    try:
        return check(case, damaged)
    except Exception as error:  # all of them are wanted, not the first
        return _unforeseen(case.name, error)


def _one_damaged_record(form: Form, rng: np.random.Generator, folder: Path) -> str:
    path = folder / f"file{form.suffix}"
    odd = [value for value in ODD if not _is_no_hand(value)]  # which is no damage, but a frame without a hand
    path.write_bytes(content(form, with_damage(form, rng, copy.deepcopy(odd[rng.integers(len(odd))]))))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return "read" if len(reads(form)(path)) == form.rows else "lost"
    except OUR_ERRORS as error:
        return type(error).__name__
    except Exception as error:
        return _unforeseen(form.source, error)


def _is_no_hand(value: Any) -> bool:
    """Whether it is what stands for nothing: None, an empty list or dictionary, or a list of those."""
    value = value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value
    return value is None or (isinstance(value, list | dict) and all(map(_is_no_hand, value)))


def _unforeseen(name: str, error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{UNFORESEEN} {name}: {error!r} at {where.filename}:{where.lineno}"[:400]
