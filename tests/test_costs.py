"""Every cost against its closed form, and its derivative against finite differences in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import igl
import numpy as np
import pytest
import torch
from scipy.special import pseudo_huber
from synthetic_hand import random_hand, random_pose
from torch import Tensor

from contact import costs
from contact.costs import Residual, RobustResidual
from hand_models import HandModel, HandPose, PointJacobian, load_open_hand
from hand_models.anatomy import Anatomy, default_anatomy

CENTRE, RADIUS = torch.tensor([0.02, 0.0, -0.01], dtype=torch.float64), 0.06


@pytest.fixture(scope="module")
def hand() -> HandModel:
    return load_open_hand().to(torch.float64)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return default_anatomy().to(torch.float64)


def ball(points: Tensor) -> tuple[Tensor, Tensor]:
    """Signed distance to a ball and its gradient."""
    offset = points - CENTRE
    norm = offset.norm(dim=-1)
    return norm - RADIUS, offset / norm[..., None]


def fixed_points(points: Tensor) -> PointJacobian:
    """Points that the wrist carries: their dense derivative by translation is the identity."""
    batch, count = points.shape[:2]
    frames = torch.zeros(batch, 16, 3, 3, dtype=points.dtype)
    return PointJacobian(points, torch.zeros(batch, 16, 3, count, dtype=points.dtype), frames)


def check_derivative(cost: Callable[[HandPose], Residual], pose: HandPose, width: int) -> Tensor:
    """Rows equal central differences of the residual; the residual itself is returned."""
    residual, rows = cost(pose)
    assert rows.shape == (len(pose), width, residual.shape[1])
    step = 1e-6
    moves = (step * torch.eye(width, dtype=torch.float64)).repeat(len(pose), 1)
    ahead, behind = (cost(pose.repeat_interleave(width).retract(sign * moves))[0] for sign in (1, -1))
    numeric = ((ahead - behind) / (2 * step)).reshape(len(pose), width, -1)
    assert numeric.abs().max() > 0
    torch.testing.assert_close(rows, numeric, atol=2e-6 * numeric.abs().max().item(), rtol=0)
    return residual


def check_loss(cost: Callable[[HandPose], RobustResidual], pose: HandPose, width: int) -> Tensor:
    """The gradient of a reweighted cost's loss against central differences; returns the residual."""
    residual, rows, _ = cost(pose)
    batch, step = len(pose), 1e-6
    directions = torch.eye(width, dtype=torch.float64).repeat(batch, 1) * step
    ahead, behind = (cost(pose.repeat_interleave(width).retract(sign * directions))[2] for sign in (1, -1))
    numeric = ((ahead - behind) / (2 * step)).reshape(batch, width)
    assert numeric.abs().max() > 0
    gradient = (rows @ residual[..., None])[..., 0]
    torch.testing.assert_close(gradient, numeric, atol=2e-6 * numeric.abs().max().item(), rtol=0)
    return residual


# Robust loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.0])
def test_robust_residual_is_scipys_pseudo_huber(scale: float) -> None:
    """The slope of the loss tends to ``scale`` however far the point, and reweighting steps right onto it."""
    distance = torch.tensor([[-40.0, -1.0, -1e-3, 0.0, 1e-3, 0.2, 1.0, 5.0, 1e4]], dtype=torch.float64)
    points = torch.zeros(1, 9, 3, dtype=torch.float64)
    gradient = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(1, 9, 3)
    everyone = fixed_points(points)
    residual, rows, loss = costs.attraction(
        everyone, distance, gradient, torch.ones_like(distance), 1.0, scale
    )
    expected = pseudo_huber(scale, distance[0].numpy())
    assert loss[0] == pytest.approx(expected.sum(), rel=1e-9)
    np.testing.assert_allclose(
        residual[0], rows[0, 2] * distance[0], rtol=1e-12
    )  # a step of -distance is zero
    assert torch.equal(residual.sign(), distance.sign())
    slope = rows[0, 2] * residual[0]  # derivative of the loss by the distance
    torch.testing.assert_close(
        slope, distance[0] / (1 + (distance[0] / scale) ** 2).sqrt(), atol=1e-9, rtol=0
    )
    assert slope[-1] == pytest.approx(scale, rel=1e-4)


