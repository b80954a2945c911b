"""`regrasp demo`: shipped grasps on six shipped objects, made noisy and refined; with `--motion`, a hand over time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from contact.corpus.motions import MotionConfig, make_motion
from contact.corpus.shapes import demo_shapes
from contact.objects import ObjectMesh
from contact.perturb import perturb
from contact.weights import DEFAULT
from hand_models import HandModel, HandPose, load_hand_model

from ..api import refine_grasp
from ..config import RefineConfig
from ..files.prediction_files import read_predictions
from ..files.prediction_poses import hand_poses, into_camera_frame
from ..measure.joints import mpjpe
from ..measure.motion import jitter
from ..motion.sequence import refine_sequence
from ..result import RefineResult
from ..view.pictures import Row, before_after_sheet
from .tables import aligned

GRASPS = Path(__file__).with_name("demo_grasps.npz")
"""`grasp/1`: grasps by the open hand, in the frames of `contact.corpus.shapes.demo_shapes`."""
FRAMES = 60
"""of a motion: two seconds"""
CAMERA = torch.tensor([[0.8, -0.6, 0, 0], [0, 0, -1, 0], [0.6, 0.8, 0, 0.6], [0, 0, 0, 1]])
"""Object at rest, z upward, to a camera 60 cm off that stands upright."""


@dataclass(frozen=True)
class DemoOptions:
    """Options of `regrasp demo`."""

    out: Path = Path("demo_out")
    """Folder for the pictures, the film and the web pages."""
    protocol: Literal[
        "image", "contactopt", "camera", "toch-t1", "toch-t2", "toch-r3", "toch-r5", "toch-b1", "toch-b2", "none"
    ] = "image"
    """Noise put on the grasps; `image` is the size of current estimators' errors."""
    level: float = 1.0
    """Factor on that noise."""
    motion: bool = False
    """A motion of a hand that comes, holds the object, uses it and lets go, with noise that is new in every frame."""
    film: Literal["mug", "bottle", "box", "apple", "screwdriver", "bowl"] = "box"
    """The object that the GIF is of, and the motion."""
    method: Literal["regrasp", "contactopt"] = "regrasp"
    """The network and optimiser of this package, or ContactOpt's published procedure."""
    seed: int = 0
    """Same seed, same grasps and results."""
    width: int = 480
    """Pixels across one picture of the sheet or the film."""


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
    """Run the demonstration. Leaves in ``out``: `before_after.png`, `solving.gif` and a page per grasp, or of a motion
    `motion.html` and `motion.gif`; tables go to standard output.

    Raises:
        ValueError: the level is negative, or a motion is asked of ContactOpt's procedure.
    """
    if not options.level >= 0:
        raise ValueError(f"--level: got {options.level}; give a factor of 0 or more.")
    started = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.motion:
        return demo_motion(options)
    cases = list(refined_cases(options))
    print(table(cases))
    print(f"\nnoise: {_noise(options)}, hands known to hold; {time.monotonic() - started:.0f} s")
    for case in cases:
        page = options.out / f"{case.title.replace(' ', '_')}.html"
        case.result.to_html(page, index=case.index, truth=case.truth)
    print(f"web pages: {options.out / '*.html'}")
    try:
        print(f"pictures:  {draw_sheet(cases, options)}")
        filmed = next(case for case in cases if case.title == options.film)
        print(f"film:      {filmed.result.to_gif(options.out / 'solving.gif', filmed.index, size=_size(options))}")
    except ImportError as error:
        print(f"no pictures: {error}", file=sys.stderr)
    return 0


def demo_motion(options: DemoOptions) -> int:
    """As `demo`, of a motion like those that the corpus has (`contact.corpus.motions`)."""
    if options.method != "regrasp":
        raise ValueError(f"--method: got {options.method!r}; motions are refined by 'regrasp' alone.")
    model, grasps = load_hand_model("open"), read_predictions(GRASPS)
    grasp = hand_poses(grasps, np.flatnonzero(grasps.object_id == options.film)[:1], model)
    mesh = ObjectMesh.from_any(demo_shapes()[options.film], name=options.film)
    moving = make_motion(
        model, grasp, mesh.points.mean(0), torch.tensor([0.0, 0.0, 1.0]), np.random.default_rng(options.seed),
        MotionConfig(shortest=FRAMES, longest=FRAMES),
    )  # fmt: skip
    places = CAMERA @ torch.linalg.inv(moving.object_pose[:1]) @ moving.object_pose  # upright, not seen from anywhere
    truth = into_camera_frame(moving.pose, places, model)
    result = refine_sequence(noisy(truth, options, options.seed, model), mesh, places, hand_model=model)
    sides, true, held = (result.joints_before, result.joints_after), model.joints(truth), moving.holding.numpy()
    errors = [1000 * mpjpe(joints, true) for joints in sides]
    shakes = [1000 * jitter(joints[None])[0] for joints in (*sides, true)]
    pairs = [[e.mean() for e in errors], [e[held].mean() for e in errors], shakes[:2]]
    head = ["motion", "joint error mm", "while it holds", "jitter mm/frame²"]
    print("\n".join(aligned([head, [options.film, *(f"{before:6.1f} → {after:6.1f}" for before, after in pairs)]])))
    print(f"\nnoise: {_noise(options)}, new in each of {FRAMES} frames; jitter of the true hand: {shakes[2]:.1f}")
    print(f"web page: {result.to_html(options.out / 'motion.html', title=options.film, truth=truth)}")
    try:
        width, height = _size(options)
        print(f"film:     {result.to_gif(options.out / 'motion.gif', size=(width * 2 // 3, height * 2 // 3))}")
    except ImportError as error:
        print(f"no film: {error}", file=sys.stderr)
    return 0


def noisy(clean: HandPose, options: DemoOptions, seed: int, model: HandModel) -> HandPose:
    """``clean`` with the noise that is asked for."""
    scale = torch.full((len(clean),), options.level)
    return perturb(clean, options.protocol, seed=seed, scale=scale, model=model)


def _noise(options: DemoOptions) -> str:
    times = "" if options.level == 1 else f" × {options.level:g}"
    return f"{options.protocol}{times}, seed {options.seed}"


def _size(options: DemoOptions) -> tuple[int, int]:
    return options.width, options.width * 3 // 4


def refined_cases(options: DemoOptions) -> Iterator[Case]:
    """Perturb and refine every shipped grasp, object by object."""
    model, grasps = load_hand_model("open"), read_predictions(GRASPS)
    config = RefineConfig(method=options.method)
    shapes = {name: mesh for name, mesh in demo_shapes().items() if name in set(grasps.object_id.tolist())}
    for number, (name, shape) in enumerate(tqdm(shapes.items(), unit="object", disable=None)):
        rows = np.flatnonzero(grasps.object_id == name)
        clean = hand_poses(grasps, rows, model)
        given = noisy(clean, options, options.seed + number, model)
        mesh = ObjectMesh.from_any(shape, name=name)
        result = refine_grasp(given, mesh, config=config, hand_model=model, seed=options.seed, holding=True)
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
    rows = []
    for case in tqdm(cases, unit="picture", disable=None):
        pictures = case.result.view(case.index, title=case.title).pictures(_size(options))
        captions = (f"{when}: {error:.0f} mm" for when, error in zip(_WHEN, case.error_mm, strict=True))
        rows.append(Row(case.title, *pictures, *captions))
    path = options.out / "before_after.png"
    title = "regrasp: noisy grasps, before and after"
    before_after_sheet(rows, path, columns=2, title=title, weights=sha256(DEFAULT.read_bytes()).hexdigest())
    return path
