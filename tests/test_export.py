"""Meshes for other programs: named nodes, in place, coloured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh
from test_render import grasp_view

from refine.view.appearance import SKIN, linear
from refine.view.export import write_glb


def test_a_glb_holds_object_and_hands(tmp_path: Path) -> None:
    pose = np.eye(4)
    pose[:3, 3] = (0.01, 0.02, 0.03)
    view = grasp_view()
    view = replace(view, truth=view.after + 0.01, object_pose=pose)
    scene = trimesh.load_scene(write_glb(view, tmp_path / "new" / "a.glb"))
    meshes = {name: scene.geometry[scene.graph[name][1]] for name in ("object", "before", "after", "truth")}
    places = {name: trimesh.transform_points(mesh.vertices, scene.graph[name][0]) for name, mesh in meshes.items()}
    apart = np.linalg.norm(places["truth"] - places["after"], axis=1)
    np.testing.assert_allclose(apart, 0.01 * np.sqrt(3), atol=1e-6)
    heights = np.sort(places["after"][:, 1])
    np.testing.assert_allclose(heights, np.sort(view.after[:, 2]), atol=1e-6)  # z is up in the view, y in glTF
    low, high = places["object"][:, 1].min(), places["object"][:, 1].max()
    np.testing.assert_allclose((low, high), (-0.02, 0.08), atol=1e-6)
    np.testing.assert_allclose(meshes["after"].visual.vertex_colors[0, :3] / 255, linear(np.array(SKIN)), atol=0.01)
