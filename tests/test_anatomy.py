"""Anatomical axes, ranges of motion and prior: geometry, mirroring, and human grasps within the range."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hand_models.anatomy import FINGERS, JOINT_NAMES, build_anatomy, default_anatomy, default_skeleton, from_anatomical
from hand_models.open_hand import load_open_hand
from hand_models.pose import HandPose
from hand_models.rotations import exp_so3, mirror_axis_angle

PALMAR = torch.tensor([0.0, -1.0, 0.0])
RADIAL = torch.tensor([0.0, 0.0, 1.0])
OPENPOSE_START = {"thumb": 1, "index": 5, "middle": 9, "ring": 13, "pinky": 17}


def bone_of(name: str) -> torch.Tensor:
    """Unit direction at rest of the bone that turns with joint ``name``."""
    start = OPENPOSE_START[name[:-1]] + int(name[-1]) - 1
    bone = default_skeleton()[start + 1] - default_skeleton()[start]
    return bone / bone.norm()


def turned(joint: int, axis: int, angle: float) -> torch.Tensor:
    """The joint's bone after a rotation of ``angle`` about one of its anatomical axes."""
    angles = torch.zeros(15, 3)
    angles[joint, axis] = angle
    return exp_so3(from_anatomical(angles)[joint]) @ bone_of(JOINT_NAMES[joint])


