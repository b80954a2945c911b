"""Files that should have been meshes, and meshes in other units than metres: what is wrong is named, with the mend."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from contact.objects import ObjectMesh, ObjectSizeError
from contact.objects.units import HAND, LARGEST, RARE, SMALLEST, UNITS, check_size

CLOUD = np.random.default_rng(0).random((50, 3)) * 0.1


def make(source: object, **options: object) -> ObjectMesh:
    return ObjectMesh.from_any(source, **{"resolution": 8, "n_points": 64, "cache": False} | options)


def write_torch(path: Path) -> None:
    torch.save({"vertices": torch.zeros(3, 3)}, path)


def write_old_torch(path: Path) -> None:
    torch.save({"vertices": torch.zeros(3, 3)}, path, _use_new_zipfile_serialization=False)


def write_array(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, CLOUD)


def text(content: str):
    return lambda path: path.write_text(content)


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl", "off", "glb"])
@pytest.mark.parametrize(
    ("write", "what", "mend"),
    [
        (
            text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
            "Git LFS pointer",
            "git lfs pull",
        ),
        (text("\ufeff\n<!DOCTYPE html>\n<html><body>Sign in</body></html>"), "HTML page", "download the mesh itself"),
        (text('<html lang="en">'), "HTML page", "download the mesh itself"),
        (text("404: Not Found"), "a server sent", "check the link"),
        (lambda path: path.write_bytes(gzip.compress(b"v 0 0 0")), "compressed with gzip", "gunzip"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(60)), "zip archive", "unpack it"),
        (write_torch, "torch.save", "torch.load"),
        (write_old_torch, "torch.save", "torch.load"),
        (write_array, "NumPy array", "numpy.load"),
        (text(""), "is empty", "again"),
    ],
)
def test_files_that_are_no_mesh(tmp_path, suffix, write, what, mend):
    path = tmp_path / f"mug.{suffix}"
    write(path)
    with pytest.raises(ValueError, match="object_mesh") as caught:
        make(path)
    for words in (f"mug.{suffix}", what, mend):
        assert words in str(caught.value)


def test_a_pickle_is_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path(tmp_path / "opened").touch, ())

    (tmp_path / "mug.obj").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="object_mesh"):
        make(tmp_path / "mug.obj")
    assert not (tmp_path / "opened").exists()


def test_point_clouds(tmp_path):
    trimesh.PointCloud(CLOUD).export(tmp_path / "cloud.ply")
    (tmp_path / "cloud.obj").write_text("".join(f"v {x} {y} {z}\n" for x, y, z in CLOUD))
    sources = [tmp_path / "cloud.ply", tmp_path / "cloud.obj", trimesh.PointCloud(CLOUD)]
    for source in (*sources, trimesh.Scene(trimesh.PointCloud(CLOUD))):
        with pytest.raises(ValueError, match=r"object_mesh.* is a point cloud \(50 points, no faces\).*convex_hull"):
            make(source)
    assert make(trimesh.convex.convex_hull(CLOUD)).watertight  # the mend that is advised


@pytest.mark.parametrize("form", ["text", "binary", "binary, strips one by one"])
def test_triangle_strips_are_read(tmp_path, form):
    """Of .ply, with -1 between strips; trimesh alone makes clouds of points of them."""
    corners = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0.1, 0.1, 0], [0, 0.2, 0]])
    strips = [[0, 1, 2, 3], [4, 2, 3, 1]] if form.endswith("by one") else [[0, 1, 2, 3, -1, 4, 2, 3]]
    head = f"ply\nformat {'ascii' if form == 'text' else 'binary_little_endian'} 1.0\nelement vertex 5\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz")
    head += f"element tristrips {len(strips)}\nproperty list int int vertex_indices\nend_header\n"
    lists = [[len(strip), *strip] for strip in strips]
    body = corners.astype("<f4").tobytes() + np.array(lists, "<i4").tobytes()
    if form == "text":
        body = "".join(" ".join(map(str, row)) + "\n" for row in [*corners.tolist(), *lists]).encode()
    (tmp_path / "scan.ply").write_bytes(head.encode() + body)
    with pytest.warns(UserWarning, match="not watertight"):
        found = make(tmp_path / "scan.ply")
    expected = {(0, 1, 2), (1, 2, 3), (2, 3, 4)}
    assert {tuple(sorted(face)) for face in found.faces.tolist()} == expected


def test_a_folder_is_no_mesh(tmp_path):
    with pytest.raises(FileNotFoundError, match="that is a folder"):
        make(tmp_path)


def test_a_cloud_beside_a_mesh_does_no_harm():
    box = trimesh.creation.box((0.1, 0.1, 0.1))
    assert len(make(trimesh.Scene([box, trimesh.PointCloud(CLOUD)])).faces) == 12


def test_meshes_without_triangles(tmp_path):
    (tmp_path / "mug.stl").write_text("solid mug\nendsolid mug\n")
    with pytest.raises(ValueError, match=r"object_mesh.*mug\.stl.* holds no triangles"):
        make(tmp_path / "mug.stl")


# Units ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit != RARE])
@pytest.mark.parametrize("metres", [0.13, 0.19, 0.29])
def test_the_unit_is_told_from_the_size_of_a_hand(unit, metres):
    """Things about as large as a hand, made in each unit."""
    box = trimesh.creation.box(np.array([1, 2, 3]) / np.sqrt(14) * metres)
    vertices = box.vertices / UNITS[unit]
    with pytest.raises(ObjectSizeError, match=f"probably {unit}: pass scale={UNITS[unit]:g}") as caught:
        make((vertices, box.faces))
    assert caught.value.scale == UNITS[unit]
    found = make((vertices, box.faces), scale=caught.value.scale)
    np.testing.assert_allclose(found.vertices.numpy(), make(box).vertices.numpy(), rtol=1e-5)


def test_the_other_units_it_may_be_are_named_with_the_size_they_give():
    with pytest.raises(ObjectSizeError, match=r"probably inches.*0\.28 m.*scale=0\.01 if centimetres \(0\.11 m\)"):
        check_size(10.95)


def test_decimetres_are_named_too():
    with pytest.raises(ObjectSizeError, match=r"scale=0\.1 if decimetres \(0\.28 m\)"):
        check_size(2.78)


@pytest.mark.parametrize("size", np.geomspace(1e-9, 1e9, 61))
@pytest.mark.parametrize("scale", [None, 0.001, 100.0])
def test_following_the_advice_is_always_accepted(size, scale):
    if SMALLEST <= size <= LARGEST:
        check_size(size, scale)
        return
    with pytest.raises(ObjectSizeError) as caught:
        check_size(size, scale)
    advised = caught.value.scale
    assert f"scale={advised:g}" in str(caught.value)
    check_size(size / (scale or 1.0) * advised, advised)


def test_a_scale_too_much_is_taken_back():
    with pytest.raises(ObjectSizeError, match=r"too small.*with scale=0\.001; probably metres: pass scale=1\b"):
        check_size(HAND * 0.001, 0.001)
    with pytest.raises(ObjectSizeError, match="probably millimetres turned into metres twice: pass scale=1000"):
        check_size(HAND * 0.001)


def test_size_errors_come_back_from_other_processes():
    with pytest.raises(ObjectSizeError) as caught:
        check_size(278.0)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.scale) == (str(caught.value), 0.001)
