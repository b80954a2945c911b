"""Inverse kinematics: round trips on a stick hand built here and on the open hand, and on measured joints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hand_models.anatomy import default_anatomy, default_skeleton
from hand_models.fit import FitConfig, fit_joints, fit_vertices, solve_joints, solve_vertices
from hand_models.fit_start import kabsch
from hand_models.model import HandModel
from hand_models.pose import HandPose
from hand_models.rotations import exp_so3


def make_stick_hand(seed: int = 0) -> HandModel:
    """A hand of rings of skin around the mean skeleton, smoothly skinned, with a random shape space."""
    rng = np.random.default_rng(seed)
    joints = default_skeleton().double().numpy() + np.array([0.0957, 0.0064, 0.0062])
    chains = {name: [0, *range(1 + 4 * k, 5 + 4 * k)] for k, name in enumerate(("t", "i", "m", "r", "p"))}
    vertices, weights, regressor, tips = [], [], np.zeros((16, 0)), []
    first = {"i": 1, "m": 4, "p": 7, "r": 10, "t": 13}
    rings: dict[int, list[int]] = {}

    def ring(centre: np.ndarray, bone: np.ndarray, radius: float, skin: dict[int, float]) -> list[int]:
        across = np.cross(bone, [0.3, 1.0, 0.2])
        across /= np.linalg.norm(across)
        up = np.cross(across, bone / np.linalg.norm(bone))
        ids = []
        for angle in np.arange(8) * np.pi / 4:
            ids.append(len(vertices))
            vertices.append(centre + radius * (np.cos(angle) * across + np.sin(angle) * up))
            weights.append(np.array([skin.get(b, 0.0) for b in range(16)]))
        return ids

    rings[0] = ring(joints[0], np.array([-1.0, 0, 0]), 0.02, {0: 1.0})
    for name, chain in chains.items():
        points = joints[chain]
        for k in range(4):
            here = 0 if k == 0 else first[name] + k - 1
            bone = points[k + 1] - points[k]
            if k:
                rings[here] = ring(points[k], bone, 0.008, {here: 0.5, 0 if k == 1 else here - 1: 0.5})
            for s in (0.35, 0.7):
                ring(points[k] + s * bone, bone, 0.008, {here: 1.0})
        tips.append(ring(points[4], bone, 0.004, {first[name] + 2: 1.0}))
    template = np.array(vertices)
    regressor = np.zeros((16, len(template)))
    for joint, ids in rings.items():
        regressor[joint, ids] = 1 / len(ids)
    tip_regressor = np.zeros((5, len(template)))
    for k, ids in enumerate(tips):
        tip_regressor[k, ids] = 1 / len(ids)
    # Shape: random affine maps of a few per cent, so that bones lengthen and the skin follows.
    centred = template - template[rings[0]].mean(0)
    shape = np.stack([centred @ rng.normal(0, 0.03, (3, 3)) * 0.6**k for k in range(10)], -1)

    def as_float(a: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(a, dtype=torch.float32)

    faces = torch.tensor([[0, 1, 2]])
    every = torch.arange(len(template))
    return HandModel(
        name="stick", side="right", template=as_float(template), shapedirs=as_float(shape), posedirs=None,
        joint_regressor=as_float(regressor), weights=as_float(np.array(weights)),
        faces=faces, closed_faces=faces, tip_regressor=as_float(tip_regressor), contact_points=every,
    )  # fmt: skip


def random_poses(count: int, seed: int = 0, *, side: str = "right", shape: float = 0.5) -> HandPose:
    generator = torch.Generator().manual_seed(seed)
    return HandPose(
        side,
        torch.randn(count, 3, generator=generator) * 1.5,
        default_anatomy().sample(count, generator, side=side),
        shape * torch.randn(count, 10, generator=generator),
        torch.randn(count, 3, generator=generator) * 0.3,
    )


@pytest.fixture(scope="module")
def stick() -> HandModel:
    return make_stick_hand()


@pytest.fixture(scope="module")
def open_hand() -> HandModel:
    from hand_models.open_hand import load_open_hand

    return load_open_hand()


def distances(model: HandModel, pose: HandPose, joints: torch.Tensor) -> torch.Tensor:
    return (model.joints(pose) - joints).norm(dim=-1)


def test_joints_round_trip(stick: HandModel) -> None:
    truth = random_poses(48)
    joints = stick.joints(truth)
    result = solve_joints(joints, stick)
    assert distances(stick, result.pose, joints).mean(1).max() < 5e-4
    torch.testing.assert_close(result.error, distances(stick, result.pose, joints).mean(1), atol=1e-6, rtol=0)
    assert result.usable.all()
    assert result.converged.float().mean() > 0.9


def test_joints_round_trip_with_known_shape(stick: HandModel) -> None:
    truth = random_poses(32, seed=1)
    joints = stick.joints(truth)
    pose = fit_joints(joints, stick, betas=truth.betas)
    assert torch.equal(pose.betas, truth.betas)
    assert distances(stick, pose, joints).mean(1).max() < 5e-4


def test_left_hands_are_the_mirror_image(stick: HandModel) -> None:
    joints = stick.joints(random_poses(6, seed=2))
    right = fit_joints(joints, stick)
    left = fit_joints(joints * torch.tensor([-1.0, 1.0, 1.0]), stick, side="left")
    assert left.side == "left"
    for name, value in right.mirrored().as_arrays().items():
        np.testing.assert_allclose(left.as_arrays()[name], value, atol=1e-6)
    assert distances(stick, left, joints * torch.tensor([-1.0, 1.0, 1.0])).mean(1).max() < 5e-4


def test_a_model_of_a_left_hand_fits_as_its_mirror_image(stick: HandModel) -> None:
    """Whichever side the template is of, hands of either side come out the same."""
    left_model = stick.mirrored()
    for side in ("right", "left"):
        joints = stick.joints(random_poses(3, seed=2, side=side))
        expected, found = (fit_joints(joints, model, side=side) for model in (stick, left_model))
        assert found.side == side
        torch.testing.assert_close(left_model.joints(found), stick.joints(expected), atol=1e-5, rtol=0)
        torch.testing.assert_close(found.hand_pose, expected.hand_pose, atol=1e-4, rtol=0)


def test_the_prior_is_that_of_the_model_unless_another_is_given(stick: HandModel) -> None:
    """It decides how the last phalanx twists, which no joint tells."""
    joints = stick.joints(random_poses(2, seed=4))
    own, same = (solve_joints(joints, stick, anatomy=a).pose for a in (None, stick.anatomy))
    assert torch.equal(own.hand_pose, same.hand_pose)
    twisted = replace(stick.anatomy, mean=stick.anatomy.mean + torch.tensor([0.0, 0.0, 0.2]))
    other = solve_joints(joints, stick, anatomy=twisted).pose
    last = [2, 5, 8, 11]
    more = stick.anatomy.to_anatomical(other.hand_pose - own.hand_pose)[:, last, 2]
    assert ((more > 0.1) & (more < 0.3)).all()


def test_rigid_motion_moves_the_fit_along(stick: HandModel) -> None:
    joints = stick.joints(random_poses(6, seed=3))
    rotation, shift = exp_so3(torch.tensor([0.4, -1.2, 2.0])), torch.tensor([0.5, -0.3, 1.5])
    still = fit_joints(joints, stick)
    moved = fit_joints(joints @ rotation.T + shift, stick)
    expected = still.transformed(rotation, shift, stick.root(still))
    torch.testing.assert_close(stick.joints(moved), stick.joints(expected), atol=1e-4, rtol=0)
    torch.testing.assert_close(moved.hand_pose, still.hand_pose, atol=5e-3, rtol=0)


def test_missing_joints_and_unusable_rows(stick: HandModel) -> None:
    truth = random_poses(5, seed=4)
    joints = stick.joints(truth)
    holes = joints.clone()
    holes[0] = torch.nan  # nothing known
    holes[1, 8] = torch.nan  # a tip missing
    holes[2, [0, 5]] = torch.inf  # palm joints missing
    holes[3, 5:] = torch.nan  # wrist and thumb only
    holes[3, 1:5] = holes[3, 0] + torch.arange(1, 5)[:, None] * torch.tensor([0.02, 0.0, 0.0])  # on a line
    with pytest.warns(UserWarning, match="2 of 5 hands"):
        result = solve_joints(holes, stick)
    assert result.usable.tolist() == [False, True, True, False, True]
    assert torch.equal(result.pose.finite(), result.usable)
    assert torch.equal(result.error.isnan(), ~result.usable)
    assert result.error[[1, 2, 4]].max() < 5e-4
    # The known joints decide; the others follow from the prior and stay plausible.
    assert distances(stick, result.pose[[1, 2]], joints[[1, 2]]).max() < 0.05


def test_weights_silence_an_outlier(stick: HandModel) -> None:
    joints = stick.joints(random_poses(4, seed=5))
    bad, weights = joints.clone(), torch.ones(4, 21)
    bad[:, 12] += 0.1
    weights[:, 12] = 0
    known = [k for k in range(21) if k != 12]
    pose = fit_joints(bad, stick, weights=weights)
    assert distances(stick, pose, joints)[:, known].max() < 1e-3
    assert solve_joints(bad, stick).max_error.min() > 0.01


@pytest.mark.parametrize("noise", [0.004, 0.012])
def test_noisy_joints_give_plausible_hands_without_being_told_the_noise(stick: HandModel, noise: float) -> None:
    generator = torch.Generator().manual_seed(0)
    joints = stick.joints(random_poses(32, seed=6, shape=0.3))
    noisy = joints + noise * torch.randn(joints.shape, generator=generator)
    pose = fit_joints(noisy, stick)
    error = distances(stick, pose, joints).mean()
    assert error < 0.8 * (noisy - joints).norm(dim=-1).mean()
    told = fit_joints(noisy, stick, config=FitConfig(point_sigma=noise))
    assert error < 1.1 * distances(stick, told, joints).mean()
    assert default_anatomy().violation(pose.hand_pose).abs().max() < np.radians(5)
    assert pose.betas.abs().max() < 4


def test_model_with_pose_correctives(stick: HandModel) -> None:
    generator = torch.Generator().manual_seed(2)
    posedirs = 5e-4 * torch.randn(*stick.template.shape, 135, generator=generator)
    corrected = replace(stick, posedirs=posedirs)
    joints = corrected.joints(random_poses(8, seed=12))
    assert solve_joints(joints, corrected).error.max() < 5e-4


def test_twist_that_joints_cannot_see_is_settled_by_the_prior(stick: HandModel) -> None:
    truth = random_poses(8, seed=7)
    anatomy = default_anatomy()
    pose = fit_joints(stick.joints(truth), stick)
    last = [2, 5, 8, 11, 14]  # nothing hangs on the last phalanx but the tip
    twist = anatomy.to_anatomical(pose.hand_pose)[:, last, 2]
    assert (twist >= anatomy.lower[last, 2] - 0.1).all()
    assert (twist <= anatomy.upper[last, 2] + 0.1).all()


def test_vertices_round_trip(stick: HandModel) -> None:
    truth = random_poses(8, seed=8)
    vertices = stick(truth).vertices
    result = solve_vertices(vertices, stick, max_points=200)
    assert result.error.max() < 2e-4
    # Skin fixes what joints leave open: the rotations themselves come back.
    apart = exp_so3(truth.hand_pose).transpose(-1, -2) @ exp_so3(result.pose.hand_pose)
    angle = ((apart.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1).acos()
    assert angle.max() < np.radians(4)
    shape = stick.rest_vertices(result.pose.betas) - stick.rest_vertices(truth.betas)
    assert shape.norm(dim=-1).mean() < 5e-4


def test_vertices_of_left_hands_and_with_missing_rows(stick: HandModel) -> None:
    truth = random_poses(3, seed=9, side="left")
    vertices = stick(truth).vertices
    vertices[0, ::3] = torch.nan
    vertices[2] = torch.nan
    with pytest.warns(UserWarning, match="1 of 3 hands"):
        pose = fit_vertices(vertices, stick, side="left", betas=truth.betas)
    assert pose.side == "left"
    assert (stick(pose[:2]).vertices - stick(truth[:2]).vertices).norm(dim=-1).max() < 5e-4
    assert not pose.finite()[2]


def test_kabsch_recovers_a_rigid_motion_and_never_reflects() -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(5, 7, 3, generator=generator)
    rotation = exp_so3(torch.randn(5, 3, generator=generator))
    shift = torch.randn(5, 3, generator=generator)
    moved = points @ rotation.transpose(1, 2) + shift[:, None]
    found, at = kabsch(points, moved, torch.rand(5, 7, generator=generator) + 0.1)
    torch.testing.assert_close(found, rotation, atol=1e-5, rtol=0)
    torch.testing.assert_close(at, shift, atol=1e-5, rtol=0)
    reflected, _ = kabsch(points, -points, torch.ones(5, 7))
    torch.testing.assert_close(torch.linalg.det(reflected), torch.ones(5), atol=1e-5, rtol=0)


def test_one_hand_numpy_and_empty_batch(stick: HandModel) -> None:
    joints = stick.joints(random_poses(1, seed=10))
    assert len(fit_joints(joints[0].numpy(), stick)) == 1
    assert len(fit_joints(joints, stick)) == 1
    assert len(fit_joints(torch.zeros(0, 21, 3), stick)) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints": torch.zeros(2, 20, 3)}, r"joints: got shape \(2, 20, 3\)"),
        ({"joints": "nonsense"}, "joints: not an array"),
        ({"scale": 1000.0}, "joints: .*millimetres"),
        ({"side": "both"}, "side: got 'both'"),
        ({"weights": torch.ones(3, 21)}, "weights: got shape"),
        ({"weights": -torch.ones(2, 21)}, "weights: negative"),
        ({"betas": torch.zeros(2, 9)}, "betas: got shape"),
        ({"betas": torch.full((10,), torch.nan)}, "betas: .*finite"),
    ],
)
def test_bad_arguments_are_named(stick: HandModel, change: dict, message: str) -> None:
    joints = change.pop("joints", stick.joints(random_poses(2)))
    scale = change.pop("scale", None)
    with pytest.raises(ValueError, match=message):
        fit_joints(joints if scale is None else joints * scale, stick, **change)


def test_vertices_of_another_topology_are_refused(stick: HandModel) -> None:
    with pytest.raises(ValueError, match=r"vertices: got shape \(1, 778, 3\).*'stick'"):
        fit_vertices(torch.zeros(1, 778, 3), stick)


def test_open_hand_round_trip(open_hand: HandModel) -> None:
    truth = random_poses(16, seed=11)
    hand = open_hand(truth)
    assert solve_joints(hand.joints, open_hand).error.max() < 5e-4
    result = solve_vertices(hand.vertices[:3], open_hand)
    assert result.error.max() < 5e-4


def test_measured_joints(open_hand: HandModel, validation_folder: Path) -> None:
    with np.load(validation_folder / "dexycb_val.npz", allow_pickle=False) as data:
        joints = torch.as_tensor(data["joints"])
    result = solve_joints(joints, open_hand)
    assert result.usable.all()
    assert result.error.median() < 2e-3
    assert result.max_error.median() < 5e-3
    assert result.pose.betas.abs().max() < 4
    excess = default_anatomy().violation(result.pose.hand_pose)
    assert (excess.abs() < np.radians(3)).float().mean() > 0.99
    mean_shape = solve_joints(joints[::8], open_hand, betas=torch.zeros(10))
    assert mean_shape.error.median() < 2e-3
    assert not mean_shape.pose.betas.any()
