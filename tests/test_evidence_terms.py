"""Evidence as terms, a stated prior, points and pictures: closed forms, and derivatives by finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
from synthetic_hand import random_hand, random_pose
from term_checks import SIDES, WIDTHS, at_the_origin, check_term, draw, equations_of, hand_state
from torch import Tensor

from contact.input_error import CAMERA
from hand_models import HandPose
from hand_models.record import Record
from hand_models.rotations import exp_so3, log_so3
from hand_models.solver.normal_equations import NormalEquations
from hand_models.solver.states import HandState, RigidState
from refine.evidence.depth_points import DepthPoints
from refine.evidence.input_error import prior_of
from refine.evidence.keypoints import Reprojection
from refine.evidence.point_fit import PointEvidence
from refine.evidence.pose_prior import PosePrior

# A stated prior -----------------------------------------------------------------------------------


def stated_prior(batch: int = 2) -> PosePrior:
    root = draw(batch, 51, 51) - 0.5
    return PosePrior.from_covariance(random_pose(batch), root @ root.transpose(1, 2) + 0.1 * torch.eye(51))


def camera_prior(batch: int = 2) -> PosePrior:
    """Of an image estimator's hands."""
    return prior_of(random_pose(batch), CAMERA, random_hand(), before_a_camera(random_pose(batch)))


def before_a_camera(pose: HandPose) -> Tensor:
    """(B, 4, 4) double: object to camera, half a metre behind the wrists of hands in any place, no two alike."""
    matrix = torch.eye(4).double().repeat(len(pose), 1, 1)
    matrix[:, :3, :3] = exp_so3(draw(len(pose), 3, seed=5))
    wrist = (random_hand().root(pose) + pose.transl)[..., None]
    matrix[:, :3, 3] = torch.tensor([0.02, -0.01, 0.5]) - (matrix[:, :3, :3] @ wrist)[..., 0]
    return matrix


def tangent(pose: HandPose, mean: HandPose) -> Tensor:
    """(B, 51) the step that `HandPose.retract` takes from ``mean`` to ``pose``."""
    turn = log_so3(exp_so3(pose.global_orient) @ exp_so3(mean.global_orient).transpose(1, 2))
    return torch.cat([pose.transl - mean.transl, turn, (pose.hand_pose - mean.hand_pose).flatten(1)], 1)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", [stated_prior, camera_prior])
def test_pose_prior(kind: Callable[[], PosePrior], side: str, width: int) -> None:
    """Wherever the wrist is turned as at the mean, the derivative at the mean is exact."""
    prior = kind()
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


# What a camera sees ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """Two hands before a camera, and what it says of them."""

    state: HandState
    keypoints: Reprojection
    """joints up to 24 pixels off; the fourth of each hand is missing, and of the second the last ten"""
    depth: DepthPoints
    """12 points up to 3 cm off the skin, the last two of the second hand missing"""


def seen_by_camera(width: int = 51) -> Seen:
    pose = random_pose(2)
    camera = before_a_camera(pose)
    intrinsics = torch.tensor([[600.0, 1.0, 320.0], [0.0, 590.0, 240.0], [0.0, 0.0, 1.0]]).double().repeat(2, 1, 1)
    state = hand_state(random_hand(), pose, width)
    pixels = projected(state.joints.points, intrinsics, camera)
    sigma = 2 + 4 * draw(2, 21, seed=1)
    sigma[:, 3] = sigma[1, 11:] = torch.inf
    keypoints = Reprojection(pixels + 48 * (draw(2, 21, 2, seed=2) - 0.5), sigma, intrinsics, camera)
    points = state.skin.points[:, 3:15] + 0.06 * (draw(2, 12, 3, seed=3) - 0.5)
    points[1, 10:] = torch.nan
    eye = -(camera[:, :3, :3].transpose(1, 2) @ camera[:, :3, 3:])[..., 0]
    return Seen(state, keypoints, DepthPoints(points, eye))


def projected(joints: Tensor, intrinsics: Tensor, camera: Tensor) -> Tensor:
    """Pixels, by the 3×4 projection matrix of homogeneous points."""
    whole = torch.cat([joints, torch.ones_like(joints[..., :1])], 2)
    image = torch.einsum("bij,bnj->bni", intrinsics @ camera[:, :3], whole)
    return torch.stack([image[..., 0] / image[..., 2], image[..., 1] / image[..., 2]], 2)


def pixels_off(term: Reprojection, state: HandState) -> Tensor:
    """(B, 42) in standard deviations, zero for what is missing."""
    off = projected(state.joints.points, term.camera, term.object_pose) - term.keypoints
    return torch.where(term.sigma.isfinite()[..., None], off / term.sigma[..., None], torch.zeros_like(off)).flatten(1)


