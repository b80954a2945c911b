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
from .columns import Columns, recording
from .files import field, npz_names, numbers, read_tree
from .format import Format, Side
from .hands import finger_angles, matrices, motions, template_betas

_HANDS = {"right": "rhand", "left": "lhand"}
MAX_TEMPLATE_BYTES = 16 << 20


def read(
    path: Path, *, mano_dir: str | Path | None = None, side: Side | None = None, object_id: str | None = None,
    template: str | Path | None = None,
) -> Predictions:  # fmt: skip
    """Read the hands of a sequence, frame by frame.

    Args:
        mano_dir: the user's MANO, of each side that is read.
        side: "right" or "left"; None for both, right first.
        object_id: name of the object; the file's ``obj_name`` when None.
        template: the subject's hand, a .ply of 778 vertices; needs ``side``.
    """
    if template is not None and side is None:
        raise ValueError("template: is of one hand; say which with side.")
    values = read_tree(path, only=(*_HANDS.values(), "object", "obj_name"))
    if not isinstance(values, dict):
        raise ValueError("expected GRAB's named fields.")
    motion = _params(values, "object")
    shifts = field(motion, "transl", None, 3)
    turns = matrices(field(motion, "global_orient", len(shifts), 3))
    poses = motions(np.swapaxes(turns, 1, 2), shifts)  # rows times R: columns are turned by its transpose
    sides = [side] if side else [s for s in _HANDS if _HANDS[s] in values]
    if not sides:
        raise ValueError("has neither rhand nor lhand.")
    parts = [_hand(path, values, s, len(poses), mano_dir, template) for s in sides]
    sequence = "/".join(path.resolve().with_suffix("").parts[-2:])
    labels = {"object_id": object_id or str(np.asarray(values.get("obj_name", "")))[:200]}
    return Predictions.from_columns(recording(sequence, parts, poses) | labels)


def _params(values: dict[str, Any], name: str) -> dict[str, Any]:
    part = values.get(name)
    if not isinstance(part, dict) or not isinstance(part.get("params"), dict):
        raise ValueError(f"field {name!r} with its 'params' is missing.")
    return part["params"]


def _hand(path: Path, values: dict[str, Any], side: str, frames: int, mano_dir: Any, template: Any) -> Columns:
    params = _params(values, _HANDS[side])
    betas, shift = np.zeros(10), np.zeros(3)
    try:
        pose = finger_angles(field(params, "hand_pose", frames, None), side, mano_dir, components=True)
        vertices = _template(path, values[_HANDS[side]].get("vtemp"), template)
        if vertices is None:
            warnings.warn(f"{path}: the subject's {side} template is not there; betas are zero.", stacklevel=3)
        else:
            betas, wrist, root = template_betas(vertices, side, mano_dir)
            shift = wrist - root
    except MissingManoError:
        if mano_dir is not None or "fullpose" not in params:
            raise
        pose = field(params, "fullpose", frames, 45).reshape(-1, 15, 3)
        warnings.warn(
            f"{path}: without MANO the subject's shape is unknown: betas are zero and the wrist that of the mean hand "
            "(mano_dir makes them exact).",
            stacklevel=3,
        )
    return {
        "side": np.full(frames, side),
        "global_orient": field(params, "global_orient", frames, 3),
        "hand_pose": pose,
        "betas": np.tile(betas, (frames, 1)),
        "transl": field(params, "transl", frames, 3) + shift,
    }


def _template(path: Path, named: Any, given: Any) -> np.ndarray | None:
    """``(778, 3)`` vertices of the subject's hand; None when it is not there."""
    name, folders = str(np.asarray(named)) if isinstance(named, str | np.ndarray) else "", path.resolve().parents
    if given is None and not (name and len(folders) > 2):
        return None
    file = inside(folders[2], name, f"{path}: vtemp") if given is None else Path(given)
    if not file.is_file():
        if given is None:
            return None
        raise FileNotFoundError(f"template {file}: there is no such file.")
    if file.suffix.lower() != ".ply" or file.stat().st_size > MAX_TEMPLATE_BYTES:
        raise ValueError(f"template {file}: expected a .ply of less than {MAX_TEMPLATE_BYTES >> 20} MB.")
    import trimesh

    try:
        vertices = trimesh.load(file, process=False, maintain_order=True, force="mesh").vertices
    except Exception as error:  # damaged files set off whatever the parser stumbles over
        raise ValueError(f"template {file}: not a readable mesh ({str(error)[:80]}).") from None
    return numbers(f"template {file}: the mesh", np.asarray(vertices), 778, 3)


def sniff(path: Path) -> bool:
    """An .npz with ``rhand`` or ``lhand``, and ``object``."""
    names = npz_names(path)
    return "object" in names and bool(names & set(_HANDS.values()))


FORMAT = Format("grab", read, None, sniff, "GRAB sequences (.npz) with rhand, lhand and object")
