"""What can be shown: from views of single grasps, or of the frames of a motion, follow pages, films and meshes."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np

from hand_models import HandPose

from .export import write_glb
from .film import Size, playing, solving, turntable, write_gif, write_mp4
from .page import write_page
from .pictures import GraspView

Film = Literal["solve", "turntable"]
_FILMS = {"solve": solving, "turntable": turntable}


class Viewable:
    """Something of several grasps, whose `view` gives one of them."""

    def view(self, index: int = 0, *, title: str | None = None, truth: HandPose | None = None) -> GraspView:
        """What is shown of grasp ``index``."""
        raise NotImplementedError

    def to_html(
        self, path: str | PathLike[str], index: int = 0, *, title: str | None = None, truth: HandPose | None = None
    ) -> Path:
        """One self-contained page of grasp ``index``: before, after, the truth if it is given, contact, metrics.

        Args:
            path: of the page; missing folders are made.
            title, truth: as in `view`.

        Raises:
            IndexError: there is no such grasp.
            ValueError: the grasp failed, so that there is nothing to show.
        """
        return write_page(self.view(index, title=title, truth=truth), path)

    def to_gif(
        self,
        path: str | PathLike[str],
        index: int = 0,
        *,
        film: Film = "solve",
        size: Size = (480, 360),
        fps: float = 20.0,
    ) -> Path:
        """A GIF of grasp ``index`` going from before to after (``solve``), or turning (``turntable``).

        Args:
            size: width and height in pixels.
            fps: frames a second.

        Raises:
            ImportError: embreex is not installed.
            IndexError, ValueError: as `to_html`, or another film.
        """
        return write_gif(_frames(self.view(index), film, size), path, fps=fps)

    def to_mp4(
        self,
        path: str | PathLike[str],
        index: int = 0,
        *,
        film: Film = "solve",
        size: Size = (640, 480),
        fps: float = 30.0,
    ) -> Path:
        """As `to_gif`, as MP4 (H.264); needs imageio-ffmpeg too."""
        return write_mp4(_frames(self.view(index), film, size), path, fps=fps)

    def to_glb(self, path: str | PathLike[str], index: int = 0) -> Path:
        """Object and hands of grasp ``index`` as a GLB scene for Blender and other viewers; see `write_glb`."""
        return write_glb(self.view(index), path)


class ViewableMotion:
    """A motion of ``len`` frames, whose `view` gives one of them."""

    fps: float

    def __len__(self) -> int:
        raise NotImplementedError

    def view(self, index: int = 0, *, title: str | None = None, truth: HandPose | None = None) -> GraspView:
        """What is shown of frame ``index``."""
        raise NotImplementedError

    def to_html(self, path: str | PathLike[str], *, title: str | None = None, truth: HandPose | None = None) -> Path:
        """One self-contained page on which the motion plays: before, after, the truth if it is given, contact.

        Args:
            path: of the page; missing folders are made.
            title, truth: as in `view`.
        """
        views = [self.view(k, title=title, truth=truth) for k in range(len(self))]
        return write_page(views, path, fps=self.fps)

    def to_gif(self, path: str | PathLike[str], *, size: Size = (480, 360), every: int = 2) -> Path:
        """A GIF of the motion as it plays, before beside after.

        Args:
            size: width and height of either in pixels.
            every: of how many frames one is drawn.

        Raises:
            ImportError: embreex is not installed.
        """
        return write_gif(self._pictures(size, every), path, fps=self.fps / every)

    def to_mp4(self, path: str | PathLike[str], *, size: Size = (640, 480), every: int = 1) -> Path:
        """As `to_gif`, as MP4 (H.264); needs imageio-ffmpeg too."""
        return write_mp4(self._pictures(size, every), path, fps=self.fps / every)

    def _pictures(self, size: Size, every: int) -> Iterator[np.ndarray]:
        return playing([self.view(k) for k in range(0, len(self), every)], size)


def _frames(view: GraspView, film: str, size: Size) -> Iterator[np.ndarray]:
    if film not in _FILMS:
        raise ValueError(f"film: got {film!r}; choose one of {', '.join(_FILMS)}.")
    return _FILMS[film](view, size=size)
