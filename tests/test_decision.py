"""How far hands go: what is known, what is probable, and that the answer changes continuously with both."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import trimesh
from torch import Tensor

from contact.field import ContactField, field_from_pose
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from hand_models import HandModel, HandPose, load_open_hand
from refine.config import RefineConfig
from refine.solve.decision import Refined, between, decide
from refine.solve.fields import expected_variance
from refine.solve.optimize import Solved
from refine.solve.score import ScoreWeights, plausibility, score
from refine.solve.way_out import bring_out, brought_out

RADIUS, SIGMA, WAY = 0.03, 0.01, 0.012
WEIGHTS = ScoreWeights(bias=-1.0, deep=(0.008, 0.014))
CONFIG = RefineConfig(undecided=0.5, sure=0.9)
UP = torch.tensor([0.0, 1.0, 0.0])


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def ball() -> ObjectMesh:
    return ObjectMesh.from_any(trimesh.creation.icosphere(3, RADIUS), resolution=48)


@pytest.fixture(scope="module")
def objects(ball: ObjectMesh) -> ObjectSet:
    return ObjectSet.of([ball])


@pytest.fixture(scope="module")
def touching(model: HandModel, ball: ObjectMesh) -> HandPose:
    """A flat hand above the ball whose palm side touches it."""
    pose = HandPose.zeros(1)
    vertices = model(pose).vertices[0]
    pad = vertices[model.contact_points][model.part_of_vertex[model.contact_points] == 5].mean(0)
    pose = replace(pose, transl=(0.1 * UP - pad)[None])
    for _ in range(4):
        distance, _ = ball.grid.query(model(pose).vertices)
        pose = replace(pose, transl=pose.transl - UP * distance.amin())
    return pose


def lowered(pose: HandPose, depth: Tensor) -> HandPose:
    """The hand, metres further down, once for each of ``depth (B,)``."""
    many = pose[[0] * len(depth)]
    return replace(many, transl=many.transl - depth[:, None] * UP)


def none(batch: int) -> Tensor:
    return torch.zeros(batch, dtype=torch.long)


def seen(model: HandModel, pose: HandPose, ball: ObjectMesh, holding: Tensor) -> ContactField:
    truth = field_from_pose(model, pose, ball)
    joints = model.joints(pose)
    return replace(truth, joints=joints, joints_var=torch.full(joints.shape[:2], SIGMA**2), holding=holding)


@pytest.fixture(scope="module")
def decided(model: HandModel, objects: ObjectSet, ball: ObjectMesh, touching: HandPose):
    """`decide` for hands of some depth whose solution is `WAY` to the side, and better by some log odds."""

    def run(
        holding: Tensor, gain: Tensor, depth: float | Tensor = 0.0, *, known: float = torch.nan, stated: bool = False,
        config: RefineConfig = CONFIG, given_var: float = torch.nan,
    ) -> tuple[HandPose, HandPose, Refined]:  # fmt: skip
        batch = len(holding)
        given = lowered(touching, torch.as_tensor(depth).expand(batch))
        there = replace(given, transl=given.transl + WAY * torch.tensor([1.0, 0.0, 0.0]))
        field = seen(model, touching[[0] * batch], ball, holding)
        before = score(plausibility(model, objects, none(batch), given, field), WEIGHTS)
        best = Solved(there, before + gain, torch.full((batch, 21), 0.002**2), torch.full((batch,), 5))
        found = decide(
            model, objects, none(batch), given, best, field, WEIGHTS, config,
            stated=torch.full((batch,), stated), known=torch.full((batch,), known),
            given_var=torch.full((batch, 21), given_var),
        )  # fmt: skip
        return given, there, found

    return run


def way(model: HandModel, one: HandPose, other: HandPose) -> Tensor:
    return (model.joints(one) - model.joints(other)).norm(dim=-1).mean(1)


def depth_of(model: HandModel, objects: ObjectSet, pose: HandPose) -> Tensor:
    return -objects.grid.query(model(pose).vertices, none(len(pose)))[0].amin(1)


# Between input and solution -------------------------------------------------------------------------


def test_the_share_is_the_product_of_both_probabilities(model, decided):
    holding, gain = torch.tensor([0.99, 0.99, 0.65, 0.3, 0.99]), torch.tensor([9.0, 2.0, 9.0, 9.0, -2.0])
    given, _, found = decided(holding, gain)
    better = torch.sigmoid(gain - 1.0)
    expected = ((holding - 0.5) / 0.3).clamp(0, 1) * ((better - 0.5) / 0.4).clamp(0, 1)
    torch.testing.assert_close(found.share, expected)
    assert expected.tolist()[0] == 1
    assert 0.5 < expected[1] < 0.9
    assert expected.tolist()[3:] == [0, 0]
    torch.testing.assert_close(way(model, found.pose, given), WAY * expected, atol=1e-5, rtol=0)
    assert found.moved.tolist() == [True, True, True, False, False]
    assert torch.equal(found.holding, holding)


@pytest.mark.parametrize("of", ["holding", "gain"])
def test_the_answer_is_continuous_in_both_probabilities(model, decided, of):
    """From where the hand stays to where it arrives there is no jump, of the pose, its variance or its score."""
    along = torch.linspace(0, 1, 81)
    sure = torch.ones(81)
    holding, gain = (along, 20 * sure) if of == "holding" else (sure, -4 + 10 * along)
    given, there, found = decided(holding, gain, depth=0.011)
    joints = model.joints(found.pose)
    steps = (joints[1:] - joints[:-1]).norm(dim=-1).mean(1)
    assert steps.max() < 0.1 * WAY
    assert way(model, found.pose, there)[-1] == 0
    assert way(model, found.pose, given)[-1] > 0.9 * WAY
    assert (found.variance.diff(dim=0).abs() < 0.15 * found.variance.max()).all()


def test_the_answer_is_continuous_in_the_depth(model, decided):
    depth = torch.linspace(0.002, 0.02, 73)
    given, _, found = decided(torch.full((73,), 0.4), torch.zeros(73), depth)
    gone = model.joints(found.pose) - model.joints(given)
    assert gone.diff(dim=0).norm(dim=-1).mean(1).max() < 0.0015  # for each quarter of a millimetre


def test_a_stated_input_has_been_weighed_already(decided):
    holding = torch.tensor([0.99, 0.3])
    _, _, found = decided(holding, torch.tensor([-5.0, -5.0]), stated=True)
    assert found.share.tolist() == [1, 0]
    assert (found.margin == 0).all()


def test_a_hand_known_to_hold_is_as_probable_as_its_solution(decided):
    _, _, found = decided(torch.tensor([0.01, 0.01]), torch.tensor([9.0, -9.0]), known=1.0)
    assert found.holding.tolist() == [1, 1]
    assert found.share.tolist() == [1, 0]


@pytest.mark.parametrize("known", [1.0, torch.nan])
def test_without_the_gate_hands_arrive(model, decided, known):
    _, there, found = decided(
        torch.tensor([0.01]), torch.tensor([-9.0]), known=known, config=replace(CONFIG, gate=False)
    )
    assert way(model, found.pose, there) == 0
    assert found.score_after > found.score_before - 9.1


def test_without_the_gate_hands_known_to_be_apart_stay(model, decided):
    given, _, found = decided(torch.tensor([0.99]), torch.tensor([9.0]), known=0.0, config=replace(CONFIG, gate=False))
    assert way(model, found.pose, given) < 5e-4
    assert found.share == 0


def test_solutions_of_nan_are_never_taken(model, decided):
    """Neither poses nor scores that are none."""
    given, _, found = decided(torch.tensor([0.99]), torch.tensor([torch.nan]))
    assert found.share == 0
    assert torch.equal(found.pose.transl, given.transl)
    assert found.score_after == found.score_before


def test_the_variance_of_a_hand_that_stays(model, decided, touching):
    """That of the prediction for a hand that holds; for one that does not, what the input was said to be off by."""
    holding = torch.tensor([1.0, 0.0, 0.25])
    given, _, found = decided(holding, torch.full((3,), -9.0), given_var=0.003**2)
    own = expected_variance(model.joints(given), found.field)
    expected = holding[:, None] * own + (1 - holding[:, None]) * 0.003**2
    torch.testing.assert_close(found.variance, expected)
    _, _, unknown = decided(holding, torch.full((3,), -9.0))
    torch.testing.assert_close(unknown.variance, own)


# Out of the object ----------------------------------------------------------------------------------


@pytest.mark.parametrize("holding", [0.99, 0.5, 0.01])
def test_deep_hands_come_out_by_a_small_motion(model, objects, decided, holding):
    """Whatever else is unsure: 14 mm deep no hand that holds is."""
    given, _, found = decided(torch.full((2,), holding), torch.full((2,), -9.0), torch.tensor([0.016, 0.02]))
    before, after = (depth_of(model, objects, pose) for pose in (given, found.pose))
    assert (before > 0.014).all()
    assert (after < 0.5 * before).all()
    assert (way(model, found.pose, given) < before).all()
    assert found.moved.all()
    assert (found.share == 0).all()
    assert (found.score_after > found.score_before).all()


def test_hands_as_deep_as_hands_that_hold_stay(model, decided):
    given, _, found = decided(torch.full((3,), 0.9), torch.full((3,), -9.0), torch.tensor([0.0, 0.003, 0.006]))
    assert torch.equal(found.pose.transl, given.transl)
    assert not found.moved.any()
    assert torch.equal(found.score_after, found.score_before)


def test_hands_known_to_be_apart_are_only_brought_out(model, objects, decided):
    depth = torch.tensor([-0.3, -0.01, 0.006])
    given, _, found = decided(torch.full((3,), 0.99), torch.full((3,), 9.0), depth, known=0.0)
    assert torch.equal(found.pose.transl[:2], given.transl[:2])
    assert found.moved.tolist() == [False, False, True]
    before, after = (depth_of(model, objects, pose)[2] for pose in (given, found.pose))
    assert after < 0.6 * before
    assert way(model, found.pose, given)[2] < 0.006


def test_bringing_out_leaves_hands_outside_alone(model, objects, touching):
    away = lowered(touching, torch.tensor([-0.05]))
    out = bring_out(model, objects, none(1), away, torch.zeros(1), CONFIG)
    assert way(model, out, away) < 2e-4


def test_hands_go_the_share_of_the_way_out(model, objects, touching):
    deep = lowered(touching, torch.full((3,), 0.015))
    push = torch.tensor([0.0, 0.5, 1.0])
    pose, moved = brought_out(model, objects, none(3), deep, push, torch.zeros(3), CONFIG)
    assert moved.tolist() == [False, True, True]
    gone = way(model, pose, deep)
    assert gone[0] == 0
    assert gone[1] / gone[2] == pytest.approx(0.5, abs=0.02)


def test_between():
    assert between(torch.tensor([-1.0, 2.0, 2.5, 3.0, 9.0]), 2.0, 3.0).tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize(("undecided", "sure"), [(0.0, 0.9), (0.9, 0.9), (0.95, 0.9), (0.5, 1.0)])
def test_probabilities_that_are_in_no_order_are_refused(undecided, sure):
    with pytest.raises(ValueError, match=r"sure: got .* with undecided .*; give 0 < undecided < sure < 1"):
        RefineConfig(undecided=undecided, sure=sure)
