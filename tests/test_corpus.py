"""The grasp corpus: what a file holds, resuming, refusing another recipe, independence of the workers."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from contact.corpus import CorpusConfig, build_corpus, corpus_hash, load_corpus
from contact.corpus import corpus as module
from contact.corpus.corpus import build_object, object_path
from contact.corpus.placement import SynthesisConfig
from contact.corpus.shapes import FAMILIES
from contact.field import field_from_pose
from contact.objects import ObjectMesh
from hand_models import load_open_hand
from refine.commands.corpus import corpus as corpus_command

SMALL = CorpusConfig(objects=2, workers=1, resolution=32, grasps_per_object=5, synthesis=SynthesisConfig(candidates=10))


class InThisProcess:
    """Stands in for the pool of processes."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None: ...


def contents(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    files = {}
    for path in sorted(folder.glob("object_*.npz")):
        with np.load(path, allow_pickle=False) as data:
            files[path.name] = dict(data)
    return files


def assert_same(first: dict[str, dict[str, np.ndarray]], second: dict[str, dict[str, np.ndarray]]) -> None:
    assert first.keys() == second.keys()
    for name, arrays in first.items():
        assert arrays.keys() == second[name].keys()
        for key, value in arrays.items():
            np.testing.assert_array_equal(value, second[name][key])


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> CorpusConfig:
    """Two objects, made in this process: starting workers takes longer than the work."""
    config = replace(SMALL, out=tmp_path_factory.mktemp("corpus"))
    threads = torch.get_num_threads()
    counts = [build_object(config, index) for index in range(config.objects)]
    torch.set_num_threads(threads)
    assert min(counts) >= 1
    return config


def test_a_file_holds_object_grasps_and_their_contact(built):
    model = load_open_hand()
    for index, arrays in enumerate(contents(built.out).values()):
        assert str(arrays["family"]) == FAMILIES[index]
        count = len(arrays["kind"])
        assert 1 <= count <= built.grasps_per_object
        assert arrays["hand_pose"].shape == (count, 15, 3)
        assert arrays["contact"].shape == (count, 2048)
        assert arrays["hand_contact"].shape == (count, len(model.contact_points))
        assert arrays["points"].shape == (2048, 3)
        assert (arrays["hand_contact"].max(1) > 60).all()  # every hand touches
        assert arrays["near"].any(1).all()


def test_the_command_says_what_it_made(built, capsys):
    """Nothing is missing from the built corpus, so that it only counts."""
    assert corpus_command(replace(built, objects=2)) == 0
    said = capsys.readouterr().out
    grasps = sum(len(arrays["kind"]) for arrays in contents(built.out).values())
    assert f"{grasps:,} grasps on 2 objects" in said
    assert corpus_hash(built.out) in said
    assert "a minute" not in said


def test_loaded_truth_is_that_of_the_poses(built):
    corpus = load_corpus(built.out)
    model = load_open_hand()
    assert len(corpus) == len(corpus.which) == len(corpus.kind)
    assert corpus.which.unique().tolist() == [0, 1]
    for which, arrays in enumerate(contents(built.out).values()):
        index = (corpus.which == which).nonzero()[:, 0]
        vertices, faces = (torch.from_numpy(arrays[n]) for n in ("vertices", "faces"))
        obj = ObjectMesh.from_any((vertices, faces.long()), resolution=built.resolution)
        # The object as stored, its samples included: sampling again need not give the same points.
        seen = corpus.objects[which]
        obj = replace(obj, points=seen.points[0], normals=seen.normals[0], thickness=seen.thickness[0])
        truth, stored = field_from_pose(model, corpus.pose[index], obj), corpus.truth(index)
        assert (stored.contact - truth.contact).abs().max() < 0.5 / 255 + 1e-6
        assert (stored.hand_contact - truth.hand_contact).abs().max() < 0.5 / 255 + 2e-2
        agree = (stored.near > 0.5) == (truth.near > 0.5)
        assert agree.float().mean() > 0.999
        both = (stored.near > 0.5) & (truth.near > 0.5)
        assert (stored.gap - truth.gap)[both].abs().max() < 2e-5
        assert (stored.canonical - truth.canonical)[both].abs().median() < 1e-4
        assert (stored.part.argmax(-1) == truth.part.argmax(-1))[both].float().mean() > 0.999


def test_an_object_depends_on_seed_and_index_alone(built, tmp_path):
    again = replace(built, out=tmp_path)
    build_object(again, 1)
    first = {k: v for k, v in contents(built.out).items() if k == object_path(Path(), 1).name}
    assert_same(first, contents(tmp_path))
    other = replace(built, out=tmp_path, seed=1)
    build_object(other, 1)
    assert not np.array_equal(contents(tmp_path)["object_00001.npz"]["vertices"], first["object_00001.npz"]["vertices"])


def test_a_second_run_makes_only_what_is_missing(built, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in built.out.glob("object_*.npz")}
    made: list[int] = []

    class Recording(InThisProcess):
        def submit(self, function, config, index):
            made.append(index)
            future: Future[int] = Future()
            if index == 3:
                future.set_exception(RuntimeError("unlucky shape"))
            else:
                future.set_result(7)
            return future

    monkeypatch.setattr(module, "ProcessPoolExecutor", Recording)
    assert build_corpus(built, progress=False) == built.out
    assert made == []
    assert {p: p.stat().st_mtime_ns for p in built.out.glob("object_*.npz")} == before
    # More objects are no other recipe; one that cannot be made does not lose the others.
    build_corpus(replace(built, objects=5, workers=4), progress=False)
    assert made == [2, 3, 4]


def test_a_dead_worker_is_an_error_and_not_a_warning_an_object(tmp_path, monkeypatch):
    class Dying(InThisProcess):
        def submit(self, function, config, index):
            future: Future[int] = Future()
            future.set_exception(BrokenProcessPool())
            return future

    monkeypatch.setattr(module, "ProcessPoolExecutor", Dying)
    with pytest.raises(ChildProcessError, match="fewer"):
        build_corpus(replace(SMALL, out=tmp_path), progress=False)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"grasps_per_object": 6}, {"resolution": 33}, {"synthesis": SynthesisConfig(candidates=11)}]
)
def test_another_recipe_is_refused(built, change):
    build_corpus(built, progress=False)
    with pytest.raises(ValueError, match="another recipe; choose another folder"):
        build_corpus(replace(built, **change), progress=False)


