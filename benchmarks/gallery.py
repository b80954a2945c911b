"""How quick a gallery is in a browser: `regrasp view` of a run, opened, filtered, searched and sorted in Chromium.

    python benchmarks/gallery.py            10,000 rows, best of seven
    python benchmarks/gallery.py --quick    2,000 rows, best of three

The run is made here: results of shipped grasps with drawn measures, and records that pictures are drawn from as rows
come into sight. Times are Chromium's own performance entries: `first_paint_s` from the request to the first paint
that holds rows, the server's work included; `filter_s`, `search_s` and `sort_s` from a click or a key to the paint that
answers it, rounded by the browser to 8 ms. The last line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contact.corpus.shapes import demo_shapes
from hand_models import load_hand_model
from refine import refine_grasp
from refine.batch.report import Report
from refine.commands.demo import GRASPS
from refine.commands.view import Run, ViewOptions
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.prediction_poses import hand_poses
from refine.view.serve import server, url

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROWS, ROUNDS = 10_000, 7
QUICK_ROWS, QUICK_ROUNDS = 2_000, 3
NAME = "run"
OBSERVE = """
window.answers = [];
new PerformanceObserver(list => answers.push(...list.getEntries().filter(e => e.interactionId)
    .map(e => ({name: e.name, s: e.duration / 1000}))))
    .observe({type: 'event', durationThreshold: 16, buffered: true});
new MutationObserver((_, own) => {  // the frame after the one that draws the first rows
    if (!document.querySelector('#space')?.children.length) return;
    own.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => performance.mark('rows')));
}).observe(document, {childList: true, subtree: true});
"""
FIRST = """Math.max(performance.getEntriesByName('rows')[0].startTime,
    performance.getEntriesByName('first-contentful-paint')[0].startTime) / 1000"""


def make_run(folder: Path, count: int) -> None:
    """Results of ``count`` rows and their report."""
    model, grasps, rng = load_hand_model("open"), read_predictions(GRASPS), np.random.default_rng(0)
    report = Report(folder / f"{NAME}.report")
    apples = np.flatnonzero(grasps.object_id == "apple")
    refined = refine_grasp(hand_poses(grasps, apples, model), demo_shapes()["apple"], hand_model=model, holding=True)
    report.record(np.arange(1), refined[0])
    first = report.folder / "rows" / "0000000.npz"
    status = rng.choice(["refined", "kept", "apart", "failed"], count, p=[0.7, 0.2, 0.08, 0.02])
    for row in np.flatnonzero(status != "failed").tolist():
        target = first.with_name(f"{row:07d}.npz")
        if not target.exists():
            target.hardlink_to(first)
    depth = rng.gamma(2, 2, (2, count)).astype(np.float32)
    depth[:, status == "failed"] = np.nan
    results = replace(
        grasps.take(rng.integers(len(grasps), size=count)),
        frame_id=np.array([f"{row:07d}.jpg" for row in range(count)]),
        sequence_id=np.array([f"recording {row // 300}" for row in range(count)]),
        status=status,
        warnings=np.where(rng.random(count) < 0.05, "wrong scale? the hand is as wide as the object is long", ""),
        score_after=rng.normal(size=count).astype(np.float32),
        penetration_mm_before=depth[0] * 2,
        penetration_mm_after=depth[1],
        volume_cm3_after=depth[1] * 0.4,
        contact_ratio_after=(rng.random(count) < 0.9).astype(np.float32),
        uncertainty=rng.gamma(4, 0.002, (count, 21)).astype(np.float32),
    )
    write_predictions(folder / f"{NAME}.refined.npz", results)


def answered(page: Page, act: Any, kinds: tuple[str, ...]) -> float:
    """Seconds from the input that ``act`` gives to the paint that answers it; 0.016 where it was less than that."""
    page.evaluate("answers.length = 0")
    act()
    page.wait_for_timeout(400)
    found = [entry["s"] for entry in page.evaluate("answers") if entry["name"] in kinds]
    return max(found, default=0.016)


def measure(page: Page, address: str) -> dict[str, float]:
    """One look at the gallery."""
    page.goto(address)
    page.wait_for_function("performance.getEntriesByName('rows').length > 0")
    figures = {"first_paint_s": page.evaluate(FIRST)}
    page.wait_for_timeout(300)
    clicks, keys = ("pointerdown", "pointerup", "click"), ("keydown", "keypress", "keyup")
    figures["filter_s"] = answered(page, page.locator("#only-kept").click, clicks)
    page.locator("#search").focus()
    figures["search_s"] = answered(page, lambda: page.keyboard.press("m"), keys)
    page.locator("#reset").click()
    page.locator("#table").click()
    sorts = [answered(page, page.locator(f"#by-{key}").click, clicks) for key in ("depth", "frame")]
    return figures | {"sort_s": max(sorts)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds")
    quick = parser.parse_args().quick
    rows, rounds = (QUICK_ROWS, QUICK_ROUNDS) if quick else (ROWS, ROUNDS)
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        print("gallery: needs Chromium and playwright, which are not both installed", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        make_run(Path(name), rows)
        run = Run.of(ViewOptions(Path(name)))
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with server(run.answer) as running:
            threading.Thread(target=running.serve_forever, daemon=True).start()
            seen = []
            for _ in range(rounds):
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                page.add_init_script(OBSERVE)
                seen.append(measure(page, f"{url(running)}{NAME}/"))
                print("  ".join(f"{key} {value:.3f}" for key, value in seen[-1].items()), flush=True)
                page.close()
            running.shutdown()
        browser.close()
    best = {key: round(min(one[key] for one in seen), 3) for key in seen[0]}
    print(json.dumps({"rows": rows, "first_look_s": round(seen[0]["first_paint_s"], 3), **best}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
