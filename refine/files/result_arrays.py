"""What a result is made of as named arrays, and back to the bit: objects, contact fields; hand models by name."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from contact.objects import ObjectMesh
from contact.objects.grid import SignedDistanceGrid
from contact.objects.hierarchy import PointHierarchy
from hand_models import HandModel, HandPose, load_hand_model
from hand_models.atomic import write_atomically

from .prediction_files import read_npz

D = TypeVar("D")
Arrays = Mapping[str, np.ndarray]
_SAME = 1e-5
"""Metres that the joints of one hand model may differ by between machines; other fingertips or shapes move more."""


class SavedArrays(dict[str, np.ndarray]):
    """Arrays of a saved result; one that is missing is a ``ValueError`` that names the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(read_npz(path))
        self.path = path

    def __missing__(self, name: str) -> np.ndarray:
        raise ValueError(
            f"path: {self.path} has no array {name!r}; it is no result, or of a version that saved less: "
            "refine again and save."
        )


def write_arrays(path: Path, arrays: Arrays) -> Path:
    """Write a compressed .npz, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return write_atomically(path, lambda stream: stream.write(buffer.getvalue()))


def to_arrays(record: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """The tensors, texts and flags of a dataclass by ``prefix`` and name; fields of None or of other kinds are not."""
    found = {f"{prefix}{f.name}": getattr(record, f.name) for f in fields(record)}
    return {
        name: value.detach().cpu().numpy() if isinstance(value, Tensor) else np.array(value)
        for name, value in found.items()
        if isinstance(value, Tensor | str | bool)
    }


def from_arrays(kind: type[D], arrays: Arrays, prefix: str = "", **others: Any) -> D:
    """The ``kind`` whose fields `to_arrays` gave; ``others`` are fields it left out, absent ones their default."""
    values = {}
    for f in fields(cast(Any, kind)):
        name, required = f"{prefix}{f.name}", f.default is MISSING and f.default_factory is MISSING
        if f.name not in others and (required or name in arrays):
            array = arrays[name]
            values[f.name] = torch.from_numpy(array) if array.dtype.kind in "fiu" else array.item()
    return kind(**values, **others)


def object_arrays(mesh: ObjectMesh) -> dict[str, np.ndarray]:
    """The object whole, distance grid and all: built anew from the rounded mesh it would not be the same."""
    arrays = to_arrays(mesh, "object_") | to_arrays(mesh.grid, "object_grid_")
    return arrays if mesh.hierarchy is None else arrays | to_arrays(mesh.hierarchy, "object_hierarchy_")


def object_from_arrays(arrays: Arrays) -> ObjectMesh:
    """What `object_arrays` gave."""
    grid = from_arrays(SignedDistanceGrid, arrays, "object_grid_")
    has_hierarchy = any(name.startswith("object_hierarchy_") for name in arrays)
    hierarchy = from_arrays(PointHierarchy, arrays, "object_hierarchy_") if has_hierarchy else None
    return from_arrays(ObjectMesh, arrays, "object_", grid=grid, hierarchy=hierarchy)


def hand_model_arrays(model: HandModel) -> dict[str, np.ndarray]:
    """Name and side of a hand model, and what tells it from others; MANO itself may not be passed on."""
    return {
        "hand_model": np.array(model.name),
        "hand_model_side": np.array(model.side),
        "hand_model_joints": _joints(model).numpy(),
    }


def hand_model_from_arrays(arrays: Arrays, given: HandModel | None = None) -> HandModel:
    """The hand model of `hand_model_arrays`: ``given``, or the one of that name on this machine.

    Raises:
        ValueError: there is none of that name, or it is another than the result was made with.
        MissingManoError: MANO is not found.
    """
    name, side = (str(arrays[key]) for key in ("hand_model", "hand_model_side"))
    model = given
    if model is None:
        if name not in ("open", "mano"):
            raise ValueError(f"hand_model: the result is of {name!r}, a model of your own; pass it as hand_model=.")
        model = load_hand_model(name, side=side)
        if model.side != side:
            model = model.mirrored()
    joints = torch.from_numpy(arrays["hand_model_joints"])
    if model.side != side or not torch.allclose(_joints(model), joints, atol=_SAME, rtol=0):
        what = "the given one" if given is not None else f"{name!r} as loaded here"
        raise ValueError(
            f"hand_model: {what} is another than the {side} {name!r} the result was made with; pass that as "
            "hand_model= (other fingertips or another file of MANO, perhaps)."
        )
    return model


def _joints(model: HandModel) -> Tensor:
    """(21, 3) joints of the flat hand with all betas one: they tell template, fingertips and shape space."""
    pose = HandPose.zeros(1, side=model.side)
    return model.joints(HandPose(pose.side, pose.global_orient, pose.hand_pose, pose.betas + 1, pose.transl))[0].cpu()
