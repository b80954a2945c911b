"""Meshes for other programs: named nodes, in place, coloured."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from test_render import grasp_view

from refine.view.appearance import SKIN, linear
from refine.view.export import write_glb, write_usd


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


def usd_points(stage: Any, name: str, time: Any) -> np.ndarray:
    """Points of a mesh in the frame of the stage."""
    from pxr import UsdGeom

    mesh = UsdGeom.Mesh(stage.GetPrimAtPath(f"/grasp/{name}"))
    to_world = np.array(mesh.ComputeLocalToWorldTransform(time))  # for row vectors
    points = np.array(mesh.GetPointsAttr().Get(time), np.float64)
    return points @ to_world[:3, :3] + to_world[3, :3]


@pytest.mark.parametrize("suffix", [".usda", ".usdc", ".usdz"])
def test_a_usd_stage_holds_what_the_glb_holds(tmp_path: Path, suffix: str) -> None:
    pxr = pytest.importorskip("pxr.Usd")
    from pxr import UsdGeom

    pose = np.eye(4)
    pose[:3, :3] = trimesh.transformations.rotation_matrix(0.4, (1, 2, 3))[:3, :3]
    pose[:3, 3] = (0.01, 0.02, 0.03)
    view = replace(grasp_view(), object_pose=pose)
    view = replace(view, truth=view.after + 0.01)
    stage = pxr.Stage.Open(str(write_usd(view, tmp_path / "new" / f"a{suffix}")))
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1.0
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    glb = trimesh.load_scene(write_glb(view, tmp_path / "a.glb"))
    for name in ("object", "before", "after", "truth"):
        transform, geometry = glb.graph[name]
        found = usd_points(stage, name, pxr.TimeCode.Default())
        placed = trimesh.transform_points(glb.geometry[geometry].vertices, transform)
        np.testing.assert_allclose(found, placed, atol=1e-6)
        mesh = UsdGeom.Mesh(stage.GetPrimAtPath(f"/grasp/{name}"))
        faces = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
        assert np.array_equal(faces, glb.geometry[geometry].faces)
        shade = np.array(mesh.GetDisplayColorPrimvar().Get())
        colours = glb.geometry[geometry].visual.vertex_colors[:, :3] / 255
        np.testing.assert_allclose(np.broadcast_to(shade, colours.shape), colours, atol=0.01)


def test_a_usd_stage_of_a_sequence_moves(tmp_path: Path) -> None:
    pxr = pytest.importorskip("pxr.Usd")
    frames = []
    for step in range(3):
        pose = np.eye(4)
        pose[2, 3] = 0.1 * step  # upwards in the view, y in the stage
        view = grasp_view()
        contact = np.zeros(len(view.object_points))
        contact[step] = 1.0
        frames.append(replace(view, after=view.after + 0.1 * step, object_pose=pose, object_contact=contact))
    stage = pxr.Stage.Open(str(write_usd(frames, tmp_path / "a.usdc", fps=24)))
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode(), stage.GetTimeCodesPerSecond()) == (0, 2, 24)
    hand, thing = ([usd_points(stage, name, k) for k in range(3)] for name in ("after", "object"))
    np.testing.assert_allclose((hand[2] - hand[0])[:, 1], 0.2, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(hand[1] - hand[0], axis=1), 0.1 * np.sqrt(3), atol=1e-6)
    np.testing.assert_allclose(thing[2] - thing[0], np.broadcast_to((0, 0.2, 0), thing[0].shape), atol=1e-6)


def test_wrong_stages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"none of \.usda, \.usdc, \.usdz"):
        write_usd(grasp_view(), tmp_path / "a.obj")
    with pytest.raises(ValueError, match="empty"):
        write_usd([], tmp_path / "a.usda")
    monkeypatch.setitem(sys.modules, "pxr", None)
    with pytest.raises(ImportError, match=r"usd-core.*pip install 'regrasp\[usd\]'"):
        write_usd(grasp_view(), tmp_path / "a.usda")
