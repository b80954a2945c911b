"""The score that decides whether a result is kept: its parts against closed forms, its order, its symmetries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import trimesh

from contact.field import ContactField, field_from_pose
from contact.object_set import ObjectSet
from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose, load_open_hand
from refine.score import Plausibility, ScoreWeights, plausibility, score

SIGMA = 0.01
RADIUS = 0.03


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def ball() -> ObjectMesh:
    return ObjectMesh.from_any(trimesh.creation.icosphere(3, RADIUS), resolution=48)


@pytest.fixture(scope="module")
def objects(ball) -> ObjectSet:
    return ObjectSet.of([ball])


@pytest.fixture(scope="module")
def hands(model, ball) -> HandPose:
    """Two flat hands whose palms face the ball: one whose skin touches it, one 15 mm off."""
    pose = HandPose.zeros(2)
    vertices = model(pose).vertices[0]
    pad = vertices[model.contact_points][model.part_of_vertex[model.contact_points] == 5].mean(0)
    pose = replace(pose, transl=(torch.tensor([0.0, 0.1, 0.0]) - pad).repeat(2, 1))
    for _ in range(4):  # down until the deepest skin lies on the surface
        distance, _ = ball.grid.query(model(pose).vertices[:1])
        pose = replace(pose, transl=pose.transl - torch.tensor([0.0, 1.0, 0.0]) * distance.amin())
    return replace(pose, transl=pose.transl + torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.015, 0.0]]))


def predicted(model: HandModel, pose: HandPose, obj: ObjectMesh) -> ContactField:
    """The truth of ``pose`` with joints of standard deviation `SIGMA`, as a network would say it."""
    truth = field_from_pose(model, pose, obj)
    joints = model.joints(pose)
    return replace(truth, joints=joints, joints_var=torch.full(joints.shape[:2], SIGMA**2))


def which(pose: HandPose) -> torch.Tensor:
    return torch.zeros(len(pose), dtype=torch.long)


def test_a_hand_where_it_is_predicted_is_as_plausible_as_can_be(model, objects, ball, hands):
    pose = hands[:1]
    parts = plausibility(model, objects, which(pose), pose, predicted(model, pose, ball))
    assert float(parts.disagreement) == pytest.approx(0.0, abs=1e-6)
    assert float(parts.depth) < 5e-4
    assert float(parts.float_gap) < 2e-3
    assert float(score(parts)) > -0.6


def test_disagreement_counts_predicted_variances(model, objects, ball, hands):
    """Joints off by d along one axis: d² / (3 σ²)."""
    pose = hands[:1]
    field = predicted(model, pose, ball)
    moved = replace(pose, transl=pose.transl + torch.tensor([0.0, 0.02, 0.0]))
    parts = plausibility(model, objects, which(pose), moved, field)
    assert float(parts.disagreement) == pytest.approx((0.02 / SIGMA) ** 2 / 3, rel=1e-4)
    unsure = replace(field, joints_var=field.joints_var * 4)
    parts = plausibility(model, objects, which(pose), moved, unsure)
    assert float(parts.disagreement) == pytest.approx((0.02 / SIGMA) ** 2 / 12, rel=1e-4)


def test_depth_is_the_deepest_skin(model, objects, ball, hands):
    pose = hands[:1]
    field = predicted(model, pose, ball)
    for depth in (0.002, 0.006):
        lower = replace(pose, transl=pose.transl - torch.tensor([0.0, depth, 0.0]))
        parts = plausibility(model, objects, which(pose), lower, field)
        assert float(parts.depth) == pytest.approx(depth, abs=1.5e-3)
        assert float(parts.depth) > 0.5 * depth
    away = plausibility(model, objects, which(pose), hands[1:], field)
    assert float(away.depth) == 0.0


def test_gap_is_that_of_skin_that_ought_to_touch(model, objects, ball, hands):
    pose = hands[:1]
    field = predicted(model, pose, ball)
    lifted = plausibility(model, objects, which(pose), hands[1:], field)
    assert 0.008 < float(lifted.float_gap) < 0.02  # 15 mm up, over a curved surface, cut off at 20 mm
    nothing = replace(field, hand_contact=torch.full_like(field.hand_contact, 0.1))
    assert float(plausibility(model, objects, which(pose), hands[1:], nothing).float_gap) == 0.0


def test_a_batch_is_its_rows(model, objects, ball, hands):
    field = predicted(model, hands, ball)
    together = plausibility(model, objects, which(hands), hands, field)
    for row in range(2):
        alone = plausibility(model, objects, which(hands[row]), hands[row], field[row])
        for name in ("disagreement", "depth", "float_gap"):
            torch.testing.assert_close(getattr(alone, name), getattr(together, name)[row : row + 1])


def test_a_mirrored_scene_scores_the_same(model, ball, hands):
    # Inside all hands are right ones: a mirrored scene is scored by the mirrored model.
    field = predicted(model, hands, ball)
    before = plausibility(model, ObjectSet.of([ball]), which(hands), hands, field)
    mirrored = ObjectSet.of([ball.mirrored()])
    after = plausibility(model.mirrored(), mirrored, which(hands), hands.mirrored(), field.mirrored())
    torch.testing.assert_close(score(before), score(after), atol=1e-4, rtol=1e-4)


def parts_of(disagreement: float = 0.5, depth: float = 0.006, gap: float = 0.002) -> Plausibility:
    return Plausibility(*(torch.tensor([v]) for v in (disagreement, depth, gap)))


def test_everything_worse_scores_lower():
    middle = score(parts_of())
    assert score(parts_of(disagreement=1.0)) < middle
    assert score(parts_of(depth=0.008)) < middle
    assert score(parts_of(gap=0.004)) < middle
    assert score(parts_of(depth=0.0)) == score(parts_of(depth=0.004))  # what real grasps have too
    assert score(parts_of(0.0, 0.0, 0.0)) == 0.0


def test_units_of_the_weights():
    weights = ScoreWeights()
    lost = score(parts_of(0.0, weights.depth_free + weights.depth, 0.0))
    assert float(lost) == pytest.approx(-1.0, abs=1e-5)
    assert float(score(parts_of(0.0, 0.0, 2 * weights.float_gap))) == pytest.approx(-2.0)
    assert float(score(parts_of(weights.disagreement, 0.0, 0.0))) == pytest.approx(-0.6931, abs=1e-3)


def test_a_hand_of_nan_is_never_better(model, objects, ball, hands):
    field = predicted(model, hands, ball)
    broken = replace(hands, transl=torch.full_like(hands.transl, torch.nan))
    after = score(plausibility(model, objects, which(hands), broken, field))
    before = score(plausibility(model, objects, which(hands), hands, field))
    assert not (after > before).any()
