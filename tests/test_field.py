"""Ground-truth contact fields against closed forms (spheres, rods, plates) and a brute-force ray caster."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from contact.capsule import contact_at_distance
from contact.field import ContactField, field_from_pose
from contact.objects import ObjectMesh
from hand_models.model import HandModel
from hand_models.open_hand import load_open_hand
from hand_models.pose import HandPose


def solid_hand(mesh: trimesh.Trimesh, cap: Tensor | None = None) -> HandModel:
    """A rigid 'hand' of any closed shape; its 16 parts are slices along x. ``cap``: faces that are not skin."""
    vertices = torch.tensor(np.asarray(mesh.vertices), dtype=torch.float32)
    faces, count = torch.tensor(np.asarray(mesh.faces), dtype=torch.int64), len(mesh.vertices)
    rank = vertices[:, 0].argsort().argsort()
    weights = torch.nn.functional.one_hot(rank * 16 // count, 16).float()
    mean = torch.full((16, count), 1.0 / count)
    skin = faces if cap is None else faces[~cap]
    ids = torch.arange(count)
    return HandModel(
        "solid", "right", vertices, torch.zeros(count, 3, 10), None, mean, weights, skin, faces, mean[:5],
        ids[:: max(1, count // 400)],
    )  # fmt: skip


def at(*positions: tuple[float, float, float], side: str = "right") -> HandPose:
    return replace(HandPose.zeros(len(positions), side=side), transl=torch.tensor(positions))


def solid(mesh: trimesh.Trimesh, points: int = 1500) -> ObjectMesh:
    return ObjectMesh.from_any(mesh, n_points=points, resolution=48, cache=False)


def ball(radius: float, subdivisions: int = 4) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)


@pytest.fixture(scope="module")
def rod() -> HandModel:
    """A finger of radius 9 mm and length 10 cm along x."""
    mesh = trimesh.creation.capsule(height=0.1, radius=0.009, count=[64, 64])
    mesh.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [0, 1, 0]))
    return solid_hand(mesh.subdivide())


@pytest.fixture(scope="module")
def block() -> ObjectMesh:
    """A block with its top at z = 0."""
    mesh = trimesh.creation.box([0.12, 0.12, 0.06])
    mesh.apply_translation([0, 0, -0.03])
    return solid(mesh, 6000)


@pytest.mark.parametrize("height", [0.025, 0.012, 0.009, 0.007, 0.003])
def test_finger_above_and_in_a_block(rod: HandModel, block: ObjectMesh, height: float) -> None:
    """From clear of the surface to 6 mm deep: every top point below the finger finds its underside."""
    field = field_from_pose(rod, at((0.0, 0.0, height)), block)
    x, y, z = block.points.unbind(1)
    below = (z > -1e-5) & (x.abs() < 0.045) & (y.abs() < 0.007)
    assert below.sum() > 100
    assert (field.near[0][below] == 1).all()
    underside = height - (0.009**2 - y**2).clamp_min(0).sqrt()
    assert (field.gap[0] - underside)[below].abs().max() < 1e-4  # what faceting leaves
    on_hand = field.targets(block.points, block.normals)[0] - torch.tensor([0.0, 0.0, height])
    torch.testing.assert_close(field.canonical[0][below], on_hand[below], atol=5e-6, rtol=0)
    elsewhere = (z > -1e-5) & (y.abs() > 0.0125)
    assert (field.near[0][elsewhere] == 0).all()


def test_parts_come_from_the_point_that_is_met(rod: HandModel, block: ObjectMesh) -> None:
    field = field_from_pose(rod, at((0.0, 0.0, 0.012)), block)
    hit = field.near[0] == 1
    nearest = torch.cdist(field.canonical[0][hit], rod.rest_canonical).argmin(1)
    agree = field.part[0][hit].argmax(1) == rod.part_of_vertex[nearest]
    assert agree.float().mean() > 0.9  # a triangle may span two parts
    torch.testing.assert_close(field.part.sum(-1), torch.ones_like(field.near))
    assert (field.part[0][~hit] == 1 / 16).all()


@pytest.mark.parametrize("gap", [0.02, 0.004, 0.0, -0.003])
def test_ball_hand_on_a_ball(gap: float) -> None:
    """On the line of centres the gap and both contact maps are known."""
    hand, target = solid_hand(ball(0.01)), solid(ball(0.03), 3000)
    position = torch.tensor([0.0, 0.0, 0.04 + gap])
    field = field_from_pose(hand, at((0.0, 0.0, 0.04 + gap)), target)
    # Contact over the ball: the capsule at angle a to the line of centres, closed form of the distances.
    closest = position + 0.01 * torch.nn.functional.normalize(target.points - position, dim=1)
    offset = closest - target.points
    along = (offset * target.normals).sum(1).clamp(-0.0015, 0.0005)
    axis = (offset - along[:, None] * target.normals).norm(dim=1)
    near = (target.points - position).norm(dim=1) < 0.018
    expected = (0.001 / axis.clamp_min(0.001)).clamp_max(1)
    torch.testing.assert_close(field.contact[0][near], expected[near], atol=0.02, rtol=0.02)
    top = target.points[:, 2].argmax()
    assert field.near[0, top] == 1
    assert field.gap[0, top].item() == pytest.approx(gap, abs=3e-4)
    signed = (hand(at((0.0, 0.0, 0.04 + gap))).vertices[0, hand.contact_points]).norm(dim=1) - 0.03
    torch.testing.assert_close(field.hand_contact[0], contact_at_distance(signed), atol=0.03, rtol=0.1)


def test_targets_lie_on_the_posed_hand() -> None:
    """Exactness on the real hand: p + gap n is the posed point whose rest position is `canonical`."""
    model, target = load_open_hand(), solid(ball(0.035))
    generator = torch.Generator().manual_seed(0)
    pose = replace(
        HandPose.zeros(4),
        hand_pose=torch.rand(4, 15, 3, generator=generator) * torch.tensor([0.1, 0.1, 0.9]),
        transl=torch.tensor([[0.0, 0.045, 0.0], [-0.02, 0.042, 0.01], [0.02, 0.05, -0.01], [0.0, 0.035, 0.0]]),
    )
    field, vertices = field_from_pose(model, pose, target), model(pose).vertices
    wanted = field.targets(target.points, target.normals)
    for b in range(4):
        hit = field.near[b] == 1
        assert hit.sum() > 50
        posed = trimesh.Trimesh(vertices[b].numpy(), model.faces.numpy(), process=False)
        _, off, face = trimesh.proximity.closest_point(posed, wanted[b][hit].numpy())
        assert off.max() < 1.1e-3
        assert np.median(off) < 1e-5
        rest = trimesh.Trimesh(model.rest_canonical.numpy(), model.faces.numpy(), process=False)
        _, off_rest, _ = trimesh.proximity.closest_point(rest, field.canonical[b][hit].numpy())
        assert off_rest.max() < 1e-5
        # The same triangle, at the same weights, in the posed and in the rest hand.
        chosen = wanted[b][hit].numpy()[off < 1e-6], field.canonical[b][hit].numpy()[off < 1e-6]
        weights = [
            trimesh.triangles.points_to_barycentric(m.triangles[face[off < 1e-6]], p)
            for m, p in zip((posed, rest), chosen, strict=True)
        ]
        assert np.median(np.abs(weights[0] - weights[1]).max(1)) < 1e-3


def _all_crossings(triangles: np.ndarray, point: np.ndarray, direction: np.ndarray) -> list[tuple[float, bool]]:
    """(signed distance, entering) of every triangle the line through ``point`` crosses, by plain algebra."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    matrix = np.stack([b - a, c - a, -np.broadcast_to(direction, a.shape)], -1)
    regular = np.abs(np.linalg.det(matrix)) > 1e-16
    u, v, t = np.linalg.solve(matrix[regular], (point - a[regular])[..., None])[..., 0].T
    inside = (u >= 0) & (v >= 0) & (u + v <= 1)
    entering = np.cross(b - a, c - a)[regular] @ direction < 0
    return sorted(zip(t[inside], entering[inside], strict=True))


