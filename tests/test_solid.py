"""Objects as solid bodies: of closed meshes exactly, of open ones as their distance grids see them."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from contact.corpus.shapes import demo_shapes
from contact.objects import ObjectMesh
from contact.objects.grid import SignedDistanceGrid
from contact.objects.solid import cap_holes, closed_solid, grid_solid
from refine.measure.volumes import intersection_volume

pytestmark = pytest.mark.filterwarnings("ignore:object_mesh .* is not watertight")


def opened(mesh: trimesh.Trimesh, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The mesh without a share of its faces, without one of them at least."""
    count = len(mesh.faces)
    gone = np.random.default_rng(seed).choice(count, max(1, int(share * count)), replace=False)
    return np.asarray(mesh.vertices), np.delete(np.asarray(mesh.faces), gone, axis=0)


@pytest.mark.parametrize("name", ["mug", "screwdriver", "box"])
def test_the_level_set_of_a_grid_has_the_volume_of_the_mesh(name):
    found = ObjectMesh.from_any(demo_shapes()[name])
    exact = closed_solid(found.vertices.double().numpy(), found.faces.numpy())
    assert grid_solid(found.grid).volume() == pytest.approx(exact.volume(), rel=0.005)
    assert found.solid.volume() == pytest.approx(exact.volume(), rel=1e-9)


@pytest.mark.parametrize("name", ["mug", "bottle"])
@pytest.mark.parametrize("share", [0.0, 0.05])
def test_an_open_object_shares_the_volume_of_the_closed_one(name, share):
    """Of balls of a fingertip's size that are sunk into the surface; manifold3d on the closed mesh is the reference."""
    shape = demo_shapes()[name]
    closed, found = ObjectMesh.from_any(shape), ObjectMesh.from_any(opened(shape, share))
    assert not found.watertight
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.01)
    places = closed.points[:8].double().numpy() + 0.002 * closed.normals[:8].double().numpy()
    balls = places[:, None] + ball.vertices
    true, got = (intersection_volume(balls, ball.faces, obj) for obj in (closed, found))
    assert np.abs(got - true).max() < 0.1e-6
    assert got.sum() == pytest.approx(true.sum(), rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_a_capped_mesh_has_the_volume_of_the_closed_one(share):
    shape = demo_shapes()["mug"]
    solid = closed_solid(*cap_holes(*opened(shape, share)))
    assert solid.volume() == pytest.approx(shape.volume, rel=1e-4)
    assert ObjectMesh.from_any(opened(shape, share)).solid.volume() == pytest.approx(shape.volume, rel=1e-4)


def test_a_mesh_that_encloses_nothing_shares_nothing():
    vertices = np.array([[-0.05, -0.05, 0], [0.05, -0.05, 0], [0.05, 0.05, 0], [-0.05, 0.05, 0]])
    sheet = ObjectMesh.from_any((vertices, np.array([[0, 1, 2], [0, 2, 3]])))
    ball = trimesh.creation.icosphere(radius=0.02)
    assert sheet.solid.is_empty()
    assert intersection_volume(ball.vertices[None], ball.faces, sheet)[0] == 0


def test_a_stack_of_grids_is_no_solid():
    grid = ObjectMesh.from_any(trimesh.creation.box((0.1, 0.1, 0.1)), resolution=16).grid
    with pytest.raises(ValueError, match="holds 2 objects"):
        grid_solid(SignedDistanceGrid.cat([grid, grid]))
