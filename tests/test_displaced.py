"""`Displaced` against the same problem with the displacement as three more unknowns, eliminated numerically."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import torch
from synthetic_hand import random_hand, random_pose
from term_checks import STEP, WIDTHS, check_term, draw, equations_of, hand_state
from torch import Tensor

from hand_models.solver.least_squares import Termination, minimize
from hand_models.solver.states import HandState
from hand_models.solver.terms import Displaced, PointTargets
from refine.evidence.pose_prior import PosePrior

ROOT = torch.tensor(
    [
        [[0.02, 0.0, 0.0], [0.01, 0.015, 0.0], [-0.004, 0.006, 0.03]],
        [[0.004, 0.0, 0.0], [0.0, 0.004, 0.0], [0.0, 0.0, 0.004]],
    ]
).double()
COV = ROOT @ ROOT.transpose(1, 2)


@dataclass(frozen=True)
class Problem:
    """Two hands, and places of their joints and skin that are off by up to 3 cm, each in its own way."""

    state: HandState
    terms: tuple[PointTargets, PointTargets]

    @property
    def displaced(self) -> Displaced:
        return Displaced(self.terms, COV)


def problem(robust: float | None = None, width: int = 51) -> Problem:
    state = hand_state(random_hand(), random_pose(2), width)
    index = (40 * draw(2, 12)).long() % 8
    skin = torch.stack([at[chosen] for at, chosen in zip(state.skin.points, index, strict=True)])
    joints = PointTargets(
        state.joints.points + 0.06 * (draw(2, 21, 3, seed=1) - 0.5), draw(2, 21, seed=2),
        0.005 + 0.02 * draw(2, 21, seed=3), points="joints", robust=robust,
    )  # fmt: skip
    places = PointTargets(
        skin + 0.06 * (draw(2, 12, 3, seed=4) - 0.5), draw(2, 12, seed=5), 0.004 + 0.01 * draw(2, 12, seed=6), index,
        robust=robust,
    )  # fmt: skip
    return Problem(state, (joints, places))


def residuals(terms: Sequence[PointTargets], state: HandState) -> tuple[Tensor, Tensor]:
    """Of places as they are: ``(B, N, 3)`` in standard deviations, and the root of each one's weight ``(B, N)``."""
    off, root = [], []
    for term in terms:
        at = getattr(state, term.points).points
        if term.index is not None:
            at = torch.stack([places[chosen] for places, chosen in zip(at, term.index, strict=True)])
        off.append((at - term.target) / term.std[..., None])
        root.append(term.weight.sqrt())
    return torch.cat(off, 1), torch.cat(root, 1)


def eliminated(term: Displaced, state: HandState) -> Tensor:
    """Residuals ``(B, 3 N + 3)``, those of the displacement among them, where it is best for this state."""
    off, root = residuals(term.terms, state)
    off = off * root[..., None]
    share = root / torch.cat([t.std for t in term.terms], 1)
    found = []
    for a, b, cov in zip(
        off, share, term.covariance, strict=True
    ):  # places go with the displacement, away from the hand
        white = torch.linalg.inv(torch.linalg.cholesky(cov))
        columns = torch.cat([torch.kron(b[:, None], torch.eye(3).double()), -white])
        values = torch.cat([a.flatten(), torch.zeros(3).double()])
        best = torch.linalg.lstsq(columns, values[:, None]).solution
        found.append(values - (columns @ best)[:, 0])
    return torch.stack(found)


@pytest.mark.parametrize("width", WIDTHS)
def test_squares(width: int) -> None:
    """Cost, gradient and Hessian are those of the residuals with the displacement that suits them best."""
    given = problem(width=width)
    found = check_term(given.displaced, given.state, eliminated)
    torch.testing.assert_close(found.cost, 0.5 * eliminated(given.displaced, given.state).square().sum(1))
    alone = sum(equations_of(term, given.state).cost for term in given.terms)
    assert (found.cost < 0.99 * alone).all()


