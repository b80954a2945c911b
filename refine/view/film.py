"""Films of grasps without a display: a turntable, the way from before to after, the frames of a sequence.

Frames are pictures (H, W, 3) uint8, made one by one: `turntable`, `solving` and `playing` give them, `write_gif` and
`write_mp4` take any.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from hand_models.atomic import write_atomically

from .camera import Camera
from .pictures import GraspView
from .render import render
from .scene import auto_camera

Size = tuple[int, int]


def turntable(view: GraspView, count: int = 60, size: Size = (480, 360), *, samples: int = 2) -> Iterator[np.ndarray]:
    """The refined grasp from all round, `count` frames for one turn about its upright axis."""
    items = [view.object_item(heat=True), view.hand_item(view.after)]
    points = np.concatenate([np.asarray(item.vertices) for item in items])
    middle = (points.min(0) + points.max(0)) / 2
    start = auto_camera(items, up=view.up, size=size)
    up = np.asarray(view.up, dtype=np.float64) / np.linalg.norm(view.up)
    # Far enough that nothing leaves the picture on the way round: the ball around all of it fits.
    radius = np.linalg.norm(points - middle, axis=1).max()
    narrow = np.arctan(np.tan(start.fov / 2) * min(1.0, size[0] / size[1]))
    first = start.pose.copy()
    first[:3, 3] = middle - first[:3, 2] * radius / np.sin(narrow)
    for frame in range(count):
        turn = Rotation.from_rotvec(up * (2 * np.pi * frame / count)).as_matrix()
        pose = np.eye(4)
        pose[:3, :3] = turn @ first[:3, :3]
        pose[:3, 3] = middle + turn @ (first[:3, 3] - middle)
        yield render(items, Camera(pose, start.fov), size, samples, up=view.up)


def solving(
    view: GraspView, count: int = 24, size: Size = (480, 360), *, hold: int = 12, samples: int = 2
) -> Iterator[np.ndarray]:
    """The hand on its way from before to after, `count` frames that start and end slowly, and `hold` of either end.

    The contact map comes at the end, when the hand has arrived. Vertices go straight, as on the page: a solver's own
    steps are few and long.
    """
    camera = view.camera(size)

    def picture(share: float) -> np.ndarray:
        hand = np.asarray(view.before) + share * (np.asarray(view.after) - np.asarray(view.before))
        return render([view.object_item(share == 1.0), view.hand_item(hand)], camera, size, samples, up=view.up)

    first, last = picture(0.0), picture(1.0)
    yield from itertools.repeat(first, hold)
    for x in np.linspace(0, 1, count + 2)[1:-1]:
        yield picture(float(x * x * (3 - 2 * x)))
    yield from itertools.repeat(last, hold)


def playing(
    frames: Sequence[GraspView], size: Size = (480, 360), *, before: bool = True, samples: int = 2
) -> Iterator[np.ndarray]:
    """A sequence from one camera that sees all of it; with `before`, the hands before stand to the left of those after.

    Raises:
        ValueError: there are no frames.
    """
    if not frames:
        raise ValueError("frames: none given; give one GraspView for each frame")
    camera = frames[len(frames) // 2].camera(size, frames)
    for view in frames:
        thing = view.object_item()
        hands = (view.before, view.after) if before else (view.after,)
        yield np.concatenate(
            [render([thing, view.hand_item(np.asarray(hand))], camera, size, samples, up=view.up) for hand in hands], 1
        )


def over_photos(
    frames: Iterable[GraspView], longest: int = 640, *, before: bool = True, samples: int = 2
) -> Iterator[np.ndarray]:
    """Each frame over the user's own picture of it; with `before`, the hands before stand to the left of those after.

    Pictures are at most `longest` pixels wide and high.
    Raises ValueError where a frame has no photo.
    """
    for view in frames:
        hands = ("before", "after") if before else ("after",)
        yield np.concatenate([view.on_photo(hand, longest, samples) for hand in hands], 1)


def write_gif(frames: Iterable[np.ndarray], path: str | PathLike[str], *, fps: float = 20.0) -> Path:
    """Write frames as a GIF that repeats; returns the path. All share one palette, so that nothing flickers.

    Raises:
        ValueError: there are no frames, they differ in size, or `fps` is not positive.
    """
    pictures = [Image.fromarray(frame) for frame in _checked(frames, fps)]
    # One palette for all: from a few frames spread over the film, laid side by side.
    some = pictures[:: max(1, len(pictures) // 8)]
    strip = Image.new("RGB", (some[0].width * len(some), some[0].height))
    for number, picture in enumerate(some):
        strip.paste(picture, (number * picture.width, 0))
    palette = strip.quantize(255, dither=Image.Dither.NONE)
    drawn = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    stream = io.BytesIO()
    # Hundredths of a second are all that the format knows, and viewers slow down what is below two.
    duration = max(20, 10 * round(100 / fps))
    drawn[0].save(stream, "GIF", save_all=True, append_images=drawn[1:], duration=duration, loop=0)
    return write_atomically(path, lambda target: target.write(stream.getvalue()))


def write_mp4(frames: Iterable[np.ndarray], path: str | PathLike[str], *, fps: float = 30.0) -> Path:
    """Write frames as H.264 in MP4, which every browser plays; returns the path. Sizes are cut to even numbers.

    Raises:
        ValueError: as `write_gif`.
        ImportError: imageio-ffmpeg is not installed.
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ImportError(
            "mp4 films need the imageio-ffmpeg package, which is not installed: pip install 'regrasp[film]'"
        ) from error
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial.mp4")  # ffmpeg writes to a name, and seeks in it
    checked = iter(_checked(frames, fps))
    first = next(checked)
    height, width = (side - side % 2 for side in first.shape[:2])
    try:
        writer: Any = imageio_ffmpeg.write_frames(
            str(partial),
            (width, height),
            fps=fps,
            codec="libx264",
            quality=7,
            macro_block_size=2,
            ffmpeg_log_level="error",
        )
        writer.send(None)
        for frame in itertools.chain([first], checked):
            writer.send(np.ascontiguousarray(frame[:height, :width]))
        writer.close()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def write_film(frames: Iterable[np.ndarray], path: str | PathLike[str], *, fps: float = 20.0) -> Path:
    """`write_gif` or `write_mp4`, by the path's suffix. Raises ``ValueError`` for another suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".gif", ".mp4"):
        raise ValueError(f"path: {str(path)!r} ends in neither .gif nor .mp4; films are written as those.")
    return (write_gif if suffix == ".gif" else write_mp4)(frames, path, fps=fps)


def _checked(frames: Iterable[np.ndarray], fps: float) -> Iterator[np.ndarray]:
    if not fps > 0:
        raise ValueError(f"fps: got {fps}; give frames a second, more than 0.")
    shape = None
    for number, frame in enumerate(frames):
        shape = shape or frame.shape
        if frame.shape != shape or frame.dtype != np.uint8 or frame.ndim != 3:
            raise ValueError(
                f"frames: number {number} is {frame.dtype} {frame.shape}; all must be uint8 (H, W, 3) of one size."
            )
        yield frame
    if shape is None:
        raise ValueError("frames: none given; a film needs at least one.")
