"""MANO's surface as the demos of HaMeR and WiLoR save it, ``<image>_<hand>.obj``, and poses fitted to it.

Sources of truth: ``vertices_to_trimesh`` of hamer/utils/renderer.py and wilor/utils/renderer.py: 778 vertices in the
camera of the whole image, turned about x by 180° (OpenGL's axes); MANO's 1,538 faces and 14 that close the wrist, whose
corners go the other way round on left hands.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hand_models import HandModel, MissingManoError, fit_vertices, load_mano

from .columns import Columns, by_side, pose_columns
from .files import MAX_FILE_BYTES, floats, naming, text_lines
from .hands import FLIP_YZ, hand_sized

VERTICES = 778
_CLOSING = 14
_LOOKED_AT = 1 << 17  # bytes of a mesh that sniffing looks at: all vertices, with colours


def is_hand_mesh(path: Path) -> bool:
    """Whether an .obj has as many vertices as MANO's hand. Never raises."""
    if path.suffix.lower() != ".obj":
        return False
    try:
        with path.open("rb") as stream:
            start = stream.read(_LOOKED_AT)
        return start.count(b"\nv ") + start.startswith(b"v ") == VERTICES
    except OSError:
        return False


def meshes_below(path: Path) -> list[Path]:
    """The hands' meshes that ``path`` is or holds."""
    return [path] if path.is_file() else [file for file in sorted(path.glob("*.obj")) if is_hand_mesh(file)]


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices ``(778, 3)``, metres, before OpenCV's camera, and faces ``(F, 3)`` of an .obj.

    Raises ``ValueError`` where it has another number of vertices; names the line of what is no number.
    """
    with naming(path):
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError("too large for a hand.")
        points, corners = [], []
        for number, line in text_lines(path):
            kind, *cells = line.split()
            if kind == "v":
                points.append(floats(path, number, cells[:3]))
            elif kind == "f":
                corners.append(floats(path, number, [cell.partition("/")[0] for cell in cells[:3]]))
        if len(points) != VERTICES or any(len(point) != 3 for point in points):
            raise ValueError(f"has {len(points)} vertices; expected the {VERTICES} of MANO's hand.")
        faces = np.array(corners).reshape(-1, 3) - 1 if all(len(c) == 3 for c in corners) else np.full((1, 3), np.nan)
        if not ((faces >= 0) & (faces < VERTICES)).all():
            raise ValueError("its faces are not triangles of its vertices.")
        vertices, faces = np.array(points), faces.astype(np.int64)
        return (vertices @ FLIP_YZ if vertices[:, 2].mean() < 0 else vertices), faces


def mano_for_meshes(mano_dir: str | Path | None) -> HandModel:
    """The user's MANO. Raises ``MissingManoError`` that says what it is needed for, and what goes without."""
    try:
        return load_mano(mano_dir)
    except MissingManoError as error:
        raise MissingManoError(
            f"vertices of MANO's hand say nothing without MANO: give --mano-dir (mano_dir=), or save the network's "
            f"pred_mano_params, which are read without it. {error}"
        ) from None


def in_order(vertices: np.ndarray, faces: np.ndarray, mano: HandModel) -> tuple[np.ndarray, str | None]:
    """Vertices in MANO's order, and the side that the faces' corners tell; None where they are not MANO's.

    Writers of meshes may sort vertices anew; the faces, which stay in MANO's order, then say which is which.
    """
    ours = mano.faces_for("right", closed=False).numpy()
    if len(faces) not in (len(ours), len(ours) + _CLOSING):
        return vertices, None
    for side, mine in (("right", ours), ("left", ours[:, [0, 2, 1]])):
        place = np.full(VERTICES, -1)
        place[mine.ravel()] = faces[: len(ours)].ravel()
        if (place >= 0).all() and (place[mine] == faces[: len(ours)]).all():
            return vertices[place], side
    return vertices, None


def fitted(vertices: np.ndarray, sides: np.ndarray, mano: HandModel, flipped: np.ndarray) -> Columns:
    """Pose columns of surfaces ``(N, 778, 3)``; NaN where one is no hand.

    Left hands may be right hands of the flipped image where ``flipped (N,)``, about the origin: they are what fits
    better.
    """
    mirror = np.array([-1.0, 1.0, 1.0])
    parts = []
    for side, rows in by_side(sides, hand_sized(vertices)):
        shown = vertices[rows]
        pose = fit_vertices(shown, mano, side=side)
        unsure = np.flatnonzero(flipped[rows])
        if len(unsure) and side == "left":
            # Chirality is in the surface: the wrong one cannot be fitted to a few millimetres.
            other = fit_vertices(shown[unsure] * mirror, mano, side=side)
            off = np.linalg.norm(mano(pose[unsure]).vertices.numpy() - shown[unsure], axis=2).mean(1)
            away = np.linalg.norm(mano(other).vertices.numpy() - shown[unsure] * mirror, axis=2).mean(1)
            better = away < off
            pose = pose.fill(torch.from_numpy(unsure[better]), other[torch.from_numpy(better)])
        parts.append((rows, pose.as_arrays()))
    return pose_columns(len(vertices), parts)
