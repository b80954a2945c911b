"""Samples: plausible hands with probabilities, drawn per observation and not per place in the batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from contact.input_error import InputError
from contact.network import ContactNet, NetworkConfig
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from contact.weights import save_weights
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.rotations import exp_so3
from refine import RefineConfig, RefineResult, refine_grasp
from refine.solve import samples as module
from refine.solve.fields import DRAWN_POINTS, EncodedGrasps, load_weights
from refine.solve.refine_hands import refine_right_hands
from refine.solve.samples import Samples
from refine.solve.score import load_score, plausibility, score

pytestmark = pytest.mark.filterwarnings("ignore:hand_pose")  # an untrained network's hands look wrong
COUNT = 4
ZEROS = torch.zeros(4, dtype=torch.long)


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


def untrained(latent: float) -> ContactNet:
    """A calm network that has learnt nothing, whose latent says as much as ``latent``."""
    torch.manual_seed(0)
    network = ContactNet(NetworkConfig(fine=8, middle=8, token=16, layers=2, heads=2))
    with torch.no_grad():
        network.point_head.bias[2] = -8.0  # near
        network.skin_head[-1].bias[0] = -8.0  # touching
        network.joint_head[-1].bias[3] = -3.0  # spread
        for adapter in network.latent.adapters:
            adapter.out.weight.mul_(latent / 0.02)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RefineConfig:
    path = save_weights(untrained(0.5), {}, tmp_path_factory.mktemp("weights") / "tiny.safetensors")
    return RefineConfig(weights=path, volumes=False)


@pytest.fixture(scope="module")
def can() -> ObjectMesh:
    return ObjectMesh.from_any(trimesh.creation.cylinder(0.032, 0.12, sections=48), resolution=64)


@pytest.fixture(scope="module")
def hands() -> HandPose:
    generator = torch.Generator().manual_seed(0)
    bend = torch.zeros(4, 15, 3)
    bend[:, :12, 2] = 0.5 + 0.1 * torch.randn(4, 12, generator=generator)
    transl = torch.tensor([-0.02, 0.075, 0.0]) + 0.015 * torch.randn(4, 3, generator=generator)
    return HandPose("right", 0.2 * torch.randn(4, 3, generator=generator), bend, torch.zeros(4, 10), transl)


@pytest.fixture(scope="module")
def result(hands, can, config) -> RefineResult:
    return refine_grasp(hands, can, config=config, samples=COUNT)


def samples(found: RefineResult) -> Samples:
    assert found.samples is not None
    return found.samples


def farthest_mm(a: Tensor, b: Tensor) -> float:
    """Mean joint distance of the two most unlike of samples ``(B, K, 21, 3)`` that go together.

    Which goes with which is found anew: samples that score all but alike may change places.
    """
    distance = (a[:, :, None] - b[:, None]).norm(dim=-1).mean(-1)
    return 1e3 * float(torch.maximum(distance.amin(1), distance.amin(2)).max())


def spread_mm(joints: Tensor) -> Tensor:
    """(B,) mean distance of the joints of samples ``(B, K, 21, 3)`` from their middle."""
    return 1e3 * (joints - joints.mean(1, keepdim=True)).norm(dim=-1).mean((1, 2))


# Drawing --------------------------------------------------------------------------------------------


def test_draws_are_the_networks_own(model, can, hands):
    """Over fewer points, but else what `ContactNet.predict` draws."""
    network = untrained(0.5)
    grasps = EncodedGrasps.of(network, model, ObjectSet.of([can]), ZEROS, hands)
    noise = torch.randn(COUNT, network.config.latent, generator=torch.Generator().manual_seed(5))
    every = noise[:, None].expand(-1, 4, -1)
    expected = network.predict(model, grasps.observation, grasps.hierarchy, every).at(slice(DRAWN_POINTS))
    found = grasps.draws(noise)
    for name in ("contact", "canonical", "gap_var", "hand_contact", "joints", "joints_cov"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5)


def test_shapes_and_poses_go_together(model, hands, result):
    found = samples(result)
    assert found.probability.shape == (4, COUNT)
    assert found.joints.shape == (4, COUNT, 21, 3)
    assert len(found) == 4
    assert len(found.pose) == 4 * COUNT
    torch.testing.assert_close(model.joints(found.pose).unflatten(0, (4, COUNT)), found.joints, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.pose.betas, hands.betas.repeat_interleave(COUNT, 0))
    assert (spread_mm(found.joints) > 2).all()


def test_the_single_hand_is_what_it_is_without_samples(hands, can, config, result):
    alone = refine_grasp(hands, can, config=config)
    assert alone.samples is None
    for name in ("transl", "global_orient", "hand_pose"):
        assert torch.equal(getattr(alone.pose, name), getattr(result.pose, name))
    np.testing.assert_array_equal(alone.uncertainty, result.uncertainty)


def test_probabilities_are_the_odds_of_the_score(model, can, hands, config, result):
    found, objects = samples(result), ObjectSet.of([can])
    torch.testing.assert_close(found.probability.sum(1), torch.ones(4))
    assert (found.probability[:, :-1] >= found.probability[:, 1:]).all()
    mean = EncodedGrasps.of(load_weights(config.weights), model, objects, ZEROS, hands).mean()
    weights = load_score(config.weights)
    each = [score(plausibility(model, objects, ZEROS, found.pose[k::COUNT], mean), weights) for k in range(COUNT)]
    odds = torch.stack(each, 1).exp()
    torch.testing.assert_close(found.probability, odds / odds.sum(1, keepdim=True), rtol=1e-3, atol=1e-5)


def test_samples_depend_on_the_seed_and_not_on_the_batch(hands, can, config, result):
    again, other = (samples(refine_grasp(hands, can, config=config, samples=COUNT, seed=s)) for s in (0, 1))
    assert torch.equal(again.joints, samples(result).joints)
    assert torch.equal(again.probability, samples(result).probability)
    assert farthest_mm(other.joints, again.joints) > 2
    order = torch.tensor([2, 0, 3, 1])
    cut = refine_grasp(hands[order], can, config=replace(config, batch_size=3), samples=COUNT)
    assert farthest_mm(samples(cut).joints, again.joints[order]) < 0.5
    torch.testing.assert_close(samples(cut).probability, again.probability[order], atol=0.02, rtol=0)


def test_no_more_are_solved_at_once_than_allowed(monkeypatch, hands, can, config):
    sizes, whole = [], module.optimise

    def counted(model: Any, objects: Any, which: Tensor, *others: Any) -> Any:
        sizes.append(len(which))
        return whole(model, objects, which, *others)

    monkeypatch.setattr(module, "optimise", counted)
    refine_grasp(hands[:2], can, config=replace(config, batch_size=5), samples=3)
    assert sizes == [4, 2]


def test_objects_may_be_mixed(model, can, hands, config):
    block = ObjectMesh.from_any(trimesh.creation.box((0.05, 0.07, 0.12)), resolution=64)
    which = torch.tensor([0, 1, 0, 1])
    mixed = refine_right_hands(hands, [can, block], which, model, config, samples=2).samples
    for number, mesh in enumerate((can, block)):
        alone = refine_right_hands(hands[which == number], [mesh], ZEROS[:2], model, config, samples=2).samples
        assert farthest_mm(mixed[which == number].joints, alone.joints) < 0.5


def test_a_solve_without_a_finite_end_is_the_last_and_impossible(monkeypatch, hands, can, config, result):
    whole, calls = module.score, []

    def first_fails(*arguments: Any) -> Tensor:
        calls.append(arguments)
        found = whole(*arguments)
        return torch.full_like(found, torch.nan) if len(calls) == 1 else found

    monkeypatch.setattr(module, "score", first_fails)
    found = samples(refine_grasp(hands, can, config=replace(config, batch_size=4), samples=COUNT))
    assert len(calls) == COUNT
    assert (found.probability[:, -1] == 0).all()
    torch.testing.assert_close(found.probability.sum(1), torch.ones(4))
    assert farthest_mm(found.joints, samples(result).joints) < 0.5


# What is left open ----------------------------------------------------------------------------------


def test_they_spread_as_far_as_the_input_may_be_off(hands, can, config):
    spreads = []
    for size in (0.25, 1.0, 4.0):
        error = InputError(0.01 * size, 0.05 * size, 0.2 * size)
        found = refine_grasp(hands, can, config=config, samples=COUNT, input_error=error)
        spreads.append(spread_mm(samples(found).joints))
    assert (spreads[1] > 2 * spreads[0]).all()
    assert (spreads[2] > 2 * spreads[1]).all()
    exact = samples(refine_grasp(hands, can, config=config, samples=2, input_error="exact"))
    assert (spread_mm(exact.joints) < 0.1).all()


def test_a_latent_that_says_nothing_gives_the_mean_solution(hands, can, config, tmp_path):
    path = save_weights(untrained(0.0), {}, tmp_path / "silent.safetensors")
    silent = replace(config, weights=path, gate=False)
    found = refine_grasp(hands, can, config=silent, samples=COUNT, holding=True)
    assert (spread_mm(samples(found).joints) < 1e-3).all()
    torch.testing.assert_close(samples(found).probability, torch.full((4, COUNT), 1 / COUNT), atol=1e-3, rtol=0)
    middle = samples(found).joints.mean(1, keepdim=True)
    assert farthest_mm(middle, found.joints_after[:, None]) < 2  # over fewer points


# Frames ---------------------------------------------------------------------------------------------


def test_they_move_with_the_camera(model, hands, can, config, result):
    matrix = torch.eye(4)
    matrix[:3, :3] = exp_so3(torch.tensor([0.5, -1.0, 0.3]))
    matrix[:3, 3] = torch.tensor([0.1, -0.05, 0.7])
    seen = hands.transformed(matrix[:3, :3], matrix[:3, 3], model.root(hands))
    found = samples(refine_grasp(seen, can, object_pose=matrix.numpy(), config=config, samples=COUNT))
    assert farthest_mm(found.joints, samples(result).joints) < 0.5
    there = found.joints @ matrix[:3, :3].T + matrix[:3, 3]
    torch.testing.assert_close(model.joints(found.pose).view_as(there), there, atol=1e-5, rtol=0)


def test_they_move_with_hand_and_object(model, hands, can, config, result):
    rotation, shift = exp_so3(torch.tensor([0.0, 0.0, torch.pi / 2])), torch.tensor([0.2, 0.1, -0.3])
    turned = ObjectMesh.from_any((can.vertices @ rotation.T + shift, can.faces), resolution=64)
    points, normals = can.points @ rotation.T + shift, can.normals @ rotation.T
    turned = replace(turned, points=points, normals=normals, thickness=can.thickness)  # the same points on it
    moved = hands.transformed(rotation, shift, model.root(hands))
    found = samples(refine_grasp(moved, turned, config=config, samples=COUNT))
    assert farthest_mm(found.joints, samples(result).joints @ rotation.T + shift) < 1


def test_left_hands_are_drawn_in_the_mirror(model, hands, can, config, result):
    mirrored = refine_grasp(hands.mirrored(), can.mirrored(), config=config, samples=COUNT)
    found, flip = samples(mirrored), torch.tensor([-1.0, 1.0, 1.0])
    assert found.pose.side == "left"
    assert farthest_mm(found.joints * flip, samples(result).joints) < 0.5
    joints = model.mirrored().joints(found.pose).view_as(found.joints)
    torch.testing.assert_close(joints, found.joints, atol=1e-5, rtol=0)


# Results --------------------------------------------------------------------------------------------


def test_rows_that_failed_or_hold_nothing_have_none(hands, can, config, result):
    broken = replace(hands, transl=hands.transl.clone().index_fill_(0, torch.tensor(1), torch.nan))
    found = refine_grasp(broken, can, config=config, samples=COUNT, holding=[None, None, False, None])
    assert found.samples.probability.isnan().all(1).tolist() == [False, True, True, False]
    assert found.samples.joints.isnan().flatten(1).all(1).tolist() == [False, True, True, False]
    assert found.samples.pose.finite().view(4, COUNT).all(1).tolist() == [True, False, False, True]
    assert farthest_mm(found.samples.joints[[0, 3]], samples(result).joints[[0, 3]]) < 0.5


@pytest.mark.parametrize("index", [2, -1, slice(1, 3), [3, 0], torch.tensor([False, True, True, False])])
def test_rows_of_a_result_keep_their_samples(result, index):
    some, every = samples(result[index]), samples(result)
    rows = [index] if isinstance(index, int) else index
    assert torch.equal(some.joints, every.joints[rows])
    assert torch.equal(some.probability, every.probability[rows])
    shape = (4, COUNT, 3)
    assert torch.equal(some.pose.transl.view(-1, *shape[1:]), every.pose.transl.view(shape)[rows])
    assert torch.equal(every[index].pose.transl, some.pose.transl)


def test_samples_are_saved_and_loaded(result, tmp_path):
    again = RefineResult.load(result.save(tmp_path / "saved"))
    one, other = samples(result), samples(again)
    assert torch.equal(one.probability, other.probability)
    assert torch.equal(one.joints, other.joints)
    assert one.pose.side == other.pose.side
    for name, value in one.pose.as_arrays().items():
        np.testing.assert_array_equal(value, other.pose.as_arrays()[name])
    bare = replace(result, samples=None)
    assert RefineResult.load(bare.save(tmp_path / "bare")).samples is None


@pytest.mark.parametrize("count", [0, -2, 2.0, True, "3"])
def test_a_number_that_is_none_is_refused(hands, can, config, count):
    with pytest.raises(ValueError, match=r"samples: got .*; give how many hands to draw, 1 or more"):
        refine_grasp(hands, can, config=config, samples=count)


def test_where_there_are_no_samples_is_said(hands, can, config):
    with pytest.raises(ValueError, match="samples: method 'contactopt' draws none"):
        refine_grasp(hands, can, config=replace(config, method="contactopt"), samples=2)
    with pytest.raises(ValueError, match="samples: is for single hands"):
        refine_grasp([hands, hands.mirrored()], can, config=config, samples=2)
