"""The user's own picture behind the hand: the hand lies where it was seen, on pages and in ray-cast pictures."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from browser import open_page, shot
from PIL import Image
from test_html import data_of

from contact.corpus.shapes import demo_shapes
from hand_models import load_open_hand
from refine.commands.cli import main
from refine.commands.demo import GRASPS
from refine.commands.view import Run, ViewOptions, reports_of
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.prediction_poses import hand_poses
from refine.view.camera import look_at
from refine.view.film import over_photos
from refine.view.page import grasp_page, write_page
from refine.view.photo import Photo
from refine.view.pictures import GraspView
from refine.view.viewable import Viewable, ViewableMotion

LENS = np.array([[700.0, 4.0, 250.0], [0.0, 650.0, 260.0], [0.0, 0.0, 1.0]])
PIXEL = np.array([330.0, 210.0])
"""Where a bright spot is in the picture, and where the hand is seen."""
DEPTH = 0.5


@pytest.fixture(scope="module")
def view() -> GraspView:
    """A small ball as a hand, a box elsewhere, and a black picture with a white spot where the ball is seen."""
    pose = look_at((0.3, 0.35, 0.2), (0.02, 0.0, 0.05)).pose
    along = np.linalg.inv(LENS) @ np.array([*PIXEL, 1.0])
    centre = pose[:3, :3] @ (DEPTH * along) + pose[:3, 3]
    ball = trimesh.creation.icosphere(2, 0.005)
    box = trimesh.creation.box((0.02, 0.02, 0.02))
    box.apply_translation(pose[:3, :3] @ (-0.1, 0.05, 0.5) + pose[:3, 3])
    image = np.zeros((480, 640, 3), np.uint8)
    x, y = PIXEL.astype(int)
    image[y - 2 : y + 3, x - 2 : x + 3] = 255
    photo = Photo.of(image, LENS, np.tile(PIXEL, (21, 1)), np.linalg.inv(pose))
    after = ball.vertices + centre
    return GraspView(
        "spot", box.vertices, box.faces, ball.faces, after + 0.05, after, photo=photo,
        joints=np.tile(centre, (21, 1)), joint_sd=np.full(21, 0.001), object_points=box.vertices,
        object_normals=box.vertex_normals, object_contact=np.ones(8),
        object_distance={"before": np.zeros(8), "after": np.zeros(8)},
    )  # fmt: skip


def spot(picture: np.ndarray, near: np.ndarray, window: int = 30) -> np.ndarray:
    """Middle of what is bright within ``window`` pixels."""
    y, x = np.nonzero(picture.max(2) > 40)
    close = np.hypot(x - near[0], y - near[1]) < window
    assert close.sum() > 8
    return np.array([x[close].mean(), y[close].mean()])


def test_a_point_is_seen_at_its_pixel_at_any_size(view: GraspView) -> None:
    photo = view.photo
    np.testing.assert_allclose(photo.project(view.joints), np.tile(PIXEL, (21, 1)), atol=1e-9)
    np.testing.assert_allclose(photo.depth(view.joints), DEPTH)
    for longest in (640, 333, 100):
        small = photo.within(longest)
        assert max(small.size) == longest
        np.testing.assert_allclose(small.project(view.joints), small.keypoints, atol=1e-9)
        if longest > 200:
            assert np.abs(spot(small.image, small.keypoints[0]) - small.keypoints[0]).max() < 0.6


@pytest.mark.parametrize("longest", [640, 400])
def test_a_ray_cast_hand_lies_on_its_picture(view: GraspView, longest: int) -> None:
    bare = replace(view, photo=replace(view.photo, keypoints=None))
    drawn = bare.on_photo("after", longest, opacity=1.0)
    where = view.photo.within(longest).keypoints[0]
    assert np.abs(spot(drawn, where) - where).max() < 1.0
    nothing = bare.on_photo("after", longest, opacity=0.0)
    assert np.array_equal(nothing, bare.photo.within(longest).image)
    assert (bare.on_photo("before", longest) != bare.on_photo("after", longest)).any()
    ringed = view.on_photo("after", longest, opacity=0.0)
    assert (ringed != nothing).any()
    film = list(over_photos([bare, bare], longest, samples=1))
    assert [frame.shape for frame in film] == [(nothing.shape[0], 2 * longest, 3)] * 2
    with pytest.raises(ValueError, match="no photo"):
        replace(view, photo=None).on_photo()


def seen(page: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(shot(page))).convert("RGB"))


@pytest.mark.parametrize("size", [(1000, 700), (390, 800)])
def test_the_browser_draws_the_hand_on_its_picture(view: GraspView, tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_page(view, tmp_path / "page.html")
    with open_page(path.as_uri(), size) as (page, complaints):
        page.locator("#own").click()
        page.locator("#sigma").click()

        def cover(share: float) -> np.ndarray:
            page.evaluate(
                f"e => {{ e.value = {share}; e.dispatchEvent(new Event('input')); }}", page.query_selector("#over")
            )
            return seen(page)

        def places() -> tuple[np.ndarray, np.ndarray]:
            """Of the keypoint's cross and of the refined joint."""
            shot(page)
            cross = page.locator("#joints path").first.get_attribute("d")
            x, y = (float(number) for number in cross[1 : cross.index("h")].split(","))
            circle = page.locator("#joints circle").first
            return np.array([x + 5, y]), np.array([float(circle.get_attribute(name)) for name in ("cx", "cy")])

        hide = page.add_style_tag(content="#joints{visibility:hidden}")
        for step in range(2):
            key, joint = places()
            np.testing.assert_allclose(key, joint, atol=0.1)
            picture, hand = spot(cover(0.0), key), spot(cover(1.0), key)
            np.testing.assert_allclose(picture + 0.5, key, atol=1.0)  # pixels of a screenshot begin at their corner
            np.testing.assert_allclose(hand, picture, atol=1.5)
            box = page.locator("#view").bounding_box()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            if step == 0:  # nearer, and aside
                page.mouse.wheel(0, -300)
                page.mouse.down()
                page.mouse.move(box["x"] + box["width"] / 2 - 20, box["y"] + box["height"] / 2 + 15)
                page.mouse.up()
        assert hide is not None
        own = seen(page)
        page.locator("#paintObject").select_option("both")
        seen(page)  # side by side, either before its own picture
        halves = [page.locator(name).bounding_box() for name in ("#left", "#right")]
        panes = [page.locator(".pane").nth(k).bounding_box() for k in range(2)]
        for boxes in (halves, panes):
            assert boxes[1]["x"] == pytest.approx(boxes[0]["x"] + boxes[0]["width"], abs=1)
        page.locator("#free").click()
        assert (seen(page) != own).any()
        assert complaints == []


