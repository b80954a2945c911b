"""The object that is grasped: a cleaned mesh with surface points, local thickness and a signed-distance grid."""

from __future__ import annotations

import hashlib
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .cleaning import clean_mesh
from .decimation import decimate
from .diagnosis import count_points, not_a_mesh, without_triangles
from .grid import SignedDistanceGrid
from .grid_build import build_grid
from .hierarchy import LEVELS, PointHierarchy, build_hierarchy
from .surface_points import corner_normals, face_vectors, farthest_point_order, first_hit, sample_surface
from .tri_strips import from_strips
from .units import check_size

if TYPE_CHECKING:
    import trimesh  # imported where it is used: it takes half a second
    from manifold3d import Manifold

THICKEST = 0.1
"""Metres at which local thickness is cut off; nothing a hand presses on yields differently beyond it."""


@dataclass(frozen=True, eq=False)
class ObjectMesh:
    """A rigid object in its own frame, metres. Make one with :meth:`from_any`."""

    vertices: Tensor
    """(V, 3) float32 metres."""
    faces: Tensor
    """(F, 3) int64, outward orientation."""
    points: Tensor
    """(n, 3) float32 metres, area-uniform on the surface; every prefix is spread over the whole object."""
    normals: Tensor
    """(n, 3) float32 outward unit normals, interpolated where the surface is smooth."""
    thickness: Tensor
    """(n,) float32 metres from each point straight inward to the far side, at most 0.1."""
    grid: SignedDistanceGrid
    """Signed distance, positive outside."""
    hierarchy: PointHierarchy | None = None
    """Neighbourhoods of the points, as the network needs them; None unless there are 2,048."""
    name: str = "object"
    """For files and messages."""
    watertight: bool = True
    """Whether the mesh is closed and consistently oriented."""

    @classmethod
    def from_any(
        cls,
        source: Any,
        *,
        name: str | None = None,
        scale: float | None = None,
        n_points: int = 2048,
        resolution: int = 96,
        seed: int = 0,
        cache: bool = True,
    ) -> ObjectMesh:
        """Make an object from whatever holds a triangle mesh, which is cleaned first, see `clean_mesh`.

        The same input and seed give the same object. Very large meshes are replaced by ones of fewer triangles, a
        millimetre off at most (`contact.objects.decimation`), but for the distances near their surface.

        Args:
            source: a path to anything trimesh loads (scenes are joined), a ``trimesh.Trimesh`` or ``Scene``,
                an Open3D ``TriangleMesh``, a PyTorch3D ``Meshes`` of one mesh, a pair
                ``(vertices (V, 3), faces (F, 3))``, or an ObjectMesh, which is returned as it is (with ``name``
                and ``scale`` applied if given).
            name: a name; the file's stem by default.
            scale: factor from the source's unit to metres, 1 by default; 0.001 for millimetres, 0.01 for centimetres,
                0.0254 for inches.
            n_points: number of surface points.
            resolution: of the signed-distance grid, see `contact.objects.grid_build.build_grid`.
            seed: for the surface points.
            cache: keep the signed-distance grid in the user's cache folder.

        Raises:
            FileNotFoundError: the path does not exist.
            ValueError: the mesh cannot be read, is empty or has no faces, has NaN, or has faces that are not
                triangles of its vertices; `ObjectSizeError` when it is so large or small that its unit cannot be
                metres.
        """
        if scale is not None and not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be a positive number of metres per unit, got {scale}")
        if n_points < 1:
            raise ValueError(f"n_points must be at least 1, got {n_points}")
        if isinstance(source, ObjectMesh):
            if scale is None or scale == 1:
                return source if name is None else replace(source, name=name)
            n_points = len(source.points)
        vertices, faces, found_name = read_source(source)
        vertices, faces, closed = clean_mesh(vertices * (1.0 if scale is None else scale), faces)
        check_size(float(np.linalg.norm(np.ptp(vertices, axis=0))), scale)
        if not closed:
            warnings.warn(
                f"object_mesh {name or found_name!r} is not watertight: inside and outside are told apart by winding"
                " number, and penetration near its openings is approximate",
                stacklevel=2,
            )
        whole, (vertices, faces) = (vertices, faces), decimate(vertices, faces)
        simpler = (vertices, faces) if len(faces) < len(whole[1]) else None
        surface = _surface(vertices, faces, n_points, seed)
        vertex, points, normals, thickness = (torch.from_numpy(x.astype(np.float32)) for x in (vertices, *surface))
        return cls(
            vertices=vertex,
            faces=torch.from_numpy(faces),
            points=points,
            normals=normals,
            thickness=thickness,
            grid=build_grid(*whole, resolution, closed=closed, simpler=simpler, cache=cache),
            hierarchy=build_hierarchy(points) if n_points == LEVELS[0] else None,
            name=name or found_name,
            watertight=closed,
        )

    @cached_property
    def trimesh(self) -> trimesh.Trimesh:
        """The cleaned mesh for trimesh; treat it as read-only."""
        import trimesh

        return trimesh.Trimesh(self.vertices.cpu().numpy(), self.faces.cpu().numpy(), process=False)

    @cached_property
    def solid(self) -> Manifold:
        """The object as a solid body: its mesh, with holes capped, else what its grid has inside (`grid_solid`)."""
        from .solid import cap_holes, closed_solid, grid_solid

        mesh = self.vertices.cpu().double().numpy(), self.faces.cpu().numpy()
        return closed_solid(*(mesh if self.watertight else cap_holes(*mesh))) or grid_solid(self.grid)

    @cached_property
    def diameter(self) -> float:
        """Largest distance between two vertices in metres."""
        from scipy.spatial import ConvexHull, QhullError
        from scipy.spatial.distance import pdist

        vertices = self.vertices.cpu().double().numpy()
        with suppress(QhullError):  # a flat object has no hull
            vertices = vertices[ConvexHull(vertices).vertices]
        if len(vertices) > 5000:  # all pairs would not fit: the box's diagonal is at most √3 too large
            return float(np.linalg.norm(np.ptp(vertices, axis=0)))
        return float(pdist(vertices).max())

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of vertices and faces; equal for equal shapes whatever the name or file."""
        arrays = (values.cpu().contiguous().numpy().tobytes() for values in (self.vertices, self.faces))
        return hashlib.sha256(b"".join([f"{tuple(self.vertices.shape)}".encode(), *arrays])).hexdigest()

    def mirrored(self) -> ObjectMesh:
        """The object mirrored in x (x → −x), point by point in the same order."""
        flip = self.vertices.new_tensor([-1.0, 1.0, 1.0])
        return replace(
            self,
            vertices=self.vertices * flip,
            faces=self.faces.flip(-1),
            points=self.points * flip,
            normals=self.normals * flip,
            grid=self.grid.mirrored(),
        )


def read_source(source: Any) -> tuple[np.ndarray, np.ndarray, str]:
    """Vertices, faces and a name from any accepted source, not yet checked for content."""
    import trimesh

    if isinstance(source, ObjectMesh):
        return source.vertices.cpu().double().numpy(), source.faces.cpu().numpy(), source.name
    name = "object"
    if isinstance(source, str | PathLike):
        path = Path(source).expanduser()
        if not path.is_file():
            mend = "that is a folder; give the mesh file in it" if path.is_dir() else "check the path"
            raise FileNotFoundError(f"object_mesh: there is no file {str(path)!r}: {mend}")
        name = path.stem
        if found := not_a_mesh(path):
            raise ValueError(f"object_mesh: {str(path)!r} {found}")
        try:
            source = trimesh.load_scene(path, process=False)
        except Exception as error:  # trimesh's loaders raise whatever their formats raise
            raise ValueError(
                f"object_mesh: {str(path)!r} could not be read as a mesh ({type(error).__name__}: {error});"
                " pass a mesh file that trimesh loads, such as .ply, .obj, .stl or .glb"
            ) from error
        where = repr(str(path))
    else:
        where = type(source).__name__
    if isinstance(source, trimesh.Scene):
        parts = list(source.geometry.values())
        if len(parts) == 1 and isinstance(parts[0], trimesh.PointCloud) and (mesh := from_strips(parts[0])) is not None:
            source = trimesh.Scene(mesh)
        if not any(len(getattr(part, "faces", ())) for part in source.geometry.values()):
            points = sum(count_points(part) or 0 for part in parts)
            raise ValueError(f"object_mesh: {where} {without_triangles(points)}")
        source = source.to_mesh()
    if isinstance(source, trimesh.Trimesh):
        return np.asarray(source.vertices, dtype=np.float64), np.asarray(source.faces), name
    source = _of_another_library(source)
    if isinstance(source, tuple | list) and len(source) == 2:
        try:
            vertices, faces = (np.array(x.detach().cpu() if isinstance(x, Tensor) else x) for x in source)
            return vertices.astype(np.float64), faces, name
        except (TypeError, ValueError) as error:
            raise ValueError(f"object_mesh: vertices and faces must be arrays of numbers ({error})") from error
    if points := count_points(source):
        raise ValueError(f"object_mesh: {where} {without_triangles(points)}")
    raise ValueError(
        f"object_mesh: cannot make an object from {type(source).__name__};"
        " pass a path, a trimesh.Trimesh, an Open3D or PyTorch3D mesh, a pair (vertices, faces) or an ObjectMesh"
    )


def _of_another_library(source: Any) -> Any:
    """Vertices and faces of an Open3D or PyTorch3D mesh, told by its attributes; anything else as it is."""
    if hasattr(source, "to_legacy"):  # Open3D's mesh of tensors
        source = source.to_legacy()
    if hasattr(source, "vertices") and hasattr(source, "triangles"):
        return source.vertices, source.triangles
    if hasattr(source, "verts_list") and hasattr(source, "faces_list"):
        if len(source.verts_list()) != 1:
            raise ValueError(
                f"object_mesh: a batch of {len(source.verts_list())} PyTorch3D meshes; pass one of them: meshes[0]"
            )
        return source.verts_list()[0], source.faces_list()[0]
    return source


def _surface(
    vertices: np.ndarray, faces: np.ndarray, n_points: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (n, 3), normals (n, 3) and thickness (n,) in an order whose prefixes are well spread."""
    points, face, weight = sample_surface(vertices, faces, n_points, np.random.default_rng(seed))
    order = farthest_point_order(points)
    points, face, weight = points[order], face[order], weight[order]
    touched = np.zeros(len(vertices), dtype=bool)
    touched[faces[face]] = True
    around = np.flatnonzero(touched[faces].any(axis=1))  # all that the normals of the points' faces depend on
    corner = corner_normals(vertices, faces[around])[np.searchsorted(around, face)]
    normals = np.einsum("nk,nkd->nd", weight, corner)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-300)
    return points, normals, local_thickness(vertices, faces, points, face)


def local_thickness(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Distance (n,) straight inward through the object to its far side, metres.

    At most :data:`THICKEST`, which also stands where an open mesh has no far side.

    Args:
        vertices, faces: (V, 3) metres and (F, 3), outward orientation.
        points, face: (n, 3) metres on the surface and (n,) the face each lies on, against whose normal the ray runs.
    """
    inward = -face_vectors(vertices, faces[face])
    inward /= np.maximum(np.linalg.norm(inward, axis=1, keepdims=True), 1e-300)
    # A micrometre inside, so that the ray does not meet the face it starts from.
    return np.minimum(first_hit(vertices, faces, points, inward, 1e-6), THICKEST)
