"""Every backend of the accelerated queries gives the same answer; optional ones are tested where installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from contact.objects import accelerate
from contact.objects.accelerate import nearest, signed_distance


def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 200, 3, generator=generator), torch.rand(3, 300, 3, generator=generator)


def check_nearest(backend: str) -> None:
    query, target = clouds()
    pairs = (query[:, :, None] - target[:, None]).norm(dim=-1)
    distance, index = nearest(query, target, backend=backend)
    assert torch.equal(index, pairs.argmin(-1))
    torch.testing.assert_close(distance, pairs.amin(-1))


@pytest.mark.parametrize("backend", ["auto", "scipy", "torch"])
def test_nearest_matches_brute_force(backend: str) -> None:
    check_nearest(backend)


def test_nearest_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerate, "_PAIRS_AT_ONCE", 3 * 300 * 7)
    check_nearest("torch")


def test_nearest_with_pytorch3d() -> None:
    pytest.importorskip("pytorch3d.ops", exc_type=ImportError)
    check_nearest("pytorch3d")


@pytest.mark.parametrize("backend", ["scipy", "torch"])
def test_nearest_is_differentiable(backend: str) -> None:
    query, target = (cloud.double().requires_grad_() for cloud in clouds())
    distance, index = nearest(query, target, backend=backend)
    to_query, to_target = torch.autograd.grad(distance.sum(), [query, target])
    along = (query - target.gather(1, index[..., None].expand(-1, -1, 3))) / distance[..., None]
    torch.testing.assert_close(to_query, along)
    torch.testing.assert_close(to_target.sum(1), -along.sum(1))


def test_coincident_points_have_finite_gradients() -> None:
    query = torch.zeros(1, 2, 3, requires_grad=True)
    nearest(query, torch.zeros(1, 1, 3))[0].sum().backward()
    assert torch.isfinite(query.grad).all()


def test_nearest_rejects_what_does_not_fit() -> None:
    query, target = clouds()
    with pytest.raises(ValueError, match="query"):
        nearest(query[0], target)
    with pytest.raises(ValueError, match="target"):
        nearest(query, target[:1])
    with pytest.raises(ValueError, match="target"):
        nearest(query, target[:, :0])
    with pytest.raises(ValueError, match="backend"):
        nearest(query, target, backend="guess")


def box_truth(points: np.ndarray, sides: np.ndarray) -> np.ndarray:
    q = np.abs(points) - sides / 2
    return np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(axis=-1), 0)


def check_distance(backend: str) -> None:
    sides = np.array([0.1, 0.07, 0.04])
    box = trimesh.creation.box(sides)
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (2000, 3))
    found = signed_distance(points, box.vertices, box.faces, backend=backend)
    np.testing.assert_allclose(found, box_truth(points, sides), atol=1e-7)


@pytest.mark.parametrize("backend", ["auto", "libigl"])
def test_signed_distance_matches_the_closed_form(backend: str) -> None:
    check_distance(backend)


def test_signed_distance_with_open3d() -> None:
    pytest.importorskip("open3d", exc_type=ImportError)
    check_distance("open3d")


def test_signed_distance_takes_tensors_and_nothing() -> None:
    box = trimesh.creation.box([0.1, 0.1, 0.1])
    mesh = torch.tensor(np.array(box.vertices), dtype=torch.float32), torch.tensor(np.array(box.faces))
    assert signed_distance(torch.zeros(1, 3), *mesh) == pytest.approx(-0.05)
    assert signed_distance(np.zeros((0, 3)), *mesh, backend="libigl").shape == (0,)


def test_signed_distance_rejects_what_does_not_fit() -> None:
    box = trimesh.creation.box([0.1, 0.1, 0.1])
    with pytest.raises(ValueError, match="points must have shape"):
        signed_distance(np.zeros(3), box.vertices, box.faces)
    with pytest.raises(ValueError, match="finite"):
        signed_distance(np.full((1, 3), np.nan), box.vertices, box.faces)
    with pytest.raises(ValueError, match="must not be empty"):
        signed_distance(np.zeros((1, 3)), box.vertices, np.zeros((0, 3)))
    with pytest.raises(ValueError, match="backend"):
        signed_distance(np.zeros((1, 3)), box.vertices, box.faces, backend="guess")


def test_missing_packages_are_none() -> None:
    assert accelerate.load_optional("no_such_package_at_all") is None
    assert accelerate.load_optional("math") is not None
