"""Terms of a hand by itself against their closed forms; derivatives against finite differences in double precision."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import scipy.special
import torch
from synthetic_hand import random_hand, random_pose
from term_checks import SIDES, WIDTHS, check_term, draw, equations_of, fixed_points, hand_state
from torch import Tensor

from hand_models.anatomy import Anatomy, default_anatomy
from hand_models.solver.normal_equations import NormalEquations
from hand_models.solver.states import HandState
from hand_models.solver.terms import AnglePrior, GaussianJoints, JointLimits, PointTargets, ShapePrior


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return default_anatomy().to(torch.float64)


# Points with known places ---------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("robust", [2.0, None])
@pytest.mark.parametrize("points", ["skin", "joints"])
def test_point_targets(points: Literal["joints", "skin"], robust: float | None, width: int) -> None:
    """Joints each to its own place; of the skin some points to several places, others to none."""
    model, pose, count = random_hand(), random_pose(2), 12 if points == "skin" else 21
    index = (40 * draw(2, 12)).long() % 8 if points == "skin" else None
    state = hand_state(model, pose, width)
    target = 0.04 * (draw(2, count, 3) - 0.5) + model.root(pose)[:, None] + pose.transl[:, None]
    term = PointTargets(target, draw(2, count, seed=1), 0.005 + 0.02 * draw(2, count, seed=2), index, points, robust)

    def residual(term: PointTargets, state: HandState) -> Tensor:
        at = getattr(state, points).points
        if term.index is not None:
            at = torch.stack([places[chosen] for places, chosen in zip(at, term.index, strict=True)])
        return ((at - term.target) / term.std[..., None]).flatten(1)

    size = residual(term, state).unflatten(1, (count, 3)).norm(dim=2)
    assert (size > 2).any()  # beyond the quadratic part
    share, loss = torch.ones_like(size), 0.5 * size**2
    if robust is not None:
        share = (1 + (size / robust) ** 2).rsqrt()
        loss = torch.from_numpy(scipy.special.pseudo_huber(robust, size.numpy()))
    found = check_term(term, state, residual, (term.weight * share).repeat_interleave(3, 1))
    torch.testing.assert_close(found.cost, (term.weight * loss).sum(1))


def test_point_targets_closed_form() -> None:
    error = torch.tensor([[[3e-6, -4e-6, 0.0], [0.03, 0.04, 0.0], [1.0, 1.0, 1.0]]], dtype=torch.float64)
    target = torch.randn(1, 3, 3, dtype=torch.float64)
    std = torch.tensor([[0.001, 0.005, 0.001]], dtype=torch.float64)
    weight = torch.tensor([[0.25, 1.0, 0.0]], dtype=torch.float64)
    state: Any = SimpleNamespace(skin=fixed_points(target + error))
    (found,) = PointTargets(target, weight, std, robust=2.0).linearize(state)
    torch.testing.assert_close(found.force[0, 0], 0.25 * error[0, 0] / 0.001**2, rtol=1e-5, atol=1e-9)
    # 50 mm at 5 mm deviation: pseudo-Huber of ten deviations, along the error.
    assert float(found.cost) == pytest.approx(float(scipy.special.pseudo_huber(2.0, 10.0)), rel=1e-5)
    assert found.force[0, 1, 0] / found.force[0, 1, 1] == pytest.approx(0.75)
    assert (found.force[0, 2] == 0).all()
    assert found.stiffness is not None
    assert found.stiffness[0, 2] == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_gaussian_joints(width: int) -> None:
    """Residuals are whitened by the Cholesky factor, and share one robust loss a joint."""
    model, pose = random_hand(), random_pose(2)
    state = hand_state(model, pose, width)
    root = 0.02 * (draw(2, 21, 3, 3, seed=3) - 0.5)
    covariance = root @ root.transpose(2, 3) + 0.005**2 * torch.eye(3)
    target = state.joints.points + 0.04 * (draw(2, 21, 3) - 0.5)
    term = GaussianJoints(target, covariance, weight=0.7, robust=2.0)

    def residual(term: GaussianJoints, state: HandState) -> Tensor:
        factor = torch.linalg.cholesky(term.covariance)
        return torch.linalg.solve(factor, (state.joints.points - term.target)[..., None]).flatten(1)

    off = state.joints.points - target
    size = torch.einsum("bjc,bjck,bjk->bj", off, torch.linalg.inv(covariance), off).sqrt()
    assert (size > 2).any()  # beyond the quadratic part
    assert (size < 2).any()
    share = (1 + (size / 2) ** 2).rsqrt()
    found = check_term(term, state, residual, (0.7 * share).repeat_interleave(3, 1))
    loss = torch.from_numpy(scipy.special.pseudo_huber(2.0, size.numpy()))
    torch.testing.assert_close(found.cost, 0.7 * loss.sum(1))
    each = replace(term, weight=torch.tensor([0.7, 0.1]))  # every hand with a weight of its own
    one, other = equations_of(each, state), equations_of(term, state)
    for name in ("cost", "gradient", "hessian"):
        first, second = getattr(other, name)
        torch.testing.assert_close(getattr(one, name), torch.stack([first, second / 7]))
    assert each[1:].weight.tolist() == [pytest.approx(0.1)]


def test_gaussian_joints_that_err_alike_in_all_directions_are_point_targets() -> None:
    state = hand_state(random_hand(), random_pose(2), 51)
    target, std = state.joints.points + 0.04 * (draw(2, 21, 3) - 0.5), 0.005 + 0.02 * draw(2, 21, seed=2)
    gaussian = GaussianJoints(target, std[..., None, None] ** 2 * torch.eye(3), weight=0.3)
    same = PointTargets(target, torch.full_like(std, 0.3), std, points="joints")
    one, other = equations_of(gaussian, state), equations_of(same, state)
    for name in ("cost", "gradient", "hessian"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))


# Joint angles ---------------------------------------------------------------------------------------


def angles_only(side: str, width: int, batch: int = 3) -> HandState:
    return hand_state(random_hand(side=side), random_pose(batch, side=side), width)


def bent(angles: Tensor, anatomy: Anatomy, side: str = "right") -> HandState:
    """One hand with anatomical ``angles (15, 3)``."""
    pose = replace(random_pose(1, side=side), hand_pose=anatomy.from_anatomical(angles, side=side)[None])
    return hand_state(random_hand(side=side), pose, 51)


def pull(equations: NormalEquations, anatomy: Anatomy, side: str = "right") -> Tensor:
    """(B, 15, 3) derivative by the anatomical angles."""
    return anatomy.to_anatomical(equations.gradient[:, 6:51].unflatten(1, (15, 3)), side=side)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("side", SIDES)
def test_angle_prior(anatomy: Anatomy, side: str, width: int) -> None:
    state = angles_only(side, width)
    term = AnglePrior(0.3 * draw(3, 15, 3), 0.1 + draw(3, 15, 3, seed=1), anatomy)

    def residual(term: AnglePrior, state: HandState) -> Tensor:
        angles = anatomy.to_anatomical(state.pose.hand_pose, side=side)
        return ((angles - term.mean) / term.std).flatten(1)

    found = check_term(term, state, residual)
    torch.testing.assert_close(found.cost, 0.5 * (residual(term, state) ** 2).sum(1))


@pytest.mark.parametrize("side", SIDES)
def test_angle_prior_closed_form(anatomy: Anatomy, side: str) -> None:
    usual = AnglePrior.grasping(anatomy, 1)
    assert equations_of(usual, bent(anatomy.mean, anatomy, side)).cost < 1e-12
    # One standard deviation of one angle is one, and the cost of isotropic priors knows no axes.
    off = anatomy.mean.clone()
    off[3, 1] += anatomy.std[3, 1]
    found = equations_of(usual, bent(off, anatomy, side))
    assert int((pull(found, anatomy, side)[0] * anatomy.std).abs().argmax()) == 3 * 3 + 1
    assert float(2 * found.cost) == pytest.approx(1.0, abs=1e-5)
    wider = equations_of(AnglePrior.grasping(anatomy, 1, 2.0), bent(off, anatomy, side))
    assert float(2 * wider.cost) == pytest.approx(0.25, abs=1e-5)
    state = angles_only(side, 51)
    even = AnglePrior(torch.zeros(3, 15, 3).double(), torch.full((3, 15, 3), 0.2).double(), anatomy)
    expected = (state.pose.hand_pose**2).sum((1, 2)) / 0.04
    torch.testing.assert_close(2 * equations_of(even, state).cost, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("side", SIDES)
def test_joint_limits(anatomy: Anatomy, side: str, width: int) -> None:
    state, term = angles_only(side, width), JointLimits(anatomy, 0.05)

    def residual(term: JointLimits, state: HandState) -> Tensor:
        angles = anatomy.to_anatomical(state.pose.hand_pose, side=side)
        return ((anatomy.lower - angles).clamp_min(0) + (angles - anatomy.upper).clamp_min(0)).flatten(1) / 0.05

    found = check_term(term, state, residual)
    torch.testing.assert_close(found.cost, 0.5 * (residual(term, state) ** 2).sum(1))
    angles = anatomy.to_anatomical(state.pose.hand_pose, side=side)
    within = (angles > anatomy.lower) & (angles < anatomy.upper)
    assert torch.equal(residual(term, state) == 0, within.flatten(1))
    assert (~within).any()


@pytest.mark.parametrize("side", SIDES)
def test_joint_limits_closed_form(anatomy: Anatomy, side: str) -> None:
    term = JointLimits(anatomy, 0.05)
    inside = equations_of(term, bent(0.5 * (anatomy.lower + anatomy.upper), anatomy, side))
    assert inside.cost == 0
    assert (inside.gradient == 0).all()
    assert (inside.hessian == 0).all()
    over = anatomy.upper - 0.01
    over[7, 0] += 0.11
    over[7, 2] = anatomy.lower[7, 2] - 0.15
    found = equations_of(term, bent(over, anatomy, side))
    expected = torch.zeros(15, 3, dtype=torch.float64)
    expected[7, 0], expected[7, 2] = 2.0, -3.0
    torch.testing.assert_close(0.05 * pull(found, anatomy, side)[0], expected, atol=2e-5, rtol=0)
    assert float(found.cost) == pytest.approx(0.5 * (2**2 + 3**2), abs=1e-4)


def test_costs_of_angles_are_those_in_the_mirror(anatomy: Anatomy) -> None:
    right = angles_only("right", 51)
    left = hand_state(random_hand(side="left"), right.pose.mirrored(), 51)
    for term in (AnglePrior.grasping(anatomy, 3), JointLimits(anatomy, 0.05)):
        here, there = equations_of(term, right), equations_of(term, left)
        torch.testing.assert_close(here.cost, there.cost)
        torch.testing.assert_close(pull(here, anatomy), pull(there, anatomy, "left"))


# Shape ----------------------------------------------------------------------------------------------


def test_shape_prior() -> None:
    state, term = angles_only("right", 61), ShapePrior(0.5)
    found = check_term(term, state, lambda t, s: t.weight * s.pose.betas)
    torch.testing.assert_close(found.cost, 0.125 * (state.pose.betas**2).sum(1))
    assert (found.gradient[:, :51] == 0).all()
