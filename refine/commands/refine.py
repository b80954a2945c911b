"""`regrasp refine`: every row of prediction files through `refine_grasp`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from tqdm import tqdm

from ..batch.config import BatchConfig
from ..batch.run import Execution, FileOutcome, refine_files
from ..batch.tally import report
from ..config import RefineConfig
from ..evidence.input_error import INPUT_ERRORS
from ..files.formats.cameras import focal_length, intrinsics
from ..files.input_files import find_inputs
from .format_options import format_options, given
from .hands import HandOptions

_HOLDING = {"yes": 1.0, "no": 0.0, "judge": math.nan}
_OF_FORMATS = tyro.conf.arg(constructor_factory=lambda: format_options(RefineOptions, HandOptions))


@dataclass(frozen=True)
class RefineOptions:
    """Options of `regrasp refine`."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Predictions: files, folders or quoted globs of any known format (grasp/1 as .npz, .json or .parquet)."""
    objects: Path
    """Meshes, in metres: a folder of <object_id>.obj (.ply, .stl, .off, .glb) or <object_id>/textured_simple.obj, a
    side-car objects.json, or one mesh that serves all rows."""
    out: Path
    """Folder for the results: <name>.refined.npz (or the input's own form) and <name>.summary.json."""
    scale: float | None = None
    """Factor that brings the meshes to metres: 0.001 for millimetres, 0.01 for centimetres, 0.0254 for inches; not for
    those whose scale objects.json says."""
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Format of the files, e.g. ho3d; looked at and recognised when not given."""
    method: Literal["regrasp", "contactopt"] = "regrasp"
    """The network and optimiser of this package, or ContactOpt's published procedure."""
    weights: Path | None = None
    """Network weights (.safetensors with its card beside it); those that ship when not given."""
    samples: int | None = None
    """Also draw so many plausible hands for each row, with their probabilities: <name>.samples.npz."""
    camera: str | None = None
    """True intrinsics, in place of the column cam_K of all rows: fx,fy,cx,cy in pixels, or K.json (.npy) with a 3x3
    matrix or fx, fy, cx and cy. Hands placed under an assumed focal length (hamer, wilor, mediapipe) are moved to where
    they are the same in the picture."""
    focal: float | None = None
    """True focal length in pixels, instead of --camera; the principal point is the file's, or the image's middle."""
    input_error: str | None = None
    """How the hands may be off, in place of the column input_error of all rows: camera, image, tracker, contactopt,
    exact or unknown."""
    holding: Literal["yes", "no", "judge"] | None = None
    """Whether the hands hold their objects, in place of the column holding of all rows: yes, as grasp benchmarks have
    it; no, and hands are only brought out of them; or judged from what is seen, as without that column."""
    object_poses: Path | None = None
    """Where the objects are, in place of the column object_pose of all rows: .json, .npz, .npy, .pkl or text of a 4x4
    matrix, object to camera in metres, of one for each row or frame, or of names or numbers of frames with theirs; or a
    folder with a file for each frame."""
    steps: int | None = None
    """At most so many steps in each of the optimiser's two solves: fewer is faster and less exact."""
    batch_size: int = 16
    """Rows refined together: more is faster and takes more memory."""
    shard_rows: int | None = None
    """Rows written together: the most that is done again after an interruption, and the longest motion that is solved
    whole. Chosen by rows and workers when not given, 512 at most; 4096 of files with motions."""
    sequences: bool = True
    """Rows of one sequence_id, object and side are frames of a motion, and solved for together; with --no-sequences
    each row is solved for by itself."""
    fps: float = 30.0
    """Frames a second of motions."""
    seed: int = 0
    """Same seed, same results."""
    limit: int | None = None
    """Refine only the first so many rows of each file; results of more rows are never replaced by these."""
    save_mesh: bool = False
    """Also write each refined hand to <name>.meshes/<row>.ply, in its object's frame; of results that are there already
    without doing them again."""
    report: bool = False
    """Also write <name>.report/index.html, a gallery of the rows with histograms; regrasp view OUT shows it with a
    picture and a page of every row, for which some 50 kB a row are kept there."""
    report_rows: int = 60
    """Rows of which --report makes picture and page at once, about a second each, spread over the file."""
    images: Path | None = None
    """Folder of the pictures that the hands were seen in, named as frame_id (.jpg or .png may be left out): pages of
    --report then have the camera's own view of rows with cam_K."""
    overwrite: bool = False
    """Do everything anew, even where results for the same input and options are there."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the network and the optimiser run."""
    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or Ray, which also runs on several."""
    workers: int = 1
    """How many processes (local), or cores of the Ray that is started here."""
    address: str | None = None
    """Running Ray cluster: auto, or host:port. --out, --objects and weights must lie in a shared folder."""
    hands: HandOptions = field(default_factory=HandOptions)
    format: Annotated[Any, _OF_FORMATS] = None


def refine(options: RefineOptions) -> int:
    """Run the command; returns 0 when every row went through, 1 when some failed.

    Raises:
        ValueError, FileNotFoundError: an option or the only file is wrong; nothing was written.
    """
    inputs = find_inputs(options.files, options.source)
    config = batch_config(options)
    reading = given(options.format) | known_of(options) | {"mano_dir": options.hands.mano_dir}
    started, failed, files = time.monotonic(), 0, 0
    with tqdm(unit="row", total=0, disable=None) as bar:  # on standard error, and none where that is no terminal

        def expect(rows: int) -> None:
            bar.total += rows
            bar.refresh()

        execution = Execution(options.engine, options.workers, options.address, options.overwrite, bar.update, expect)
        with _writing_to(options.out):
            for outcome in refine_files(inputs, options.out, config, execution, reading):
                files += 1
                failed += 1 if outcome.summary is None else outcome.summary["status"].get("failed", 0)
                print(_describe(outcome))
    if len(inputs) > 1:
        print(f"{files} files; {failed} rows or files failed; {time.monotonic() - started:.1f} s")
    return 1 if failed else 0


@contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    """Inside, what the system says of files below ``out`` is told as a fault of the option."""
    try:
        yield
    except OSError as error:
        named = Path(error.filename).absolute() if isinstance(error.filename, str) else None
        if named is None or not (named.is_relative_to(out.absolute()) or out.absolute().is_relative_to(named)):
            raise
        raise ValueError(f"--out {out}: cannot be written to ({error.strerror}); name a folder that can.") from error


def known_of(options: RefineOptions) -> dict[str, Any]:
    """What is said of all rows whatever their file says, checked; as options of readers, see `files.formats.known`."""
    if options.camera is not None and options.focal is not None:
        raise ValueError("--focal: --camera says it already; give one of the two.")
    if options.object_poses is not None and getattr(options.format, "object_pose", None) is not None:
        raise ValueError("--object-poses: --object-pose says it already; give one of the two.")
    if options.input_error is not None and options.input_error not in INPUT_ERRORS:
        raise ValueError(f"--input-error: {options.input_error!r} is unknown; choose one of {', '.join(INPUT_ERRORS)}.")
    if options.object_poses is not None and not options.object_poses.exists():
        raise FileNotFoundError(f"--object-poses {options.object_poses}: there is no such file.")
    camera = None
    if options.camera is not None:
        matrix = intrinsics(options.camera, "--camera")
        if matrix.shape != (3, 3):
            raise ValueError(f"--camera: holds {len(matrix)} matrices; give one for all rows.")
        camera = tuple(map(tuple, matrix.tolist()))  # which says the same as text wherever it is compared
    focal = None if options.focal is None else focal_length(options.focal, "--focal")
    holding = None if options.holding is None else _HOLDING[options.holding]
    same = {name: getattr(options, name) for name in ("input_error", "object_poses")}
    known = {"camera": camera, "focal": focal, "holding": holding} | same
    return {name: value for name, value in known.items() if value is not None}


def batch_config(options: RefineOptions) -> BatchConfig:
    """What is done to each row."""
    if options.steps is not None and options.steps < 1:
        raise ValueError(f"--steps: got {options.steps}; give 1 or more.")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no such device; install its CUDA build, or use cpu.")
    weights = None if options.weights is None else options.weights.resolve()
    config = RefineConfig(method=options.method, weights=weights, device=options.device)
    if options.steps is not None:
        solves = {name: replace(getattr(config, name), iterations=options.steps) for name in ("align", "contact")}
        config = replace(config, **solves)
    mano_dir = None if options.hands.mano_dir is None else options.hands.mano_dir.resolve()
    if options.images is not None and not (options.report and options.images.is_dir()):
        wrong = "there is no such folder" if options.report else "is for the pages of --report; add that"
        raise ValueError(f"--images {options.images}: {wrong}.")
    if options.report_rows < 0:
        raise ValueError(f"--report-rows: got {options.report_rows}; give 0 or more.")
    if not 1 <= options.fps <= 1000:
        raise ValueError(f"--fps: got {options.fps}; give the frames a second, such as 30.")
    names = ("batch_size", "shard_rows", "limit", "save_mesh", "samples", "seed", "sequences", "fps")
    return BatchConfig(
        objects=options.objects.resolve() if options.objects.exists() else options.objects,
        scale=options.scale,
        refine=config,
        hand_model=options.hands.load().name,
        mano_dir=mano_dir,
        report=options.report_rows if options.report else None,
        images=options.images and str(options.images.resolve()),
        **{name: getattr(options, name) for name in names},
    )


def _describe(outcome: FileOutcome) -> str:
    """A file's outcome as a few lines for people."""
    if outcome.summary is None:
        return f"{outcome.input.path}: not read: {outcome.reason}"
    done = "" if outcome.fresh else " (there already, same input and options; --overwrite does it again)"
    gallery = outcome.results and outcome.results.parent / f"{outcome.input.name}.report" / "index.html"
    look = f"\ngallery: {gallery}" if gallery and gallery.is_file() else ""
    return f"{report(outcome.summary)}\nresults: {outcome.results}{done}{look}"
