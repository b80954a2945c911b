"""Two hands on one object: they let go of one another, whatever their order, and are judged together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from contact.network import ContactNet, NetworkConfig
from contact.objects import ObjectMesh
from contact.objects.solid import closed_solid
from contact.weights import save_weights
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.inner_spheres import Spheres
from refine import RefineConfig, Status, refine_grasp
from refine.config import CostConfig
from refine.evidence.inputs import is_pair
from refine.measure.joints import mpjpe
from refine.result import TwoHandResult
from refine.solve.two_hands import decide


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RefineConfig:
    """A network that has learnt nothing and leaves the hands about where they are; every result is taken."""
    torch.manual_seed(0)
    network = ContactNet(NetworkConfig(fine=8, middle=8, token=16, layers=2, heads=2))
    with torch.no_grad():
        network.point_head.bias[2] = -8.0  # near
        network.skin_head[-1].bias[0] = -8.0  # touching
        network.joint_head[-1].weight[:3] *= 0.1
        network.joint_head[-1].bias[3] = -1.0  # spread
    path = save_weights(network, {}, tmp_path_factory.mktemp("weights") / "tiny.safetensors")
    # Weakly held where the network says: it knows nothing.
    return RefineConfig(weights=Path(path), costs=CostConfig(joints=0.3), gate=False, volumes=False)


@pytest.fixture(scope="module")
def can() -> ObjectMesh:
    return ObjectMesh.from_any(trimesh.creation.cylinder(0.032, 0.16, sections=48), resolution=64)


@pytest.fixture(scope="module")
def pair() -> tuple[HandPose, HandPose]:
    """A right hand around the can and its mirror image moved along the can; the third pair is well apart."""
    bend = torch.zeros(3, 15, 3)
    bend[:, :12, 2] = 0.6
    transl = torch.tensor([[-0.02, 0.075, 0.01]]).repeat(3, 1)
    right = HandPose("right", torch.zeros(3, 3), bend, torch.zeros(3, 10), transl)
    left = right.mirrored()
    shift = torch.tensor([[0.08, 0.0, 0.065], [0.1, 0.005, 0.03], [0.0, -0.6, 0.0]])
    return right, replace(left, transl=left.transl - shift)


@pytest.fixture(scope="module")
def result(pair, can, config) -> TwoHandResult:
    return refine_grasp(list(pair), can, config=config)


def shared_cm3(result: TwoHandResult, when: str) -> np.ndarray:
    """Volume that the two hands have in common, by exact boolean."""
    hands = [getattr(hand, f"vertices_{when}").double().numpy() for hand in result]
    solids = [[closed_solid(v, hand.faces) for v in rows] for rows, hand in zip(hands, result, strict=True)]
    return np.array([1e6 * (a ^ b).volume() for a, b in zip(*solids, strict=True)])


def same(a: HandPose, b: HandPose, model: HandModel, mm: float) -> bool:
    return a.side == b.side and bool((1e3 * mpjpe(model.joints(a), model.joints(b)) < mm).all())


# Outcome --------------------------------------------------------------------------------------------


def test_hands_let_go_of_one_another(result, pair):
    before, after = shared_cm3(result, "before"), shared_cm3(result, "after")
    assert (before[:2] > 1.0).all()
    assert (after[:2] < 0.5 * before[:2]).all()
    assert (result.overlap_mm_before[:2] > 2).all()
    assert (result.overlap_mm_after[:2] < 0.75 * result.overlap_mm_before[:2]).all()
    assert result.overlap_mm_before[2] == 0


def test_the_result_is_one_of_each_hand(result, pair):
    right, left = result
    assert (right.pose.side, left.pose.side) == ("right", "left")
    assert result.right is right
    assert result.left is left
    assert right.status == left.status == [Status.REFINED] * 3
    assert right.uncertainty.shape == (3, 21)
    for hand, given in zip(result, pair, strict=True):
        torch.testing.assert_close(hand.initial_pose.transl, given.transl, rtol=0, atol=0)


def test_the_mesh_of_two_hands_may_be_in_another_unit(pair, can, config):
    larger = (1024 * can.vertices, can.faces)
    for hand in refine_grasp([hand[:1] for hand in pair], larger, scale=1 / 1024, config=config):
        assert np.ptp(hand.object.vertices.numpy(), axis=0) == pytest.approx(np.ptp(can.vertices.numpy(), axis=0))


def test_hands_that_are_apart_are_refined_as_alone(model, result, pair, can, config):
    for hand, given in zip(result, pair, strict=True):
        alone = refine_grasp(given[2], can, config=config)
        assert same(hand.pose[2], alone.pose, model, 0.5)


def test_the_order_does_not_matter(model, result, pair, can, config):
    right, left = pair
    swapped = refine_grasp([left, right], can, config=config)
    assert [hand.pose.side for hand in swapped] == ["left", "right"]
    assert same(swapped.right.pose, result.right.pose, model, 1.0)
    assert same(swapped.left.pose, result.left.pose, model, 1.0)


def test_a_mirrored_scene_gives_the_mirrored_result(model, result, pair, can, config):
    right, left = pair
    mirrored = refine_grasp([right.mirrored(), left.mirrored()], can.mirrored(), config=config)
    assert same(mirrored.right.pose.mirrored(), result.left.pose, model, 1.0)
    assert same(mirrored.left.pose.mirrored(), result.right.pose, model, 1.0)


def test_the_camera_frame_comes_back(model, result, pair, can, config):
    matrix = torch.eye(4)
    matrix[:3, :3] = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    matrix[:3, 3] = torch.tensor([0.1, 0.0, 0.6])
    seen = [hand.transformed(matrix[:3, :3], matrix[:3, 3], model.root(hand)) for hand in pair]
    found = refine_grasp(seen, can, object_pose=matrix, config=config)
    for hand, here in zip(found, result, strict=True):
        expected = here.pose.transformed(matrix[:3, :3], matrix[:3, 3], model.root(here.pose))
        assert same(hand.pose, expected, model, 1.0)


def test_a_failed_hand_leaves_the_other_alone(model, pair, can, config):
    right, left = pair
    broken = replace(left, transl=left.transl.clone())
    broken.transl[0] = torch.nan
    result = refine_grasp([right, broken], can, config=config)
    assert result.left.status == [Status.FAILED, Status.REFINED, Status.REFINED]
    assert result.right.status == [Status.REFINED] * 3
    assert np.isnan(result.overlap_mm_after[0])
    assert np.isfinite(result.overlap_mm_after[1:]).all()
    assert same(result.right.pose[0], refine_grasp(right[0], can, config=config).pose, model, 0.5)


def test_the_gate_keeps_hands(pair, can, config):
    kept = refine_grasp(list(pair), can, config=replace(config, gate=True, margin=1e9))
    for hand, given in zip(kept, pair, strict=True):
        assert hand.status == [Status.KEPT] * 3
        torch.testing.assert_close(hand.pose.transl, given.transl, rtol=0, atol=0)
        np.testing.assert_array_equal(hand.score_after, hand.score_before)
    np.testing.assert_array_equal(kept.overlap_mm_after, kept.overlap_mm_before)


# Parts ----------------------------------------------------------------------------------------------


def test_decide_weighs_scores_against_overlap():
    before = torch.zeros(2, 4)
    after = torch.tensor([[1.0, 1.0, -1.0, 1.0], [1.0, -1.0, -1.0, 0.5]])
    penalty = torch.zeros(2, 2, 4)
    penalty[1, 1, 3] = 0.8  # both moved would meet: the smaller gain is left
    accepted = decide(before, after, penalty)
    assert accepted.tolist() == [[True, True, False, True], [True, False, False, False]]


def test_a_tie_leaves_hands_as_they_are():
    assert not decide(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, 2, 1)).any()


def test_spheres_are_a_signed_distance():
    spheres = Spheres(torch.tensor([[[0.0, 0, 0], [1, 0, 0]]]), torch.tensor([0.1, 0.3]))
    points = torch.tensor([[[0.0, 0.2, 0.0], [0.9, 0.0, 0.0], [0.55, 0.0, 0.0]]])
    distance, gradient, nearest = spheres.query(points)
    torch.testing.assert_close(distance, torch.tensor([[0.1, -0.2, 0.15]]))
    expected = torch.tensor([[[0.0, 1, 0], [-1, 0, 0], [-1, 0, 0]]])
    torch.testing.assert_close(gradient, expected)
    assert nearest.tolist() == [[0, 1, 1]]


# Mistakes -------------------------------------------------------------------------------------------


def test_what_counts_as_two_hands(pair):
    right, left = pair
    arrays = right.as_arrays()
    assert is_pair([right, left])
    assert is_pair(({**arrays, "side": "right"}, {**arrays, "side": "left"}))
    assert not is_pair((arrays, {**arrays, "side": "left"}))
    assert not is_pair(right)
    assert not is_pair([right, left, right])
    assert not is_pair([right, right])
    assert not is_pair([arrays, arrays])
    assert not is_pair([[0.0] * 51, [0.0] * 51])
    assert not is_pair(np.zeros((2, 51)))


def test_dictionaries_say_their_sides(pair, can, config, result, model):
    right, left = pair
    arrays = {**right.as_arrays(), "side": "right"}, {**left.as_arrays(), "side": "left"}
    for order in (arrays, arrays[::-1]):
        assert same(refine_grasp(list(order), can, config=config).left.pose, result.left.pose, model, 0.5)


def test_hands_of_one_side_are_a_batch(pair, can, config):
    """Two frames or two people, not a right and a left hand."""
    right, _ = pair
    one, two = ({k: v[row] for k, v in right.as_arrays().items()} for row in (0, 1))
    expected = refine_grasp(right[[0, 1]], can, config=config)
    for hands, side in (([one, two], "right"), ([right[0], right[1]], None), ([right[[0, 1]]], None)):
        found = refine_grasp(hands, can, side=side, config=config)
        assert found.pose.side == "right"
        np.testing.assert_array_equal(found.joints_after, expected.joints_after)
    assert len(refine_grasp([one, two, one], can, config=config).status) == 3


@pytest.mark.parametrize(
    ("pick", "changes", "message"),
    [
        (lambda r, m: [r.as_arrays(), m.as_arrays()], {}, "hand_pose: two hands that do not both say their side"),
        (lambda r, m: [r, m, r], {}, "hand_pose: a list of 3 hands of both sides"),
        (lambda r, m: [r, m[:2]], {}, "hand_pose: 3 right and 2 left hands; give as many of either"),
        (lambda r, m: [r, m], {"method": "contactopt"}, "config: method 'contactopt' knows single hands only"),
    ],
)
def test_mistakes_say_how_to_mend_them(pair, can, config, pick, changes, message):
    with pytest.raises(ValueError, match=message):
        refine_grasp(pick(*pair), can, config=replace(config, **changes))
