"""Motions made from the grasps of a corpus: a hand comes, holds, carries or uses the object, lets go and leaves.

Wrist and object follow minimum-jerk paths (Flash & Hogan, J. Neurosci. 1985), and fingers close while the hand
arrives. What is held moves as a rigid body with the hand, but for a slip that trackers could not tell from none.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hand_models import HandModel, HandPose, load_open_hand
from hand_models.atomic import write_atomically
from hand_models.record import Record
from hand_models.rotations import exp_so3, log_so3

from .corpus import object_files, read_arrays

FPS = 30.0
_POSE = ("global_orient", "hand_pose", "betas", "transl")
_USES = ("lift", "tilt", "pour", "carry", "along", "about")
_BEFORE_CAMERA = 0.6  # metres
_SLIP = 0.001  # metres, of a held hand in the object's frame


@dataclass(frozen=True)
class MotionConfig:
    """What `build_motions` makes of each object's grasps."""

    count: int = 4
    """motions per object, at most one of each grasp"""
    shortest: int = 40
    """frames at 30 a second"""
    longest: int = 120
    seed: int = 0


@dataclass(frozen=True)
class Motion(Record):
    """``T`` frames of a right hand at an object that moves before a camera, labelled."""

    pose: HandPose
    """object's frame"""
    object_pose: Tensor
    """(T, 4, 4) object to camera"""
    holding: Tensor
    """(T,) bool"""

    def mirrored(self) -> Motion:
        """The same with a left hand, at the mirrored object."""
        flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
        return Motion(self.pose.mirrored(), flip @ self.object_pose @ flip, self.holding)


def minimum_jerk(t: Tensor) -> Tensor:
    """From 0 at ``t`` 0 to 1 at ``t`` 1, at rest at both ends and beyond them."""
    t = t.clamp(0, 1)
    return t**3 * (10 - 15 * t + 6 * t**2)


def make_motion(
    model: HandModel, grasp: HandPose, middle: Tensor, up: Tensor, rng: np.random.Generator, config: MotionConfig
) -> Motion:
    """A motion whose hand holds as ``grasp`` does.

    Args:
        grasp: one right hand, object's frame.
        middle: ``(3,)`` of the object.
        up: ``(3,)`` away from the table that it stands on, object's frame.
    """
    length = int(rng.integers(config.shortest, config.longest + 1))
    onset, release = int(length * rng.uniform(0.2, 0.35)), int(length * rng.uniform(0.68, 0.85))
    at = torch.arange(length, dtype=torch.float32)
    arriving = minimum_jerk(at / onset)
    leaving = minimum_jerk((at - release) / (length - 1 - release))
    # Fingers are the last to arrive and the first to leave.
    closed = minimum_jerk((at / onset - 0.5) / 0.5) * (1 - minimum_jerk((at - release) / (0.5 * (length - release))))
    away = torch.stack([_retreat(model, grasp, middle, up, rng) for _ in range(2)])
    turns = torch.from_numpy(rng.normal(0, 0.3, (2, 3))).float()
    apart = torch.stack([1 - arriving, leaving], 1)  # (T, 2) from the object, on the way to it and from it
    slip = _SLIP * torch.from_numpy(_wander(length, 3, rng)).float() * ((at >= onset) & (at <= release))[:, None]
    orient = exp_so3(apart @ turns) @ exp_so3(grasp.global_orient)
    open_pose = 0.35 * grasp.hand_pose
    pose = HandPose(
        grasp.side,
        log_so3(orient),
        torch.lerp(open_pose.expand(length, -1, -1), grasp.hand_pose.expand(length, -1, -1), closed[:, None, None]),
        grasp.betas.expand(length, -1),
        grasp.transl + apart @ away + slip,
    )
    holding = (at >= onset) & (at <= release)
    return Motion(pose, _object_path(at, onset, release, up, middle, rng), holding)


def _retreat(model: HandModel, grasp: HandPose, middle: Tensor, up: Tensor, rng: np.random.Generator) -> Tensor:
    """(3,) metres from the grasp to where the hand comes from, or goes to: away from the object and the table."""
    out = model.joints(grasp)[0, [0, 5, 9, 13, 17]].mean(0) - middle
    direction = out / out.norm().clamp_min(1e-6) + 0.5 * up + torch.from_numpy(rng.normal(0, 0.25, 3)).float()
    return direction / direction.norm() * float(rng.uniform(0.12, 0.35))


