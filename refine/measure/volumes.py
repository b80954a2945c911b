"""How much of a hand and an object overlap: exact volume, published voxel volume, depth into the hand.

These need both meshes: hand vertices (B, V, 3) in metres and the object's frame, its closed faces (F, 3), outward
or inward, and the object or one per grasp. One value per grasp (B,) comes out, NaN for hands with NaN. Wrong shapes,
or as many objects as there are not grasps, are a ``ValueError``.
"""

from __future__ import annotations

from functools import partial

import igl
import numpy as np

from contact.objects import ObjectMesh
from contact.objects.solid import closed_solid

from .arguments import Array, Objects, as_numpy, each_grasp, mesh_arrays


def intersection_volume(vertices: Array, faces: Array, obj: Objects) -> np.ndarray:
    """Volume shared by hand and object, by an exact mesh boolean (manifold3d); cubic metres.

    Read it beside the contact ratio: true grasps overlap too, since skin gives way. An object that is not a closed
    manifold is replaced by what its signed-distance grid has inside (`ObjectMesh.solid`): for hands that hold
    everyday objects that is off by 3 % of the volume or 0.1 cm³. For a hand that is none, 1 mm voxels are counted.
    """

    def shared(hand: np.ndarray, triangles: np.ndarray, thing: ObjectMesh) -> float:
        solid = closed_solid(hand, triangles)
        return _voxel_volume(hand, triangles, thing, 0.001) if solid is None else (solid ^ thing.solid).volume()

    return each_grasp(shared, vertices, faces, obj)


def intersection_volume_voxels(vertices: Array, faces: Array, obj: Objects, pitch: float = 0.005) -> np.ndarray:
    """Volume shared by hand and object, counted in voxels of 5 mm as published (ObMan, ContactOpt); cubic metres.

    Number of voxel centres inside both meshes (winding number) times ``pitch``³, metres (Hasson et al., CVPR 2019).
    The lattice starts at the corner of the object's bounding box. Coarse: 3 to 28 % off on grasps.
    """
    if pitch <= 0:
        raise ValueError(f"pitch must be positive metres, got {pitch}")
    return each_grasp(partial(_voxel_volume, pitch=pitch), vertices, faces, obj)


def penetration_depth_into_hand(vertices: Array, faces: Array, obj: Objects) -> np.ndarray:
    """Deepest object point inside the hand: max over object points o of the depth of o under the skin; metres.

    The counterpart of ``penetration_depth`` for things thinner than a finger, which lie between the
    hand's vertices. Points are the object's surface samples and vertices; distances are exact (libigl).
    """

    def deepest(hand: np.ndarray, triangles: np.ndarray, thing: ObjectMesh) -> float:
        points = np.concatenate([as_numpy(thing.points), mesh_arrays(thing)[0]])
        points = points[((points >= hand.min(axis=0)) & (points <= hand.max(axis=0))).all(axis=1)]
        points = points[_inside(hand, triangles, points)]
        return float(np.sqrt(igl.point_mesh_squared_distance(points, hand, triangles)[0].max())) if len(points) else 0.0

    return each_grasp(deepest, vertices, faces, obj)


def _inside(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which points (n, 3) have a winding number of more than a half in size."""
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    return np.abs(igl.fast_winding_number(vertices, faces, points)) > 0.5


def _voxel_volume(hand: np.ndarray, faces: np.ndarray, obj: ObjectMesh, pitch: float) -> float:
    """Volume in cubic metres of the voxels whose centres lie inside both meshes."""
    vertices, triangles = mesh_arrays(obj)
    start = vertices.min(axis=0)
    low = np.maximum(hand.min(axis=0), start)
    high = np.minimum(hand.max(axis=0), vertices.max(axis=0))
    # Only voxels whose centres fall into both bounding boxes are looked at.
    first = np.ceil((low - start) / pitch - 0.5).astype(int)
    last = np.floor((high - start) / pitch - 0.5).astype(int)
    if (last < first).any():
        return 0.0
    axes = [np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    centres = start + (index + 0.5) * pitch
    centres = centres[_inside(hand, faces, centres)]
    return float(_inside(vertices, triangles, centres).sum() * pitch**3)