@pytest.mark.parametrize("width", WIDTHS)
def test_reprojection(width: int) -> None:
    seen = seen_by_camera(width)
    size = pixels_off(seen.keypoints, seen.state).unflatten(1, (21, 2)).norm(dim=2)
    assert (size > 3).any()  # beyond the quadratic part
    assert ((size > 0) & (size < 1)).any()
    weight = (1 + (size / 3) ** 2).rsqrt().repeat_interleave(2, 1)
    found = check_term(seen.keypoints, seen.state, pixels_off, weight)
    torch.testing.assert_close(found.cost, torch.from_numpy(scipy.special.pseudo_huber(3.0, size.numpy())).sum(1))
    shown = seen.keypoints.project(seen.state.joints.points)
    torch.testing.assert_close(
        shown, projected(seen.state.joints.points, seen.keypoints.camera, seen.keypoints.object_pose)
    )
    assert seen.keypoints.places.tolist() == [True, True]
    assert replace(seen.keypoints, sigma=seen.keypoints.sigma.where(torch.arange(21) < 4, torch.inf)).places.sum() == 0


def visible_skin(seen: Seen) -> tuple[Tensor, Tensor]:
    """Of each measured point the nearest skin that faces the camera ``(B, n)``, and its normal ``(B, n, 3)``."""
    model, state = seen.state.model, seen.state
    vertices, skin = model(state.pose).vertices.numpy(), state.skin_ids.numpy()
    chosen = np.zeros(seen.depth.points.shape[:2], int)
    facing = np.zeros(seen.depth.points.shape)
    for row, points in enumerate(seen.depth.points.numpy()):
        normals = np.zeros((vertices.shape[1], 3))
        for corners in model.closed_faces.numpy():
            a, b, c = vertices[row, corners]
            normals[corners] += np.cross(b - a, c - a)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        eye = seen.depth.eye[row].numpy()
        shown = [k for k, v in enumerate(skin) if normals[v] @ (vertices[row, v] - eye) < 0]
        assert 0 < len(shown) < len(skin)
        for j, point in enumerate(points):
            distance = [np.linalg.norm(vertices[row, skin[k]] - point) for k in shown]
            chosen[row, j] = shown[int(np.argmin(np.nan_to_num(distance)))]
            facing[row, j] = normals[skin[chosen[row, j]]]
    return torch.from_numpy(chosen), torch.from_numpy(facing)


@dataclass(frozen=True, eq=False)
class HeldDepth(Record):
    """`DepthPoints` whose cost is that of the skin and the planes it had in one place."""

    term: DepthPoints
    nearest: Tensor
    facing: Tensor

    def residual(self, state: HandState) -> Tensor:
        skin = state.skin.points.gather(1, self.nearest[..., None].expand(-1, -1, 3))
        off = ((skin - self.term.points) * self.facing).sum(2) / self.term.std
        return self.term.share**0.5 * off.where(self.term.points.isfinite().all(2), torch.zeros_like(off))

    def linearize(self, state: HandState) -> list[NormalEquations]:
        size = self.residual(state) / self.term.share**0.5
        cost = self.term.share * torch.from_numpy(scipy.special.pseudo_huber(self.term.robust, size.numpy())).sum(1)
        return [replace(equations_of(self.term, state), cost=cost)]


@pytest.mark.parametrize("width", WIDTHS)
def test_depth_points(width: int) -> None:
    """Gauss–Newton of the distances to the planes of the nearest visible skin, which are held."""
    seen = seen_by_camera(width)
    held = HeldDepth(seen.depth, *visible_skin(seen))
    size = held.residual(seen.state) / seen.depth.share**0.5
    assert (size.abs() > 3).any()
    weight = (1 + (size / 3) ** 2).rsqrt()
    found = check_term(held, seen.state, lambda term, state: term.residual(state), weight)
    torch.testing.assert_close(equations_of(seen.depth, seen.state).cost, found.cost)
    assert seen.depth.places.tolist() == [True, True]
    assert seen.depth[[1]].map(lambda t: t[:, 1:] if t.ndim == 3 else t).places.tolist() == [False]


