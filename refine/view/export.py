"""Grasps as meshes for other programs, with colours: GLB by trimesh, USD by usd-core."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from hand_models.atomic import write_atomically

from .appearance import GHOST, SKIN, TRUTH, linear
from .pictures import GraspView

HAND_COLOURS = {"before": GHOST, "after": SKIN, "truth": TRUTH}
USD_SUFFIXES = (".usda", ".usdc", ".usdz")


def write_glb(view: GraspView, path: str | PathLike[str]) -> Path:
    """Write object (with the predicted contact as vertex colours) and hands as a GLB scene; returns the path.

    Nodes are named ``object``, ``before``, ``after`` and, where it is known, ``truth``. Metres, in the frame of the
    view; glTF takes y for upwards, so the view's own upward direction is turned there.
    """
    scene = trimesh.Scene()
    thing = view.object_item(heat=True)
    scene.add_geometry(_mesh(thing.vertices, thing.faces, thing.colour), node_name="object", geom_name="object")
    for name, vertices in view.hands.items():
        scene.add_geometry(_mesh(vertices, view.hand_faces, HAND_COLOURS[name]), node_name=name, geom_name=name)
    scene.apply_transform(_upwards(view))
    data: Any = scene.export(file_type="glb")
    return write_atomically(path, lambda stream: stream.write(data))


def write_usd(view: GraspView | Sequence[GraspView], path: str | PathLike[str], *, fps: float = 30.0) -> Path:
    """Write object and hands as a USD stage, of a sequence with a time sample a frame; returns the path.

    Meshes ``/grasp/object``, ``before``, ``after`` and, where it is known, ``truth``, with ``displayColor``: on the
    object the predicted contact, of a sequence the strongest of all frames. Metres, y upwards as in `write_glb`.

    Args:
        path: ``.usda`` (text), ``.usdc`` (binary) or ``.usdz`` (package); missing folders are made.
        fps: frames a second.

    Raises:
        ImportError: usd-core is not installed.
        ValueError: there are no frames, or the path ends otherwise.
    """
    frames = [view] if isinstance(view, GraspView) else list(view)
    suffix = Path(path).suffix.lower()
    if suffix not in USD_SUFFIXES or not frames:
        wrong = f"path: {str(path)!r} ends in none of {', '.join(USD_SUFFIXES)}" if frames else "view: an empty list"
        raise ValueError(f"write_usd: {wrong}.")
    try:
        from pxr import Gf, Sdf, Usd, UsdGeom, UsdUtils, Vt
    except ImportError as error:
        raise ImportError(
            "USD stages need the usd-core package, which is not installed: pip install 'regrasp[usd]'"
        ) from error
    stage: Any = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, "/grasp")
    root.AddTransformOp().Set(Gf.Matrix4d(*map(float, _upwards(frames[0]).T.ravel())))  # USD's vectors are rows
    stage.SetDefaultPrim(root.GetPrim())
    times: list[Any] = list(range(len(frames))) if len(frames) > 1 else [Usd.TimeCode.Default()]
    if len(frames) > 1:
        stage.SetTimeCodesPerSecond(fps)
        stage.SetStartTimeCode(0)
        stage.SetEndTimeCode(len(frames) - 1)

    def mesh(name: str, faces: np.ndarray, colour: Any) -> Any:
        made = UsdGeom.Mesh.Define(stage, f"/grasp/{name}")
        made.CreateFaceVertexCountsAttr(Vt.IntArray([3] * len(faces)))
        made.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(np.asarray(faces, np.int32).ravel()))
        made.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
        painted = np.ndim(colour) == 2
        shade = made.CreateDisplayColorPrimvar(UsdGeom.Tokens.vertex if painted else UsdGeom.Tokens.constant)
        shade.Set(Vt.Vec3fArray.FromNumpy(np.atleast_2d(linear(np.asarray(colour))).astype(np.float32)))
        return made

    def place(made: Any, vertices: np.ndarray, time: Any) -> None:
        points = np.asarray(vertices, np.float32)
        made.GetPointsAttr().Set(Vt.Vec3fArray.FromNumpy(points), time)
        made.GetExtentAttr().Set(Vt.Vec3fArray.FromNumpy(np.stack([points.min(0), points.max(0)])), time)

    thing = _strongest(frames).object_item(heat=True)
    made = mesh("object", thing.faces, thing.colour)
    place(made, thing.vertices, Usd.TimeCode.Default())
    if any(frame.object_pose is not None for frame in frames):
        moved = made.AddTransformOp()
        for time, frame in zip(times, frames, strict=True):
            pose = np.eye(4) if frame.object_pose is None else np.asarray(frame.object_pose)
            moved.Set(Gf.Matrix4d(*map(float, pose.T.ravel())), time)
    for name in frames[0].hands:
        made = mesh(name, frames[0].hand_faces, HAND_COLOURS[name])
        for time, frame in zip(times, frames, strict=True):
            place(made, frame.hands[name], time)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / f"grasp{'.usdc' if suffix == '.usdz' else suffix}"
        stage.GetRootLayer().Export(str(written))
        if suffix == ".usdz":
            UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(written)), str(written.with_suffix(suffix)))
        data = written.with_suffix(suffix).read_bytes()
    return write_atomically(path, lambda stream: stream.write(data))


def _strongest(frames: Sequence[GraspView]) -> GraspView:
    """The first frame, its object in its own frame, with the strongest contact of all of them at each point."""
    known = [frame.object_contact for frame in frames if frame.object_contact is not None]
    return replace(frames[0], object_pose=None, object_contact=np.max(known, axis=0) if known else None)


def _upwards(view: GraspView) -> np.ndarray:
    """(4, 4) the view's frame to one with y upwards."""
    return np.asarray(trimesh.geometry.align_vectors(view.up, (0.0, 1.0, 0.0)))


def _mesh(vertices: np.ndarray, faces: np.ndarray, colour: Any) -> trimesh.Trimesh:
    colours = np.broadcast_to(linear(np.asarray(colour)), (len(vertices), 3))  # as glTF takes vertex colours to be
    return trimesh.Trimesh(vertices, faces, vertex_colors=np.round(colours * 255).astype(np.uint8), process=False)
