"""One self-contained page per grasp or sequence: turn it, go from before to after to the truth, paint what is known.

The page fetches nothing: meshes, script and style are inside it, so it can be mailed or kept.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import igl
import numpy as np

from hand_models.atomic import write_atomically

from .appearance import (
    GHOST,
    OBJECT,
    SKIN,
    TOUCH_FULL,
    TRUTH,
    contact_colours,
    corner_normals,
    nearness,
    smoother,
    split_corners,
    spread_weights,
    uncertainty_colours,
    vertex_normals,
)
from .packing import FINEST, Packed, pack, quantised, share
from .pictures import HAND_CREASE, GraspView
from .scene import Item, openness
from .template import filled, resource, script_data

_SD_FULL = 0.5  # a contact value lies in [0, 1]: it cannot be less sure than this
_STEPS_OF_SCALE = (1, 2, 5, 10, 15, 20, 30, 50, 100, 200)  # millimetres at which a scale may end
_ASPECT = 4 / 3
_NEIGHBOURS = 4
_MOVING_STEP = 1e-4
"""Metres to which the places of skin are kept in a sequence."""
LARGEST = 2 << 20
"""Bytes of the page of one grasp without its photo; a finer object is drawn with fewer triangles."""
_PHOTO, _PHOTO_OF_MANY = (1280, 85), (480, 75)
"""Pixels of the longer side, and the JPEG quality, of the photo of a grasp and of those of a sequence."""
_FACES = (60_000, 30_000, 15_000, 6_000)


def grasp_page(view: GraspView | Sequence[GraspView], *, fps: float = 30.0) -> str:
    """HTML of one grasp, or of the frames of a sequence, `fps` a second: a complete document that makes no request.

    The first view is the one the pictures take; without embreex it looks at the hand from its own side.

    Raises:
        ValueError: there are no frames, or they are not of the same hand and object.
    """
    frames = [view] if isinstance(view, GraspView) else list(view)
    _check(frames)
    photos, text = _photos(frames, _upright(frames[0].up)), ""
    most = LARGEST + len(script_data(photos))
    for faces in _FACES:
        text = _document(frames, fps, faces, photos)
        if len(text) <= most or len(frames[0].object_faces) <= _FACES[-1]:
            break
    return text


def write_page(view: GraspView | Sequence[GraspView], path: str | PathLike[str], *, fps: float = 30.0) -> Path:
    """Write `grasp_page(view)` to ``path`` (UTF-8) and return the path; missing folders are made."""
    text = grasp_page(view, fps=fps).encode()
    return write_atomically(path, lambda stream: stream.write(text))


def _check(frames: Sequence[GraspView]) -> None:
    if not frames:
        raise ValueError("grasp_page: view is an empty list; give one GraspView or one for each frame")
    first = frames[0]
    for number, frame in enumerate(frames):
        shapes = [(np.shape(f.hand_faces), np.shape(f.object_vertices), list(f.hands)) for f in (first, frame)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"grasp_page: frame {number} has another hand, object or set of hands than frame 0; "
                "give the frames of one sequence"
            )


def _document(frames: Sequence[GraspView], fps: float, most_faces: int, photos: dict[str, Any] | None) -> str:
    view = frames[0]
    parts = {
        "TITLE": html.escape(view.title),
        "STATUS": _status(view, {frame.status: frame.explanation for frame in frames}),
        "WARNINGS": "".join(f'<p class="warning">{html.escape(text)}</p>' for text in view.warnings),
        "TABLE": _table(view),
        "DATA": script_data(_data(frames, fps, most_faces) | {"photos": photos}),
        "SCRIPT": resource("viewer.js"),
    }
    return filled("viewer.html", parts)


def _data(frames: Sequence[GraspView], fps: float, most_faces: int) -> dict[str, Any]:
    """What the script draws. Hands are in the page's frame, y upwards; the object is in its own, with its pose."""
    view, upright = frames[0], _upright(frames[0].up)
    thing = _Surface.of(view, most_faces)
    poses = np.stack([_pose(frame, upright) for frame in frames])
    hands = {name: np.stack([frame.hands[name] for frame in frames]) @ upright.T for name in view.hands}
    skin = np.concatenate([hand.reshape(-1, 3) for hand in hands.values()])
    joints = _over(frames, "joints")
    joints = None if joints is None or _over(frames, "joint_sd") is None else joints @ upright.T
    known = skin if joints is None else np.concatenate([skin, joints.reshape(-1, 3)])
    hand_box, object_box = _box(known), _box(thing.vertices)
    # Fine steps are most of what a sequence weighs, and nobody sees them while it moves.
    steps = FINEST if len(frames) == 1 else int(np.clip(np.ptp(hand_box, axis=0).max() / _MOVING_STEP, 1, FINEST))
    display = _DisplayHand(view)
    middle = frames[len(frames) // 2]
    in_page = thing.vertices @ poses[len(frames) // 2][:3, :3].T + poses[len(frames) // 2][:3, 3]
    centre = np.concatenate([in_page, hands["after"][len(frames) // 2]])
    doubt = _over(frames, "uncertainty")
    doubt_full = _scale_end(max((float(np.nanmax(a)) for a in (doubt,) if a is not None), default=0.0))
    skin_distance = _states(frames, "skin_distance")
    depth_full = _scale_end(max((float(-d.min()) for d in skin_distance.values()), default=0.0))
    ramp = np.linspace(0, 1, 4)
    return {
        "status": [frame.status for frame in frames],
        "frames": len(frames), "fps": fps, "neighbours": min(_NEIGHBOURS, thing.sources),
        "handBox": _rounded(hand_box), "objectBox": _rounded(object_box),
        "handSteps": steps, "touchFull": round(TOUCH_FULL * 1e3), "depthFull": depth_full, "doubtFull": doubt_full,
        "stops": {
            "object": _rounded(contact_colours(ramp, OBJECT)), "hand": _rounded(contact_colours(ramp, SKIN)),
            "doubtObject": _rounded(uncertainty_colours(ramp, OBJECT, 1.0)),
            "doubtHand": _rounded(uncertainty_colours(ramp, SKIN, 1.0)),
            "before": [list(GHOST)] * 4, "truth": [list(TRUTH)] * 4,
        },
        "arrays": {
            "objectPoints": pack(quantised(thing.vertices, object_box)),
            "objectNormals": pack(np.round(thing.normals * 127).astype(np.int8)),
            "objectFaces": pack(_indices(thing.faces)),
            "objectPose": pack(poses.transpose(0, 2, 1).astype("<f4")),  # WebGL's matrices go by columns
            "spread": thing.spread,
            "object": None if thing.spread is None else {
                "distance": {n: pack(_near(d), over_time=True) for n, d in _states(frames, "object_distance").items()}
                or None,
                **_fields(frames, {"predicted": ("object_contact", 1.0), "sd": ("object_contact_sd", _SD_FULL)}),
            },
            "hands": {n: pack(quantised(hand, hand_box, steps), over_time=True) for n, hand in hands.items()},
            "hand": display.packed,
            "handFields": {
                "distance": {n: pack(_near(d), over_time=True) for n, d in skin_distance.items()} or None,
                # one half on the surface, so that the edge of what lies inside is drawn where it is
                "depth": {
                    n: pack(share(0.5 - d / depth_full * 500), over_time=True) for n, d in skin_distance.items()
                } or None,
                **_fields(frames, {
                    "predicted": ("hand_contact", 1.0), "sd": ("hand_contact_sd", _SD_FULL),
                    "doubt": ("uncertainty", doubt_full * 1e-3),
                }),
            },
            "joints": None if joints is None else pack(quantised(joints, hand_box, steps), over_time=True),
            "jointSd": None if joints is None else pack(np.asarray(_over(frames, "joint_sd")).astype("<f4")),
            "open": _shade(view, thing, display) if len(frames) == 1 else None,
        },
        **_first_view(middle, frames if len(frames) > 1 else [], upright, centre),
    }  # fmt: skip


class _Surface:
    """The object as it is drawn, in its own frame: one vertex per position and normal."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray, view: GraspView) -> None:
        old, self.faces, self.normals = split_corners(faces, normals)
        self.vertices = vertices[old]
        self.sources = 0 if view.object_points is None else len(view.object_points)
        self.spread: dict[str, Packed] | None = None
        if view.object_points is not None and self.sources:
            nearest, weight = spread_weights(
                view.object_points, self.vertices, point_normals=view.object_normals, onto_normals=self.normals,
                neighbours=_NEIGHBOURS,
            )  # fmt: skip
            self.spread = {"index": pack(_indices(nearest)), "weight": pack(share(weight))}

    @staticmethod
    def of(view: GraspView, most_faces: int) -> _Surface:
        """The object's display surface, thinned where it is finer than a page can hold."""
        vertices, faces, normals, _ = view.object_surface
        if len(faces) > most_faces:
            source, triangles = (np.ascontiguousarray(a) for a in (view.object_vertices, view.object_faces))
            if len(triangles) > most_faces:
                source, triangles = igl.decimate(source.astype(np.float64), triangles.astype(np.int64), most_faces)[:2]
            vertices, faces, normals = source, triangles, corner_normals(source, triangles)
        return _Surface(np.asarray(vertices), np.asarray(faces), normals, view)


class _DisplayHand:
    """The hand's triangles halved as `smoother` does it; the wrist's cap has vertices of its own, for a sharp rim."""

    def __init__(self, view: GraspView) -> None:
        self._skin = np.asarray(view.hand_faces)
        mesh = smoother(view.after, self._skin)
        open_faces = len(self._skin) if view.open_faces is None else view.open_faces
        on_cap = np.tile(np.arange(len(self._skin)) >= open_faces, 4)
        self._edges, self._twins = mesh.edges, np.unique(mesh.faces[on_cap])
        new = np.arange(len(mesh.vertices))
        new[self._twins] = len(mesh.vertices) + np.arange(len(self._twins))
        self.faces = mesh.faces.copy()
        self.faces[on_cap] = new[self.faces[on_cap]]

    @property
    def packed(self) -> dict[str, Packed]:
        named = {"skin": self._skin, "faces": self.faces, "edges": self._edges, "twins": self._twins}
        return {name: pack(_indices(values)) for name, values in named.items()}

    def vertices(self, hand: np.ndarray) -> np.ndarray:
        points = smoother(hand, self._skin).vertices
        return np.concatenate([points, points[self._twins]])


def _shade(view: GraspView, thing: _Surface, display: _DisplayHand) -> dict[str, dict[str, Packed]] | None:
    """How open the sky is above each vertex of object and hand, with each of the hands; None without embreex, the
    page is then a little flatter."""
    found: dict[str, dict[str, Packed]] = {"object": {}, "hand": {}}
    pose = np.eye(4) if view.object_pose is None else np.asarray(view.object_pose)
    vertices, normals = thing.vertices @ pose[:3, :3].T + pose[:3, 3], thing.normals @ pose[:3, :3].T
    for name, hand in view.hands.items():
        points = display.vertices(hand)
        items = [Item(vertices, thing.faces), Item(points, display.faces)]
        outward = vertex_normals(display.faces, corner_normals(points, display.faces, HAND_CREASE), len(points))
        try:
            found["object"][name] = pack(share(openness(items, vertices, normals)))
            found["hand"][name] = pack(share(openness(items, points, outward)))
        except ImportError:
            return None
    return found


def _first_view(
    view: GraspView, frames: Sequence[GraspView], upright: np.ndarray, points: np.ndarray
) -> dict[str, Any]:
    pose, fov = (camera := view.camera((640, 480), frames)).pose, camera.fov
    forward, eye = upright @ pose[:3, 2], upright @ pose[:3, 3]
    away = float((points.mean(0) - eye) @ forward)
    return {
        "yaw": round(float(np.arctan2(-forward[0], -forward[2])), 4),
        "pitch": round(float(np.arcsin(np.clip(-forward[1], -1, 1))), 4),
        "away": round(away, 5),
        "target": _rounded(eye + away * forward),
        "fov": fov,
        "aspect": _ASPECT,
    }


def _photos(frames: Sequence[GraspView], upright: np.ndarray) -> dict[str, Any] | None:
    """The users' pictures, and for each of them how the page's frame is seen; None unless every frame has one."""
    longest, quality = _PHOTO if len(frames) == 1 else _PHOTO_OF_MANY
    photos = [frame.photo.within(longest) for frame in frames if frame.photo is not None]
    if len(photos) < len(frames):
        return None
    to_camera = []
    for photo in photos:
        turn = np.diag([1.0, -1.0, -1.0]) @ photo.pose[:3, :3].T  # WebGL's camera looks along -z, y upwards
        to_camera.append([*(turn @ upright.T).ravel(), *(-turn @ photo.pose[:3, 3])])
    return {
        "sizes": [photo.size for photo in photos],
        "images": [base64.b64encode(photo.jpeg(quality)).decode("ascii") for photo in photos],
        "toCamera": _rounded(np.array(to_camera)),
        "lenses": _rounded(np.stack([p.matrix[[0, 0, 0, 1, 1], [0, 1, 2, 1, 2]] / p.matrix[2, 2] for p in photos])),
        "keypoints": [
            [] if p.keypoints is None else _rounded(p.keypoints[np.isfinite(p.keypoints).all(1)]) for p in photos
        ],
    }


def _upright(up: tuple[float, float, float]) -> np.ndarray:
    """Rotation (3, 3) that brings `up` to +y, where the page's turntable stands."""
    y = np.asarray(up, dtype=np.float64) / np.linalg.norm(up)
    x = np.cross(y, np.eye(3)[np.argmin(np.abs(y))])
    x /= np.linalg.norm(x)
    return np.stack([x, y, np.cross(x, y)])


def _pose(view: GraspView, upright: np.ndarray) -> np.ndarray:
    """(4, 4) the object's frame to the page's."""
    turn = np.eye(4)
    turn[:3, :3] = upright
    return turn if view.object_pose is None else turn @ np.asarray(view.object_pose)


def _over(frames: Sequence[GraspView], name: str) -> np.ndarray | None:
    """A field of all frames, (T, ...); None where one of them lacks it."""
    values = [getattr(frame, name) for frame in frames]
    return None if any(value is None for value in values) else np.stack(values)


def _states(frames: Sequence[GraspView], name: str) -> dict[str, np.ndarray]:
    """A field of all hands over all frames: (T, ...) by the hand's name; none unless it is known of every one."""
    maps = [getattr(frame, name) for frame in frames]
    if not all(set(frame.hands) <= set(values) for frame, values in zip(frames, maps, strict=True)):
        return {}
    return {hand: np.stack([values[hand] for values in maps]) for hand in frames[0].hands}


def _fields(frames: Sequence[GraspView], named: dict[str, tuple[str, float]]) -> dict[str, Packed | None]:
    """Fields of the view as shares of what gets the strongest colour."""
    values = {key: (_over(frames, name), full) for key, (name, full) in named.items()}
    return {k: None if v is None else pack(share(v / full), over_time=True) for k, (v, full) in values.items()}


def _near(distance: np.ndarray) -> np.ndarray:
    """1 where skin and object touch or overlap, 0 from `TOUCH_FULL` metres on, in steps of 1/255."""
    return share(nearness(distance))


def _scale_end(metres: float) -> int:
    """Millimetres at which a scale that has to show up to `metres` ends."""
    return next((step for step in _STEPS_OF_SCALE if step >= metres * 1e3 - 1e-6), _STEPS_OF_SCALE[-1])


def _box(points: np.ndarray) -> np.ndarray:
    return np.stack([points.min(0), points.max(0)])


def _indices(values: np.ndarray) -> np.ndarray:
    return np.asarray(values).astype("<u2" if np.max(values, initial=0) < 1 << 16 else "<u4")


def _status(view: GraspView, known: dict[str, str]) -> str:
    """The first frame's word; the script shows that of the frame which is seen, of all that are ``known``."""
    return "".join(
        f'<div class="said"{"" if word == view.status else " hidden"}><span class="status {html.escape(word)}">'
        f'{html.escape(word)}</span><p class="why">{html.escape(why)}</p></div>'
        for word, why in known.items()
        if word
    )


def _table(view: GraspView) -> str:
    if not view.metrics:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{_number(before)}</td><td>{_number(after)}</td></tr>"
        for name, (before, after) in view.metrics.items()
    )
    return f"<table><tr><th></th><th>before</th><th>after</th></tr>{rows}</table>"


def _number(value: float) -> str:
    return "–" if not np.isfinite(value) else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _rounded(values: np.ndarray) -> list[Any]:
    return np.round(np.asarray(values, dtype=np.float64), 6).tolist()
