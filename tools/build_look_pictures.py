"""The pictures of docs/look.md, from the demonstration's grasps; needs playwright and a Chromium.

python tools/build_look_pictures.py [uv] [film] [page] [camera] [live] [gallery]    # into docs/; all by default
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from contact.corpus.shapes import demo_shapes
from contact.perturb import perturb
from hand_models import HandModel, HandPose, load_hand_model
from refine import refine_grasp
from refine.commands.cli import main as regrasp
from refine.commands.demo import GRASPS
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.prediction_poses import hand_poses, into_camera_frame
from refine.view.camera import Camera, look_at
from refine.view.live import live_viewer
from refine.view.pictures import GraspView
from refine.view.render import Lights, render
from refine.view.scene import Item

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURES = ("uv", "film", "page", "camera", "live", "gallery")
SIDE_BY_SIDE = """(choice => { choice.value = 'both'; choice.dispatchEvent(new Event('change')); })
(document.getElementById('paintObject'))"""
ROUNDS = 4
"""Noises put on each of the grasps, for a gallery with something in it."""


def noisy_run(folder: Path) -> Path:
    """A run of `regrasp refine --report` over the demonstration's grasps; returns the gallery."""
    model, grasps = load_hand_model("open"), read_predictions(GRASPS)
    rows = np.arange(len(grasps))
    clean = hand_poses(grasps, rows, model)
    noisy = [perturb(clean, "image", seed=seed) for seed in range(ROUNDS)]
    many = grasps.take(np.tile(rows, ROUNDS))
    columns = {
        name: np.concatenate([getattr(pose, name).numpy() for pose in noisy])
        for name in ("global_orient", "hand_pose", "betas", "transl")
    }
    write_predictions(folder / "grasps.npz", replace(many, **columns))
    for name, shape in demo_shapes().items():
        shape.export(folder / f"{name}.obj")
    regrasp(["refine", str(folder / "grasps.npz"), "--objects", str(folder), "--out", str(folder / "out"), "--report"])
    return folder / "out" / "grasps.report" / "index.html"


def shoot(page: Page, path: Path, name: str, size: tuple[int, int], script: str = "null") -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(path.as_uri())
    page.wait_for_function("document.body.dataset.ready === 'yes'")
    page.evaluate(script)
    page.wait_for_timeout(1500)
    page.screenshot(path=DOCS / name)


def photographed(folder: Path, clean: HandPose, model: HandModel) -> Path:
    """The page of a grasp that a camera saw; the picture is drawn from the true hand, darker than the page draws it."""
    apple, hand = demo_shapes()["apple"], model(clean)
    skin = hand.vertices[0].numpy()
    camera = look_at(skin.mean(0) + np.array([0.38, 0.3, 0.24]), skin.mean(0))
    matrix = np.array([[1100.0, 0, 640], [0, 1100, 480], [0, 0, 1]])
    items = [
        Item(np.asarray(apple.vertices), np.asarray(apple.faces), (0.45, 0.55, 0.25)),
        Item(skin, model.faces_for("right").numpy(), (0.55, 0.36, 0.28), softness=0.3),
    ]
    lights = Lights(background=(0.62, 0.57, 0.5))
    image = render(items, Camera(camera.pose, matrix=matrix), (1280, 960), lights=lights)
    pose = torch.from_numpy(np.linalg.inv(camera.pose).astype(np.float32))[None]
    seen = (hand.joints[0].numpy() - camera.pose[:3, 3]) @ camera.pose[:3, :3] @ matrix.T
    pixels = seen[:, :2] / seen[:, 2:] + np.random.default_rng(0).normal(0, 3, (21, 2))
    placed = into_camera_frame(clean, pose, model)
    noisy = perturb(placed, "camera", seed=3, model=model, view=torch.nn.functional.normalize(placed.transl, dim=1))
    known = {"camera": matrix, "keypoints_2d": pixels[None]}
    result = refine_grasp(noisy, apple, object_pose=pose, input_error="camera", hand_model=model, **known)
    return result.to_html(folder / "camera.html", title="apple", image=image, **known)


def shoot_live(page: Page, view: GraspView) -> None:
    server = live_viewer([view], port=0)
    page.set_viewport_size({"width": 1100, "height": 680})
    page.goto(f"http://127.0.0.1:{server.get_port()}/")
    page.wait_for_timeout(6000)
    page.get_by_role("button").first.click()  # a note that there is no graphics card
    page.wait_for_timeout(1000)
    page.screenshot(path=DOCS / "look_live.png")
    server.stop()


def main(wanted: Sequence[str]) -> int:
    model, grasps = load_hand_model("open"), read_predictions(GRASPS)
    rows = np.flatnonzero(grasps.object_id == "apple")
    clean = hand_poses(grasps, rows, model)
    result = refine_grasp(perturb(clean, "image", seed=3), demo_shapes()["apple"], hand_model=model)
    if "uv" in wanted:
        Image.fromarray(result.contact_uv(300).picture(0)).save(DOCS / "look_uv.png", optimize=True)
    if "film" in wanted:
        result.to_gif(DOCS / "look.gif", size=(320, 240))
    if not {"page", "camera", "live", "gallery"} & set(wanted):
        return 0
    program = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        page = playwright.chromium.launch(executable_path=program, args=flags).new_page()
        if "page" in wanted:
            own = result.to_html(Path(folder) / "page.html", truth=clean, title="apple")
            shoot(page, own, "look_page.png", (1100, 680), SIDE_BY_SIDE)
        if "camera" in wanted:
            own = photographed(Path(folder), clean, model)
            shoot(page, own, "look_camera.png", (1100, 680), "['own', 'sigma'].forEach(id => $(id).click())")
        if "live" in wanted:
            shoot_live(page, result.view(0, truth=clean, title="apple"))
        if "gallery" in wanted:
            shoot(page, noisy_run(Path(folder)), "look_gallery.png", (1100, 680))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or PICTURES))
