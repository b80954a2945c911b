"""Capsule contact against closed forms and slow references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from contact.capsule import (
    Capsule,
    axis_distance,
    contact_at_distance,
    contact_of_hand,
    contact_of_object,
    contact_value,
    nearest_index,
)

UP = torch.tensor([0.0, 0.0, 1.0])


def unit(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        ((0.0, 0.0, 0.0), 0.0),  # on the axis
        ((0.003, 0.0, -0.001), 0.003),  # beside it
        ((0.0, 0.0, 0.0045), 0.004),  # above the upper end
        ((0.0, 0.0, -0.0065), 0.005),  # below the lower end
        ((0.003, 0.0, 0.0045), 0.005),  # off the upper end: a 3-4-5 triangle
        ((0.0, -0.003, -0.0055), 0.005),
    ],
)
def test_distance_to_axis(offset: tuple[float, float, float], expected: float) -> None:
    got = axis_distance(torch.tensor(offset), UP)
    assert got.item() == pytest.approx(expected, abs=2e-7)


def test_distance_to_axis_against_dense_sampling_of_the_axis() -> None:
    capsule = Capsule()
    offset, normal = torch.randn(200, 3) * 0.004, unit((200, 3))
    along = torch.linspace(capsule.bottom, capsule.top, 4001)
    brute = (offset[:, None] - along[:, None] * normal[:, None]).norm(dim=-1).min(1).values
    torch.testing.assert_close(axis_distance(offset, normal), brute, atol=1e-6, rtol=0)


def test_value_is_one_inside_and_falls_as_published_outside() -> None:
    d = torch.linspace(0, 0.03, 301)
    value = contact_value(d)
    published = (1 / (d / 0.001 + 0.0001)).clamp(0, 1)
    torch.testing.assert_close(value, published, atol=1.1e-4, rtol=0)
    assert (value[d <= 0.001] == 1).all()
    assert value[d.sub(0.005).abs().argmin()].item() == pytest.approx(0.2, abs=1e-4)


def test_both_maps_of_two_parallel_planes() -> None:
    """A sampled hand plane 3 mm above a sampled object plane, points face to face: 1 / (3 - 0.5)."""
    x, y = torch.meshgrid(torch.arange(10) * 0.005, torch.arange(10) * 0.005, indexing="ij")
    plane = torch.stack([x.flatten(), y.flatten(), torch.zeros(100)], -1)[None]
    normals, hand = UP.expand(1, 100, 3), plane[:, torch.randperm(100)] + 0.003 * UP
    for value in (contact_of_object(plane, normals, hand), contact_of_hand(hand, plane, normals)):
        torch.testing.assert_close(value, torch.full((1, 100), 0.4), atol=1e-5, rtol=0)


def test_maps_against_loops() -> None:
    hand, obj, normals = torch.randn(3, 40, 3) * 0.01, torch.randn(3, 60, 3) * 0.01, unit((3, 60, 3))
    of_object, of_hand = contact_of_object(obj, normals, hand), contact_of_hand(hand, obj, normals)
    for b in range(3):
        for i in range(60):
            j = (hand[b] - obj[b, i]).norm(dim=1).argmin()
            want = contact_value(axis_distance(hand[b, j] - obj[b, i], normals[b, i]))
            torch.testing.assert_close(of_object[b, i], want)
        for j in range(40):
            i = (hand[b, j] - obj[b]).norm(dim=1).argmin()
            want = contact_value(axis_distance(hand[b, j] - obj[b, i], normals[b, i]))
            torch.testing.assert_close(of_hand[b, j], want)


def test_an_object_shared_by_the_batch() -> None:
    hand, obj, normals = torch.randn(4, 30, 3) * 0.01, torch.randn(1, 50, 3) * 0.01, unit((1, 50, 3))
    each = obj.expand(4, -1, -1), normals.expand(4, -1, -1)
    torch.testing.assert_close(contact_of_object(obj, normals, hand), contact_of_object(*each, hand))
    torch.testing.assert_close(contact_of_hand(hand, obj, normals), contact_of_hand(hand, *each))


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_nearest_index_against_a_tree(shift: float) -> None:
    """Also far from the origin, where differences of squares lose digits unless centred."""
    points, targets = torch.randn(2, 300, 3) * 0.05 + shift, torch.randn(2, 400, 3) * 0.05 + shift
    got = nearest_index(points, targets)
    for b in range(2):
        distance, _ = cKDTree(targets[b].numpy()).query(points[b].numpy())
        chosen = (targets[b][got[b]] - points[b]).norm(dim=1).numpy()
        assert np.abs(chosen - distance).max() < 2e-6


def test_surface_contact_is_the_limit_of_dense_sampling() -> None:
    grid = torch.linspace(-0.01, 0.01, 201)
    x, y = torch.meshgrid(grid, grid, indexing="ij")
    plane = torch.stack([x.flatten(), y.flatten(), torch.zeros(x.numel())], -1)[None]
    height = torch.linspace(-0.008, 0.012, 81)
    hand = torch.stack([torch.zeros(81), torch.zeros(81), height], -1)[None]
    sampled = contact_of_hand(hand, plane, UP.expand(1, plane.shape[1], 3))
    torch.testing.assert_close(contact_at_distance(height)[None], sampled, atol=1e-3, rtol=0)


def test_rigid_motion_changes_nothing() -> None:
    hand, obj, normals = torch.randn(1, 30, 3) * 0.01, torch.randn(1, 50, 3) * 0.01, unit((1, 50, 3))
    rotation, _ = torch.linalg.qr(torch.randn(3, 3))
    moved = hand @ rotation.T + 0.1, obj @ rotation.T + 0.1
    before = contact_of_object(obj, normals, hand)
    torch.testing.assert_close(
        contact_of_object(moved[1], normals @ rotation.T, moved[0]), before, atol=1e-4, rtol=1e-3
    )


def test_gradients() -> None:
    hand = (torch.randn(2, 12, 3, dtype=torch.float64) * 0.01).requires_grad_()
    obj, normals = torch.randn(2, 15, 3, dtype=torch.float64) * 0.01, unit((2, 15, 3)).double()
    to_object, to_hand = nearest_index(obj, hand.detach()), nearest_index(hand.detach(), obj)

    def maps(h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        of_object = contact_of_object(obj, normals, h, nearest=to_object)
        return of_object, contact_of_hand(h, obj, normals, nearest=to_hand)

    assert torch.autograd.gradcheck(maps, (hand,), eps=1e-8, atol=1e-4)


def test_gradient_is_finite_on_the_axis() -> None:
    offset = torch.zeros(5, 3, requires_grad=True)
    contact_value(axis_distance(offset, UP)).sum().backward()
    assert offset.grad is not None
    assert (offset.grad == 0).all()


@pytest.mark.parametrize(("values", "name"), [({"bottom": 0.001}, "bottom"), ({"radius": 0.0}, "radius")])
def test_capsule_without_extent_is_refused(values: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Capsule(**values)
