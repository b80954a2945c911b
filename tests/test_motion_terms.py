"""Terms of motions: derivatives by finite differences, AR(1) errors against their dense covariance, hands at rest."""

from __future__ import annotations

import pytest
import torch
from synthetic_hand import random_hand, random_pose
from test_sequence import dense
from torch import Tensor

from hand_models import HandModel, HandPose
from hand_models.rotations import exp_so3
from hand_models.solver.motion import CorrelatedInput, InFrame, MovesWith
from hand_models.solver.sequence import Acceleration, SequenceState
from hand_models.solver.states import HandState

SEQUENCES, LENGTH = 2, 4


@pytest.fixture(scope="module")
def hand() -> HandModel:
    return random_hand(posedirs=False)


def frames(count: int, size: float = 0.1) -> HandPose:
    generator = torch.Generator().manual_seed(count)
    shift = size * torch.randn(count, 51, generator=generator, dtype=torch.float64)
    return random_pose(1).repeat_interleave(count).retract(shift)


def states(hand: HandModel, size: float = 0.1) -> SequenceState:
    return SequenceState(HandState.of(frames(SEQUENCES * LENGTH, size), hand), LENGTH)


def everywhere() -> Tensor:
    return torch.eye(3, dtype=torch.float64).repeat(SEQUENCES * LENGTH, 1, 1)


def given(hand: HandModel, mean: HandPose, missing: int | None = None) -> CorrelatedInput:
    rows = len(mean)
    generator = torch.Generator().manual_seed(7)
    factor = 20 * torch.eye(51, dtype=torch.float64).repeat(rows, 1, 1)
    factor += torch.randn(rows, 51, 51, generator=generator, dtype=torch.float64).tril()
    seen = 30 * torch.randn(rows, 3, 3, generator=generator, dtype=torch.float64)
    level, change = torch.full((rows, 51), 0.3, dtype=torch.float64), torch.full((rows, 51), 2.0, dtype=torch.float64)
    if missing is not None:
        factor[missing], seen[missing] = 0, 0
    return CorrelatedInput(LENGTH, mean, factor, level, change, hand.joints(mean), seen)


def numeric_gradient(term: object, state: SequenceState, step: float = 1e-6) -> Tensor:
    def cost(at: SequenceState) -> Tensor:
        return term.linearize(at)[0].cost  # type: ignore[attr-defined]

    moves = (step * torch.eye(state.dim, dtype=torch.float64))[:, None].expand(-1, SEQUENCES, -1)
    return torch.stack([(cost(state.retract(m)) - cost(state.retract(-m))) / (2 * step) for m in moves], 1)


@pytest.mark.parametrize("kind", ["input", "in hand", "in frame", "in picture"])
def test_derivatives(hand: HandModel, kind: str) -> None:
    """Of the input they are exact at the mean alone: turns that are off by little."""
    state = states(hand, 1e-3 if kind == "input" else 0.1)
    if kind == "input":
        base = random_pose(1).repeat_interleave(SEQUENCES * LENGTH)
        term = given(hand, base, missing=2)
    elif kind in ("in frame", "in picture"):
        generator = torch.Generator().manual_seed(3)
        turn = exp_so3(torch.randn(SEQUENCES * LENGTH, 3, generator=generator).double())
        shift = torch.randn(len(turn), 3, generator=generator).double() + torch.tensor([0.0, 0.0, 5.0])
        picture = 2.0 if kind == "in picture" else None
        term = InFrame(LENGTH, turn, shift, Acceleration(0.02, 0.1), picture)
    else:
        weight = torch.rand(SEQUENCES * LENGTH, generator=torch.Generator().manual_seed(1)).double()
        generator = torch.Generator().manual_seed(2)
        onto = torch.nn.functional.normalize(torch.randn(len(weight), 3, generator=generator).double(), dim=1)
        term = MovesWith(LENGTH, weight, onto[:, :, None] * onto[:, None], 0.01, 0.05)
    (equations,) = term.linearize(state)
    numeric = numeric_gradient(term, state)
    scale = float(numeric.abs().max())
    torch.testing.assert_close(
        equations.gradient.flatten(1), numeric, atol=2e-3 * scale if kind == "input" else 1e-6 * scale, rtol=0
    )
    assert torch.linalg.eigvalsh(dense(equations).hessian).amin() > -1e-6 * float(equations.own.abs().max())


def test_missing_frames_cost_nothing(hand: HandModel) -> None:
    mean = random_pose(1).repeat_interleave(SEQUENCES * LENGTH)
    term, state = given(hand, mean, missing=1), SequenceState(HandState.of(mean, hand), LENGTH)
    move = torch.zeros(SEQUENCES, LENGTH, 51, dtype=torch.float64)
    move[0, 1] = 0.3
    (equations,) = term.linearize(state.retract(move.flatten(1)))
    assert equations.cost.abs().max() < 1e-12
    move[0, 2] = 0.3
    (equations,) = term.linearize(state.retract(move.flatten(1)))
    assert equations.cost[0] > 1


