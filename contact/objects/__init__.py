"""The object that is grasped: cleaned mesh, surface points, signed-distance grid, levels of detail."""

from __future__ import annotations

from .mesh import ObjectMesh, local_thickness, read_source
from .units import ObjectSizeError

__all__ = ["ObjectMesh", "ObjectSizeError", "local_thickness", "read_source"]
