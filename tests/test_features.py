"""What the network sees: each feature against its meaning, and invariance to moving the scene."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from contact.network.features import (
    HAND_FEATURES,
    JOINT_FEATURES,
    JOINT_REACH,
    LENGTH,
    OBJECT_FEATURES,
    Observation,
    _nearness,
    observe,
)
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.anatomy import default_anatomy
from hand_models.rotations import exp_so3


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def scene(model: HandModel) -> tuple[HandPose, Tensor, Tensor, Tensor]:
    """Three hands in prior poses, each beside an ellipsoid of its own: pose, points, normals, thickness."""
    generator = torch.Generator().manual_seed(0)
    pose = HandPose(
        "right", torch.randn(3, 3, generator=generator), default_anatomy().sample(3, generator),
        torch.randn(3, 10, generator=generator), 0.1 * torch.randn(3, 3, generator=generator),
    )  # fmt: skip
    axes = 0.02 + 0.04 * torch.rand(3, 1, 3, generator=generator)
    direction = torch.nn.functional.normalize(torch.randn(3, 300, 3, generator=generator), dim=-1)
    points = axes * direction + model.joints(pose)[:, [9]] + torch.tensor([0.0, -0.05, 0.0])
    normals = torch.nn.functional.normalize(direction / axes, dim=-1)
    return pose, points, normals, 2 * axes.amin(-1).expand(3, 300)


@pytest.fixture(scope="module")
def seen(model: HandModel, scene: tuple[HandPose, Tensor, Tensor, Tensor]) -> Observation:
    return observe(model, *scene)


def test_shapes(seen: Observation) -> None:
    assert seen.objects.shape == (3, 300, OBJECT_FEATURES)
    assert seen.joints.shape == (3, 21, JOINT_FEATURES)
    assert seen.hand.shape == (3, HAND_FEATURES)
    assert all(getattr(seen, f.name).isfinite().all() for f in fields(seen))


def test_frame_leads_back_to_the_scene(model: HandModel, scene: tuple, seen: Observation) -> None:
    pose, points, normals, _ = scene
    hand = model(pose)
    torch.testing.assert_close(seen.origin, hand.joints[:, 0])
    torch.testing.assert_close(seen.rotation, exp_so3(pose.global_orient))

    def back(x: Tensor) -> Tensor:
        return x @ seen.rotation.transpose(1, 2) + seen.origin[:, None]

    torch.testing.assert_close(back(seen.joint_positions), hand.joints, atol=1e-6, rtol=0)
    torch.testing.assert_close(back(seen.objects[..., :3] * LENGTH), points, atol=1e-6, rtol=0)
    torch.testing.assert_close(seen.objects[..., 3:6] @ seen.rotation.transpose(1, 2), normals, atol=1e-6, rtol=0)


def test_object_features_by_brute_force(model: HandModel, scene: tuple, seen: Observation) -> None:
    """Nearest skin, where on the hand it is, and nearness to joints, measured in the scene."""
    pose, points, _normals, thickness = scene
    hand = model(pose)
    features = seen.objects
    torch.testing.assert_close(features[..., 6] * LENGTH, thickness)
    to_skin = features[..., 7:10] * LENGTH
    torch.testing.assert_close(features[..., 10] * LENGTH, to_skin.norm(dim=-1))
    along = (to_skin * features[..., 3:6]).sum(-1)
    torch.testing.assert_close(features[..., 11] * LENGTH, along, atol=1e-6, rtol=0)
    # The vector ends on a skin vertex, whose rest position is the next feature.
    met = points + to_skin @ seen.rotation.transpose(1, 2)
    distance = torch.cdist(met, hand.vertices, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distance.min(2)
    assert nearest.values.max() < 1e-6
    torch.testing.assert_close(model.rest_canonical[nearest.indices], features[..., 12:15] * LENGTH, atol=1e-6, rtol=0)
    assert torch.isin(nearest.indices, model.contact_points).all()
    # No skin is much nearer: the features see a sample of the contact points.
    skin = hand.vertices[:, model.contact_points]
    exact = torch.cdist(points, skin, compute_mode="donot_use_mm_for_euclid_dist").amin(2)
    excess = to_skin.norm(dim=-1) - exact
    assert excess.min() > -1e-5
    assert excess.mean() < 0.003
    assert excess.max() < 0.02
    to_joints = torch.cdist(points, hand.joints, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(features[..., 15:36], torch.exp(-to_joints / JOINT_REACH), atol=2e-3, rtol=0)


def test_joint_features_by_brute_force(model: HandModel, scene: tuple, seen: Observation) -> None:
    pose, points, normals, _ = scene
    joints = model.joints(pose)
    torch.testing.assert_close(seen.joints[..., :3] * LENGTH, seen.joint_positions)
    to_object = seen.joints[..., 3:6] * LENGTH
    met = joints + to_object @ seen.rotation.transpose(1, 2)
    to_points = torch.cdist(met, points, compute_mode="donot_use_mm_for_euclid_dist").min(2)
    assert to_points.values.max() < 1e-6
    nearest = torch.cdist(joints, points, compute_mode="donot_use_mm_for_euclid_dist").amin(2)
    torch.testing.assert_close(seen.joints[..., 9] * LENGTH, nearest, atol=1e-5, rtol=0)
    normal = seen.joints[..., 6:9] @ seen.rotation.transpose(1, 2)
    expected = normals.gather(1, to_points.indices[..., None].expand(-1, -1, 3))
    torch.testing.assert_close(normal, expected, atol=1e-6, rtol=0)


def test_hand_features(scene: tuple, seen: Observation) -> None:
    pose = scene[0]
    assert torch.equal(seen.hand[:, :45], pose.hand_pose.flatten(1))
    assert torch.equal(seen.hand[:, 45:108], seen.joint_positions.flatten(1) / LENGTH)
    assert torch.equal(seen.hand[:, 108:118], pose.betas)
    closest = (seen.objects[..., 7:10] * LENGTH).norm(dim=-1).amin(1)
    expected = torch.stack([closest / LENGTH, torch.exp(-closest / 0.005), torch.exp(-closest / 0.02)], 1)
    torch.testing.assert_close(seen.hand[:, -3:], expected)


def test_moving_the_scene_changes_nothing(model: HandModel, scene: tuple, seen: Observation) -> None:
    pose, points, normals, thickness = scene
    rotation = exp_so3(torch.tensor([[0.4, -2.0, 1.0], [3.0, 0.2, 0.0], [-0.5, 0.5, -1.5]]))
    shift = torch.tensor([[0.3, -0.2, 0.8]])
    moved = observe(
        model,
        pose.transformed(rotation, shift, model.root(pose)),
        points @ rotation.transpose(1, 2) + shift[:, None],
        normals @ rotation.transpose(1, 2),
        thickness,
    )
    for name in ("joints", "hand", "joint_positions"):
        torch.testing.assert_close(getattr(moved, name), getattr(seen, name), atol=2e-5, rtol=0)
    # A point equally near to two skin points may choose the other one after rounding; hardly any does.
    same = (moved.objects - seen.objects).abs().amax(-1) < 1e-4
    assert same.float().mean() > 0.995
    torch.testing.assert_close(moved.objects[..., :7], seen.objects[..., :7], atol=2e-5, rtol=0)
    torch.testing.assert_close(moved.rotation, rotation @ seen.rotation, atol=1e-5, rtol=0)
    assert (moved.origin - seen.origin).norm(dim=1).min() > 0.1  # it did move


# How the hand may be off ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def covariance() -> Tensor:
    """Of three hands: all 51 numbers off together, in one way or another."""
    root = torch.randn(3, 51, 51, generator=torch.Generator().manual_seed(1))
    size = torch.tensor([0.004] * 3 + [0.02] * 3 + [0.03] * 45) / 51**0.5
    root = size[:, None] * root
    return root @ root.transpose(1, 2)


@pytest.fixture(scope="module")
def told(model: HandModel, scene: tuple, covariance: Tensor) -> Observation:
    return observe(model, *scene, covariance)


def as_seen(observation: Observation) -> list[Tensor]:
    """What is seen without being told anything."""
    hand = observation.hand
    return [observation.objects[..., :36], observation.joints[..., :10], hand[:, :118], hand[:, 167:]]


def as_told(observation: Observation) -> list[Tensor]:
    features = [observation.objects[..., 36:], observation.joints[..., 10:], observation.hand[:, 118:167]]
    return [*features, observation.told, observation.spread]


def test_joint_covariances_are_those_of_draws(
    model: HandModel, scene: tuple, covariance: Tensor, told: Observation
) -> None:
    count, generator = 20_000, torch.Generator().manual_seed(2)
    root = torch.linalg.cholesky(covariance.double() + 1e-12 * torch.eye(51)).float()
    for k in range(3):
        many = scene[0][[k] * count]
        off = torch.randn(count, 51, generator=generator) @ root[k].T
        joints = (model.joints(many.retract(off)) - told.origin[k]) @ told.rotation[k]
        away = joints - joints.mean(0)
        sampled = torch.einsum("njc,njk->jck", away, away) / count
        variance = told.spread[k] @ told.spread[k]
        size = torch.diagonal(variance, dim1=1, dim2=2).mean(1)[:, None, None]
        torch.testing.assert_close(sampled / size, variance / size, atol=0.08, rtol=0)
    torch.testing.assert_close(told.spread, told.spread.transpose(2, 3), atol=1e-7, rtol=0)
    assert (torch.linalg.eigvalsh(told.spread) > -1e-6).all()


def test_what_is_told_stands_in_the_features(covariance: Tensor, told: Observation) -> None:
    upper = told.spread[:, :, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    torch.testing.assert_close(told.joints[..., 10:16] * 0.03, upper)
    assert (told.joints[..., 16] == 1).all()
    assert (told.hand[:, 118] == 1).all()
    turn = told.rotation.transpose(1, 2) @ covariance[:, 3:6, 3:6] @ told.rotation
    of_turn, of_angles = (torch.diagonal(c, dim1=1, dim2=2).sqrt() for c in (turn, covariance[:, 6:, 6:]))
    torch.testing.assert_close(told.hand[:, 119:167] * 0.1, torch.cat([of_turn, of_angles], 1))
    nearness = _nearness(told.objects[..., :3] * LENGTH, told.joint_positions, told.spread)
    torch.testing.assert_close(told.objects[..., 36:], nearness, atol=1e-5, rtol=0)


def test_what_is_told_changes_nothing_else(seen: Observation, told: Observation) -> None:
    for before, after in zip(as_seen(seen), as_seen(told), strict=True):
        assert torch.equal(before, after)
    assert all((part == 0).all() for part in as_told(seen))


def test_nothing_is_told_of_hands_of_whose_error_nothing_is_known(
    model: HandModel, scene: tuple, covariance: Tensor, seen: Observation, told: Observation
) -> None:
    some = covariance.clone()
    some[1, 7, 9] = torch.nan
    found = observe(model, *scene, some)
    assert found.told.tolist() == [1, 0, 1]
    for k, expected in enumerate((told, seen, told)):
        for one, other in zip(as_told(found), as_told(expected), strict=True):
            torch.testing.assert_close(one[k], other[k], atol=1e-5, rtol=0)


def test_an_exact_hand_is_told_from_one_of_which_nothing_is_known(
    model: HandModel, scene: tuple, seen: Observation
) -> None:
    exact = observe(model, *scene, torch.zeros(3, 51, 51))
    assert (exact.told == 1).all()
    assert (exact.spread == 0).all()
    assert (exact.hand[:, 119:167] == 0).all()
    torch.testing.assert_close(exact.objects[..., 36:], seen.objects[..., 15:36], atol=2e-3, rtol=0)


def test_nearness_by_a_loop() -> None:
    """The fall-off is wider along what is not known of a joint's place."""
    generator = torch.Generator().manual_seed(0)
    points, joints = 0.05 * torch.randn(2, 9, 3, generator=generator), 0.05 * torch.randn(2, 4, 3, generator=generator)
    root = 0.03 * torch.randn(2, 4, 3, 3, generator=generator)
    spread = root + root.transpose(2, 3)
    found = _nearness(points, joints, spread)
    for b in range(2):
        for j in range(4):
            scale = JOINT_REACH**2 * torch.eye(3) + spread[b, j] @ spread[b, j]
            for n in range(9):
                off = points[b, n] - joints[b, j]
                distance = (off @ torch.linalg.solve(scale, off)).sqrt()
                assert float(found[b, n, j]) == pytest.approx(float(torch.exp(-distance)), abs=1e-4)
    plain = _nearness(points, joints, torch.zeros_like(spread))
    torch.testing.assert_close(plain, torch.exp(-torch.cdist(points, joints) / JOINT_REACH), atol=1e-3, rtol=0)
    assert (found >= plain - 1e-4).all()


