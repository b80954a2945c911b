"""Objects as people lay them out: data sets' folders, one mesh, names that are not quite right, other units."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from batch_fakes import fake_refine, predictions, small_box, tiny_hand

from refine.batch import rows
from refine.files.object_files import OneObject, find_objects, load_object, near_names, no_mesh
from refine.files.object_layouts import DEEPEST

BOTTLE = (0.07, 0.1, 0.25)


def laid_out(root: Path, *names: str) -> Path:
    """``root`` with files that nothing opens."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return root


@pytest.mark.parametrize(
    ("files", "found"),
    [
        # DexYCB, HO-3D
        (
            ["m/002_can/points.xyz", "m/002_can/textured.obj", "m/002_can/textured_simple.obj", "m/021_jug/a.ply"],
            {"002_can": "m/002_can/textured_simple.obj", "021_jug": "m/021_jug/a.ply"},
        ),
        # YCB's own download
        (
            [
                "002_can/google_16k/textured.obj",
                "002_can/google_16k/nontextured.ply",
                "021_jug/google_16k/textured.obj",
            ],
            {"002_can": "002_can/google_16k/textured.obj", "021_jug": "021_jug/google_16k/textured.obj"},
        ),
        # ARCTIC
        (["box/mesh.obj", "box/top.obj", "box/bottom.obj"], {"box": "box/mesh.obj"}),
        # called as its folder; one shape in two formats; nested and not equally deep
        (
            ["a/mug/mug.stl", "a/mug/handle.stl", "a/b/cup/x.ply", "a/b/cup/x.OBJ", "a/b/cup/lod/x1.obj"],
            {"mug": "a/mug/mug.stl", "cup": "a/b/cup/x.OBJ"},
        ),
        # a folder of meshes is what it always was, whatever lies below; hidden files are not meshes
        (["mug.obj", "mug.ply", "._cup.obj", "parts/a.obj", "parts/b.obj"], {"mug": "mug.obj"}),
        ([".git/a/mesh.obj", "mug/.x.obj", "mug/mesh.obj"], {"mug": "mug/mesh.obj"}),
    ],
)
def test_layouts(tmp_path, files, found):
    root = laid_out(tmp_path / "root", *files)
    objects = find_objects(root)
    assert {name: entry.path.relative_to(root.resolve()).as_posix() for name, entry in objects.items()} == found
    assert {entry.object_id for entry in objects.values()} == set(found)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ["can/a.obj", "can/b.obj"],
            ["can holds several meshes (a.obj, b.obj)", "textured_simple.obj", "objects.json"],
        ),
        (
            ["can/tsdf/textured.obj", "can/poisson/textured.obj", "jug/tsdf/a.obj", "jug/poisson/a.obj"],
            ["mesh of 'can'"],
        ),
        (["kitchen/can/a.obj", "office/can/a.obj", "office/kitchen/a.obj"], ["both hold a mesh of 'kitchen'"]),
    ],
)
def test_what_is_ambiguous_is_named(tmp_path, files, words):
    with pytest.raises(ValueError, match="--objects") as caught:
        find_objects(laid_out(tmp_path, *files))
    for text in words:
        assert text in str(caught.value)


def test_folders_are_searched_to_a_depth(tmp_path):
    steps = "/".join("abcdefgh"[: DEEPEST - 1])
    assert set(find_objects(laid_out(tmp_path / "near", f"{steps}/mug/x.obj"))) == {"mug"}
    far = laid_out(tmp_path / "far", f"{steps}/more/mug/x.obj")
    with pytest.raises(FileNotFoundError, match=r"holds no meshes.*\(a\).*textured_simple"):
        find_objects(far)


def test_links_do_not_lead_out_of_the_folder(tmp_path):
    outside = laid_out(tmp_path / "outside", "mesh.obj")
    root = laid_out(tmp_path / "root", "mug/note.txt")
    (root / "cup").symlink_to(outside)
    with pytest.raises(FileNotFoundError):
        find_objects(root)
    (root / "mug" / "mesh.obj").symlink_to(outside / "mesh.obj")
    with pytest.raises(ValueError, match="leaves"):
        find_objects(root)


def test_one_mesh_serves_all_rows_with_a_name_or_without(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(rows, "load_object", lambda entry, side: opened.append(entry.path) or small_box())
    mesh = laid_out(tmp_path, "bottle.stl", "other.obj") / "bottle.stl"
    objects = find_objects(mesh)
    assert isinstance(objects, OneObject)
    p = predictions()
    for named in (p, replace(p, object_id=np.full(len(p), ""))):
        out = rows.refine_rows(named, objects, tiny_hand(), fake_refine)
        assert set(out.status) == {"refined"}
        assert set(out.object_id) == (set(p.object_id) if named is p else {"bottle"})
    assert set(opened) == {mesh.resolve()}


def test_scale_is_for_meshes_of_which_none_is_said(tmp_path):
    root = laid_out(tmp_path, "a.obj", "b.obj")
    assert {entry.scale for entry in find_objects(root, 0.01).values()} == {0.01}
    assert {entry.scale for entry in find_objects(root / "a.obj", 0.01).values()} == {0.01}
    said = {"a": {"mesh": "a.obj", "scale": 0.5}, "b": {"mesh": "b.obj"}}
    (root / "objects.json").write_text(json.dumps(said))
    assert {name: entry.scale for name, entry in find_objects(root, 0.01).items()} == {"a": 0.5, "b": 0.01}
    for scale in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="--scale"):
            find_objects(root, scale)


def test_following_the_advice_on_units_works_for_files(tmp_path):
    box = trimesh.creation.box(BOTTLE)
    box.copy().apply_scale(100).export(tmp_path / "bottle.ply")
    with pytest.raises(ValueError, match=r'--scale 0\.01, or "scale": 0\.01 in objects\.json'):
        load_object(find_objects(tmp_path)["bottle"])
    for side in ("right", "left"):
        obj = load_object(find_objects(tmp_path, 0.01)["bottle"], side)
        np.testing.assert_allclose(np.ptp(obj.vertices.numpy(), axis=0), BOTTLE, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("cracker_box", ["003_cracker_box"]),
        ("003", ["003_cracker_box"]),
        ("003-Cracker-Box", ["003_cracker_box"]),
        ("mugg", ["mug"]),
        ("025_mug", ["mug"]),
        ("scissors", []),
        ("3", []),
        ("", []),
    ],
)
def test_near_names(name, near):
    there = ["003_cracker_box", "024_bowl", "mug"]
    assert near_names(name, there) == near
    said = no_mesh(name, there)
    assert f"no mesh for object {name!r}" in said
    for other in near or there:
        assert repr(other) in said if near else other in said
