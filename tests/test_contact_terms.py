"""Terms of contact against their closed forms; derivatives against finite differences in double precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import igl
import numpy as np
import pytest
import scipy.special
import torch
from synthetic_hand import random_hand, random_pose
from term_checks import BALLS, WHICH, WIDTHS, at_the_origin, check_term, draw, equations_of, fixed_points, hand_state
from torch import Tensor

from contact.terms import FingersApart, HandsApart, SkinOnSurface, SpheresOutside, attraction, penetration
from hand_models import HandModel, HandPose, PointJacobian, load_open_hand
from hand_models.anatomy import default_anatomy
from hand_models.inner_spheres import Spheres, inner_spheres, sphere_centres, sphere_radius
from hand_models.record import Record
from hand_models.solver.states import HandState, PairState
from hand_models.solver.terms import AnglePrior, JointLimits, PointTargets, ShapePrior, pseudo_huber


@pytest.fixture(scope="module")
def hand() -> HandModel:
    return load_open_hand().to(torch.float64)


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
def test_hands_apart(width: int) -> None:
    """Two hands that overlap, the second seen in a mirror: skin and spheres of either in the other's spheres."""
    model = random_hand()
    flip = torch.tensor([-1.0, 1.0, 1.0]).double()
    one, other = at_the_origin(model), random_pose(2, seed=15)
    other = replace(other, transl=(one.transl + model.root(one)) * flip - model.root(other) + 0.004)
    state = PairState(*(hand_state(model, pose, width) for pose in (one, other)))

    def residual(term: HandsApart, state: PairState) -> Tensor:
        spheres = [inner_spheres(half.joints.points) for half in (state.first, state.second)]
        seen = [Spheres(s.centres * flip, s.radius) for s in spheres]  # by the other hand

        def depth(points: Tensor, balls: Spheres) -> Tensor:
            apart = (points[:, :, None] - balls.centres[:, None]).norm(dim=-1)
            return (balls.radius - apart).amax(2)

        excess = [
            depth(state.first.skin.points, seen[1]),
            depth(state.second.skin.points, seen[0]),
            depth(spheres[0].centres, seen[1]) + spheres[0].radius,
        ]
        return torch.cat(excess, 1).clamp_min(0) / term.std

    term = HandsApart(0.002)
    sunk = residual(term, state)
    for part in sunk.split([30, 30, 43], dim=1):
        assert (part > 0).any()
    assert (sunk == 0).any()
    torch.testing.assert_close(check_term(term, state, residual).cost, 0.5 * (sunk**2).sum(1))


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
        centres, radius = (spheres.centres[:, :30].unflatten(1, (5, 6)), spheres.radius[:30].unflatten(0, (5, 6)))
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


# Several ------------------------------------------------------------------------------------------


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
        residual, rows = (torch.cat(c, -1) for c in zip(*(rows_of_points(t, state) for t in terms), strict=True))
        found = state.assemble([part for term in terms for part in term.linearize(state)])
        torch.testing.assert_close(found.gradient, torch.einsum("bdn,bn->bd", rows, residual))
        torch.testing.assert_close(found.hessian, rows @ rows.transpose(1, 2))
        torch.testing.assert_close(found.cost, sum(equations_of(term, state).cost for term in terms))


def test_terms_of_a_state_are_the_sum_of_each() -> None:
    model, anatomy = random_hand(), default_anatomy().to(torch.float64)
    state = hand_state(model, at_the_origin(model), 61)
    terms = [
        SkinOnSurface(WHICH, draw(2, 30), 0.001 * draw(2, 30), BALLS),  # type: ignore[arg-type]
        AnglePrior.grasping(anatomy, 2),
        JointLimits(anatomy, 0.05),
        ShapePrior(),
    ]
    found = state.assemble([part for term in terms for part in term.linearize(state)])
    each = [equations_of(term, state) for term in terms]
    for name in ("cost", "gradient", "hessian"):
        torch.testing.assert_close(getattr(found, name), sum(getattr(e, name) for e in each))


def test_no_term_is_nan_at_the_optimum(hand: HandModel) -> None:
    """Zero errors, where norms have no derivative."""
    state = hand_state(hand, HandPose.zeros(2).to(torch.float64), 51, torch.arange(8))
    zero = torch.zeros(2, 8).double()

    @dataclass(frozen=True)
    class Plane(Record):
        def query(self, points: Tensor, which: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return torch.zeros_like(points[..., 0]), torch.tensor([0.0, 0.0, 1.0]).to(points).expand_as(points)

    plane: Any = Plane()
    same: Any = SimpleNamespace(spheres=fixed_points(torch.zeros(2, 43, 3).double()), dim=51)
    for term in (
        SkinOnSurface(WHICH, zero, zero, plane),
        SkinOnSurface(WHICH, zero + 1, zero, plane),
        SpheresOutside(WHICH, zero[:, :1], plane),
        PointTargets(state.skin.points, zero + 1, zero + 0.001),
        PointTargets(state.skin.points, zero, zero + 0.001),
        JointLimits(default_anatomy().to(torch.float64), 0.05),
        FingersApart(0.001),
    ):
        found = equations_of(term, state)
        for name in ("cost", "gradient", "hessian"):
            assert getattr(found, name).isfinite().all(), type(term).__name__
    (crowded,) = FingersApart(0.001).linearize(same)
    assert crowded.cost.isfinite().all()
    assert crowded.hessian.isfinite().all()
