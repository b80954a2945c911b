"""What a file is that should have been a mesh, and how to get the mesh."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

_LFS = b"version https://git-lfs"
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body")
_PLAIN = (".obj", ".ply", ".stl", ".off", ".glb")
"""Meshes that are no archives."""
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""What a file of torch.save begins with, where it is no archive: the pickled magic number."""
_SENT = "is an error that a server sent in its place: check the link, or log in, and download it again"
_OTHERS = {
    b"\x1f\x8b": "is compressed with gzip: unpack it with gunzip",
    b"\x89PNG": "is a picture",
    b"\xff\xd8\xff": "is a picture",
    b"%PDF": "is a PDF document",
    b"404: not found": _SENT,
    b"404 not found": _SENT,
    b'{"message"': _SENT,
    b'<?xml version="1.0" encoding="utf-8"?><error': _SENT,
    b'<?xml version="1.0" encoding="utf-8"?>\n<error': _SENT,
}
"""What files begin with, in lower case where they are text, that are neither meshes nor hands."""
_TRIANGLES = "save its vertices and faces as a mesh, trimesh.Trimesh(vertices, faces).export('object.ply')"


def not_a_mesh(path: Path) -> str | None:
    """What the file at ``path`` is and the mend, where its first bytes say that it is surely no mesh; else None.

    Nothing in it is unpacked or unpickled.
    """
    with path.open("rb") as stream:
        start = stream.read(512)
    if placeholder := stands_for(start, "mesh"):
        return placeholder
    if start.startswith(_OLD_TORCH) or _is_torch_archive(path):
        return f"is a file of torch.save: load it with torch.load(path, weights_only=True) and {_TRIANGLES}"
    if start.startswith(b"PK\x03\x04") and path.suffix.lower() in _PLAIN:
        return "is a zip archive: unpack it, and give the mesh in it"
    if start.startswith(b"\x93NUMPY"):
        return f"is a NumPy array: load it with numpy.load and {_TRIANGLES}"
    return None


def stands_for(start: bytes, what: str) -> str | None:
    """What a file that begins with ``start`` is in place of ``what``, such as "mesh", and the mend; None if neither
    nothing, nor a Git LFS pointer, nor a web page, nor another file of a kind that is known."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "is empty (0 bytes): an interrupted download or export? Fetch or export it again"
    if text.startswith(_LFS):
        return f"is a Git LFS pointer, a note of where the {what} is: run 'git lfs pull' in its repository to fetch it"
    if text.startswith(_HTML):
        return (
            f"is an HTML page saved under a {what}'s name, such as a login or error page: open the link in a browser"
            f" (on GitHub take the 'raw' one) and download the {what} itself"
        )
    return next((said for mark, said in _OTHERS.items() if start.startswith(mark) or text.startswith(mark)), None)


def _is_torch_archive(path: Path) -> bool:
    """Zip archives may be meshes (.3mf); those of torch.save hold a data.pkl."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def without_triangles(points: int) -> str:
    """What a source of ``points`` points (0: nothing) and no faces is, and the mend."""
    if points == 0:
        return "holds no triangles: export the object's surface as a triangle mesh"
    return (
        f"is a point cloud ({points} points, no faces): reconstruct its surface, e.g. with Open3D's"
        " TriangleMesh.create_from_point_cloud_poisson or MeshLab, or take trimesh.convex.convex_hull(points)"
    )


def count_points(source: Any) -> int | None:
    """How many points a point cloud of trimesh or Open3D holds; None for anything else."""
    if any(hasattr(source, name) for name in ("faces", "triangles", "lines", "entities")):
        return None
    points = next((getattr(source, name) for name in ("vertices", "points") if hasattr(source, name)), None)
    shape = getattr(points, "shape", None)
    if points is None or (shape is not None and (len(shape) != 2 or shape[1] != 3)):
        return None
    try:
        return len(points)
    except TypeError:
        return None