# Surface --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [51, 61])
@pytest.mark.parametrize("posedirs", [True, False])
def test_surface_costs_derivatives(width: int, posedirs: bool) -> None:
    model, pose = random_hand(posedirs=posedirs), random_pose(2)
    pose = replace(pose, transl=-model.root(pose) + 0.01)
    ids = torch.arange(0, 60, 2)
    weight = torch.rand(2, 30, dtype=torch.float64)
    weight[:, ::3] = 0
    allowance = 0.002 * torch.rand(2, 30, dtype=torch.float64)

    def per_problem(t: Tensor, batch: int) -> Tensor:
        return t.repeat_interleave(batch // 2, 0)

    def penetration(state: HandPose) -> Residual:
        skin = model.jacobian(state, ids, with_betas=width == 61).vertices
        return costs.penetration(skin, *ball(skin.points), per_problem(allowance, len(state)), 0.002)

    def attraction(state: HandPose) -> RobustResidual:
        skin = model.jacobian(state, ids, with_betas=width == 61).vertices
        return costs.attraction(skin, *ball(skin.points), per_problem(weight, len(state)), 0.004)

    depth = check_derivative(penetration, pose, width)
    assert (depth > 0).any()
    assert (depth == 0).any()
    pull = check_loss(attraction, pose, width)
    assert torch.equal(pull != 0, weight > 0)
    assert (pull**2 > 3 * weight).any()  # the robust part is reached


def test_penetration_closed_form() -> None:
    depth = torch.tensor([[0.003, 0.001, -0.002, 0.0005]], dtype=torch.float64)  # metres under the surface
    gradient = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).expand(1, 4, 3)
    skin = fixed_points(torch.zeros(1, 4, 3, dtype=torch.float64))
    residual, rows = costs.penetration(skin, -depth, gradient, 0.001, 0.002)
    torch.testing.assert_close(residual, torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64))
    expected = torch.zeros(1, 51, 4, dtype=torch.float64)
    expected[0, 1, 0] = -1 / 0.002  # only the point deeper than allowed, and upwards is better
    torch.testing.assert_close(rows, expected)
    each = torch.tensor([[0.003, 0.0, 0.0, 0.0004]], dtype=torch.float64)
    residual, _ = costs.penetration(skin, -depth, gradient, each, 0.001)
    torch.testing.assert_close(residual, torch.tensor([[0.0, 1.0, 0.0, 0.1]], dtype=torch.float64))


