"""Write files in MANO's format without MANO: random but well-formed numbers on a mitten of 778 vertices.

The mitten is a disc with a wrist loop of 16 edges and 1,538 faces, as MANO's mesh; its joints lie on the
usual rest skeleton and its fingertip ids sit where fingertips would be. Shape, pose corrections and pose
space are random. Nothing in it comes from MANO's data.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse

V, RING, RINGS, LOOP = 778, 16, 48, 16
PARENTS = np.array([4294967295, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14], dtype=np.uint32)
WRIST = np.array([95.67, 6.38, 6.19])
# Bones at rest in millimetres: wrist -> 1 -> 2 -> 3 -> tip.
BONES = {
    "index": [(-88.1, -5.2, 20.7), (-32.7, 4.0, 2.2), (-22.2, -1.3, -0.1), (-23.3, 0.7, 4.0)],
    "middle": [(-94.7, -1.5, -3.4), (-31.2, 1.9, -5.6), (-22.9, -1.3, -3.9), (-31.0, -1.4, -6.4)],
    "pinky": [(-68.8, -9.9, -43.2), (-17.0, 0.1, -12.5), (-15.9, -0.7, -10.3), (-19.6, 2.6, -11.5)],
    "ring": [(-81.7, -4.0, -26.7), (-28.3, 2.1, -5.1), (-23.5, -1.7, -7.6), (-29.2, 3.7, -8.1)],
    "thumb": [(-24.1, -15.5, 25.8), (-19.6, 0.9, 23.7), (-22.2, -5.4, 14.5), (-31.5, -6.5, 20.5)],
}
TIP_IDS = {"thumb": (744, 745), "index": (320, 317), "middle": (443, 444), "ring": (554, 556), "pinky": (671, 673)}


def _skeleton() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rest joints (16, 3) in MANO order and tips, metres."""
    joints, tips = [WRIST], {}
    for finger, bones in BONES.items():
        chain = WRIST + np.cumsum(bones, axis=0)
        joints += list(chain[:3])
        tips[finger] = chain[3] / 1000
    return np.array(joints) / 1000, tips


