"""A stand-in hand, refiner and rows for the tests of the batch engine, usable in other processes too."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import trimesh

from contact.objects import ObjectMesh
from hand_models import HandPose
from hand_models.model import PARENTS, HandModel
from refine.batch.config import BatchConfig
from refine.config import RefineConfig
from refine.files.prediction_poses import into_camera_frame
from refine.files.predictions import Predictions
from refine.files.status import Status
from refine.request import Request
from refine.solve.samples import Samples

SHIFT = torch.tensor([0.01, -0.02, 0.03])
UNLUCKY, DEADLY_ONCE, DEADLY = 13, 7, 9
"""Values of betas[0] that make the stand-in raise, kill its process the first time, and kill it every time."""


def tiny_hand() -> HandModel:
    """A hand of a root and a few points."""
    g = torch.Generator().manual_seed(0)
    weights, regressor = torch.rand(40, 16, generator=g), torch.rand(16, 40, generator=g)
    faces, ids = torch.tensor([[0, 1, 2], [1, 3, 2]]), torch.arange(5)
    return HandModel(
        "open", "right", torch.rand(40, 3, generator=g) * 0.1, torch.zeros(40, 3, 10), None,
        regressor / regressor.sum(1, keepdim=True), weights / weights.sum(1, keepdim=True), faces, faces,
        torch.eye(40)[:5], ids, PARENTS,
    )  # fmt: skip


@cache
def small_box() -> ObjectMesh:
    """An object for tests that look at none."""
    return ObjectMesh.from_any(trimesh.creation.box((0.05,) * 3), resolution=8, cache=False)


def fake_refine(request: Request, samples: int | None = None) -> SimpleNamespace:
    """Moves every hand by SHIFT in the object frame; refuses batches with an UNLUCKY hand.

    The first sample is the hand as given, the second moved by a metre, and so on.
    """
    pose = request.pose
    if (pose.betas[:, 0] == UNLUCKY).any():
        raise RuntimeError("unlucky number")
    size = len(pose)
    measure = {
        f"{n}_{w}": np.full(size, v)
        for n in ("penetration_mm", "contact_ratio")
        for w, v in (("before", 4), ("after", 1))
    }
    return SimpleNamespace(
        initial_pose=request.given, holding=request.holding.nan_to_num(0.75).numpy(),
        pose=into_camera_frame(replace(pose, transl=pose.transl + SHIFT), request.camera, request.model),
        status=[Status.REFINED] * size, reason=[""] * size, warnings=[[]] * size,
        object_pose=None if request.camera is None else request.camera.numpy(),
        metrics=measure, steps=np.full(size, 9), score_before=np.zeros(size), score_after=np.ones(size),
        uncertainty=torch.full((size, 21), 0.004), faces=tiny_hand().faces.numpy(),
        vertices_after=(tiny_hand().template + pose.transl[:, None]),
        samples=None if samples is None else fake_samples(request.given, samples),
    )  # fmt: skip


def fake_samples(given: HandPose, count: int) -> Samples:
    """``count`` of each hand, a metre of x apart."""
    shift = torch.arange(float(count))[:, None] * torch.tensor([1.0, 0.0, 0.0])
    pose = given.repeat_interleave(count)
    pose = replace(pose, transl=pose.transl + shift.repeat(len(given), 1))
    joints = pose.transl.view(len(given), count, 1, 3).repeat(1, 1, 21, 1)
    return Samples(torch.full((len(given), count), 1 / count), joints, pose)


@dataclass(frozen=True)
class FakeConfig(BatchConfig):
    """`BatchConfig` around the stand-ins; keeps a list of the rows it refined in ``log``."""

    log: Path = Path("log")

    def load_model(self) -> HandModel:
        return tiny_hand()

    def refiner(self) -> Callable[..., Any]:
        def run(request: Request) -> SimpleNamespace:
            pose = request.pose
            first = pose.betas[:, 0]
            marker = self.log.with_suffix(".died")
            if (first == DEADLY).any() or ((first == DEADLY_ONCE).any() and not marker.exists()):
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            result = fake_refine(request, self.samples)
            with self.log.open("a") as stream:  # betas[1] is the row's number
                stream.write("".join(f"{number:.0f}\n" for number in pose.betas[:, 1]))
            return result

        return run

    def refined(self) -> list[int]:
        """Numbers of the rows refined so far, sorted, those refined twice twice."""
        return sorted(map(int, self.log.read_text().split())) if self.log.exists() else []


def predictions(count: int = 7) -> Predictions:
    """Hands of both sides on two objects, in the camera's frame; betas[:, 1] numbers them."""
    rng = np.random.default_rng(0)
    pose = np.tile(np.eye(4), (count, 1, 1))
    pose[:, :3, 3] = rng.normal(size=(count, 3)) * 0.1 + [0, 0, 0.7]
    betas = np.zeros((count, 10))
    betas[:, 1] = np.arange(count)
    return Predictions.from_columns(
        {"object_id": (["mug", "box"] * count)[:count], "side": (["right", "right", "left"] * count)[:count],
         "hand_model": "open", "global_orient": rng.normal(size=(count, 3)), "betas": betas,
         "hand_pose": rng.normal(size=(count, 15, 3)) * 0.2, "transl": rng.normal(size=(count, 3)) * 0.1,
         "object_pose": pose}
    )  # fmt: skip


def with_cell(p: Predictions, name: str, row: int, value: object) -> Predictions:
    """``p`` with one cell replaced."""
    column = getattr(p, name).copy()
    column[row] = value
    return Predictions.from_columns(p.columns() | {name: column})


def with_fate(p: Predictions, row: int, fate: int) -> Predictions:
    """``p`` with a row that the stand-in stumbles over."""
    betas = p.betas.copy()
    betas[row, 0] = fate
    return Predictions.from_columns(p.columns() | {"betas": betas})


def fake_config(folder: Path, **options: Any) -> FakeConfig:
    """A configuration in ``folder``, with meshes of both objects and something in the place of weights."""
    meshes = folder / "meshes"
    if not meshes.is_dir():
        meshes.mkdir()
        for name, size in (("mug", 0.05), ("box", 0.06)):
            trimesh.creation.box((size, size, size)).export(meshes / f"{name}.ply")
        (folder / "w.safetensors").write_bytes(b"weights")
        (folder / "w.json").write_text("{}")
    refine = RefineConfig(weights=folder / "w.safetensors")
    return FakeConfig(objects=meshes, refine=refine, log=folder / "log", **options)
