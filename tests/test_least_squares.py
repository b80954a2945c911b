"""The batched solver on problems with closed forms, and its promise that problems do not affect each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from synthetic_hand import random_pose
from torch import Tensor

from hand_models.pose import HandPose
from hand_models.rotations import exp_so3, skew
from hand_models.solver.least_squares import NormalEquations, Termination, minimize

Linearize = Callable[[HandPose, Tensor], NormalEquations]
LINEAR = [*range(3), *range(6, 61)]  # unknowns that `retract` merely adds to
TIGHT = Termination(iterations=100, relative_decrease=1e-15)


def unknowns(pose: HandPose) -> Tensor:
    """(B, 58) of `LINEAR`."""
    return torch.cat([pose.transl, pose.hand_pose.flatten(1), pose.betas], 1)


def linear_problem(batch: int, rows: int, seed: int = 0) -> tuple[Linearize, Tensor, Tensor]:
    """Residuals ``A x - b`` with badly scaled columns, as metres and radians are."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(batch, rows, 58, generator=generator, dtype=torch.float64)
    matrix = matrix * torch.logspace(-1.5, 1.5, 58, dtype=torch.float64)
    target = torch.randn(batch, rows, generator=generator, dtype=torch.float64)

    def linearize(pose: HandPose, index: Tensor) -> NormalEquations:
        residual = (matrix[index] @ unknowns(pose)[..., None])[..., 0] - target[index]
        jacobian = pose.transl.new_zeros(len(index), 61, rows)
        jacobian[:, LINEAR] = matrix[index].transpose(1, 2)
        return NormalEquations.zeros(len(index), 61, pose.transl).add(residual, jacobian)

    return linearize, matrix, target


def alignment(source: Tensor, target: Tensor) -> Linearize:
    """Residuals between points ``(B, N, 3)`` moved by translation and wrist rotation, and their targets."""

    def linearize(pose: HandPose, index: Tensor) -> NormalEquations:
        turned = source[index] @ exp_so3(pose.global_orient).transpose(1, 2)
        residual = turned + pose.transl[:, None] - target[index]
        batch, count = turned.shape[:2]
        jacobian = pose.transl.new_zeros(batch, 51, count, 3)
        jacobian[:, :3] = torch.eye(3, dtype=turned.dtype)[:, None]
        jacobian[:, 3:6] = skew(turned).permute(0, 2, 1, 3)  # row j: e_j × turned
        return NormalEquations.zeros(batch, 51, turned).add(residual.flatten(1), jacobian.flatten(2))

    return linearize


