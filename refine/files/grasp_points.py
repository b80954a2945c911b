"""Grasps of the corpus, or rows of a prediction file, as the 29 points that `pose_graph` learns from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from contact.corpus import object_files
from contact.objects.box import box_corners
from contact.perturb import PROTOCOLS, perturb
from hand_models import HandModel, HandPose
from pose_graph.cameras import GraspSet

_POSE = ("global_orient", "hand_pose", "betas", "transl")
SURFACE = 512
"""Surface points kept of each object; the corpus orders them so that every prefix is spread over the whole."""


def corpus_points(
    folder: str | Path, model: HandModel, *, variants: int = 4, seed: int = 0
) -> tuple[GraspSet, GraspSet]:
    """The corpus as points: grasps to train on, and those on held-out objects.

    Args:
        folder: ``out`` of ``regrasp corpus``.
        model: hand of the corpus.
        variants: hands per training grasp: itself, and others near it (up to TOCH's B.1 noise), because
            estimated hands must be lifted as they are, not as they ought to be.

    Raises:
        FileNotFoundError: there is no corpus.
    """
    parts: dict[bool, list[tuple[Tensor, int]]] = {False: [], True: []}
    surfaces, normals, boxes = [], [], []
    generator = torch.Generator().manual_seed(seed)
    for path, held_out in object_files(Path(folder)):
        with np.load(path, allow_pickle=False) as data:
            pose = HandPose.from_arrays({n: data[n] for n in _POSE})
            vertices, points, outward = data["vertices"], data["points"][:SURFACE], data["normals"][:SURFACE]
        hands = [model.joints(pose)]
        if not held_out:
            for _ in range(variants - 1):
                scale = torch.rand(len(pose), generator=generator)
                hands.append(model.joints(perturb(pose, PROTOCOLS["toch-b1"], seed=generator, scale=scale)))
        corners = torch.from_numpy(box_corners(vertices)).float()
        for joints in hands:
            both = torch.cat([joints, corners.expand(len(joints), -1, -1)], 1)
            parts[held_out].append((both, len(surfaces)))
        surfaces.append(torch.from_numpy(points).float())
        normals.append(torch.from_numpy(outward).float())
        boxes.append(corners[7] - corners[0])

    def joined(pieces: list[tuple[Tensor, int]]) -> GraspSet:
        points = torch.cat([p for p, _ in pieces]) if pieces else torch.zeros(0, 29, 3)
        which = (
            torch.cat([torch.full((len(p),), k) for p, k in pieces])
            if pieces
            else torch.zeros(0, dtype=torch.long)
        )
        return GraspSet(points, which, torch.stack(boxes)[which], torch.stack(surfaces), torch.stack(normals))

    return joined(parts[False]), joined(parts[True])
