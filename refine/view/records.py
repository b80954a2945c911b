"""Views of many grasps on disk, small: one file each, what several share (object, triangles) once beside them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from hand_models.atomic import write_atomically

from .pictures import GraspView

_SHARED = ("object_vertices", "object_faces", "object_points", "object_normals", "hand_faces", "parts")
_HALF = ("object_contact", "hand_contact", "uncertainty", "object_contact_sd", "hand_contact_sd", "skin_distance",
         "object_distance")  # fmt: skip
"""Fields whose third digit nobody sees."""
_TEXT = "text"


def save_view(view: GraspView, rows: Path, shared: Path, name: str) -> Path:
    """Write ``rows/name.npz``, and ``shared/<hash>.npz`` unless it is there; returns the first. `load_view` reads it.

    Points are kept to a float32, contact, deviations and distances to a float16; a photo is left where it lies.
    """
    common = {key: np.asarray(value) for key in _SHARED if (value := getattr(view, key)) is not None}
    found = hashlib.sha256()
    for key, value in common.items():
        found.update(f"{key} {value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    shared_name = found.hexdigest()[:16]
    if not (shared / f"{shared_name}.npz").is_file():
        _write(shared / f"{shared_name}.npz", common)
    text: dict[str, Any] = {"shared": shared_name}
    arrays: dict[str, np.ndarray] = {}
    for field in fields(view):
        value = getattr(view, field.name)
        if field.name in (*_SHARED, "photo") or value is None:
            continue
        kind = np.float16 if field.name in _HALF else np.float32
        if isinstance(value, np.ndarray):
            arrays[field.name] = value.astype(kind)
        elif field.name in ("skin_distance", "object_distance"):
            arrays |= {f"{field.name}.{hand}": np.asarray(distance).astype(kind) for hand, distance in value.items()}
        else:
            text[field.name] = dict(value) if isinstance(value, Mapping) else value
    arrays[_TEXT] = np.array(json.dumps(text))
    return _write(rows / f"{name}.npz", arrays)


def load_view(path: Path, shared: Path) -> GraspView:
    """What `save_view` wrote.

    Raises:
        FileNotFoundError: there is no such file, or that of what it shares is gone.
        ValueError: it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays: dict[str, Any] = {key: data[key] for key in data.files}
        text = json.loads(str(arrays.pop(_TEXT)))
        # Its name is a hash, and nothing else is looked for: a record cannot point elsewhere.
        with np.load(shared / f"{int(text.pop('shared'), 16):016x}.npz", allow_pickle=False) as data:
            arrays |= {key: data[key] for key in data.files}
        for name in ("skin_distance", "object_distance"):
            keys = [key for key in arrays if key.startswith(f"{name}.")]
            text[name] = {key.partition(".")[2]: arrays.pop(key).astype(np.float32) for key in keys}
        half = {key: value.astype(np.float32) for key, value in arrays.items() if value.dtype == np.float16}
        text["up"] = tuple(text["up"])
        return GraspView(**arrays | half | text)
    except (KeyError, TypeError, ValueError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: is no whole record of a grasp ({error}); refine again with --report.") from error


def _write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return write_atomically(path, lambda stream: stream.write(buffer.getvalue()))
