"""Large meshes: fewer triangles for everything, and the distances of the original near its surface."""

from __future__ import annotations

import warnings

import igl
import numpy as np
import pytest
import torch
import trimesh

from contact.objects import ObjectMesh, decimation
from contact.objects.decimation import decimate
from contact.objects.grid_build import build_grid

TOLERANCE = 0.05e-3
"""Metres that decimation may change a distance by near the surface."""


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    monkeypatch.setattr(decimation, "LARGE", 15_000)
    monkeypatch.setattr(decimation, "FEWER", (2_000, 8_000))
    monkeypatch.setattr(decimation, "OFF", 2e-3)  # in proportion to the triangles, of which holes grow by some


def scan(share_missing: float = 0.0, noise: float = 5e-5) -> tuple[np.ndarray, np.ndarray]:
    """A dented ball of 20,480 triangles as a scanner sees it, 5 cm in radius, with noise in metres."""
    ball, rng = trimesh.creation.icosphere(subdivisions=5), np.random.default_rng(0)
    vertices = 0.05 * ball.vertices * (1 + 0.1 * np.sin(4 * ball.vertices[:, :1]))
    faces = np.delete(ball.faces, rng.choice(len(ball.faces), int(share_missing * len(ball.faces)), replace=False), 0)
    return (vertices + rng.normal(0, noise, vertices.shape)).astype(np.float32).astype(np.float64), faces


@pytest.mark.filterwarnings("ignore:object_mesh .* is not watertight")
@pytest.mark.parametrize(("missing", "noise"), [(0.0, 5e-5), (0.05, 5e-5), (0.0, 4e-4)])
def test_distances_near_the_surface_are_those_of_the_original(missing, noise):
    """Also where noise folds the surface over, so that its normals tell nothing of the side."""
    vertices, faces = scan(missing, noise)
    found = ObjectMesh.from_any((vertices, faces), resolution=64, cache=False)
    assert len(found.faces) < len(faces) / 2
    assert found.watertight == (missing == 0)
    whole = build_grid(vertices, faces, 64, cache=False)
    rng = np.random.default_rng(1)
    corners = vertices[faces[rng.choice(len(faces), 4000)]]
    points = np.einsum("nk,nkd->nd", rng.dirichlet((1, 1, 1), 4000), corners)
    points += rng.uniform(-5e-4, 5e-4, points.shape) / np.sqrt(3)
    query = torch.from_numpy(points).float()[None]
    got, true = found.grid.query(query)[0], whole.query(query)[0]
    assert (got - true).abs().max() < TOLERANCE


def test_a_decimated_surface_is_near_the_original():
    vertices, faces = scan()
    fewer, triangles = decimate(vertices, faces.astype(np.int64))
    assert len(triangles) <= 8_000
    off = np.sqrt(igl.point_mesh_squared_distance(vertices, fewer, triangles)[0])
    assert off.max() <= decimation.OFF


def test_detail_that_needs_its_triangles_keeps_them():
    vertices, faces = scan()
    spikes = vertices * (1 + 0.2 * (np.arange(len(vertices)) % 5 == 0))[:, None]
    assert decimate(spikes, faces)[1] is faces
    small = trimesh.creation.icosphere(subdivisions=3)
    assert decimate(small.vertices, small.faces)[1] is small.faces


@pytest.mark.parametrize("kind", ["quad", "two sides", "box without height"])
def test_flat_meshes_raise_no_warnings_of_numpy(kind):
    corners = np.array([[-0.05, -0.05, 0], [0.05, -0.05, 0], [0.05, 0.05, 0], [-0.05, 0.05, 0]])
    square, box = np.array([[0, 1, 2], [0, 2, 3]]), trimesh.creation.box((0.1, 0.1, 0.1))
    mesh = {
        "quad": (corners, square),
        "two sides": (np.concatenate([corners, corners]), np.concatenate([square, square[:, ::-1] + 4])),
        "box without height": (box.vertices * [1, 1, 0], box.faces),
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.filterwarnings("ignore", "object_mesh .* is not watertight")
        found = ObjectMesh.from_any(mesh, resolution=32, cache=False)
        assert found.solid.volume() < 1e-9
        assert found.diameter == pytest.approx(0.1 * np.sqrt(2), rel=1e-5)
    for values in (found.points, found.normals, found.thickness, found.grid.values):
        assert torch.isfinite(values).all()