def test_basis_is_a_rotation_with_twist_along_the_bone() -> None:
    basis = default_anatomy().basis
    torch.testing.assert_close(basis @ basis.transpose(1, 2), torch.eye(3).expand(15, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(basis), torch.ones(15), atol=1e-6, rtol=0)
    for joint, name in enumerate(JOINT_NAMES):
        torch.testing.assert_close(basis[joint, 2], bone_of(name), atol=1e-6, rtol=0)


def test_joint_order_is_manos() -> None:
    assert FINGERS == ("index", "middle", "pinky", "ring", "thumb")
    assert JOINT_NAMES[:4] == ("index1", "index2", "index3", "middle1")


@pytest.mark.parametrize("joint", range(12))
def test_fingers_flex_to_the_palm_and_abduct_to_the_thumb(joint: int) -> None:
    bone = bone_of(JOINT_NAMES[joint])
    assert turned(joint, 0, 0.5) @ PALMAR > bone @ PALMAR + 0.3
    assert turned(joint, 1, 0.5) @ RADIAL > bone @ RADIAL + 0.3
    torch.testing.assert_close(turned(joint, 2, 0.5), bone, atol=1e-6, rtol=0)


def test_thumb_flexes_across_the_palm_and_abducts_out_of_it() -> None:
    base = JOINT_NAMES.index("thumb1")
    bone = bone_of("thumb1")
    across, out = turned(base, 0, 0.5) - bone, turned(base, 1, 0.5) - bone
    assert across @ RADIAL < -0.2  # towards the fingers
    assert out @ PALMAR > 0.3
    for name in ("thumb2", "thumb3"):  # the pulp closes on the palm
        moved = turned(JOINT_NAMES.index(name), 0, 0.5) - bone_of(name)
        assert moved @ PALMAR > 0.1
        assert moved @ RADIAL < -0.1


def test_bent_fingers_converge() -> None:
    """A fist's fingertips come together: less apart across the palm than the knuckles are."""
    skeleton, angles = default_skeleton(), default_anatomy()
    flexion = torch.zeros(15, 3)
    flexion[:12, 0] = 1.2
    flexion[[0, 3, 6, 9], 1] = -angles.rest[[0, 3, 6, 9], 1]  # fingers side by side
    tips = []
    for finger in ("index", "pinky"):
        rotation, point = torch.eye(3), skeleton[OPENPOSE_START[finger]]
        for k in range(3):
            joint = JOINT_NAMES.index(f"{finger}{k + 1}")
            rotation = rotation @ exp_so3(from_anatomical(flexion)[joint])
            start = OPENPOSE_START[finger] + k
            point = point + rotation @ (skeleton[start + 1] - skeleton[start])
        tips.append(point)
    knuckles = skeleton[[OPENPOSE_START["index"], OPENPOSE_START["pinky"]]]
    assert (tips[0] - tips[1])[2] < 0.75 * (knuckles[0] - knuckles[1])[2]


def test_thumb_axis_agrees_with_the_bend_of_its_bones() -> None:
    bend = torch.linalg.cross(bone_of("thumb1"), bone_of("thumb2"))
    axis = default_anatomy().basis[JOINT_NAMES.index("thumb2"), 0]
    assert torch.rad2deg((bend / bend.norm() @ axis).acos()) < 4


def test_conversion_round_trip_and_norm() -> None:
    pose = torch.randn(4, 2, 15, 3)
    angles = default_anatomy().to_anatomical(pose)
    torch.testing.assert_close(from_anatomical(angles), pose, atol=1e-5, rtol=0)
    torch.testing.assert_close(angles.norm(dim=-1), pose.norm(dim=-1), atol=1e-5, rtol=0)


def test_left_hand_has_the_angles_of_its_mirror_image() -> None:
    pose = torch.randn(3, 15, 3)
    mirrored = mirror_axis_angle(pose)
    torch.testing.assert_close(
        default_anatomy().to_anatomical(mirrored, side="left"), default_anatomy().to_anatomical(pose)
    )
    torch.testing.assert_close(
        from_anatomical(default_anatomy().to_anatomical(mirrored, side="left"), side="left"), mirrored
    )
    anatomy = default_anatomy()
    torch.testing.assert_close(anatomy.clamp(mirrored, side="left"), mirror_axis_angle(anatomy.clamp(pose)))


def test_limits_hold_the_zero_pose_and_the_prior() -> None:
    anatomy = default_anatomy()
    lower, upper = anatomy.lower, anatomy.upper
    assert (lower < 0).all()
    assert (upper > 0).all()
    assert ((anatomy.mean > lower) & (anatomy.mean < upper)).all()
    assert (anatomy.std > 0).all()
    # Wide enough to keep most of the prior: one standard deviation either way.
    assert ((anatomy.mean - anatomy.std > lower) & (anatomy.mean + anatomy.std < upper)).all()
    # Flexion reaches at least 90° at every finger joint, and hardly bends backwards beyond the knuckles.
    degrees = torch.rad2deg(upper + anatomy.rest)[:12, 0]
    assert (degrees >= 90 - 1e-3).all()
    assert (torch.rad2deg(lower + anatomy.rest)[[1, 2, 4, 5, 7, 8, 10, 11], 0] >= -20.01).all()


def test_clamp_and_violation() -> None:
    anatomy = default_anatomy()
    pose = torch.randn(64, 15, 3) * 1.5
    clamped = anatomy.clamp(pose)
    assert anatomy.violation(clamped).abs().max() < 1e-5
    torch.testing.assert_close(
        default_anatomy().to_anatomical(pose),
        default_anatomy().to_anatomical(clamped) + anatomy.violation(pose),
        atol=1e-5,
        rtol=0,
    )
    inside = anatomy.sample(64, torch.Generator().manual_seed(0))
    torch.testing.assert_close(anatomy.clamp(inside), inside, atol=1e-5, rtol=0)


def test_sample_follows_the_prior_and_the_seed() -> None:
    anatomy = default_anatomy()
    draws = [anatomy.sample(4000, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*draws)
    angles = default_anatomy().to_anatomical(draws[0])
    # Clamping cuts the tails, so the moments agree only roughly.
    assert ((angles.mean(0) - anatomy.mean).abs() < 0.15 * anatomy.std).all()
    assert ((angles.std(0) / anatomy.std - 1).abs() < 0.2).all()


def test_anatomy_of_a_model_is_the_default_on_its_skeleton() -> None:
    """The open hand is laid on the same skeleton to a degree, but its fingertips are its own."""
    basis, own = default_anatomy().basis, load_open_hand().anatomy.basis
    not_last = [k for k, name in enumerate(JOINT_NAMES) if not name.endswith("3")]
    torch.testing.assert_close(own[not_last], basis[not_last], atol=0.02, rtol=0)
    cosine = (own[:, 2] * basis[:, 2]).sum(-1)
    assert cosine.min() > np.cos(np.radians(15))


def test_another_hand_has_its_own_anatomy() -> None:
    """That of its joints at rest: the same in another size and on the other side, another for other fingers."""
    model = load_open_hand()
    own = model.anatomy
    larger = replace(model, template=1.3 * model.template).anatomy
    torch.testing.assert_close(larger.basis, own.basis, atol=1e-5, rtol=0)
    left = model.mirrored().anatomy
    for part in fields(own):
        torch.testing.assert_close(getattr(left, part.name), getattr(own, part.name), atol=1e-5, rtol=0)
    turn = exp_so3(torch.tensor([0.0, 0.5, 0.0]))  # fingers that point half a radian to the side
    turned = replace(model, template=model.template @ turn.T).anatomy
    twist = own.basis[:, 2] @ turn.T
    torch.testing.assert_close(turned.basis[:, 2], twist, atol=1e-5, rtol=0)
    assert (turned.basis[:, 2] - own.basis[:, 2]).norm(dim=1).min() > 0.1
    joints = model.joints(HandPose.zeros(1))[0]
    torch.testing.assert_close(own.basis, build_anatomy(joints).basis)


def test_mean_of_the_prior_curls_on_the_model() -> None:
    model = load_open_hand()
    pose = HandPose.from_arrays({"global_orient": torch.zeros(3), "hand_pose": from_anatomical(default_anatomy().mean)})
    flat, curled = model.joints(HandPose.zeros(1))[0], model.joints(pose)[0]
    tips = [8, 12, 16, 20]
    assert ((curled - flat)[tips] @ PALMAR > 0.02).all()
    assert (curled[4] - flat[4]) @ PALMAR > 0.01


def test_size_and_type_do_not_matter() -> None:
    small = build_anatomy(default_skeleton() * 0.5 + 1.0)
    for field in fields(small):
        torch.testing.assert_close(
            getattr(small, field.name), getattr(default_anatomy(), field.name), atol=1e-4, rtol=0
        )
    double = default_anatomy().to(torch.float64)
    assert double.to_anatomical(torch.zeros(15, 3, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: default_anatomy().to_anatomical(torch.zeros(45)), r"hand_pose: got shape \(45,\)"),
        (lambda: from_anatomical(torch.zeros(2, 15)), r"angles: got shape"),
        (lambda: default_anatomy().to_anatomical(torch.zeros(15, 3), side="top"), "side: got 'top'"),
        (lambda: build_anatomy(torch.zeros(16, 3)), "rest_joints: got shape"),
        (lambda: build_anatomy(torch.full((21, 3), torch.nan)), "rest_joints: .*finite"),
        (lambda: build_anatomy(torch.zeros(21, 3)), "rest_joints: .*coincide"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_human_grasps_lie_within_the_range(validation_folder: Path) -> None:
    with np.load(validation_folder / "dexycb_val.npz", allow_pickle=False) as data:
        pose = torch.as_tensor(data["hand_pose"], dtype=torch.float32)
    anatomy = default_anatomy()
    inside = anatomy.violation(pose) == 0
    assert inside.float().mean() > 0.995
    assert inside.float().mean(0).min() > 0.98  # and of every single angle
    z = (default_anatomy().to_anatomical(pose) - anatomy.mean) / anatomy.std
    assert 0.6 < z.pow(2).mean().sqrt() < 1.4  # the prior is neither wishful nor empty