def _object_path(at: Tensor, onset: int, release: int, up: Tensor, middle: Tensor, rng: np.random.Generator) -> Tensor:
    """(T, 4, 4) object to camera: at rest until it is held, used, and put down."""
    view = exp_so3(torch.from_numpy(rng.normal(0, 1.5, 3)).float())
    use = str(rng.choice(_USES))
    axis = torch.from_numpy(rng.normal(size=3)).float()
    axis = axis / axis.norm()
    there = minimum_jerk((at - onset - 2) / max(1.0, 0.45 * (release - onset)))
    back = minimum_jerk((at - release + 2 + 0.4 * (release - onset)) / max(1.0, 0.4 * (release - onset)))
    way = there if use == "carry" else there - back
    shift, turn = up * float(rng.uniform(0.05, 0.2)), torch.zeros(3)
    if use == "carry":
        shift = axis * float(rng.uniform(0.1, 0.35))
    if use in ("tilt", "pour"):
        turn = axis * float(rng.uniform(0.3, 0.7) if use == "tilt" else rng.uniform(1.0, 1.8))
    strokes = (
        (way > 0.5) * torch.sin(2 * torch.pi * rng.uniform(0.8, 1.6) * (at - onset) / FPS) * minimum_jerk(2 * way - 1)
    )
    moved, turned = way[:, None] * shift, way[:, None] * turn
    if use == "along":
        moved = moved + strokes[:, None] * axis * float(rng.uniform(0.02, 0.06))
    if use == "about":
        turned = turned + strokes[:, None] * axis * float(rng.uniform(0.2, 0.5))
    poses = torch.eye(4).repeat(len(at), 1, 1)
    local = exp_so3(turned)  # about the object's middle, in its own axes
    poses[:, :3, :3] = view @ local
    place = moved + middle - (local @ middle)
    poses[:, :3, 3] = (place - middle) @ view.T + torch.tensor([0.0, 0.0, _BEFORE_CAMERA])
    return poses


def _wander(length: int, width: int, rng: np.random.Generator, correlation: float = 0.9) -> np.ndarray:
    """(T, width) AR(1) of unit variance."""
    noise = rng.normal(size=(length, width))
    for t in range(1, length):
        noise[t] = correlation * noise[t - 1] + (1 - correlation**2) ** 0.5 * noise[t]
    return noise


def motions_of(path: Path, config: MotionConfig, model: HandModel) -> list[Motion]:
    """Motions from the grasps of one object's file; the same for the same file and recipe."""
    arrays = read_arrays(path, *_POSE, "points", "up")
    rng = np.random.default_rng([config.seed, int(path.stem.removeprefix("object_"))])
    grasps = HandPose.from_arrays({name: arrays[name] for name in _POSE})
    middle, up = torch.from_numpy(arrays["points"]).mean(0), torch.from_numpy(arrays["up"])
    chosen = rng.permutation(len(grasps))[: config.count]
    return [make_motion(model, grasps[int(k)], middle, up, rng, config) for k in chosen]


def build_motions(corpus: Path, config: MotionConfig = MotionConfig()) -> str:
    """Make motions of the objects of a corpus that lack them, ``motions_<number>.npz`` beside each; their SHA-256.

    Raises:
        ValueError: the folder holds motions made with another recipe.
        FileNotFoundError: it holds no grasps.
    """
    manifest, text = corpus / "motions.json", json.dumps(vars(config), indent=1, sort_keys=True)
    if manifest.exists() and manifest.read_text() != text:
        raise ValueError(
            f"motions: {corpus} holds motions made with another recipe; remove motions.json and motions_*."
        )
    write_atomically(manifest, lambda file: file.write(text.encode()))
    model, digest = load_open_hand(), hashlib.sha256()
    for path, _ in object_files(corpus):
        target = motions_path(path)
        if not target.exists():
            _write(target, motions_of(path, config, model))
        digest.update(target.name.encode() + target.read_bytes())
    return digest.hexdigest()


def motions_path(path: Path) -> Path:
    """File of the motions of the object of file ``path``."""
    return path.with_name(path.name.replace("object_", "motions_"))


def _write(path: Path, motions: list[Motion]) -> None:
    whole = Motion.cat(motions)
    arrays = {name: value.astype(np.float32) for name, value in whole.pose.as_arrays().items()} | {
        "object_pose": whole.object_pose.numpy(),
        "holding": whole.holding.numpy(),
        "length": np.array([len(m.holding) for m in motions]),
    }
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def load_motions(path: Path) -> list[Motion]:
    """The motions of the object of file ``path``. Raises ``FileNotFoundError`` when they have not been made."""
    arrays = read_arrays(motions_path(path))
    pose = HandPose.from_arrays({name: arrays[name] for name in _POSE})
    whole = Motion(pose, torch.from_numpy(arrays["object_pose"]), torch.from_numpy(arrays["holding"]))
    ends = np.cumsum(arrays["length"])
    return [whole[slice(int(end - n), int(end))] for end, n in zip(ends, arrays["length"], strict=True)]
