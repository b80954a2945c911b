"""`regrasp view`: the gallery of a run, with a picture and a page of every grasp, in the browser."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, unquote

import numpy as np
import tyro

from hand_models import HandModel

from ..batch.report import Photos, Report
from ..files.object_files import find_objects
from ..files.prediction_files import read_predictions
from ..measure.evaluate import measure_rows
from ..measure.metrics import METRICS
from ..view.gallery import GalleryColumn
from ..view.serve import Answer, server, url
from .eval import matched_rows
from .hands import HandOptions
from .live import start_live

_PATH = re.compile(
    r"/(?P<name>[^/]+)/(?:(?P<index>index\.html)?|(?P<kind>pictures|pages|motions)/(?P<row>\d{7})\.(?:jpg|html))"
)
_ERRORS = tuple(metric for metric in METRICS if metric.name in ("mpjpe", "mpjpe_root_relative"))
_REFINED = re.compile(r"(?P<name>.+)\.refined\.(npz|json|parquet)")


@dataclass(frozen=True)
class ViewOptions:
    """Options of `regrasp view`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder that regrasp refine wrote (--out), or one of its results. Pictures need that it ran with --report. With
    --live also what result.save() wrote in Python."""
    reference: Path | None = None
    """True grasps, grasp/1, whose joint errors are shown beside the rest; needs --objects."""
    objects: Path | None = None
    """Meshes, as for regrasp refine."""
    images: Path | None = None
    """Folder of the pictures that the hands were seen in, named as frame_id (.jpg or .png may be left out). Pages of
    rows with cam_K then have the camera's own view."""
    live: bool = False
    """Show grasps or a motion in viser, in place of the gallery; needs pip install 'regrasp[viz]'."""
    port: int = 8711
    """Port on this machine; 0 for any that is free."""
    hands: HandOptions = field(default_factory=HandOptions)


def view(options: ViewOptions) -> int:
    """Serve the run on the loopback address until interrupted.

    Raises:
        ValueError, FileNotFoundError: there is nothing to show, the reference does not fit, or the port is taken.
        ImportError: ``live`` without viser.
    """
    if options.live:
        running = start_live(options.run, reports_of(options), _hand_model(options), options.port)
        print(f"http://{running.get_host()}:{running.get_port()}/   (stop with Ctrl-C)", flush=True)
        running.sleep_forever()
    shown = Run.of(options)
    try:
        opened = server(shown.answer, options.port)
    except OSError as error:
        raise ValueError(f"--port {options.port}: {error.strerror}; give another, or 0 for any free one.") from error
    with opened as running:
        names = list(shown.files)
        print(f"{url(running)}{quote(names[0]) + '/' if len(names) == 1 else ''}   (stop with Ctrl-C)", flush=True)
        running.serve_forever()
    return 0


@dataclass(frozen=True)
class Shown:
    """Results of one file."""

    name: str
    results: Path
    report: Report | None
    more: tuple[GalleryColumn, ...] = ()
    """beside what the results say"""

    @cached_property
    def gallery(self) -> bytes:
        """The gallery's HTML."""
        refined = read_predictions(self.results)
        note = "" if self.report else "without pictures: refine with --report to have them"
        shown = {"pictured": None, "motions": self.report.motions()} if self.report else {"pictured": []}
        return Report.gallery(refined, self.name, more=self.more, note=note, **shown).encode()


@dataclass(frozen=True)
class Run:
    """What a server shows of a run."""

    files: dict[str, Shown]

    @staticmethod
    def of(options: ViewOptions) -> Run:
        """The results in ``options.run``.

        Raises:
            FileNotFoundError: there are none.
            ValueError: ``--reference`` without ``--objects``, or one that has no hand of these.
        """
        if options.reference is not None and options.objects is None:
            raise ValueError("--reference: give the meshes too, with --objects.")
        found, reports = results_of(options.run), reports_of(options)
        if not found:
            raise FileNotFoundError(
                f"{options.run}: holds no <name>.refined.npz; give the folder that regrasp refine wrote (--out), or "
                "add --live for what result.save() wrote."
            )
        more = {} if options.reference is None else _errors(found, options.reference, options)
        return Run({name: Shown(name, path, reports.get(name), more.get(name, ())) for name, path in found.items()})

    def answer(self, path: str) -> Answer | None:
        """What is at ``path``: the list of files, a gallery, a picture, a page. Nothing else is there."""
        if path == "/":
            return Answer("text/html; charset=utf-8", self._list())
        parts = _PATH.fullmatch(path)
        shown = self.files.get(unquote(parts["name"])) if parts else None
        if parts is None or shown is None:
            return None
        if parts["kind"] is None:
            return Answer("text/html; charset=utf-8", shown.gallery)
        if shown.report is None:
            return None
        make, kind = {
            "pictures": (shown.report.picture, "image/jpeg"),
            "pages": (shown.report.page, "text/html; charset=utf-8"),
            "motions": (shown.report.motion, "text/html; charset=utf-8"),
        }[parts["kind"]]
        try:
            return Answer(kind, make(int(parts["row"])).read_bytes())
        except (OSError, ValueError, ImportError):
            return None

    def _list(self) -> bytes:
        items = "".join(f'<li><a href="/{quote(name)}/">{html.escape(name)}</a></li>' for name in self.files)
        return f"<!DOCTYPE html><title>regrasp</title><ul>{items}</ul>".encode()


def results_of(run: Path) -> dict[str, Path]:
    """Files of results by name: those in a folder, or the one that ``run`` is."""
    paths = sorted(run.glob("*")) if run.is_dir() else [run] * run.is_file()
    return {m["name"]: path for path in paths if (m := _REFINED.fullmatch(path.name))}


def reports_of(options: ViewOptions) -> dict[str, Report]:
    """Reports of results that have one."""
    if options.images is not None and not options.images.is_dir():
        raise FileNotFoundError(f"--images {options.images}: there is no such folder.")
    found = {}
    for name, path in results_of(options.run).items():
        if (folder := path.parent / f"{name}.report").is_dir():
            photos = options.images and Photos(options.images, read_predictions(path))
            found[name] = Report(folder, photos)
    return found


def _hand_model(options: ViewOptions) -> HandModel | None:
    """None where nothing is said of it."""
    return None if options.hands == HandOptions() else options.hands.load()


def _errors(results: Mapping[str, Path], truth: Path, options: ViewOptions) -> dict[str, tuple[GalleryColumn, ...]]:
    """By file the mean joint error of each row, NaN where the reference has none; no file without a row that it has."""
    assert options.objects is not None
    reference, objects, model = read_predictions(truth), find_objects(options.objects), options.hands.load()
    columns = {}
    for name, path in results.items():
        refined = read_predictions(path)
        here, there = matched_rows(refined, reference)
        if not len(here):
            continue
        measured = measure_rows(refined.take(here), reference.take(there), objects, model, _ERRORS)
        values = np.full(len(refined), np.nan)
        values[here] = measured.get("mpjpe_mm", measured["mpjpe_root_relative_mm"])
        meaning = "mean distance of the joints from the true ones"
        columns[name] = (GalleryColumn("error", "joint error", values, "mm", meaning),)
    if not columns:
        raise ValueError(f"--reference {truth}: no row has the frame, object and side of a result.")
    return columns