def test_against_brute_force_rays_on_the_open_hand() -> None:
    model, target = load_open_hand(), solid(trimesh.creation.box([0.05, 0.05, 0.12]), 400)
    pose = replace(
        HandPose.zeros(1),
        hand_pose=torch.tensor([0.0, 0.0, 0.7]).expand(1, 15, 3),
        transl=torch.tensor([[-0.02, 0.045, 0.0]]),
    )
    field = field_from_pose(model, pose, target)
    triangles = model(pose).vertices[0].double().numpy()[model.faces_for("right").numpy()]
    compared = 0
    for i in range(len(target.points)):
        crossings = _all_crossings(triangles, target.points[i].double().numpy(), target.normals[i].double().numpy())
        ahead = [(t, entering) for t, entering in crossings if t > 0]
        expected = None
        if ahead and ahead[0][1]:
            expected = ahead[0][0] if ahead[0][0] <= 0.03 else None
        elif ahead:
            behind = [t for t, entering in crossings if t <= 0 and entering]
            expected = behind[-1] if behind and -behind[-1] <= 0.015 else None
        if expected is None:  # a closest point may stand in, or there is nothing
            assert field.near[0, i] == 0 or field.gap[0, i].abs() < 0.0026
        else:
            assert field.near[0, i] == 1
            assert field.gap[0, i].item() == pytest.approx(expected, abs=1e-4)
            compared += 1
    assert compared > 40


