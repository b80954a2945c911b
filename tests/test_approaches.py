"""Hands drawn off their objects: how far off they really are, against trimesh, and that they are varied."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectPoints, ObjectSet
from contact.train.approaches import FARTHEST, NEAREST, clearance, withdraw
from hand_models import HandModel, HandPose, load_open_hand

BATCH = 64


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def solids() -> list[trimesh.Trimesh]:
    return [trimesh.creation.box([0.05, 0.07, 0.12]), trimesh.creation.cylinder(0.03, 0.14, sections=32)]


@pytest.fixture(scope="module")
def objects(solids: list[trimesh.Trimesh]) -> ObjectPoints:
    every = ObjectSet.of([ObjectMesh.from_any(s, resolution=16, cache=False) for s in solids])
    return every[torch.arange(BATCH) % 2]


@pytest.fixture(scope="module")
def grasps() -> HandPose:
    """Half-closed hands about the objects."""
    generator = torch.Generator().manual_seed(0)
    bend = torch.zeros(BATCH, 15, 3)
    bend[:, :12, 2] = 0.5 + 0.1 * torch.randn(BATCH, 12, generator=generator)
    transl = torch.tensor([-0.02, 0.075, 0.0]) + 0.01 * torch.randn(BATCH, 3, generator=generator)
    orient = 0.2 * torch.randn(BATCH, 3, generator=generator)
    return HandPose("right", orient, bend, torch.zeros(BATCH, 10), transl)


@pytest.fixture(scope="module")
def drawn(model: HandModel, grasps: HandPose, objects: ObjectPoints) -> tuple[HandPose, torch.Tensor]:
    return withdraw(model, grasps, objects, torch.Generator().manual_seed(1))


def exact(model: HandModel, pose: HandPose, solids: list[trimesh.Trimesh]) -> np.ndarray:
    """Metres of the closest skin from the mesh of every hand, by trimesh; negative inside."""
    vertices = model(pose).vertices.double().numpy()
    return np.array([
        -trimesh.proximity.signed_distance(solids[k % 2], v[::3]).max() for k, v in enumerate(vertices)
    ])  # fmt: skip


def test_found_hands_are_off_their_objects(model, grasps, drawn, solids):
    pose, found = drawn
    assert found.float().mean() > 0.9
    distance = exact(model, pose, solids)[found.numpy()]
    # A place counts as found within half of the distance that was drawn; object points and skin are samples.
    assert (distance > 0.2 * NEAREST).all()
    assert (distance < 1.5 * FARTHEST + 0.01).all()
    # Evenly in the logarithm: as many within 2 cm as between 2 and 13.
    assert 0.2 < (distance < 0.02).mean() < 0.5
    assert (distance > 0.2).any()


def test_hands_without_a_place_are_as_given(grasps, drawn, model, objects):
    pose, found = drawn
    assert torch.equal(pose.transl[~found], grasps.transl[~found])
    assert torch.equal(pose.hand_pose[~found], grasps.hand_pose[~found])
    never, nowhere = withdraw(model, grasps[:4], far_apart(objects[torch.arange(4)]), torch.Generator().manual_seed(0))
    assert not nowhere.any()
    assert torch.equal(never.transl, grasps.transl[:4])


def far_apart(objects: ObjectPoints) -> ObjectPoints:
    """Points whose normals all look away from where they are: every place is inside."""
    centre = objects.points.mean(1, keepdim=True)
    inwards = torch.nn.functional.normalize(centre - objects.points, dim=-1)
    return replace(objects, normals=inwards)


def test_hands_open_as_they_go(grasps, drawn, model, objects):
    """Near the object they are still closed; some are about something else altogether."""
    pose, found = drawn
    changed = (pose.hand_pose - grasps.hand_pose).flatten(1).norm(dim=1)
    off = clearance(model, pose, objects)
    near, far = found & (off < 0.02), found & (off > 0.1)
    assert changed[near].median() < 0.6 * changed[far].median()
    assert torch.equal(pose.betas, grasps.betas)


def test_clearance_is_the_distance_of_the_closest_skin(model, grasps, objects, solids):
    away = replace(grasps, transl=grasps.transl + 0.1)
    np.testing.assert_allclose(clearance(model, away, objects), exact(model, away, solids), atol=0.003, rtol=0.06)
    inside = replace(grasps, transl=grasps.transl - model.joints(grasps)[:, 9])
    assert (clearance(model, inside, objects) < -0.01).all()


def test_skin_beside_an_edge_is_outside(model, objects):
    """Beyond an edge the nearest point may look another way: that must not count as inside."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.nn.functional.normalize(torch.randn(BATCH, 3, generator=generator), dim=1)
    hands = replace(HandPose.zeros(BATCH), global_orient=2 * turn)
    hands = replace(hands, transl=0.25 * turn.roll(1, 0) - model.joints(hands).mean(1))
    assert (clearance(model, hands, objects) > 0.02).all()


def test_equal_generators_draw_the_same(model, grasps, objects, drawn):
    again, found = withdraw(model, grasps, objects, torch.Generator().manual_seed(1))
    assert torch.equal(again.transl, drawn[0].transl)
    assert torch.equal(found, drawn[1])
