"""Neighbourhoods against brute force, and what interpolation over them must keep."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from contact.objects.hierarchy import GATHER, INTERPOLATE, LEVELS, PointHierarchy, build_hierarchy
from hand_models.rotations import exp_so3


def cloud(seed: int = 0) -> Tensor:
    """2,048 points on a bumpy ball of 5 cm, metres."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(LEVELS[0], 3, generator=generator), dim=1)
    return direction * (0.05 + 0.005 * torch.sin(20 * direction[:, :1]))


@pytest.fixture(scope="module")
def points() -> Tensor:
    return cloud()


@pytest.fixture(scope="module")
def hierarchy(points: Tensor) -> PointHierarchy:
    return build_hierarchy(points)


def test_shapes(hierarchy: PointHierarchy) -> None:
    assert {f.name: tuple(getattr(hierarchy, f.name).shape) for f in fields(hierarchy)} == {
        "gather1": (1, LEVELS[1], GATHER),
        "gather2": (1, LEVELS[2], GATHER),
        "spread1": (1, LEVELS[0], INTERPOLATE),
        "spread1_weight": (1, LEVELS[0], INTERPOLATE),
        "spread2": (1, LEVELS[1], INTERPOLATE),
        "spread2_weight": (1, LEVELS[1], INTERPOLATE),
    }
    for name in ("gather1", "gather2", "spread1", "spread2"):
        assert getattr(hierarchy, name).dtype == torch.int64


@pytest.mark.parametrize("level", [1, 2])
def test_neighbours_are_the_nearest(points: Tensor, hierarchy: PointHierarchy, level: int) -> None:
    """Distances and not indices are compared: equally near neighbours may come in any order."""
    xyz = points.double()
    fine, coarse = xyz[: LEVELS[level - 1]], xyz[: LEVELS[level]]
    distance = torch.cdist(coarse, fine, compute_mode="donot_use_mm_for_euclid_dist")
    gathered = getattr(hierarchy, f"gather{level}")[0]
    torch.testing.assert_close(distance.gather(1, gathered), distance.sort(1).values[:, :GATHER])
    assert (gathered[:, 0] == torch.arange(len(coarse))).all()  # itself first
    spread = getattr(hierarchy, f"spread{level}")[0]
    torch.testing.assert_close(distance.T.gather(1, spread), distance.T.sort(1).values[:, :INTERPOLATE])


@pytest.mark.parametrize("level", [1, 2])
def test_interpolation(points: Tensor, hierarchy: PointHierarchy, level: int) -> None:
    index, weight = getattr(hierarchy, f"spread{level}")[0], getattr(hierarchy, f"spread{level}_weight")[0]
    assert (weight > 0).all()
    torch.testing.assert_close(weight.sum(1), torch.ones(len(weight)))
    fine, coarse = points[: LEVELS[level - 1]], points[: LEVELS[level]]
    # Inverse squared distance, as PointNet++ has it.
    expected = 1 / ((coarse[index] - fine[:, None]).double().norm(dim=-1) ** 2 + 1e-8)
    torch.testing.assert_close(weight.double(), expected / expected.sum(1, keepdim=True), atol=1e-4, rtol=1e-3)
    # Coarse points keep their values; smooth functions are followed within the spacing of the coarse level.
    value = (weight[..., None] * coarse[index]).sum(1)
    own = LEVELS[level]
    assert (value[:own] - coarse).norm(dim=1).max() < 1e-4
    spacing = (coarse[index] - fine[:, None]).norm(dim=-1).max()
    assert (value - fine).norm(dim=1).max() <= spacing


def test_moves_with_the_object(points: Tensor, hierarchy: PointHierarchy) -> None:
    turned = points.double() @ exp_so3(torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)).T + 0.4
    again = build_hierarchy(turned)
    torch.testing.assert_close(again.spread1_weight, hierarchy.spread1_weight, atol=1e-5, rtol=0)
    assert torch.equal(again.gather2, hierarchy.gather2)


def test_stack_and_select(hierarchy: PointHierarchy) -> None:
    other = build_hierarchy(cloud(1))
    assert not torch.equal(other.gather1, hierarchy.gather1)
    stacked = PointHierarchy.cat([hierarchy, other])
    chosen = stacked[torch.tensor([1, 0, 1])].to("cpu")
    for f in fields(hierarchy):
        values = getattr(chosen, f.name)
        assert torch.equal(values[0], getattr(other, f.name)[0])
        assert torch.equal(values[1], getattr(hierarchy, f.name)[0])
        assert torch.equal(values[2], values[0])
    with pytest.raises(ValueError, match="parts: none"):
        PointHierarchy.cat([])


def test_errors(points: Tensor) -> None:
    with pytest.raises(ValueError, match=r"points.*\(2000, 3\).*\(2048, 3\)"):
        build_hierarchy(points[:2000])
    broken = points.clone()
    broken[7, 1] = torch.nan
    with pytest.raises(ValueError, match=r"points: NaN"):
        build_hierarchy(broken)
