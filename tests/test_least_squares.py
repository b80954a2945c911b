"""The batched solver on problems with closed forms, and its promise that problems do not affect each other.

States and terms are the tests' own where that is simpler: the solver knows nothing of hands.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from hand_models.record import Record
from hand_models.rotations import exp_so3
from hand_models.solver.least_squares import Termination, minimize
from hand_models.solver.normal_equations import NormalEquations
from hand_models.solver.states import RigidState

TIGHT = Termination(iterations=100, relative_decrease=1e-15)


@dataclass(frozen=True)
class Vector(Record):
    """Plain numbers ``x (B, D)``."""

    x: Tensor

    @property
    def dim(self) -> int:
        return self.x.shape[1]

    def retract(self, step: Tensor) -> Vector:
        return Vector(self.x + step)

    def assemble(self, parts: Any) -> NormalEquations:
        return NormalEquations.total(list(parts))


@dataclass(frozen=True)
class Linear(Record):
    """Residuals ``matrix x - target`` of a `Vector`."""

    matrix: Tensor
    """(B, N, D)"""
    target: Tensor
    """(B, N)"""

    def linearize(self, state: Vector) -> list[NormalEquations]:
        residual = (self.matrix @ state.x[..., None])[..., 0] - self.target
        return [NormalEquations.of(residual, self.matrix.transpose(1, 2))]


@dataclass(frozen=True)
class Onto(Record):
    """Residuals between the landmarks of a rigid body and their targets."""

    target: Tensor
    """(B, N, 3)"""

    def linearize(self, state: RigidState) -> list[NormalEquations]:
        error = (state.landmarks.points - self.target).transpose(1, 2)
        return [NormalEquations.of(error.flatten(1), state.landmarks.dense().flatten(2))]


def linear_problem(batch: int, rows: int, seed: int = 0) -> Linear:
    """Badly scaled columns, as metres and radians are; the first three unknowns are in no residual."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(batch, rows, 61, generator=generator, dtype=torch.float64)
    matrix[..., 3:] *= torch.logspace(-1.5, 1.5, 58, dtype=torch.float64)
    matrix[..., :3] = 0
    return Linear(matrix, torch.randn(batch, rows, generator=generator, dtype=torch.float64))