def scattered(batch: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor, HandPose]:
    """Points, noisy images of them, and a start some 0.5 rad away."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator, dtype=torch.float64)

    source, truth, start = draw(12, 3), draw(3), HandPose.zeros(batch).to(torch.float64)
    target = source @ exp_so3(truth).transpose(1, 2) + draw(1, 3) + noise * draw(12, 3)
    return source, target, replace(start, global_orient=truth + 0.3 * draw(3))


def same_rows(a: HandPose, b: HandPose, atol: float = 1e-9) -> None:
    for name in ("global_orient", "hand_pose", "betas", "transl"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=atol, rtol=0)


# Normal equations -----------------------------------------------------------------------------------


def test_sums_of_residuals() -> None:
    """Cost, gradient and Hessian of stacked residuals; a diagonal one is a special case of a dense one."""
    first, second = torch.randn(2, 7, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    rows, slope = torch.randn(2, 51, 7, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    start = NormalEquations.zeros(2, 51, first)
    dense = torch.zeros(2, 51, 3, dtype=torch.float64)
    dense[:, 20:23] = torch.diag_embed(slope)
    residual, jacobian = torch.cat([first, second], 1), torch.cat([rows, dense], 2)
    for equations in (
        start.add(first, rows).add(second, dense),
        start.add_diagonal(second, slope, 20).add(first, rows),
    ):
        torch.testing.assert_close(equations.cost, (residual**2).sum(1) / 2)
        torch.testing.assert_close(equations.gradient, torch.einsum("bdn,bn->bd", jacobian, residual))
        torch.testing.assert_close(equations.hessian, torch.einsum("bdn,ben->bde", jacobian, jacobian))
        one = equations[torch.tensor([1])]
        assert torch.equal(one.hessian, equations.hessian[1:])
        assert torch.equal(one.cost, equations.cost[1:])
    assert (start.hessian == 0).all()  # what is added to stays as it was


# Solutions ------------------------------------------------------------------------------------------


def test_linear_least_squares() -> None:
    """Overdetermined and linear: numpy's solution, at numpy's residual."""
    linearize, matrix, target = linear_problem(3, 80)
    start = random_pose(3)
    solution = minimize(linearize, start, TIGHT)
    for k in range(3):
        expected, residual, *_ = np.linalg.lstsq(matrix[k].numpy(), target[k].numpy())
        np.testing.assert_allclose(unknowns(solution.pose)[k], expected, atol=1e-6 * abs(expected).max())
        assert solution.equations.cost[k].item() == pytest.approx(residual[0] / 2, rel=1e-10)
    assert solution.converged.all()
    # Nothing depends on the wrist's rotation, so it stays.
    torch.testing.assert_close(exp_so3(solution.pose.global_orient), exp_so3(start.global_orient))
    torch.testing.assert_close(solution.initial_cost, linearize(start, torch.arange(3)).cost)


def test_alignment_of_points() -> None:
    """Rotation and translation of noisy points: Kabsch's closed form, by scipy."""
    source, target, start = scattered(5, noise=0.1)
    solution = minimize(alignment(source, target), start, TIGHT)
    for k in range(5):
        a, b = source[k].numpy(), target[k].numpy()
        rotation, _ = Rotation.align_vectors(b - b.mean(0), a - a.mean(0))
        np.testing.assert_allclose(exp_so3(solution.pose.global_orient[k]), rotation.as_matrix(), atol=1e-6)
        np.testing.assert_allclose(solution.pose.transl[k], b.mean(0) - rotation.apply(a.mean(0)), atol=1e-6)
    assert solution.converged.all()
    assert solution.equations.gradient.norm(dim=1).max() < 1e-5
    assert (solution.pose.hand_pose == 0).all()


def test_exact_fit_goes_to_zero_cost() -> None:
    source, target, start = scattered(4, noise=0.0)
    solution = minimize(alignment(source, target), start)
    assert (solution.initial_cost > 0.1).all()
    assert solution.equations.cost.max() < 1e-8
    assert solution.converged.all()


def test_solution_is_consistent_and_never_worse() -> None:
    """Equations belong to the pose, and more iterations never raise a cost."""
    source, target, start = scattered(6, noise=0.3)
    linearize, before = alignment(source, target), None
    for iterations in (0, 1, 2, 4, 8, 16):
        solution = minimize(linearize, start, Termination(iterations=iterations))
        again = linearize(solution.pose, torch.arange(6))
        torch.testing.assert_close(solution.equations.cost, again.cost)
        torch.testing.assert_close(solution.equations.gradient, again.gradient)
        assert (solution.iterations <= iterations).all()
        if before is not None:
            assert (solution.equations.cost <= before).all()
        before = solution.equations.cost
        if iterations == 0:
            same_rows(solution.pose, start, atol=0)
            assert not solution.converged.any()
        if iterations == 1:
            assert not solution.converged.any()  # one step from afar cannot be known to be the last


def test_uphill_steps_are_refused() -> None:
    """A model that overshoots by far (Hessian 100 times too small) still comes down, by more damping."""
    target = torch.full((1, 3), 2.0, dtype=torch.float64)

    def linearize(pose: HandPose, index: Tensor) -> NormalEquations:
        error = pose.transl - target[index]
        exact = NormalEquations.zeros(len(index), 51, error).add_diagonal(error, torch.ones_like(error), 0)
        return replace(exact, hessian=exact.hessian / 100)

    start = HandPose.zeros(1).to(torch.float64)
    first = minimize(linearize, start, Termination(iterations=1))
    same_rows(first.pose, start, atol=0)
    solution = minimize(linearize, start, Termination(iterations=200, relative_decrease=1e-12))
    torch.testing.assert_close(solution.pose.transl, target, atol=1e-3, rtol=0)


# Independence ---------------------------------------------------------------------------------------


def test_an_optimum_costs_no_evaluation() -> None:
    """Where no step promises a decrease that counts, none is tried."""
    source, target, start = scattered(6, noise=0.3)
    solved = minimize(alignment(source, target), start, TIGHT)
    again = minimize(alignment(source, target), solved.pose)
    assert (again.iterations == 0).all()
    assert again.converged.all()
    same_rows(again.pose, solved.pose)


