"""Unfold the open hand's skin: palm and back as two sheets side by side, each nearly true to its areas.

The skin is cut where it turns from palm to back. Either half is a disk: harmonic on a circle first, then SLIM with the
symmetric Dirichlet energy (Rabinovich et al., "Scalable Locally Injective Mappings", ACM TOG 2017), which lets no
triangle turn over. Each is laid as it is seen from outside, fingers up.

    python tools/build_open_hand_uv.py        # writes hand_models/assets/open_hand_uv.npz
"""

from __future__ import annotations

import igl
import numpy as np
import trimesh

from hand_models.hand_map import ASSET
from hand_models.open_hand import load_open_hand

ROUNDS = 60
MARGIN = 0.02  # of the height, around either sheet


def palm_side(mesh: trimesh.Trimesh) -> np.ndarray:
    """(F,) bool: faces of the palm, which looks towards -y at rest, in one piece; the others are the back's."""
    palm = mesh.face_normals[:, 1] < 0
    pairs = mesh.face_adjacency
    for _ in range(8):  # the majority among neighbours, so that the cut has no teeth
        votes, count = palm.astype(float), np.ones(len(palm))
        for one, other in (pairs.T, pairs.T[::-1]):
            np.add.at(votes, one, palm[other])
            np.add.at(count, one, 1)
        palm = votes / count > 0.5
    for half in (True, False):
        inside = pairs[(palm[pairs] == half).all(1)]
        pieces = trimesh.graph.connected_components(inside, nodes=np.flatnonzero(palm == half))
        for piece in sorted(pieces, key=len)[:-1]:
            palm[piece] = ~palm[piece]
    return palm


def unfold(vertices: np.ndarray, faces: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Places (V, 2) in metres of a disk (V, 3), (F, 3), turned to lie as its vertices are `seen` (V, 2)."""
    rim = np.asarray(igl.boundary_loop(faces.astype(np.int64)))
    circle = igl.map_vertices_to_circle(vertices, rim)
    start = igl.harmonic(vertices, faces.astype(np.int64), rim, circle, 1)
    edges = start[faces[:, 1:]] - start[faces[:, :1]]
    if np.linalg.det(edges).sum() < 0:
        start[:, 1] *= -1
    fortran = [np.asfortranarray(a) for a in (vertices, faces.astype(np.int32), start)]
    free = np.zeros(0, np.int32), np.zeros((0, 2), order="F")
    data = igl.slim_precompute(*fortran, igl.MappingEnergyType.SYMMETRIC_DIRICHLET, *free, 0.0)
    flat = np.asarray(igl.slim_solve(data, ROUNDS))[:, :2]
    flat = flat - flat.mean(0)
    u, _, v = np.linalg.svd((seen - seen.mean(0)).T @ flat)
    return flat @ (u @ v).T


def main() -> None:
    model = load_open_hand()
    vertices, faces = model.template.double().numpy(), model.faces.numpy()
    palm = palm_side(trimesh.Trimesh(vertices, faces, process=False))
    x, _, z = vertices.T
    sheets = {}
    for half, seen in ((True, np.stack([z, -x], 1)), (False, np.stack([-z, -x], 1))):
        used, index = np.unique(faces[palm == half], return_inverse=True)
        sheets[half] = unfold(vertices[used], index.reshape(-1, 3), seen[used])[index.reshape(-1, 3)]
    extent = max(np.ptp(sheet.reshape(-1, 2), axis=0).max() for sheet in sheets.values())
    scale = (1 - 2 * MARGIN) / extent
    uv = np.zeros((len(faces), 3, 2))
    for half, sheet in sheets.items():
        corners = sheet.reshape(-1, 2)
        middle = (corners.min(0) + corners.max(0)) / 2
        uv[palm == half] = (sheet - middle) * scale + 0.5
        uv[palm == half, :, 0] = (uv[palm == half, :, 0] + (0 if half else 1)) / 2
    steps = np.round(uv * 65535).astype(np.uint16)
    np.savez_compressed(ASSET, uv=steps, metres_of_height=np.float32(1 / scale))
    print(f"{ASSET}: {ASSET.stat().st_size} bytes, the map is {1 / scale:.3f} m high")


if __name__ == "__main__":
    main()
