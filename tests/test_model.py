"""Skinning against a plain per-vertex reference, and its Jacobian against autograd and finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from mano_file import write_mano
from scipy.spatial.transform import Rotation
from synthetic_hand import random_hand, random_pose
from torch import Tensor

from hand_models import load_mano, load_open_hand
from hand_models.model import PARENTS, HandModel
from hand_models.point_jacobian import PointJacobian
from hand_models.pose import HandPose
from hand_models.rotations import exp_so3

MODELS = ("open", "random", "random without posedirs", "random left", "mano right", "mano left")
FLIP = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)


def in_double(model: HandModel) -> HandModel:
    """In double precision, with rows that sum to one to that precision and not only to float32's."""
    model = model.to(torch.float64)
    names = ("weights", "tip_regressor")
    return replace(model, **{n: getattr(model, n) / getattr(model, n).sum(1, keepdim=True) for n in names})


def by_pose(points: PointJacobian) -> Tensor:
    """(B, P, 3, D) dense derivative."""
    return points.dense().permute(0, 3, 2, 1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HandModel]:
    """Every kind of model, in double precision."""
    folder = tmp_path_factory.mktemp("mano")
    for side in ("right", "left"):
        write_mano(folder, side)
    return {
        "open": in_double(load_open_hand()),
        "random": random_hand(),
        "random without posedirs": random_hand(posedirs=False),
        "random left": random_hand(side="left"),
        "mano right": in_double(load_mano(folder, side="right")),
        "mano left": in_double(load_mano(folder, side="left")),
    }


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, models: dict[str, HandModel]) -> HandModel:
    return models[request.param]


def some_vertices(model: HandModel, count: int = 25) -> Tensor:
    return torch.randperm(len(model.template), generator=torch.Generator().manual_seed(0))[:count]


