"""ContactOpt's procedure: its loss against loops, its descent on a small scene with a known answer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import trimesh
from torch import Tensor

from contact.capsule import Capsule, axis_distance, contact_of_hand, contact_of_object
from contact.field import ContactField, field_from_pose
from contact.objects import ObjectMesh
from hand_models.model import HandModel
from hand_models.open_hand import load_open_hand
from hand_models.pose import HandPose
from hand_models.rotations import exp_so3
from refine.solve.contactopt import ContactOptSettings, contactopt, map_difference


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def ball() -> ObjectMesh:
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=0.045)
    return ObjectMesh.from_any(mesh, n_points=1024, resolution=48, cache=False)


@pytest.fixture(scope="module")
def grasp(model: HandModel, ball: ObjectMesh) -> HandPose:
    """Gently bent fingers laid on the ball, 2 mm deep at the deepest."""
    bend = torch.zeros(1, 15, 3)
    bend[:, :12, 2] = 0.35
    pose = replace(HandPose.zeros(1), hand_pose=bend)
    joints = model.joints(pose)[0]
    fingers = joints[[5, 8, 9, 12, 13, 16, 17, 20]].mean(0)  # knuckles and tips
    pose = replace(pose, transl=torch.stack([-fingers[0], torch.tensor(0.3), -fingers[2]])[None])
    for _ in range(40):  # lower the hand along y until it touches
        deepest = ball.grid.query(model(pose).vertices)[0].min()
        pose = replace(pose, transl=pose.transl - torch.tensor([[0.0, 0.7, 0.0]]) * (deepest + 0.002))
    return pose


@pytest.fixture(scope="module")
def target(model: HandModel, grasp: HandPose, ball: ObjectMesh) -> ContactField:
    """Contact of the grasp as the procedure itself measures it, so that the grasp is a minimum."""
    field, hand = field_from_pose(model, grasp, ball), model(grasp).vertices[:, model.contact_points]
    points, normals = ball.points[None], ball.normals[None]
    of_object, of_hand = contact_of_object(points, normals, hand), contact_of_hand(hand, points, normals)
    assert (of_object > 0.5).sum() > 5
    return replace(field, contact=of_object, hand_contact=of_hand)


def joint_error(model: HandModel, pose: HandPose, truth: HandPose) -> Tensor:
    return (model.joints(pose) - model.joints(truth)).norm(dim=-1).mean(1)


class Record:
    """Losses of every step."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def __call__(self, done: int, total: int, loss: Tensor) -> None:
        assert done <= total
        self.losses.append(loss.clone())


def test_loss_falls_and_the_hand_moves_onto_its_target(
    model: HandModel, grasp: HandPose, ball: ObjectMesh, target: ContactField
) -> None:
    begin = replace(grasp, transl=grasp.transl + torch.tensor([[0.004, 0.012, 0.003]]))
    record = Record()
    end = contactopt(model, begin, ball, target, iterations=50, restarts=1, progress=record)
    assert len(record.losses) == 50
    assert record.losses[-1] < 0.3 * record.losses[0]
    assert joint_error(model, end, grasp) < 0.3 * joint_error(model, begin, grasp)
    torch.testing.assert_close(end.betas, begin.betas)


def test_the_best_restart_is_returned(
    model: HandModel, grasp: HandPose, ball: ObjectMesh, target: ContactField
) -> None:
    """The returned hand, taken up again for one evaluation, has the smallest of the final losses."""
    begin, record = HandPose.cat([grasp, grasp]), Record()
    both = ContactField.cat([target, target])
    end = contactopt(model, begin, ball, both, iterations=6, restarts=3, progress=record)
    assert record.losses[-1].shape == (2, 3)
    again = Record()
    contactopt(model, end, ball, both, iterations=1, restarts=1, progress=again)
    torch.testing.assert_close(again.losses[0][:, 0], record.losses[-1].min(1).values, atol=2e-3, rtol=2e-3)


def test_first_loss_against_loops(model: HandModel, grasp: HandPose, ball: ObjectMesh, target: ContactField) -> None:
    settings, record = ContactOptSettings(), Record()
    begin = replace(grasp, transl=grasp.transl - torch.tensor([[0.0, 0.006, 0.0]]))
    contactopt(model, begin, ball, target, iterations=1, restarts=1, progress=record)
    hand = model(begin).vertices[0, model.contact_points]
    capsule = Capsule(bottom=-0.001, top=0.0005, radius=0.001)

    def value(h: Tensor, i: int) -> Tensor:
        distance = axis_distance(h - ball.points[i], ball.normals[i], capsule)
        return (1 / (distance / 0.001 + 0.0001)).clamp(0, 1)

    apart = torch.cdist(hand, ball.points)
    of_object = torch.stack([value(hand[apart[:, i].argmin()], i) for i in range(len(ball.points))])
    of_hand = torch.stack([value(hand[j], int(apart[j].argmin())) for j in range(len(hand))])
    nearest = apart.argmin(1)
    depth = -((hand - ball.points[nearest]) * ball.normals[nearest]).sum(1)
    penetration = (depth - 0.002).clamp_min(0).mean()
    assert penetration > 1e-5

    def difference(contact: Tensor, wanted: Tensor) -> Tensor:
        return torch.where(wanted > contact, 3 * (wanted - contact), contact - wanted).mean()

    expected = difference(of_object, target.contact[0]) + 2 * difference(of_hand, target.hand_contact[0])
    expected = expected + settings.penetration_weight * penetration
    torch.testing.assert_close(record.losses[0][0, 0], expected, atol=1e-3, rtol=1e-3)


