"""`InputError`: its precision against the formula written out, noise against its precision, and the priors by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_hand import random_hand, random_pose
from term_checks import SIDES, draw
from torch import Tensor
from torch.nn.functional import normalize

from contact.input_error import CAMERA, POSE_UNIT, InputError
from contact.perturb import perturb
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.anatomy import default_anatomy
from hand_models.rotations import exp_so3, log_so3
from refine.evidence.input_error import INPUT_ERRORS, input_error, line_of_sight, prior_of

STEP = 1e-6
COUNT = 4000
FLIP = torch.tensor([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def hand() -> HandPose:
    """One hand in a pose of the grasping prior, turned, away from the origin."""
    generator = torch.Generator().manual_seed(2)
    angles = default_anatomy().sample(1, generator)
    place = torch.tensor([[0.1, -0.05, 0.3]])
    return HandPose("right", torch.tensor([[0.7, -0.4, 1.1]]), angles, torch.zeros(1, 10), place)


def formula(error: InputError, pose: HandPose, model: HandModel, view: np.ndarray) -> np.ndarray:
    """(51, 51) for one hand, row by row: place, turn, each finger's angles, and each joint across the view."""
    precision = np.zeros((51, 51))
    axes = model.anatomy.axes().double().numpy()
    for axis in range(3):
        unit = np.eye(51)[axis]
        precision += np.outer(unit, unit) / error.translation**2
        unit = np.eye(51)[3 + axis]
        precision += np.outer(unit, unit) / error.rotation**2
    for joint in range(15):
        for angle in range(3):  # flexion, abduction, twist: axis-angle along an axis of the joint's own
            row = np.zeros(51)
            row[6 + 3 * joint : 9 + 3 * joint] = axes[joint, angle]
            precision += np.outer(row, row) / (error.pose * POSE_UNIT[angle]) ** 2
    if error.along is None:
        return precision
    along = np.zeros(51)
    along[:3] = view
    precision += np.outer(along, along) * (1 / error.along**2 - 1 / error.translation**2)
    moves = STEP * torch.eye(51).double()
    ahead, behind = (model.joints(pose[[0] * 51].retract(sign * moves)).numpy() for sign in (1, -1))
    moved = (ahead - behind) / (2 * STEP)  # (51, 21, 3)
    first = np.cross(view, [0.3, 0.5, -0.8])
    first /= np.linalg.norm(first)
    for joint in range(21):
        for across in (first, np.cross(view, first)):
            row = moved[:, joint] @ across
            precision += error.share * np.outer(row, row) / error.picture**2
    return precision


@pytest.mark.parametrize("name", ["camera", "image", "tracker"])
def test_precision(name: str) -> None:
    error, model, pose = INPUT_ERRORS[name], random_hand(), random_pose(2)
    assert error is not None
    view = normalize(draw(2, 3) - 0.5, dim=1)
    found = error.precision(pose, model, view)
    for row in range(2):
        expected = formula(error, pose[row], model, view[row].numpy())
        np.testing.assert_allclose(found[row].numpy(), expected, atol=1e-7 * expected.max(), rtol=0)
    if error.along is None:
        assert torch.equal(error.precision(pose, model), found)
    else:
        with pytest.raises(ValueError, match="view: missing"):
            error.precision(pose, model)


def test_the_camera_is_as_stated() -> None:
    """4 and 5 cm, 0.15 rad, 0.3 units of pose, 4 pixels of 600 at 0.7 m, 21 joints worth a quarter of that."""
    assert InputError(0.05, 0.15, 0.3, along=0.04, picture=4 * 0.7 / 600, share=0.25) == CAMERA


def tangent(noisy: HandPose, pose: HandPose) -> Tensor:
    """(B, 51) the step from ``pose`` to ``noisy``."""
    turn = log_so3(exp_so3(noisy.global_orient) @ exp_so3(pose.global_orient).transpose(1, 2))
    return torch.cat([noisy.transl - pose.transl, turn, (noisy.hand_pose - pose.hand_pose).flatten(1)], 1)


@pytest.mark.parametrize("side", SIDES)
def test_camera_noise_is_drawn_from_its_gaussian(model: HandModel, hand: HandPose, side: str) -> None:
    """4000 draws, whitened by the precision: unit covariance within five standard errors."""
    view = normalize(torch.tensor([[0.2, -0.5, 0.9]]), dim=1)
    precision = formula(CAMERA, hand.to(torch.float64), model.to(torch.float64), view[0].double().numpy())
    truth = hand[[0] * COUNT]
    if side == "left":
        truth, view = truth.mirrored(), view * FLIP
    noisy = perturb(truth, "camera", seed=4, model=model, view=view.expand(COUNT, 3))
    assert noisy.side == side
    assert torch.equal(noisy.betas, truth.betas)
    off = tangent(noisy.mirrored(), truth.mirrored()) if side == "left" else tangent(noisy, truth)
    white = off.double().numpy() @ np.linalg.cholesky(precision)
    covariance = white.T @ white / COUNT
    assert np.abs(white.mean(0)).max() < 5 / COUNT**0.5
    assert np.abs(np.diag(covariance) - 1).max() < 5 * (2 / COUNT) ** 0.5
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 5 / COUNT**0.5


