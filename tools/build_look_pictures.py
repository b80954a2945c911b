"""The pictures of README and docs that show what the shipped weights do; needs playwright, a Chromium and matplotlib.

    python tools/build_look_pictures.py                             # into docs/, all but report
    python tools/build_look_pictures.py page gallery                # some of them; --help names all
    python tools/build_look_pictures.py --kept runs/real --objects real/ycb         # all

`report` measures what `benchmarks/real_grasps.py --keep runs/real` left of human grasps. `docs/pictures.json` keeps by
which weights each was made: a test compares them with those that ship, and says what is to be run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from contact.corpus.shapes import demo_shapes
from contact.perturb import perturb
from hand_models import HandModel, HandPose, load_hand_model
from refine import refine_grasp
from refine.commands.cli import main as regrasp
from refine.commands.demo import GRASPS
from refine.commands.view import Run, ViewOptions
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.prediction_poses import hand_poses, into_camera_frame
from refine.view.camera import Camera, look_at
from refine.view.live import live_viewer
from refine.view.render import Lights, render
from refine.view.scene import Item
from refine.view.serve import server, url

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
MADE_BY = DOCS / "pictures.json"
KINDS = {
    "demo": ("before_after.png", "solving.gif"),
    "motion": ("motion.gif", "look_film.png"),
    "page": ("look_page.png",),
    "camera": ("look_camera.png",),
    "live": ("look_live.png",),
    "uv": ("look_uv.png",),
    "gallery": ("look_gallery.png", "look_table.png"),
    "draws": ("network_draws.png",),
    "report": ("report_pck.png", "report_reliability.png", "look_report.png"),
}
"""Pictures by what makes them."""
SIDE_BY_SIDE = """(choice => { choice.value = 'both'; choice.dispatchEvent(new Event('change')); })
(document.getElementById('paintObject'))"""
BY_ERROR = """document.getElementById('table').click(); document.getElementById('by-error').click()"""
PAPER = """<style>body{font:15px/1.45 system-ui,sans-serif;margin:24px 40px}td,th{padding:2px 12px;text-align:left}
table{border-collapse:collapse}tr{border-bottom:1px solid #ddd}img{max-width:48%%}</style><body data-ready="yes">%s"""
ROUNDS = 4
"""Noises put on each of the grasps, for a gallery with something in it."""


def weights_in_use() -> str:
    """Names the network that ships and what was fitted to it: another when a picture may be."""
    folder = ROOT / "contact" / "weights"
    card = json.loads((folder / "contact.json").read_text(encoding="utf-8"))
    fitted = json.dumps([card.get(name) for name in ("score", "uncertainty")], sort_keys=True)
    found = hashlib.sha256((folder / "contact.safetensors").read_bytes() + fitted.encode())
    return found.hexdigest()[:16]


@contextmanager
def opened(address: str, size: tuple[int, int] = (1100, 680)) -> Iterator[Any]:
    """The page there, in a browser without a window."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.goto(address)
        yield page
        browser.close()


def shoot(address: str, name: str, script: str = "null", size: tuple[int, int] = (1100, 680)) -> None:
    """A picture of one of our pages, ``script`` run in it."""
    with opened(address, size) as page:
        page.wait_for_function("document.body.dataset.ready === 'yes'")
        page.evaluate(script)
        page.wait_for_timeout(1500)
        page.wait_for_function("[...document.images].every(i => i.complete && (i.src || !i.dataset.src))")
        page.screenshot(path=DOCS / name)


def draw_demo(folder: Path, options: argparse.Namespace) -> None:
    regrasp(["demo", "--out", str(folder)])
    for name in KINDS["demo"]:
        shutil.copy(folder / name, DOCS / name)


def draw_motion(folder: Path, options: argparse.Namespace) -> None:
    regrasp(["demo", "--motion", "--out", str(folder)])
    shutil.copy(folder / "motion.gif", DOCS / "motion.gif")
    with Image.open(folder / "motion.gif") as film:
        film.seek(film.n_frames // 2)
        film.convert("RGB").save(DOCS / "look_film.png", optimize=True)


def _apple() -> tuple[Any, Any]:
    model, grasps = load_hand_model("open"), read_predictions(GRASPS)
    clean = hand_poses(grasps, np.flatnonzero(grasps.object_id == "apple"), model)
    return refine_grasp(perturb(clean, "image", seed=3), demo_shapes()["apple"], hand_model=model), clean


def draw_page(folder: Path, options: argparse.Namespace) -> None:
    result, clean = _apple()
    shoot(result.to_html(folder / "page.html", truth=clean, title="apple").as_uri(), "look_page.png", SIDE_BY_SIDE)


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


def draw_camera(folder: Path, options: argparse.Namespace) -> None:
    page = photographed(folder, _apple()[1], load_hand_model("open"))
    shoot(page.as_uri(), "look_camera.png", "['own', 'sigma'].forEach(id => $(id).click())")


def draw_live(folder: Path, options: argparse.Namespace) -> None:
    result, clean = _apple()
    running = live_viewer([result.view(0, truth=clean, title="apple")], port=0)
    with opened(f"http://127.0.0.1:{running.get_port()}/") as page:
        page.wait_for_timeout(6000)
        page.get_by_role("button").first.click()  # a note that there is no graphics card
        page.wait_for_timeout(1000)
        page.screenshot(path=DOCS / "look_live.png")
    running.stop()


def draw_uv(folder: Path, options: argparse.Namespace) -> None:
    Image.fromarray(_apple()[0].contact_uv(300).picture(0)).save(DOCS / "look_uv.png", optimize=True)


@contextmanager
def noisy_run(folder: Path) -> Iterator[str]:
    """The address of a gallery: the demonstration's grasps with several noises, through `regrasp refine --report`."""
    model, grasps = load_hand_model("open"), read_predictions(GRASPS)
    rows = np.arange(len(grasps))
    noisy = [perturb(hand_poses(grasps, rows, model), "image", seed=seed) for seed in range(ROUNDS)]
    truth = grasps.take(np.tile(rows, ROUNDS))
    truth = replace(truth, frame_id=np.array([f"noise {row // len(rows)}" for row in range(len(truth))]))
    columns = {
        name: np.concatenate([getattr(pose, name).numpy() for pose in noisy])
        for name in ("global_orient", "hand_pose", "betas", "transl")
    }
    write_predictions(folder / "truth.npz", truth)
    write_predictions(folder / "grasps.npz", replace(truth, **columns))
    for name, shape in demo_shapes().items():
        shape.export(folder / f"{name}.obj")
    regrasp(["refine", str(folder / "grasps.npz"), "--objects", str(folder), "--out", str(folder / "out"), "--report"])
    shown = Run.of(ViewOptions(folder / "out", reference=folder / "truth.npz", objects=folder))
    with server(shown.answer) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"{url(running)}grasps/"
        running.shutdown()


def draw_gallery(folder: Path, options: argparse.Namespace) -> None:
    with noisy_run(folder) as address:
        shoot(address, "look_gallery.png")
        shoot(address, "look_table.png", BY_ERROR, (1400, 680))


def draw_report(folder: Path, options: argparse.Namespace) -> None:
    from markdown_it import MarkdownIt

    kept = options.kept
    regrasp([
        "eval", str(kept / "refined" / "contactopt.refined.npz"), "--reference", str(kept / "reference.npz"),
        "--objects", str(options.objects), "--before", str(kept / "contactopt.npz"), "--noise", "contactopt",
        "--report", str(folder),
    ])  # fmt: skip
    for name in ("pck", "reliability"):
        shutil.copy(folder / f"{name}.png", DOCS / f"report_{name}.png")
    text = MarkdownIt("commonmark").enable("table").render((folder / "report.md").read_text(encoding="utf-8"))
    (folder / "report.html").write_text(PAPER % text, encoding="utf-8")
    shoot((folder / "report.html").as_uri(), "look_report.png", size=(1100, 1000))


def draw_draws(folder: Path, options: argparse.Namespace) -> None:
    script = str(ROOT / "benchmarks" / "contact_network.py")
    subprocess.run([sys.executable, script, "--draws", str(DOCS / "network_draws.png")], check=True)


DRAW: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "demo": draw_demo, "motion": draw_motion, "page": draw_page, "camera": draw_camera, "live": draw_live,
    "uv": draw_uv, "gallery": draw_gallery, "report": draw_report, "draws": draw_draws,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="kind", help=f"what to make, of {', '.join(KINDS)}; all of them")
    parser.add_argument("--kept", type=Path, help="of report: folder that real_grasps.py --keep left")
    parser.add_argument("--objects", type=Path, help="of report: the meshes of those grasps")
    options = parser.parse_args()
    real = None not in (options.kept, options.objects)
    kinds = options.kinds or [kind for kind in KINDS if real or kind != "report"]
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"{', '.join(unknown)}: choose of {', '.join(KINDS)}")
    if "report" in kinds and not real:
        parser.error("report: give --kept and --objects")
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            DRAW[kind](Path(folder), options)
        made = json.loads(MADE_BY.read_text(encoding="utf-8")) if MADE_BY.is_file() else {}
        made |= dict.fromkeys(KINDS[kind], weights_in_use())
        MADE_BY.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