def equal(found: NormalEquations, expected: NormalEquations) -> None:
    for name in ("cost", "gradient", "hessian"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def test_what_is_missing_has_no_effect() -> None:
    """Keypoints of infinite sigma, whatever stands in their place, and points of NaN, however many."""
    seen = seen_by_camera()
    whole = equations_of(seen.keypoints, seen.state)
    missing = seen.keypoints.sigma.isinf()[..., None]
    equal(
        equations_of(replace(seen.keypoints, keypoints=seen.keypoints.keypoints.where(~missing, 1e9)), seen.state),
        whole,
    )
    nothing = replace(seen.keypoints, sigma=torch.full_like(seen.keypoints.sigma, torch.inf))
    assert not any(getattr(equations_of(nothing, seen.state), name).any() for name in ("cost", "gradient", "hessian"))
    few, state = replace(seen.depth[[1]], points=seen.depth.points[[1], :10]), seen.state[[1]]
    equal(equations_of(seen.depth[[1]], state), equations_of(few, state))
    padded = replace(few, points=torch.cat([torch.full((1, 7, 3), torch.nan).double(), few.points], 1))
    equal(equations_of(padded, state), equations_of(few, state))
    for points in (torch.full((1, 4, 3), torch.nan).double(), few.points[:, :0]):
        nothing = replace(few, points=points)
        assert not equations_of(nothing, state).hessian.any()
        assert torch.equal(nothing.start(state).transl, state.pose.transl)


@pytest.mark.parametrize("name", ["keypoints", "depth", "prior"])
def test_a_batch_is_its_rows(name: str) -> None:
    seen = seen_by_camera()
    term = camera_prior() if name == "prior" else getattr(seen, name)
    whole = equations_of(term, seen.state)
    for row in range(2):
        found = equations_of(term[row], seen.state[row])
        equal(found, NormalEquations(whole.cost[[row]], whole.gradient[[row]], whole.hessian[[row]]))


@pytest.mark.parametrize("name", ["keypoints", "depth", "prior"])
def test_in_a_mirror(name: str) -> None:
    """A left hand costs what its mirror image costs, and so does every step of it."""
    seen = seen_by_camera()
    term = camera_prior() if name == "prior" else getattr(seen, name)
    state = hand_state(random_hand(), seen.state.pose.retract(0.1 * draw(2, 51)), 51)
    left = hand_state(random_hand().mirrored(), state.pose.mirrored(), 51)
    sign = torch.tensor([-1.0, 1.0, 1.0] + [1.0, -1.0, -1.0] * 16).double()
    found, expected = equations_of(term.mirrored(), left), equations_of(term, state)
    equal(found, NormalEquations(
        expected.cost, expected.gradient * sign, expected.hessian * sign * sign[:, None]
    ))  # fmt: skip
    back = equations_of(term.mirrored().mirrored(), state)
    equal(back, expected)


@pytest.mark.parametrize("name", ["keypoints", "depth", "prior"])
def test_the_whole_scene_may_lie_anywhere(name: str) -> None:
    """Hand, points and camera moved as one: the same costs, wherever the hand goes from there."""
    seen, model = seen_by_camera(), random_hand()
    rotation, shift = exp_so3(draw(1, 3, seed=8))[0], torch.tensor([0.3, -0.2, 0.1]).double()
    back = torch.eye(4).double()
    back[:3, :3], back[:3, 3] = rotation.T, -rotation.T @ shift
    camera = seen.keypoints.object_pose @ back

    def moved(pose: HandPose) -> HandPose:
        return pose.transformed(rotation, shift, model.root(pose))

    pose, away = seen.state.pose, seen.state.pose.retract(0.1 * draw(2, 51))
    if name == "keypoints":
        terms: tuple[Any, Any] = seen.keypoints, replace(seen.keypoints, object_pose=camera)
    elif name == "depth":
        there = replace(
            seen.depth, points=seen.depth.points @ rotation.T + shift, eye=seen.depth.eye @ rotation.T + shift
        )
        terms = seen.depth, there
    else:
        terms = camera_prior(), prior_of(moved(pose), CAMERA, model, camera)
    for hand in (pose, away):
        here = equations_of(terms[0], hand_state(model, hand, 51)).cost
        torch.testing.assert_close(equations_of(terms[1], hand_state(model, moved(hand), 51)).cost, here)


def test_depth_points_start_where_they_are_measured() -> None:
    """A hand moves along its ray until the skin that is seen lies, in the mean, as deep as the points."""
    seen = seen_by_camera()
    term, state = seen.depth, seen.state
    start = hand_state(random_hand(), term.start(state), 51)
    step = start.pose.transl - state.pose.transl
    ray = torch.nn.functional.normalize(step, dim=1)
    shown = ((state.skin.points - term.eye[:, None]) * state.skin_normals).sum(2) < 0
    for row in range(2):
        skin, points = state.skin.points[row, shown[row]], term.points[row][term.points[row].isfinite().all(1)]
        view = torch.nn.functional.normalize(skin.mean(0) - term.eye[row], dim=0)
        assert float((ray[row] * view).sum().abs()) == pytest.approx(1)
        assert float((skin.mean(0) + step[row] - points.mean(0)) @ view) == pytest.approx(0, abs=1e-9)
