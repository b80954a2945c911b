"""A few grasps on held-out objects of the corpus in one small file, meshes included: what benchmarks ship with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from contact.corpus.corpus import object_files
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
    for file, held_out in object_files(Path(folder)):
        if held_out:
            with np.load(file, allow_pickle=False) as data:
                by_family.setdefault(str(data["family"]), []).append(file)
    rounds = zip_longest(*by_family.values())
    ordered = [file for files in rounds for file in files if file is not None]
    columns: dict[str, list[np.ndarray]] = {}
    for k, file in enumerate(ordered[:objects]):
        with np.load(file, allow_pickle=False) as data:
            count = min(grasps, len(data["global_orient"]))
            row = {name: data[name][:count].astype(np.float32) for name in _POSE}
            row |= {
                "which": np.full(count, k), "vertices": data["vertices"].astype(np.float32),
                "faces": data["faces"].astype(np.int32), "vertex_count": np.array([len(data["vertices"])]),
                "face_count": np.array([len(data["faces"])]), "family": np.array([str(data["family"])]),
            }  # fmt: skip
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    if not columns:
        raise ValueError(f"corpus: {folder} is too small to hold objects out; make at least ten of a family.")
    arrays = {name: np.concatenate(values) for name, values in columns.items()}
    return write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))


def read_held_out(path: Path) -> HeldOut:
    """Read what `write_held_out` wrote. Raises ``FileNotFoundError`` when it is not there."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is not there; `regrasp pose-graph train --corpus …` writes it.")
    with np.load(path, allow_pickle=False) as data:
        arrays = dict(data)
    vertices = np.split(arrays["vertices"], np.cumsum(arrays["vertex_count"])[:-1])
    faces = np.split(arrays["faces"], np.cumsum(arrays["face_count"])[:-1])
    pose = HandPose.from_arrays({name: arrays[name] for name in _POSE})
    return HeldOut(tuple(zip(vertices, faces, strict=True)), tuple(arrays["family"].tolist()), arrays["which"], pose)
