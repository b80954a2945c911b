"""ObjectMesh: what it accepts, how it cleans, and its points, normals and thickness against closed forms."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from contact.objects import ObjectMesh
from contact.objects import mesh as mesh_module
from contact.objects.object_set import ObjectSet
from contact.objects.surface_points import farthest_point_order, sample_surface

BOX = (0.1, 0.07, 0.04)


def make(source: object, **options: object) -> ObjectMesh:
    return ObjectMesh.from_any(source, **{"resolution": 24, "n_points": 512} | options)


def capsule(length: float = 0.08, radius: float = 0.02) -> trimesh.Trimesh:
    mesh = trimesh.creation.capsule(length, radius, count=[48, 48])
    mesh.apply_translation(-mesh.bounds.mean(axis=0))
    return mesh


class TestSources:
    @pytest.fixture
    def box(self) -> trimesh.Trimesh:
        return trimesh.creation.box(BOX)

    @pytest.mark.parametrize("suffix", ["ply", "obj", "stl", "off", "glb"])
    def test_files(self, box: trimesh.Trimesh, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"mug.{suffix}"
        box.export(path)
        for given in (path, str(path)):
            found = make(given)
            assert found.name == "mug"
            assert found.watertight
            assert found.vertices.shape == (8, 3)
            assert found.faces.shape == (12, 3)
            assert abs(found.trimesh.volume - box.volume) < 1e-9

    def test_scenes_are_joined_where_they_stand(self, tmp_path: Path) -> None:
        scene = trimesh.Scene()
        scene.add_geometry(trimesh.creation.icosphere(2, 0.02))
        scene.add_geometry(
            trimesh.creation.icosphere(2, 0.02), transform=trimesh.transformations.translation_matrix([0.1, 0, 0])
        )
        scene.export(tmp_path / "two.glb")
        for found in (make(scene), make(tmp_path / "two.glb")):
            np.testing.assert_allclose(np.ptp(found.vertices.numpy(), axis=0), [0.14, 0.04, 0.04], atol=1e-3)

    def test_open3d_meshes_by_their_attributes(self, box: trimesh.Trimesh) -> None:
        """As Open3D has them: arrays called vertices and triangles, the mesh of tensors by way of `to_legacy`."""
        legacy = SimpleNamespace(vertices=np.array(box.vertices), triangles=np.array(box.faces, dtype=np.int32))
        for given in (legacy, SimpleNamespace(to_legacy=lambda: legacy)):
            assert make(given).content_hash == make(box).content_hash

    def test_open3d_meshes(self, box: trimesh.Trimesh) -> None:
        open3d = pytest.importorskip(
            "open3d", reason="needs open3d-cpu and the system's libusb-1.0-0", exc_type=ImportError
        )
        legacy = open3d.geometry.TriangleMesh(
            open3d.utility.Vector3dVector(box.vertices), open3d.utility.Vector3iVector(box.faces)
        )
        for given in (legacy, open3d.t.geometry.TriangleMesh.from_legacy(legacy)):
            assert make(given).content_hash == make(box).content_hash

    def test_pytorch3d_meshes_by_their_attributes(self, box: trimesh.Trimesh) -> None:
        class Meshes:
            def __init__(self, count: int) -> None:
                self.count = count

            def verts_list(self) -> list[torch.Tensor]:
                return [torch.tensor(np.array(box.vertices), dtype=torch.float32)] * self.count

            def faces_list(self) -> list[torch.Tensor]:
                return [torch.tensor(np.array(box.faces))] * self.count

        assert make(Meshes(1)).content_hash == make(box).content_hash
        with pytest.raises(ValueError, match=r"object_mesh: a batch of 2 PyTorch3D meshes.*meshes\[0\]"):
            make(Meshes(2))
        with pytest.raises(ValueError, match=r"object_mesh: a batch of 0"):
            make(Meshes(0))

    def test_arrays_and_tensors(self, box: trimesh.Trimesh) -> None:
        expected = make(box)
        arrays = make((box.vertices.tolist(), np.asarray(box.faces, dtype=np.uint32)))
        tensors = make((torch.tensor(np.array(box.vertices)), torch.tensor(np.array(box.faces))))
        assert arrays.content_hash == tensors.content_hash == expected.content_hash
        assert torch.equal(arrays.points, expected.points)

    def test_an_object_passes_through(self, box: trimesh.Trimesh) -> None:
        first = make(box)
        assert ObjectMesh.from_any(first) is first
        renamed = ObjectMesh.from_any(first, name="crate")
        assert renamed.name == "crate"
        assert renamed.points is first.points
        half = make(first, scale=0.5)
        torch.testing.assert_close(half.vertices, first.vertices / 2)
        assert half.points.shape == first.points.shape

    def test_scale(self, box: trimesh.Trimesh) -> None:
        millimetres = box.copy().apply_scale(1000)
        torch.testing.assert_close(make(millimetres, scale=0.001).vertices, make(box).vertices)

    def test_types(self, box: trimesh.Trimesh) -> None:
        found = make(box)
        for name in ("vertices", "points", "normals", "thickness"):
            assert getattr(found, name).dtype == torch.float32, name
        assert found.faces.dtype == torch.int64
        assert found.points.shape == found.normals.shape == (512, 3)
        assert found.thickness.shape == (512,)

    def test_real_meshes(self, validation_folder: Path) -> None:
        for name in ("024_bowl", "011_banana", "019_pitcher_base"):
            found = make(validation_folder / "ycb" / f"{name}.ply")
            assert found.name == name
            assert found.watertight
            assert torch.isfinite(found.normals).all()


class TestErrors:
    TRIANGLE = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]], dtype=float)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ((np.zeros((0, 3)), np.zeros((0, 3), int)), "no vertices"),
            ((TRIANGLE, np.zeros((0, 3), int)), "no faces"),
            ((TRIANGLE * [1, np.nan, 1], [[0, 1, 2]]), "NaN"),
            ((TRIANGLE, [[0, 1, 3]]), "there are only 3"),
            ((TRIANGLE, [[-1, 1, 2]]), "there are only 3"),
            ((TRIANGLE, [[0, 1, 2, 0]]), "triangulate"),
            ((TRIANGLE, [[0.0, 1.0, 1.5]]), "integer"),
            ((TRIANGLE[:, :2], [[0, 1, 2]]), r"\(V, 3\)"),
            ((TRIANGLE, [[0, 1, 1]]), "degenerate"),
            ((TRIANGLE * 0, [[0, 1, 2]]), "degenerate"),
            ((TRIANGLE, [["a", "b", "c"]]), "object_mesh"),
            ((TRIANGLE * 1000, [[0, 1, 2]]), "scale=0.001"),
            ((TRIANGLE * 0.01, [[0, 1, 2]]), "too small"),
            (trimesh.Trimesh(), "no vertices"),
            (trimesh.Scene(), "object_mesh"),
            (42, "cannot make an object from int"),
        ],
    )
    def test_bad_meshes_are_named(self, source: object, message: str) -> None:
        with pytest.raises(ValueError, match=message) as error:
            make(source)
        assert "object_mesh" in str(error.value)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"object_mesh.*nothing\.ply"):
            make(tmp_path / "nothing.ply")

    @pytest.mark.parametrize("name", ["broken.ply", "broken.xyzq", "points.ply"])
    def test_unreadable_files(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        if name == "points.ply":
            trimesh.PointCloud(np.random.default_rng(0).random((10, 3))).export(path)
        else:
            path.write_bytes(b"not a mesh at all")
        with pytest.raises(ValueError, match="object_mesh"):
            make(path)

    def test_options(self) -> None:
        box = trimesh.creation.box(BOX)
        for scale in (0, -1, float("nan")):
            with pytest.raises(ValueError, match="scale"):
                make(box, scale=scale)
        with pytest.raises(ValueError, match="n_points"):
            make(box, n_points=0)


class TestCleaning:
    def test_soup_becomes_one_surface(self) -> None:
        box = trimesh.creation.box(BOX)
        soup = box.triangles.reshape(-1, 3)
        faces = np.arange(36).reshape(12, 3)
        faces = np.concatenate([faces, faces[:2], [[0, 0, 1]]])  # duplicates and a degenerate one
        found = make((soup, faces))
        assert found.watertight
        assert found.vertices.shape == (8, 3)
        assert found.faces.shape == (12, 3)

    def test_windings_are_mended_and_turned_outward(self) -> None:
        mesh = trimesh.creation.icosphere(2, 0.03)
        faces = np.array(mesh.faces)
        faces[::3] = faces[::3, ::-1]
        for given in (faces, faces[:, ::-1], np.array(mesh.faces)[:, ::-1]):
            found = make((mesh.vertices, given))
            assert found.watertight
            assert found.trimesh.volume > 0
            assert ((found.normals * found.points).sum(-1) > 0).all()

    def test_overlapping_bodies_are_united(self) -> None:
        second = trimesh.creation.icosphere(3, 0.03)
        second.apply_translation([0.03, 0, 0])
        found = make(trimesh.util.concatenate([trimesh.creation.icosphere(3, 0.03), second]))
        assert found.watertight
        centres = torch.tensor([[0.0, 0, 0], [0.03, 0, 0]])
        nearest = (found.points[:, None] - centres).norm(dim=-1).amin(-1)
        assert nearest.min() > 0.0295  # none left inside
        middle = found.grid.query(torch.tensor([[[0.015, 0.0, 0.0]]]))[0].item()
        assert middle < -0.02

    def test_cavities_stay(self) -> None:
        hole = trimesh.creation.icosphere(3, 0.02)
        hole.invert()
        found = make(trimesh.util.concatenate([trimesh.creation.icosphere(3, 0.03), hole]))
        assert found.watertight
        assert found.grid.query(torch.zeros(1, 1, 3))[0].item() > 0.018
        assert (found.thickness < 0.05).all()
        assert (found.thickness[found.points.norm(dim=-1) < 0.025] - 0.01).abs().max() < 0.0005

    def test_an_open_mesh_warns_once(self) -> None:
        cup = trimesh.creation.icosphere(3, 0.04)
        cup.update_faces(cup.triangles_center[:, 2] < 0.02)
        with pytest.warns(UserWarning, match="not watertight") as caught:
            found = make(cup, name="cup")
        assert len(caught) == 1
        assert "cup" in str(caught[0].message)
        assert not found.watertight
        assert ((found.normals * found.points).sum(-1) > 0).all()
        inside_out = cup.copy()
        inside_out.invert()
        with pytest.warns(UserWarning, match="not watertight"):
            turned = make(inside_out)
        assert ((turned.normals * turned.points).sum(-1) > 0).all()

    def test_a_closed_mesh_does_not_warn(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            make(trimesh.creation.cylinder(0.03, 0.1))


class TestSurface:
    def test_points_lie_on_the_surface_and_normals_point_out(self) -> None:
        sphere = make(trimesh.creation.icosphere(4, 0.04))
        radius = sphere.points.norm(dim=-1)
        assert (radius - 0.04).abs().max() < 0.0001
        assert (sphere.normals.norm(dim=-1) - 1).abs().max() < 1e-6
        assert ((sphere.normals * sphere.points).sum(-1) / radius > 0.9995).all()  # smooth, not faceted

    def test_normals_keep_sharp_edges(self) -> None:
        box = make(trimesh.creation.box(BOX))
        assert (box.normals.abs().amax(-1) > 1 - 1e-6).all()
        half = torch.tensor(BOX) / 2
        facing = box.normals.abs().argmax(-1)
        assert ((box.points.abs() - half).abs().gather(1, facing[:, None]) < 1e-6).all()
        cylinder = make(trimesh.creation.cylinder(0.03, 0.1, sections=24))
        cap = cylinder.points[:, 2].abs() > 0.05 - 1e-6
        assert (cylinder.normals[cap, 2].abs() > 1 - 1e-6).all()
        assert (cylinder.normals[~cap, 2].abs() < 1e-6).all()
        radial = torch.nn.functional.normalize(cylinder.points[~cap, :2], dim=-1)
        assert ((cylinder.normals[~cap, :2] * radial).sum(-1) > 0.9999).all()

    def test_points_are_area_uniform(self) -> None:
        box = make(trimesh.creation.box(BOX), n_points=2048)
        area = np.array([BOX[1] * BOX[2], BOX[0] * BOX[2], BOX[0] * BOX[1]])
        share = torch.bincount(box.normals.abs().argmax(-1), minlength=3).numpy() / 2048
        np.testing.assert_allclose(share, area / area.sum(), atol=0.005)
        dense = trimesh.creation.box(BOX).subdivide().subdivide()
        weight = np.where(dense.triangles_center[:, 0] > 0, 1, 4)  # uneven tessellation must not show
        keep, split = dense.copy(), dense.copy()
        keep.update_faces(weight == 1)
        split.update_faces(weight == 4)
        uneven = trimesh.util.concatenate([keep, split.subdivide()])
        points, _, _ = sample_surface(uneven.vertices, uneven.faces, 2048, np.random.default_rng(0))
        assert abs((points[:, 0] > 0).mean() - 0.5) < 0.01

    @pytest.mark.parametrize("prefix", [128, 512])
    def test_prefixes_cover_the_object(self, prefix: int) -> None:
        box = make(trimesh.creation.box(BOX), n_points=2048)
        to_prefix = torch.cdist(box.points, box.points[:prefix]).amin(-1).max()
        between = torch.pdist(box.points[:prefix]).min()
        assert to_prefix <= between + 1e-6  # the property of farthest-point order
        area = 2 * (BOX[0] * BOX[1] + BOX[1] * BOX[2] + BOX[0] * BOX[2])
        assert to_prefix < 1.5 * (area / prefix) ** 0.5

    def test_farthest_point_order_is_a_permutation(self) -> None:
        points = np.random.default_rng(0).normal(size=(100, 3))
        points[50:] = points[:50]  # coincident points must still all appear
        assert sorted(farthest_point_order(points)) == list(range(100))

    def test_seeds(self) -> None:
        mesh = capsule()
        first, again, other = make(mesh), make(mesh), make(mesh, seed=1)
        for name in ("points", "normals", "thickness"):
            assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(first.points, other.points)
        assert first.content_hash == again.content_hash == other.content_hash


class TestThickness:
    def test_sphere(self) -> None:
        found = make(trimesh.creation.icosphere(4, 0.03)).thickness
        assert (found - 0.06).abs().max() < 0.0003

    def test_box(self) -> None:
        box = make(trimesh.creation.box(BOX))
        expected = torch.tensor(BOX)[box.normals.abs().argmax(-1)]
        torch.testing.assert_close(box.thickness, expected, rtol=0, atol=2e-6)

    def test_capsule(self) -> None:
        found = make(capsule(0.05, 0.02))
        side = found.points[:, 2].abs() < 0.024
        assert (found.thickness[side] - 0.04).abs().max() < 0.0004
        normal = found.points / found.points.norm(dim=-1, keepdim=True)
        tip = normal[:, 2].abs() > 0.995  # straight down the axis
        assert tip.any()
        assert ((found.thickness[tip] - 0.09).abs() < 0.006).all()

    def test_is_capped(self) -> None:
        assert make(trimesh.creation.box((0.3, 0.3, 0.3))).thickness.eq(0.1).all()

    def test_thin_wall(self) -> None:
        blade = make(trimesh.creation.box((0.2, 0.03, 0.002)))
        flat = blade.normals[:, 2].abs() > 0.9
        torch.testing.assert_close(blade.thickness[flat], torch.full((int(flat.sum()),), 0.002), rtol=0, atol=2e-6)


class TestInvariants:
    def test_mirrored(self) -> None:
        mesh = capsule().apply_transform(trimesh.transformations.rotation_matrix(0.6, [1, 2, 3], [0.1, 0, 0]))
        first = make(mesh)
        mirror = first.mirrored()
        flip = torch.tensor([-1.0, 1.0, 1.0])
        assert mirror.trimesh.volume == pytest.approx(first.trimesh.volume, rel=1e-5)  # still turned outward
        assert torch.equal(mirror.points, first.points * flip)
        assert torch.equal(mirror.normals, first.normals * flip)
        assert torch.equal(mirror.thickness, first.thickness)
        at_surface = mirror.grid.query(mirror.points[None])[0]
        torch.testing.assert_close(at_surface, first.grid.query(first.points[None])[0], rtol=0, atol=2e-6)
        assert mirror.mirrored().content_hash == first.content_hash

    def test_diameter(self) -> None:
        assert make(trimesh.creation.box(BOX)).diameter == pytest.approx(np.linalg.norm(BOX), rel=1e-6)
        assert make(trimesh.creation.icosphere(4, 0.04)).diameter == pytest.approx(0.08, rel=1e-3)

    def test_content_hash_tells_shapes_apart(self) -> None:
        assert (
            make(trimesh.creation.box(BOX), name="a").content_hash
            == make(trimesh.creation.box(BOX), name="b", n_points=64).content_hash
        )
        assert make(trimesh.creation.box(BOX)).content_hash != make(trimesh.creation.icosphere(2, 0.04)).content_hash

    def test_surface_points_have_distance_zero(self) -> None:
        for mesh in (trimesh.creation.box(BOX), capsule(), trimesh.creation.cylinder(0.03, 0.1)):
            found = make(mesh)
            distance = found.grid.query(found.points[None])[0]
            assert distance.abs().mean() < 0.05 * found.grid.spacing.item()


class TestNeighbourhoods:
    """Which points an object's points look at is found once, with the points."""

    @pytest.fixture
    def counted(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        built: list[int] = []
        build = mesh_module.build_hierarchy
        monkeypatch.setattr(mesh_module, "build_hierarchy", lambda p: (built.append(len(p)), build(p))[1])
        return built

    def test_once_an_object(self, counted: list[int]) -> None:
        obj = make(trimesh.creation.box(BOX), n_points=2048)
        for same in (obj, obj.mirrored(), obj.mirrored().mirrored(), make(obj, name="again")):
            found = ObjectSet.of([same, obj])
            assert torch.equal(found.hierarchy.gather1[0], found.hierarchy.gather1[1])
        assert counted == [2048]

    def test_of_other_numbers_of_points_there_are_none(self, counted: list[int]) -> None:
        few = make(trimesh.creation.box(BOX), n_points=64)
        assert few.hierarchy is None
        assert counted == []
        with pytest.raises(ValueError, match=r"objects: with 64 points.*n_points=2048"):
            ObjectSet.of([make(trimesh.creation.box(BOX), n_points=2048), few])
