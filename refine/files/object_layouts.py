"""How people lay out the meshes of objects in folders: flat, or a folder for each object, as data sets do."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

MESH_SUFFIXES = (".obj", ".ply", ".stl", ".off", ".glb")
"""In order of preference where one object has several files."""
PREFERRED = ("textured_simple", "textured", "mesh")
"""Names that data sets give the mesh of an object in its own folder, in order of preference: YCB-Video, DexYCB and
HO-3D; YCB's own download; ARCTIC."""
DEEPEST = 4
"""Levels of folders that are looked into, so that a whole disk is not."""


def meshes_in(folder: Path) -> dict[str, Path]:
    """Object id to mesh of all objects in ``folder``.

    If it holds meshes itself, each is an object called as its file, and folders in it are not looked at. Otherwise
    each folder below that holds meshes, at any depth to `DEEPEST`, is an object called as the folder; or, where
    folders of one name lie in several (``<id>/google_16k/textured.obj``), as the folder that one is in. Hidden and
    linked folders are passed over.

    Raises:
        ValueError: a folder holds several meshes and none of `PREFERRED`, or two objects would have one name.
    """
    if flat := _by_stem(path for path in folder.iterdir() if path.is_file()):
        return flat
    folders = {}
    for place, below, files in os.walk(folder):
        here = Path(place)
        if meshes := _by_stem(here / name for name in files):
            folders[here] = meshes
            below.clear()  # parts and other resolutions of what was found
        below[:] = sorted(name for name in below if not name.startswith("."))
        if len(here.relative_to(folder).parts) == DEEPEST:
            below.clear()
    return {name: _mesh_of(place, folders[place]) for name, place in _named(folder, folders).items()}


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """The meshes among ``paths`` by their name without suffix, sorted; of several files the preferred suffix."""
    meshes = [path for path in paths if path.suffix.lower() in MESH_SUFFIXES and not path.name.startswith(".")]
    meshes.sort(key=lambda path: (path.stem, MESH_SUFFIXES.index(path.suffix.lower()), path.name))
    found: dict[str, Path] = {}
    for path in meshes:
        found.setdefault(path.stem, path)
    return found


def _mesh_of(folder: Path, meshes: dict[str, Path]) -> Path:
    """The mesh of the one object of ``folder``."""
    for name in (*PREFERRED, folder.name):
        if name in meshes:
            return meshes[name]
    if len(meshes) > 1:
        raise ValueError(
            f"--objects: {folder} holds several meshes ({_listed(path.name for path in meshes.values())}). If each is "
            f"an object, give --objects {folder}; if they are one, name its mesh {PREFERRED[0]}.obj or say which "
            "it is in objects.json."
        )
    return next(iter(meshes.values()))


def _named(root: Path, folders: Iterable[Path]) -> dict[str, Path]:
    """Names of the objects that lie in ``folders``."""
    named: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        named[folder.name].append(folder)
    final: dict[str, Path] = {}
    for name, places in named.items():
        for place in places:
            called = name if len(places) == 1 or place.parent == root else place.parent.name
            if called in final:
                raise ValueError(
                    f"--objects: {final[called].relative_to(root)} and {place.relative_to(root)} in {root} both hold a "
                    f"mesh of {called!r}; give the folder of one kind, or say in objects.json which it is."
                )
            final[called] = place
    return final


def _listed(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
