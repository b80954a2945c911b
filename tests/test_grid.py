"""The signed-distance grid against closed forms, and its invariants."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from contact.objects import grid_build
from contact.objects.grid import SignedDistanceGrid
from contact.objects.grid_build import build_grid

BOX = np.array([0.1, 0.07, 0.04])
ROTATION = trimesh.transformations.rotation_matrix(0.7, [0.3, -0.5, 0.8])


def sphere_sdf(points: np.ndarray, radius: float) -> np.ndarray:
    return np.linalg.norm(points, axis=-1) - radius


def box_sdf(points: np.ndarray, sides: np.ndarray) -> np.ndarray:
    q = np.abs(points) - sides / 2
    return np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(axis=-1), 0)


def capsule_sdf(points: np.ndarray, length: float, radius: float) -> np.ndarray:
    axis = np.zeros_like(points)
    axis[..., 2] = np.clip(points[..., 2], -length / 2, length / 2)
    return np.linalg.norm(points - axis, axis=-1) - radius


def capsule_mesh(length: float, radius: float) -> trimesh.Trimesh:
    mesh = trimesh.creation.capsule(length, radius, count=[48, 48])
    mesh.apply_translation(-mesh.bounds.mean(axis=0))
    return mesh


CASES = {
    "sphere": (trimesh.creation.icosphere(4, 0.04), lambda p: sphere_sdf(p, 0.04)),
    "box": (trimesh.creation.box(BOX), lambda p: box_sdf(p, BOX)),
    "capsule": (capsule_mesh(0.1, 0.02), lambda p: capsule_sdf(p, 0.1, 0.02)),
}


@pytest.fixture(scope="module")
def grids() -> dict[str, SignedDistanceGrid]:
    return {name: build_grid(mesh.vertices, mesh.faces, 64, cache=False) for name, (mesh, _) in CASES.items()}


def random_points(mesh: trimesh.Trimesh, n: int, reach: float = 0.019) -> np.ndarray:
    low, high = mesh.bounds
    return np.random.default_rng(3).uniform(low - reach, high + reach, (n, 3))


def as_batch(points: np.ndarray) -> torch.Tensor:
    return torch.tensor(points, dtype=torch.float32)[None]


@pytest.mark.parametrize("name", CASES)
def test_distance_matches_the_closed_form(grids: dict[str, SignedDistanceGrid], name: str) -> None:
    mesh, sdf = CASES[name]
    cell = grids[name].spacing.item()
    points = random_points(mesh, 20_000)
    truth = sdf(points)
    error = grids[name].query(as_batch(points))[0][0].numpy() - truth
    near = np.abs(truth) < 2 * cell
    assert np.abs(error[near]).max() < 0.6 * cell  # largest at the box's edges, which trilinear cells round
    assert np.abs(error[near]).mean() < 0.03 * cell
    half = np.abs(truth) < 6 * cell
    assert np.abs(error[half]).max() < np.sqrt(3) * cell
    assert np.abs(error).max() < 2 * np.sqrt(3) * cell
    assert np.abs(error).mean() < 0.1 * cell


@pytest.mark.parametrize("name", CASES)
def test_signs_are_right_beyond_a_third_of_a_cell(grids: dict[str, SignedDistanceGrid], name: str) -> None:
    mesh, sdf = CASES[name]
    points = random_points(mesh, 20_000)
    truth = sdf(points)
    distance = grids[name].query(as_batch(points))[0][0].numpy()
    clear = np.abs(truth) > grids[name].spacing.item() / 3
    assert (np.sign(distance) == np.sign(truth))[clear].all()


@pytest.mark.parametrize("name", ["sphere", "capsule"])
def test_gradient_points_along_the_normal(grids: dict[str, SignedDistanceGrid], name: str) -> None:
    mesh, sdf = CASES[name]
    points = random_points(mesh, 5_000)
    points = points[np.abs(sdf(points)) < 0.008]
    step = 1e-6
    truth = np.stack([(sdf(points + d) - sdf(points - d)) / (2 * step) for d in np.eye(3) * step], axis=-1)
    gradient = grids[name].query(as_batch(points))[1][0].numpy()
    cosine = (gradient * truth).sum(-1) / np.linalg.norm(gradient, axis=-1)
    assert np.quantile(cosine, 0.01) > 0.98
    assert np.abs(np.linalg.norm(gradient, axis=-1) - 1).mean() < 0.02


@pytest.mark.parametrize("reach", [0.015, 0.2])
def test_gradient_is_that_of_the_value(grids: dict[str, SignedDistanceGrid], reach: float) -> None:
    grid = grids["capsule"]
    points = torch.tensor(random_points(CASES["capsule"][0], 2_000, reach))[None]  # double: differences stay sharp
    unit = (points - grid.origin[0]) / grid.spacing[0]
    inner = ((unit - unit.round()).abs() > 1e-3).all(-1)  # the value has kinks between cells
    _, gradient = grid.query(points)
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 1e-7
        numeric = (grid.query(points + step)[0] - grid.query(points - step)[0]) / 2e-7
        assert (numeric - gradient[..., axis])[inner].abs().max() < 1e-6


def test_autograd_gives_the_analytic_gradient(grids: dict[str, SignedDistanceGrid]) -> None:
    points = as_batch(random_points(CASES["box"][0], 500, 0.05)).requires_grad_()
    distance, gradient = grids["box"].query(points)
    weight = torch.randn_like(distance)
    (found,) = torch.autograd.grad((distance * weight).sum(), points)
    assert torch.equal(found, weight[..., None] * gradient)
    assert not gradient.requires_grad
    plain = grids["box"].query(points.detach())
    assert not plain[0].requires_grad
    assert torch.equal(plain[0], distance)
    assert torch.equal(plain[1], gradient)


def test_far_outside_the_distance_is_an_upper_bound_and_points_away(grids: dict[str, SignedDistanceGrid]) -> None:
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(500, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    points = direction * rng.uniform(0.15, 1.0, (500, 1))
    truth = sphere_sdf(points, 0.04)
    distance, gradient = (t[0].numpy() for t in grids["sphere"].query(as_batch(points)))
    assert (distance > truth - 1e-4).all()
    assert (distance < 1.35 * truth).all()
    assert ((gradient * direction).sum(-1) > 0.7).all()


def test_the_value_is_continuous_across_the_box(grids: dict[str, SignedDistanceGrid]) -> None:
    grid = grids["sphere"]
    high = grid.origin[0] + grid.spacing[0] * (grid.shape[0] - 1)
    face = torch.tensor([[high[0], 0.01, -0.02], [0.0, high[1], 0.0], [0.013, 0.0, high[2]]], dtype=torch.float64)
    step = 1e-7 * torch.eye(3, dtype=torch.float64)
    inside, outside = grid.query((face - step)[None])[0], grid.query((face + step)[None])[0]
    assert (inside - outside).abs().max() < 1e-6


def test_a_stack_answers_as_its_parts_do(grids: dict[str, SignedDistanceGrid]) -> None:
    parts = list(grids.values())
    assert len({tuple(g.shape[0].tolist()) for g in parts}) == len(parts)
    pair = SignedDistanceGrid.cat(parts[:2])
    stack = SignedDistanceGrid.cat([pair, parts[2]])
    which = torch.tensor([2, 0, 1, 1, 0, 2])
    points = torch.randn(6, 300, 3) * 0.06
    distance, gradient = stack.query(points, which)
    for row, g in enumerate(which.tolist()):
        alone = parts[g].query(points[row : row + 1])
        torch.testing.assert_close(distance[row : row + 1], alone[0], rtol=0, atol=0)
        torch.testing.assert_close(gradient[row : row + 1], alone[1], rtol=0, atol=0)
    many = parts[0].query(points)  # one object serves all rows without saying so
    assert many[0].shape == (6, 300)


def test_mirroring_mirrors_the_field(grids: dict[str, SignedDistanceGrid]) -> None:
    mesh = CASES["box"][0].copy().apply_transform(ROTATION)
    mesh.apply_translation([0.02, 0.01, -0.03])
    skew = build_grid(mesh.vertices, mesh.faces, 48, cache=False)
    stack = SignedDistanceGrid.cat([skew, grids["capsule"]])
    flip = torch.tensor([-1.0, 1.0, 1.0])
    points, which = torch.randn(2, 500, 3) * 0.06, torch.tensor([0, 1])
    distance, gradient = stack.query(points, which)
    mirrored, mirrored_gradient = stack.mirrored().query(points * flip, which)
    torch.testing.assert_close(mirrored, distance, rtol=0, atol=2e-6)
    # A point on a cell's border takes another cell's slope in the mirror.
    assert (mirrored_gradient * flip - gradient).abs().flatten().quantile(0.99) < 1e-3
    again = stack.mirrored().mirrored()
    assert torch.equal(again.values, stack.values)
    torch.testing.assert_close(again.origin, stack.origin, rtol=0, atol=1e-7)


def test_rigid_motion_moves_the_field() -> None:
    mesh, sdf = CASES["box"]
    moved = mesh.copy().apply_transform(ROTATION)
    moved.apply_translation([0.05, -0.02, 0.1])
    grid = build_grid(moved.vertices, moved.faces, 64, cache=False)
    points = random_points(mesh, 5_000)
    there = trimesh.transform_points(points, ROTATION) + np.array([0.05, -0.02, 0.1])
    error = grid.query(as_batch(there))[0][0].numpy() - sdf(points)
    near = np.abs(sdf(points)) < 0.004
    assert np.abs(error[near]).max() < 0.6 * grid.spacing.item()
    assert np.abs(error[near]).mean() < 0.1 * grid.spacing.item()


@pytest.mark.parametrize("turned", [False, True])
def test_a_thin_blade_keeps_its_signs(turned: bool) -> None:
    sides = np.array([0.24, 0.03, 0.004])
    mesh = trimesh.creation.box(sides)
    motion = ROTATION if turned else np.eye(4)
    mesh.apply_transform(motion)
    grid = build_grid(mesh.vertices, mesh.faces, cache=False)
    rng = np.random.default_rng(0)
    inside = rng.uniform(-0.5, 0.5, (5_000, 3)) * (sides - 0.001)  # at least half a millimetre deep
    outside = rng.uniform(-0.5, 0.5, (5_000, 3)) * sides
    outside[:, 2] = np.sign(outside[:, 2]) * rng.uniform(0.0025, 0.01, 5_000)
    depth, clearance = (
        grid.query(as_batch(trimesh.transform_points(p, motion)))[0][0].numpy() for p in (inside, outside)
    )
    assert (depth < 0).mean() > 0.995
    assert (clearance > 0).all()
    core = np.abs(inside[:, :2]) < sides[:2] / 2 - 0.003
    assert (depth[core.all(-1)] < 0).all()


def test_bodies_that_cross_themselves_keep_their_signs() -> None:
    """Pseudonormals fail here: the nearest surface may lie inside the other body."""
    first, second = trimesh.creation.icosphere(3, 0.03), trimesh.creation.icosphere(3, 0.03)
    second.apply_translation([0.03, 0, 0])
    both = trimesh.util.concatenate([first, second])
    grid = build_grid(both.vertices, both.faces, 48, cache=False)
    points = random_points(both, 5_000)
    truth = np.minimum(sphere_sdf(points, 0.03), sphere_sdf(points - [0.03, 0, 0], 0.03))
    distance = grid.query(as_batch(points))[0][0].numpy()
    # The buried parts of the surfaces still pull the value to zero, never across it by more than rounding.
    assert (distance[truth > 0.001] > 0).all()
    assert (distance[truth < -0.001] < 0.0005).all()


def test_an_open_mesh_is_signed_by_winding_number() -> None:
    cup = trimesh.creation.icosphere(4, 0.04)
    cup.update_faces(cup.triangles_center[:, 2] < 0.025)
    assert not grid_build.is_closed(np.asarray(cup.faces))
    grid = build_grid(cup.vertices, cup.faces, 64, cache=False)
    points = random_points(cup, 20_000)
    points = points[points[:, 2] < 0.01]
    truth = sphere_sdf(points, 0.04)
    distance = grid.query(as_batch(points))[0][0].numpy()
    clear = np.abs(truth) > 0.001
    assert (np.sign(distance) == np.sign(truth))[clear].mean() > 0.999
    near = np.abs(truth) < 0.003
    assert np.abs(distance - truth)[near].mean() < 0.0002
    # No jump across the opening: along the axis the value never changes faster than one, but for rounding.
    axis = torch.zeros(400, 3)
    axis[:, 2] = torch.linspace(-0.02, 0.06, 400)
    step = grid.query(axis[None])[0][0].diff().abs().max()
    assert step < 2 * 0.08 / 399 + 1e-6


def test_a_cavity_is_outside() -> None:
    shell = trimesh.creation.icosphere(3, 0.04)
    hole = trimesh.creation.icosphere(3, 0.03)
    hole.invert()
    both = trimesh.util.concatenate([shell, hole])
    grid = build_grid(both.vertices, both.faces, 48, cache=False)
    line = torch.tensor([[[0.0, 0.0, 0.0], [0.02, 0.0, 0.0], [0.035, 0.0, 0.0], [0.05, 0.0, 0.0]]])
    torch.testing.assert_close(grid.query(line)[0], torch.tensor([[0.03, 0.01, -0.005, 0.01]]), rtol=0, atol=0.0015)


def test_nan_points_stay_alone(grids: dict[str, SignedDistanceGrid]) -> None:
    points = torch.zeros(2, 3, 3)
    points[0, 1, 2] = float("nan")
    points[1, 0] = float("inf")
    distance, _ = grids["sphere"].query(points)
    assert torch.isnan(distance[0, 1])
    assert torch.isfinite(distance[0, [0, 2]]).all()
    assert torch.isfinite(distance[1, 1:]).all()


def test_layout_spends_its_nodes_on_thin_objects() -> None:
    for sides in ([0.1, 0.1, 0.1], [0.25, 0.03, 0.004], [0.3, 0.01, 0.01]):
        box = trimesh.creation.box(sides)
        grid = build_grid(box.vertices, box.faces, 32, cache=False)
        assert grid.shape.max() > 32
        assert 0.8 * 32**3 < grid.values.numel() < 3 * 32**3
        low = grid.origin[0]
        high = low + grid.spacing[0] * (grid.shape[0] - 1)
        half = torch.tensor(sides) / 2
        assert (low <= -half - 0.0199).all()
        assert (high >= half + 0.0199).all()


def test_query_rejects_what_does_not_fit(grids: dict[str, SignedDistanceGrid]) -> None:
    stack = SignedDistanceGrid.cat(list(grids.values()))
    with pytest.raises(ValueError, match="points must have shape"):
        stack.query(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="which is required"):
        stack.query(torch.zeros(2, 5, 3))
    with pytest.raises(ValueError, match="which must have shape"):
        stack.query(torch.zeros(2, 5, 3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="parts: none"):
        SignedDistanceGrid.cat([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"faces": np.zeros((0, 3), int)}, "must not be empty"),
        ({"resolution": 2}, "resolution"),
        ({"margin": -0.1}, "margin"),
    ],
)
def test_build_rejects_what_makes_no_grid(change: dict, message: str) -> None:
    box = trimesh.creation.box(BOX)
    given = {"vertices": box.vertices, "faces": box.faces, "cache": False} | change
    with pytest.raises(ValueError, match=message):
        build_grid(**given)


@pytest.fixture
def points_and_distance() -> tuple[np.ndarray, np.ndarray]:
    """Points around the box and their unsigned distances, in closed form."""
    points = random_points(CASES["box"][0], 2000)
    return points, np.abs(box_sdf(points, BOX))


def box_query() -> Callable[[np.ndarray], np.ndarray]:
    box = CASES["box"][0]
    return grid_build.distance_query(np.array(box.vertices), np.array(box.faces, dtype=np.int64))


def test_exact_distance_of_libigl(
    points_and_distance: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)  # as if it were not installed
    points, expected = points_and_distance
    np.testing.assert_allclose(box_query()(points), expected, rtol=0, atol=1e-12)


def test_exact_distance_of_open3d(points_and_distance: tuple[np.ndarray, np.ndarray]) -> None:
    pytest.importorskip("open3d", reason="needs open3d-cpu and the system's libusb-1.0-0", exc_type=ImportError)
    points, expected = points_and_distance
    found = box_query()(points)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)
    assert found.dtype == np.float32  # Open3D's: libigl's are float64


def test_grid_building_asks_open3d_where_it_is(
    grids: dict[str, SignedDistanceGrid], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in with the attributes that are used answers in Open3D's place, from the box's closed form."""
    asked = []

    class Scene:
        def add_triangles(self, vertices: np.ndarray, faces: np.ndarray) -> None:
            assert (vertices.dtype, faces.dtype) == (np.float32, np.uint32)

        def compute_distance(self, points: np.ndarray) -> torch.Tensor:
            asked.append(len(points))
            return torch.from_numpy(np.abs(box_sdf(points, BOX.astype(np.float32))))

    geometry = SimpleNamespace(RaycastingScene=Scene)
    stand_in = SimpleNamespace(core=SimpleNamespace(Tensor=np.asarray), t=SimpleNamespace(geometry=geometry))
    monkeypatch.setitem(sys.modules, "open3d", stand_in)
    box = CASES["box"][0]
    found = build_grid(box.vertices, box.faces, 64, cache=False)
    assert len(asked) == 3  # every fourth node, every other, every one
    torch.testing.assert_close(found.values, grids["box"].values, rtol=0, atol=1e-6)