def test_missing_contact_weighs_three_times_unwanted_contact() -> None:
    contact, target = torch.tensor([[0.2, 0.9]]), torch.tensor([[0.6, 0.6]])
    got = map_difference(contact, target, 2.0)
    torch.testing.assert_close(got, torch.tensor([(3 * 0.4 + 0.3) / 2]))


def test_thin_objects_allow_no_penetration(model: HandModel, grasp: HandPose, ball: ObjectMesh) -> None:
    begin = replace(grasp, transl=grasp.transl - torch.tensor([[0.0, 0.004, 0.0]]))
    thin = replace(ball, thickness=torch.full_like(ball.thickness, 0.002))
    field, losses = field_from_pose(model, begin, ball), []
    for mesh in (ball, thin):
        record = Record()
        contactopt(model, begin, mesh, field, iterations=1, restarts=1, progress=record)
        losses.append(record.losses[0].item())
    assert losses[1] > losses[0] + 1e-3


def test_starts_depend_on_the_seed_only(
    model: HandModel, grasp: HandPose, ball: ObjectMesh, target: ContactField
) -> None:
    many = HandPose.cat([grasp] * 3), ContactField.cat([target] * 3)

    def run(**options: int) -> Tensor:
        return contactopt(model, many[0], ball, many[1], iterations=3, restarts=2, **options).transl

    torch.testing.assert_close(run(seed=1), run(seed=1), atol=0, rtol=0)
    torch.testing.assert_close(run(seed=1), run(seed=1, chunk=1), atol=1e-5, rtol=0)
    assert (run(seed=1) - run(seed=2)).abs().max() > 1e-3


def test_starts_are_spread_as_published(model: HandModel, grasp: HandPose, ball: ObjectMesh) -> None:
    """One evaluation moves nothing, so what comes back are starts: 4 cm per axis, 5 degrees."""
    count = 150
    poses = HandPose.cat([grasp] * count)
    field = field_from_pose(model, grasp, ball)[torch.zeros(count, dtype=torch.long)]
    settings = ContactOptSettings(penetration_weight=0.0, object_weight=0.0, hand_weight=0.0)  # take the first
    starts = contactopt(model, poses, ball, field, iterations=1, restarts=2, settings=settings)
    turn = (starts.global_orient - grasp.global_orient).std().item()
    assert turn == pytest.approx(math.radians(5), rel=0.15)
    root = model.root(starts)  # where the template's origin went: the root is 9 cm from it
    origin = root + starts.transl - (exp_so3(starts.global_orient) @ root[..., None])[..., 0]
    spread = (origin - grasp.transl).std(0)
    torch.testing.assert_close(spread, torch.full((3,), 0.04), atol=0.008, rtol=0)


def test_a_left_hand_descends_like_its_mirror_image(
    model: HandModel, grasp: HandPose, ball: ObjectMesh, target: ContactField
) -> None:
    begin = replace(grasp, transl=grasp.transl + torch.tensor([[0.004, 0.01, 0.003]]))
    right, left = Record(), Record()
    contactopt(model, begin, ball, target, iterations=8, restarts=1, progress=right)
    contactopt(model, begin.mirrored(), ball.mirrored(), target.mirrored(), iterations=8, restarts=1, progress=left)
    torch.testing.assert_close(torch.stack(left.losses), torch.stack(right.losses), atol=5e-3, rtol=1e-2)


def test_components_span_the_articulation(
    model: HandModel, grasp: HandPose, ball: ObjectMesh, target: ContactField
) -> None:
    components, _ = torch.linalg.qr(torch.randn(45, 15))
    begin = replace(grasp, transl=grasp.transl + torch.tensor([[0.0, 0.01, 0.0]]))
    end = contactopt(model, begin, ball, target, iterations=10, restarts=1, components=components.T)
    change = (end.hand_pose - begin.hand_pose).flatten(1)
    assert change.norm() > 0.05
    torch.testing.assert_close(change @ components @ components.T, change, atol=1e-5, rtol=0)


def test_settings_for_images() -> None:
    settings = ContactOptSettings.for_images()
    assert (settings.hand_weight, settings.penetration_weight) == (2.5, 320.0)


@pytest.mark.parametrize("name", ["iterations", "restarts", "chunk"])
def test_counts_must_be_positive(
    model: HandModel, grasp: HandPose, ball: ObjectMesh, target: ContactField, name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        contactopt(model, grasp, ball, target, **{name: 0})


def test_inputs_that_do_not_fit_together(
    model: HandModel, grasp: HandPose, ball: ObjectMesh, target: ContactField
) -> None:
    with pytest.raises(ValueError, match="objects"):
        contactopt(model, grasp, [ball, ball], target)
    with pytest.raises(ValueError, match="field"):
        contactopt(model, grasp, ball, replace(target, contact=target.contact[:, :5]))
    assert len(contactopt(model, grasp[:0], ball, target[:0])) == 0
