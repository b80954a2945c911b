"""What contact networks are measured on: noisy hands beside objects, and the truth. Corpus grasps and human ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from hand_models import HandModel, HandPose, fit_joints
from hand_models.atomic import write_atomically

from .corpus.corpus import load_held_out
from .field import NUM_PARTS, ContactField, field_from_pose
from .network.contact_net import ContactNet
from .network.features import Observation, observe
from .objects.hierarchy import PointHierarchy, build_hierarchy
from .objects.mesh import ObjectMesh
from .perturb import perturb

_POSE = ("global_orient", "hand_pose", "betas", "transl")


@dataclass(frozen=True)
class Cases:
    """``N`` right hands as they are and as they were seen, on ``G`` objects; object frame, metres."""

    pose: HandPose
    """true"""
    noisy: HandPose
    which: Tensor
    """(N,) object of each"""
    points: Tensor
    """(G, n, 3)"""
    normals: Tensor
    """(G, n, 3)"""
    thickness: Tensor
    """(G, n)"""
    hierarchy: PointHierarchy
    truth: ContactField
    names: tuple[str, ...]
    """of the objects, or their families"""

    def __len__(self) -> int:
        return len(self.which)

    def observation(self, model: HandModel) -> Observation:
        """What a network sees of the cases."""
        points, normals, thickness = (t[self.which] for t in (self.points, self.normals, self.thickness))
        return observe(model, self.noisy, points, normals, thickness)

    def __getitem__(self, rows: Tensor | slice) -> Cases:
        """Some of the hands, all of the objects."""
        chosen = {name: getattr(self, name)[rows] for name in ("pose", "noisy", "which", "truth")}
        return Cases(**{f.name: chosen.get(f.name, getattr(self, f.name)) for f in fields(self)})


def held_out_cases(folder: str | Path, noise: str, count: int | None = None, seed: int = 0) -> Cases:
    """Grasps on a corpus's held-out objects under a noise protocol.

    Args:
        folder: ``out`` of ``regrasp corpus``.
        noise: name of a protocol of `contact.perturb`.
        count: grasps, the same number on every object as far as that goes; None for all.
        seed: of the noise, which is drawn for all held-out grasps: a grasp's noise does not depend on ``count``.

    Raises:
        FileNotFoundError: there is no corpus.
        ValueError: nothing is held out, or the protocol is unknown.
    """
    corpus = load_held_out(Path(folder))
    noisy = perturb(corpus.pose, noise, seed=seed)
    rows = in_turn(corpus.which)[:count]
    used, which = corpus.which[rows].unique(return_inverse=True)
    return Cases(
        corpus.pose[rows], noisy[rows], which, corpus.points[used], corpus.normals[used], corpus.thickness[used],
        corpus.hierarchy[used], corpus.truth(rows), tuple(corpus.families[k] for k in used.tolist()),
    )  # fmt: skip


def in_turn(which: Tensor) -> Tensor:
    """Order of grasps by turns: the first of each object, then the second of each, and so on."""
    seen: dict[int, int] = {}
    turn = []
    for k in which.tolist():
        turn.append(seen.get(k, 0))
        seen[k] = turn[-1] + 1
    return torch.tensor(turn, dtype=torch.long).argsort(stable=True)


def real_cases(
    folder: str | Path,
    model: HandModel,
    noise: str,
    *,
    count: int | None = None,
    seed: int = 0,
    resolution: int = 64,
) -> tuple[Cases, list[ObjectMesh]]:
    """Measured human grasps under a noise protocol: hands fitted to joints, contact of the fitted hands.

    Args:
        folder: with ``dexycb_val.npz``, holding ``object_id (N)`` and ``joints (N, 21, 3)`` metres, OpenPose order,
            object frame; and ``ycb/<object_id>.ply``.
        model: hand to fit.
        count: grasps, evenly spaced; None for all. Noise is drawn for all of them, so a grasp's does not depend on it.
        seed: of the noise.
        resolution: of the objects' distance grids.

    Returns:
        The cases, and their objects as `ObjectMesh`, in the order of ``which``.

    Raises:
        FileNotFoundError: a file is missing.
    """
    file = Path(folder) / "dexycb_val.npz"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: is not there; it holds object_id (N) and joints (N, 21, 3).")
    with np.load(file, allow_pickle=False) as data:
        object_id, joints = data["object_id"], data["joints"]
    pose = fit_joints(joints, model)
    noisy = perturb(pose, noise, seed=seed)
    rows = torch.linspace(0, len(pose) - 1, min(count or len(pose), len(pose))).round().long()
    names, which = np.unique(object_id[rows.numpy()], return_inverse=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanned objects are open here and there
        meshes = [
            ObjectMesh.from_any(Path(folder) / "ycb" / f"{name}.ply", resolution=resolution) for name in names
        ]
    pose, noisy = pose[rows], noisy[rows]
    truth = field_from_pose(model, pose, [meshes[k] for k in which])
    points, normals, thickness = (
        torch.stack([getattr(m, name) for m in meshes]) for name in ("points", "normals", "thickness")
    )
    hierarchy = PointHierarchy.stack([build_hierarchy(m.points) for m in meshes])
    which = torch.from_numpy(which)
    cases = Cases(pose, noisy, which, points, normals, thickness, hierarchy, truth, tuple(names.tolist()))
    return cases, meshes


_THICKEST, _NORMAL_STEPS, _STEPS = 0.1, 127, 65535  # metres; steps of int8 and of uint16


def write_cases(cases: Cases, path: Path) -> Path:
    """Objects, true hands and their contact in one small file: about 20 kB an object and 3 kB a grasp.

    Points and thickness are rounded to a few micrometres, normals to 0.3 degrees. Of the truth, contact and canonical
    points are kept. Written under a temporary name and renamed.
    """
    low, high = cases.points.amin(1, keepdim=True), cases.points.amax(1, keepdim=True)
    near = cases.truth.near > 0.5
    arrays = {
        name: value.astype(np.float32) for name, value in cases.pose.as_arrays().items() if name in _POSE
    }
    arrays |= {
        "which": cases.which.numpy().astype(np.int32),
        "names": np.array(cases.names),
        "low": low[:, 0].numpy(),
        "high": high[:, 0].numpy(),
        "points": ((cases.points - low) / (high - low) * _STEPS).round().numpy().astype(np.uint16),
        "normals": (cases.normals * _NORMAL_STEPS).round().numpy().astype(np.int8),
        "thickness": (cases.thickness / _THICKEST * _STEPS).round().numpy().clip(0, _STEPS).astype(np.uint16),
        "contact": (cases.truth.contact * 255).round().numpy().astype(np.uint8),
        "near": np.packbits(near.numpy(), axis=1),
        "canonical": cases.truth.canonical[near].numpy().astype(np.float16),
    }
    return write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def read_cases(path: Path, noise: str, count: int | None = None, seed: int = 0) -> Cases:
    """Read what `write_cases` wrote, and put noise on the hands.

    Args:
        noise: name of a protocol.
        count: of the file's grasps the first so many; None for all.
        seed: of the noise, drawn for all grasps of the file.

    Returns:
        Truth without parts, gaps and contact of the hand: uniform, and zero.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is not there; contact.cases.write_cases makes such files.")
    with np.load(path, allow_pickle=False) as data:
        arrays = dict(data)
    rows = slice(count)
    pose = HandPose.from_arrays({name: arrays[name] for name in _POSE}, side="right")
    objects, which = np.unique(arrays["which"][rows], return_inverse=True)
    low, high = (torch.from_numpy(arrays[name][objects])[:, None] for name in ("low", "high"))
    points = torch.from_numpy(arrays["points"][objects].astype(np.float32)) / _STEPS * (high - low) + low
    normals = torch.from_numpy(arrays["normals"][objects].astype(np.float32))
    contact = torch.from_numpy(arrays["contact"].astype(np.float32) / 255)
    near = torch.from_numpy(np.unpackbits(arrays["near"], axis=1, count=contact.shape[1]) > 0)
    canonical = torch.zeros(*contact.shape, 3)
    canonical[near] = torch.from_numpy(arrays["canonical"].astype(np.float32))
    nothing, hand = torch.zeros_like(contact), torch.zeros(len(contact), 0)
    uniform = torch.full((*contact.shape, NUM_PARTS), 1 / NUM_PARTS)
    truth = ContactField(
        contact, nothing, uniform, canonical, nothing, nothing, nothing, near.float(), hand, hand
    )
    return Cases(
        pose[rows], perturb(pose, noise, seed=seed)[rows], torch.from_numpy(which), points,
        torch.nn.functional.normalize(normals, dim=-1),
        torch.from_numpy(arrays["thickness"][objects].astype(np.float32)) / _STEPS * _THICKEST,
        PointHierarchy.stack([build_hierarchy(p) for p in points]), truth[rows],
        tuple(arrays["names"][objects].tolist()),
    )  # fmt: skip


