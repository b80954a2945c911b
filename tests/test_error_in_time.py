"""Errors in time: white or a drift, told apart on motions of either; gaps and garbage; when a hand holds."""

from __future__ import annotations

import pytest
import torch

from contact.perturb import PROTOCOLS, WALK, perturb
from hand_models import HandPose, load_open_hand
from refine.evidence.error_in_time import judged_error, level_and_change, white_shares
from refine.evidence.gaps import filled_in, missing_frames
from refine.solve.holding import holding, nearness

LENGTH = 120


def motion() -> HandPose:
    """A hand on its way there and back, turning."""
    at = torch.linspace(0, 2 * torch.pi, LENGTH)
    move = torch.zeros(LENGTH, 51)
    move[:, 0], move[:, 4], move[:, 20] = 0.2 * at.sin(), 0.5 * at.cos(), 0.3 * at.sin()
    return HandPose.zeros(LENGTH).retract(move)


VARIANCE = (0.02**2, 0.1**2, (0.3 * 0.255) ** 2)  # of the protocol image


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_white_noise_and_drifts_are_told_apart(seed: int) -> None:
    white = white_shares(perturb(motion(), "image", seed=seed), VARIANCE)
    drift = white_shares(perturb(motion(), "image", seed=seed, correlation=WALK), VARIANCE)
    assert min(white.place, white.turn, white.bend) > 0.8
    assert max(drift.place, drift.turn, drift.bend) < 0.2


def test_an_unstated_error_is_what_is_white_of_it() -> None:
    judged, true = judged_error(perturb(motion(), "image", seed=3)), PROTOCOLS["image"]
    assert judged.translation == pytest.approx(true.translation, rel=0.25)
    assert judged.rotation == pytest.approx(true.rotation, rel=0.25)
    assert judged.pose == pytest.approx(true.pose, rel=0.25)
    still = judged_error(motion())
    assert (still.translation, still.rotation, still.pose) == (0.0, 0.0, 0.0)


def test_walks_keep_the_standard_deviation_and_last() -> None:
    many = HandPose.zeros(4000)
    off = perturb(many, "toch-t1", seed=0, correlation=WALK).transl
    assert off.std() == pytest.approx(0.01, rel=0.1)
    for steps in (1, 10):
        together = (off[steps:] * off[:-steps]).mean() / off.square().mean()
        assert together == pytest.approx(WALK**steps, abs=0.08)
    assert torch.equal(perturb(many, "image", seed=5, correlation=0.0).transl, perturb(many, "image", seed=5).transl)
    with pytest.raises(ValueError, match="correlation"):
        perturb(many, "image", correlation=1.0)


def test_mixed_errors_lie_between() -> None:
    (white, none), (drift, change) = level_and_change(1.0), level_and_change(0.0)
    level, mixed = level_and_change(0.5)
    assert drift < level < white
    assert none < mixed < change


def test_gaps_are_found_and_filled() -> None:
    model, true = load_open_hand(), motion()
    broken = true.map(torch.clone)
    broken.transl[[0, 30, 31, 119]] = torch.nan
    broken.transl[60] += 0.5  # jumps
    broken.global_orient[80] += 2.5
    gone = missing_frames(broken, model)
    assert gone.nonzero()[:, 0].tolist() == [0, 30, 31, 60, 80, 119]
    whole = filled_in(broken, gone)
    off = (model.joints(whole) - model.joints(true)).norm(dim=2).mean(1)
    assert off.max() < 0.015  # as far as the ends are from their neighbours
    assert off[~gone].max() == 0
    assert torch.equal(whole.transl[0], true.transl[1])
    with pytest.raises(ValueError, match="every frame"):
        filled_in(true, torch.ones(LENGTH, dtype=torch.bool))


def test_noise_is_no_garbage() -> None:
    model = load_open_hand()
    for seed in range(3):
        assert not missing_frames(perturb(motion(), "image", seed=seed), model).any()


def test_holding_asks_for_nearness_and_rest() -> None:
    at = torch.arange(90)
    held = (at >= 30) & (at < 60)
    distance = torch.where(held, -0.003, 0.06) + 0.004 * torch.randn(90, generator=torch.Generator().manual_seed(0))
    still = torch.zeros(90, 3)
    moving = torch.stack([0.03 * torch.cumsum((~held).float(), 0), *[torch.zeros(90)] * 2], 1)
    std = torch.full((90,), 0.005)
    probability = holding(nearness(distance, std), moving, 0.0)
    differ = ((probability > 0.5) != held).nonzero()[:, 0]
    assert all(min(abs(int(t) - 30), abs(int(t) - 60)) <= 3 for t in differ)  # speed is taken over that many frames
    far = nearness(torch.full((90,), 0.3), std)
    assert holding(far, still, 0.0).max() < 0.01  # at rest, far away
    brushing = torch.stack([0.03 * at, *[torch.zeros(90)] * 2], 1)
    near = nearness(torch.full((90,), 0.004), torch.full((90,), 0.03))
    assert holding(near, brushing, 0.0).mean() < holding(near, still, 0.0).mean()
    assert holding(near, still, 0.0).min() > 0.5
    known = torch.full((90,), torch.nan)
    known[40:50], known[60] = 0, 1
    told = holding(near, still, 0.0, known=known)
    assert (told[40:50] == 0).all()
    assert told[60] == 1
    assert told[38] < holding(near, still, 0.0)[38]  # what is known of a frame says something of those beside it
    assert told[65] > 0.5