def test_each_frame_of_a_sequence_has_its_picture(view: GraspView, tmp_path: Path) -> None:
    bright = replace(view.photo, image=np.full_like(view.photo.image, 200))
    path = write_page([view, replace(view, photo=bright)], tmp_path / "page.html")
    with open_page(path.as_uri()) as (page, complaints):
        page.locator("#own").click()
        dark = seen(page).mean()
        page.evaluate("e => { e.value = 1; e.dispatchEvent(new Event('input')); }", page.query_selector("#frame"))
        page.wait_for_timeout(200)
        assert seen(page).mean() > dark + 50
        assert complaints == []
    assert data_of(grasp_page([view, replace(view, photo=None)]))["photos"] is None


class One(Viewable):
    def __init__(self, view: GraspView) -> None:
        self._view = replace(view, photo=None)
        self.object_pose = np.linalg.inv(view.photo.pose)[None]

    def view(self, index: int = 0, **shown: Any) -> GraspView:
        return self._view


class Motion(ViewableMotion):
    fps = 10.0
    object = SimpleNamespace(name="spot")

    def __init__(self, view: GraspView) -> None:
        self._view = replace(view, photo=None)

    def __len__(self) -> int:
        return 2

    def view(self, index: int = 0, **shown: Any) -> GraspView:
        return self._view


