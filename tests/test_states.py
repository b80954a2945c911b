"""States of the solver: what terms ask of them, how they move, and two of them solved together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from synthetic_hand import random_hand, random_pose
from torch import Tensor

from contact.terms import FingersApart
from hand_models import HandPose, load_open_hand
from hand_models.anatomy import default_anatomy
from hand_models.fit_start import kabsch
from hand_models.inner_spheres import inner_spheres
from hand_models.record import Record
from hand_models.rotations import exp_so3
from hand_models.solver.least_squares import Termination, minimize
from hand_models.solver.normal_equations import NormalEquations
from hand_models.solver.point_forces import PointForces
from hand_models.solver.states import HandState, Of, PairState, RigidState
from hand_models.solver.terms import AnglePrior, PointTargets, ShapePrior

TIGHT = Termination(iterations=100, relative_decrease=1e-15)
IDS = torch.arange(0, 60, 7)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def body(batch: int = 3, points: int = 8) -> RigidState:
    return RigidState(0.1 * draw(batch, points, 3), exp_so3(draw(batch, 3, seed=1)), draw(batch, 3, seed=2))


@dataclass(frozen=True)
class Landmarks(Record):
    """Landmarks of any state near ``target (B, N, 3)``, as forces on them."""

    target: Tensor
    weight: float = 1.0

    def linearize(self, state: Any) -> list[PointForces]:
        error = state.landmarks.points - self.target
        stiffness = torch.full_like(error[..., 0], self.weight)
        cost = 0.5 * self.weight * error.square().sum((1, 2))
        return [PointForces(state.landmarks, cost, self.weight * error, stiffness)]


def numeric_derivative(state: Any, name: str) -> Tensor:
    """(B, D, 3, P) central differences of the points ``name`` along `retract`."""
    width, step = state.dim, 1e-6
    rows = torch.arange(len(state)).repeat_interleave(width)
    moves = (step * torch.eye(width, dtype=torch.float64)).repeat(len(state), 1)
    ahead, behind = (getattr(state[rows].retract(sign * moves), name).points for sign in (1, -1))
    return ((ahead - behind) / (2 * step)).transpose(1, 2).unflatten(0, (-1, width))


# Rigid bodies ---------------------------------------------------------------------------------------


def test_landmarks_of_a_rigid_body_and_their_derivative() -> None:
    state = body()
    for k in range(3):
        expected = state.local[k] @ state.rotation[k].T + state.translation[k]
        torch.testing.assert_close(state.landmarks.points[k], expected)
    assert state.dim == 6
    dense = state.landmarks.dense()
    torch.testing.assert_close(dense, numeric_derivative(state, "landmarks"), atol=1e-8, rtol=0)


def test_a_rigid_body_turns_about_its_origin_in_the_axes_of_the_world() -> None:
    state, turn = body(1), torch.tensor([[0.0, 0.0, 0.3]]).double()
    moved = state.retract(torch.cat([torch.tensor([[0.1, 0.2, 0.3]]).double(), turn], 1))
    torch.testing.assert_close(moved.rotation, exp_so3(turn) @ state.rotation)
    torch.testing.assert_close(moved.translation - state.translation, torch.tensor([[0.1, 0.2, 0.3]]).double())
    torch.testing.assert_close(torch.linalg.det(moved.rotation), torch.ones(1).double())


def test_forces_on_a_rigid_body_sum_to_what_their_rows_sum_to() -> None:
    """One bone: the sums over lever arms against rows that are formed, for both kinds of stiffness."""
    state = body()
    error, stiffness, normal = draw(3, 8, 3), draw(3, 8).square(), draw(3, 8, 3, seed=1)
    forces = PointForces(state.landmarks, draw(3), error, stiffness, normal)
    found, dense = state.assemble([forces]), state.landmarks.dense()  # (B, D, 3, P)
    torch.testing.assert_close(found.gradient, torch.einsum("bdxp,bpx->bd", dense, error))
    along = torch.einsum("bdxp,bpx->bdp", dense, normal)
    expected = torch.einsum("bdxp,bp,bexp->bde", dense, stiffness, dense) + along @ along.transpose(1, 2)
    torch.testing.assert_close(found.hessian, expected)


def test_a_rigid_fit_recovers_a_known_pose() -> None:
    """Exact points with equal weights: Kabsch's rotation and translation."""
    truth = body(5)
    start = truth.retract(torch.cat([0.3 * draw(5, 3), 0.3 * draw(5, 3, seed=3)], 1))
    target = truth.landmarks.points
    solution = minimize(start, [Landmarks(target, 1e4)], TIGHT)
    rotation, translation = kabsch(truth.local, target, torch.ones(5, 8).double())
    for found in (solution.state, truth):
        torch.testing.assert_close(found.rotation, rotation, atol=1e-9, rtol=0)
        torch.testing.assert_close(found.translation, translation, atol=1e-9, rtol=0)
    assert solution.converged.all()


