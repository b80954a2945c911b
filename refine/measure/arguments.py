"""What measures are given: arrays or tensors of a batch of grasps, and one object or one per grasp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from contact.objects import ObjectMesh

Array: TypeAlias = "np.ndarray | Tensor"
Objects: TypeAlias = "ObjectMesh | Sequence[ObjectMesh]"


def as_numpy(values: Array, dtype: Any = np.float64) -> np.ndarray:
    """The values as a NumPy array."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=dtype)


def per_grasp(obj: Objects, count: int) -> list[ObjectMesh]:
    """The object of each of ``count`` grasps. Raises ``ValueError`` when their numbers differ."""
    things = [obj] * count if isinstance(obj, ObjectMesh) else list(obj)
    if len(things) != count:
        raise ValueError(f"obj must be one object or one per grasp: got {len(things)} for {count} grasps")
    return things


def iterate_grasps(vertices: Array, faces: Array, obj: Objects) -> Iterator[tuple[np.ndarray, np.ndarray, ObjectMesh]]:
    """Hand vertices (V, 3), faces (F, 3) and object of each grasp, as float64 and int64 arrays."""
    hands, triangles = as_numpy(vertices), as_numpy(faces, np.int64)
    if hands.ndim != 3 or hands.shape[-1] != 3:
        raise ValueError(f"vertices must be (B, V, 3), got {hands.shape}")
    if triangles.ndim != 2 or triangles.shape[-1] != 3:
        raise ValueError(f"faces must be (F, 3), got {triangles.shape}")
    for hand, thing in zip(hands, per_grasp(obj, len(hands)), strict=True):
        yield np.ascontiguousarray(hand), np.ascontiguousarray(triangles), thing


def mesh_arrays(obj: ObjectMesh) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and faces (F, 3) of an object, as float64 and int64 arrays."""
    return as_numpy(obj.vertices), as_numpy(obj.faces, np.int64)