def test_attraction_closed_form() -> None:
    """Small residuals are the distance over its deviation, times the root of the weight; no weight, no pull."""
    distance = torch.tensor([[1e-6, -1e-6, 0.05]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 0.25, 0.0]], dtype=torch.float64)
    gradient = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(1, 3, 3)
    skin = fixed_points(torch.zeros(1, 3, 3, dtype=torch.float64))
    residual, rows, _ = costs.attraction(skin, distance, gradient, weight, 0.002)
    expected = torch.tensor([[5e-4, -2.5e-4, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(residual, expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(
        rows[0, 0], torch.tensor([500.0, 250.0, 0.0], dtype=torch.float64), rtol=1e-6, atol=0
    )
    assert (rows[0, 1:] == 0).all()


# Correspondence -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [51, 61])
@pytest.mark.parametrize("of", ["skin", "joints"])
def test_correspondence_derivative(width: int, of: str) -> None:
    model, pose, ids = random_hand(), random_pose(2), torch.arange(0, 60, 5)
    count = 12 if of == "skin" else 21
    target = torch.randn(2, count, 3, dtype=torch.float64) * 0.02
    target += (model(pose).vertices[:, ids] if of == "skin" else model.joints(pose)).clone()
    weight = torch.rand(2, count, dtype=torch.float64)
    std = 0.002 + 0.02 * torch.rand(2, count, dtype=torch.float64)

    def cost(state: HandPose) -> RobustResidual:
        jacobian = model.jacobian(state, ids, with_betas=width == 61)
        points = jacobian.vertices if of == "skin" else jacobian.joints
        return costs.correspondence(
            points, *(t.repeat_interleave(len(state) // 2, 0) for t in (target, weight, std))
        )

    residual = check_loss(cost, pose, width)
    assert residual.shape == (2, 3 * count)
    squared = residual.reshape(2, 3, count).square().sum(1)
    assert (squared > 1.8 * weight).any()  # beyond the quadratic part


def test_correspondence_closed_form() -> None:
    error = torch.tensor([[[3e-6, -4e-6, 0.0], [0.03, 0.04, 0.0], [1.0, 1.0, 1.0]]], dtype=torch.float64)
    target = torch.randn(1, 3, 3, dtype=torch.float64)
    std = torch.tensor([[0.001, 0.005, 0.001]], dtype=torch.float64)
    weight = torch.tensor([[0.25, 1.0, 0.0]], dtype=torch.float64)
    residual, rows, loss = costs.correspondence(fixed_points(target + error), target, weight, std, scale=2.0)
    xyz = residual.reshape(1, 3, 3).transpose(1, 2)  # per point
    torch.testing.assert_close(xyz[0, 0], 0.5 * error[0, 0] / 0.001, rtol=1e-5, atol=1e-9)
    # 50 mm at 5 mm deviation: pseudo-Huber of ten deviations, along the error.
    assert float(loss) == pytest.approx(float(pseudo_huber(2.0, 10.0)), rel=1e-5)
    assert xyz[0, 1, 0] / xyz[0, 1, 1] == pytest.approx(0.75)
    assert (xyz[0, 2] == 0).all()
    assert (rows.reshape(1, 51, 3, 3)[..., 2] == 0).all()


# Joint angles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [51, 61])
def test_pose_prior(anatomy: Anatomy, width: int) -> None:
    pose = random_pose(3)
    residual = check_derivative(
        lambda p: costs.pose_prior(p.hand_pose, anatomy.mean, anatomy.std, anatomy, width), pose, width
    )
    expected = (anatomy.to_anatomical(pose.hand_pose) - anatomy.mean) / anatomy.std
    torch.testing.assert_close(residual, expected.flatten(1))
    at_mean = anatomy.from_anatomical(anatomy.mean)[None]
    assert costs.pose_prior(at_mean, anatomy.mean, anatomy.std, anatomy, 51)[0].abs().max() < 1e-6
    # One standard deviation of one angle is one, and the cost of isotropic priors knows no axes.
    off = anatomy.mean.clone()
    off[3, 1] += anatomy.std[3, 1]
    off = anatomy.from_anatomical(off)[None]
    residual, _ = costs.pose_prior(off, anatomy.mean, anatomy.std, anatomy, 51)
    assert int(residual.abs().argmax()) == 3 * 3 + 1
    assert float((residual**2).sum()) == pytest.approx(1.0, abs=1e-5)
    same = torch.full_like(anatomy.std, 0.2)
    residual, _ = costs.pose_prior(pose.hand_pose, torch.zeros(3, 15, 3).double(), same, anatomy, 51)
    torch.testing.assert_close(
        (residual**2).sum(1), (pose.hand_pose**2).sum((1, 2)) / 0.04, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("width", [51, 61])
def test_joint_limits(anatomy: Anatomy, width: int) -> None:
    pose = random_pose(3)
    residual = check_derivative(lambda p: costs.joint_limits(p.hand_pose, anatomy, 0.05, width), pose, width)
    angles = anatomy.to_anatomical(pose.hand_pose)
    within = (angles > anatomy.lower) & (angles < anatomy.upper)
    assert torch.equal((residual == 0).reshape(3, 15, 3), within)
    middle = anatomy.from_anatomical(0.5 * (anatomy.lower + anatomy.upper))[None]
    residual, rows = costs.joint_limits(middle, anatomy, 0.05, width)
    assert (residual == 0).all()
    assert (rows == 0).all()
    over = anatomy.upper.clone()
    over[7, 0] += 0.1
    over[7, 2] = anatomy.lower[7, 2] - 0.15
    residual, _ = costs.joint_limits(anatomy.from_anatomical(over)[None], anatomy, 0.05, width)
    expected = torch.zeros(15, 3, dtype=torch.float64)
    expected[7, 0], expected[7, 2] = 2.0, -3.0
    torch.testing.assert_close(residual.reshape(15, 3), expected, atol=2e-5, rtol=0)


# Spheres --------------------------------------------------------------------------------------------


def test_inner_spheres_lie_inside_the_hand(hand: HandModel) -> None:
    """Between neighbouring joints of one chain, under the skin, and with the derivative of such points."""
    pose = HandPose.zeros().to(torch.float64)
    jacobian = hand.jacobian(pose)
    spheres, radius = costs.inner_spheres(jacobian.joints)
    centres = spheres.points[0]
    assert centres.shape == (len(radius), 3)
    assert len(radius) == 43  # 2 on each of 15 finger bones, 13 in the palm
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


def test_inner_spheres_derivative(hand: HandModel) -> None:
    def cost(state: HandPose) -> Residual:
        spheres, _ = costs.inner_spheres(hand.jacobian(state, torch.arange(1)).joints)
        return spheres.points.transpose(1, 2).flatten(1), spheres.dense().flatten(2)

    check_derivative(cost, random_pose(2), 51)


def two_fingers(gap: float, batch: int = 1) -> tuple[PointJacobian, Tensor]:
    """All spheres far apart but the first of the thumb and the first two of the index finger."""
    _, radius = costs.inner_spheres(fixed_points(torch.zeros(1, 21, 3, dtype=torch.float64)))
    points = torch.arange(len(radius), dtype=torch.float64)[:, None] * torch.tensor([0.0, 0.0, 1.0])
    points = points[None].repeat(batch, 1, 1)
    points[:, 6] = points[:, 0] + torch.tensor([gap, 0.0, 0.0])
    points[:, 7] = points[:, 6]  # of the same finger: may overlap as it likes
    return fixed_points(points), radius


def test_self_penetration_closed_form() -> None:
    """Spheres of two fingers 12 mm apart overlap by the sum of their radii less 12 mm."""
    spheres, radius = two_fingers(0.012)
    residual, rows = costs.self_penetration(spheres, radius, 0.002)
    expected = (radius[0] + radius[6] - 0.012) / 0.002
    torch.testing.assert_close(residual, expected.expand(1, 2))
    assert (rows == 0).all()  # both are carried by the wrist alone: nothing parts them
    apart, radius = two_fingers(0.05)
    residual, rows = costs.self_penetration(apart, radius, 0.002)
    assert residual.shape == (1, 0)
    assert rows.shape == (1, 51, 0)
    # In a batch, the problem without overlap pays nothing.
    both = PointJacobian(
        *(torch.cat([getattr(spheres, n), getattr(apart, n)]) for n in ("points", "arms", "frames"))
    )
    residual, rows = costs.self_penetration(both, radius, 0.002)
    torch.testing.assert_close(residual[0], expected.expand(2))
    assert (residual[1] == 0).all()
    assert (rows[1] == 0).all()


def test_self_penetration_of_a_hand(hand: HandModel) -> None:
    """The flat hand pays nothing; crossed fingers do, with the right derivative and alone or in a batch."""
    flat = HandPose.zeros().to(torch.float64)
    crossed = HandPose.zeros(1).to(torch.float64)
    crossed.hand_pose[0, 0, 1], crossed.hand_pose[0, 3, 1] = 0.25, -0.3  # index and middle lean to each other
    if hand.joints(crossed)[0, 8, 2] > hand.joints(flat)[0, 8, 2]:
        crossed.hand_pose[0, :, 1] *= -1

    def cost(state: HandPose) -> Residual:
        return costs.self_penetration(
            *costs.inner_spheres(hand.jacobian(state, torch.arange(1)).joints), 0.002
        )

    assert cost(flat)[0].numel() == 0
    residual = check_derivative(cost, crossed, 51)
    assert (residual > 0.1).any()
    together, rows = cost(HandPose.cat([flat, crossed]))
    assert (together[0] == 0).all()
    assert (rows[0] == 0).all()
    torch.testing.assert_close((together[1] ** 2).sum(), (residual[0] ** 2).sum())


# All of them ----------------------------------------------------------------------------------------


def test_no_cost_is_nan_at_the_optimum(hand: HandModel, anatomy: Anatomy) -> None:
    """Zero errors, where norms have no derivative."""
    pose = HandPose.zeros(2).to(torch.float64)
    skin = hand.jacobian(pose, torch.arange(8)).vertices
    zero, up = torch.zeros(2, 8).double(), torch.tensor([0.0, 0.0, 1.0]).double().expand(2, 8, 3)
    same = fixed_points(torch.zeros(2, 43, 3).double())
    _, radius = costs.inner_spheres(fixed_points(torch.zeros(2, 21, 3).double()))
    for residual, rows, *_ in (
        costs.penetration(skin, zero, up, 0.0, 0.001),
        costs.attraction(skin, zero, up, zero, 0.001),
        costs.attraction(skin, zero, up, zero + 1, 0.001),
        costs.correspondence(skin, skin.points, zero + 1, zero + 0.001),
        costs.correspondence(skin, skin.points, zero, zero + 0.001),
        costs.joint_limits(pose.hand_pose, anatomy, 0.05, 51),
        costs.self_penetration(same, radius, 0.001),
    ):
        assert residual.isfinite().all()
        assert rows.isfinite().all()