# Hands ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("with_betas", [False, True])
def test_points_of_a_hand_are_the_models(side: str, with_betas: bool) -> None:
    model, pose = random_hand(side=side), random_pose(2, side=side)
    state = HandState.of(pose, model, IDS, with_betas)
    posed = model(pose)
    torch.testing.assert_close(state.skin.points, posed.vertices[:, IDS])
    torch.testing.assert_close(state.joints.points, posed.joints)
    torch.testing.assert_close(state.spheres.points, inner_spheres(posed.joints).centres)
    assert state.landmarks is state.joints
    for name in ("skin", "joints", "spheres"):
        dense = getattr(state, name).dense()
        assert dense.shape[1] == state.dim == 51 + 10 * with_betas
        torch.testing.assert_close(dense, numeric_derivative(state, name), atol=1e-7, rtol=0)


def test_what_terms_ask_is_computed_once_and_not_taken_along() -> None:
    state = HandState.of(random_pose(2), random_hand(), IDS)
    assert state.skin is state.skin
    assert state.spheres is state.spheres
    moved = state.retract(torch.ones(2, 51).double())
    assert (moved.joints.points - state.joints.points).norm(dim=-1).min() > 0.01
    torch.testing.assert_close(state[1].joints.points, state.joints.points[1:])


def test_a_hand_nobody_asks_for_skin_has_none() -> None:
    state = HandState.of(random_pose(2), random_hand())
    assert state.skin.points.shape == (2, 0, 3)
    assert state.joints.points.shape == (2, 21, 3)


def test_rows_of_hands_are_selected_joined_and_chosen() -> None:
    one, other = (HandState.of(random_pose(3, seed=s), random_hand(), IDS) for s in (0, 1))
    chosen = one.where(torch.tensor([True, False, True]), other)
    again = HandState.cat([one[0], other[1], one[2]])
    torch.testing.assert_close(chosen.joints.points, again.joints.points)
    assert chosen.model is one.model


# Pairs ----------------------------------------------------------------------------------------------


def pair() -> PairState:
    """A hand with free betas, and a rigid body."""
    return PairState(HandState.of(random_pose(3), random_hand(), IDS, with_betas=True), body())


def pair_terms(state: PairState) -> tuple[list[Any], list[Any]]:
    """What is known of the hand, and of the body."""
    hand = state.first
    assert isinstance(hand, HandState)
    places = hand.joints.points + 0.02 * draw(3, 21, 3)
    std = torch.full((3, 21), 0.005).double()
    about_hand = [
        PointTargets(places, torch.ones_like(std), std, points="joints"),
        AnglePrior.grasping(default_anatomy().to(torch.float64), 3),
        ShapePrior(),
    ]
    target = state.second.landmarks.points + 0.05 * draw(3, 8, 3, seed=4)  # type: ignore[union-attr]
    return about_hand, [Landmarks(target, 100.0)]


def both(about_first: list[Any], about_second: list[Any]) -> list[Of]:
    return [*(Of("first", t) for t in about_first), *(Of("second", t) for t in about_second)]


