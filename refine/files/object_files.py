"""Objects by name: a mesh, or a folder of meshes, optionally with `objects.json` that says where each is and its scale.

A name in a prediction file never becomes a path: it is looked up among the files that are in the folder, or in
the side-car, whose paths may not leave its root folder.
"""

from __future__ import annotations

import atexit
import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .object_layouts import DEEPEST, MESH_SUFFIXES, meshes_in
from .prediction_files import read_json

if TYPE_CHECKING:
    from contact.objects import ObjectMesh

SIDECAR = "objects.json"
MAX_MESH_BYTES = 512 << 20
REMEMBERED = 32
"""Objects that are kept open, those used last: some megabytes each."""


@dataclass(frozen=True)
class ObjectEntry:
    """Where the mesh of one object is."""

    object_id: str
    path: Path
    scale: float | None = None
    """Factor that turns the file's units into metres; None: they are metres."""
    sha256: str | None = None
    """Expected hash of the file, lower case hex; None: not checked."""


def read_objects(path: str | Path) -> dict[str, ObjectEntry]:
    """Read an object side-car: JSON ``{"mug": {"mesh": "meshes/mug.obj", "scale": 0.001, "sha256": "..."}}``.

    ``scale`` and ``sha256`` are optional. Paths are relative to the side-car's folder, and may not leave it (links
    included). The meshes themselves are not opened.

    Raises:
        FileNotFoundError: a mesh it names is missing.
        ValueError: it is not such a file, or a path leaves the folder.
    """
    path = Path(path)
    document = read_json(path)
    if not isinstance(document, dict):
        raise ValueError(f'{path}: expected {{"object id": {{"mesh": "file.obj", "scale": 1.0}}, ...}}.')
    return {object_id: _entry(path, object_id, value) for object_id, value in document.items()}


def _entry(sidecar: Path, object_id: str, value: Any) -> ObjectEntry:
    where = f"{sidecar}: object {object_id[:60]!r}"
    if not isinstance(value, dict) or not isinstance(value.get("mesh"), str):
        raise ValueError(f'{where}: expected {{"mesh": "file.obj"}} with optional "scale" and "sha256".')
    unknown = sorted(set(value) - {"mesh", "scale", "sha256"})
    if unknown:
        raise ValueError(f"{where}: unknown key {unknown[0][:60]!r}; the keys are mesh, scale, sha256.")
    scale, digest = value.get("scale"), value.get("sha256")
    if scale is not None and not (type(scale) in (int, float) and 0 < scale < math.inf):
        raise ValueError(f"{where}: scale is {str(scale)[:40]}; give the factor to metres, e.g. 0.001 for millimetres.")
    if digest is not None and not (isinstance(digest, str) and len(digest) == 64):
        raise ValueError(f"{where}: sha256 is not 64 hexadecimal digits.")
    mesh = inside(sidecar.parent, value["mesh"], where)
    if not mesh.is_file():
        raise FileNotFoundError(f"{where}: no mesh file {value['mesh']!r} in {sidecar.parent}.")
    return ObjectEntry(object_id, mesh, scale and float(scale), digest and digest.lower())


def inside(root: Path, relative: str, where: str) -> Path:
    """``root / relative``, links followed; ``ValueError`` beginning with ``where`` when that is outside ``root``."""
    try:
        resolved = (root / relative).resolve()
        resolved.exists()  # raises where the name is longer than the file system takes
        if resolved.is_relative_to(root.resolve()):
            return resolved
    except (OSError, ValueError, RuntimeError):  # NUL bytes, names too long, circular links
        pass
    raise ValueError(f"{where}: the path {relative[:120]!r} leaves {root}; keep the meshes below it.")


