"""The refined hands of a results file as meshes, one .ply a row."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
import trimesh

from hand_models import HandModel
from hand_models.atomic import write_atomically

from ..files.input_files import pieces
from ..files.prediction_poses import hand_poses, into_object_frame, object_poses
from ..files.predictions import Predictions

_ROWS = 64
"""Hands that are posed at once."""


def write_hands(results: Path, folder: Path, model: HandModel) -> None:
    """Write every hand of ``results`` that did not fail, binary, in its object's frame: ``folder/<row>.ply``.

    The folder is replaced when all are there.

    Raises:
        ValueError: ``results`` is no file of `grasp/1`.
        OSError: the files cannot be written.
    """
    unfinished = folder.with_name(f".{folder.name}.tmp")
    if unfinished.is_dir():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    first = 0
    for piece in pieces(results, "grasp", _ROWS):
        for side in np.unique(piece.side).tolist():
            rows = np.flatnonzero((piece.side == side) & (piece.column("status") != "failed"))
            if len(rows):
                _write(piece, rows, first, unfinished, model)
        first += len(piece)
    if folder.is_dir():
        shutil.rmtree(folder)
    unfinished.replace(folder)


def _write(piece: Predictions, rows: np.ndarray, first: int, folder: Path, model: HandModel) -> None:
    """Write ``rows`` of one side, numbered from ``first``."""
    poses = into_object_frame(hand_poses(piece, rows, model), object_poses(piece, rows), model)
    faces = model.faces_for(poses.side).numpy()
    with torch.no_grad():
        skins = model(poses).vertices.numpy()
    for row, skin in zip(rows, skins, strict=True):
        mesh = trimesh.Trimesh(skin, faces, process=False)
        path = folder / f"{first + row:07d}.ply"
        write_atomically(path, lambda stream, mesh=mesh: mesh.export(stream, file_type="ply"))