def test_an_absent_corpus_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="regrasp corpus"):
        load_corpus(tmp_path)


def test_objects_without_grasps_are_passed_over(built, tmp_path):
    for name, arrays in contents(built.out).items():
        if name == "object_00000.npz":
            arrays = {k: arrays[k] for k in ("family", "vertices", "faces", "points", "normals", "thickness")}
            arrays["kind"] = np.zeros(0, np.int64)
        np.savez(tmp_path / name, **arrays)
    corpus = load_corpus(tmp_path)
    assert corpus.families == (FAMILIES[1],)
    assert corpus.which.unique().tolist() == [0]


def test_the_hash_names_the_contents(built, tmp_path):
    assert corpus_hash(built.out) == corpus_hash(built.out)
    for path in built.out.glob("object_*.npz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert corpus_hash(tmp_path) == corpus_hash(built.out)
    (tmp_path / "object_00000.npz").write_bytes(b"other")
    assert corpus_hash(tmp_path) != corpus_hash(built.out)


def test_whole_objects_are_held_out(built, monkeypatch):
    monkeypatch.setattr("contact.corpus.corpus.HELD_OUT", 2)
    corpus = load_corpus(built.out)
    many = replace(corpus, families=("box",) * 5 + ("can",) * 4, which=torch.arange(9).repeat_interleave(3))
    training, held_out = many.split()
    assert many.which[held_out].unique().tolist() == [1, 3, 6, 8]
    assert sorted(torch.cat([training, held_out]).tolist()) == list(range(27))
    assert not set(many.which[training].tolist()) & set(many.which[held_out].tolist())


@pytest.mark.slow
def test_the_corpus_does_not_depend_on_the_workers(built, tmp_path):
    for workers in (1, 2):
        build_corpus(replace(built, out=tmp_path / str(workers), workers=workers), progress=False)
        assert_same(contents(built.out), contents(tmp_path / str(workers)))
