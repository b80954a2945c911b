"""Grasp synthesis: force closure against closed forms and a linear programme, and the steps of a synthesis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scipy.optimize import linprog
from scipy.spatial.transform import Rotation

from contact.corpus.grasp_types import GRASP_TYPES, Preshape, palmar_skin, preshapes
from contact.corpus.holding import Contacts, find_contacts, force_closure, holds, object_inside_hand
from contact.corpus.placement import Placement, SynthesisConfig, opposite_pairs, place
from contact.corpus.synthesis import _closest_first, close_hands
from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.anatomy import default_anatomy
from hand_models.rotations import exp_so3
from refine.measure.contact import penetration_depth

UP = torch.tensor([0.0, 0.0, 1.0])
CONFIG = SynthesisConfig(candidates=16)
TOUCH = torch.tensor([0.001])  # metres pressed in by a light touch
X = np.array([1.0, 0.0, 0.0])


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def shapes(model: HandModel) -> tuple[Preshape, ...]:
    return preshapes(model)


@pytest.fixture(scope="module")
def cylinder() -> ObjectMesh:
    return ObjectMesh.from_any(trimesh.creation.cylinder(0.03, 0.12, sections=48), resolution=48)


@pytest.fixture(scope="module")
def placement(model, cylinder, shapes) -> Placement:
    found = place(model, cylinder, shapes, UP, np.random.default_rng(0), CONFIG)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def closed(model, cylinder, shapes, placement) -> HandPose:
    return close_hands(model, cylinder, placement, shapes, UP, CONFIG)


# Force closure --------------------------------------------------------------------------------------


def pinch(offset: float = 0.0, half_width: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Two contacts on the parallel sides of a slab, ``offset`` metres from being opposite each other."""
    points = np.array([[half_width, 0.0, offset / 2], [-half_width, 0.0, -offset / 2]])
    return points, np.array([X, -X])


def test_two_opposing_soft_fingers_hold():
    assert force_closure(*pinch(), friction=0.7)


def test_one_finger_or_one_side_does_not_hold():
    points, _ = pinch()
    assert not force_closure(points[:1], X[None], friction=0.7)
    assert not force_closure(np.zeros((0, 3)), np.zeros((0, 3)), friction=0.7)
    beside = np.array([[0.02, 0.0, 0.02], [0.02, 0.0, -0.02], [0.02, 0.02, 0.0]])
    assert not force_closure(beside, np.tile(X, (3, 1)), friction=0.7)


@pytest.mark.parametrize(("degrees", "held"), [(0, True), (20, True), (30, True), (45, False), (70, False)])
def test_a_pinch_holds_while_its_line_lies_in_the_friction_cones(degrees, held):
    """Nguyen, Int. J. Robotics Research 1988: the line between the contacts within both cones; atan 0.7 = 35°."""
    offset = 0.04 * np.tan(np.deg2rad(degrees))
    assert force_closure(*pinch(offset), friction=0.7) is held


def test_without_friction_a_pinched_thing_slips():
    assert not force_closure(*pinch(), friction=0.0)


