"""What measures are given: arrays or tensors of a batch of grasps, and one object or one per grasp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from contact.objects import ObjectMesh

Array: TypeAlias = "np.ndarray | Tensor"
Objects: TypeAlias = "ObjectMesh | Sequence[ObjectMesh]"


def as_numpy(values: Array, dtype: Any = np.float64) -> np.ndarray:
    """The values as a NumPy array."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=dtype)


def alike(shape: str, **values: Array) -> list[np.ndarray]:
    """The values as float64 arrays, all of one ``shape`` such as "(B, points, 3)", whose words stand for any number.

    Raises:
        ValueError: they are not; it names them by their keywords.
    """
    arrays = [as_numpy(value) for value in values.values()]
    sizes = [size for size in shape.strip("()").split(",") if size]
    for array in arrays:
        fixed = [(int(size), found) for size, found in zip(sizes, array.shape, strict=False) if size.strip().isdigit()]
        if array.shape != arrays[0].shape or array.ndim != len(sizes) or any(a != b for a, b in fixed):
            got = " and ".join(str(array.shape) for array in arrays)
            raise ValueError(f"{' and '.join(values)} must be {shape}, got {got}")
    return arrays


def per_grasp(obj: Objects, count: int) -> list[ObjectMesh]:
    """The object of each of ``count`` grasps. Raises ``ValueError`` when their numbers differ."""
    things = [obj] * count if isinstance(obj, ObjectMesh) else list(obj)
    if len(things) != count:
        raise ValueError(f"obj must be one object or one per grasp: got {len(things)} for {count} grasps")
    return things


def each_grasp(
    measure: Callable[[np.ndarray, np.ndarray, ObjectMesh], float], vertices: Array, faces: Array, obj: Objects
) -> np.ndarray:
    """``measure`` of hand (V, 3), faces (F, 3) and object of every grasp: (B,) float64, NaN for hands with NaN."""
    (hands,), (triangles,) = alike("(B, V, 3)", vertices=vertices), alike("(F, 3)", faces=faces)
    triangles = np.ascontiguousarray(triangles, np.int64)
    grasps = zip(np.ascontiguousarray(hands), per_grasp(obj, len(hands)), strict=True)
    values = [measure(hand, triangles, thing) if np.isfinite(hand).all() else np.nan for hand, thing in grasps]
    return np.array(values, dtype=np.float64)


def mesh_arrays(obj: ObjectMesh) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and faces (F, 3) of an object, as float64 and int64 arrays."""
    return as_numpy(obj.vertices), as_numpy(obj.faces, np.int64)
