"""What contact networks are measured on: noisy hands beside objects, and the truth. Corpus grasps and human ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from hand_models import HandModel, HandPose, fit_joints
from hand_models.record import Record, shared

from .corpus.corpus import load_held_out
from .field import ContactField, field_from_pose
from .input_error import line_of_sight
from .network.contact_net import ContactNet
from .network.features import Observation, observe
from .objects.mesh import ObjectMesh
from .objects.object_set import ObjectPoints, ObjectSet
from .perturb import perturb


@dataclass(frozen=True)
class Cases(Record):
    """``N`` right hands as they are and as they were seen, on ``G`` objects; object frame, metres."""

    pose: HandPose
    """true"""
    noisy: HandPose
    which: Tensor
    """(N,) object of each"""
    objects: ObjectPoints = shared()
    truth: ContactField
    names: tuple[str, ...]
    """of the objects, or their families"""

    def observation(self, model: HandModel) -> Observation:
        """What a network sees of the cases."""
        seen = self.objects[self.which]
        return observe(model, self.noisy, seen.points, seen.normals, seen.thickness)


def held_out_cases(
    folder: str | Path, noise: str, count: int | None = None, seed: int = 0, model: HandModel | None = None
) -> Cases:
    """Grasps on the held-out objects of a corpus's folder under a noise protocol; raises as `load_held_out` does.

    Args:
        count: grasps, the same number on every object as far as that goes; None for all.
        seed: of the noise, which is drawn for all held-out grasps: a grasp's noise does not depend on ``count``.
        model: right hand, needed for camera noise, whose lines of sight are random.
    """
    corpus = load_held_out(Path(folder))
    noisy = perturb(corpus.pose, noise, seed=seed, model=model)
    rows = in_turn(corpus.which)[:count]
    used, which = corpus.which[rows].unique(return_inverse=True)
    names = tuple(corpus.families[k] for k in used.tolist())
    return Cases(corpus.pose[rows], noisy[rows], which, corpus.objects[used], corpus.truth(rows), names)


def in_turn(which: Tensor) -> Tensor:
    """Order of grasps by turns: the first of each object, then the second of each, and so on."""
    return (which[:, None] == which).tril(-1).sum(1).argsort(stable=True)


def real_cases(
    folder: str | Path, model: HandModel, noise: str, *, count: int | None = None, seed: int = 0, resolution: int = 64
) -> tuple[Cases, list[ObjectMesh]]:
    """Measured human grasps under a noise protocol, and their objects in the order of ``which``.

    Hands are fitted to joints; the contact is that of the fitted hands.

    Args:
        folder: with ``dexycb_val.npz``, holding ``object_id (N)`` and ``joints (N, 21, 3)`` metres, OpenPose order,
            object frame, and for camera noise, if at hand, ``object_pose (N, 4, 4)`` object to camera (lines of sight
            are random without); and ``ycb/<object_id>.ply``. Raises ``FileNotFoundError`` where one is missing.
        count: grasps, evenly spaced; None for all. Noise is drawn for all of them, so a grasp's does not depend on it.
        seed: of the noise.
        resolution: of the objects' distance grids.
    """
    file = Path(folder) / "dexycb_val.npz"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: is not there; it holds object_id (N) and joints (N, 21, 3).")
    with np.load(file, allow_pickle=False) as data:
        object_id, joints, camera = data["object_id"], data["joints"], data.get("object_pose")
    pose = fit_joints(joints, model)
    view = None if camera is None else line_of_sight(pose, model, torch.from_numpy(camera).to(pose.transl))
    noisy = perturb(pose, noise, seed=seed, model=model, view=view)
    rows = torch.linspace(0, len(pose) - 1, min(count or len(pose), len(pose))).round().long()
    names, which = np.unique(object_id[rows.numpy()], return_inverse=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanned objects are open here and there
        meshes = [ObjectMesh.from_any(Path(folder) / "ycb" / f"{name}.ply", resolution=resolution) for name in names]
    pose, noisy = pose[rows], noisy[rows]
    truth = field_from_pose(model, pose, [meshes[k] for k in which])
    objects = ObjectSet.of(meshes)
    return Cases(pose, noisy, torch.from_numpy(which), objects, truth, tuple(names.tolist())), meshes


Predictor: TypeAlias = Callable[[Cases], ContactField]
"""Fields for cases, from their noisy hands and objects alone."""


def predict_cases(predict: Predictor, cases: Cases, batch: int = 16) -> ContactField:
    """Fields of all cases, ``batch`` at a time, on the CPU."""
    parts = torch.arange(len(cases)).split(batch)
    return ContactField.cat([predict(cases[rows]).to("cpu") for rows in parts])


def predictor(network: ContactNet, model: HandModel) -> Predictor:
    """The mean prediction of a network."""

    def predict(cases: Cases) -> ContactField:
        return network.predict(model, cases.observation(model), cases.objects.hierarchy[cases.which])

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
        hierarchy = part.objects.hierarchy[part.which]
        field = network.predict(model, part.observation(model), hierarchy, noise[:, rows])
        drawn.append(field.contact.unflatten(0, (count, len(rows))))
    return torch.cat(drawn, 1)
