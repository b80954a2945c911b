"""What is shown of a grasp, as plain arrays; the meshes of its pictures; sheets of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from hand_models.atomic import write_atomically

from .appearance import OBJECT, SKIN, contact_colours, corner_normals, smoother, spread, subdivide, vertex_normals
from .camera import Camera, frame
from .photo import Photo
from .render import render
from .scene import Item, auto_camera

_KEYPOINT = (3, 105, 161)
HAND_CREASE = 1.2  # radians: knuckles stay smooth, the rim of the wrist's cap stays sharp


@dataclass(frozen=True)
class GraspView:
    """One hand on one object, before and after, with what is known about contact. Metres, one frame.

    title names the grasp; object_vertices (N, 3), object_faces (M, 3); hand_faces (F, 3), wrist closed;
    before, after (V, 3). The optional rest: see beside the fields. Pictures, pages, films and exports are all
    drawn from it; a sequence is a list of them, one a frame, with the same triangles.
    """

    title: str
    object_vertices: np.ndarray
    object_faces: np.ndarray
    hand_faces: np.ndarray
    before: np.ndarray
    after: np.ndarray
    object_points: np.ndarray | None = None
    """(n, 3) the samples of the object's surface that contact is known at"""
    object_normals: np.ndarray | None = None
    """(n, 3)"""
    object_contact: np.ndarray | None = None
    """(n,) in [0, 1], as predicted"""
    hand_contact: np.ndarray | None = None
    """(V,) in [0, 1], as predicted"""
    uncertainty: np.ndarray | None = None
    """(V,) standard deviation of the place of the skin after, metres"""
    parts: np.ndarray | None = None
    """(V,) bone of each vertex of the hand"""
    open_faces: int | None = None
    """how many of hand_faces come before the wrist's cap"""
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """names to (before, after)"""
    status: str = ""
    """a word"""
    explanation: str = ""
    """what that word means"""
    warnings: Sequence[str] = ()
    """what is suspicious of it"""
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """the world's upward direction"""
    truth: np.ndarray | None = None
    """(V, 3) the true hand"""
    object_contact_sd: np.ndarray | None = None
    """(n,) standard deviation of object_contact"""
    hand_contact_sd: np.ndarray | None = None
    """(V,) of hand_contact"""
    skin_distance: Mapping[str, np.ndarray] = field(default_factory=dict)
    """of "before", "after" and "truth" (V,) metres from the skin to the object, negative inside"""
    object_distance: Mapping[str, np.ndarray] = field(default_factory=dict)
    """of the same (n,) metres from object_points to the skin, negative inside the hand"""
    joints: np.ndarray | None = None
    """(21, 3) after, OpenPose order"""
    joint_sd: np.ndarray | None = None
    """(21,) their standard deviations, metres"""
    object_pose: np.ndarray | None = None
    """(4, 4) object to the frame of the hands; None: they share one"""
    photo: Photo | None = None
    """the user's own picture of it"""

    @cached_property
    def hands(self) -> dict[str, np.ndarray]:
        """The hands there are, (V, 3) each, by "before", "after" and "truth"."""
        known = {"before": self.before, "after": self.after, "truth": self.truth}
        return {name: np.asarray(vertices) for name, vertices in known.items() if vertices is not None}

    @cached_property
    def object_surface(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """Vertices (N', 3), faces (M', 3), corner normals (M', 3, 3) of the object in its own frame and contact (N',)
        on it, None where it is not known; fine enough for the heat map when there is one."""
        normals = corner_normals(self.object_vertices, self.object_faces)
        if self.object_contact is None or self.object_points is None:
            return np.asarray(self.object_vertices), np.asarray(self.object_faces), normals, None
        edge = max(0.004, float(np.ptp(self.object_vertices, axis=0).max()) / 60)
        vertices, faces, normals = subdivide(self.object_vertices, self.object_faces, normals, edge)
        contact = spread(
            self.object_points, self.object_contact, vertices,
            point_normals=self.object_normals, onto_normals=vertex_normals(faces, normals, len(vertices)),
        )  # fmt: skip
        return vertices, faces, normals, contact

    def object_item(self, heat: bool = False) -> Item:
        """The object, with contact painted on it when `heat` and contact is known."""
        vertices, faces, normals, contact = self.object_surface
        colour = contact_colours(contact) if heat and contact is not None else OBJECT
        if self.object_pose is not None:
            rotation, translation = np.asarray(self.object_pose)[:3, :3], np.asarray(self.object_pose)[:3, 3]
            vertices, normals = vertices @ rotation.T + translation, normals @ rotation.T
        return Item(vertices, faces, colour, normals=normals, focus=0.5)

    def hand_item(self, vertices: np.ndarray) -> Item:
        """The hand with its vertices (V, 3) before or after."""
        faces = np.asarray(self.hand_faces)
        groups = np.zeros(len(faces), np.int64) if self.parts is None else np.asarray(self.parts)[faces[:, 0]]
        if self.open_faces is not None:
            groups = np.where(np.arange(len(faces)) < self.open_faces, groups, -1)
        for _ in range(2):
            mesh = smoother(vertices, faces)
            vertices, faces, groups = mesh.vertices, mesh.faces, np.tile(groups, 4)
        return Item(vertices, faces, SKIN, gloss=0.4, softness=0.35, groups=groups, crease=HAND_CREASE)

    def camera(self, size: tuple[int, int] = (640, 480), frames: Sequence[GraspView] = ()) -> Camera:
        """The view that shows the refined grasp best, with the hand before also in the picture, and some sixteen of
        the ``frames`` of its sequence. Without embreex, one from the hand's own side."""
        items = [self.object_item(), self.hand_item(self.after)]
        extra = [np.asarray(self.before)]
        for view in frames[:: max(1, len(frames) // 16)]:
            extra += [np.asarray(view.before), np.asarray(view.after), np.asarray(view.object_item().vertices)]
        try:
            return auto_camera(items, up=self.up, size=size, extra=np.concatenate(extra))
        except ImportError:  # pages do without
            points = np.concatenate([*extra, *(np.asarray(item.vertices) for item in items)])
            towards = np.asarray(items[0].vertices).mean(0) - np.asarray(self.after).mean(0)
            return frame(points, towards - 0.4 * np.linalg.norm(towards) * np.asarray(self.up), up=self.up, size=size)

    def pictures(self, size: tuple[int, int] = (640, 480), samples: int = 2) -> tuple[np.ndarray, np.ndarray]:
        """Before and after from one camera, (height, width, 3) uint8 each; after carries the contact map."""
        camera = self.camera(size)
        before, after = (
            render([self.object_item(heat), self.hand_item(hand)], camera, size, samples, up=self.up)
            for heat, hand in ((False, self.before), (True, self.after))
        )
        return before, after

    def on_photo(
        self, hand: str = "after", longest: int = 960, samples: int = 2, *, opacity: float = 0.75
    ) -> np.ndarray:
        """The photo with object and hand drawn over it, and rings where keypoints were given, (H, W, 3) uint8.

        Its longer side is at most `longest` pixels; what is drawn covers it by `opacity`, 0 to 1.
        Raises ValueError when there is no photo or no such hand.
        """
        if self.photo is None or hand not in self.hands:
            raise ValueError(f"on_photo: the view has no {'photo' if self.photo is None else f'hand {hand!r}'}")
        photo = self.photo.within(longest)
        items = [self.object_item(heat=True), self.hand_item(self.hands[hand])]
        drawn = render(items, photo.camera, photo.size, samples, up=self.up, ground=False, background=photo.image)
        picture = Image.fromarray(np.round(opacity * drawn + (1 - opacity) * photo.image).astype(np.uint8))
        draw = ImageDraw.Draw(picture)
        for x, y in [] if photo.keypoints is None else photo.keypoints[np.isfinite(photo.keypoints).all(1)]:
            for radius, colour in ((4, (255, 255, 255)), (3, _KEYPOINT)):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour)
        return np.asarray(picture)


@dataclass(frozen=True)
class Row:
    """One entry of a sheet: pictures before and after (H, W, 3) uint8, a label, and a caption for each."""

    label: str
    before: np.ndarray
    after: np.ndarray
    before_caption: str = "before"
    after_caption: str = "after"


def write_png(picture: np.ndarray | Image.Image, path: str | PathLike[str], weights: str = "") -> Path:
    """Write a picture (H, W, 3) uint8 as PNG, which notes the ``weights`` it was made from; returns the path."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    note = PngInfo()
    note.add_text("weights", weights)
    return write_atomically(path, lambda stream: image.save(stream, format="PNG", pnginfo=note))


def before_after_sheet(
    rows: Sequence[Row], path: str | Path | None = None, *, columns: int = 2, title: str = "", weights: str = ""
) -> Image.Image:
    """Lay out labelled before/after pairs on one sheet, `columns` pairs a line; written to `path` as PNG, which notes
    the ``weights`` it was made from.

    Returns the pillow image. Raises ValueError when there is nothing to lay out or sizes differ.
    """
    if not rows:
        raise ValueError("before_after_sheet: rows is empty; give at least one Row")
    shapes = {picture.shape for row in rows for picture in (row.before, row.after)}
    if len(shapes) != 1:
        raise ValueError(f"before_after_sheet: pictures differ in size: {sorted(shapes)}; render them alike")
    height, width, _ = shapes.pop()
    unit = max(width // 40, 8)
    heading, words, small = (ImageFont.load_default(size) for size in (1.7 * unit, 1.3 * unit, 1.05 * unit))
    seam, gap, band = max(unit // 6, 2), unit, round(2.4 * unit)
    columns = min(columns, len(rows))
    lines = -(-len(rows) // columns)
    pair = (2 * width + seam, height + band)
    top = round(3.2 * unit) if title else gap
    size = (columns * (pair[0] + gap) + gap, lines * (pair[1] + gap) + top)
    sheet = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((gap, top / 2), title, (40, 44, 52), heading, anchor="lm")
    for i, row in enumerate(rows):
        line, column = divmod(i, columns)
        left, upper = gap + column * (pair[0] + gap), top + line * (pair[1] + gap)
        halves = ((left, row.before, row.before_caption), (left + width + seam, row.after, row.after_caption))
        for x, picture, caption in halves:
            sheet.paste(Image.fromarray(picture), (x, upper + band))
            draw.text((x + 0.7 * unit, upper + band + 0.6 * unit), caption, (96, 104, 116), small)
        draw.text((left, upper + band / 2), row.label, (40, 44, 52), words, anchor="lm")
    if path is not None:
        write_png(sheet, path, weights)
    return sheet