def test_levels_and_changes_are_the_precision_of_ar1(hand: HandModel) -> None:
    """Away from the ends, the Hessian of an AR(1) error is the inverse of its covariance ρ^|i−j|."""
    from refine.evidence.error_in_time import level_and_change

    rho, length = 0.8, 9
    level, change = level_and_change(0.0, rho)
    mean = random_pose(1).repeat_interleave(length)
    rows = torch.full((length, 51), 1.0, dtype=torch.float64)
    eye = torch.eye(51, dtype=torch.float64).repeat(length, 1, 1)
    nothing = torch.zeros(length, 3, 3, dtype=torch.float64)
    term = CorrelatedInput(length, mean, eye, level * rows, change * rows, hand.joints(mean), nothing)
    (equations,) = term.linearize(SequenceState(HandState.of(mean, hand), length))
    found = dense(equations).hessian[0].view(length, 51, length, 51)[:, 0, :, 0]
    at = torch.arange(length, dtype=torch.float64)
    expected = torch.linalg.inv(rho ** (at[:, None] - at).abs())
    torch.testing.assert_close(found[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-9, rtol=0)
    assert level_and_change(1.0) == pytest.approx((1.0, 0.0))


def test_a_hand_at_rest_costs_nothing_and_a_step_costs_its_square(hand: HandModel) -> None:
    pose = random_pose(1).repeat_interleave(SEQUENCES * LENGTH)
    state = SequenceState(HandState.of(pose, hand), LENGTH)
    weight = torch.ones(SEQUENCES * LENGTH, dtype=torch.float64)
    term = MovesWith(LENGTH, weight, everywhere(), 0.01, 0.05, robust=100.0)
    assert term.linearize(state)[0].cost.abs().max() < 1e-12
    move = torch.zeros(SEQUENCES, LENGTH, 51, dtype=torch.float64)
    move[1, 2:, 0] = 0.02  # two standard deviations, once
    cost = term.linearize(state.retract(move.flatten(1)))[0].cost
    assert cost.tolist() == pytest.approx([0.0, 2.0], rel=1e-3)


def test_variances_are_blocks_of_the_inverse(hand: HandModel) -> None:
    state = states(hand)
    terms = [
        given(hand, frames(SEQUENCES * LENGTH)),
        MovesWith(LENGTH, torch.ones(SEQUENCES * LENGTH).double(), everywhere(), 0.01, 0.05),
    ]
    equations = state.assemble([part for term in terms for part in term.linearize(state)])
    inverse = torch.linalg.inv(dense(equations).hessian).view(SEQUENCES, LENGTH, 51, LENGTH, 51)
    expected = torch.stack([inverse[:, t, :, t] for t in range(LENGTH)], 1)
    torch.testing.assert_close(equations.variances(), expected, rtol=1e-4, atol=1e-8)


def test_whole_sequences_are_selected(hand: HandModel) -> None:
    state, term = states(hand), given(hand, frames(SEQUENCES * LENGTH))
    whole, part = term.linearize(state)[0], term[1:2].linearize(state[1:2])[0]
    torch.testing.assert_close(part.cost, whole.cost[1:2])
    torch.testing.assert_close(part.next, whole.next[1:2])


def test_what_moves_in_a_frame_is_seen_from_there(hand: HandModel) -> None:
    """Hands given in the frame of a body that tumbles move as smoothly as they do before the camera."""
    count = SEQUENCES * LENGTH
    generator = torch.Generator().manual_seed(4)
    turn = exp_so3(torch.randn(count, 3, generator=generator).double())
    shift = torch.randn(count, 3, generator=generator).double()
    before_camera = frames(count)
    root = hand.root(before_camera)
    back = turn.transpose(1, 2)
    inside = before_camera.transformed(back, -(back @ shift[..., None])[..., 0], root)
    onto = (turn @ root[..., None])[..., 0] + shift
    smooth = Acceleration(0.02, 0.1)
    (found,) = InFrame(LENGTH, turn, onto, smooth).linearize(SequenceState(HandState.of(inside, hand), LENGTH))
    (expected,) = smooth.linearize(SequenceState(HandState.of(before_camera, hand), LENGTH))
    torch.testing.assert_close(found.cost, expected.cost)
    pushed = (turn @ found.gradient[..., :3].flatten(0, 1)[..., None])[..., 0]
    torch.testing.assert_close(pushed, expected.gradient[..., :3].flatten(0, 1))


def test_motions_that_look_alike_move_alike(hand: HandModel) -> None:
    """Twice as far from the camera and twice as large: nothing tells the two apart, so nothing may prefer one."""
    generator = torch.Generator().manual_seed(5)
    place = torch.randn(LENGTH, 3, generator=generator).double() + torch.tensor([0.0, 0.0, 4.0])
    pose = random_pose(1).repeat_interleave(LENGTH)
    still = torch.eye(3, dtype=torch.float64).expand(LENGTH, 3, 3)

    def cost(size: float, picture: float | None) -> float:
        term = InFrame(LENGTH, still, size * place - pose.transl, Acceleration(0.02, 0.1), picture)
        return float(term.linearize(SequenceState(HandState.of(pose, hand), LENGTH))[0].cost)

    assert cost(2.0, 1.0) == pytest.approx(cost(1.0, 1.0))
    assert cost(2.0, None) > 2 * cost(1.0, None)
