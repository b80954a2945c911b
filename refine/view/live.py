"""A viewer that runs while it is looked at: the views of grasps in viser, on the loopback address alone."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import trimesh

from .appearance import (
    OBJECT,
    contact_colours,
    corner_normals,
    depth_colours,
    linear,
    nearness,
    smoother,
    split_corners,
    spread_weights,
    vertex_normals,
)
from .export import HAND_COLOURS
from .pictures import GraspView
from .serve import LOOPBACK

PAINTS = ("plain", "contact as it is", "contact as predicted")
"""What the object shows, as on the page."""


def live_viewer(views: Sequence[GraspView], *, port: int = 8080, fps: float | None = None) -> Any:
    """A running `viser.ViserServer` that shows the views; ``stop()`` ends it.

    Scene nodes are ``/object`` and ``/hands/before``, ``after``, ``truth``, and ``/photo`` where there is one.

    Args:
        views: grasps, made when they are asked for if the sequence does so.
        port: on this machine; 0 for any that is free. Where it is taken, the next that is not.
        fps: the views are the frames of one motion, so many a second; None: single grasps, chosen by number.

    Raises:
        ImportError: viser is not installed.
        ValueError: there are no views.
    """
    try:
        import viser
    except ImportError as error:
        raise ImportError(
            "the live viewer needs the viser package, which is not installed: pip install 'regrasp[viz]'"
        ) from error
    if not len(views):
        raise ValueError("live_viewer: views is empty; give at least one GraspView")
    server = viser.ViserServer(LOOPBACK, port, label="regrasp", verbose=False)
    _Live(server, views, fps)
    return server


@dataclass(eq=False)
class _Live:
    """Controls of a viewer, and what they do."""

    server: Any
    views: Sequence[GraspView]
    fps: float | None
    surface: _Surface | None = None
    shown: dict[str, Any] = field(default_factory=dict)
    """Controls by their label."""
    lock: Any = field(default_factory=threading.Lock)
    """Controls call from threads of their own."""

    def __post_init__(self) -> None:
        gui, first, last = self.server.gui, self.views[0], len(self.views) - 1
        gui.configure_theme(show_share_button=False)  # it would send the scene to somebody else's server
        self.text = gui.add_markdown("")
        self.at = None
        if last:
            name = "grasp" if self.fps is None else "frame"
            self.at = gui.add_slider(name, min=0, max=last, step=1, initial_value=0)
            self.at.on_update(self._draw)
        if last and self.fps is not None:
            self.playing = gui.add_checkbox("play", False)
            self.playing.on_update(lambda _: threading.Thread(target=self._play, daemon=True).start())
        for hand in ("before", "after", "truth"):
            if hand != "truth" or first.truth is not None:
                self.shown[hand] = gui.add_checkbox(hand, hand == "after")
        self.paint = gui.add_dropdown("object", PAINTS, initial_value=PAINTS[1])
        self.opacity = gui.add_slider("object's opacity", min=0.0, max=1.0, step=0.05, initial_value=0.85)
        self.deep = gui.add_checkbox("penetration in red", True)
        for control in (*self.shown.values(), self.paint, self.opacity, self.deep):
            control.on_update(self._draw)
        self.server.scene.set_up_direction(first.up)
        frames = [] if self.fps is None else [self.views[k] for k in range(0, last + 1, last // 16 + 1)]
        middle = frames[len(frames) // 2] if frames else first
        camera = middle.camera(frames=frames)
        eye, forward = camera.pose[:3, 3], camera.pose[:3, 2]
        away = (middle.after.mean(0) - eye) @ forward
        look = self.server.initial_camera
        look.fov, look.near, look.look_at = camera.fov, 0.001, eye + away * forward
        look.position = eye - 0.3 * away * forward  # the controls cover a part
        self._draw()

    def _draw(self, _: Any = None) -> None:
        with self.lock, self.server.atomic():
            view = self.views[0 if self.at is None else self.at.value]
            if self.surface is None or not np.array_equal(self.surface.source, view.object_vertices):
                self.surface = _Surface(view)
            self.text.content = _words(view)
            scene = self.server.scene
            for name, vertices in view.hands.items():
                if name in self.shown:
                    mesh = _hand(view, name, vertices, self.deep.value)
                    scene.add_mesh_trimesh(f"/hands/{name}", mesh, visible=self.shown[name].value)
            turn = np.eye(4) if view.object_pose is None else np.asarray(view.object_pose, np.float64)
            place = trimesh.transformations.quaternion_from_matrix(turn), turn[:3, 3]
            mesh = self.surface.mesh(_contact(view, self.paint.value, self._hand_seen()), self.opacity.value)
            scene.add_mesh_trimesh("/object", mesh, wxyz=place[0], position=place[1], visible=self.opacity.value > 0)
            if view.photo is not None:
                photo = view.photo.within(640)
                pose, size, focal = photo.pose, photo.size, photo.matrix[1, 1]
                scene.add_camera_frustum(
                    "/photo", 2 * np.arctan(size[1] / 2 / focal), size[0] / size[1], scale=0.05, image=photo.image,
                    wxyz=trimesh.transformations.quaternion_from_matrix(pose), position=pose[:3, 3],
                )  # fmt: skip

    def _hand_seen(self) -> str:
        """The hand whose contact is shown: that after, unless it is hidden."""
        seen = [name for name in ("after", "before", "truth") if name in self.shown and self.shown[name].value]
        return seen[0] if seen else "after"

    def _play(self) -> None:
        """Runs until it is switched off."""
        began, start = time.monotonic(), self.at.value
        while self.playing.value:
            frame = (start + int((time.monotonic() - began) * self.fps)) % len(self.views)
            if frame != self.at.value:
                self.at.value = frame  # which draws
            time.sleep(0.5 / self.fps)


class _Surface:
    """The object fine enough for its contact, in its own frame."""

    def __init__(self, view: GraspView) -> None:
        self.source = view.object_vertices
        vertices, faces, normals, _ = view.object_surface
        old, self.faces, self.normals = split_corners(faces, normals)
        self.vertices = vertices[old]
        self.known = view.object_points is not None
        if self.known:
            self.nearest, self.weight = spread_weights(
                np.asarray(view.object_points), self.vertices, point_normals=view.object_normals,
                onto_normals=self.normals,
            )  # fmt: skip

    def mesh(self, contact: np.ndarray | None, opacity: float) -> trimesh.Trimesh:
        colours = np.broadcast_to(OBJECT, (len(self.vertices), 3))
        if contact is not None and self.known:
            colours = contact_colours((self.weight * contact[self.nearest]).sum(1))
        return _painted(self.vertices, self.faces, self.normals, colours, opacity)


def _contact(view: GraspView, paint: str, hand: str) -> np.ndarray | None:
    if paint == PAINTS[1] and hand in view.object_distance:
        return nearness(view.object_distance[hand])
    return view.object_contact if paint == PAINTS[2] else None


def _hand(view: GraspView, name: str, vertices: np.ndarray, deep: bool) -> trimesh.Trimesh:
    mesh = smoother(vertices, view.hand_faces)
    base = HAND_COLOURS[name]
    colours = np.broadcast_to(base, (len(mesh.vertices), 3))
    if deep and name in view.skin_distance:
        colours = depth_colours(mesh.carry(np.asarray(view.skin_distance[name], np.float64)), base)
    normals = vertex_normals(mesh.faces, corner_normals(mesh.vertices, mesh.faces, np.pi), len(mesh.vertices))
    return _painted(mesh.vertices, mesh.faces, normals, colours, 1.0 if name == "after" else 0.6)


def _painted(
    vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray, colours: np.ndarray, opacity: float
) -> trimesh.Trimesh:
    """A mesh with colours of its vertices and one opacity."""
    mode = "OPAQUE" if opacity == 1 else "BLEND"
    material = trimesh.visual.material.PBRMaterial(alphaMode=mode, metallicFactor=0.0, roughnessFactor=0.8)
    visual = trimesh.visual.TextureVisuals(material=material)
    rgba = np.concatenate([linear(np.asarray(colours)), np.full((len(vertices), 1), opacity)], 1)
    visual.vertex_attributes["color"] = np.round(rgba * 255).astype(np.uint8)
    return trimesh.Trimesh(vertices, faces, vertex_normals=normals, visual=visual, process=False)


def _words(view: GraspView) -> str:
    """Title, status and measures, as Markdown in which nothing of theirs is markup."""
    lines = [f"### {view.title}", f"**{view.status}** {view.explanation}" if view.status else "", *view.warnings]
    lines += [f"{name}: {before:.3g} → {after:.3g}" for name, (before, after) in view.metrics.items()]
    return "\n\n".join(html.escape(line) for line in lines if line)
