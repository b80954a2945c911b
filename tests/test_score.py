"""The score of how plausible a hand is: its parts against closed forms, its order, its symmetries."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
import trimesh

from contact.field import ContactField, field_from_pose
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from contact.weights import card_path
from hand_models import HandModel, HandPose, load_open_hand
from refine.solve.score import Plausibility, ScoreWeights, load_score, plausibility, score

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
    """What is left to expect is the mean length of the prediction's own error, σ √(8/π)."""
    pose = hands[:1]
    parts = plausibility(model, objects, which(pose), pose, predicted(model, pose, ball))
    assert float(parts.expected_error) == pytest.approx(SIGMA * math.sqrt(8 / math.pi), rel=1e-3)
    assert float(parts.depth) < 5e-4
    assert float(parts.float_gap) < 2e-3


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.02, 0.04])
def test_the_expected_error_is_that_of_draws_from_the_prediction(model, objects, ball, hands, shift):
    pose = hands[:1]
    field = predicted(model, pose, ball)
    moved = replace(pose, transl=pose.transl + torch.tensor([0.0, shift, 0.0]))
    parts = plausibility(model, objects, which(pose), moved, field)
    generator = torch.Generator().manual_seed(0)
    drawn = SIGMA * torch.randn(20_000, 3, generator=generator)
    measured = (drawn - torch.tensor([0.0, shift, 0.0])).norm(dim=1).mean()
    assert float(parts.expected_error) == pytest.approx(float(measured), rel=0.06)


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
    assert float(away.apart) == pytest.approx(0.015, abs=1e-3)


def test_a_finger_through_a_thin_wall_is_deep(model):
    """Half a millimetre of wall hides no more than that of the skin, but the middle of a finger lies in it."""
    wall = ObjectMesh.from_any(trimesh.creation.box([0.2, 0.2, 0.002]), resolution=96, cache=False)
    pose = HandPose.zeros(1)
    tip = model.joints(pose)[0, 7]  # the index finger's end joint, in the middle of the wall
    pose = replace(pose, transl=pose.transl - tip)
    field = predicted(model, pose, wall)
    parts = plausibility(model, ObjectSet.of([wall]), which(pose), pose, field)
    distance, _ = wall.grid.query(model(pose).vertices, which(pose))
    assert float(-distance.amin()) < 0.003
    assert float(parts.depth) > 0.004


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
        for name in ("expected_error", "depth", "float_gap"):
            torch.testing.assert_close(getattr(alone, name), getattr(together, name)[row : row + 1])


def test_a_mirrored_scene_scores_the_same(model, ball, hands):
    # Inside all hands are right ones: a mirrored scene is scored by the mirrored model.
    field = predicted(model, hands, ball)
    before = plausibility(model, ObjectSet.of([ball]), which(hands), hands, field)
    mirrored = ObjectSet.of([ball.mirrored()])
    after = plausibility(model.mirrored(), mirrored, which(hands), hands.mirrored(), field.mirrored())
    torch.testing.assert_close(score(before), score(after), atol=1e-4, rtol=1e-4)


def parts_of(error: float = 0.01, depth: float = 0.006, gap: float = 0.002) -> Plausibility:
    return Plausibility(*(torch.tensor([v]) for v in (error, depth, gap, 0.0)))


def test_everything_worse_scores_lower():
    middle = score(parts_of())
    assert score(parts_of(error=0.02)) < middle
    assert score(parts_of(depth=0.008)) < middle
    assert score(parts_of(gap=0.004)) < middle
    assert score(parts_of(depth=0.0)) == score(parts_of(depth=0.004))  # what real grasps have too


def test_units_of_the_weights():
    weights = ScoreWeights(error=2.0, depth=300.0, gap=50.0, depth_free=0.003)
    middle = float(score(parts_of(depth=0.003), weights))
    assert middle - float(score(parts_of(0.01 * math.e, 0.003), weights)) == pytest.approx(2.0, abs=1e-4)
    assert middle - float(score(parts_of(0.01, 0.005), weights)) == pytest.approx(0.6, abs=1e-4)
    assert middle - float(score(parts_of(0.01, 0.003, 0.004), weights)) == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize("probability", [0.5, 0.8, 0.95])
def test_the_margin_is_the_gain_at_which_a_result_is_as_probably_better(probability):
    weights = ScoreWeights(bias=-1.3)
    gain = torch.tensor(weights.margin(probability))
    assert float(weights.better(gain)) == pytest.approx(probability, abs=1e-6)
    # At par the odds are the bias alone: e**-1.3 to one.
    assert float(weights.better(torch.tensor(0.0))) == pytest.approx(1 / (1 + math.exp(1.3)))


def test_the_fitted_score_is_read_from_the_card(tmp_path):
    weights = tmp_path / "w.safetensors"
    assert load_score(weights) == ScoreWeights()
    card_path(weights).write_text(json.dumps({"network": {}}))
    assert load_score(weights) == ScoreWeights()
    fitted = ScoreWeights(error=1.5, bias=0.25, deep=(0.007, 0.016))
    card_path(weights).write_text(json.dumps({"network": {}, "score": asdict(fitted)}))
    assert load_score(weights) == fitted


def test_a_hand_of_nan_is_never_better(model, objects, ball, hands):
    field = predicted(model, hands, ball)
    broken = replace(hands, transl=torch.full_like(hands.transl, torch.nan))
    after = score(plausibility(model, objects, which(hands), broken, field))
    before = score(plausibility(model, objects, which(hands), hands, field))
    assert not (after > before).any()
