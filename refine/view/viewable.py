"""What can be shown: from views of grasps, or of the frames of a motion, follow pages, pictures, films, meshes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from hand_models import HandPose

from .export import write_glb, write_usd
from .film import Size, over_photos, playing, solving, turntable, write_gif, write_mp4
from .grasp import both_hands
from .page import write_page
from .photo import Photo
from .pictures import GraspView, write_png
from .summary import Summary, data_frame

Motion = TypeVar("Motion", bound="ViewableMotion")
Film = Literal["solve", "turntable"]
_FILMS = {"solve": solving, "turntable": turntable}


class Viewable:
    """Something of several grasps, whose `view` gives one of them."""

    object_pose: np.ndarray | None
    """(B, 4, 4) frame of the views to the camera, where they differ"""

    def view(self, index: int = 0, *, title: str | None = None, truth: HandPose | None = None) -> GraspView:
        """What is shown of grasp ``index``."""
        raise NotImplementedError

    def view_on_photo(self, index: int, image: Any, camera: Any, keypoints_2d: Any = None, **shown: Any) -> GraspView:
        """`view` of grasp ``index`` with the user's picture of it.

        Args:
            image: path, pillow image or array ``(H, W, 3)`` uint8.
            camera: ``(3, 3)`` intrinsics in its pixels, or one for each grasp.
            keypoints_2d: ``(21, 2)`` pixels, or those of each grasp; none are drawn without.

        Raises:
            ValueError: one of them is none of these.
            FileNotFoundError: there is no such image.
        """
        view = self.view(index, **shown)
        pose = None if self.object_pose is None else self.object_pose[index]
        return replace(view, photo=Photo.of(image, _row(camera, index), _row(keypoints_2d, index), pose))

    def to_html(
        self, path: str | PathLike[str], index: int = 0, *, title: str | None = None, truth: HandPose | None = None,
        image: Any = None, camera: Any = None, keypoints_2d: Any = None,
    ) -> Path:  # fmt: skip
        """One self-contained page of grasp ``index``: before, after, the truth if it is given, contact, metrics.

        Args:
            path: of the page; missing folders are made.
            title, truth: as in `view`.
            image, camera, keypoints_2d: the picture the grasp was seen in, as in `view_on_photo`: the page then has the
                camera's own view too, with the picture behind the hand.

        Raises:
            IndexError: there is no such grasp.
            ValueError: the grasp failed, so that there is nothing to show, or as `view_on_photo`.
        """
        if image is None:
            return write_page(self.view(index, title=title, truth=truth), path)
        return write_page(self.view_on_photo(index, image, camera, keypoints_2d, title=title, truth=truth), path)

    def to_png(
        self, path: str | PathLike[str], index: int = 0, *, size: Size = (640, 480),
        image: Any = None, camera: Any = None, keypoints_2d: Any = None,
    ) -> Path:  # fmt: skip
        """A picture of grasp ``index``, before beside after; over the picture it was seen in where that is given.

        Args:
            size: width and height of either in pixels; over a picture it has that one's shape.
            image, camera, keypoints_2d: as in `view_on_photo`.

        Raises:
            ImportError: embreex is not installed.
            IndexError, ValueError: as `to_html`.
        """
        if image is None:
            return write_png(np.concatenate(self.view(index).pictures(size), 1), path)
        return write_png(next(over_photos([self.view_on_photo(index, image, camera, keypoints_2d)], max(size))), path)

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

    def to_usd(self, path: str | PathLike[str], index: int = 0) -> Path:
        """The same as a USD stage, .usda, .usdc or .usdz; see `write_usd`."""
        return write_usd(self.view(index), path)


class ViewablePair(Viewable):
    """Results of two hands on one object, which are shown together."""

    hands: tuple[Any, Any]

    @property
    def object_pose(self) -> np.ndarray | None:  # type: ignore[override]
        """(B, 4, 4) object to camera, when the input came in the camera's frame."""
        return self.hands[0].object_pose

    def view(self, index: int = 0, *, title: str | None = None, truth: Sequence[HandPose] | None = None) -> GraspView:  # type: ignore[override]
        """Both hands of grasp ``index``, or the one that did not fail; ``truth``: one for either hand."""
        found = {
            hand.pose.side: hand.view(index, title=title, truth=None if truth is None else truth[k])
            for k, hand in enumerate(self.hands)
            if hand.status[index] != "failed" or self.hands[1 - k].status[index] == "failed"
        }
        return both_hands(found) if len(found) == 2 else next(iter(found.values()))

    def to_dataframe(self) -> Any:
        """A pandas table of a row a hand, those of the first before those of the second; see `RefineResult`."""
        first, second = (hand.to_dataframe() for hand in self.hands)
        return data_frame({name: [*first[name], *second[name]] for name in first})

    def contact_uv(self, size: int = 256, *, uv: np.ndarray | None = None) -> tuple[Any, Any]:
        """Predicted contact of either hand on its own map, as `RefineResult.contact_uv`."""
        return tuple(hand.contact_uv(size, uv=uv) for hand in self.hands)  # type: ignore[return-value]