def test_robust_losses() -> None:
    """The equations of all unknowns and the displacement, weighted as they are, less the displacement."""
    given = problem(robust=2.0)
    off, root = residuals(given.terms, given.state)
    size = off.norm(dim=2)
    assert (size > 2).any()
    weight = (root**2 * (1 + (size / 2) ** 2).rsqrt()).repeat_interleave(3, 1)
    std = torch.cat([term.std for term in given.terms], 1)
    found = equations_of(given.displaced, given.state)
    for row in range(2):
        steps = STEP * torch.eye(51).double()
        here = [0] * 51
        state, terms = given.state[[row]], [term[[row]] for term in given.terms]
        many = [term[here] for term in terms]
        ahead, behind = (residuals(many, state[here].retract(sign * steps))[0] for sign in (1, -1))
        by_hand = ((ahead - behind) / (2 * STEP)).flatten(1)
        by_place = -torch.kron(1 / std[row][None], torch.eye(3).double())
        jacobian = torch.cat([by_hand, by_place])  # (54, 3 N)
        hessian = (jacobian * weight[row]) @ jacobian.T
        hessian[51:, 51:] += torch.linalg.inv(COV[row])
        gradient = (jacobian * weight[row]) @ off[row].flatten()
        rows = torch.linalg.solve(hessian[51:, 51:], hessian[51:, :51])
        expected = hessian[:51, :51] - hessian[:51, 51:] @ rows
        torch.testing.assert_close(found.hessian[row], expected, atol=1e-6 * float(expected.abs().max()), rtol=0)
        expected = gradient[:51] - rows.T @ gradient[51:]
        torch.testing.assert_close(found.gradient[row], expected, atol=1e-6 * float(gradient.abs().max()), rtol=0)
        loss = (root[row] ** 2 * torch.from_numpy(scipy.special.pseudo_huber(2.0, size[row].numpy()))).sum()
        less = 0.5 * gradient[51:] @ torch.linalg.solve(hessian[51:, 51:], gradient[51:])
        torch.testing.assert_close(found.cost[row], loss - less)
        assert found.cost[row] > 0


def test_the_solution_is_that_of_hand_and_displacement_together() -> None:
    """Beside a prior on the hand; the places are 8 cm off together, which hand and displacement share."""
    given = problem()
    state, joints = given.state[[0]], given.terms[0][[0]]
    joints = replace(joints, target=joints.target + torch.tensor([0.05, -0.06, 0.02]))
    prior = PosePrior(state.pose, torch.diag(torch.tensor([50.0] * 3 + [5.0] * 48)).double()[None])
    fine = Termination(iterations=100, relative_decrease=1e-12)
    found = minimize(state, [Displaced((joints,), COV[:1]), prior], fine).state

    def whole(values: np.ndarray) -> np.ndarray:
        """(N,) or (N, K), for one vector of 54 or K of them as columns."""
        x = torch.from_numpy(values.reshape(54, -1).T)
        hands = state[[0] * len(x)].retract(x[:, :51])
        at = hands.joints.points - x[:, None, 51:]
        off = (at - joints.target) / joints.std[..., None] * joints.weight.sqrt()[..., None]
        mahalanobis = x[:, :51] * torch.tensor([50.0] * 3 + [5.0] * 48)
        every = torch.cat([off.flatten(1), mahalanobis, x[:, 51:] @ torch.linalg.inv(ROOT[0]).T], 1)
        return every.T.numpy().reshape(-1, *values.shape[1:])

    def jacobian(values: np.ndarray) -> np.ndarray:
        steps = STEP * np.eye(54)
        return (whole(values[:, None] + steps) - whole(values[:, None] - steps)) / (2 * STEP)

    expected = scipy.optimize.least_squares(whole, np.zeros(54), jacobian, xtol=1e-12, ftol=1e-14, gtol=1e-12)
    assert 0.02 < np.linalg.norm(expected.x[51:]) < 0.08
    best = state.retract(torch.from_numpy(expected.x[None, :51]))
    torch.testing.assert_close(found.joints.points, best.joints.points, atol=1e-5, rtol=0)
    still = minimize(state, [joints, prior], fine).state
    assert (still.joints.points - best.joints.points).norm(dim=2).mean() > 0.01


def test_no_displacement_and_any() -> None:
    """Where there can be none, the terms are as they were; where it may be any, where they lie says nothing."""
    given = problem(robust=2.0)
    parts = [equations_of(term, given.state) for term in given.terms]
    sure = equations_of(Displaced(given.terms, 1e-16 * torch.eye(3).double().repeat(2, 1, 1)), given.state)
    loose = equations_of(Displaced(given.terms, 1e12 * torch.eye(3).double().repeat(2, 1, 1)), given.state)
    for name in ("cost", "gradient", "hessian"):
        expected = sum(getattr(part, name) for part in parts)
        torch.testing.assert_close(getattr(sure, name), expected)
    whole = sum(part.hessian for part in parts)
    assert loose.hessian[:, :3].abs().max() < 1e-6 * whole.abs().max()
    assert loose.gradient[:, :3].abs().max() < 1e-6 * sure.gradient.abs().max()
    assert torch.linalg.eigvalsh(loose.hessian[:, 3:, 3:]).max() > 1


def test_rows_are_chosen_and_counted() -> None:
    given = problem(robust=2.0)
    term = given.displaced
    whole = equations_of(term, given.state)
    assert len(term) == 2
    for index in ([1], torch.tensor([False, True])):
        found = equations_of(term[index], given.state[index])
        for name in ("cost", "gradient", "hessian"):
            torch.testing.assert_close(getattr(found, name), getattr(whole, name)[1:])
