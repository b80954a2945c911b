"""Procedural objects: every family is watertight, of household size, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from contact.corpus.shapes import FAMILIES, LARGE_FAMILIES, demo_shapes, sample_shape
from contact.corpus.shapes.solids import finish, flip_flat_edges, polygon, revolve, rounded, rounded_box, subdivide


def assert_good_mesh(mesh: trimesh.Trimesh) -> None:
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    assert mesh.body_count == 1
    assert 500 <= len(mesh.faces) <= 6000
    assert 0.015 <= mesh.extents.max() <= 0.35
    assert mesh.extents.min() >= 0.0015
    assert np.allclose(mesh.center_mass, 0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES + LARGE_FAMILIES)
def test_families_give_closed_bodies_of_household_size(family):
    meshes = [sample_shape(family, np.random.default_rng(seed)) for seed in range(3)]
    for mesh in meshes:
        assert_good_mesh(mesh)
    assert not np.allclose(meshes[0].extents, meshes[1].extents)


@pytest.mark.parametrize("family", FAMILIES + LARGE_FAMILIES)
def test_same_seed_same_mesh(family):
    first, second = (sample_shape(family, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first.vertices, second.vertices)
    assert np.array_equal(first.faces, second.faces)


def test_at_least_twelve_families_and_no_two_of_a_name():
    names = FAMILIES + LARGE_FAMILIES
    assert len(set(names)) == len(names) >= 12


def test_unknown_family_is_named():
    with pytest.raises(ValueError, match="family: unknown 'anvil'"):
        sample_shape("anvil", np.random.default_rng(0))


def test_demo_shapes_are_six_good_meshes():
    shapes = demo_shapes()
    assert len(shapes) == 6
    for mesh in shapes.values():
        assert_good_mesh(mesh)


@pytest.mark.parametrize(
    ("family", "genus"), [("mug", 1), ("ring", 1), ("ball", 0), ("bowl", 0), ("crate", 0), ("cover", 0)]
)
def test_topology_is_that_of_the_thing(family, genus):
    mesh = sample_shape(family, np.random.default_rng(3))
    assert mesh.euler_number == 2 - 2 * genus


def test_rounded_box_has_the_volume_of_its_closed_form():
    size, radius = np.array([40.0, 60.0, 90.0]), 10.0
    core = size - 2 * radius
    faces = 2 * radius * (core[0] * core[1] + core[1] * core[2] + core[2] * core[0])
    expected = core.prod() + faces + np.pi * radius**2 * core.sum() + 4 / 3 * np.pi * radius**3
    assert rounded_box(size, radius, 64).volume() == pytest.approx(expected, rel=2e-3)


def test_revolved_cylinder_has_its_volume_and_stands_on_zero():
    solid = revolve([(0, 0), (30, 0), (30, 80), (0, 80)], segments=256)
    assert solid.volume() == pytest.approx(np.pi * 900 * 80, rel=1e-3)
    assert solid.bounding_box()[2] == pytest.approx(0)


def test_rounding_takes_the_corners_of_a_square():
    section = rounded(polygon([(0, 0), (20, 0), (20, 20), (0, 20)]), 5.0)
    assert section.area() == pytest.approx(400 - (4 - np.pi) * 25, rel=5e-3)


def test_subdivision_keeps_the_surface_and_bounds_the_edges():
    box = trimesh.creation.box((1.0, 2.0, 3.0))
    vertices, faces = subdivide(np.array(box.vertices), np.array(box.faces), 0.3)
    fine = trimesh.Trimesh(vertices, faces, process=False)
    assert fine.is_watertight
    assert fine.volume == pytest.approx(6.0)
    assert fine.area == pytest.approx(22.0)
    assert fine.edges_unique_length.max() <= 0.3


def test_flipping_makes_a_thin_diagonal_delaunay():
    flat_kite = np.array([[0, 0, 0], [10, 0, 0], [5, 1, 0], [5, -1, 0], [5, 0, -4.0]])
    closed = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4]])
    flipped = flip_flat_edges(flat_kite, closed)
    mesh = trimesh.Trimesh(flat_kite, flipped, process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(trimesh.Trimesh(flat_kite, closed, process=False).volume)
    assert [2, 3] in np.sort(mesh.edges_unique, axis=1).tolist()


def test_finish_refuses_an_empty_solid():
    with pytest.raises(RuntimeError, match="empty"):
        finish(rounded_box((1, 1, 1), 0.1) - rounded_box((3, 3, 3), 0.1))


@pytest.mark.parametrize("family", LARGE_FAMILIES)
def test_large_things_do_not_fit_between_thumb_and_fingers_either_way(family):
    for seed in range(6):
        assert sorted(sample_shape(family, np.random.default_rng(seed)).extents)[1] > 0.06
        assert sample_shape(family, np.random.default_rng(seed)).extents.max() > 0.13
