"""Files of several records, of which one can be damaged: who reads them, and what is a record in them."""

from __future__ import annotations

import copy
import functools
import io
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_files import Hands, hands
from mano_file import write_mano
from test_formats_hamer import output as hamer
from test_formats_images import each
from test_formats_keypoints import mediapipe_forms
from test_formats_parameters import full, hawor_arrays, interhand, oakink2

from hand_models import mano
from refine.files.formats import hands as format_hands
from refine.files.formats import read_any

Path_ = tuple[Any, ...]


@dataclass(frozen=True)
class Form:
    """A file's content, and where its records are."""

    source: str
    suffix: str
    tree: Any
    records: tuple[Path_, ...]
    """keys from the top to each record, which is a dictionary of fields or an array"""
    rows: int
    """how many rows the file has"""
    options: dict[str, Any] = field(default_factory=dict)
    lines: bool = False
    """whether each item of the tree is a line"""


def forms(root: Path) -> dict[str, Form]:
    """By name, small files of four records or so; ``root`` keeps MANO."""
    write_mano(root / "mano")
    write_mano(root / "mano", "left")
    with_mano = {"mano_dir": root / "mano"}
    hand = hands(3)
    one = each(hamer(hand))
    joints = np.random.default_rng(0).normal(size=(4, 21, 3)) * 0.04 + [0, 0, 0.6]
    points = [{"keypoints": j, "frame_index": k} for k, j in enumerate(joints)]
    marks = mediapipe_forms(joints)
    of_oak = {"object_id": "O02@01", **with_mano}
    line_hands = tuple((k, "hand_poses", "1") for k in range(3))
    legacy = (("frames", 0), ("frames", 1), ("frames", 2), ("frames", 3))
    seen = {"image_size": (640, 480), "focal": 600.0}
    parameters = [
        {"pose": p, "tsl": t, "shape": b} for p, t, b in zip(full(hand), hand.transl, hand.betas, strict=True)
    ]
    captured = json.loads(interhand(root).read_text())
    oak = pickle.loads(oakink2(root).read_bytes())
    oak_frames = tuple(("raw_mano", frame) for frame in oak["raw_mano"])
    fits = {
        f"{k:06d}.pkl": {"fullpose": p["pose"], "trans": p["tsl"], "shape": p["shape"]}
        for k, p in enumerate(parameters)
    }
    demo = [{"beta": b, "pose": p, "trans": t} for p, t, b in zip(full(hand), hand.transl, hand.betas, strict=True)]
    table = [
        {
            "object_id": "mug",
            "side": "right",
            "global_orient": [0.0] * 3,
            "hand_pose": [[0.0] * 3] * 15,
            "transl": [0.0] * 3,
        }
        for _ in range(4)
    ]
    lines = [_hot3d_line(hand, k) for k in range(3)]
    sides = [("0", f, s) for f, pair in captured["0"].items() for s, values in pair.items() if values]
    return {
        "hamer, hands": Form("hamer", ".pkl", one, ((0,), (1,), (2,)), 3),
        "hamer, frames": Form("hamer", ".json", [one[:2], [], one[2:]], ((0, 0), (0, 1), (2, 0)), 3),
        "hamer, images": Form("hamer", ".pkl", {"a": one[:1], "b": one[1:]}, (("a", 0), ("b", 0), ("b", 1)), 3),
        "mediapipe, tasks": Form("mediapipe", ".json", marks["javascript"], tuple((k,) for k in range(4)), 4, seen),
        "mediapipe, legacy": Form("mediapipe", ".json", marks["legacy"], legacy, 4, seen),
        "joints, records": Form("keypoints", ".json", points, tuple((k,) for k in range(4)), 4),
        "joints, arrays": Form("keypoints", ".pkl", [*joints[:3], None, joints[3]], ((0,), (1,), (2,), (4,)), 4),
        "pose48": Form("pose48", ".pkl", dict(enumerate(parameters)), ((0,), (1,), (2,)), 3, with_mano),
        "interhand": Form("interhand", ".json", captured, tuple(sides), 5, with_mano),
        "oakink2": Form("oakink2", ".pkl", oak, oak_frames, 5, of_oak),
        "hot3d": Form("hot3d", ".jsonl", lines, line_hands, 3, with_mano, lines=True),
        "fhab, fits": Form("fhab", ".pkl", fits, tuple((name,) for name in fits), 3),
        "hawor": Form("hawor", ".npz", hawor_arrays(), ((),), 5, with_mano),
        "contactopt": Form("contactopt", ".json", demo, ((0,), (1,), (2,)), 3, with_mano),
        "grasp": Form("grasp", ".json", {"schema": "grasp/1", "rows": table}, tuple(("rows", k) for k in range(4)), 4),
    }  # fmt: skip


def _hot3d_line(hand: Hands, k: int) -> dict[str, Any]:
    wrist = {"q_wxyz": [1.0, 0, 0, 0], "t_xyz": hand.transl[k]}
    values = {"wrist_xform": wrist, "pose": np.linspace(-1, 1, 15), "betas": hand.betas[k]}
    return {"timestamp_ns": k, "hand_poses": {"1": values}}


def content(form: Form, tree: Any) -> bytes:
    """The bytes of a file of ``form`` that holds ``tree``; ``ValueError`` where numpy cannot write it."""

    def plain(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)

    if form.suffix == ".npz":
        stream = io.BytesIO()
        np.savez(stream, **{name: np.asarray(value) for name, value in tree.items()})
        return stream.getvalue()
    if form.lines:
        return "\n".join(json.dumps(line, default=plain) for line in tree).encode("utf-8", "replace")
    if form.suffix == ".json":
        return json.dumps(tree, default=plain).encode("utf-8", "replace")
    return pickle.dumps(tree)


def with_damage(form: Form, rng: np.random.Generator, odd: Any) -> Any:
    """The tree with one field of one record replaced by ``odd``, or left out; an array that is a record, replaced."""
    tree = copy.deepcopy(form.tree)
    *above, last = form.records[int(rng.integers(len(form.records)))] or (None,)
    inside = tree
    for key in above:
        inside = inside[key]
    record = inside if last is None else inside[last]
    if not isinstance(record, dict):
        inside[last] = odd
        return tree
    name = list(record)[int(rng.integers(len(record)))]
    if rng.random() < 0.2:
        del record[name]
    else:
        record[name] = odd
    return tree


def reads(form: Form) -> Callable[[Path], Any]:
    return lambda path: read_any(path, source=form.source, **form.options)


@contextmanager
def mano_read_once() -> Iterator[None]:
    """Inside, only the first reader looks at MANO's files; there is none but those it is told of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MANO_DIR", raising=False)
        patch.setenv("XDG_DATA_HOME", "/nothing")
        patch.setattr(format_hands, "_mano", functools.cache(format_hands._mano))
        patch.setattr(format_hands, "load_mano_pca", functools.cache(mano.load_mano_pca))
        yield