def test_unknowns_of_a_pair_are_those_of_the_first_and_then_of_the_second() -> None:
    state = pair()
    assert state.dim == 61 + 6
    step = 0.1 * draw(3, 67)
    moved = state.retract(step)
    torch.testing.assert_close(moved.first.landmarks.points, state.first.retract(step[:, :61]).landmarks.points)
    torch.testing.assert_close(moved.second.landmarks.points, state.second.retract(step[:, 61:]).landmarks.points)
    for half, at in (("first", slice(0, 61)), ("second", slice(61, 67))):
        alone = getattr(state, half)
        term = Landmarks(torch.zeros_like(alone.landmarks.points))
        found, expected = (state.assemble(Of(half, term).linearize(state)), alone.assemble(term.linearize(alone)))
        torch.testing.assert_close(found.cost, expected.cost)
        torch.testing.assert_close(found.gradient[:, at], expected.gradient)
        torch.testing.assert_close(found.hessian[:, at, at], expected.hessian)
        assert torch.equal(found.gradient.count_nonzero(), expected.gradient.count_nonzero())
        assert torch.equal(found.hessian.count_nonzero(), expected.hessian.count_nonzero())


def test_a_pair_without_a_common_term_is_two_problems() -> None:
    state = pair()
    about_hand, about_body = pair_terms(state)
    together = minimize(state, both(about_hand, about_body), TIGHT)
    hand, rigid = minimize(state.first, about_hand, TIGHT), minimize(state.second, about_body, TIGHT)
    for found, alone in ((together.state.first, hand.state), (together.state.second, rigid.state)):
        torch.testing.assert_close(found.landmarks.points, alone.landmarks.points, atol=1e-6, rtol=0)
    total = hand.equations.cost + rigid.equations.cost
    torch.testing.assert_close(together.equations.cost, total, rtol=1e-9, atol=0)


@dataclass(frozen=True)
class Held(Record):
    """The first landmark of the second half stays where the first landmark of the first is."""

    std: float

    def __getitem__(self, index: Any) -> Held:
        return self

    def linearize(self, state: PairState) -> list[NormalEquations]:
        one, other = (half.landmarks for half in (state.first, state.second))
        rows = torch.cat([one.dense()[..., 0], -other.dense()[..., 0]], 1) / self.std
        return [NormalEquations.of((one.points[:, 0] - other.points[:, 0]) / self.std, rows)]


def test_a_common_term_draws_both_halves() -> None:
    """Two rigid bodies, each drawn to a place of its own, meet in the middle: springs in a row."""
    one, other = body(2, 1), body(2, 1)
    apart = replace(other, translation=one.translation + torch.tensor([0.4, 0.0, 0.0]).double())
    state = PairState(
        replace(one, local=torch.zeros(2, 1, 3).double()), replace(apart, local=torch.zeros(2, 1, 3).double())
    )
    own = both([Landmarks(one.translation[:, None], 1.0)], [Landmarks(apart.translation[:, None], 1.0)])
    found = minimize(state, [*own, Held(std=0.5)], TIGHT).state
    # Stiffness 1, 4 and 1 in a row of 0.4 m: what is left of the way between them is 0.4 (1/4) / (1 + 1/4 + 1).
    left = found.second.landmarks.points[:, 0, 0] - found.first.landmarks.points[:, 0, 0]
    torch.testing.assert_close(left, torch.full((2,), 0.4 * 0.25 / 2.25).double(), atol=1e-6, rtol=0)
    middle = 0.5 * (found.first.landmarks.points + found.second.landmarks.points)[:, 0]
    expected = one.translation + torch.tensor([0.2, 0.0, 0.0]).double()
    torch.testing.assert_close(middle, expected, atol=1e-6, rtol=0)


def test_a_term_that_costs_nothing_may_stand_in_one_half() -> None:
    """Fingers that are apart."""
    flat = HandState.of(HandPose.zeros(2), load_open_hand())
    state = PairState(flat, flat)
    for half in ("first", "second"):
        found = state.assemble(Of(half, FingersApart(0.001)).linearize(state))
        assert (found.cost == 0).all()
        assert found.hessian.shape == (2, 102, 102)
