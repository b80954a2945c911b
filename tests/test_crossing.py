"""How far hands have passed through walls: plates and blocks in closed form, a ray caster, and what depth says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from term_checks import check_term
from torch import Tensor

from contact.crossing import BonesOnTheirSide, bone_points, passage
from contact.field import field_from_pose
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.solver.states import HandState
from refine.config import RefineConfig
from refine.measure.contact import penetration_depth
from refine.measure.crossing import _nearest_on_bones, bones_crossing, crossing_depth
from refine.solve.decision import Refined, decide
from refine.solve.optimize import Solved
from refine.solve.score import ScoreWeights
from refine.solve.way_out import brought_out, in_walls, lifted


@pytest.fixture(scope="module")
def plate() -> ObjectMesh:
    """4 mm thick, z from -2 to 2 mm."""
    return ObjectMesh.from_any(trimesh.creation.box((0.2, 0.2, 0.004)), resolution=96, cache=False)


def straight_hand(height: float, spread: float = 0.02) -> np.ndarray:
    """Joints (1, 21, 3) of fingers that lie side by side, parallel to the plate, ``height`` metres above its middle."""
    joints = np.zeros((21, 3))
    for finger in range(5):
        for k in range(4):
            joints[1 + 4 * finger + k] = [0.02 * (k + 1), spread * (finger - 2), 0]
    return (joints + np.array([-0.05, 0, height]))[None]


@pytest.mark.parametrize(
    ("bone", "radius", "expected"),
    [
        (0.012, 0.009, 0.0),  # 1 mm above the plate
        (0.010, 0.009, 0.001),  # sunk in by 1 mm
        (0.005, 0.009, 0.006),  # through the plate and 2 mm out
        (0.000, 0.009, 0.009),  # the bone is inside
        (-0.012, 0.009, 0.0),  # on the other side of it
    ],
)
def test_skin_that_came_through_a_plate(plate, bone, radius, expected):
    joints = straight_hand(bone)
    skin = np.concatenate([joints[0, 1:] - [0, 0, radius], joints[0, 1:] + [0, 0, radius]])[None]
    assert crossing_depth(joints, skin, plate)[0] == pytest.approx(expected, abs=2e-4)
    assert penetration_depth(skin, plate)[0] <= 0.002 + 1e-4  # half a wall, however far it is through


def test_bones_in_a_wall_are_counted(plate):
    flat, through = straight_hand(0.02), straight_hand(0.02)
    through[0, 7:9, 2] = -0.02  # the end of the index finger is behind the plate
    joints = np.concatenate([flat, through, np.full_like(flat, np.nan)])
    np.testing.assert_array_equal(bones_crossing(joints, plate), [0, 1, np.nan])
    touching = straight_hand(0.008)
    touching[0, 8, 2] = 0.001  # a fingertip in the plate: skin, not bone
    assert bones_crossing(touching, plate)[0] == 0


def test_a_ray_caster_agrees(plate):
    """On an open hand that stands in the plate, turned at random: the first hit of each ray, by trimesh."""
    rng = np.random.default_rng(0)
    model = load_open_hand()
    pose = HandPose.zeros(1)
    hand = model(pose)
    turn = trimesh.transformations.random_rotation_matrix(rng.random(3))[:3, :3]
    centre = hand.joints[0].numpy().mean(0)
    joints, skin = ((p[0].numpy().astype(np.float64) - centre) @ turn.T for p in (hand.joints, hand.vertices))
    skin = skin[rng.choice(len(skin), 150, replace=False)]
    best = 0.0
    axis = _nearest_on_bones(joints, skin)
    length = np.linalg.norm(skin - axis, axis=1)
    box = plate.trimesh
    where, ray, _ = trimesh.ray.ray_triangle.RayMeshIntersector(box).intersects_location(
        axis, (skin - axis) / length[:, None], multiple_hits=True
    )
    for k in range(len(skin)):
        hits = np.linalg.norm(where[ray == k] - axis[k], axis=1)
        inside = np.abs(axis[k, 2]) < 0.002
        entry = 0.0 if inside else hits.min(initial=np.inf)
        best = max(best, length[k] - entry)
    assert best > 0.005
    assert crossing_depth(joints[None], skin[None], plate)[0] == pytest.approx(best, abs=3e-4)
    assert bones_crossing(joints[None], plate)[0] > 0


# The way back ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def walls(plate) -> ObjectSet:
    """The plate, and a block that is 6 cm thick."""
    block = ObjectMesh.from_any(trimesh.creation.box((0.2, 0.2, 0.06)), resolution=96, cache=False)
    return ObjectSet.of([plate, block])


def poking(height: float) -> tuple[HandModel, HandPose]:
    """A flat hand, palm down, whose knuckles are ``height`` metres above z = 0 and whose index finger points down."""
    model = load_open_hand()
    pose = HandPose.zeros(1)
    bent = pose.hand_pose.clone()
    flexed = torch.zeros(15, 3)
    flexed[0, 0] = 1.2
    bent[0] = model.anatomy.from_anatomical(flexed)
    joints = model.joints(replace(pose, hand_pose=bent))[0]
    along, across = joints[9] - joints[0], joints[17] - joints[5]
    normal = torch.nn.functional.normalize(torch.linalg.cross(along, across), dim=0)
    tip = joints[8] - joints[5]
    normal = normal * torch.sign(-(normal * tip).sum())  # away from where the finger points
    x = torch.nn.functional.normalize(along - (along * normal).sum() * normal, dim=0)
    turn = torch.stack([x, torch.linalg.cross(normal, x), normal])
    pose = replace(pose, hand_pose=bent).transformed(turn, torch.zeros(3), model.root(pose))
    knuckle = model.joints(pose)[0, 5]
    return model, replace(pose, transl=pose.transl + torch.tensor([0.0, 0.0, height]) - knuckle)


def test_a_finger_through_a_plate_is_behind_it_by_as_much_as_it_sticks_out(walls):
    model, pose = poking(0.03)
    joints, which = model.joints(pose), torch.zeros(1, dtype=torch.long)
    found = passage(joints, which, walls)
    index = found.depth[0, 2]
    assert bool(found.crossing)
    end = torch.lerp(joints[0, 7], joints[0, 8], 0.75)[2]
    assert float(index.max()) == pytest.approx(0.002 - float(end), abs=3e-4)  # from the face on the knuckle's side
    assert float(index.max()) > 0.01
    torch.testing.assert_close(found.normal[0, 2], torch.tensor([0.0, 0.0, 1.0]), atol=1e-3, rtol=0)
    assert (found.depth[0, 4:] == 0).all()  # the other fingers are above
    clear = replace(pose, transl=pose.transl + torch.tensor([0.0, 0.0, 0.1]))
    deep = replace(pose, transl=pose.transl + torch.tensor([0.0, 0.0, 0.028]))  # as far inside the block
    assert not passage(model.joints(clear), which, walls).crossing
    assert not passage(model.joints(deep), which + 1, walls).crossing  # of which depth tells
    assert walls.grid.query(bone_points(model.joints(deep)).flatten(1, 2), which + 1)[0].amin() < 0


def test_its_derivative(walls):
    model, pose = poking(0.03)
    model, state_pose = model.to(torch.float64), pose.map(Tensor.double)
    exact = replace(walls, grid=replace(walls.grid, values=walls.grid.values.double()))
    term = BonesOnTheirSide(torch.zeros(1, dtype=torch.long), exact)

    def residual(term: BonesOnTheirSide, state: HandState) -> Tensor:
        found = passage(state.joints.points, term.which, term.objects, term.margin)
        return found.depth[..., ::4].flatten(1) / term.std

    found = check_term(term, HandState.of(state_pose, model), residual)
    assert found.cost > 0
    clear = replace(state_pose, transl=state_pose.transl + torch.tensor([0.0, 0.0, 0.1]).double())
    assert term.linearize(HandState.of(clear, model)) == []


@pytest.mark.parametrize("height", [0.03, 0.02])
def test_a_finger_comes_back_to_its_knuckles_side(walls, height):
    model, pose = poking(height)
    which = torch.zeros(1, dtype=torch.long)
    arguments = (model, walls, which, pose, torch.zeros(1), torch.ones(1), RefineConfig())
    out, moved = brought_out(*arguments, far=1.0)
    assert bool(moved)
    assert not brought_out(*arguments, far=1e-4)[1]  # the way is longer than that: it is not this hand's error
    assert (model.joints(out)[0, 1:, 2] > 0.0).all()  # all above the middle of the plate
    assert not in_walls(model, walls, which, out)
    way = (model.joints(out) - model.joints(pose)).norm(dim=2).mean()
    assert way < lifted(model, walls, which, pose).transl.sub(pose.transl).norm()  # less than the whole hand moving


def test_lifting_off_is_the_least_step_that_frees_the_hand(walls):
    model, pose = poking(0.03)
    which = torch.zeros(1, dtype=torch.long)
    off = lifted(model, walls, which, pose)
    points = bone_points(model.joints(off)).flatten(1, 2)
    assert walls.grid.query(points, which)[0].amin() > 0
    end = torch.lerp(model.joints(pose)[0, 7], model.joints(pose)[0, 8], 0.75)[2]
    assert float((off.transl - pose.transl).norm()) >= 0.002 - float(end)


def test_a_result_that_crosses_never_beats_one_that_does_not(walls, monkeypatch):
    """Whatever the scores say; and where the hand is known to be apart it still moves out of the wall."""
    model, pose = poking(0.03)
    which, clear = torch.zeros(1, dtype=torch.long), replace(pose, transl=pose.transl + torch.tensor([0.0, 0.0, 0.08]))
    field = field_from_pose(model, clear, ObjectMesh.from_any(trimesh.creation.box((0.2, 0.2, 0.004)), cache=False))
    field = replace(field, joints=model.joints(clear), joints_var=torch.full((1, 21), 1e-4), holding=torch.ones(1))
    nothing = torch.full((1,), torch.nan)

    def decided(given: HandPose, best: HandPose, score: float, known: Tensor = nothing) -> Refined:
        solved = Solved(best, torch.full((1,), score), torch.full((1, 21), 1e-6), torch.ones(1))
        return decide(
            model, walls, which, given, solved, field, ScoreWeights(), RefineConfig(), stated=nothing > 0, known=known,
            given_var=torch.full((1, 21), torch.nan),
        )  # fmt: skip

    assert decided(pose, clear, -1e3).share == 1
    assert decided(clear, pose, 1e3).share == 0
    monkeypatch.setattr("refine.solve.decision.FAR", 1.0)  # the hand may be off by as much
    apart = decided(pose, clear, 1e3, torch.zeros(1))
    assert apart.share == 0
    assert bool(apart.moved)
    for found in (decided(pose, pose, 1e3), decided(pose, pose, -1e3), apart):
        assert not in_walls(model, walls, which, found.pose)
