"""Ray-cast pictures against closed forms: silhouettes, shading, occlusion, normals, heat maps."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import trimesh

from refine.view.appearance import (
    OBJECT,
    contact_colours,
    corner_normals,
    smoother,
    spread,
    subdivide,
    uncertainty_colours,
)
from refine.view.camera import Camera, frame, look_at
from refine.view.pictures import GraspView, Row, before_after_sheet
from refine.view.render import Lights, render
from refine.view.scene import Item, Scene, auto_camera, openness

RADIUS, DISTANCE, FOV = 0.05, 0.4, 0.6


def sphere(radius: float = RADIUS, centre: tuple[float, float, float] = (0, 0, 0), level: int = 4) -> Item:
    mesh = trimesh.creation.icosphere(level, radius)
    return Item(mesh.vertices + np.array(centre), mesh.faces, gloss=0.0)


def visible(items: list[Item], camera: Camera, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel's centre, the item seen, -1 for none, and its distance in metres, infinite for none."""
    scene = Scene(items)
    eye, directions = camera.rays(size)
    found = scene.cast(eye, directions.reshape(-1, 3))
    hit = found["primID"] >= 0
    item = np.where(hit, scene.item[np.where(hit, found["primID"], 0)], -1)
    distance = np.where(hit, found["tfar"] * scene.radius, np.inf)
    return item.reshape(size[1], size[0]), distance.reshape(size[1], size[0])


def test_look_at_axes_are_opencv() -> None:
    camera = look_at((1, 0, 0), (0, 0, 0))
    np.testing.assert_allclose(camera.pose[:3, 2], (-1, 0, 0), atol=1e-12)  # forward
    np.testing.assert_allclose(camera.pose[:3, 1], (0, 0, -1), atol=1e-12)  # down
    assert np.linalg.det(camera.pose[:3, :3]) == pytest.approx(1.0)
    straight_down = look_at((0, 0, 1), (0, 0, 0)).pose[:3, :3]
    np.testing.assert_allclose(straight_down @ straight_down.T, np.eye(3), atol=1e-12)
    with pytest.raises(ValueError, match="one point"):
        look_at((0, 0, 0), (0, 0, 0))


def test_rays_span_the_field_of_view() -> None:
    _, directions = look_at((1, 0, 0), (0, 0, 0), fov=FOV).rays((64, 48), samples=3)
    assert directions.shape == (144, 192, 3)
    middle = directions[:, 95:97].mean(1)
    angle = np.arccos(middle[0] @ middle[-1] / np.linalg.norm(middle[0]) / np.linalg.norm(middle[-1]))
    assert angle == pytest.approx(2 * np.arctan(np.tan(FOV / 2) * 143 / 144), abs=1e-3)


def test_silhouette_and_depth_of_a_sphere() -> None:
    item, distance = visible([sphere()], look_at((DISTANCE, 0, 0), (0, 0, 0), fov=FOV), (401, 301))
    pixels = 301 / 2 / np.tan(FOV / 2) * RADIUS / np.sqrt(DISTANCE**2 - RADIUS**2)
    assert (item == 0).sum() == pytest.approx(np.pi * pixels**2, rel=0.01)
    assert distance[150, 200] == pytest.approx(DISTANCE - RADIUS, abs=1e-4)
    assert np.isinf(distance[0, 0])
    assert item[0, 0] == -1


def test_nearer_item_hides_the_farther() -> None:
    front, back = sphere(0.02, (0.2, 0, 0)), sphere()
    item, _ = visible([back, front], look_at((DISTANCE, 0, 0), (0, 0, 0)), (81, 61))
    assert item[30, 40] == 1


def test_frame_holds_every_vertex_and_is_tight() -> None:
    points = np.random.default_rng(0).normal(size=(300, 3)) * (0.1, 0.05, 0.02)
    camera = frame(points, (1, 0.3, 0.5), size=(640, 480), margin=0.1)
    local = (points - camera.pose[:3, 3]) @ camera.pose[:3, :3]
    at = np.abs(local[:, :2] / local[:, 2:]) / np.tan(camera.fov / 2) / (640 / 480, 1)
    assert at.max() == pytest.approx(0.8, abs=1e-6)