def test_pinch_through_a_thin_plate(rod: HandModel) -> None:
    """Two fingers press 2.5 mm into a 2 mm plate from either side: each side keeps its own finger."""
    plate = solid(trimesh.creation.box([0.08, 0.08, 0.002]), 4000)
    above = rod.template + torch.tensor([0.0, 0.0, 0.0075])
    below = rod.template - torch.tensor([0.0, 0.0, 0.0075])
    faces = torch.cat([rod.faces, rod.faces + len(rod.template)])
    pair = solid_hand(trimesh.Trimesh(torch.cat([above, below]).numpy(), faces.numpy(), process=False))
    field = field_from_pose(pair, at((0.0, 0.0, 0.0)), plate)
    x, y, _ = plate.points.unbind(1)
    for sign in (1.0, -1.0):
        here = (plate.normals[:, 2] * sign > 0.9) & (x.abs() < 0.035) & (y.abs() < 0.003)
        assert (field.near[0][here] == 1).all()
        finger = 0.0075 - (0.009**2 - y[here] ** 2).sqrt() - 0.001
        torch.testing.assert_close(field.gap[0][here], finger, atol=1e-4, rtol=0)
        assert (field.canonical[0][here, 2] * sign < 0.003).all()


def test_what_lies_behind_the_object_itself_is_not_met(rod: HandModel) -> None:
    """A tube: points of its inner wall look across at the other wall, not at the finger outside it."""
    tube = solid(trimesh.creation.annulus(r_min=0.008, r_max=0.01, height=0.06, sections=64), 4000)
    field = field_from_pose(rod, at((0.0, 0.0195, 0.0)), tube)
    inner = tube.points[:, :2].norm(dim=1) < 0.0085
    facing = inner & (tube.points[:, 1] < -0.007) & (tube.points[:, 2].abs() < 0.005)
    assert facing.sum() > 10
    assert (field.near[0][facing] == 0).all()
    outer = (tube.points[:, 1] > 0.0095) & (tube.points[:, 2].abs() < 0.004)
    assert (field.near[0][outer] == 1).all()


