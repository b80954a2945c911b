"""Annotated grasps as the 29 points that `pose_graph` learns from: of the corpus, or FHAB-style `.npy` splits.

HOPE-Net's ``make_data.py`` makes such splits for FHAB alone and in millimetres; here any format of
`refine.files.formats` that knows joints, object poses and a camera will do, and lengths are metres:

    points3d-{train,val,test}.npy  (N, 29, 3) camera frame: 21 joints in OpenPose order, 8 box corners, z fastest
    points2d-{train,val,test}.npy  (N, 29, 2) pixels: their projections
    camera-{…}.npy                 (N, 3, 3)
    box-{…}.npy                    (N, 3) edges of the object's box
    object-{…}.npy, frame-{…}.npy  (N,) names
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from contact.corpus.corpus import object_files
from contact.objects.box import box_corners
from contact.perturb import PROTOCOLS, perturb
from hand_models import HandModel, HandPose
from hand_models.atomic import write_atomically
from pose_graph.cameras import GraspSet

from ..files.object_files import ObjectEntry, load_object
from ..files.predictions import Predictions

_log = logging.getLogger(__name__)
SPLITS = ("train", "val", "test")
FHAB_TEST = ("Subject_2", "Subject_5", "Subject_6")
"""Subjects kept for testing by the 6D pose protocol of Garcia-Hernando et al., CVPR 2018."""
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
        points = torch.cat([torch.zeros(0, 29, 3), *(p for p, _ in pieces)])
        which = torch.tensor([k for p, k in pieces for _ in range(len(p))], dtype=torch.long)
        return GraspSet(points, which, torch.stack(boxes)[which], torch.stack(surfaces), torch.stack(normals))

    return joined(parts[False]), joined(parts[True])


def split_of(sequences: Sequence[str], test: Sequence[str], val_every: int = 10) -> np.ndarray:
    """``(N,)`` name of the split of each row, by its sequence, so that none is in two splits.

    Args:
        sequences: ``sequence_id`` of each row.
        test: parts of names, e.g. subjects, whose sequences are for testing.
        val_every: of the other sequences, each so-manieth is for validation.
    """
    names = sorted(set(sequences))
    rest = [name for name in names if not set(Path(name).parts) & set(test)]
    kind = {name: "val" if (k + 1) % val_every == 0 else "train" for k, name in enumerate(rest)}
    return np.array([kind.get(name, "test") for name in sequences])


def graph_points(
    predictions: Predictions, objects: Mapping[str, ObjectEntry]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points ``(N, 29, 3)``, keypoints ``(N, 29, 2)``, box edges ``(N, 3)`` and which rows have them all.

    Raises:
        ValueError: no joints, object poses or camera at all.
    """
    p = predictions
    for name in ("keypoints_3d", "object_pose", "cam_K"):
        p.column(name)
    rows = len(p)
    points, edges = np.full((rows, 29, 3), np.nan), np.full((rows, 3), np.nan)
    for object_id in np.unique(p.object_id).tolist():
        if object_id not in objects:
            continue
        members = np.flatnonzero(p.object_id == object_id)
        box = box_corners(load_object(objects[object_id]).vertices)
        pose = p.column("object_pose")[members].astype(np.float64)
        points[members, 21:] = box @ pose[:, :3, :3].transpose(0, 2, 1) + pose[:, None, :3, 3]
        edges[members] = box[7] - box[0]
    points[:, :21] = p.column("keypoints_3d")[:, :21]
    image = points @ p.column("cam_K").astype(np.float64).transpose(0, 2, 1)
    keypoints = image[..., :2] / image[..., 2:]
    good = np.isfinite(points).all((1, 2)) & np.isfinite(keypoints).all((1, 2)) & (points[..., 2] > 0.05).all(1)
    return points, keypoints, edges, good


def write_splits(
    parts: Sequence[Predictions], objects: Mapping[str, ObjectEntry], out: Path, *,
    test: Sequence[str] = FHAB_TEST, val_every: int = 10,
) -> dict[str, int]:  # fmt: skip
    """Write the splits and return how many rows each has; rows without an object pose or mesh are left out.

    Raises:
        ValueError: nothing is left to train on.
    """
    made: dict[str, list[np.ndarray]] = {}
    for p in parts:
        points, keypoints, edges, good = graph_points(p, objects)
        columns = {
            "points3d": points.astype(np.float32), "points2d": keypoints.astype(np.float32),
            "box": edges.astype(np.float32),
            "camera": p.column("cam_K").astype(np.float32), "object": p.object_id, "frame": p.frame_id,
            "sequence": p.sequence_id,
        }  # fmt: skip
        for name, values in columns.items():
            made.setdefault(name, []).append(values[good])
        if not good.all():
            _log.warning("%d of %d rows lack joints, an object pose or a mesh", int((~good).sum()), len(good))
    joined = {name: np.concatenate(values) for name, values in made.items()}
    kind = split_of(joined.pop("sequence").tolist(), test, val_every) if joined else np.zeros(0, np.str_)
    counts = {split: int((kind == split).sum()) for split in SPLITS}
    if not counts["train"]:
        raise ValueError(
            f"splits: no rows to train on (of {len(kind)}); are there object poses and meshes, and do all "
            f"sequences belong to the test split {', '.join(test)}?"
        )
    out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        for name, values in joined.items():
            part, path = values[kind == split], out / f"{name}-{split}.npy"
            write_atomically(path, partial(np.save, arr=part, allow_pickle=False))
    return counts


def read_split(folder: Path, split: str) -> GraspSet:
    """A split as training data: points in front of their own camera, with random noise on the keypoints.

    ``camera`` and ``box`` may be absent, as from elsewhere: then random cameras look at the points, and the
    box is unknown.

    Raises:
        FileNotFoundError: no ``points3d-<split>.npy``.
        ValueError: another shape, or millimetres.
    """
    path = Path(folder) / f"points3d-{split}.npy"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is not there; make it with `regrasp pose-graph splits`.")
    points = _load(path, (29, 3))
    span = float(np.median(np.linalg.norm(np.ptp(points[:, :21], axis=1), axis=1))) if len(points) else 0.2
    if not 0.05 < span < 0.6:
        raise ValueError(f"{path}: hands span {span:.3g}; metres are expected, divide millimetres by 1000.")
    camera, box, names = (path.with_name(f"{name}-{split}.npy") for name in ("camera", "box", "object"))
    edges = _load(box, (3,)) if box.is_file() else np.full((len(points), 3), np.nan, np.float32)
    which = torch.zeros(len(points), dtype=torch.long)
    if names.is_file():
        which = torch.from_numpy(np.unique(np.load(names, allow_pickle=False), return_inverse=True)[1]).long()
    for other, values in ((box, edges), (names, which)):
        if len(values) != len(points):
            raise ValueError(f"{other}: {len(values)} rows, but {path.name} has {len(points)}.")
    cam_K = torch.from_numpy(_load(camera, (3, 3))) if camera.is_file() else None
    return GraspSet(torch.from_numpy(points), which, torch.from_numpy(edges), cam_K=cam_K)


def _load(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    values = np.load(path, allow_pickle=False)
    if values.shape[1:] != shape or values.dtype.kind != "f":
        raise ValueError(f"{path}: got {values.dtype} {values.shape}; expected numbers of shape (N, {shape}).")
    return values.astype(np.float32)
