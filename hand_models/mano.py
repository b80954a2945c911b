"""MANO (Romero, Tzionas, Black, SIGGRAPH Asia 2017) as a `HandModel`, read from the user's own copy.

MANO may not be redistributed, so it is looked for where users of other packages already keep it. The file is
read by `safe_pickle`: no chumpy, and nothing in it is executed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from torch import Tensor

from .model import PARENTS, HandModel
from .pose import check_side
from .safe_pickle import load_pickle, to_array
from .skeleton import TIP_VERTICES
from .surface import cap_boundaries, signed_volume, spread_points

REGISTRATION = "https://mano.is.tue.mpg.de"
MAX_CONTACT_POINTS = 800
NUM_BETAS = 10

_LAYOUTS = (
    ".",
    "mano",  # smplx: models/mano/MANO_RIGHT.pkl, given models/
    "models/mano",
    "models",  # as unpacked: mano_v1_2/models
    "mano/models",  # manopth
    "mano_v1_2/models",
    "_DATA/data/mano",  # HaMeR
    "data/mano",
    "mano_data",  # WiLoR
    "mano_data/mano",
    "body_models/mano",
    "data/body_models/mano",  # ARCTIC
)


class MissingManoError(FileNotFoundError):
    """No MANO file was found. The message says where it was looked for and how to get one."""


@dataclass(frozen=True)
class ManoFields:
    """The arrays of one MANO file, checked, under our names. Metres; all numpy, float64 or int64."""

    template: np.ndarray
    """(V, 3) ``v_template``"""
    shapedirs: np.ndarray
    """(V, 3, 10)"""
    posedirs: np.ndarray
    """(V, 3, 135)"""
    joint_regressor: np.ndarray
    """(16, V) dense ``J_regressor``"""
    weights: np.ndarray
    """(V, 16)"""
    parents: tuple[int, ...]
    """(16,) -1 for the wrist"""
    faces: np.ndarray
    """(F, 3)"""


@dataclass(frozen=True)
class ManoPca:
    """MANO's pose space: ``hand_pose = mean + coefficients @ components[:n]``. See `HandPose.from_pca`."""

    side: str
    mean: Tensor
    """(45,) radians: ``hands_mean``, what ``flat_hand_mean=False`` adds"""
    components: Tensor
    """(n, 45) radians, strongest first: ``hands_components``; n is 45 in MANO's files"""


# Finding the file -----------------------------------------------------------------------------------


def user_data_dir() -> Path:
    """Where this user's data for regrasp belongs on this platform; may not exist yet."""
    return platformdirs.user_data_path("regrasp", appauthor=False)


def _candidates(root: Path, side: str) -> list[Path]:
    names = (f"MANO_{side.upper()}.pkl", f"MANO_{side.upper()}.npz")
    return [root / layout / name for layout in _LAYOUTS for name in names]


def find_mano(mano_dir: str | Path | None = None, side: str = "right") -> Path:
    """The MANO file of ``side``.

    Args:
        mano_dir: the file itself, or a directory holding it in any layout of smplx, manopth, HaMeR or WiLoR.
            When given, nothing else is looked at. When None: ``$MANO_DIR``, then ``mano`` in the user data
            directory (`user_data_dir`).
        side: ``"right"`` or ``"left"``.

    Raises:
        MissingManoError: not found; the message lists the places tried, how to register and what to do.
        ValueError: ``side`` is neither, or ``mano_dir`` is a file of the other side.
    """
    check_side(side)
    if mano_dir is not None:
        roots = [("mano_dir", Path(mano_dir).expanduser())]
    else:
        roots = [("user data directory", user_data_dir() / "mano")]
        if os.environ.get("MANO_DIR"):
            roots.insert(0, ("$MANO_DIR", Path(os.environ["MANO_DIR"]).expanduser()))
    for _, root in roots:
        if root.is_file():
            other = "left" if side == "right" else "right"
            if other.upper() in root.stem.upper():
                raise ValueError(f"side: {side!r} was asked for, but {root} is named as the {other} hand's file.")
            return root
        for path in _candidates(root, side):
            if path.is_file():
                return path.resolve()
    raise MissingManoError(_missing(roots, side, explicit=mano_dir is not None))