class ViewableMotion:
    """A motion of ``len`` frames, whose `view` gives one of them, in the frame of the input."""

    fps: float
    object: Any
    """what is held, with a ``name``"""
    _summary: Callable[[], Summary]

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self._summary().text()}"

    def _repr_html_(self) -> str:
        return self._summary().table()

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self: Motion, index: Any) -> Motion:
        raise NotImplementedError

    def __iter__(self: Motion) -> Iterator[Motion]:
        return (self[frame] for frame in range(len(self)))

    def view(self, index: int = 0, *, title: str | None = None, truth: HandPose | None = None) -> GraspView:
        """What is shown of frame ``index``."""
        raise NotImplementedError

    def views(
        self, *, every: int = 1, images: Sequence[Any] | None = None, camera: Any = None, keypoints_2d: Any = None,
        **shown: Any,
    ) -> list[GraspView]:  # fmt: skip
        """`view` of all frames, or of one of ``every`` so many, with the pictures they were seen in if they are given.

        Args:
            images: one for each frame, each as in `Viewable.view_on_photo`.
            camera: ``(3, 3)`` intrinsics in their pixels, or one for each frame.
            keypoints_2d: ``(T, 21, 2)`` pixels; none are drawn without.

        Raises:
            ValueError: there are not as many images as frames, or one of these is not what it should be.
        """
        if images is not None and len(images) != len(self):
            raise ValueError(f"images: {len(images)} for {len(self)} frames; give one for each.")
        found = []
        for k in range(0, len(self), every):
            view = self.view(k, **shown)
            if images is not None:
                view = replace(view, photo=Photo.of(images[k], _row(camera, k), _row(keypoints_2d, k)))
            found.append(view)
        return found

    def to_html(
        self, path: str | PathLike[str], *, title: str | None = None, truth: HandPose | None = None, **photos: Any
    ) -> Path:
        """One self-contained page on which the motion plays: before, after, the truth if it is given, contact.

        Args:
            path: of the page; missing folders are made.
            title, truth: as in `view`.
            **photos: images, camera and keypoints_2d of `views`: the page then also has the camera's own view.
        """
        title = title or f"{self.object.name} · {len(self)} frames".removeprefix(" · ")
        return write_page(self.views(title=title, truth=truth, **photos), path, fps=self.fps)

    def to_gif(self, path: str | PathLike[str], *, size: Size = (480, 360), every: int = 2, **photos: Any) -> Path:
        """A GIF of the motion as it plays, before beside after; over the pictures it was seen in if they are given.

        Args:
            size: width and height of either in pixels; over pictures it has their shape.
            every: of how many frames one is drawn.
            **photos: images, camera and keypoints_2d of `views`.

        Raises:
            ImportError: embreex is not installed.
            ValueError: as `views`.
        """
        return write_gif(self._pictures(size, every, photos), path, fps=self.fps / every)

    def to_mp4(self, path: str | PathLike[str], *, size: Size = (640, 480), every: int = 1, **photos: Any) -> Path:
        """As `to_gif`, as MP4 (H.264); needs imageio-ffmpeg too."""
        return write_mp4(self._pictures(size, every, photos), path, fps=self.fps / every)

    def to_glb(self, path: str | PathLike[str], index: int = 0) -> Path:
        """Object and hands of frame ``index`` as a GLB scene; see `write_glb`."""
        return write_glb(self.view(index), path)

    def to_usd(self, path: str | PathLike[str]) -> Path:
        """The motion as a USD stage with time samples, .usda, .usdc or .usdz; see `write_usd`."""
        return write_usd(self.views(), path, fps=self.fps)

    def _pictures(self, size: Size, every: int, photos: dict[str, Any]) -> Iterator[np.ndarray]:
        views = self.views(every=every, **photos)
        return playing(views, size) if views[0].photo is None else over_photos(views, max(size))


def _frames(view: GraspView, film: str, size: Size) -> Iterator[np.ndarray]:
    if film not in _FILMS:
        raise ValueError(f"film: got {film!r}; choose one of {', '.join(_FILMS)}.")
    return _FILMS[film](view, size=size)


def _row(values: Any, index: int) -> Any:
    """Of one matrix for all, that; of one for each, that of ``index``."""
    return values if values is None or np.ndim(values) < 3 else values[index]
