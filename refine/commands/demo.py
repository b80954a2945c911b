"""`regrasp demo`: shipped grasps on six shipped objects, made noisy and refined."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from contact.corpus.shapes import demo_shapes
from contact.objects import ObjectMesh
from contact.perturb import perturb
from hand_models import HandPose, load_hand_model

from ..api import refine_grasp
from ..config import RefineConfig
from ..files.prediction_files import read_predictions
from ..files.prediction_poses import hand_poses
from ..measure.joints import mpjpe
from ..result import RefineResult
from ..view.pictures import Row, before_after_sheet
from .tables import aligned

GRASPS = Path(__file__).with_name("demo_grasps.npz")
"""`grasp/1`: grasps by the open hand, in the frames of `contact.corpus.shapes.demo_shapes`."""


@dataclass(frozen=True)
class DemoOptions:
    """Options of `regrasp demo`."""

    out: Path = Path("demo_out")
    """Folder for the picture sheet and the web pages."""
    protocol: Literal[
        "image", "contactopt", "toch-t1", "toch-t2", "toch-r3", "toch-r5", "toch-b1", "toch-b2", "none"
    ] = "image"
    """Noise put on the grasps; `image` is the size of current estimators' errors."""
    method: Literal["regrasp", "contactopt"] = "regrasp"
    """The network and optimiser of this package, or ContactOpt's published procedure."""
    seed: int = 0
    """Same seed, same grasps and results."""
    width: int = 480
    """Pixels across one picture of the sheet."""


@dataclass(frozen=True)
class Case:
    """One refined demonstration grasp: number ``index`` of ``result``, and its joint error before and after."""

    title: str
    result: RefineResult
    index: int
    error_mm: tuple[float, float]
    truth: HandPose
    """of all grasps of ``result``"""


def demo(options: DemoOptions) -> int:
    """Run the demonstration: table on standard output, `before_after.png` and one page per grasp in ``out``."""
    started = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    cases = list(refined_cases(options))
    print(table(cases))
    print(f"\nnoise: {options.protocol}, seed {options.seed}, hands known to hold; {time.monotonic() - started:.0f} s")
    for case in cases:
        page = options.out / f"{case.title.replace(' ', '_')}.html"
        case.result.to_html(page, index=case.index, truth=case.truth)
    print(f"web pages: {options.out / '*.html'}")
    try:
        print(f"pictures:  {draw_sheet(cases, options)}")
    except ImportError as error:
        print(f"no picture sheet: {error}", file=sys.stderr)
    return 0


def refined_cases(options: DemoOptions) -> Iterator[Case]:
    """Perturb and refine every shipped grasp, object by object."""
    model, grasps = load_hand_model("open"), read_predictions(GRASPS)
    config = RefineConfig(method=options.method)
    shapes = {name: mesh for name, mesh in demo_shapes().items() if name in set(grasps.object_id.tolist())}
    for number, (name, shape) in enumerate(tqdm(shapes.items(), unit="object", disable=None)):
        rows = np.flatnonzero(grasps.object_id == name)
        clean = hand_poses(grasps, rows, model)
        noisy = perturb(clean, options.protocol, seed=options.seed + number)
        mesh = ObjectMesh.from_any(shape, name=name)
        result = refine_grasp(noisy, mesh, config=config, hand_model=model, seed=options.seed, holding=True)
        truth = model.joints(clean)
        before, after = (1000 * mpjpe(joints, truth) for joints in (result.joints_before, result.joints_after))
        for index in range(len(rows)):
            title = name if len(rows) == 1 else f"{name} {index + 1}"
            yield Case(title, result, index, (before[index], after[index]), clean)


_COLUMNS = (("penetration_mm", "depth mm", 1), ("volume_cm3", "volume cm³", 1), ("contact_ratio", "contact", 2))
_WHEN = ("before", "after")


def table(cases: list[Case]) -> str:
    """Before and after of every grasp, and their means, as text."""
    rows, numbers = [["grasp", "joint error mm", *(head for _, head, _ in _COLUMNS), "status"]], []
    for case in cases:
        measured = [[case.result.metrics[f"{name}_{when}"][case.index] for when in _WHEN] for name, _, _ in _COLUMNS]
        numbers.append([case.error_mm, *measured])
        rows.append([case.title, *_cells(numbers[-1]), case.result.status[case.index].value])
    if len(cases) > 1:
        rows.append(["mean", *_cells(np.nanmean(numbers, axis=0)), ""])
    lines = aligned(rows)
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cells(pairs: Any) -> list[str]:
    digits = (1, *(places for _, _, places in _COLUMNS))
    return [f"{b:6.{d}f} → {a:6.{d}f}" for (b, a), d in zip(pairs, digits, strict=True)]


def draw_sheet(cases: list[Case], options: DemoOptions) -> Path:
    """Pictures of every grasp before and after on one sheet. Raises ``ImportError`` without the renderer."""
    size = (options.width, options.width * 3 // 4)
    rows = []
    for case in tqdm(cases, unit="picture", disable=None):
        pictures = case.result.view(case.index, title=case.title).pictures(size)
        captions = (f"{when}: {error:.0f} mm" for when, error in zip(_WHEN, case.error_mm, strict=True))
        rows.append(Row(case.title, *pictures, *captions))
    path = options.out / "before_after.png"
    before_after_sheet(rows, path, columns=2, title="regrasp: noisy grasps, before and after")
    return path