def numbers(batch: int, dim: int = 61, seed: int = 1) -> Vector:
    return Vector(torch.randn(batch, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def scattered(batch: int, noise: float, seed: int = 0) -> tuple[Onto, RigidState]:
    """Noisy images of a body's points, and a start some 0.5 rad away from them."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator, dtype=torch.float64)

    local, truth = draw(12, 3), draw(3)
    target = local @ exp_so3(truth).transpose(1, 2) + draw(1, 3) + noise * draw(12, 3)
    start = RigidState(local, exp_so3(truth + 0.3 * draw(3)), torch.zeros_like(truth))
    return Onto(target), start


def same_rows(a: RigidState, b: RigidState, atol: float = 1e-9) -> None:
    for name in ("rotation", "translation"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=atol, rtol=0)


# Normal equations -----------------------------------------------------------------------------------


def test_sums_of_residuals() -> None:
    """Cost, gradient and Hessian of stacked residuals; those of a few unknowns are a special case."""
    first, second = torch.randn(2, 7, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    rows, slope = torch.randn(2, 51, 7, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    dense = torch.zeros(2, 51, 3, dtype=torch.float64)
    dense[:, 20:23] = torch.diag_embed(slope)
    residual, jacobian = torch.cat([first, second], 1), torch.cat([rows, dense], 2)
    whole, few = NormalEquations.of(first, rows), NormalEquations.of(second, torch.diag_embed(slope))
    kept = whole.hessian.clone()
    for equations in (
        NormalEquations.total([whole, NormalEquations.of(second, dense)]),
        NormalEquations.total([whole, few.embedded(51, 20)]),
        NormalEquations.total([few.embedded(51, 20), whole]),
    ):
        torch.testing.assert_close(equations.cost, (residual**2).sum(1) / 2)
        torch.testing.assert_close(equations.gradient, torch.einsum("bdn,bn->bd", jacobian, residual))
        torch.testing.assert_close(equations.hessian, torch.einsum("bdn,ben->bde", jacobian, jacobian))
        one = equations[torch.tensor([1])]
        assert torch.equal(one.hessian, equations.hessian[1:])
        assert torch.equal(one.cost, equations.cost[1:])
    assert torch.equal(whole.hessian, kept)  # what is added to stays as it was


def test_reweighted_residuals_bring_their_own_cost() -> None:
    residual, rows = torch.randn(2, 7), torch.randn(2, 5, 7)
    plain, robust = (NormalEquations.of(residual, rows), NormalEquations.of(residual, rows, torch.tensor([3.0, 4.0])))
    assert robust.cost.tolist() == [3, 4]
    assert torch.equal(robust.gradient, plain.gradient)
    assert torch.equal(robust.hessian, plain.hessian)


# Solutions ------------------------------------------------------------------------------------------


def test_linear_least_squares() -> None:
    """Overdetermined and linear: numpy's solution, at numpy's residual."""
    term, start = linear_problem(3, 80), numbers(3)
    solution = minimize(start, [term], TIGHT)
    for k in range(3):
        expected, residual, *_ = np.linalg.lstsq(term.matrix[k, :, 3:].numpy(), term.target[k].numpy())
        np.testing.assert_allclose(solution.state.x[k, 3:], expected, atol=1e-6 * abs(expected).max())
        assert solution.equations.cost[k].item() == pytest.approx(residual[0] / 2, rel=1e-10)
    assert solution.converged.all()
    torch.testing.assert_close(solution.state.x[:, :3], start.x[:, :3])  # nothing depends on these, so they stay
    torch.testing.assert_close(solution.initial_cost, term.linearize(start)[0].cost)


def test_terms_add_up() -> None:
    """The residuals of a problem may be spread over terms."""
    term, start = linear_problem(3, 80), numbers(3)
    parts = [Linear(term.matrix[:, rows], term.target[:, rows]) for rows in (slice(30), slice(30, 80))]
    whole, spread = minimize(start, [term], TIGHT), minimize(start, parts, TIGHT)
    torch.testing.assert_close(spread.state.x, whole.state.x, atol=1e-6, rtol=0)
    torch.testing.assert_close(spread.initial_cost, whole.initial_cost)


def test_without_terms_nothing_can_be_minimised() -> None:
    with pytest.raises(ValueError, match="terms: none given"):
        minimize(numbers(2), [])


def test_alignment_of_points() -> None:
    """Rotation and translation of noisy points: Kabsch's closed form, by scipy."""
    term, start = scattered(5, noise=0.1)
    solution = minimize(start, [term], TIGHT)
    for k in range(5):
        a, b = start.local[k].numpy(), term.target[k].numpy()
        rotation, _ = Rotation.align_vectors(b - b.mean(0), a - a.mean(0))
        np.testing.assert_allclose(solution.state.rotation[k], rotation.as_matrix(), atol=1e-6)
        np.testing.assert_allclose(solution.state.translation[k], b.mean(0) - rotation.apply(a.mean(0)), atol=1e-6)
    assert solution.converged.all()
    assert solution.equations.gradient.norm(dim=1).max() < 1e-5


def test_exact_fit_goes_to_zero_cost() -> None:
    term, start = scattered(4, noise=0.0)
    solution = minimize(start, [term])
    assert (solution.initial_cost > 0.1).all()
    assert solution.equations.cost.max() < 1e-8
    assert solution.converged.all()


def test_solution_is_consistent_and_never_worse() -> None:
    """Equations belong to the state, and more iterations never raise a cost."""
    (term, start), before = scattered(6, noise=0.3), None
    for iterations in (0, 1, 2, 4, 8, 16):
        solution = minimize(start, [term], Termination(iterations=iterations))
        (again,) = term.linearize(solution.state)
        torch.testing.assert_close(solution.equations.cost, again.cost)
        torch.testing.assert_close(solution.equations.gradient, again.gradient)
        assert (solution.iterations <= iterations).all()
        if before is not None:
            assert (solution.equations.cost <= before).all()
        before = solution.equations.cost
        if iterations == 0:
            same_rows(solution.state, start, atol=0)
            assert not solution.converged.any()
        if iterations == 1:
            assert not solution.converged.any()  # one step from afar cannot be known to be the last


@dataclass(frozen=True)
class Overshooting(Linear):
    """With a Hessian 100 times too small."""

    def linearize(self, state: Vector) -> list[NormalEquations]:
        return [replace(e, hessian=e.hessian / 100) for e in super().linearize(state)]


def test_uphill_steps_are_refused() -> None:
    """A model that overshoots by far still comes down, by more damping."""
    term = Overshooting(torch.eye(3).double()[None], torch.full((1, 3), 2.0, dtype=torch.float64))
    start = Vector(torch.zeros(1, 3, dtype=torch.float64))
    first = minimize(start, [term], Termination(iterations=1))
    assert torch.equal(first.state.x, start.x)
    solution = minimize(start, [term], Termination(iterations=200, relative_decrease=1e-12))
    torch.testing.assert_close(solution.state.x, term.target, atol=1e-3, rtol=0)


def test_an_optimum_costs_no_evaluation() -> None:
    """Where no step promises a decrease that counts, none is tried."""
    term, start = scattered(6, noise=0.3)
    solved = minimize(start, [term], TIGHT)
    again = minimize(solved.state, [term])
    assert (again.iterations == 0).all()
    assert again.converged.all()
    same_rows(again.state, solved.state)


def test_the_promised_decrease_is_the_models() -> None:
    """On a linear problem the model is exact, so the promise of its own step is kept to the last digit."""
    term, start = linear_problem(3, 80), Vector(torch.zeros(3, 61, dtype=torch.float64))
    (equations,) = term.linearize(start)
    step = torch.randn(3, 61, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (after,) = term.linearize(start.retract(step))
    torch.testing.assert_close(equations.promised(step), equations.cost - after.cost)


# Independence ---------------------------------------------------------------------------------------


def test_batch_is_a_loop() -> None:
    term, start = scattered(6, noise=0.3)
    together = minimize(start, [term])
    assert len(together.iterations.unique()) > 1  # they stop at different times
    for k in range(6):
        alone = minimize(start[k], [term[k]])
        same_rows(together.state[k], alone.state)
        assert together.iterations[k] == alone.iterations[0]
        torch.testing.assert_close(together.equations.cost[k], alone.equations.cost[0])


@dataclass(frozen=True)
class Recorded(Record):
    """A term that notes which problems it is asked about."""

    index: Tensor
    term: Onto
    calls: list[list[int]] = field(default_factory=list)

    def linearize(self, state: RigidState) -> list[NormalEquations]:
        assert len(state) == len(self.index)
        self.calls.append(self.index.tolist())
        return self.term.linearize(state)


def test_finished_problems_leave_the_batch() -> None:
    term, start = scattered(6, noise=0.3)
    recorded = Recorded(torch.arange(6), term)
    calls, solution = recorded.calls, minimize(start, [recorded])
    assert calls[0] == list(range(6))
    for earlier, later in itertools.pairwise(calls):
        assert set(later) <= set(earlier)
    assert len(calls[-1]) < 6
    for k in range(6):
        assert sum(k in call for call in calls[1:]) == solution.iterations[k]
    assert len(calls) - 1 == solution.iterations.max()


@pytest.mark.parametrize("bad", [0, 2])
def test_a_broken_problem_harms_no_other(bad: int) -> None:
    """NaN data in one problem: it keeps its state and is not converged; the others do not notice."""
    term, start = scattered(4, noise=0.2)
    clean = minimize(start, [term])
    term.target[bad] = torch.nan
    solution = minimize(start, [term])
    others = [k for k in range(4) if k != bad]
    same_rows(solution.state[others], clean.state[others], atol=0)
    assert solution.converged.tolist() == [k != bad for k in range(4)]
    same_rows(solution.state[bad], start[bad], atol=0)
    assert solution.equations.cost[bad].isnan()


@dataclass(frozen=True)
class Cliff(Record):
    """Draws numbers to 1.5, but is not defined beyond 1."""

    def __getitem__(self, index: Any) -> Cliff:
        return self

    def linearize(self, state: Vector) -> list[NormalEquations]:
        error = torch.where(state.x > 1, torch.nan, state.x - 1.5)
        return [NormalEquations.of(error, torch.eye(3).to(error).expand(len(error), 3, 3))]


def test_a_step_into_nan_is_not_taken() -> None:
    """The solver stays this side of where the cost is defined."""
    start = Vector(torch.zeros(2, 3, dtype=torch.float64))
    solution = minimize(start, [Cliff()], Termination(iterations=60))
    assert solution.state.x.isfinite().all()
    assert (solution.state.x <= 1).all()
    assert (solution.state.x > 0.5).all()
    assert (solution.equations.cost < solution.initial_cost).all()


def test_singular_problems_stay_finite() -> None:
    """Fewer residuals than unknowns, and none at all."""
    start = numbers(2)
    solution = minimize(start, [linear_problem(2, 5)], TIGHT)
    assert solution.equations.cost.max() < 1e-6
    assert solution.state.x.isfinite().all()
    nothing = minimize(start, [linear_problem(2, 0)])
    torch.testing.assert_close(nothing.state.x, start.x, atol=1e-12, rtol=0)


def test_empty_batch() -> None:
    term, start = scattered(3, noise=0.1)
    solution = minimize(start[[]], [term[[]]])
    assert len(solution.state) == 0
    assert solution.converged.shape == (0,)


def test_nothing_is_tracked() -> None:
    """Tensors that ask for gradients do not make the solver build a graph."""
    term, start = scattered(2, noise=0.1)
    solution = minimize(start, [Onto(term.target.requires_grad_())])
    assert not solution.state.translation.requires_grad
    assert not solution.equations.cost.requires_grad