def _missing(roots: list[tuple[str, Path]], side: str, *, explicit: bool) -> str:
    lines = [f"MANO's {side} hand, MANO_{side.upper()}.pkl, was not found. Looked in:"]
    for what, root in roots:
        lines.append(f"  {root}  ({what}{'' if root.exists() else '; does not exist'})")
    if not explicit and not os.environ.get("MANO_DIR"):
        lines.append("  $MANO_DIR is not set")
    if side == "left":
        right = [path for _, root in roots for path in _candidates(root, "right") if path.is_file()]
        if right:
            lines.append(f"The right hand is there, {right[0]}: it serves left hands too, mirrored; pass side='right'.")
    lines += [
        f"and below each in: {', '.join(layout for layout in _LAYOUTS if layout != '.')}.",
        f"To get it: register at {REGISTRATION}, download 'Models & Code' (mano_v1_2.zip), unpack it, and",
        "  pass the unpacked folder as --mano-dir (mano_dir=), or set MANO_DIR to it, or copy models/* to",
        f"  {user_data_dir() / 'mano'}",
        "The open hand needs no registration and takes the same poses: use hand model 'open', the default.",
    ]
    return "\n".join(lines)


# Reading the file -----------------------------------------------------------------------------------


_SHAPES: dict[str, tuple[int | str, ...]] = {
    "v_template": ("V", 3),
    "shapedirs": ("V", 3, "10"),
    "posedirs": ("V", 3, 135),
    "J_regressor": (16, "V"),
    "weights": ("V", 16),
    "kintree_table": (2, 16),
    "f": ("F", 3),
    "hands_mean": (45,),
    "hands_components": ("45", 45),
}
"""Shapes of a MANO file's fields; text stands for any length, "V" for the same wherever it stands."""