def test_the_promised_decrease_is_the_models() -> None:
    """On a linear problem the model is exact, so the promise of its own step is kept to the last digit."""
    linearize, _, _ = linear_problem(3, 80)
    start = HandPose.zeros(3).to(torch.float64)
    equations = linearize(start, torch.arange(3))
    step = torch.randn(3, 61, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step[:, 3:6] = 0
    after = linearize(start.retract(step), torch.arange(3))
    torch.testing.assert_close(equations.promised(step), equations.cost - after.cost)


def test_batch_is_a_loop() -> None:
    source, target, start = scattered(6, noise=0.3)
    together = minimize(alignment(source, target), start)
    assert len(together.iterations.unique()) > 1  # they stop at different times
    for k in range(6):
        alone = minimize(alignment(source[k : k + 1], target[k : k + 1]), start[k])
        same_rows(together.pose[k], alone.pose)
        assert together.iterations[k] == alone.iterations[0]
        torch.testing.assert_close(together.equations.cost[k], alone.equations.cost[0])


def test_finished_problems_leave_the_batch() -> None:
    source, target, start = scattered(6, noise=0.3)
    linearize, calls = alignment(source, target), []

    def recorded(pose: HandPose, index: Tensor) -> NormalEquations:
        assert len(pose) == len(index)
        calls.append(index.tolist())
        return linearize(pose, index)

    solution = minimize(recorded, start)
    assert calls[0] == list(range(6))
    for earlier, later in itertools.pairwise(calls):
        assert set(later) <= set(earlier)
    assert len(calls[-1]) < 6
    for k in range(6):
        assert sum(k in call for call in calls[1:]) == solution.iterations[k]
    assert len(calls) - 1 == solution.iterations.max()


@pytest.mark.parametrize("bad", [0, 2])
def test_a_broken_problem_harms_no_other(bad: int) -> None:
    """NaN data in one problem: it keeps its pose and is not converged; the others do not notice."""
    source, target, start = scattered(4, noise=0.2)
    clean = minimize(alignment(source, target), start)
    target = target.clone()
    target[bad] = torch.nan
    solution = minimize(alignment(source, target), start)
    others = [k for k in range(4) if k != bad]
    same_rows(solution.pose[others], clean.pose[others], atol=0)
    assert solution.converged.tolist() == [k != bad for k in range(4)]
    same_rows(solution.pose[bad], start[bad], atol=0)
    assert solution.equations.cost[bad].isnan()


def test_a_step_into_nan_is_not_taken() -> None:
    """The cost is not defined beyond 1; the solver stays this side of it."""

    def linearize(pose: HandPose, index: Tensor) -> NormalEquations:
        error = pose.transl - 1.5
        error = torch.where(pose.transl > 1, torch.nan, error)
        return NormalEquations.zeros(len(index), 51, error).add_diagonal(error, torch.ones_like(error), 0)

    start = HandPose.zeros(2).to(torch.float64)
    solution = minimize(linearize, start, Termination(iterations=60))
    assert solution.pose.finite().all()
    assert (solution.pose.transl <= 1).all()
    assert (solution.pose.transl > 0.5).all()
    assert (solution.equations.cost < solution.initial_cost).all()


def test_singular_problems_stay_finite() -> None:
    """Fewer residuals than unknowns, and none at all."""
    linearize, *_ = linear_problem(2, 5)
    solution = minimize(linearize, random_pose(2), TIGHT)
    assert solution.equations.cost.max() < 1e-6
    assert solution.pose.finite().all()
    start = random_pose(2)
    nothing = minimize(lambda pose, index: NormalEquations.zeros(len(index), 51, pose.transl), start)
    same_rows(nothing.pose, start, atol=1e-12)


def test_empty_batch() -> None:
    source, target, start = scattered(3, noise=0.1)
    solution = minimize(alignment(source[:0], target[:0]), start[[]])
    assert len(solution.pose) == 0
    assert solution.converged.shape == (0,)


def test_nothing_is_tracked() -> None:
    """Tensors that ask for gradients do not make the solver build a graph."""
    source, target, start = scattered(2, noise=0.1)
    solution = minimize(alignment(source.requires_grad_(), target), start)
    assert not solution.pose.transl.requires_grad
    assert not solution.equations.cost.requires_grad