def test_centre_of_a_sphere_is_shaded_as_the_light_model_says() -> None:
    lights, colour = Lights(), np.array(OBJECT)
    picture = render(
        [sphere()], look_at((DISTANCE, 0, 0), (0, 0, 0), fov=FOV), (65, 65), 1, lights=lights, ground=False
    )
    albedo = ((colour + 0.055) / 1.055) ** 2.4

    def cosine(direction: tuple[float, float, float]) -> float:
        return direction[2] / np.linalg.norm(direction)  # the normal there points at the viewer

    light = (lights.sky + lights.earth) / 2  # seen side-on: half sky, half earth
    light += lights.key * cosine(lights.key_direction) + lights.fill * cosine(lights.fill_direction)
    expected = 255 * (1.055 * np.clip(albedo * light, 0, 1) ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(picture[32, 32], expected, atol=2)


def test_picture_is_uint8_and_the_same_every_time() -> None:
    items = [sphere(), sphere(0.03, (0.03, 0.06, 0.0))]
    first, again = (render(items, size=(80, 60)) for _ in range(2))
    assert first.shape == (60, 80, 3)
    assert first.dtype == np.uint8
    assert (first == again).all()
    assert first.std() > 5


def test_scale_and_place_of_the_scene_do_not_matter() -> None:
    small = sphere()
    large = Item(np.asarray(small.vertices) * 1000 + 5000, small.faces, gloss=0.0)
    near = render([small], frame(small.vertices, (1, 0, 0.3)), (60, 60)).astype(int)
    far = render([large], frame(large.vertices, (1, 0, 0.3)), (60, 60)).astype(int)
    assert (np.abs(near - far) <= 2).mean() > 0.99


def test_occlusion_at_the_foot_of_a_wall() -> None:
    # floor element at distance x from a long wall of height h: form factor (1 - x / sqrt(x² + h²)) / 2
    wall = trimesh.creation.box((0.01, 20.0, 1.0))
    wall.apply_translation((-0.005, 0, 0.5))
    floor = trimesh.creation.box((4.0, 20.0, 0.01))
    floor.apply_translation((2.0, 0, -0.005))
    x = np.array([0.15, 0.5, 1.0, 2.0])
    points = np.stack([x, 0 * x, 0 * x], axis=1)
    items = [Item(m.vertices, m.faces) for m in (wall, floor)]
    found = openness(items, points, np.tile([0.0, 0, 1], (4, 1)), rays=4096, reach=100.0)
    np.testing.assert_allclose(found, 1 - (1 - x / np.hypot(x, 1.0)) / 2, atol=0.025)


def test_vertex_colours_are_interpolated() -> None:
    item = sphere()
    colours = np.where(np.asarray(item.vertices)[:, 1:2] > 0, (1.0, 0, 0), (0, 0, 1.0))
    picture = render([Item(item.vertices, item.faces, colours)], look_at((DISTANCE, 0, 0), (0, 0, 0)), (61, 61), 1)
    left, right = picture[30, 25].astype(int), picture[30, 35].astype(int)
    assert right[0] > right[2]  # +y is to the right of a camera that looks along -x
    assert left[2] > left[0]


def test_auto_camera_finds_the_side_where_the_small_item_is() -> None:
    ball, bead = sphere(), sphere(0.01, (0, 0.056, 0), level=2)
    camera = auto_camera([ball, bead])
    item, _ = visible([ball, bead], camera, (100, 75))
    assert (item == 1).sum() > 10
    assert camera.pose[1, 3] > 0


def test_missing_embreex_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "embreex"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "embreex", None)
    with pytest.raises(ImportError, match=r"pip install 'regrasp\[render\]'"):
        render([sphere()], size=(8, 8))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (Item(np.zeros((3, 2)), np.array([[0, 1, 2]])), "vertices"),
        (Item(np.full((3, 3), np.nan), np.array([[0, 1, 2]])), "vertices"),
        (Item(np.zeros((3, 3)), np.array([[0, 1, 3]])), "faces"),
        (Item(np.zeros((3, 3)), np.zeros((0, 3), int)), "faces"),
        (Item(np.eye(3), np.array([[0, 1, 2]]), np.zeros((2, 3))), "colour"),
    ],
)
def test_malformed_items_are_named(item: Item, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        render([item], look_at((1, 1, 1), (0, 0, 0)), (8, 8))
    with pytest.raises(ValueError, match="no meshes"):
        render([], look_at((1, 1, 1), (0, 0, 0)), (8, 8))


def test_corner_normals_are_sharp_on_a_box_and_smooth_on_a_sphere() -> None:
    box = trimesh.creation.box((1, 2, 3))
    np.testing.assert_allclose(
        corner_normals(box.vertices, box.faces), np.repeat(box.face_normals[:, None], 3, 1), atol=1e-6
    )
    ball = trimesh.creation.icosphere(4)
    assert (corner_normals(ball.vertices, ball.faces) * ball.vertices[ball.faces]).sum(-1).min() > 0.9999
    soup = ball.vertices[ball.faces].reshape(-1, 3)  # every triangle with vertices of its own
    loose = corner_normals(soup, np.arange(len(soup)).reshape(-1, 3))
    assert (loose * ball.vertices[ball.faces]).sum(-1).min() > 0.9999


def test_smoother_keeps_vertices_and_nears_the_sphere() -> None:
    ball = trimesh.creation.icosphere(2)
    mesh = smoother(ball.vertices, ball.faces)
    np.testing.assert_array_equal(mesh.vertices[: len(ball.vertices)], ball.vertices)
    flat = 1 - np.linalg.norm(ball.vertices[mesh.edges].mean(1), axis=1)
    curved = np.abs(1 - np.linalg.norm(mesh.vertices[len(ball.vertices) :], axis=1))
    assert curved.max() < 0.15 * flat.max()
    fine = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert fine.is_watertight
    assert fine.volume > ball.volume
    np.testing.assert_allclose(mesh.carry(ball.vertices)[mesh.faces].mean((0, 1)), 0, atol=1e-12)
    old, new = (corners.mean(1) for corners in (ball.vertices[ball.faces], mesh.vertices[mesh.faces]))
    assert np.linalg.norm(np.tile(old, (4, 1)) - new, axis=1).max() < 0.3  # blocks follow the old order


def test_subdivide_keeps_shape_and_shading() -> None:
    tube = trimesh.creation.cylinder(0.03, 0.1, sections=24)
    normals = corner_normals(tube.vertices, tube.faces)
    vertices, faces, fine = subdivide(tube.vertices, tube.faces, normals, max_edge=0.008)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.edges_unique_length.max() <= 0.008 + 1e-6
    assert mesh.area == pytest.approx(tube.area, rel=1e-4)
    side = np.abs(fine[:, :, 2]).max(1) < 0.5
    radial = vertices[faces[side]][..., :2]
    radial /= np.linalg.norm(radial, axis=-1, keepdims=True)
    assert (fine[side][..., :2] * radial).sum(-1).min() > 0.995
    np.testing.assert_allclose(np.abs(fine[~side][..., 2]), 1, atol=1e-6)


def test_spread_interpolates_and_respects_thin_walls() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.05, 0.05, (4000, 3)) * (1, 1, 0)
    onto = rng.uniform(-0.04, 0.04, (200, 3)) * (1, 1, 0)
    np.testing.assert_allclose(spread(points, np.full(4000, 0.3), onto), 0.3)
    np.testing.assert_allclose(spread(points, 10 * points[:, 0], onto, radius=0.002), 10 * onto[:, 0], atol=0.02)
    both = np.concatenate([points, points - (0, 0, 0.001)])
    normals = np.repeat([[0.0, 0, 1], [0, 0, -1]], 4000, axis=0)
    up = np.tile([0.0, 0, 1], (200, 1))
    values = np.repeat([1.0, 0.0], 4000)
    assert spread(both, values, onto, point_normals=normals, onto_normals=up).min() > 0.999
    with pytest.raises(ValueError, match="one value per point"):
        spread(points, np.zeros(3), onto)