def _mitten(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A tube closed at the far end, open at the wrist: (778, 3) metres and (1538, 3) outward faces."""
    t = np.linspace(0.12, np.pi - 0.02, RINGS)  # along the hand, wrist to fingertips
    angle = 2 * np.pi * np.arange(RING) / RING
    x = 0.025 + 0.135 * np.cos(t)
    radius = np.sin(t)[:, None]
    z = 0.012 + 0.115 * radius * np.cos(angle)
    y = -0.003 + 0.055 * radius * np.sin(angle)
    rings = np.stack([np.broadcast_to(x[:, None], y.shape), y, z], -1).reshape(-1, 3)
    apex = np.array([[-0.11, -0.003, 0.012]])
    faces = []
    for r in range(RINGS - 1):
        for k in range(RING):
            a, b = r * RING + k, r * RING + (k + 1) % RING
            faces += [(a, b, b + RING), (a, b + RING, a + RING)]
    last = (RINGS - 1) * RING
    faces += [(last + k, last + (k + 1) % RING, RINGS * RING) for k in range(RING)]
    vertices = np.concatenate([rings, apex])
    while len(vertices) < V:  # split faces until the count is MANO's
        a, b, c = faces.pop(int(rng.integers(200, len(faces) - 200)))
        new = len(vertices)
        vertices = np.concatenate([vertices, vertices[[a, b, c]].mean(0, keepdims=True)])
        faces += [(a, b, new), (b, c, new), (c, a, new)]
    triangles = np.array(faces)
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    if np.einsum("ij,ij->", a - vertices.mean(0), np.cross(b, c)) < 0:
        triangles = triangles[:, ::-1]
    return vertices + rng.normal(scale=2e-4, size=vertices.shape), triangles


def _place_tips(vertices: np.ndarray, faces: np.ndarray, tips: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Renumber vertices so that the published fingertip ids lie nearest the tips."""
    order = np.arange(V)  # order[new] = old
    for finger, ids in TIP_IDS.items():
        nearest = np.argsort(np.linalg.norm(vertices - tips[finger], axis=1))
        for new, old in zip(ids, nearest[:2], strict=True):
            at = int(np.flatnonzero(order == old)[0])
            order[new], order[at] = order[at], order[new]
    inverse = np.argsort(order)
    return vertices[order], inverse[faces]


def _regressor(vertices: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Non-negative rows summing to one that give ``joints``; sparse, as four equations need."""
    system = np.concatenate([vertices.T, np.ones((1, V))])
    rows = [scipy.optimize.nnls(system, np.append(joint, 1.0))[0] for joint in joints]
    return np.array(rows) / np.sum(rows, axis=1, keepdims=True)


def mano_fields(side: str = "right", seed: int = 0) -> dict[str, Any]:
    """Fields of a MANO file as numpy arrays, ``J_regressor`` as a scipy matrix.

    The left hand is the mirror image of the right one of the same seed, except that ``shapedirs`` are left
    unmirrored in x, which is the fault of the published left-hand file.
    """
    rng = np.random.default_rng(seed)
    joints, tips = _skeleton()
    vertices, faces = _place_tips(*_mitten(rng), tips)
    distance = np.linalg.norm(vertices[:, None] - joints, axis=-1)
    weights = np.exp(-((distance / 0.015) ** 2)) + 1e-12
    weights /= weights.sum(1, keepdims=True)
    components = np.linalg.qr(rng.normal(size=(45, 45)))[0]
    fields = {
        "v_template": vertices,
        "shapedirs": rng.normal(scale=2e-3, size=(V, 3, 10)),
        "posedirs": rng.normal(scale=1e-3, size=(V, 3, 135)),
        "J_regressor": _regressor(vertices, joints),
        "weights": weights,
        "kintree_table": np.stack([PARENTS, np.arange(16, dtype=np.uint32)]),
        "f": faces.astype(np.uint32),
        "hands_mean": rng.normal(scale=0.2, size=45),
        "hands_components": components,
        "hands_coeffs": rng.normal(size=(20, 45)),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }
    if side == "left":
        flip = np.array([-1.0, 1.0, 1.0])
        turn = np.array([1.0, -1.0, -1.0])
        fields["v_template"] = fields["v_template"] * flip
        sign = (flip[:, None] * flip).ravel()  # entries of M R M for the mirror M
        fields["posedirs"] = fields["posedirs"] * flip[:, None] * np.tile(sign, 15)
        fields["f"] = fields["f"][:, ::-1].copy()
        fields["hands_mean"] = (fields["hands_mean"].reshape(15, 3) * turn).ravel()
        fields["hands_components"] = (components.reshape(45, 15, 3) * turn).reshape(45, 45)
    fields["J"] = fields["J_regressor"] @ fields["v_template"]
    fields["J_regressor"] = scipy.sparse.csc_matrix(fields["J_regressor"])
    return fields


class _FakeCh:
    """Pickles as chumpy's arrays do: attributes in a dictionary, private bookkeeping included."""

    def __init__(self, **terms: Any) -> None:
        self.__dict__.update(terms, _dirty_vars={*terms}, _itr=None, _depends_on_deps={}, _make_dense=False)


@contextmanager
def _fake_chumpy() -> Iterator[tuple[type, type]]:
    """Modules named as chumpy's while pickling, so that classes are stored under its names."""
    ch, reordering = types.ModuleType("chumpy.ch"), types.ModuleType("chumpy.reordering")
    ch.Ch = type("Ch", (_FakeCh,), {"__module__": "chumpy.ch"})
    reordering.Select = type("Select", (_FakeCh,), {"__module__": "chumpy.reordering"})
    modules = {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": ch, "chumpy.reordering": reordering}
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield ch.Ch, reordering.Select
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


class _Python2Pickler(pickle._Pickler):  # the pure-Python pickler, whose opcodes can be chosen
    """Stores bytes and ASCII text as Python 2's ``str``, as the published files do."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 (a copy of the base's table)

    def _save_str(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = _save_str
    dispatch[bytes] = _save_str


# Where numpy 1 and old scipy kept what is pickled.
_OLD_NAMES = {
    b"cnumpy._core.multiarray\n": b"cnumpy.core.multiarray\n",
    b"cscipy.sparse._csc\n": b"cscipy.sparse.csc\n",
}


def write_mano(path: str | Path, side: str = "right", *, seed: int = 0, style: str = "numpy") -> dict[str, Any]:
    """Write a MANO-format file and return the fields in it.

    Args:
        path: file to write, or a directory to write ``MANO_RIGHT.pkl`` / ``MANO_LEFT.pkl`` into.
        side: "right" or "left".
        seed: of the random numbers; the same seed gives mirrored hands.
        style: "numpy" (plain arrays), "chumpy" (as published: Python 2 strings, chumpy arrays, numpy 1 and
            old scipy module names) or "npz".
    """
    path = Path(path)
    if path.suffix not in (".pkl", ".npz"):
        path = path / f"MANO_{side.upper()}.{'npz' if style == 'npz' else 'pkl'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = mano_fields(side, seed)
    if style == "npz":
        dense = {k: v.toarray() if scipy.sparse.issparse(v) else np.asarray(v) for k, v in fields.items()}
        np.savez(path, **dense)
    elif style == "numpy":
        path.write_bytes(pickle.dumps(fields, protocol=2))
    elif style == "chumpy":
        path.write_bytes(chumpy_pickle(fields))
    else:
        raise ValueError(f"style: {style!r}; use 'numpy', 'chumpy' or 'npz'.")
    return fields


def chumpy_pickle(fields: dict[str, Any]) -> bytes:
    """``fields`` pickled as the published files are; needs no chumpy."""
    with _fake_chumpy() as (ch, select):
        stored = dict(fields)
        for name in ("v_template", "posedirs", "weights", "J"):
            stored[name] = ch(x=fields[name])
        # The published shape directions are a selection out of a larger array.
        shape = np.concatenate([fields["shapedirs"], np.full((V, 3, 2), 7.0)], axis=2)
        wanted = np.arange(shape.size).reshape(shape.shape)[..., :10]
        stored["shapedirs"] = select(a=ch(x=shape), idxs=wanted.ravel(), preferred_shape=wanted.shape)
        stream = io.BytesIO()
        _Python2Pickler(stream, protocol=2).dump(stored)
    data = stream.getvalue()
    for new, old in _OLD_NAMES.items():
        data = data.replace(new, old)
    return data
