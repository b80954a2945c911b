"""A few grasps on held-out objects of the corpus in one small file, meshes included: what benchmarks ship with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from contact.corpus.corpus import held_out_files, read_arrays
from hand_models import HandPose
from hand_models.atomic import write_atomically

_POSE = ("global_orient", "hand_pose", "betas", "transl")


@dataclass(frozen=True)
class HeldOut:
    """Grasps on objects that no network has seen."""

    meshes: tuple[tuple[np.ndarray, np.ndarray], ...]
    """vertices (V, 3) metres and faces (F, 3) of each object"""
    families: tuple[str, ...]
    which: np.ndarray
    """(N,) object of each grasp"""
    pose: HandPose
    """right hands, object frame"""


def write_held_out(folder: str | Path, path: Path, *, objects: int = 16, grasps: int = 6) -> Path:
    """Some grasps on held-out objects of a corpus in one small file: ``objects``, families in turn, ``grasps`` each."""
    by_family: dict[str, list[Path]] = {}
    for file in held_out_files(Path(folder)):
        by_family.setdefault(str(read_arrays(file, "family")["family"]), []).append(file)
    ordered = [file for files in zip_longest(*by_family.values()) for file in files if file is not None]
    items = [read_arrays(file) for file in ordered[:objects]]
    arrays = {name: np.concatenate([item[name][:grasps] for item in items]) for name in _POSE}
    arrays |= {name: np.concatenate([item[name] for item in items]) for name in ("vertices", "faces")}
    arrays |= {
        "which": np.repeat(np.arange(len(items)), [len(item["transl"][:grasps]) for item in items]),
        "vertex_count": np.array([len(item["vertices"]) for item in items]),
        "face_count": np.array([len(item["faces"]) for item in items]),
        "family": np.array([str(item["family"]) for item in items]),
    }
    return write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))


def read_held_out(path: Path) -> HeldOut:
    """Read what `write_held_out` wrote. Raises ``FileNotFoundError`` when it is not there."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is not there; `regrasp pose-graph train --corpus …` writes it.")
    arrays = read_arrays(path)
    vertices = np.split(arrays["vertices"], np.cumsum(arrays["vertex_count"])[:-1])
    faces = np.split(arrays["faces"], np.cumsum(arrays["face_count"])[:-1])
    pose = HandPose.from_arrays({name: arrays[name] for name in _POSE})
    return HeldOut(tuple(zip(vertices, faces, strict=True)), tuple(arrays["family"].tolist()), arrays["which"], pose)
