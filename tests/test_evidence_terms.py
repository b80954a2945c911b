"""Evidence as terms, a stated prior and points: closed forms, and derivatives against finite differences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import scipy.special
import torch
from synthetic_hand import random_hand, random_pose
from term_checks import SIDES, WIDTHS, at_the_origin, check_term, draw, equations_of, hand_state
from torch import Tensor

from hand_models import HandPose
from hand_models.rotations import exp_so3, log_so3
from hand_models.solver.states import HandState, RigidState
from refine.evidence.point_fit import PointEvidence
from refine.evidence.pose_prior import PosePrior

# A stated prior -----------------------------------------------------------------------------------


def stated_prior(batch: int = 2) -> PosePrior:
    root = draw(batch, 51, 51) - 0.5
    return PosePrior.from_covariance(random_pose(batch), root @ root.transpose(1, 2) + 0.1 * torch.eye(51))


def tangent(pose: HandPose, mean: HandPose) -> Tensor:
    """(B, 51) the step that `HandPose.retract` takes from ``mean`` to ``pose``."""
    turn = log_so3(exp_so3(pose.global_orient) @ exp_so3(mean.global_orient).transpose(1, 2))
    return torch.cat([pose.transl - mean.transl, turn, (pose.hand_pose - mean.hand_pose).flatten(1)], 1)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("side", SIDES)
def test_pose_prior(side: str, width: int) -> None:
    """Wherever the wrist is turned as at the mean, the derivative at the mean is exact."""
    prior = stated_prior()
    prior = prior if side == "right" else prior.mirrored()
    away = 0.3 * (draw(2, 51, seed=1) - 0.5)
    away[:, 3:6] = 0
    state = hand_state(random_hand(side=side), prior.mean.retract(away), width)

    def residual(term: PosePrior, state: HandState) -> Tensor:
        off = tangent(state.pose, term.mean)
        return (term.factor.transpose(1, 2) @ off[..., None])[..., 0]

    found = check_term(prior, state, residual)
    torch.testing.assert_close(found.cost, 0.5 * (residual(prior, state) ** 2).sum(1))


def test_pose_prior_closed_form() -> None:
    """A step from the mean costs half its squared Mahalanobis distance, a large turn of the wrist among it."""
    root, mean = draw(2, 51, 51) - 0.5, random_pose(2)
    covariance = root @ root.transpose(1, 2) + 0.1 * torch.eye(51)
    prior, step = PosePrior.from_covariance(mean, covariance), draw(2, 51, seed=1) - 0.5
    found = equations_of(prior, hand_state(random_hand(), mean.retract(step), 51))
    expected = torch.einsum("bi,bij,bj->b", step, torch.linalg.inv(covariance), step)
    torch.testing.assert_close(2 * found.cost, expected)
    torch.testing.assert_close(found.hessian, torch.linalg.inv(covariance))
    assert equations_of(prior, hand_state(random_hand(), mean, 51)).cost.max() < 1e-12


# Evidence on points ---------------------------------------------------------------------------------


def seen_points(state: Any, keypoints: bool) -> PointEvidence:
    """Noisy evidence half a metre off; of each problem one point is missing in space, another in the picture."""
    at = state.landmarks.points
    batch, count = at.shape[:2]
    points = at + 0.03 * (draw(batch, count, 3) - 0.5)
    sigma = 0.004 + 0.01 * draw(batch, count, seed=1)
    points[:, 2], sigma[:, 2] = torch.nan, torch.inf
    if not keypoints:
        return PointEvidence(points, sigma)
    rays = at[..., :2] / at[..., 2:] + 0.02 * (draw(batch, count, 2, seed=2) - 0.5)
    rays_sigma = 0.002 + 0.004 * draw(batch, count, seed=3)
    rays[:, 4], rays_sigma[:, 4] = torch.nan, torch.inf
    return PointEvidence(points, sigma, rays, rays_sigma)


def evidence_residuals(term: PointEvidence, state: Any) -> list[Tensor]:
    """``(B, N, A)`` each: of the points, or of their rays, of their depths among each other and of the whole depth."""

    def known(value: Tensor, sigma: Tensor) -> Tensor:
        return torch.where(sigma.isfinite()[..., None], value / sigma[..., None], torch.zeros_like(value))

    at = state.landmarks.points
    if term.rays is None or term.rays_sigma is None:
        return [known(at - term.points, term.sigma)]
    precision = term.sigma**-2
    depth, given = at[..., 2], term.points[..., 2].nan_to_num()
    mean, mean_given = ((precision * z).sum(1) / precision.sum(1) for z in (depth, given))
    among = (depth - given) - (mean - mean_given)[:, None]
    whole = (mean - mean_given) / (term.depth_sigma * mean_given)
    return [
        known(at[..., :2] / at[..., 2:] - term.rays, term.rays_sigma),
        (among / term.sigma)[..., None],
        whole[:, None, None],
    ]


def evidence_state(kind: str) -> Any:
    """In front of a camera."""
    away = torch.tensor([0.02, -0.01, 0.5], dtype=torch.float64)
    if kind == "rigid":
        rotation = exp_so3(draw(2, 3))
        return RigidState(0.1 * (draw(2, 9, 3, seed=1) - 0.5), rotation, away.expand(2, 3))
    model = random_hand()
    pose = at_the_origin(model)
    return hand_state(model, replace(pose, transl=pose.transl + away), int(kind))


@pytest.mark.parametrize("kind", ["51", "61", "rigid"])
@pytest.mark.parametrize("keypoints", [True, False])
def test_point_evidence(kind: str, keypoints: bool) -> None:
    state = evidence_state(kind)
    term = seen_points(state, keypoints)
    squared = [(part**2).sum(2) for part in evidence_residuals(term, state)]
    assert max(part.max() for part in squared) > 9  # beyond the quadratic part
    weight = torch.cat(
        [
            (1 + s / 9).rsqrt().repeat_interleave(part.shape[2], 1)
            for s, part in zip(squared, evidence_residuals(term, state), strict=True)
        ],
        1,
    )
    found = check_term(term, state, lambda t, s: torch.cat([r.flatten(1) for r in evidence_residuals(t, s)], 1), weight)
    loss = [torch.from_numpy(scipy.special.pseudo_huber(3.0, s.sqrt().numpy())).sum(1) for s in squared]
    torch.testing.assert_close(found.cost, sum(loss[1:], loss[0]))


def test_point_evidence_closed_form() -> None:
    """Without keypoints half the squared distances over their deviations; with them, what lies in depth is faint."""
    local = torch.tensor([[[-0.1, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0]]], dtype=torch.float64)
    state = RigidState(local, torch.eye(3).double()[None], torch.tensor([[0.0, 0.0, 0.8]]).double())
    off = torch.tensor([[[1e-5, 0.0, 0.0], [0.0, -2e-5, 0.0], [0.0, 0.0, 3e-5]]], dtype=torch.float64)
    sigma = torch.full((1, 3), 0.01, dtype=torch.float64)
    near = equations_of(PointEvidence(state.landmarks.points + off, sigma), state)
    assert float(near.cost) == pytest.approx(0.5 * (1 + 4 + 9) * 1e-6, rel=1e-5)
    # A tenth nearer along all rays: the picture agrees, and so do the depths among each other.
    given = state.landmarks.points / 0.9
    rays = given[..., :2] / given[..., 2:]
    found = equations_of(PointEvidence(given, sigma, rays, 0.1 * sigma, depth_sigma=0.05), state)
    assert float(found.cost) == pytest.approx(float(scipy.special.pseudo_huber(3.0, 0.1 / 0.05)), rel=1e-6)


def test_evidence_that_is_met_is_not_nan() -> None:
    """Zero errors, where norms have no derivative."""
    state = evidence_state("51")
    points = state.joints.points
    for term in (
        PointEvidence(points, torch.full((2, 21), 0.01).double()),
        PosePrior(state.pose, torch.eye(51).double().expand(2, 51, 51)),
    ):
        found = equations_of(term, state)
        assert (found.cost == 0).all()
        assert found.gradient.isfinite().all()
        assert found.hessian.isfinite().all()
