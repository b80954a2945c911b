"""Every term against its closed form; its gradient and Hessian against finite differences in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal

import igl
import numpy as np
import pytest
import scipy.special
import torch
from synthetic_hand import random_hand, random_pose
from torch import Tensor

from contact.terms import FingersApart, KeepOut, SkinOnSurface, SpheresOutside, attraction, penetration
from hand_models import HandModel, HandPose, PointJacobian, load_open_hand
from hand_models.anatomy import Anatomy, default_anatomy
from hand_models.inner_spheres import Spheres, inner_spheres, sphere_centres, sphere_radius
from hand_models.record import Record
from hand_models.rotations import exp_so3, log_so3
from hand_models.solver.normal_equations import NormalEquations
from hand_models.solver.states import HandState, RigidState
from hand_models.solver.terms import AnglePrior, JointLimits, PointTargets, ShapePrior, pseudo_huber
from refine.evidence.point_fit import PointEvidence
from refine.evidence.pose_prior import PosePrior

STEP = 1e-6
SKIN = torch.arange(0, 60, 2)
WIDTHS = [51, 61]
SIDES = ["right", "left"]


@pytest.fixture(scope="module")
def hand() -> HandModel:
    return load_open_hand().to(torch.float64)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return default_anatomy().to(torch.float64)


@dataclass(frozen=True)
class Balls:
    """Signed distances to balls in closed form, in place of a grid of them."""

    centre: Tensor
    """(N, 3)"""
    radius: Tensor
    """(N,)"""

    def query(self, points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        offset = points - self.centre[which][:, None]
        norm = offset.norm(dim=-1)
        return norm - self.radius[which][:, None], offset / norm[..., None]


BALLS = Balls(
    torch.tensor([[0.5, 0.0, 0.0], [0.02, 0.0, -0.01]]).double(), torch.tensor([0.01, 0.06]).double()
)
WHICH = torch.tensor([1, 1])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hand_state(model: HandModel, pose: HandPose, width: int, skin: Tensor = SKIN) -> HandState:
    return HandState.of(pose, model, skin, width == 61)


def at_the_origin(model: HandModel, batch: int = 2) -> HandPose:
    """Hands whose wrists lie beside the second of `BALLS`."""
    pose = random_pose(batch)
    return replace(pose, transl=-model.root(pose) + 0.01)


def fixed_points(points: Tensor) -> PointJacobian:
    """Points that the wrist carries: their dense derivative by translation is the identity."""
    batch, count = points.shape[:2]
    frames = torch.zeros(batch, 16, 3, 3, dtype=points.dtype)
    return PointJacobian(points, torch.zeros(batch, 16, 3, count, dtype=points.dtype), frames)


def equations_of(term: Any, state: Any) -> NormalEquations:
    return state.assemble(term.linearize(state))


def check_term(
    term: Any, state: Any, residual: Callable[[Any, Any], Tensor], weight: Tensor | float = 1.0
) -> NormalEquations:
    """The term's equations, once they have been found right.

    Its gradient is the central difference of its cost, and its Hessian J W Jᵀ, where J is the central difference of
    ``residual(term, state) (B, N)`` and W the ``weight (B, N)`` on their squares.
    """
    equations, width = equations_of(term, state), state.dim
    assert equations.gradient.shape == (len(state), width)
    rows = torch.arange(len(state)).repeat_interleave(width)
    moves = (STEP * torch.eye(width, dtype=torch.float64)).repeat(len(state), 1)
    ahead, behind = (state[rows].retract(sign * moves) for sign in (1, -1))
    many = term[rows]
    slope = (equations_of(many, ahead).cost - equations_of(many, behind).cost) / (2 * STEP)
    assert slope.abs().max() > 0
    expected = slope.unflatten(0, (-1, width))
    torch.testing.assert_close(equations.gradient, expected, atol=2e-6 * slope.abs().max().item(), rtol=0)
    jacobian = ((residual(many, ahead) - residual(many, behind)) / (2 * STEP)).unflatten(0, (-1, width))
    weighted = jacobian * (weight[:, None] if isinstance(weight, Tensor) else weight)
    expected = weighted @ jacobian.transpose(1, 2)
    torch.testing.assert_close(equations.hessian, expected, atol=1e-6 * expected.abs().max().item(), rtol=0)
    return equations


# Robust loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.0])
def test_robust_residual_is_scipys_pseudo_huber(scale: float) -> None:
    """The slope of the loss tends to ``scale`` however far the point, and reweighting steps right onto it."""
    distance = torch.tensor([[-40.0, -1.0, -1e-3, 0.0, 1e-3, 0.2, 1.0, 5.0, 1e4]], dtype=torch.float64)
    residual, by_distance, loss = attraction(distance, torch.ones_like(distance), 1.0, scale)
    expected = scipy.special.pseudo_huber(scale, distance[0].numpy())
    assert loss[0] == pytest.approx(expected.sum(), rel=1e-9)
    np.testing.assert_allclose(residual, by_distance * distance, rtol=1e-12)  # a step of -distance is zero
    assert torch.equal(residual.sign(), distance.sign())
    slope = by_distance * residual  # derivative of the loss by the distance
    torch.testing.assert_close(slope, distance / (1 + (distance / scale) ** 2).sqrt(), atol=1e-9, rtol=0)
    assert slope[0, -1] == pytest.approx(scale, rel=1e-4)


# Surface --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("posedirs", [True, False])
def test_skin_on_surface(width: int, posedirs: bool) -> None:
    model = random_hand(posedirs=posedirs)
    touch, allowance = draw(2, 30), 0.002 * draw(2, 30, seed=1)
    touch[:, ::3] = 0
    term = SkinOnSurface(WHICH, touch, allowance, BALLS, 0.004, 0.002)  # type: ignore[arg-type]
    state = hand_state(model, at_the_origin(model), width)

    def parts(term: SkinOnSurface, state: HandState) -> tuple[Tensor, Tensor]:
        distance, _ = BALLS.query(state.skin.points, term.which)
        sunk = (-distance - term.allowance).clamp_min(0) / 0.002
        return (distance + 0.5 * term.allowance) / 0.004, sunk

    off, sunk = parts(term, state)
    robust = pseudo_huber(off**2, 3.0)[0]
    weight = torch.cat([touch * robust, torch.ones_like(sunk)], 1)
    found = check_term(term, state, lambda t, s: torch.cat(parts(t, s), 1), weight)
    loss = torch.from_numpy(scipy.special.pseudo_huber(3.0, off.numpy()))
    torch.testing.assert_close(found.cost, (touch * loss).sum(1) + 0.5 * (sunk**2).sum(1))
    assert (sunk > 0).any()
    assert (sunk == 0).any()
    assert (off[touch > 0].abs() > 3).any()  # the robust part is reached


def test_penetration_closed_form() -> None:
    depth = torch.tensor([[0.003, 0.001, -0.002, 0.0005]], dtype=torch.float64)  # metres under the surface
    gradient = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).expand(1, 4, 3)
    skin = fixed_points(torch.zeros(1, 4, 3, dtype=torch.float64))
    residual, slope = penetration(-depth, 0.001, 0.002)
    torch.testing.assert_close(residual, torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64))
    expected = torch.zeros(1, 51, 4, dtype=torch.float64)
    expected[0, 1, 0] = -1 / 0.002  # only the point deeper than allowed, and upwards is better
    torch.testing.assert_close(skin.along(gradient * slope[..., None]), expected)
    each = torch.tensor([[0.003, 0.0, 0.0, 0.0004]], dtype=torch.float64)
    residual, _ = penetration(-depth, each, 0.001)
    torch.testing.assert_close(residual, torch.tensor([[0.0, 1.0, 0.0, 0.1]], dtype=torch.float64))


def test_attraction_closed_form() -> None:
    """Small residuals are the distance over its deviation, times the root of the weight; no weight, no pull."""
    distance = torch.tensor([[1e-6, -1e-6, 0.05]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 0.25, 0.0]], dtype=torch.float64)
    gradient = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(1, 3, 3)
    skin = fixed_points(torch.zeros(1, 3, 3, dtype=torch.float64))
    residual, slope, _ = attraction(distance, weight, 0.002)
    expected = torch.tensor([[5e-4, -2.5e-4, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(residual, expected, atol=1e-9, rtol=0)
    rows = skin.along(gradient * slope[..., None])
    expected = torch.tensor([500.0, 250.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(rows[0, 0], expected, rtol=1e-6, atol=0)
    assert (rows[0, 1:] == 0).all()


@pytest.mark.parametrize("width", WIDTHS)
def test_spheres_outside(width: int) -> None:
    model, yields = random_hand(), torch.tensor([[0.002], [0.001]], dtype=torch.float64)
    term = SpheresOutside(WHICH, yields, BALLS, 0.002)  # type: ignore[arg-type]
    state = hand_state(model, at_the_origin(model), width)

    def residual(term: SpheresOutside, state: HandState) -> Tensor:
        spheres = inner_spheres(state.joints.points)
        distance, _ = BALLS.query(spheres.centres, term.which)
        return (spheres.radius - distance - term.yields).clamp_min(0) / 0.002

    sunk = residual(term, state)
    assert (sunk > 0).any()
    assert (sunk == 0).any()
    torch.testing.assert_close(check_term(term, state, residual).cost, 0.5 * (sunk**2).sum(1))


@pytest.mark.parametrize("width", WIDTHS)
def test_keep_out(width: int) -> None:
    """Of two problems each with balls of its own, skin and spheres with what each may sink in."""
    model = random_hand()
    balls = Spheres(0.1 * (draw(2, 3, 3) - 0.5), torch.tensor([0.03, 0.02, 0.04], dtype=torch.float64))
    term = KeepOut(balls, 0.01 * draw(2, 30, seed=1), 0.01 * draw(2, 43, seed=2), 0.002)
    state = hand_state(model, at_the_origin(model), width)

    def residual(term: KeepOut, state: HandState) -> Tensor:
        def depth(points: Tensor) -> Tensor:
            return (term.balls.radius - torch.cdist(points, term.balls.centres)).amax(2)

        spheres = inner_spheres(state.joints.points)
        excess = [
            depth(state.skin.points) - term.skin_allowance,
            depth(spheres.centres) + spheres.radius - term.sphere_allowance,
        ]
        return torch.cat(excess, 1).clamp_min(0) / 0.002

    sunk = residual(term, state)
    assert (sunk[:, :30] > 0).any()
    assert (sunk[:, 30:] > 0).any()
    assert (sunk == 0).any()
    torch.testing.assert_close(check_term(term, state, residual).cost, 0.5 * (sunk**2).sum(1))


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
    term = PointTargets(
        target, draw(2, count, seed=1), 0.005 + 0.02 * draw(2, count, seed=2), index, points, robust
    )

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
        return ((anatomy.lower - angles).clamp_min(0) + (angles - anatomy.upper).clamp_min(0)).flatten(
            1
        ) / 0.05

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


# Shape and pose -------------------------------------------------------------------------------------


def test_shape_prior() -> None:
    state, term = angles_only("right", 61), ShapePrior(0.5)
    found = check_term(term, state, lambda t, s: t.weight * s.pose.betas)
    torch.testing.assert_close(found.cost, 0.125 * (state.pose.betas**2).sum(1))
    assert (found.gradient[:, :51] == 0).all()


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
    found = check_term(
        term, state, lambda t, s: torch.cat([r.flatten(1) for r in evidence_residuals(t, s)], 1), weight
    )
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


# Spheres --------------------------------------------------------------------------------------------


def test_inner_spheres_lie_inside_the_hand(hand: HandModel) -> None:
    """Between neighbouring joints of one chain, under the skin, and with the derivative of such points."""
    pose = HandPose.zeros().to(torch.float64)
    jacobian = hand.jacobian(pose)
    spheres = inner_spheres(jacobian.joints.points)
    centres, radius = spheres.centres[0], spheres.radius
    assert centres.shape == (len(radius), 3)
    assert len(radius) == 43  # 2 on each of 15 finger bones, 13 in the palm
    torch.testing.assert_close(sphere_centres(jacobian.joints).points[0], centres)
    assert torch.equal(sphere_radius(centres), radius)
    faces = hand.faces_for("right").numpy()
    winding = igl.winding_number(hand.template.numpy(), faces, centres.numpy())
    np.testing.assert_allclose(winding, 1.0, atol=1e-6)
    joints = jacobian.joints.points[0]
    for finger in range(5):
        own = centres[6 * finger : 6 * finger + 6]
        for bone in range(3):
            a, b = joints[4 * finger + 1 + bone], joints[4 * finger + 2 + bone]
            torch.testing.assert_close(
                own[2 * bone : 2 * bone + 2], torch.stack([0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b])
            )
    assert torch.equal(radius[:30].reshape(5, 6), radius[:30:6, None].expand(5, 6))
    assert (radius > 0.005).all()
    assert (radius < 0.012).all()


def two_fingers(gap: float) -> Any:
    """A state with all spheres far apart but the first of the thumb and the first two of the index finger."""
    count = len(sphere_radius(torch.zeros(1).double()))
    points = torch.arange(count, dtype=torch.float64)[:, None] * torch.tensor([0.0, 0.0, 1.0])
    points = points[None].clone()
    points[:, 6] = points[:, 0] + torch.tensor([gap, 0.0, 0.0])
    points[:, 7] = points[:, 6]  # of the same finger: may overlap as it likes
    return SimpleNamespace(spheres=fixed_points(points), dim=51)


def test_fingers_apart_closed_form() -> None:
    """Spheres of two fingers 12 mm apart overlap by the sum of their radii less 12 mm."""
    state, term = two_fingers(0.012), FingersApart(0.002)
    radius = sphere_radius(state.spheres.points)
    (found,) = term.linearize(state)
    expected = (radius[0] + radius[6] - 0.012) / 0.002
    torch.testing.assert_close(found.cost, expected.square()[None])  # half the square of either pair
    assert (found.hessian == 0).all()  # both are carried by the wrist alone: nothing parts them
    apart = two_fingers(0.05)
    (none,) = term.linearize(apart)
    assert none.cost == 0
    assert none.gradient.shape == (1, 51)
    assert (none.hessian == 0).all()
    # In a batch, the problem without overlap pays nothing.
    names = ("points", "arms", "frames")
    both = PointJacobian(*(torch.cat([getattr(s.spheres, n) for s in (state, apart)]) for n in names))
    (found,) = term.linearize(SimpleNamespace(spheres=both, dim=51))  # type: ignore[arg-type]
    torch.testing.assert_close(found.cost, torch.stack([expected.square(), torch.zeros(()).double()]))
    assert (found.gradient[1] == 0).all()


@pytest.mark.parametrize("width", WIDTHS)
def test_fingers_apart(hand: HandModel, width: int) -> None:
    """The flat hand pays nothing; crossed fingers do, with the right derivative and alone or in a batch."""
    flat = HandPose.zeros().to(torch.float64)
    crossed = HandPose.zeros(1).to(torch.float64)
    crossed.hand_pose[0, 0, 1], crossed.hand_pose[0, 3, 1] = 0.25, -0.3  # index and middle lean to each other
    if hand.joints(crossed)[0, 8, 2] > hand.joints(flat)[0, 8, 2]:
        crossed.hand_pose[0, :, 1] *= -1
    term, none = FingersApart(0.002), torch.arange(0)

    def residual(term: FingersApart, state: HandState) -> Tensor:
        spheres = inner_spheres(state.joints.points)
        centres, radius = (
            spheres.centres[:, :30].unflatten(1, (5, 6)),
            spheres.radius[:30].unflatten(0, (5, 6)),
        )
        overlap = [
            radius[a][:, None] + radius[b] - torch.cdist(centres[:, a], centres[:, b])
            for a in range(5)
            for b in range(a)
        ]
        return torch.cat([o.flatten(1) for o in overlap], 1).clamp_min(0) / 0.002

    assert equations_of(term, hand_state(hand, flat, width, none)).cost == 0
    state = hand_state(hand, crossed, width, none)
    assert (residual(term, state) > 0.1).any()
    alone = check_term(term, state, residual)
    torch.testing.assert_close(alone.cost, 0.5 * (residual(term, state) ** 2).sum(1))
    together = equations_of(term, hand_state(hand, HandPose.cat([flat, crossed]), width, none))
    assert together.cost[0] == 0
    assert (together.gradient[0] == 0).all()
    torch.testing.assert_close(together.cost[1], alone.cost[0])


# All of them ----------------------------------------------------------------------------------------


def rows_of_points(term: Any, state: HandState) -> tuple[Tensor, Tensor]:
    """Reweighted residuals ``(B, N)`` of some terms and their derivative ``(B, D, N)``, row by row."""
    if isinstance(term, PointTargets):
        points: PointJacobian = getattr(state, term.points)
        points = points if term.index is None else points.select(term.index)
        error = ((points.points - term.target) / term.std[..., None]).transpose(1, 2)
        assert term.robust is not None
        factor = (term.weight / (1 + (error**2).sum(1) / term.robust**2).sqrt()).sqrt()[:, None]
        rows = points.dense() * (factor / term.std[:, None])[:, None]
        return (error * factor).flatten(1), rows.flatten(2)
    assert isinstance(term, SkinOnSurface)
    distance, gradient = BALLS.query(state.skin.points, term.which)
    by_distance = (state.skin.dense() * gradient.transpose(1, 2)[:, None]).sum(2)
    off = (distance + 0.5 * term.allowance) / term.contact_std
    factor = (term.touch / (1 + (off / 3) ** 2).sqrt()).sqrt()
    sunk = (-distance - term.allowance).clamp_min(0) / term.penetration_std
    parts = (
        (off * factor, by_distance * (factor / term.contact_std)[:, None]),
        (sunk, by_distance * (-(sunk > 0).double() / term.penetration_std)[:, None]),
    )
    residual, rows = (torch.cat(column, -1) for column in zip(*parts, strict=True))
    return residual, rows


def test_forces_on_points_sum_to_what_their_rows_sum_to() -> None:
    """Turns of bones alone never form a row; a hand with pose correctives does, as does one with free betas."""
    index = (300 * draw(2, 60)).long() % 30
    terms = [
        PointTargets(0.1 * draw(2, 60, 3), draw(2, 60, seed=1), 0.003 + 0.01 * draw(2, 60, seed=2), index),
        PointTargets(0.1 * draw(2, 21, 3), draw(2, 21, seed=3), 0.003 + 0.01 * draw(2, 21), None, "joints"),
        SkinOnSurface(WHICH, draw(2, 30), 0.001 * draw(2, 30), BALLS),  # type: ignore[arg-type]
    ]
    plain = random_hand(posedirs=False)
    bent_skin = replace(plain, posedirs=torch.zeros(60, 3, 135, dtype=torch.float64))
    for model, width in ((plain, 51), (bent_skin, 51), (random_hand(), 51), (plain, 61)):
        state = hand_state(model, at_the_origin(model), width)
        residual, rows = (
            torch.cat(c, -1) for c in zip(*(rows_of_points(t, state) for t in terms), strict=True)
        )
        found = state.assemble([part for term in terms for part in term.linearize(state)])
        torch.testing.assert_close(found.gradient, torch.einsum("bdn,bn->bd", rows, residual))
        torch.testing.assert_close(found.hessian, rows @ rows.transpose(1, 2))
        torch.testing.assert_close(found.cost, sum(equations_of(term, state).cost for term in terms))


def test_terms_of_a_state_are_the_sum_of_each(anatomy: Anatomy) -> None:
    model = random_hand()
    state = hand_state(model, at_the_origin(model), 61)
    terms = [
        SkinOnSurface(WHICH, draw(2, 30), 0.001 * draw(2, 30), BALLS),  # type: ignore[arg-type]
        AnglePrior.grasping(anatomy, 2),
        JointLimits(anatomy, 0.05),
        ShapePrior(),
        stated_prior(),
    ]
    found = state.assemble([part for term in terms for part in term.linearize(state)])
    each = [equations_of(term, state) for term in terms]
    for name in ("cost", "gradient", "hessian"):
        torch.testing.assert_close(getattr(found, name), sum(getattr(e, name) for e in each))


def test_no_term_is_nan_at_the_optimum(hand: HandModel, anatomy: Anatomy) -> None:
    """Zero errors, where norms have no derivative."""
    state = hand_state(hand, HandPose.zeros(2).to(torch.float64), 51, torch.arange(8))
    zero = torch.zeros(2, 8).double()

    @dataclass(frozen=True)
    class Plane(Record):
        def query(self, points: Tensor, which: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return torch.zeros_like(points[..., 0]), torch.tensor([0.0, 0.0, 1.0]).to(points).expand_as(
                points
            )

    plane: Any = Plane()
    same: Any = SimpleNamespace(spheres=fixed_points(torch.zeros(2, 43, 3).double()), dim=51)
    for term in (
        SkinOnSurface(WHICH, zero, zero, plane),
        SkinOnSurface(WHICH, zero + 1, zero, plane),
        SpheresOutside(WHICH, zero[:, :1], plane),
        KeepOut(Spheres(state.spheres.points, sphere_radius(zero)), zero, torch.zeros(2, 43).double()),
        PointTargets(state.skin.points, zero + 1, zero + 0.001),
        PointTargets(state.skin.points, zero, zero + 0.001),
        JointLimits(anatomy, 0.05),
        FingersApart(0.001),
        PointEvidence(state.joints.points, torch.full((2, 21), 0.01).double()),
        PosePrior(state.pose, torch.eye(51).double().expand(2, 51, 51)),
    ):
        found = equations_of(term, state)
        for name in ("cost", "gradient", "hessian"):
            assert getattr(found, name).isfinite().all(), type(term).__name__
    (crowded,) = FingersApart(0.001).linearize(same)
    assert crowded.cost.isfinite().all()
    assert crowded.hessian.isfinite().all()
