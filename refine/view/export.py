"""Grasps as meshes for other programs: GLB with colours, by trimesh."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from hand_models.atomic import write_atomically

from .appearance import GHOST, SKIN, TRUTH
from .pictures import GraspView

_COLOURS = {"before": GHOST, "after": SKIN, "truth": TRUTH}


def write_glb(view: GraspView, path: str | PathLike[str]) -> Path:
    """Write object (with the predicted contact as vertex colours) and hands as a GLB scene; returns the path.

    Nodes are named ``object``, ``before``, ``after`` and, where it is known, ``truth``. Metres, in the frame of the
    view; glTF takes y for upwards, so the view's own upward direction is turned there.
    """
    scene = trimesh.Scene()
    thing = view.object_item(heat=True)
    scene.add_geometry(_mesh(thing.vertices, thing.faces, thing.colour), node_name="object", geom_name="object")
    for name, vertices in view.hands.items():
        scene.add_geometry(_mesh(vertices, view.hand_faces, _COLOURS[name]), node_name=name, geom_name=name)
    scene.apply_transform(trimesh.geometry.align_vectors(view.up, (0.0, 1.0, 0.0)))
    data: Any = scene.export(file_type="glb")
    return write_atomically(path, lambda stream: stream.write(data))


def _mesh(vertices: np.ndarray, faces: np.ndarray, colour: Any) -> trimesh.Trimesh:
    colours = np.broadcast_to(np.asarray(colour), (len(vertices), 3))
    return trimesh.Trimesh(vertices, faces, vertex_colors=np.round(colours * 255).astype(np.uint8), process=False)