class OneObject(dict[str, ObjectEntry]):
    """The one object of all rows: every name finds it."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> ObjectEntry:
        return next(iter(self.values()))


def find_objects(source: str | Path, scale: float | None = None) -> dict[str, ObjectEntry]:
    """The objects of ``--objects``: a mesh, a side-car file, a folder with `objects.json`, or a folder of meshes.

    A mesh (.obj, .ply, .stl, .off, .glb) is the object of all rows, see `OneObject`. In a folder without side-car
    names are those of its files without suffix, or of the folders that hold a mesh each, see `meshes_in`.

    Args:
        scale: factor to metres of the meshes of which no side-car says one; None: they are in metres.

    Raises:
        FileNotFoundError: no such folder, or no meshes in it.
        ValueError: see `read_objects` and `meshes_in`; a scale that is no positive number.
    """
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"--scale: got {scale}; give the factor that brings the meshes to metres, e.g. 0.001.")
    found = _found(Path(source))
    for object_id, entry in found.items():
        if entry.scale is None:
            found[object_id] = replace(entry, scale=scale)
    return found


def _found(source: Path) -> dict[str, ObjectEntry]:
    """The entries of ``source``, with the scale that a side-car says."""
    if source.is_file() and source.suffix.lower() in MESH_SUFFIXES:
        return OneObject({source.stem: ObjectEntry(source.stem, source.resolve())})
    if source.is_file() and source.suffix.lower() != ".json":
        raise ValueError(
            f"--objects {source}: is neither a folder, nor a mesh ({', '.join(MESH_SUFFIXES)}; save those of other "
            f"kinds as one of these), nor a side-car like {SIDECAR}."
        )
    sidecar = source if source.is_file() else source / SIDECAR
    if sidecar.is_file():
        return read_objects(sidecar)
    if not source.is_dir():
        raise FileNotFoundError(f"--objects {source}: there is no such folder or file.")
    where = f"--objects {source}"
    meshes = meshes_in(source)
    if not meshes:
        there = sorted(path.name for path in source.iterdir())[:3]
        raise FileNotFoundError(
            f"{where}: holds no meshes, {DEEPEST} folders deep ({'it is empty' if not there else ', '.join(there)}); "
            f"name them <object_id>.obj (or {', '.join(MESH_SUFFIXES[1:])}) or <object_id>/textured_simple.obj, or add "
            f"{SIDECAR}."
        )
    return {name: ObjectEntry(name, inside(source, str(p.relative_to(source)), where)) for name, p in meshes.items()}


def no_mesh(object_id: str, objects: Iterable[str]) -> str:
    """What to say where ``object_id`` is none of ``objects``: which are like it, or which there are."""
    there = sorted(objects)
    start = f"no mesh for object {object_id[:60]!r}"
    if near := near_names(object_id, there):
        return f"{start}; did you mean {' or '.join(map(repr, near))}?"
    return f"{start}; the objects are {', '.join(there[:5])}{' …' if len(there) > 5 else ''}."


def near_names(name: str, names: Iterable[str], most: int = 3) -> list[str]:
    """Those of ``names`` that are probably meant by ``name``, likeliest first.

    One is part of the other ("cracker_box", "003_cracker_box"), the same but for case and separators, or spelt alike.
    """
    plain = {other: "".join(filter(str.isalnum, other.casefold())) for other in names}
    wanted = "".join(filter(str.isalnum, name.casefold()))
    if not wanted:
        return []
    same = [other for other, text in plain.items() if text == wanted]
    long = {other: text for other, text in plain.items() if min(len(text), len(wanted)) > 1}
    part = [other for other, text in long.items() if wanted in text or text in wanted]
    alike = get_close_matches(wanted, list(plain.values()), n=most, cutoff=0.7)
    spelt = [other for text in alike for other in plain if plain[other] == text]
    return list(dict.fromkeys([*same, *part, *spelt]))[:most]


def load_object(entry: ObjectEntry, side: str = "right") -> ObjectMesh:
    """Open the mesh of ``entry`` for hands of ``side``, see `object_for`; the last `REMEMBERED` are opened once.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: it is too large, its hash differs, or it is not a usable mesh.
    """
    if not entry.path.is_file():
        raise FileNotFoundError(f"{entry.path}: there is no such mesh.")
    status = entry.path.stat()
    return _load_unchanged(entry, side, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=REMEMBERED)  # files, shards and chunks of rows share their objects
def _load_unchanged(entry: ObjectEntry, side: str, changed: int, size: int) -> ObjectMesh:
    """`load_object` of a file of ``size`` bytes that was ``changed`` then."""
    if size > MAX_MESH_BYTES:
        raise ValueError(f"{entry.path}: {size >> 20} MB; simplify it to less than {MAX_MESH_BYTES >> 20} MB.")
    if entry.sha256 and (digest := hashlib.sha256(entry.path.read_bytes()).hexdigest()) != entry.sha256:
        raise ValueError(
            f"{entry.path}: its sha256 is {digest[:12]}…, the side-car says {entry.sha256[:12]}…; "
            "fetch the mesh again or mend the side-car."
        )
    atexit.unregister(_load_unchanged.cache_clear)
    atexit.register(_load_unchanged.cache_clear)  # manifold3d speaks of leaks where solids outlive the interpreter
    # Here, because it needs torch and this module is also read by --help.
    from contact.objects import ObjectSizeError

    try:
        return object_for(entry.path, side, name=entry.object_id, scale=entry.scale)
    except ObjectSizeError as error:
        where = f'on the command line --scale {error.scale:g}, or "scale": {error.scale:g} in {SIDECAR}'
        raise ValueError(f"{error} ({where})") from None


def object_for(source: Any, side: str, *, name: str | None = None, scale: float | None = None) -> ObjectMesh:
    """Whatever holds a mesh as `contact.ObjectMesh`, its points drawn where hands of ``side`` are refined.

    Left hands are refined in the mirror, and so the points are drawn there: a scene and its mirror image then
    give the same problem. An ObjectMesh keeps the points it has. Arguments and errors as `ObjectMesh.from_any`.
    """
    from contact.objects import ObjectMesh, read_source

    if side == "left" and not isinstance(source, ObjectMesh):
        vertices, faces, found = read_source(source)
        if vertices.ndim == faces.ndim == 2 and vertices.shape[1] == 3:
            mirror = (vertices * [-1.0, 1.0, 1.0], faces[:, ::-1])
            return ObjectMesh.from_any(mirror, name=name or found, scale=scale).mirrored()
    return ObjectMesh.from_any(source, name=name, scale=scale)
