"""One self-contained page per grasp: turn it, slide from before to after, switch the heat maps on and off.

The page fetches nothing: meshes, script and style are inside it, so it can be mailed or kept.
"""

from __future__ import annotations

import base64
import html
import json
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from hand_models.atomic import write_atomically

from .appearance import (
    GHOST,
    OBJECT,
    SKIN,
    contact_colours,
    corner_normals,
    smoother,
    uncertainty_colours,
    vertex_normals,
)
from .camera import look_at
from .pictures import HAND_CREASE, GraspView
from .scene import Item, openness

DOUBT_FULL = 0.015  # metres of standard deviation that get the strongest colour
_ASPECT = 4 / 3


def grasp_page(view: GraspView) -> str:
    """HTML of one grasp, a complete document that makes no request.

    The first view is the one the pictures take; without embreex it looks at the hand from its own side.
    """
    upright = _upright(view.up)
    object_vertices, object_faces, normals, contact = view.object_surface
    thing, thing_faces, thing_normals, source = _by_normal(object_vertices, object_faces, normals)
    before, hand_faces, carry = _display_hand(view, view.before)
    after, _, _ = _display_hand(view, view.after)
    shade = _shade(Item(thing, thing_faces), thing_normals, [Item(hand, hand_faces) for hand in (before, after)])
    thing, before, after = (points @ upright.T for points in (thing, before, after))
    everything = np.concatenate([thing, before, after])
    low, high = everything.min(0), everything.max(0)
    ramp = np.linspace(0, 1, 4)
    data: dict[str, Any] = {
        "low": _rounded(low),
        "high": _rounded(high),
        "object": _quantised(thing, low, high),
        "objectNormals": _base64(np.round(thing_normals @ upright.T * 127).astype(np.int8)),
        "objectFaces": _base64(thing_faces.astype("<u4")),
        "objectHeat": None if contact is None else _bytes(contact[source]),
        "open": shade,
        "before": _quantised(before, low, high),
        "after": _quantised(after, low, high),
        "handFaces": _base64(hand_faces.astype("<u4")),
        "handHeat": None if view.hand_contact is None else _bytes(carry(view.hand_contact)),
        "handDoubt": None if view.uncertainty is None else _bytes(carry(view.uncertainty) / DOUBT_FULL),
        "doubtFull": round(DOUBT_FULL * 1e3),
        "stopsObject": _rounded(contact_colours(ramp, OBJECT)),
        "stopsHand": _rounded(contact_colours(ramp, SKIN)),
        "stopsDoubt": _rounded(uncertainty_colours(ramp, SKIN, 1.0)),
        "stopsGhost": [list(GHOST)] * 4,
        **_first_view(view, upright, np.concatenate([thing, after])),
    }
    text = resources.files(__package__).joinpath("viewer.html").read_text(encoding="utf-8")
    parts = {
        "TITLE": html.escape(view.title),
        "STATUS": f'<span class="status">{html.escape(view.status)}</span>' if view.status else "",
        "WARNINGS": "".join(f'<p class="warning">{html.escape(text)}</p>' for text in view.warnings),
        "TABLE": _table(view),
        "DATA": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }
    head, *pieces = text.split("@@")  # split once, so that nothing inserted is searched for marks
    return head + "".join(parts[p] if i % 2 == 0 else p for i, p in enumerate(pieces))


def write_page(view: GraspView, path: str | PathLike[str]) -> Path:
    """Write `grasp_page(view)` to ``path`` (UTF-8) and return the path; missing folders are made."""
    text = grasp_page(view).encode()
    return write_atomically(path, lambda stream: stream.write(text))


def _display_hand(view: GraspView, vertices: np.ndarray):
    """Smooth hand for the page: vertices, faces, and the function that carries values to its vertices.

    The wrist's cap gets vertices of its own, so that its rim stays sharp.
    """
    mesh = smoother(vertices, view.hand_faces)
    open_faces = len(view.hand_faces) if view.open_faces is None else view.open_faces
    on_cap = np.tile(np.arange(len(view.hand_faces)) >= open_faces, 4)
    twins = np.unique(mesh.faces[on_cap])
    new = np.arange(len(mesh.vertices))
    new[twins] = len(mesh.vertices) + np.arange(len(twins))
    faces = mesh.faces.copy()
    faces[on_cap] = new[faces[on_cap]]

    def carry(values: np.ndarray) -> np.ndarray:
        values = mesh.carry(np.asarray(values))
        return np.concatenate([values, values[twins]])

    return np.concatenate([mesh.vertices, mesh.vertices[twins]]), faces, carry


def _by_normal(vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray):
    """One vertex per position and normal: vertices, faces, normals (int8 steps), and the old vertex of each."""
    corner = np.asarray(faces).reshape(-1)
    key = np.concatenate([corner[:, None], np.round(normals.reshape(-1, 3) * 127).astype(np.int64)], axis=1)
    unique, index = np.unique(key, axis=0, return_inverse=True)
    source = unique[:, 0]
    return np.asarray(vertices)[source], index.reshape(-1, 3), unique[:, 1:] / 127.0, source


def _shade(thing: Item, normals: np.ndarray, hands: list[Item]) -> list[str] | None:
    """How open the sky is above each vertex: object before, object after, hand before, hand after; None
    without embreex, the page is then a little flatter."""
    over_object, over_hand = [], []
    for hand in hands:
        corners = corner_normals(hand.vertices, hand.faces, HAND_CREASE)
        try:
            over_object.append(_bytes(openness([thing, hand], thing.vertices, normals)))
            sky = openness([thing, hand], hand.vertices, vertex_normals(hand.faces, corners, len(hand.vertices)))
        except ImportError:
            return None
        over_hand.append(_bytes(sky))
    return over_object + over_hand


def _first_view(view: GraspView, upright: np.ndarray, points: np.ndarray) -> dict[str, Any]:
    try:
        pose, fov = (camera := view.camera((640, 480))).pose, camera.fov
    except ImportError:  # embreex draws pictures; a page does without
        towards = view.after.mean(0) - np.asarray(view.object_vertices).mean(0)
        fov = 0.6
        above = 0.4 * np.linalg.norm(towards) * np.asarray(view.up)
        pose = look_at(towards + above, np.zeros(3), view.up, fov).pose
        pose[:3, 3] = upright.T @ points.mean(0) - pose[:3, 2] * np.ptp(points, axis=0).max() / np.tan(fov / 2)
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


def _upright(up: tuple[float, float, float]) -> np.ndarray:
    """Rotation (3, 3) that brings `up` to +y, where the page's turntable stands."""
    y = np.asarray(up, dtype=np.float64) / np.linalg.norm(up)
    x = np.cross(y, np.eye(3)[np.argmin(np.abs(y))])
    x /= np.linalg.norm(x)
    return np.stack([x, y, np.cross(x, y)])


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


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _bytes(unit: np.ndarray) -> str:
    return _base64(np.round(np.clip(np.nan_to_num(unit), 0, 1) * 255).astype(np.uint8))


def _quantised(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """Points (N, 3) in 65,536 steps of the box from `low` to `high`: finer than 10 µm for a hand's reach."""
    return _base64(np.round((points - low) / np.maximum(high - low, 1e-9) * 65535).astype("<u2"))


def _rounded(values: np.ndarray) -> list[Any]:
    return np.round(np.asarray(values, dtype=np.float64), 6).tolist()