def reference(model: HandModel, pose: HandPose) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and the 16 joints of the first hand by 4 × 4 matrices, one vertex at a time (Loper et al. 2015)."""
    rotations = Rotation.from_rotvec(torch.cat([pose.global_orient[:1], pose.hand_pose[0]]).numpy()).as_matrix()
    shaped = model.template.numpy() + model.shapedirs.numpy() @ pose.betas[0].numpy()
    rest = model.joint_regressor.numpy() @ shaped
    if model.posedirs is not None:
        shaped = shaped + model.posedirs.numpy() @ (rotations[1:] - np.eye(3)).ravel()
    world = []
    for bone, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotations[bone]
        local[:3, 3] = rest[bone] - (rest[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    posed = [w[:3, 3] for w in world]
    vertices = []
    for v, weights in zip(shaped, model.weights.numpy(), strict=True):
        moved = [w[:3, :3] @ (v - j) + w[:3, 3] for w, j in zip(world, rest, strict=True)]
        vertices.append(weights @ np.array(moved))
    shift = pose.transl[0].numpy()
    return np.array(vertices) + shift, np.array(posed) + shift


def test_forward_is_skinning_by_the_book(model: HandModel) -> None:
    pose = random_pose(1, side=model.side)
    vertices, joints = reference(model, pose)
    hand = model(pose)
    np.testing.assert_allclose(hand.vertices[0].numpy(), vertices, atol=1e-9)
    tips = model.tip_regressor.numpy() @ vertices
    for row, bone in ((0, 0), (1, 13), (2, 14), (3, 15), (5, 1), (7, 3), (9, 4), (13, 10), (15, 12), (17, 7), (19, 9)):
        np.testing.assert_allclose(hand.joints[0, row], joints[bone], atol=1e-9)
    np.testing.assert_allclose(hand.joints[0, 4::4], tips, atol=1e-9)
    root = (model.root(pose) + pose.transl)[0]
    np.testing.assert_allclose(root, joints[0], atol=1e-9)
    torch.testing.assert_close(hand.joints[0, 0], root)


def test_rest(model: HandModel) -> None:
    """At zero the surface is the template plus shape, whatever the pose corrections."""
    pose = replace(HandPose.zeros(2, side=model.side).to(torch.float64), betas=random_pose(2).betas)
    torch.testing.assert_close(model(pose).vertices, model.rest_vertices(pose.betas))
    ids = some_vertices(model)
    torch.testing.assert_close(model.rest_vertices(pose.betas, ids), model.rest_vertices(pose.betas)[:, ids])
    torch.testing.assert_close(model.rest_vertices(0 * pose.betas)[0], model.template)
    torch.testing.assert_close(model.rest_joints(pose.betas), model.joint_regressor @ model.rest_vertices(pose.betas))


def test_joints_alone_equal_the_full_forward(model: HandModel) -> None:
    for side in ("right", "left"):
        pose = random_pose(3, side=side)
        torch.testing.assert_close(model.joints(pose), model(pose).joints)


def test_batch_is_a_loop(model: HandModel) -> None:
    pose = random_pose(3, side=model.side)
    together, ids = model(pose), some_vertices(model, 7)
    jacobian = model.jacobian(pose, ids, with_betas=True)
    for k in range(3):
        alone = model(pose[k])
        torch.testing.assert_close(together.vertices[k : k + 1], alone.vertices)
        torch.testing.assert_close(together.joints[k : k + 1], alone.joints)
        single = model.jacobian(pose[k], ids, with_betas=True)
        torch.testing.assert_close(by_pose(jacobian.vertices)[k : k + 1], by_pose(single.vertices))
        torch.testing.assert_close(by_pose(jacobian.joints)[k : k + 1], by_pose(single.joints))


def test_rigid_motion(model: HandModel) -> None:
    rotation, shift = exp_so3(random_pose(3, seed=5).global_orient), random_pose(3, seed=5).transl
    for side in ("right", "left"):
        pose = random_pose(3, side=side)
        before, after = model(pose), model(pose.transformed(rotation, shift, model.root(pose)))
        for a, b in ((before.vertices, after.vertices), (before.joints, after.joints)):
            torch.testing.assert_close(b, a @ rotation.transpose(1, 2) + shift[:, None])


# Sides ----------------------------------------------------------------------------------------------


def test_a_pose_of_the_other_side_is_the_mirror_image(model: HandModel) -> None:
    pose = random_pose(2, side=model.side)
    seen, mirrored = model(pose), model(pose.mirrored())
    assert torch.equal(mirrored.vertices, seen.vertices * FLIP)
    assert torch.equal(mirrored.joints, seen.joints * FLIP)
    assert torch.equal(model.root(pose.mirrored()), model.root(pose) * FLIP)


def test_mirrored_model_is_the_same_hand(model: HandModel) -> None:
    """Mirroring the data or the pose comes to the same, pose corrections and root included."""
    other = model.mirrored()
    assert {model.side, other.side} == {"right", "left"}
    for side in ("right", "left"):
        pose = random_pose(2, side=side)
        torch.testing.assert_close(other(pose).vertices, model(pose).vertices)
        torch.testing.assert_close(other.joints(pose), model.joints(pose))
        torch.testing.assert_close(other.root(pose), model.root(pose))
        assert torch.equal(other.faces_for(side), model.faces_for(side))
        assert torch.equal(other.faces_for(side, closed=False), model.faces_for(side, closed=False))
    torch.testing.assert_close(other.rest_canonical, model.rest_canonical)
    back = other.mirrored()
    assert torch.equal(back.template, model.template)
    assert torch.equal(back.closed_faces, model.closed_faces)


def volume(vertices: Tensor, faces: Tensor) -> float:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("name", ["open", "mano right", "mano left"])
def test_closed_faces_point_outwards_on_both_sides(models: dict[str, HandModel], name: str) -> None:
    model = models[name]
    for side in ("right", "left"):
        pose = HandPose.zeros(side=side).to(torch.float64)
        assert volume(model(pose).vertices[0], model.faces_for(side)) > 5e-5  # 50 cm³
    with pytest.raises(ValueError, match=r"side.*'top'"):
        model.faces_for("top")


# Jacobian -------------------------------------------------------------------------------------------


def by_autograd(model: HandModel, pose: HandPose, ids: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """(B, P, 3, D) and (B, 21, 3, D) of the forward pass along `HandPose.retract`."""

    def moved(delta: Tensor) -> Tensor:
        hand = model(pose.retract(delta))
        return torch.cat([hand.vertices[:, ids], hand.joints], 1).sum(0)  # hands do not depend on each other

    zero = torch.zeros(len(pose), width, dtype=torch.float64)
    full = torch.autograd.functional.jacobian(moved, zero, vectorize=True)  # (P + 21, 3, B, D)
    full = full.permute(2, 0, 1, 3)
    return full[:, : len(ids)], full[:, len(ids) :]


def assert_relative(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("width", [51, 61])
def test_jacobian_is_autograds(model: HandModel, width: int) -> None:
    """To rounding, which is far within the 1e-4 relative that the optimiser needs."""
    pose, ids = random_pose(2, side=model.side), some_vertices(model)
    analytic = model.jacobian(pose, ids, with_betas=width == 61)
    vertices, joints = by_autograd(model, pose, ids, width)
    assert_relative(by_pose(analytic.vertices), vertices, 1e-9)
    assert_relative(by_pose(analytic.joints), joints, 1e-9)
    hand = model(pose)
    torch.testing.assert_close(analytic.vertices.points, hand.vertices[:, ids])
    torch.testing.assert_close(analytic.joints.points, hand.joints)


def test_jacobian_at_rest(model: HandModel) -> None:
    """The zero pose, where axis-angle formulas are 0 / 0."""
    pose, ids = HandPose.zeros(1, side=model.side).to(torch.float64), some_vertices(model)
    analytic = model.jacobian(pose, ids, with_betas=True)
    vertices, joints = by_autograd(model, pose, ids, 61)
    assert_relative(by_pose(analytic.vertices), vertices, 1e-9)
    assert_relative(by_pose(analytic.joints), joints, 1e-9)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("name", ["open", "mano right"])
def test_jacobian_in_single_precision(models: dict[str, HandModel], name: str, scale: float) -> None:
    """As it is used: float32, from nearly straight fingers to generic poses."""
    model = models[name]
    pose, ids = random_pose(2), some_vertices(model)
    pose = replace(pose, hand_pose=scale * pose.hand_pose)
    exact = model.jacobian(pose, ids, with_betas=True)
    single = model.to(torch.float32).jacobian(pose.to(torch.float32), ids, with_betas=True)
    assert_relative(by_pose(single.vertices).double(), by_pose(exact.vertices), 1e-5)
    assert_relative(by_pose(single.joints).double(), by_pose(exact.joints), 1e-5)


def test_jacobian_against_finite_differences(model: HandModel) -> None:
    """Independent of autograd and of how `retract` is differentiated."""
    pose, ids, step = random_pose(1, side=model.side), some_vertices(model, 10), 1e-5
    moves = step * torch.eye(61, dtype=torch.float64)
    ahead, behind = (model(pose.repeat_interleave(61).retract(sign * moves)) for sign in (1, -1))
    numeric = ((ahead.vertices - behind.vertices)[:, ids] / (2 * step)).permute(1, 2, 0)
    analytic = by_pose(model.jacobian(pose, ids, with_betas=True).vertices)[0]
    assert_relative(analytic, numeric, 1e-7)


def test_jacobian_of_all_vertices(model: HandModel) -> None:
    pose, ids = random_pose(1, side=model.side), some_vertices(model)
    everything, some = model.jacobian(pose), model.jacobian(pose, ids)
    assert by_pose(everything.vertices).shape == (1, len(model.template), 3, 51)
    torch.testing.assert_close(by_pose(everything.vertices)[:, ids], by_pose(some.vertices))
    torch.testing.assert_close(by_pose(everything.joints), by_pose(some.joints))


def test_jacobian_along_a_direction(model: HandModel) -> None:
    pose, ids = random_pose(2, side=model.side), some_vertices(model)
    for with_betas in (False, True):
        skin = model.jacobian(pose, ids, with_betas=with_betas).vertices
        direction = torch.randn(2, len(ids), 3, dtype=torch.float64)
        expected = torch.einsum("bdcp,bpc->bdp", skin.dense(), direction)
        torch.testing.assert_close(skin.along(direction), expected)


def test_selected_and_intermediate_points(model: HandModel) -> None:
    pose, ids = random_pose(2, side=model.side), some_vertices(model)
    skin = model.jacobian(pose, ids, with_betas=True).vertices
    index = torch.tensor([[3, 3, 0], [1, 20, 5]])
    chosen = skin.select(index)
    for hand in range(2):
        torch.testing.assert_close(chosen.points[hand], skin.points[hand, index[hand]])
        torch.testing.assert_close(chosen.dense()[hand], skin.dense()[hand][..., index[hand]])
    first, second, share = (torch.tensor([0, 4]), torch.tensor([7, 2]), torch.tensor([0.25, 1.0], dtype=torch.float64))
    between = skin.between(first, second, share)
    for values, expected in (
        (between.points.transpose(1, 2), skin.points.transpose(1, 2)),
        (between.dense(), skin.dense()),
    ):
        torch.testing.assert_close(values, (1 - share) * expected[..., first] + share * expected[..., second])


def test_jacobian_wants_the_models_side(model: HandModel) -> None:
    with pytest.raises(ValueError, match=r"pose.*mirrored"):
        model.jacobian(random_pose(1, side=model.side).mirrored())


# Data -----------------------------------------------------------------------------------------------


def test_casting_keeps_ids(models: dict[str, HandModel]) -> None:
    """Ids must not pass through half precision, which holds integers up to 2,048 only."""
    model = random_hand(vertices=3000)
    half = model.to(torch.float16)
    assert half.template.dtype == torch.float16
    for name in ("faces", "closed_faces", "contact_points"):
        assert getattr(half, name).dtype == torch.int64
        assert torch.equal(getattr(half, name), getattr(model, name))
    assert models["open"].template.dtype == torch.float64


def test_parts_are_the_dominant_bones(models: dict[str, HandModel]) -> None:
    """Turning a bone moves the skin of its part, and hardly that of other fingers."""
    model = models["open"]
    parts = model.part_of_vertex
    assert sorted(parts.unique().tolist()) == list(range(16))
    for bone in range(1, 16):
        bent = HandPose.zeros().to(torch.float64)
        bent.hand_pose[0, bone - 1, 2] = 0.5
        moved = (model(bent).vertices - model.template)[0].norm(dim=-1)
        assert moved[parts == bone].mean() > 1e-3
        fingers = [b for b in range(1, 16) if (b - 1) // 3 != (bone - 1) // 3]
        others = torch.isin(parts, torch.tensor(fingers))
        assert moved[others].mean() < 0.1 * moved[parts == bone].mean()


def test_rest_canonical_is_a_right_hand(models: dict[str, HandModel]) -> None:
    right, left = models["mano right"], models["mano left"]
    assert torch.equal(right.rest_canonical, right.template)
    torch.testing.assert_close(left.rest_canonical, right.template)  # the files mirror each other


def test_fingers_bend_to_the_palm(models: dict[str, HandModel]) -> None:
    """Positive turns about z flex the fingers: tips go down (palm to -y) and back towards the wrist."""
    model, pose = models["open"], HandPose.zeros().to(torch.float64)
    flat = model.joints(pose)[0]
    bent = replace(pose, hand_pose=pose.hand_pose + torch.tensor([0.0, 0.0, 0.7], dtype=torch.float64))
    for finger in (8, 12, 16, 20):
        step = model.joints(bent)[0, finger] - flat[finger]
        assert step[1] < -0.03
        assert step[0] > 0.01
