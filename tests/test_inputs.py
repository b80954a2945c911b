"""What users hand in: every accepted form gives the same hands, and mistakes name the argument and the mend."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose, load_open_hand
from refine.evidence.inputs import as_hand_pose, as_object_pose, out_of_reach


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def hands() -> HandPose:
    """Three hands as people hold things."""
    g = torch.Generator().manual_seed(0)
    bend = torch.zeros(3, 15, 3)
    bend[:, :12, 2] = 0.4 + 0.2 * torch.rand(3, 12, generator=g)
    orient, transl = 0.5 * torch.randn(3, 3, generator=g), 0.1 * torch.randn(3, 3, generator=g)
    return HandPose("right", orient, bend, 0.5 * torch.randn(3, 10, generator=g), transl)


def vector(hands: HandPose, betas: bool) -> torch.Tensor:
    parts = [hands.global_orient, hands.hand_pose.flatten(1), *([hands.betas] if betas else []), hands.transl]
    return torch.cat(parts, 1)


def assert_equal(a: HandPose, b: HandPose) -> None:
    assert a.side == b.side
    for name, value in a.as_arrays().items():
        np.testing.assert_array_equal(value, b.as_arrays()[name])


# Forms of hands -------------------------------------------------------------------------------------


def test_a_hand_pose_is_taken_as_it_is(model, hands):
    assert_equal(as_hand_pose(hands, model), hands)
    left = replace(hands, side="left")
    assert_equal(as_hand_pose(left, model, "right"), left)  # it knows its side


def test_doubles_and_tracked_tensors_become_plain_floats(model, hands):
    wide = hands.to(torch.float64)
    tracked = replace(wide, transl=wide.transl.clone().requires_grad_())
    taken = as_hand_pose(tracked, model)
    assert_equal(taken, hands)
    assert not taken.transl.requires_grad


def test_dictionaries(model, hands):
    arrays = hands.as_arrays()
    assert_equal(as_hand_pose(arrays, model), hands)
    flat = {name: value[0].ravel() for name, value in arrays.items()}
    assert_equal(as_hand_pose(flat, model), hands[0])
    lists = {name: value.tolist() for name, value in flat.items()}
    assert_equal(as_hand_pose(lists, model), hands[0])
    assert as_hand_pose({**arrays, "side": "left"}, model).side == "left"
    assert as_hand_pose(arrays, model, "left").side == "left"
    bare = as_hand_pose({n: arrays[n] for n in ("global_orient", "hand_pose")}, model)
    assert bare.transl.abs().max() == bare.betas.abs().max() == 0


@pytest.mark.parametrize("convert", [torch.Tensor.clone, torch.Tensor.numpy, torch.Tensor.tolist])
def test_vectors_of_61_and_51(model, hands, convert):
    assert_equal(as_hand_pose(convert(vector(hands, betas=True)), model), hands)
    assert_equal(as_hand_pose(convert(vector(hands, betas=True)[1]), model), hands[1])
    without = replace(hands, betas=torch.zeros_like(hands.betas))
    assert_equal(as_hand_pose(convert(vector(hands, betas=False)), model), without)
    assert as_hand_pose(convert(vector(hands, betas=False)[0]), model, "left").side == "left"


@pytest.mark.parametrize("side", ["right", "left"])
def test_joints_are_fitted(model, hands, side):
    given = hands if side == "right" else hands.mirrored()
    joints = model.joints(given)
    fitted = as_hand_pose(joints, model, side)
    assert fitted.side == side
    assert (model.joints(fitted) - joints).norm(dim=-1).mean() < 1e-3
    one = as_hand_pose(joints[0].double().numpy(), model, side)
    assert len(one) == 1
    assert (model.joints(one) - joints[:1]).norm(dim=-1).mean() < 1e-3


def test_joints_with_a_gap_become_a_hand_of_nan(model, hands):
    joints = model.joints(hands).clone()
    joints[1, 7, 2] = torch.nan
    pose = as_hand_pose(joints, model)
    assert pose.finite().tolist() == [True, False, True]
    assert (model.joints(pose)[[0, 2]] - joints[[0, 2]]).norm(dim=-1).mean() < 1e-3
    assert not as_hand_pose(torch.full((21, 3), torch.inf), model).finite().any()


# Mistakes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"hand_pose: got NoneType; pass a HandPose, a dict"),
        ("hand.npz", r"hand_pose: got str; pass"),
        (object(), r"hand_pose: got object, not an array of numbers; pass"),
        ([[0.0, 1.0], [2.0]], r"hand_pose: got list, not an array of numbers; pass"),
        (np.zeros(48), r"hand_pose: got shape \(48,\); pass"),
        (np.zeros((2, 3, 51)), r"hand_pose: got shape \(2, 3, 51\); pass"),
        (np.zeros((16, 3)), r"hand_pose: got shape \(16, 3\); pass .*joints \(21, 3\)"),
        (np.zeros((0, 51)), r"hand_pose: holds no hands"),
        (np.zeros(()), r"hand_pose: got shape \(\); pass"),
        ({"hand_pose": np.zeros(45)}, r"hand_pose: field 'global_orient' is missing"),
        ({"global_orient": np.zeros(3), "hand_pose": np.zeros(42)}, r"hand_pose: got shape \(42,\); expected"),
        ({"global_orient": np.zeros(3), "hand_pose": np.zeros(45), "trans": np.zeros(3)}, r"unknown field 'trans'"),
        ({"global_orient": "x", "hand_pose": np.zeros(45)}, r"global_orient: not an array of numbers"),
        ({"global_orient": np.zeros((2, 3)), "hand_pose": np.zeros((3, 45))}, r"hand_pose: batch sizes differ"),
    ],
)  # fmt: skip
def test_wrong_hands_are_named(model, value, message):
    with pytest.raises(ValueError, match=message):
        as_hand_pose(value, model)


@pytest.mark.parametrize("value", [np.zeros(51), {"global_orient": np.zeros(3), "hand_pose": np.zeros(45)}])
def test_an_unknown_side_is_named(model, value):
    with pytest.raises(ValueError, match=r"side: got 'both'; pass 'right' or 'left'"):
        as_hand_pose(value, model, "both")
    with pytest.raises(ValueError, match=r"side: got 'Right'"):
        as_hand_pose({"global_orient": np.zeros(3), "hand_pose": np.zeros(45), "side": "Right"}, model)


def test_joints_in_millimetres_are_noticed(model, hands):
    with pytest.raises(ValueError, match=r"hand_pose: joints: .*millimetres: divide by 1000"):
        as_hand_pose(1000 * model.joints(hands), model)


# Object pose ----------------------------------------------------------------------------------------


def pose_matrix(seed: int = 0) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    matrix[:3, :3] *= np.sign(np.linalg.det(matrix[:3, :3]))
    matrix[:3, 3] = [0.1, 0.0, 0.7]
    return matrix


@pytest.mark.parametrize("convert", [np.asarray, np.ndarray.tolist, torch.from_numpy])
def test_object_pose_is_repeated_over_the_hands(convert):
    poses = as_object_pose(convert(pose_matrix()), 3)
    assert poses.shape == (3, 4, 4)
    np.testing.assert_allclose(poses[2].numpy(), pose_matrix(), atol=1e-6)
    many = np.stack([pose_matrix(k) for k in range(3)])
    np.testing.assert_allclose(as_object_pose(convert(many), 3)[1].numpy(), many[1], atol=1e-6)


def scaled() -> np.ndarray:
    matrix = pose_matrix()
    matrix[:3, :3] *= 0.001
    return matrix


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.eye(3), r"object_pose: got shape \(3, 3\); expected \(4, 4\) or \(2, 4, 4\)"),
        (np.tile(np.eye(4), (3, 1, 1)), r"object_pose: got shape \(3, 4, 4\)"),
        ("camera", r"object_pose: not numbers"),
        (np.full((4, 4), np.nan), r"object_pose: holds NaN"),
        (scaled(), r"object_pose: its 3×3 part is not a rotation; .*scale the mesh"),
        (np.diag([-1.0, 1, 1, 1]), r"object_pose: its 3×3 part is not a rotation"),
        (pose_matrix().T, r"object_pose: its last row .*transpose"),
    ],
)
def test_wrong_object_poses_are_named(value, message):
    with pytest.raises(ValueError, match=message):
        as_object_pose(value, 2)


# Reach ----------------------------------------------------------------------------------------------


def test_hands_out_of_reach_are_a_mistake_of_unit_or_frame(model, hands):
    cube = ObjectMesh.from_any(trimesh.creation.box((0.12,) * 3), resolution=8, cache=False)
    assert out_of_reach(hands, model, cube) == {}
    far = replace(hands, transl=hands.transl + torch.tensor([0.0, 0.0, 3.0]))
    found = out_of_reach(far, model, cube)
    assert list(found) == [0, 1, 2]
    assert re.match(r"the hand is 2\.\d m away.*metres.*object_pose", found[0])
    one_near = replace(hands, transl=torch.stack([far.transl[0], hands.transl[1], far.transl[2]]))
    assert list(out_of_reach(one_near, model, cube)) == [0, 2]
    assert out_of_reach(replace(hands, transl=torch.full((3, 3), torch.nan)), model, cube) == {}
