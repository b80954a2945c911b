"""The pictures of docs/look.md, from the demonstration's grasps; needs playwright and a Chromium.

python tools/build_look_pictures.py [uv] [film] [page] [gallery]        # into docs/, all of them by default
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from contact.corpus.shapes import demo_shapes
from contact.perturb import perturb
from hand_models import load_hand_model
from refine import refine_grasp
from refine.commands.cli import main as regrasp
from refine.commands.demo import GRASPS
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.prediction_poses import hand_poses

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURES = ("uv", "film", "page", "gallery")
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


def main(wanted: Sequence[str]) -> int:
    model, grasps = load_hand_model("open"), read_predictions(GRASPS)
    rows = np.flatnonzero(grasps.object_id == "apple")
    clean = hand_poses(grasps, rows, model)
    result = refine_grasp(perturb(clean, "image", seed=3), demo_shapes()["apple"], hand_model=model)
    if "uv" in wanted:
        Image.fromarray(result.contact_uv(300).picture(0)).save(DOCS / "look_uv.png", optimize=True)
    if "film" in wanted:
        result.to_gif(DOCS / "look.gif", size=(320, 240))
    if not {"page", "gallery"} & set(wanted):
        return 0
    program = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        page = playwright.chromium.launch(executable_path=program, args=flags).new_page()
        if "page" in wanted:
            own = result.to_html(Path(folder) / "page.html", truth=clean, title="apple")
            shoot(page, own, "look_page.png", (1100, 680), SIDE_BY_SIDE)
        if "gallery" in wanted:
            shoot(page, noisy_run(Path(folder)), "look_gallery.png", (1100, 680))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or PICTURES))
