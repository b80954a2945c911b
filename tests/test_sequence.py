"""Sequences: banded equations against dense ones, terms of time by finite differences, sequences against frames."""

from __future__ import annotations

import pytest
import torch
from synthetic_hand import random_hand, random_pose
from torch import Tensor

from hand_models import HandModel, HandPose
from hand_models.solver.least_squares import Termination, minimize
from hand_models.solver.normal_equations import NormalEquations
from hand_models.solver.sequence import Acceleration, PerFrame, SequenceEquations, SequenceState
from hand_models.solver.states import HandState, RigidState
from hand_models.solver.terms import AnglePrior, PointTargets

SEQUENCES = 2
HASTE = Acceleration(transl=0.01, turn=0.05, bend=0.05)


@pytest.fixture(scope="module")
def hand() -> HandModel:
    return random_hand(posedirs=False)


def frames(count: int) -> HandPose:
    """A hand that moves and turns a little from frame to frame, at random."""
    torch.manual_seed(count)
    shift = 0.1 * torch.randn(count, 51, dtype=torch.float64)
    return random_pose(1).repeat_interleave(count).retract(shift)


def hands(hand: HandModel, length: int, sequences: int = SEQUENCES) -> SequenceState:
    return SequenceState(HandState.of(frames(sequences * length), hand), length)


def to_joints(hand: HandModel, length: int, sequences: int = SEQUENCES) -> PerFrame:
    """Joints to where those of another hand are."""
    target = hand.joints(frames(sequences * length + 1)[1:])
    weight = torch.ones_like(target[..., 0])
    targets = PointTargets(target, weight, 0.01 * weight, points="joints", robust=None)
    return PerFrame((targets, AnglePrior.grasping(hand.anatomy, len(target), 0.3)), sequences, length)


def bodies(length: int) -> SequenceState:
    torch.manual_seed(3)
    state = RigidState(torch.randn(SEQUENCES * length, 4, 3), torch.eye(3).expand(SEQUENCES * length, 3, 3),
                       torch.zeros(SEQUENCES * length, 3)).to(torch.float64)  # fmt: skip
    return SequenceState(state.retract(torch.randn(SEQUENCES * length, 6, dtype=torch.float64)), length)


def dense(equations: SequenceEquations) -> NormalEquations:
    """The same with the whole Hessian, ``(B, T·D, T·D)``, put together entry by entry."""
    batch, length, dim = equations.gradient.shape
    hessian = equations.own.new_zeros(batch, length, dim, length, dim)
    for t in range(length):
        hessian[:, t, :, t] = equations.own[:, t]
        for reach, blocks in ((1, equations.next), (2, equations.after)):
            if blocks is not None and t + reach < length:
                hessian[:, t, :, t + reach] = blocks[:, t]
                hessian[:, t + reach, :, t] = blocks[:, t].transpose(1, 2)
    size = length * dim
    return NormalEquations(equations.cost, equations.gradient.flatten(1), hessian.reshape(batch, size, size))


@pytest.mark.parametrize("length", [1, 2, 3, 6, 7])
def test_a_step_is_that_of_dense_normal_equations(hand: HandModel, length: int) -> None:
    state = hands(hand, length)
    equations = state.assemble([*to_joints(hand, length).linearize(state), *HASTE.linearize(state)])
    whole, damping = dense(equations), torch.tensor([1e-2, 1.0], dtype=torch.float64)
    step, expected = equations.step(damping), whole.step(damping)
    torch.testing.assert_close(step, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(equations.promised(step), whole.promised(expected))
    single = equations.to(torch.float32).step(damping.float())
    assert (single - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("kind", ["hands", "bodies"])
def test_acceleration_derivatives(hand: HandModel, kind: str) -> None:
    state = hands(hand, 5) if kind == "hands" else bodies(5)
    (equations,) = HASTE.linearize(state)
    size, step = state.dim, 1e-6

    def residuals(at: SequenceState) -> Tensor:
        (e,) = HASTE.linearize(at)
        return e.cost

    numeric = torch.stack(
        [
            (residuals(state.retract(move)) - residuals(state.retract(-move))) / (2 * step)
            for move in (step * torch.eye(size, dtype=torch.float64))[:, None].expand(-1, SEQUENCES, -1)
        ],
        1,
    )
    torch.testing.assert_close(equations.gradient.flatten(1), numeric, atol=1e-6 * numeric.abs().max().item(), rtol=0)
    assert torch.linalg.eigvalsh(dense(equations).hessian).amin() > -1e-6  # a sum of squares


def test_steady_motion_costs_nothing(hand: HandModel) -> None:
    """Steps and turns that are the same from frame to frame, about one axis; a jolt costs its square."""
    pose = random_pose(1).repeat_interleave(6)
    axis = torch.tensor([0.1, -0.2, 0.15], dtype=torch.float64)
    move = torch.zeros(6, 51, dtype=torch.float64)
    move[:, :3], move[:, 3:6] = torch.arange(6)[:, None] * 0.02, torch.arange(6)[:, None] * axis
    steady = SequenceState(HandState.of(pose.retract(move), hand), 6)
    (equations,) = HASTE.linearize(steady)
    assert equations.cost.abs().max() < 1e-12
    move[5, 0] += 0.01  # one standard deviation
    (jolted,) = HASTE.linearize(SequenceState(HandState.of(pose.retract(move), hand), 6))
    assert float(jolted.cost) == pytest.approx(0.5)


def test_without_terms_of_time_a_sequence_is_its_frames(hand: HandModel) -> None:
    state, per_frame = hands(hand, 4), to_joints(hand, 4)
    stop = Termination(iterations=60, relative_decrease=1e-12)
    together = minimize(state, [per_frame], stop)
    alone = minimize(state.frames, per_frame.terms, stop)
    torch.testing.assert_close(together.equations.cost, alone.equations.cost.view(SEQUENCES, 4).sum(1))
    torch.testing.assert_close(
        hand.joints(together.state.frames.pose), hand.joints(alone.state.pose), atol=1e-5, rtol=0
    )


def test_sequences_do_not_know_of_each_other(hand: HandModel) -> None:
    state, per_frame = hands(hand, 5, 3), to_joints(hand, 5, 3)
    whole = minimize(state, [per_frame, HASTE])
    for index in (slice(1, 2), torch.tensor([2]), torch.tensor([True, False, False])):
        part = minimize(state[index], [per_frame[index], HASTE])
        torch.testing.assert_close(part.equations.cost, whole.equations.cost[index])
        assert part.iterations.tolist() == whole.iterations[index].tolist()
    mask = torch.tensor([True, False, True])
    chosen = state.where(mask, whole.state)
    assert torch.equal(chosen.frames.pose.transl[:5], state.frames.pose.transl[:5])
    assert torch.equal(chosen.frames.pose.transl[5:10], whole.state.frames.pose.transl[5:10])


def test_less_haste_where_it_is_less_likely(hand: HandModel) -> None:
    """The surer motion is smooth, the less it accelerates, and the farther joints stay from their targets."""
    state, per_frame = hands(hand, 8, 1), to_joints(hand, 8, 1)
    haste, off = [], []
    for std in (0.1, 0.01, 0.001):
        smooth = Acceleration(std, 5 * std, 5 * std)
        found = minimize(state, [per_frame, smooth], Termination(iterations=60)).state
        haste.append(found.frames.pose.transl.diff(n=2, dim=0).norm().item())
        off.append((hand.joints(found.frames.pose) - per_frame.terms[0].target).norm().item())
    assert haste[0] > haste[1] > haste[2]
    assert off[0] < off[1] < off[2]
