"""How far hands have passed through walls: plates and blocks in closed form, a ray caster, and what depth says."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from contact.objects import ObjectMesh
from hand_models import HandPose, load_open_hand
from refine.measure.contact import penetration_depth
from refine.measure.crossing import _nearest_on_bones, bones_crossing, crossing_depth


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