def random_contacts(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Contacts of two to five fingers on a ball."""
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(int(rng.integers(2, 6)), 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return 0.04 * normals, normals


def largest_push(points: np.ndarray, normals: np.ndarray, friction: float, edges: int = 12) -> float:
    """Largest smallest share of cone edges in a combination without wrench: positive exactly if they close."""
    wrenches = []
    for p, n in zip(points - points.mean(0), normals, strict=True):
        t = np.cross(n, [0.3, 0.5, 0.81])
        t /= np.linalg.norm(t)
        b = np.cross(n, t)
        for a in np.arange(3) * 2 * np.pi / 3:
            q = p + 0.005 * (np.cos(a) * t + np.sin(a) * b)
            for c in np.arange(edges) * 2 * np.pi / edges:
                f = -n + friction * (np.cos(c) * t + np.sin(c) * b)
                wrenches.append(np.concatenate([f, np.cross(q, f) / 0.04]))
    count = len(wrenches)
    equal = np.column_stack([np.array(wrenches).T, np.zeros(6)])
    equal = np.vstack([equal, np.append(np.ones(count), 0.0)])
    at_least = np.column_stack([-np.eye(count), np.ones(count)])
    bounds = [(0, None)] * count + [(None, None)]
    goal = np.append(np.zeros(count), -1.0)
    done = linprog(goal, A_eq=equal, b_eq=[0] * 6 + [1], A_ub=at_least, b_ub=np.zeros(count), bounds=bounds)
    return -done.fun * count if done.success else -1.0


def test_force_closure_agrees_with_a_linear_programme():
    results = []
    for seed in range(40):
        points, normals = random_contacts(seed)
        push = largest_push(points, normals, 0.7)
        if push <= 0 or push > 0.05:  # cones that all but close are decided by how they are linearised
            results.append((force_closure(points, normals, 0.7), push > 0))
    found, expected = np.array(results).T
    assert 0.2 < expected.mean() < 0.8
    assert (found == expected).mean() > 0.9


@pytest.mark.parametrize("seed", range(6))
def test_force_closure_does_not_depend_on_place_order_or_unit(seed):
    points, normals = random_contacts(seed)
    expected = force_closure(points, normals, 0.7)
    turn = Rotation.random(random_state=seed).as_matrix()
    order = np.random.default_rng(seed).permutation(len(points))
    moved = points[order] @ turn.T + [0.3, -0.1, 0.2]
    assert force_closure(moved, normals[order] @ turn.T, 0.7) == expected


# Holding --------------------------------------------------------------------------------------------


def contacts_of(bones: dict[int, tuple[np.ndarray, np.ndarray]], depth: float = 0.001) -> Contacts:
    """One hand that touches with ``bones``: bone id to (point, outward normal of the object)."""
    distance, point = torch.full((1, 16), 0.05), torch.zeros(1, 16, 3)
    normal = torch.tensor([1.0, 0.0, 0.0]).repeat(1, 16, 1)
    for bone, (where, outward) in bones.items():
        distance[0, bone] = 0.0005
        point[0, bone], normal[0, bone] = torch.from_numpy(where).float(), torch.from_numpy(outward).float()
    return Contacts(torch.tensor([depth]), distance, point, normal)


def test_a_hand_holds_when_shallow_opposed_and_closed():
    points, normals = pinch()
    thumb_and_index = {15: (points[0], normals[0]), 3: (points[1], normals[1])}
    assert holds(contacts_of(thumb_and_index), TOUCH, CONFIG).all()
    assert not holds(contacts_of(thumb_and_index, depth=0.0045), TOUCH, CONFIG).any()
    assert holds(contacts_of(thumb_and_index, depth=0.0045), 2 * TOUCH, CONFIG).all()  # a firmer hold
    two_fingers = {3: (points[0], normals[0]), 6: (points[1], normals[1])}  # no thumb
    assert not holds(contacts_of(two_fingers), TOUCH, CONFIG).any()
    same_side = {15: (points[0], normals[0]), 3: (points[0] + [0, 0.02, 0], normals[0])}
    assert not holds(contacts_of(same_side), TOUCH, CONFIG).any()
    askew, _ = pinch(offset=0.1)  # opposed, but the line between them leaves the cones
    assert not holds(contacts_of({15: (askew[0], X), 3: (askew[1], -X)}), TOUCH, CONFIG).any()
    nearly = contacts_of(thumb_and_index)
    nearly.distance[0, 3] = 0.0021  # metres: no touch
    assert not holds(nearly, TOUCH, CONFIG).any()


def test_contacts_are_those_of_the_skin(model, cylinder, closed):
    found = find_contacts(model, cylinder, closed)
    vertices = model(closed).vertices
    by_metric = torch.from_numpy(penetration_depth(vertices, cylinder)).float()
    assert (found.depth >= by_metric - 1e-6).all()
    bone = 15
    skin = vertices[:, model.part_of_vertex == bone]
    expected = torch.stack([cylinder.grid.query(v[None])[0].amin() for v in skin])
    torch.testing.assert_close(found.distance[:, bone], expected)
    torch.testing.assert_close(found.normal.norm(dim=-1), torch.ones(len(closed), 16))
    off_axis = torch.nn.functional.normalize(found.point[..., :2], dim=-1)
    beside = found.point[..., 2].abs() < 0.055
    cosine = (off_axis * found.normal[..., :2]).sum(-1)[beside]
    assert cosine.median() > 0.99  # a cylinder's normal points away from its axis


def test_a_thin_wall_inside_a_finger_is_seen(model):
    hand = HandPose.zeros(1)
    vertices = model(hand).vertices
    pad = vertices[0, model.part_of_vertex == 6].mean(0)  # in the middle finger's end bone
    assert 0.002 < float(object_inside_hand(model, vertices, pad[None])) < 0.012
    assert float(object_inside_hand(model, vertices, pad[None] + torch.tensor([0.0, 0.03, 0.0]))) == 0.0
    assert float(object_inside_hand(model, vertices, torch.full((4, 3), 9.0))) == 0.0


# Starting hands -------------------------------------------------------------------------------------


def test_opposite_pairs_span_the_width():
    ball = ObjectMesh.from_any(trimesh.creation.icosphere(3, 0.03), resolution=24)
    first, second, axis = opposite_pairs(ball, 0.08)
    assert len(first) > 20
    centre = (first + second) / 2
    assert centre.norm(dim=-1).max() < 0.009
    width = ((first - second) * axis).sum(-1)
    assert ((width > 0.05) & (width < 0.0605)).all()
    assert len(opposite_pairs(ball, 0.05)[0]) == 0


def test_placements_are_reproducible_and_differ_by_seed(model, cylinder, shapes, placement):
    again = place(model, cylinder, shapes, UP, np.random.default_rng(0), CONFIG)
    other = place(model, cylinder, shapes, UP, np.random.default_rng(1), CONFIG)
    for name in ("global_orient", "hand_pose", "betas", "transl"):
        torch.testing.assert_close(getattr(again.pose, name), getattr(placement.pose, name), rtol=0, atol=0)
    assert other.pose.transl.shape != again.pose.transl.shape or not torch.equal(other.pose.transl, again.pose.transl)


def test_a_placed_hand_reaches_round_the_object(model, cylinder, shapes, placement):
    joints = model.joints(placement.pose)
    thumb = joints[:, 4]
    count = [len(shapes[kind].kind.fingers) for kind in placement.kind.tolist()]
    fingers = torch.stack([joints[i, 8 : 8 + 4 * n : 4].mean(0) for i, n in enumerate(count)])
    # The segment from thumb to fingers passes through the cylinder.
    steps = torch.linspace(0, 1, 21)[:, None, None]
    between = thumb + steps * (fingers - thumb)
    inside = cylinder.grid.query(between.reshape(1, -1, 3))[0].reshape(21, -1).amin(0) < 0
    assert inside.float().mean() > 0.7
    wrist = joints[:, 0]
    assert (cylinder.grid.query(wrist[None])[0] > 0).all()
    assert (placement.squeeze >= 0).all()
    assert (placement.squeeze <= 2 * CONFIG.squeeze).all()
    assert (placement.squeeze <= CONFIG.yielding * max(s.kind.width[1] for s in shapes)).all()
    assert placement.squeeze.std() > 0.001  # light touches and firm holds
    assert not placement.across.any()  # nothing hollow about it


def test_an_object_too_wide_for_a_hand_has_no_placement(model, shapes):
    crate = ObjectMesh.from_any(trimesh.creation.box((0.3, 0.3, 0.3)), resolution=24)
    assert place(model, crate, shapes, UP, np.random.default_rng(0), CONFIG) is None


def test_closed_hands_hold_without_sinking_in_or_through_the_table(model, cylinder, closed, placement):
    contacts = find_contacts(model, cylinder, closed)
    good = holds(contacts, placement.squeeze, CONFIG)
    assert good.sum() >= 4
    assert (contacts.depth[good] <= placement.squeeze[good] + CONFIG.max_penetration).all()
    assert closed.finite().all()
    floor = -0.06
    lowest = model(closed[good]).vertices[..., 2].amin(1)
    assert (lowest > floor - 0.006).all()
    assert (default_anatomy().violation(closed.hand_pose[good]).abs() < 0.35).all()
    before = find_contacts(model, cylinder, placement.pose)
    touching = (contacts.distance < CONFIG.touch).sum(1)
    assert (touching[good] >= 2).all()
    assert touching.sum() > (before.distance < CONFIG.touch).sum()


def test_fingers_that_miss_stay_off_the_surface(model, cylinder, shapes, placement):
    nearly = replace(placement, able=torch.tensor([True, False, False, False, True]).expand(len(placement.able), -1))
    hands = close_hands(model, cylinder, nearly, shapes, UP, CONFIG)
    contacts = find_contacts(model, cylinder, hands)
    ends = contacts.distance[:, [3, 6, 9, 12, 15]]
    assert (ends[:, 1:4] > 0).float().mean() > 0.9  # keeps clear, but for what other costs ask
    assert (ends[:, [0, 4]] < CONFIG.touch).float().mean() > 0.8


def test_thumbs_always_may_touch(placement):
    assert placement.able[:, 4].all()
    assert 0 < placement.able[:, :4].float().mean() < 1


def test_things_are_held_by_their_near_part(model, shapes):
    """The fingers of a hand run along its -x: the object's middle lies beyond the pads."""
    slab = ObjectMesh.from_any(trimesh.creation.box((0.16, 0.16, 0.03)), resolution=32)
    found = place(model, slab, shapes, UP, np.random.default_rng(0), SynthesisConfig(candidates=64))
    assert found is not None
    hand, rotation = model(found.pose), exp_so3(found.pose.global_orient)
    pads = (hand.joints[:, 4] + hand.joints[:, 8]) / 2
    beyond = ((slab.points.mean(0) - pads)[:, None] @ rotation)[:, 0, 0]
    assert -beyond.mean() > 0.015


def test_the_skin_of_a_bone_that_is_closest_is_drawn_most():
    distance = torch.tensor([[0.0, 0.002, 0.03, 0.01, 0.01]])
    part = torch.tensor([3, 3, 3, 15, 15])
    weight = _closest_first(distance, part, 0.002)
    expected = torch.tensor([1.0, np.exp(-1), np.exp(-15)])
    assert torch.allclose(weight[0, :3], 3 * (expected / expected.sum()).float(), atol=1e-6)
    assert torch.allclose(weight[0, 3:], torch.ones(2))


def test_closing_is_reproducible_and_row_by_row(model, cylinder, shapes, placement):
    # Few steps: later, rounding can decide which part of a pad touches first.
    few = replace(CONFIG, iterations=6)
    rows = torch.tensor([3, 0])
    some = Placement(*(value[rows] for value in vars(placement).values()))
    alone = close_hands(model, cylinder, some, shapes, UP, few)
    together = close_hands(model, cylinder, placement, shapes, UP, few)[rows]
    assert (model.joints(alone) - model.joints(together)).norm(dim=-1).max() < 1e-4


# Grasp types ----------------------------------------------------------------------------------------


def test_grasp_types_are_well_formed():
    assert sum(t.share for t in GRASP_TYPES) == pytest.approx(1.0)
    assert len({t.name for t in GRASP_TYPES}) == len(GRASP_TYPES)
    for kind in GRASP_TYPES:
        bones = kind.touching_bones()
        assert len(set(bones)) == len(bones)
        assert 15 in bones  # the thumb's end
        assert (0 in bones) == kind.palm
        assert kind.width[0] < kind.width[1]
    pinch_type = replace(GRASP_TYPES[-1], fingers=("index",), bones=1, palm=False)
    assert sorted(pinch_type.touching_bones()) == [3, 15]


def test_preshapes_close_the_hand(shapes):
    for shape in shapes:
        assert shape.opening[0] > shape.kind.width[1] - 0.03
        assert shape.opening.argmin() > len(shape.opening) // 2
        assert (shape.opening[:5].diff() < 0).all()
        assert shape.hand_pose.isfinite().all()


def test_palmar_skin_faces_where_the_hand_closes(model):
    palmar = palmar_skin(model, default_anatomy())
    assert 0.2 < palmar.float().mean() < 0.6
    fingers = (model.part_of_vertex > 0) & (model.part_of_vertex < 13)
    y = model.rest_canonical[:, 1]
    assert y[palmar & fingers].mean() < y[~palmar & fingers].mean() - 0.005
