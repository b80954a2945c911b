"""`HandPose`: constructors and their errors, batches, mirror, rigid motion, and the manifold's axioms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from synthetic_hand import random_hand, random_pose
from torch import Tensor

from hand_models.fit import fit_joints
from hand_models.open_hand import load_open_hand
from hand_models.pose import HandPose
from hand_models.rotations import exp_so3

FIELDS = ("global_orient", "hand_pose", "betas", "transl")
FLIP = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)


def arrays(batch: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "global_orient": rng.normal(size=(batch, 3)),
        "hand_pose": rng.normal(size=(batch, 15, 3)),
        "betas": rng.normal(size=(batch, 10)),
        "transl": rng.normal(size=(batch, 3)),
    }


def same_pose(a: HandPose, b: HandPose, atol: float = 1e-12) -> None:
    """Equal as poses: rotations compared as matrices, since an axis-angle vector is not unique."""
    assert a.side == b.side
    torch.testing.assert_close(exp_so3(a.global_orient), exp_so3(b.global_orient), atol=atol, rtol=0)
    for name in ("hand_pose", "betas", "transl"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=atol, rtol=0)


# Constructors -------------------------------------------------------------------------------------


def test_from_arrays_takes_every_layout() -> None:
    values = arrays()
    pose = HandPose.from_arrays(values, side="left")
    assert pose.side == "left"
    assert len(pose) == 4
    for name in FIELDS:
        assert getattr(pose, name).dtype == torch.float32
        np.testing.assert_array_equal(getattr(pose, name), values[name].astype(np.float32))
    flat = values | {"hand_pose": values["hand_pose"].reshape(4, 45), "side": "left"}
    tensors = {k: torch.from_numpy(v) for k, v in values.items()}
    padded = values | {"global_orient": values["global_orient"][:, None]}  # as estimators write it
    for other in (
        flat,
        tensors | {"side": "left"},
        padded | {"side": "left"},
        {**flat, "betas": values["betas"].tolist()},
    ):
        again = HandPose.from_arrays(other)
        assert again.side == "left"
        for name in FIELDS:
            assert torch.equal(getattr(again, name), getattr(pose, name))


def test_from_arrays_one_hand_and_defaults() -> None:
    values = arrays()
    one = HandPose.from_arrays(
        {"global_orient": values["global_orient"][1], "hand_pose": values["hand_pose"][1].ravel()}
    )
    assert len(one) == 1
    assert one.side == "right"
    assert (one.betas == 0).all()
    assert (one.transl == 0).all()
    np.testing.assert_allclose(one.hand_pose[0], values["hand_pose"][1], rtol=1e-6)
    shared = HandPose.from_arrays(values | {"betas": values["betas"][:1], "transl": None})
    np.testing.assert_allclose(shared.betas, np.repeat(values["betas"][:1], 4, 0), rtol=1e-6)
    assert (shared.transl == 0).all()
    empty = HandPose.from_arrays({"global_orient": np.zeros((0, 3)), "hand_pose": np.zeros((0, 45))})
    assert len(empty) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hand_pose": np.zeros((4, 44))}, ["hand_pose", "(4, 44)", "15, 3"]),
        ({"hand_pose": np.zeros((4, 3, 15))}, ["hand_pose", "(4, 3, 15)"]),
        ({"global_orient": np.zeros((4, 4))}, ["global_orient", "(4, 4)"]),
        ({"global_orient": 3.0}, ["global_orient", "()"]),
        ({"betas": np.zeros((4, 9))}, ["betas", "(4, 9)"]),
        ({"transl": np.zeros((3, 3))}, ["batch sizes", "'transl': 3"]),
        ({"hand_pose": np.zeros((1, 45))}, ["batch sizes", "'hand_pose': 1"]),
        ({"global_orient": None}, ["global_orient", "missing"]),
        ({"hand_pose": "fist"}, ["hand_pose", "not an array of numbers"]),
        ({"transl": np.zeros((4, 3), dtype=complex)}, ["transl", "not an array of numbers"]),
        ({"betas": [[1.0], [1.0, 2.0]]}, ["betas", "not an array of numbers"]),
        ({"trans": np.zeros((4, 3))}, ["'trans'", "transl"]),
        ({"side": "Right"}, ["side", "'Right'", "'right' or 'left'"]),
    ],
)  # fmt: skip
def test_from_arrays_names_what_is_wrong(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the words are checked one by one)
        HandPose.from_arrays(arrays() | change)
    for word in words:
        assert word in str(error.value)


def test_from_arrays_without_a_needed_field() -> None:
    with pytest.raises(ValueError, match=r"hand_pose.*missing"):
        HandPose.from_arrays({"global_orient": np.zeros(3)})


def test_direct_construction_checks_too() -> None:
    good = {name: getattr(HandPose.zeros(2), name) for name in FIELDS}
    for name, value, words in (
        ("hand_pose", torch.zeros(2, 45), r"hand_pose.*\(2, 45\)"),
        ("betas", torch.tensor(0.0), r"betas.*\(\)"),
        ("transl", np.zeros((2, 3)), "transl.*ndarray.*from_arrays"),
        ("transl", torch.zeros(3, 3), "batch sizes"),
    ):
        with pytest.raises(ValueError, match=words):
            HandPose("right", **(good | {name: value}))
    with pytest.raises(ValueError, match="side"):
        HandPose("both", **good)


def test_from_pca() -> None:
    rng = np.random.default_rng(0)
    components, mean = rng.normal(size=(45, 45)), rng.normal(size=45)
    coefficients = rng.normal(size=(3, 12))
    expected = coefficients @ components[:12]
    flat = HandPose.from_pca(coefficients, components, mean, flat_hand_mean=True, side="left")
    np.testing.assert_allclose(flat.hand_pose.reshape(3, 45), expected, atol=1e-5)
    assert flat.side == "left"
    full = HandPose.from_pca(coefficients, components, mean, global_orient=np.ones((3, 3)), transl=np.ones(3))
    np.testing.assert_allclose(full.hand_pose.reshape(3, 45), expected + mean, atol=1e-5)
    assert (full.global_orient == 1).all()
    assert (full.transl == 1).all()
    one = HandPose.from_pca(coefficients[0], components, mean)
    torch.testing.assert_close(one.hand_pose, full.hand_pose[:1])


@pytest.mark.parametrize(
    ("coefficients", "components", "mean", "word"),
    [
        (np.zeros((2, 46)), np.eye(45), np.zeros(45), "coefficients: 46"),
        (np.zeros((2, 6, 1)), np.eye(45), np.zeros(45), r"coefficients.*\(2, 6, 1\)"),
        (np.zeros((2, 6)), np.zeros((45, 15)), np.zeros(45), r"components.*\(45, 15\)"),
        (np.zeros((2, 6)), np.eye(45), np.zeros(48), r"mean.*\(48,\)"),
        (np.zeros((2, 6)), np.eye(45), None, "mean"),
    ],
)
def test_from_pca_names_what_is_wrong(coefficients: Any, components: Any, mean: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        HandPose.from_pca(coefficients, components, mean)


def test_from_rotmats() -> None:
    rng = np.random.RandomState(0)
    root, local = (Rotation.random(3, rng).as_matrix(), Rotation.random(45, rng).as_matrix().reshape(3, 15, 3, 3))
    pose = HandPose.from_rotmats(root, local, betas=np.ones((3, 10)), side="left")
    np.testing.assert_allclose(exp_so3(pose.global_orient), root, atol=2e-6)
    np.testing.assert_allclose(exp_so3(pose.hand_pose), local, atol=2e-6)
    assert pose.side == "left"
    assert (pose.betas == 1).all()
    padded = HandPose.from_rotmats(root[:, None], local)  # (B, 1, 3, 3), as estimators write it
    assert torch.equal(padded.global_orient, pose.global_orient)
    one = HandPose.from_rotmats(root[0], local[0])
    assert torch.equal(one.hand_pose, pose.hand_pose[:1])


@pytest.mark.parametrize(
    ("root", "local", "word"),
    [
        (np.eye(3)[None], np.zeros((3, 45)), r"hand_pose.*\(3, 45\)"),  # axis-angle, whose count would fit
        (np.zeros((1, 9)), np.tile(np.eye(3), (1, 15, 1, 1)), r"global_orient.*\(1, 9\)"),
        (np.eye(3)[None], np.tile(2 * np.eye(3), (1, 15, 1, 1)), "hand_pose: not rotation matrices"),
        (-np.eye(3)[None], np.tile(np.eye(3), (1, 15, 1, 1)), "global_orient: not rotation matrices"),
        (np.tile(np.eye(3), (2, 1, 1)), np.tile(np.eye(3), (1, 15, 1, 1)), "batch sizes"),
    ],
)
def test_from_rotmats_names_what_is_wrong(root: Any, local: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        HandPose.from_rotmats(root, local)


def test_fit_joints_finds_the_pose_of_a_left_hand_again() -> None:
    """The open hand is a right one; the fit itself is tested in test_fit.py."""
    model = load_open_hand()
    pose = random_pose(2, dtype=torch.float32).mirrored()
    pose = replace(pose, hand_pose=pose.hand_pose * 0.3, betas=torch.zeros(2, 10))
    fitted = fit_joints(model.joints(pose), model, side="left")
    assert fitted.side == "left"
    assert (model.joints(fitted) - model.joints(pose)).norm(dim=-1).max() < 0.004


# Batches ------------------------------------------------------------------------------------------


def test_indexing_keeps_the_batch_dimension() -> None:
    pose = random_pose(5)
    mask = torch.tensor([True, False, True, False, False])
    for index, rows in (
        (1, [1]), (-1, [4]), (np.int64(2), [2]), (torch.tensor(3), [3]), (np.array(3), [3]), (slice(1, 4), [1, 2, 3]),
        ([3, 0], [3, 0]), ((3, 0), [3, 0]), (range(2), [0, 1]), (torch.tensor([2, 2]), [2, 2]),
        (np.array([4, 1]), [4, 1]), (mask, [0, 2]), (mask.numpy(), [0, 2]), ([], []),
    ):  # fmt: skip
        part = pose[index]
        assert part.side == pose.side
        for name in FIELDS:
            assert torch.equal(getattr(part, name), getattr(pose, name)[torch.tensor(rows, dtype=torch.long)])


def test_cat_and_repeat() -> None:
    pose = random_pose(4)
    for name in FIELDS:
        value = getattr(pose, name)
        assert torch.equal(getattr(HandPose.cat([pose[:1], pose[1:]]), name), value)
        assert torch.equal(getattr(pose[:2].repeat_interleave(2), name), value[[0, 0, 1, 1]])
    with pytest.raises(ValueError, match="one side"):
        HandPose.cat([pose, pose.mirrored()])
    with pytest.raises(ValueError, match="none given"):
        HandPose.cat([])


def test_zeros_to_detach_and_arrays() -> None:
    pose = HandPose.zeros(3, side="left").to(torch.float64)
    assert all(getattr(pose, name).dtype == torch.float64 for name in FIELDS)
    tracked = replace(pose, transl=pose.transl.clone().requires_grad_())
    assert not tracked.detach().transl.requires_grad
    back = HandPose.from_arrays(tracked.as_arrays(), side=pose.side)
    same_pose(back, pose.to(torch.float32))


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_finite(name: str, value: float) -> None:
    pose = random_pose(3)
    assert pose.finite().all()
    broken = getattr(pose, name).clone()
    broken[1].view(-1)[-1] = value
    assert replace(pose, **{name: broken}).finite().tolist() == [True, False, True]


# Geometry -----------------------------------------------------------------------------------------

seeds = st.integers(0, 2**31)
sides = st.sampled_from(["right", "left"])


def motion(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    return exp_so3(draw[0]), draw[1]


@given(seeds, sides)
@settings(max_examples=25, deadline=None)
def test_mirrored_twice_is_the_same(seed: int, side: str) -> None:
    pose = random_pose(2, side=side, seed=seed)
    assert pose.mirrored().side != side
    twice = pose.mirrored().mirrored()
    assert twice.side == side
    for name in FIELDS:
        assert torch.equal(getattr(twice, name), getattr(pose, name))


@given(seeds, sides)
@settings(max_examples=15, deadline=None)
def test_mirrored_flips_the_scene(seed: int, side: str) -> None:
    model, pose = random_hand(), random_pose(2, side=side, seed=seed)
    seen, turned = model(pose), model(pose.mirrored())
    torch.testing.assert_close(turned.vertices, seen.vertices * FLIP)
    torch.testing.assert_close(turned.joints, seen.joints * FLIP)


@given(seeds, seeds, sides)
@settings(max_examples=15, deadline=None)
def test_transformed_moves_the_hand_rigidly(seed: int, other: int, side: str) -> None:
    model, pose = random_hand(), random_pose(2, side=side, seed=seed)
    (rotation, shift), before = motion(other), model(pose)
    after = model(pose.transformed(rotation, shift, model.root(pose)))
    torch.testing.assert_close(after.vertices, before.vertices @ rotation.T + shift)
    torch.testing.assert_close(after.joints, before.joints @ rotation.T + shift)


@given(seeds, seeds, seeds)
@settings(max_examples=25, deadline=None)
def test_transformed_is_a_group_action(seed: int, first: int, second: int) -> None:
    model, pose = random_hand(), random_pose(2, seed=seed)
    root, (ra, ta), (rb, tb) = model.root(pose), motion(first), motion(second)
    one_by_one = pose.transformed(ra, ta, root).transformed(rb, tb, root)
    same_pose(one_by_one, pose.transformed(rb @ ra, rb @ ta + tb, root))
    same_pose(pose.transformed(ra, ta, root).transformed(ra.T, -ra.T @ ta, root), pose)
    same_pose(pose.transformed(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), root), pose)


def test_transformed_takes_a_motion_per_hand() -> None:
    model, pose = random_hand(), random_pose(3)
    root, moves = model.root(pose), [motion(k) for k in range(3)]
    together = pose.transformed(torch.stack([r for r, _ in moves]), torch.stack([t for _, t in moves]), root)
    for k, (rotation, shift) in enumerate(moves):
        same_pose(together[k], pose[k].transformed(rotation, shift, root[k : k + 1]))


@given(seeds, sides, st.sampled_from([51, 61]))
@settings(max_examples=25, deadline=None)
def test_retract(seed: int, side: str, width: int) -> None:
    """Each part of the tangent does what it says; the wrist turns about the root joint in world axes."""
    model, pose = random_hand(), random_pose(2, side=side, seed=seed)
    delta = torch.randn(2, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moved = pose.retract(delta)
    torch.testing.assert_close(moved.transl, pose.transl + delta[:, :3])
    torch.testing.assert_close(exp_so3(moved.global_orient), exp_so3(delta[:, 3:6]) @ exp_so3(pose.global_orient))
    torch.testing.assert_close(moved.hand_pose.flatten(1), pose.hand_pose.flatten(1) + delta[:, 6:51])
    torch.testing.assert_close(moved.betas, pose.betas + (delta[:, 51:] if width == 61 else 0))
    same_pose(pose.retract(torch.zeros_like(delta)), pose)
    turn = torch.zeros_like(delta)
    turn[:, 3:6] = delta[:, 3:6]
    before, after = model(pose), model(pose.retract(turn))
    pivot = (model.root(pose) + pose.transl)[:, None]
    expected = (before.vertices - pivot) @ exp_so3(delta[:, 3:6]).transpose(1, 2) + pivot
    torch.testing.assert_close(after.vertices, expected)
    # The wrist's part is undone by its negative.
    same_pose(pose.retract(turn).retract(-turn), pose)


@given(seeds, sides)
@settings(max_examples=25, deadline=None)
def test_toward(seed: int, side: str) -> None:
    """From the one hand to the other at a constant pace, in the mirror too."""
    model, pose = random_hand(), random_pose(3, side=side, seed=seed)
    other = random_pose(3, side=side, seed=seed + 1)
    share = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    partly = pose.toward(other, share)
    same_pose(partly[[0]], pose[[0]])
    torch.testing.assert_close(model(partly[[2]]).vertices, model(other[[2]]).vertices)
    quarter = partly[[1]]
    for name in ("transl", "betas", "hand_pose"):
        expected = 0.75 * getattr(pose, name)[1] + 0.25 * getattr(other, name)[1]
        torch.testing.assert_close(getattr(quarter, name)[0], expected)
    turn = exp_so3(quarter.global_orient) @ exp_so3(pose.global_orient[[1]]).transpose(1, 2)
    whole = exp_so3(other.global_orient[[1]]) @ exp_so3(pose.global_orient[[1]]).transpose(1, 2)
    torch.testing.assert_close(torch.linalg.matrix_power(turn, 4), whole, atol=1e-6, rtol=0)
    mirrored = pose.mirrored().toward(other.mirrored(), share).mirrored()
    torch.testing.assert_close(model(mirrored).vertices, model(partly).vertices)


@pytest.mark.parametrize("shape", [(2, 50), (2, 52), (2, 60), (51,)])
def test_retract_refuses_other_widths(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="delta"):
        random_pose(2).retract(torch.zeros(shape, dtype=torch.float64))
