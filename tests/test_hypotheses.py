"""Hypotheses: drawn per grasp and not per place in the batch, solved side by side, the best-scoring one taken."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from contact.field import ContactField
from contact.network import ContactNet, NetworkConfig
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from contact.weights import save_weights
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.rotations import exp_so3
from refine.config import RefineConfig
from refine.measure.joints import mpjpe
from refine.solve.fields import DRAWN_POINTS, EncodedGrasps, draw_fields, expected_variance, predict_field
from refine.solve.hypotheses import best_finalist, find_finalists
from refine.solve.optimize import Solved
from refine.solve.refine_hands import refine_right_hands
from refine.solve.score import ScoreWeights, plausibility, score

COUNT = 3


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def network() -> ContactNet:
    """A calm network that has learnt nothing, whose latent matters all the same."""
    torch.manual_seed(0)
    network = ContactNet(NetworkConfig(fine=8, middle=8, token=16, layers=2, heads=2))
    with torch.no_grad():
        network.point_head.bias[2] = -8.0  # near
        network.skin_head[-1].bias[0] = -8.0  # touching
        network.joint_head[-1].bias[3] = -3.0  # spread
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory) -> Path:
    return save_weights(network, {}, tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def can() -> ObjectMesh:
    return ObjectMesh.from_any(trimesh.creation.cylinder(0.032, 0.12, sections=48), resolution=64)


@pytest.fixture(scope="module")
def block() -> ObjectMesh:
    return ObjectMesh.from_any(trimesh.creation.box((0.05, 0.07, 0.12)), resolution=64)


@pytest.fixture(scope="module")
def hands() -> HandPose:
    generator = torch.Generator().manual_seed(0)
    bend = torch.zeros(4, 15, 3)
    bend[:, :12, 2] = 0.5 + 0.1 * torch.randn(4, 12, generator=generator)
    transl = torch.tensor([-0.02, 0.075, 0.0]) + 0.015 * torch.randn(4, 3, generator=generator)
    return HandPose("right", 0.2 * torch.randn(4, 3, generator=generator), bend, torch.zeros(4, 10), transl)


@pytest.fixture(scope="module")
def always(weights) -> RefineConfig:
    return RefineConfig(weights=weights, gate=False, hypotheses=COUNT)


ZEROS = torch.zeros(4, dtype=torch.long)


def drawn(network, model, objects, pose, which=ZEROS, seed=0) -> ContactField:
    grasps = EncodedGrasps.of(network, model, objects, which, pose)
    return draw_fields(grasps, grasps.mean(), COUNT, seed)


def best_of(model, objects, pose, mean, fields, weights: ScoreWeights) -> Solved:
    """The best of the hypotheses ``fields`` for hands on the first of ``objects``."""
    config = RefineConfig()
    found = find_finalists(model, objects, ZEROS, pose, mean, fields, weights, config)
    return best_finalist(model, objects, mean, found, weights, config)


def distance_mm(model: HandModel, a: HandPose, b: HandPose) -> np.ndarray:
    return 1e3 * mpjpe(model.joints(a), model.joints(b))


# Drawing --------------------------------------------------------------------------------------------


def test_the_first_field_is_the_prediction_and_the_others_differ(network, model, can, hands):
    objects = ObjectSet.of([can])
    grasps = EncodedGrasps.of(network, model, objects, ZEROS, hands)
    mean = predict_field(network, model, objects, ZEROS, hands)
    fields = draw_fields(grasps, mean, COUNT)
    assert len(fields) == COUNT * 4
    torch.testing.assert_close(fields[:4].joints, mean.joints, rtol=0, atol=0)
    for k in range(1, COUNT):
        assert ((fields[4 * k : 4 * k + 4].joints - mean.joints).norm(dim=-1) > 1e-6).any()
    torch.testing.assert_close(fields[:4].gap, mean.gap[:, :DRAWN_POINTS], rtol=0, atol=0)
    assert draw_fields(grasps, mean, 1) is mean


def test_draws_are_the_networks_own(network, model, can, hands):
    """Over fewer points, but else what `ContactNet.predict` draws."""
    objects = ObjectSet.of([can])
    grasps = EncodedGrasps.of(network, model, objects, ZEROS, hands)
    noise = torch.randn(COUNT, network.config.latent, generator=torch.Generator().manual_seed(5))
    every = noise[:, None].expand(-1, 4, -1)
    expected = network.predict(model, grasps.observation, grasps.hierarchy, every).at(slice(DRAWN_POINTS))
    found = grasps.draws(noise)
    for name in ("contact", "canonical", "gap_var", "hand_contact", "joints", "joints_var"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5)


def test_draws_depend_on_the_seed_and_not_on_the_place_in_the_batch(network, model, can, hands):
    objects = ObjectSet.of([can])
    first, again, other = (drawn(network, model, objects, hands, seed=s).joints for s in (0, 0, 1))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = drawn(network, model, objects, hands[order]).joints.unflatten(0, (COUNT, 4))
    torch.testing.assert_close(shuffled, first.unflatten(0, (COUNT, 4))[:, order], rtol=0, atol=1e-5)


def test_draws_move_with_the_scene(network, model, can, hands):
    rotation, shift = exp_so3(torch.tensor([0.4, -0.9, 0.7])), torch.tensor([0.11, -0.05, 0.2])
    here = ObjectSet.of([can])
    there = replace(here, points=here.points @ rotation.T + shift, normals=here.normals @ rotation.T)
    moved = hands.transformed(rotation, shift, model.root(hands))
    expected = drawn(network, model, here, hands).joints @ rotation.T + shift
    torch.testing.assert_close(drawn(network, model, there, moved).joints, expected, rtol=0, atol=1e-3)


# Choosing -------------------------------------------------------------------------------------------


def test_the_hypothesis_that_scores_best_is_taken(network, model, can, hands):
    """Two hypotheses that see the joints a decimetre off, among them one that is right."""
    objects, weights = ObjectSet.of([can]), ScoreWeights()
    mean = predict_field(network, model, objects, ZEROS, hands)
    wrong = replace(mean, joints=mean.joints + 0.1)
    for place in range(COUNT):
        parts = [wrong] * COUNT
        parts[place] = mean
        best = best_of(model, objects, hands, mean, ContactField.cat(parts), weights)
        alone = best_of(model, objects, hands, mean, mean, weights)
        assert (distance_mm(model, best.pose, alone.pose) < 0.5).all()
        again = score(plausibility(model, objects, ZEROS, best.pose, mean), weights)
        torch.testing.assert_close(best.score, again, rtol=1e-3, atol=1e-3)


def test_a_draw_has_to_be_better_by_the_margin(network, model, can, hands):
    """The first hypothesis stands 5 mm off what the score believes, the second agrees with it."""
    objects = ObjectSet.of([can])
    mean = predict_field(network, model, objects, ZEROS, hands)
    off = replace(mean, joints=mean.joints + torch.tensor([0.005, 0.0, 0.0]))
    fields = ContactField.cat([off, mean])
    margins = (ScoreWeights(depth=0.0, gap=0.0, bias=b) for b in (3.0, -20.0))
    second, first = (best_of(model, objects, hands, mean, fields, m).pose for m in margins)
    alone = (best_of(model, objects, hands, mean, f, ScoreWeights()).pose for f in (off, mean))
    for found, expected in zip((first, second), alone, strict=True):
        assert (distance_mm(model, found, expected) < 0.5).all()
    assert (distance_mm(model, first, second) > 1).all()


def test_hypotheses_that_disagree_are_less_certain(network, model, can, hands):
    objects = ObjectSet.of([can])
    mean = predict_field(network, model, objects, ZEROS, hands)
    apart = ContactField.cat([mean, replace(mean, joints=mean.joints + torch.tensor([0.01, 0.0, 0.0]))])
    even = ScoreWeights(error=1e-6, depth=0.0, gap=0.0)  # by this score all are alike
    one, two = (best_of(model, objects, hands, mean, fields, even).variance for fields in (mean, apart))
    added = (two - one).mean(1)
    assert (added > 0.2 * 0.5 * 0.01**2 / 3).all()
    assert (added < 2.0 * 0.5 * 0.01**2 / 3).all()


def test_more_hypotheses_never_score_worse(model, can, hands, always):
    one, three = (
        refine_right_hands(hands, [can], ZEROS, model, replace(always, hypotheses=k, finalists=k)) for k in (1, COUNT)
    )
    assert (three.score_after >= one.score_after - 1e-3).all()


# Batches --------------------------------------------------------------------------------------------


def test_a_batch_may_mix_objects_and_be_cut_anywhere(model, can, block, hands, always):
    which = torch.tensor([0, 1, 0, 1])
    mixed = refine_right_hands(hands, [can, block], which, model, always)
    for mesh, rows in ((can, [0, 2]), (block, [1, 3])):
        apart = refine_right_hands(hands[rows], [mesh], ZEROS[:2], model, replace(always, batch_size=1))
        assert (distance_mm(model, mixed.pose[rows], apart.pose) < 1.0).all()
        torch.testing.assert_close(mixed.variance[rows], apart.variance, rtol=0.05, atol=1e-8)


def test_hands_that_are_kept_are_as_uncertain_as_the_prediction_is_far(network, model, can, hands, always, tmp_path):
    never = ScoreWeights(bias=-1e9, deep=(1.0, 2.0))
    weights = save_weights(network, {"score": asdict(never)}, tmp_path / "never.safetensors")
    kept = refine_right_hands(hands, [can], ZEROS, model, replace(always, weights=weights, gate=True))
    assert not kept.moved.any()
    torch.testing.assert_close(kept.pose.transl, hands.transl, rtol=0, atol=0)
    expected = expected_variance(model.joints(hands), kept.field)
    torch.testing.assert_close(kept.variance, expected, rtol=1e-4, atol=0)
    by_hand = (model.joints(hands)[0, 5] - kept.field.joints[0, 5]).square().sum() / 3
    assert float(kept.variance[0, 5]) == pytest.approx(float(by_hand + kept.field.joints_var[0, 5]), rel=1e-4)


def test_hands_are_chosen_one_by_one(hands):
    flipped = hands[[3, 2, 1, 0]]
    chosen = flipped.where(torch.tensor([True, False, False, True]), hands)
    torch.testing.assert_close(chosen.transl, hands.transl[[3, 1, 2, 0]], rtol=0, atol=0)
    torch.testing.assert_close(chosen.hand_pose, hands.hand_pose[[3, 1, 2, 0]], rtol=0, atol=0)