def test_the_wrist_cap_is_not_skin(block: ObjectMesh) -> None:
    """A stump whose flat end, facing the block, is the cap: nothing corresponds to it."""
    mesh = trimesh.creation.cylinder(radius=0.01, height=0.04, sections=64)
    stump = solid_hand(mesh, cap=torch.tensor(mesh.face_normals[:, 2] < -0.9))
    open_end = field_from_pose(stump, at((0.0, 0.0, 0.025)), block)
    whole = field_from_pose(solid_hand(mesh), at((0.0, 0.0, 0.025)), block)
    assert open_end.near.sum() == 0
    assert whole.near.sum() > 25


def test_a_far_hand_touches_nothing(rod: HandModel, block: ObjectMesh) -> None:
    field = field_from_pose(rod, at((0.0, 0.0, 0.5)), block)
    assert field.near.sum() == 0
    assert field.contact.max() < 0.0025
    assert field.hand_contact.max() < 0.0025


def test_left_hand_is_the_mirror_image(block: ObjectMesh) -> None:
    model = load_open_hand()
    generator = torch.Generator().manual_seed(1)
    pose = replace(
        HandPose.zeros(2),
        global_orient=torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.2, 0.0]]) + torch.tensor([np.pi / 2, 0, 0]).float(),
        hand_pose=torch.rand(2, 15, 3, generator=generator) * 0.3,
        transl=torch.tensor([[-0.09, 0.0, 0.02], [-0.1, 0.01, 0.015]]),
    )
    right = field_from_pose(model, pose, block)
    left = field_from_pose(model, pose.mirrored(), block.mirrored())
    assert right.near.sum() > 50
    for name in ("contact", "near", "gap", "canonical", "hand_contact"):
        ours, theirs = getattr(right.mirrored(), name), getattr(left, name)
        different = (ours - theirs).abs().reshape(2, len(ours[0]), -1).amax(-1) > 2e-4
        assert different.float().mean() < 0.005, name  # rays grazing a silhouette may fall either way


def test_one_object_per_hand(rod: HandModel) -> None:
    objects = [solid(ball(0.02), 300), solid(ball(0.03), 300)]
    pose = at((0.0, 0.0, 0.03), (0.0, 0.0, 0.04))
    both = field_from_pose(rod, pose, objects)
    for b, one in enumerate(objects):
        alone = field_from_pose(rod, pose[b], one)
        for name in ("contact", "near", "gap", "hand_contact"):
            torch.testing.assert_close(getattr(both, name)[b : b + 1], getattr(alone, name))
    with pytest.raises(ValueError, match="object_mesh"):
        field_from_pose(rod, pose[0], objects)


def test_batch_operations(rod: HandModel, block: ObjectMesh) -> None:
    field = field_from_pose(rod, at((0.0, 0.0, 0.01), (0.0, 0.0, 0.02), (0.01, 0.0, 0.01)), block)
    assert len(field) == 3
    joined = ContactField.cat([field[0], field[1:]])
    for f in fields(ContactField):
        if getattr(field, f.name) is not None:
            assert torch.equal(getattr(joined, f.name), getattr(field, f.name))
    assert field.joints is None
    assert len(field[torch.arange(3).repeat_interleave(2)]) == 6
    assert field.to(torch.float64).contact.dtype == torch.float64
    believed = replace(field, joints=torch.rand(3, 21, 3), joints_var=torch.rand(3, 21))
    flipped = believed.mirrored()
    torch.testing.assert_close(flipped.joints[..., 0], -believed.joints[..., 0])
    torch.testing.assert_close(flipped.mirrored().joints, believed.joints)
    assert ContactField.cat([believed, field]).joints is None
    assert len(field_from_pose(rod, HandPose.zeros(0), block)) == 0
    with pytest.raises(ValueError, match="parts"):
        ContactField.cat([])


def test_hand_that_is_not_finite_is_refused(rod: HandModel, block: ObjectMesh) -> None:
    with pytest.raises(ValueError, match="pose"):
        field_from_pose(rod, at((0.0, float("nan"), 0.0)), block)