Predictor: TypeAlias = Callable[[Cases], ContactField]
"""Fields for cases, from their noisy hands and objects alone."""


def predict_cases(predict: Predictor, cases: Cases, batch: int = 16) -> ContactField:
    """Fields of all cases, ``batch`` at a time, on the CPU."""
    parts = torch.arange(len(cases)).split(batch)
    return ContactField.cat([predict(cases[rows]).to("cpu") for rows in parts])


def predictor(network: ContactNet, model: HandModel) -> Predictor:
    """The mean prediction of a network."""

    def predict(cases: Cases) -> ContactField:
        return network.predict(model, cases.observation(model), cases.hierarchy[cases.which])

    return predict


def draw_contact(
    network: ContactNet, model: HandModel, cases: Cases, count: int, seed: int = 0, batch: int = 16
) -> Tensor:
    """(K, N, n) contact of ``count`` draws for every case; their latents are seeded grasp by grasp in order."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(cases), count, network.config.latent, generator=generator).transpose(0, 1)
    drawn = []
    for rows in torch.arange(len(cases)).split(batch):
        part = cases[rows]
        field = network.predict(model, part.observation(model), part.hierarchy[part.which], noise[:, rows])
        drawn.append(field.contact.unflatten(0, (count, len(rows))))
    return torch.cat(drawn, 1)
