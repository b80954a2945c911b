"""Motions of the corpus: the grasp while it holds, away from it before and after, smooth, the same for a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from contact.corpus.motions import Motion, MotionConfig, build_motions, load_motions, make_motion, minimum_jerk
from hand_models import HandPose, load_open_hand

MODEL = load_open_hand()
UP, MIDDLE = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.02, 0.0, 0.05])


def grasp() -> HandPose:
    pose = HandPose.zeros(1)
    pose.hand_pose[:, :12, 2] = 0.5
    return pose


def made(seed: int) -> Motion:
    return make_motion(MODEL, grasp(), MIDDLE, UP, np.random.default_rng(seed), MotionConfig())


@pytest.mark.parametrize("seed", range(6))
def test_a_motion_comes_holds_and_leaves(seed: int) -> None:
    motion = made(seed)
    length, held = len(motion.holding), motion.holding
    assert 40 <= length <= 120
    assert 0.3 < held.float().mean() < 0.7
    off = (MODEL.joints(motion.pose) - MODEL.joints(grasp())).norm(dim=2).mean(1)
    assert off[held].max() < 0.008
    assert min(off[0], off[-1]) > 0.08
    # The object rests until it is held, and after.
    poses = motion.object_pose
    first, last = int(held.nonzero()[0]), int(held.nonzero()[-1])
    assert (poses[: first + 1] - poses[0]).abs().max() < 1e-4
    assert (poses[last:] - poses[-1]).abs().max() < 1e-3
    rotation = poses[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-4, rtol=0)
    haste = MODEL.joints(motion.pose).diff(n=2, dim=0).norm(dim=2).max()
    assert haste < 0.03  # metres a frame²: people's hands stay below


def test_mirrored_motions_are_of_left_hands() -> None:
    motion = made(0)
    left = motion.mirrored()
    assert left.pose.side == "left"
    torch.testing.assert_close(MODEL.joints(left.pose), MODEL.joints(motion.pose) * torch.tensor([-1.0, 1.0, 1.0]))
    camera = (left.object_pose[:, :3, :3] @ (MIDDLE * torch.tensor([-1.0, 1.0, 1.0]))) + left.object_pose[:, :3, 3]
    there = (motion.object_pose[:, :3, :3] @ MIDDLE) + motion.object_pose[:, :3, 3]
    torch.testing.assert_close(camera, there * torch.tensor([-1.0, 1.0, 1.0]), atol=1e-5, rtol=0)


def test_minimum_jerk_rests_at_both_ends() -> None:
    t = torch.linspace(-0.5, 1.5, 401)
    way = minimum_jerk(t)
    assert way[t <= 0].max() == 0
    assert way[t >= 1].min() == 1
    assert float(way.diff().max() / (t[1] - t[0])) == pytest.approx(1.875, rel=1e-3)  # 15/8, halfway


def corpus(folder: Path) -> Path:
    pose = HandPose.cat([grasp(), grasp()])
    arrays = {**pose.as_arrays(), "points": MIDDLE.expand(8, 3).numpy(), "up": UP.numpy(), "family": np.array("box")}
    np.savez(folder / "object_00003.npz", **arrays)
    return folder


def test_files_are_the_same_for_a_recipe(tmp_path: Path) -> None:
    folder = corpus(tmp_path)
    first = build_motions(folder, MotionConfig(count=2))
    assert build_motions(folder, MotionConfig(count=2)) == first
    (folder / "motions_00003.npz").unlink()
    assert build_motions(folder, MotionConfig(count=2)) == first
    motions = load_motions(folder / "object_00003.npz")
    assert len(motions) == 2
    assert all(len(m.pose) == len(m.object_pose) == len(m.holding) for m in motions)
    with pytest.raises(ValueError, match="another recipe"):
        build_motions(folder, MotionConfig(count=1))