def test_covariances_turn_with_the_scene(model: HandModel, scene: tuple, covariance: Tensor, told: Observation) -> None:
    """Place and turn are told in the axes of the scene; the network sees them in those of the wrist."""
    pose, points, normals, thickness = scene
    rotation = exp_so3(torch.tensor([[0.4, -2.0, 1.0], [3.0, 0.2, 0.0], [-0.5, 0.5, -1.5]]))
    turn = torch.eye(51).repeat(3, 1, 1)
    turn[:, :3, :3] = turn[:, 3:6, 3:6] = rotation
    moved = observe(
        model,
        pose.transformed(rotation, torch.zeros(3), model.root(pose)),
        points @ rotation.transpose(1, 2),
        normals @ rotation.transpose(1, 2),
        thickness,
        turn @ covariance @ turn.transpose(1, 2),
    )
    for one, other in zip(as_told(moved), as_told(told), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0)
    torch.testing.assert_close(moved.spread, told.spread, atol=2e-5, rtol=0)
    unturned = observe(model, *scene, turn @ covariance @ turn.transpose(1, 2))
    assert (unturned.spread - told.spread).abs().max() > 1e-3


def test_hands_do_not_affect_each_other(model: HandModel, scene: tuple, seen: Observation) -> None:
    for k in range(3):
        alone = observe(model, scene[0][k], *(t[k : k + 1] for t in scene[1:]))
        for f in fields(seen):
            torch.testing.assert_close(getattr(alone, f.name)[0], getattr(seen, f.name)[k], atol=2e-5, rtol=0)


def test_errors(model: HandModel, scene: tuple) -> None:
    pose, points, normals, thickness = scene
    with pytest.raises(ValueError, match=r"pose: left hands.*mirrored"):
        observe(model, replace(pose, side="left"), points, normals, thickness)
    with pytest.raises(ValueError, match=r"points: got shape \(300, 3\).*\(3, n, 3\)"):
        observe(model, pose, points[0], normals, thickness)
    with pytest.raises(ValueError, match=r"points: got shape \(2, 300, 3\)"):
        observe(model, pose, points[:2], normals[:2], thickness[:2])
    with pytest.raises(ValueError, match=r"normals"):
        observe(model, pose, points, normals[:, :9], thickness)
    with pytest.raises(ValueError, match=r"thickness: got shape \(3, 300, 1\)"):
        observe(model, pose, points, normals, thickness[..., None])


def test_no_gradients(model: HandModel, scene: tuple) -> None:
    pose, points, normals, thickness = scene
    tracked = observe(model, pose, points.clone().requires_grad_(), normals, thickness)
    assert not tracked.objects.requires_grad