@pytest.mark.parametrize("side", SIDES)
def test_camera_noise_lies_along_the_view(model: HandModel, hand: HandPose, side: str) -> None:
    """The joints stay on their picture while the depth is off by centimetres, whichever way the camera looks."""
    truth = hand[[0] * 500] if side == "right" else hand[[0] * 500].mirrored()
    view = normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    noisy = perturb(truth, "camera", seed=1, model=model, view=view)
    off = model.joints(noisy) - model.joints(truth)
    along = (off * view[:, None]).sum(2)
    across = (off - along[..., None] * view[:, None]).norm(dim=2)
    assert float(along.std()) == pytest.approx(CAMERA.along, rel=0.15)
    assert float(across.square().mean().sqrt()) < CAMERA.picture * 2**0.5


def test_camera_noise_without_a_view(model: HandModel, hand: HandPose) -> None:
    """Each hand has a camera of its own; as seeded."""
    truth = hand[[0] * 300]
    noisy = perturb(truth, "camera", seed=1, model=model)
    torch.testing.assert_close(tangent(perturb(truth, "camera", seed=1, model=model), truth), tangent(noisy, truth))
    step = (model.joints(noisy) - model.joints(truth)).mean(1)
    assert float(step.std(0).min() / step.std(0).max()) > 0.8  # in no direction more than in others
    unmoved = perturb(truth[:2], "camera", model=model, scale=torch.tensor([0.0, 0.1]))
    assert (tangent(unmoved, truth[:2]).abs().amax(1) < 1e-5).tolist() == [True, False]
    with pytest.raises(ValueError, match="model: missing"):
        perturb(truth, "camera")


# Priors by name -------------------------------------------------------------------------------------


def object_poses(count: int) -> Tensor:
    matrix = torch.eye(4).repeat(count, 1, 1)
    matrix[:, :3, :3] = exp_so3(draw(count, 3, seed=3).float())
    matrix[:, :3, 3] = torch.tensor([0.05, -0.1, 0.6])
    return matrix


def test_the_line_of_sight_goes_from_the_camera_to_the_hand(model: HandModel, hand: HandPose) -> None:
    camera = object_poses(2)
    middle = model.joints(hand)[0].mean(0)
    for row in range(2):
        seen = camera[row, :3, :3] @ middle + camera[row, :3, 3]  # in the camera's frame
        expected = camera[row, :3, :3].T @ (seen / seen.norm())
        torch.testing.assert_close(line_of_sight(hand, model, camera[[row]])[0], expected)


@pytest.mark.parametrize(
    "name", [name for name, error in INPUT_ERRORS.items() if error and error.translation and error.rotation]
)
def test_a_prior_has_the_precision_of_its_name(model: HandModel, hand: HandPose, name: str) -> None:
    """And a left hand's is its mirror image."""
    pose, camera = hand[[0, 0]], object_poses(2)
    error = input_error(name)
    assert error is not None
    prior = prior_of(pose, error, model, camera)
    found = prior.factor.double() @ prior.factor.double().transpose(1, 2)
    double = model.to(torch.float64)
    for row in range(2):
        view = line_of_sight(pose[row], model, camera[[row]])[0].double().numpy()
        expected = formula(error, pose[row].to(torch.float64), double, view)
        np.testing.assert_allclose(found[row].numpy(), expected, atol=1e-5 * expected.max(), rtol=0)
    mirror = camera * torch.tensor([-1.0, 1.0, 1.0, 1.0])
    left = prior_of(pose.mirrored(), error, model, mirror)
    assert left.mean.side == "left"
    torch.testing.assert_close(left.mirrored().factor, prior.factor, rtol=1e-4, atol=1e-3 * float(prior.factor.max()))
    assert prior.places.tolist() == [True, True]


def test_names() -> None:
    assert input_error("unknown") is None
    with pytest.raises(ValueError, match=r"input_error: 'kinect' is unknown; choose one of unknown, exact, .*camera"):
        input_error("kinect")


def test_a_camera_error_needs_a_camera(model: HandModel, hand: HandPose) -> None:
    with pytest.raises(ValueError, match="input_error: 'camera' is along the line of sight; give object_pose"):
        prior_of(hand, CAMERA, model, None)
    other = replace(CAMERA, along=None)
    assert prior_of(hand, other, model, None).places.all()


def test_what_is_broader_than_a_hand_says_nothing_of_its_place(model: HandModel, hand: HandPose) -> None:
    assert not prior_of(hand, InputError(0.2, 0.1, 0.3), model, None).places.any()
    assert prior_of(hand, InputError(0.05, 2.0, 3.0), model, None).places.all()
