"""What a batch leaves to look at: small records of its grasps, a gallery of its rows, pictures and pages of some.

A report is a folder: ``index.html`` the gallery; ``rows/`` and ``shared/`` the records of `refine.view.records`, from
which ``pictures/`` and ``pages/`` are made, of some rows at once and of the others when a server is asked for them;
``motions/`` pages on which motions play.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hand_models.atomic import write_atomically

from ..files.predictions import Predictions
from ..motion.sequence import SequenceResult
from ..result import RefineResult
from ..view.gallery import GalleryColumn, gallery_page, write_thumbnail
from ..view.page import write_page
from ..view.photo import Photo
from ..view.pictures import GraspView
from ..view.records import load_view, save_view

_log = logging.getLogger(__name__)
MOST_ROWS = 50_000
"""Rows a gallery shows: all of it is in one file."""

_NUMBERS = (
    ("score", "score_after", 1.0, "", "plausibility score of the refined hand, higher is better"),
    ("depth_before", "penetration_mm_before", 1.0, "mm", "deepest penetration before"),
    ("depth", "penetration_mm_after", 1.0, "mm", "deepest penetration after"),
    ("volume", "volume_cm3_after", 1.0, "cm³", "intersection volume after"),
    ("contact", "contact_ratio_after", 1.0, "", "1 where the refined hand touches the object"),
    ("reprojection", "reprojection_px_after", 1.0, "px", "mean distance of the refined joints from the keypoints"),
)  # fmt: skip
_LABELS = {"depth_before": "depth before", "depth": "depth after"}


def columns_of(refined: Predictions, more: Iterable[GalleryColumn] = ()) -> list[GalleryColumn]:
    """The gallery's columns of refined rows; ``more`` stand before the notes."""
    count = len(refined)
    found = [GalleryColumn("row", "row", np.arange(count), meaning="place in the file")]
    for key, label, values in (
        ("status", "status", refined.status),
        ("object", "object", refined.object_id),
        ("sequence", "sequence", refined.sequence_id),
        ("frame", "frame", refined.frame_id),
        ("side", "side", refined.side),
    ):
        if values is not None and (values != "").any():
            found.append(GalleryColumn(key, label, values))
    if refined.uncertainty is not None:
        sigma = 1e3 * refined.uncertainty.mean(1)
        found.append(GalleryColumn("sigma", "σ of joints", sigma, "mm", "mean standard deviation of the joints"))
    for key, column, scale, unit, meaning in _NUMBERS:
        values = getattr(refined, column)
        if values is not None and np.isfinite(values).any():
            found.append(GalleryColumn(key, _LABELS.get(key, key), scale * values, unit, meaning))
    found += more
    texts = [getattr(refined, name) for name in ("reason", "warnings")]
    texts = [np.full(count, "") if values is None else values for values in texts]
    notes = np.array([reason or warning for reason, warning in zip(*(t.tolist() for t in texts), strict=True)], np.str_)
    return [*found, GalleryColumn("notes", "why, and what to look at", notes)]


@dataclass(frozen=True)
class Photos:
    """The pictures in which the hands of ``rows`` were seen: files of ``folder`` named as `frame_id`."""

    folder: Path
    rows: Predictions
    first: int = 0
    """number of the first of them in their file"""

    def of(self, row: int, view: GraspView) -> Photo | None:
        """That of ``row``; None where there is none, no camera, or the hand is not before it."""
        row -= self.first
        camera, name = self.rows.cam_K, str(self.rows.frame_id[row])
        names = [f"{stem}{end}" for stem in (name, Path(name).name) for end in ("", ".jpg", ".jpeg", ".png")]
        inside = self.folder.resolve()
        paths = (path for name in names if (path := (inside / name).resolve()).is_relative_to(inside))
        path = next((path for path in paths if path.is_file()), None)
        if path is None or camera is None or not np.isfinite(camera[row]).all():
            return None
        # A view that places its object is in the camera's frame; the others are in the object's.
        pose = None if view.object_pose is not None or self.rows.object_pose is None else self.rows.object_pose[row]
        seen = None if self.rows.keypoints_2d is None else self.rows.keypoints_2d[row]
        try:
            photo = Photo.of(path, camera[row], seen, pose)
        except (OSError, ValueError):
            _log.warning("row %d: %s cannot be shown", row, path, exc_info=True)
            return None
        return photo if photo.depth(view.after).min() > 0 else None