def _load_dictionary(path: Path) -> dict[str, Any]:
    if path.suffix.lower() != ".npz":
        return load_pickle(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:
        raise ValueError(f"{path}: not a readable npz of plain arrays ({error}); use the .pkl file.") from error


def _field(where: str | Path, content: Mapping[str, Any], name: str, vertices: int | None = None) -> np.ndarray:
    """A field as finite numbers of its shape, with ``vertices`` for "V"."""
    if name not in content:
        raise ValueError(f"{where}: field {name!r} is missing; it has {sorted(map(str, content))}. Is it a MANO file?")
    try:
        array = to_array(content[name])
    except Exception as error:
        raise ValueError(
            f"{where}: field {name!r} is not readable as numbers ({error}); download the file again."
        ) from error
    shape = tuple(vertices if n == "V" and vertices is not None else n for n in _SHAPES[name])
    fits = array.ndim == len(shape) and all(
        isinstance(n, str) or n == m for n, m in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{where}: field {name!r} has shape {array.shape}; a MANO file has {shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: field {name!r} has NaN or infinite entries; download the file again.")
    return array


def mano_fields(where: str | Path, content: Mapping[str, Any]) -> ManoFields:
    """`ManoFields` from arrays under the names of MANO's files, after checking that they are MANO's.

    ``shapedirs`` may have more than ten components (the first ten are kept); a root's parent may be any value
    outside 0..15. ``where`` names the source in errors.

    Raises:
        ValueError: naming the source and the field that is missing or does not fit.
    """
    template = _field(where, content, "v_template").astype(np.float64)
    vertices = len(template)
    shapedirs, posedirs, regressor, weights = (
        _field(where, content, name, vertices).astype(np.float64)
        for name in ("shapedirs", "posedirs", "J_regressor", "weights")
    )
    if shapedirs.shape[2] < NUM_BETAS:
        raise ValueError(f"{where}: shapedirs has {shapedirs.shape[2]} shape components; {NUM_BETAS} are needed.")
    faces = _field(where, content, "f").astype(np.int64)
    if len(faces) == 0 or faces.min() < 0 or faces.max() >= vertices:
        raise ValueError(f"{where}: field 'f' is empty or names vertices outside 0..{vertices - 1}.")
    parents = tuple(int(p) if 0 <= int(p) < 16 else -1 for p in _field(where, content, "kintree_table")[0])
    if parents != PARENTS:
        raise ValueError(f"{where}: kintree_table gives parents {parents}; MANO's are {PARENTS}. Is it a MANO file?")
    return ManoFields(template, shapedirs[..., :NUM_BETAS], posedirs, regressor, weights, parents, faces)


def read_fields(path: str | Path) -> ManoFields:
    """The arrays of a MANO ``.pkl`` (chumpy or plain numpy, Python 2 or 3) or ``.npz`` file.

    Raises:
        FileNotFoundError: no such file.
        UnsafePickleError: the pickle names something other than arrays.
        ValueError: unreadable, or a field is missing or misshapen.
    """
    path = Path(path)
    return mano_fields(path, _load_dictionary(path))


# The hand model -------------------------------------------------------------------------------------


def load_mano(
    path_or_dir: str | Path | None = None,
    side: str = "right",
    *,
    tips: str | Sequence[int] = "smplx",
    fix_left_shapedirs: bool = False,
) -> HandModel:
    """MANO as a `HandModel`.

    Args:
        path_or_dir: file or directory; None looks in the usual places (`find_mano`).
        side: which file to read. The right one also serves left hands, by mirroring.
        tips: whose fingertip vertices to use (`skeleton.TIP_VERTICES`: "smplx", "manopth", "freihand",
            "ho3d", "contactpose"), or five vertex ids, thumb to pinky.
        fix_left_shapedirs: MANO_LEFT.pkl as published has the x of its shape directions unmirrored, so equal
            betas give unequal hands (smplx issue 48). True negates it. Leave False for betas that were fitted
            with the published file (DexYCB, ARCTIC).

    Raises:
        MissingManoError: no file found.
        ValueError: a wrong argument, or a file that is not MANO's.
    """
    check_side(side)
    if fix_left_shapedirs and side != "left":
        raise ValueError(
            "fix_left_shapedirs: only the left hand's file has the fault; pass side='left' or leave it out."
        )
    path = find_mano(path_or_dir, side)
    return build_model(read_fields(path), side, tips=tips, fix_left_shapedirs=fix_left_shapedirs)


def load_mano_pca(path_or_dir: str | Path | None = None, side: str = "right") -> ManoPca:
    """MANO's mean pose and principal components; arguments and errors as `load_mano`."""
    path = find_mano(path_or_dir, side)
    content = _load_dictionary(path)
    mean, components = (_field(path, content, name) for name in ("hands_mean", "hands_components"))
    return ManoPca(side, torch.tensor(mean, dtype=torch.float32), torch.tensor(components, dtype=torch.float32))


def tip_vertex_ids(tips: str | Sequence[int], side: str, vertex_count: int) -> tuple[int, ...]:
    """Five vertex ids, thumb to pinky, from the name of a convention or the ids themselves.

    Raises:
        ValueError: unknown name, ids that are not five distinct vertices, or a mesh that is not MANO's.
    """
    if isinstance(tips, str):
        if tips not in TIP_VERTICES:
            raise ValueError(f"tips: {tips!r} is not known; use one of {sorted(TIP_VERTICES)} or five vertex ids.")
        if vertex_count != 778:
            raise ValueError(f"tips: {tips!r} is for MANO's 778 vertices, this mesh has {vertex_count}; pass five ids.")
        return TIP_VERTICES[tips].for_side(side)
    ids = tuple(int(i) for i in tips)
    if len(ids) != 5 or len(set(ids)) != 5 or min(ids) < 0 or max(ids) >= vertex_count:
        raise ValueError(f"tips: got {ids}; pass five distinct vertex ids in 0..{vertex_count - 1}, thumb to pinky.")
    return ids


def build_model(
    fields: ManoFields,
    side: str,
    *,
    tips: str | Sequence[int] = "smplx",
    fix_left_shapedirs: bool = False,
    name: str = "mano",
) -> HandModel:
    """A `HandModel` from MANO's arrays: caps the wrist, chooses contact points."""
    count = len(fields.template)
    shapedirs = fields.shapedirs * np.array([-1.0, 1.0, 1.0])[:, None] if fix_left_shapedirs else fields.shapedirs
    faces = fields.faces
    closed = cap_boundaries(fields.template, faces)
    if signed_volume(fields.template, closed) < 0:
        faces, closed = faces[:, ::-1], closed[:, ::-1]
    tip_ids = tip_vertex_ids(tips, side, count)
    tip_regressor = np.zeros((5, count))
    tip_regressor[np.arange(5), tip_ids] = 1.0

    def real(array: np.ndarray) -> Tensor:
        return torch.tensor(np.ascontiguousarray(array), dtype=torch.float32)

    def whole(array: np.ndarray | Sequence[int]) -> Tensor:
        return torch.tensor(np.ascontiguousarray(array), dtype=torch.int64)

    return HandModel(
        name=name,
        side=side,
        template=real(fields.template),
        shapedirs=real(shapedirs),
        posedirs=real(fields.posedirs),
        joint_regressor=real(fields.joint_regressor),
        weights=real(fields.weights),
        faces=whole(faces),
        closed_faces=whole(closed),
        tip_regressor=real(tip_regressor),
        contact_points=whole(spread_points(fields.template, MAX_CONTACT_POINTS)),
        parents=fields.parents,
    )
