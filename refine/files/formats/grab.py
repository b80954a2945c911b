"""GRAB: 24 principal components, the subject's own template, the mocap's world.

Source of truth: otaheri/GRAB, ``grab/save_grab_vertices.py`` (smplx' MANO with ``v_template``, ``num_pca_comps=24,
flat_hand_mean=True``; ``transl`` added after posing about the template's wrist), ``tools/objectmodel.py`` (vertices are
``v @ R(global_orient) + transl``: rows times the matrix, so that the object turns by its transpose) and
``tools/utils.py`` ``parse_npz`` (fields are dictionaries pickled into the .npz).

Reads ``grab/sN/<sequence>.npz``. The world, z upwards, stands for the camera: `object_pose` is object to world, and
gravity is along −z of the file's frame. Betas are those whose MANO hand comes closest to the subject's template (least
squares), for which MANO and the template are needed: ``template``, else the path ``vtemp`` of the file below the
dataset's folder. Without MANO the angles come from ``fullpose``, betas are zero and the wrist that of the mean hand.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hand_models import MissingManoError

from ..object_files import inside
from ..predictions import Predictions
from .columns import Columns, frame_columns, joined
from .files import field, npz_names, numbers, read_tree
from .format import Format, Side
from .hands import matrices, mean_root, pca_pose, template_betas

_HANDS = {"right": "rhand", "left": "lhand"}
MAX_TEMPLATE_BYTES = 16 << 20


def read(
    path: Path, *, mano_dir: str | Path | None = None, side: Side | None = None, object_id: str | None = None,
    template: str | Path | None = None,
) -> Predictions:  # fmt: skip
    """Read the hands of a sequence, frame by frame.

    Args:
        path: .npz.
        mano_dir: the user's MANO, of each side that is read.
        side: "right" or "left"; None for both, right first.
        object_id: name of the object; the file's ``obj_name`` when None.
        template: the subject's hand, a .ply of 778 vertices; needs ``side``.

    Raises:
        MissingManoError: ``mano_dir`` is given and lacks a side.
        ValueError: a field is missing or misshapen.
    """
    if template is not None and side is None:
        raise ValueError("template: is of one hand; say which with side.")
    values = read_tree(path, only=(*_HANDS.values(), "object", "obj_name"))
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected GRAB's named fields.")
    motion = _params(path, values, "object")
    poses = np.tile(np.eye(4), (len(field(path, motion, "transl", None, 3)), 1, 1))
    turns = field(path, motion, "global_orient", len(poses), 3)
    poses[:, :3, :3] = np.swapaxes(matrices(turns), 1, 2)  # rows times R: columns are turned by its transpose
    poses[:, :3, 3] = field(path, motion, "transl", len(poses), 3)
    name = object_id or str(np.asarray(values.get("obj_name", "")))[:200]
    sides = [side] if side else [s for s in _HANDS if _HANDS[s] in values]
    if not sides:
        raise ValueError(f"{path}: has neither rhand nor lhand.")
    parts = [_hand(path, values, s, len(poses), mano_dir, template) for s in sides]
    sequence = "/".join(path.resolve().with_suffix("").parts[-2:])
    return Predictions.from_columns(
        joined(parts)
        | frame_columns([f"{sequence}/{frame}" for _ in sides for frame in range(len(poses))])
        | {
            "object_id": np.full(len(poses) * len(sides), name),
            "object_pose": np.tile(poses, (len(sides), 1, 1)),
        }
    )


def _params(path: Path, values: dict[str, Any], name: str) -> dict[str, Any]:
    part = values.get(name)
    if not isinstance(part, dict) or not isinstance(part.get("params"), dict):
        raise ValueError(f"{path}: field {name!r} with its 'params' is missing.")
    return part["params"]


def _hand(path: Path, values: dict[str, Any], side: str, frames: int, mano_dir: Any, template: Any) -> Columns:
    params = _params(path, values, _HANDS[side])
    transl = field(path, params, "transl", frames, 3)
    betas, wrist, root = np.zeros(10), None, mean_root() * ([-1, 1, 1] if side == "left" else [1, 1, 1])
    try:
        coefficients = field(path, params, "hand_pose", frames, None)
        pose = pca_pose(coefficients, side, mano_dir, flat_hand_mean=True)
        vertices = _template(path, values[_HANDS[side]].get("vtemp"), template)
        if vertices is None:
            warnings.warn(f"{path}: the subject's {side} template is not there; betas are zero.", stacklevel=3)
        else:
            betas, wrist, root = template_betas(vertices, side, mano_dir)
    except MissingManoError:
        if mano_dir is not None or "fullpose" not in params:
            raise
        pose = field(path, params, "fullpose", frames, 45).reshape(-1, 15, 3)
        warnings.warn(
            f"{path}: without MANO the subject's shape is unknown: betas are zero and the wrist that of the mean hand "
            "(mano_dir makes them exact).",
            stacklevel=3,
        )
    return {
        "side": np.full(frames, side),
        "global_orient": field(path, params, "global_orient", frames, 3),
        "hand_pose": pose,
        "betas": np.tile(betas, (frames, 1)),
        "transl": transl if wrist is None else transl + wrist - root,
    }


def _template(path: Path, named: Any, given: Any) -> np.ndarray | None:
    """``(778, 3)`` vertices of the subject's hand; None when it is not there."""
    file = Path(given) if given is not None else None
    if file is None:
        name = str(np.asarray(named)) if isinstance(named, str | np.ndarray) else ""
        folders = path.resolve().parents
        if not name or len(folders) < 3:
            return None
        file = inside(folders[2], name, f"{path}: vtemp")
        if not file.is_file():
            return None
    if not file.is_file():
        raise FileNotFoundError(f"template {file}: there is no such file.")
    if file.suffix.lower() != ".ply" or file.stat().st_size > MAX_TEMPLATE_BYTES:
        raise ValueError(f"template {file}: expected a .ply of less than {MAX_TEMPLATE_BYTES >> 20} MB.")
    import trimesh

    try:
        vertices = trimesh.load(file, process=False, maintain_order=True, force="mesh").vertices
    except Exception as error:  # damaged files set off whatever the parser stumbles over
        raise ValueError(f"template {file}: not a readable mesh ({str(error)[:80]}).") from None
    return numbers(file, "the mesh", np.asarray(vertices), 778, 3)


def sniff(path: Path) -> bool:
    """An .npz with ``rhand`` or ``lhand``, and ``object``."""
    names = npz_names(path)
    return "object" in names and bool(names & set(_HANDS.values()))


FORMAT = Format("grab", read, None, sniff, "GRAB sequences (.npz) with rhand, lhand and object")