@dataclass(frozen=True)
class Report:
    """The report in ``folder``; pages have the camera's own view where there are ``photos``."""

    folder: Path
    photos: Photos | None = None
    _drawing: Any = field(default_factory=threading.Lock, repr=False, compare=False)
    """a server asks from several threads, and a picture keeps all cores busy"""
    _with_photo: set[int] = field(default_factory=set, repr=False, compare=False)

    def record(self, numbers: np.ndarray, result: RefineResult | SequenceResult) -> None:
        """Keep the grasps of ``result``, rows ``numbers`` of the file; one that cannot be shown is left out."""
        for index, number in enumerate(numbers.tolist()):
            if result.status[index] == "failed":
                continue
            try:
                view = result.view(index, title=f"{result.object.name} · row {number}".removeprefix(" · "))
                save_view(view, self.folder / "rows", self.folder / "shared", _name(number))
            except Exception:  # what cannot be shown is refined all the same
                _log.warning("row %d cannot be shown", number, exc_info=True)

    def record_motion(self, numbers: np.ndarray, result: SequenceResult) -> None:
        """Keep the frames of a motion, rows ``numbers`` of the file, and a page on which it plays, called by the first
        of them."""
        self.record(numbers, result)
        first, photos = int(numbers[0]), self.photos
        title = f"{result.object.name} · motion from row {first}".removeprefix(" · ")
        try:
            views = result.views(title=title)
            if photos is not None:
                views = [replace(v, photo=photos.of(n, v)) for n, v in zip(numbers.tolist(), views, strict=True)]
            write_page(views, self.folder / "motions" / f"{_name(first)}.html", fps=result.fps)
        except Exception:  # as of single rows
            _log.warning("the motion from row %d cannot be shown", first, exc_info=True)

    def rows(self) -> list[int]:
        """Rows with a record, in order."""
        return sorted(int(path.stem) for path in (self.folder / "rows").glob("*.npz") if path.stem.isdecimal())

    def motions(self) -> list[int]:
        """First rows of the motions that have a page."""
        return sorted(int(path.stem) for path in (self.folder / "motions").glob("*.html") if path.stem.isdecimal())

    def motion(self, row: int) -> Path:
        """The page of the motion from ``row`` on, if there is one."""
        return self._path("motions", row, "html")

    def view(self, row: int) -> GraspView:
        """Raises ``FileNotFoundError`` where the row has no record."""
        view = load_view(self._path("rows", row, "npz"), self.folder / "shared")
        return view if self.photos is None else replace(view, photo=self.photos.of(row, view))

    def picture(self, row: int) -> Path:
        """The thumbnail, made if it is not there. Raises ``FileNotFoundError``, and ``ImportError`` without embreex."""
        path = self._path("pictures", row, "jpg")
        with self._drawing:
            return path if path.is_file() else write_thumbnail(self.view(row), path)

    def page(self, row: int) -> Path:
        """The page, made if it is not there. Raises ``FileNotFoundError`` where the row has no record."""
        path = self._path("pages", row, "html")
        with self._drawing:
            if path.is_file() and (self.photos is None or row in self._with_photo):
                return path
            self._with_photo.add(row)  # an earlier page may be without
            return write_page(self.view(row), path)

    def _path(self, kind: str, row: int, suffix: str) -> Path:
        """Raises ``FileNotFoundError`` where it leads out of the report: runs are passed on, and may hold any link."""
        path = self.folder / kind / f"{_name(row)}.{suffix}"
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise FileNotFoundError(f"{path}: leads out of {self.folder}.")
        return path

    def write(self, refined: Predictions, title: str, pictured: int) -> Path:
        """Write the gallery, with pictures and pages of at most ``pictured`` rows spread over the file."""
        there = self.rows()
        chosen = [there[i] for i in np.unique(np.linspace(0, len(there) - 1, min(pictured, len(there))).astype(int))]
        done = []
        for row in chosen:
            try:
                self.page(row)
                self.picture(row)
                done.append(row)
            except ImportError as error:
                _log.warning("no thumbnails: %s", error)
                break
            except Exception:
                _log.warning("row %d cannot be drawn", row, exc_info=True)
        some = f"{len(done)} of {len(refined)} rows have a picture and a page; regrasp view makes them of any"
        note = "" if len(done) == len(refined) else some
        text = self.gallery(refined, title, pictured=done, motions=self.motions(), note=note)
        return write_atomically(self.folder / "index.html", lambda stream: stream.write(text.encode()))

    @staticmethod
    def gallery(refined: Predictions, title: str, *, more: Iterable[GalleryColumn] = (), **shown: Any) -> str:
        """HTML of the gallery; ``more`` columns and what else `gallery_page` takes."""
        some = refined if len(refined) <= MOST_ROWS else refined.take(np.arange(MOST_ROWS))
        if len(some) < len(refined):
            shown["note"] = f"the first {MOST_ROWS} of {len(refined)} rows. {shown.get('note', '')}"
        return gallery_page(title, columns_of(some, more), **shown)


def _name(row: int) -> str:
    return f"{row:07d}"
