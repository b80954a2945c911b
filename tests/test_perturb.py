"""Noise protocols: their statistics, on the open hand in poses of the grasping prior."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from contact.input_error import POSE_UNIT, InputError
from contact.perturb import PROTOCOLS, perturb, protocol
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.anatomy import default_anatomy
from hand_models.rotations import exp_so3, log_so3

COUNT = 1500


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def pose() -> HandPose:
    generator = torch.Generator().manual_seed(0)
    return HandPose(
        "right", torch.randn(COUNT, 3, generator=generator), default_anatomy().sample(COUNT, generator),
        torch.randn(COUNT, 10, generator=generator), 0.1 * torch.randn(COUNT, 3, generator=generator),
    )  # fmt: skip


def turn(noisy: HandPose, pose: HandPose) -> Tensor:
    """(B, 3) world rotation vector that the noise turned the wrist by."""
    return log_so3(exp_so3(noisy.global_orient) @ exp_so3(pose.global_orient).transpose(1, 2))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", sorted(name for name, noise in PROTOCOLS.items() if noise.along is None))
def test_statistics(pose: HandPose, name: str, side: str) -> None:
    """Mean zero and the stated deviation on every axis, 1500 draws: 10 % is five standard errors."""
    noise = PROTOCOLS[name]
    pose = replace(pose, side=side)
    noisy = perturb(pose, name, seed=3)
    given, found = (default_anatomy().to_anatomical(p.hand_pose, side=side) for p in (pose, noisy))
    bend = found - given
    unit = noise.pose * torch.tensor(POSE_UNIT)
    for change, std in (
        (noisy.transl - pose.transl, torch.full((3,), noise.translation)),
        (turn(noisy, pose), torch.full((3,), noise.rotation)),
        *((bend[:, joint], unit) for joint in range(15)),
    ):
        if std.max() == 0:
            assert change.abs().max() < 2e-6
            continue
        torch.testing.assert_close(change.std(0), std, rtol=0.1, atol=0)
        assert (change.mean(0).abs() < 5 * std / COUNT**0.5).all()
        correlation = torch.corrcoef(change.T) - torch.eye(3)
        assert correlation.abs().max() < 0.13
    assert torch.equal(noisy.betas, pose.betas)
    assert noisy.side == side


def test_published_protocols() -> None:
    """The numbers of the papers, so that they cannot drift."""
    assert PROTOCOLS["contactopt"] == InputError(0.05, 0.1, 0.5)
    assert PROTOCOLS["image"] == InputError(0.02, 0.1, 0.3)
    assert [PROTOCOLS[f"toch-{n}"] for n in ("t1", "t2", "r3", "r5", "b1", "b2")] == [
        InputError(0.01, 0, 0), InputError(0.02, 0, 0), InputError(0, 0, 0.3), InputError(0, 0, 0.5),
        InputError(0.01, 0.05, 0.3), InputError(0.02, 0.1, 0.5),
    ]  # fmt: skip
    assert PROTOCOLS["none"] == InputError(0, 0, 0)


@pytest.mark.parametrize(
    ("name", "published"), [("toch-r3", 4.6), ("toch-r5", 7.5), ("toch-t1", 16.0), ("toch-t2", 31.9)]
)
def test_displacement_is_tochs(model: HandModel, pose: HandPose, name: str, published: float) -> None:
    """Mean joint error in millimetres within a fifth of what TOCH reports on GRAB."""
    moved = model.joints(perturb(pose, name)) - model.joints(pose)
    assert 1000 * float(moved.norm(dim=-1).mean()) == pytest.approx(published, rel=0.2)


def test_rotation_is_about_the_wrist(model: HandModel, pose: HandPose) -> None:
    noisy = perturb(pose[:50], InputError(0.0, 0.5, 0.0))
    before, after = model.joints(pose[:50]), model.joints(noisy)
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert (after[:, 9] - before[:, 9]).norm(dim=-1).mean() > 0.02


def test_none_changes_nothing(model: HandModel, pose: HandPose) -> None:
    same = perturb(pose, "none", seed=5)
    for name in ("hand_pose", "betas", "transl"):
        assert torch.equal(getattr(same, name), getattr(pose, name))
    torch.testing.assert_close(model.joints(same), model.joints(pose), atol=2e-6, rtol=0)


def test_seeds(pose: HandPose) -> None:
    few = pose[:5]

    def flat(p: HandPose) -> Tensor:
        return torch.cat([p.global_orient, p.hand_pose.flatten(1), p.transl], 1)

    torch.manual_seed(1)
    first = flat(perturb(few, "contactopt", seed=1))
    torch.manual_seed(2)  # the global generator has no say
    assert torch.equal(first, flat(perturb(few, PROTOCOLS["contactopt"], seed=1)))
    assert (first - flat(perturb(few, "contactopt", seed=2))).abs().min() > 0
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(first, flat(perturb(few, "contactopt", seed=generator)))
    assert (first - flat(perturb(few, "contactopt", seed=generator))).abs().min() > 0  # it goes on
    # Protocols of one seed share their draws: the same directions, other sizes.
    small, large = (perturb(few, f"toch-t{k}", seed=1).transl - few.transl for k in (1, 2))
    torch.testing.assert_close(2 * small, large, atol=1e-6, rtol=1e-4)


def test_scale(pose: HandPose) -> None:
    few, scale = pose[:4], torch.tensor([0.0, 1.0, 2.0, 0.5])
    plain, scaled = perturb(few, "contactopt", seed=1), perturb(few, "contactopt", seed=1, scale=scale)
    for name, shape in (("transl", (4, 1)), ("hand_pose", (4, 1, 1))):
        change = getattr(plain, name) - getattr(few, name)
        actual = getattr(scaled, name) - getattr(few, name)
        torch.testing.assert_close(actual, change * scale.reshape(shape), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(turn(scaled, few), turn(plain, few) * scale[:, None], atol=2e-6, rtol=1e-4)
    for wrong in (torch.ones(3), torch.ones(4, 1), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"scale.*\(4,\)"):
            perturb(few, "contactopt", scale=wrong)


def test_precision_follows_the_pose(pose: HandPose) -> None:
    double = perturb(pose[:3].to(torch.float64), "image", seed=1)
    assert double.transl.dtype == double.hand_pose.dtype == torch.float64
    torch.testing.assert_close(double.transl.float(), perturb(pose[:3], "image", seed=1).transl)


def test_unknown_protocol(pose: HandPose) -> None:
    assert protocol("image") is PROTOCOLS["image"]
    for call in (lambda: protocol("contact-opt"), lambda: perturb(pose, "contact-opt")):
        with pytest.raises(ValueError, match=r"protocol: 'contact-opt'.*contactopt.*none"):
            call()