class TestCache:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("REGRASP_CACHE", str(tmp_path))
        return tmp_path / "grids"

    @staticmethod
    def build(side: float = 0.05, resolution: int = 16) -> SignedDistanceGrid:
        box = trimesh.creation.box([side] * 3)
        return build_grid(box.vertices, box.faces, resolution)

    def test_is_written_and_read(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = self.build()
        (file,) = folder.iterdir()
        assert file.suffix == ".npz"
        monkeypatch.setattr(grid_build, "_fill", lambda *_: pytest.fail("the cached grid was not used"))
        again = self.build()
        assert torch.equal(again.values, first.values)
        assert torch.equal(again.origin, first.origin)
        assert torch.equal(again.spacing, first.spacing)

    def test_tells_contents_apart(self, folder: Path) -> None:
        self.build(), self.build(side=0.06), self.build(resolution=20)
        assert len(list(folder.iterdir())) == 3

    def test_survives_damage(self, folder: Path) -> None:
        first = self.build()
        (file,) = folder.iterdir()
        file.write_bytes(file.read_bytes()[:1000])
        assert torch.equal(self.build().values, first.values)

    @pytest.mark.parametrize("value", ["0", "off"])
    def test_can_be_switched_off(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("REGRASP_CACHE", value)
        assert grid_build.cache_folder() is None
        self.build()
        assert not list(tmp_path.iterdir())

    def test_failing_to_write_is_no_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("in the way of the folder")
        monkeypatch.setenv("REGRASP_CACHE", str(tmp_path / "file"))
        assert len(self.build()) == 1

    def test_stays_below_its_limit(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.build()
        monkeypatch.setattr(grid_build, "CACHE_LIMIT_BYTES", 1)
        self.build(side=0.06)
        assert not list(folder.glob("*"))