def test_results_take_the_picture_they_were_seen_in(view: GraspView, tmp_path: Path) -> None:
    Image.fromarray(view.photo.image).save(tmp_path / "seen.png")
    one, given = One(view), {"image": tmp_path / "seen.png", "camera": LENS, "keypoints_2d": view.photo.keypoints[None]}
    photo = one.view_on_photo(0, *given.values()).photo
    np.testing.assert_allclose(photo.project(view.joints), photo.keypoints, atol=1e-6)
    page = one.to_html(tmp_path / "a.html", **given).read_text(encoding="utf-8")
    assert len(data_of(page)["photos"]["images"]) == 1
    assert data_of(one.to_html(tmp_path / "b.html").read_text(encoding="utf-8"))["photos"] is None
    with Image.open(one.to_png(tmp_path / "a.png", size=(320, 240), **given)) as picture:
        assert picture.size == (640, 240)
    with Image.open(one.to_png(tmp_path / "b.png", size=(40, 30))) as picture:
        assert picture.size == (80, 30)
    for wrong, message in (
        ({"camera": None}, "camera: an image needs"), ({"camera": np.eye(2)}, r"shape \(2, 2\)"),
        ({"keypoints_2d": np.zeros((21, 3))}, "keypoints_2d"), ({"image": np.zeros((4, 4, 3))}, "uint8"),
        ({"image": __file__}, "no picture"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            one.to_html(tmp_path / "c.html", **given | wrong)
    with pytest.raises(FileNotFoundError):
        one.to_html(tmp_path / "c.html", **given | {"image": tmp_path / "none.png"})


def test_a_film_of_a_motion_lies_on_the_users_frames(view: GraspView, tmp_path: Path) -> None:
    # A motion is in the frame of the camera, so the view has to be.
    to_camera = np.linalg.inv(view.photo.pose)

    def move(points: np.ndarray) -> np.ndarray:
        return points @ to_camera[:3, :3].T + to_camera[:3, 3]

    inside = replace(
        view, before=move(view.before), after=move(view.after), object_vertices=move(view.object_vertices),
        joints=move(view.joints),
    )  # fmt: skip
    motion, images = Motion(inside), [view.photo.image, np.fliplr(view.photo.image)]
    path = motion.to_gif(tmp_path / "a.gif", size=(320, 240), every=1, images=images, camera=LENS)
    with Image.open(path) as film:
        assert (film.n_frames, film.size) == (2, (640, 240))
        drawn = np.asarray(film.convert("RGB"))[:, 320:]
    where = view.photo.within(320).keypoints[0]
    assert np.abs(spot(drawn, where) - where).max() < 1.5
    page = motion.to_html(tmp_path / "a.html", images=images, camera=LENS)
    assert len(data_of(page.read_text(encoding="utf-8"))["photos"]["images"]) == 2
    with pytest.raises(ValueError, match="images: 1 for 2 frames"):
        motion.to_html(tmp_path / "b.html", images=images[:1], camera=LENS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, with --report and --images, of three rows before a camera: two have a picture of their name."""
    folder = tmp_path_factory.mktemp("run")
    model, grasps = load_open_hand(), read_predictions(GRASPS)
    one = grasps.take(np.flatnonzero(grasps.object_id == "apple")[:1].repeat(3))
    place = np.eye(4, dtype=np.float32)
    place[:3, 3] = (0.05, -0.02, 0.7)
    pose = hand_poses(one, np.arange(3), model)
    pose = replace(pose, transl=pose.transl + torch.from_numpy(place[:3, 3]))
    seen = model.joints(pose).numpy() @ LENS.T
    write_predictions(folder / "in.npz", replace(
        one, transl=pose.transl.numpy(), object_pose=np.tile(place, (3, 1, 1)), cam_K=np.tile(LENS, (3, 1, 1)),
        keypoints_2d=seen[..., :2] / seen[..., 2:], frame_id=np.array(["a/one", "two.png", "../secret"]),
    ))  # fmt: skip
    (folder / "images").mkdir()
    for name in ("images/one.jpg", "images/two.png", "secret.png"):
        Image.new("RGB", (640, 480), (90, 120, 90)).save(folder / name)
    demo_shapes()["apple"].export(folder / "apple.obj")
    status = main([
        "refine", str(folder / "in.npz"), "--objects", str(folder / "apple.obj"), "--out", str(folder / "out"),
        "--report", "--images", str(folder / "images"), "--steps", "2",
    ])  # fmt: skip
    assert status == 0
    return folder


def test_pages_of_a_run_have_the_pictures_of_their_rows(run: Path) -> None:
    pages = [(run / "out" / "in.report" / "pages" / f"000000{row}.html").read_text("utf-8") for row in range(3)]
    photos = [data_of(page)["photos"] for page in pages]
    assert [photo is not None for photo in photos] == [True, True, False]  # what lies beside the folder is not shown
    refined = read_predictions(run / "out" / "in.refined.npz")
    report = reports_of(ViewOptions(run / "out", images=run / "images"))["in"]
    for row in range(2):
        view = report.view(row)
        off = np.linalg.norm(view.photo.project(view.joints) - view.photo.keypoints, axis=1).mean()
        assert off == pytest.approx(refined.reprojection_px_after[row], abs=0.05)
        assert off < 20
    assert report.view(2).photo is None


def test_a_server_adds_pictures_to_pages_that_had_none(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "out", tmp_path / "out")
    for page in (tmp_path / "out" / "in.report" / "pages").iterdir():
        page.write_text("drawn without")
    shown = Run.of(ViewOptions(tmp_path / "out", images=run / "images"))
    for _ in range(2):
        assert data_of(shown.answer("/in/pages/0000000.html").body.decode())["photos"] is not None
    assert Run.of(ViewOptions(tmp_path / "out")).answer("/in/pages/0000001.html").body == b"drawn without"


def test_a_motion_of_a_run_plays_over_its_pictures(run: Path, tmp_path: Path) -> None:
    rows = read_predictions(run / "in.npz")
    named = {"sequence_id": np.full(3, "m"), "frame_index": np.arange(3), "frame_id": np.array(["one", "two", "one"])}
    write_predictions(tmp_path / "m.npz", replace(rows, counts_frames=True, **named))
    command = ["refine", str(tmp_path / "m.npz"), "--objects", str(run / "apple.obj"), "--out", str(tmp_path)]
    assert main([*command, "--report", "--report-rows", "0", "--images", str(run / "images")]) == 0
    (page,) = (tmp_path / "m.report" / "motions").glob("*.html")
    assert len(data_of(page.read_text(encoding="utf-8"))["photos"]["images"]) == 3


def test_images_belong_to_a_report(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["refine", str(run / "in.npz"), "--objects", str(run), "--out", str(run / "o"), "--images"]
    assert main([*command, str(run / "images")]) == 2
    assert "--report; add that" in capsys.readouterr().err
    assert main([*command, str(run / "none"), "--report"]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main(["view", str(run / "out"), "--images", str(run / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