def test_colour_maps_start_at_the_base_and_clip() -> None:
    colours = contact_colours(np.array([0.0, 1.0, 2.0, np.nan]))
    np.testing.assert_allclose(colours[0], OBJECT, atol=1e-6)
    np.testing.assert_allclose(colours[1], colours[2])
    np.testing.assert_allclose(colours[3], OBJECT, atol=1e-6)
    assert uncertainty_colours(np.zeros((2, 5))).shape == (2, 5, 3)


def grasp_view(**more: object) -> GraspView:
    """A ball for a hand and a box for an object, touching after and apart before."""
    hand = trimesh.creation.icosphere(2, 0.03)
    box = trimesh.creation.box((0.05, 0.05, 0.1))
    points, face = trimesh.sample.sample_surface(box, 400, seed=0)
    after = hand.vertices + np.array([0.055, 0, 0])
    contact = np.exp(-np.linalg.norm(points - (0.025, 0, 0), axis=1) / 0.01)
    settings: dict = {
        "title": "box", "object_vertices": box.vertices, "object_faces": box.faces, "hand_faces": hand.faces,
        "before": after + np.array([0.03, 0, 0.02]), "after": after, "object_points": np.asarray(points),
        "object_normals": box.face_normals[face], "object_contact": contact,
    }  # fmt: skip
    return GraspView(**settings | more)


def test_heat_map_lies_where_the_contact_is() -> None:
    vertices, _, _, contact = grasp_view().object_surface
    near = np.linalg.norm(vertices - (0.025, 0, 0), axis=1) < 0.006
    assert contact[near].mean() > 0.3
    assert contact[vertices[:, 0] < 0].max() < 0.1


def test_before_and_after_share_a_camera_and_fill_a_sheet(tmp_path) -> None:
    before, after = grasp_view().pictures((96, 72), 1)
    assert before.shape == after.shape == (72, 96, 3)
    assert (before != after).any()
    path = tmp_path / "sheet.png"
    sheet = before_after_sheet([Row(f"grasp {i}", before, after) for i in range(3)], path, columns=2, title="t")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sheet.width > 4 * 96
    assert sheet.height > 2 * 72
    colours = np.asarray(sheet).reshape(-1, 3)
    assert (colours < 90).all(1).sum() > 20  # there is writing
    with pytest.raises(ValueError, match="rows is empty"):
        before_after_sheet([])
    with pytest.raises(ValueError, match="differ in size"):
        before_after_sheet([Row("a", before, after[:-1])])
