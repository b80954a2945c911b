"""What a caller states of his hands besides their pose, checked and turned into evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contact.input_error import InputError
from contact.perturb import PROTOCOLS
from hand_models import HandModel, HandPose
from hand_models.arguments import as_floats
from hand_models.record import Record

from ..files.predictions import Predictions
from .depth_points import DepthPoints
from .input_error import input_error, prior_of
from .keypoints import NEAREST, Reprojection
from .pose_prior import PosePrior

KEYPOINT_SIGMA = 3.0
"""Pixels per axis that keypoints are off by where nothing is said of them."""
_ROUGHLY_RIGHT = PROTOCOLS["contactopt"]
"""What hands are off by of whose error nothing is said, but of which keypoints or depth are known."""


@dataclass(frozen=True)
class Stated:
    """Arguments of `refine_grasp` of these names; None where nothing is known."""

    input_error: Any = None
    camera: Any = None
    keypoints_2d: Any = None
    confidence: Any = None
    keypoint_sigma: Any = None
    depth_points: Any = None

    @staticmethod
    def of_rows(predictions: Predictions) -> Stated:
        """What the columns of a file say. Keypoints without a camera to see them say nothing."""
        p = predictions
        seen = p.keypoints_2d is not None and p.cam_K is not None and p.object_pose is not None
        trust = p.keypoint_confidence
        return Stated(
            p.input_error,
            p.cam_K,
            p.keypoints_2d[:, :21] if seen else None,
            None if trust is None or not seen else trust[:, :21],
            p.keypoint_sigma.reshape(len(p), -1) if seen and p.keypoint_sigma is not None else None,
            p.depth_points,
        )

    def of_hand(self, which: int) -> Stated:
        """Of one of two hands, where a list of two says something of each."""
        values = (getattr(self, field.name) for field in fields(self))
        return Stated(*(v[which] if isinstance(v, list | tuple) and len(v) == 2 else v for v in values))

    def unseen(self, rows: Sequence[int]) -> Stated:
        """Without the keypoints of ``rows``."""
        if self.keypoints_2d is None:
            return self
        points = np.array(self.keypoints_2d, np.float32)
        points[list(rows)] = np.nan
        return replace(self, keypoints_2d=points)

    def errors(self, batch: int) -> list[InputError | None]:
        """How each of ``batch`` hands may be off, where that is said by name or as `InputError`; None else."""
        return [_error(name) for name in self._names(batch) or [None] * batch]

    def problems(self, pose: HandPose, object_pose: Tensor | None, model: HandModel) -> dict[int, str]:
        """Hands, object frame, that no camera can have seen: row → reason.

        Args:
            object_pose: ``(B, 4, 4)`` object to camera; None when the frame that hands and object share is its.
        """
        seen = torch.tensor([error is not None and error.along is not None for error in self.errors(len(pose))])
        for name in ("keypoints_2d", "depth_points"):
            if (value := getattr(self, name)) is not None:
                points = as_floats(name, value)
                points = points[None] if points.ndim == 2 else points
                if points.ndim == 3 and len(points) == len(pose):
                    seen = seen | points.isfinite().flatten(1).any(1)
        if not seen.any():
            return {}
        joints = model.joints(pose)
        depth = joints[..., 2] if object_pose is None else _into(object_pose, joints)[..., 2]
        hidden = (seen & (depth.amin(1) < NEAREST)).nonzero()[:, 0].tolist()
        told = "give object_pose, the object's pose before the camera" if object_pose is None else "check object_pose"
        return {
            row: f"the hand is not before the camera (its nearest joint is {1000 * float(depth[row].amin()):.0f} mm in "
            f"front); {told}."
            for row in hidden
        }

    def evidence(self, pose: HandPose, object_pose: Tensor | None, model: HandModel) -> list[Record]:
        """Terms about hands in their object's frame.

        Args:
            pose: ``B`` hands, object frame; what is said of those that are not finite has no meaning.
            object_pose: ``(B, 4, 4)`` object to camera; None when the frame that hands and object share is its.
            model: right hand.

        Raises:
            ValueError: naming the argument that is wrong, or lacks another.
        """
        batch = len(pose)
        safe = pose.where(pose.finite(), HandPose.zeros(batch, side=pose.side))
        camera = torch.eye(4).expand(batch, 4, 4) if object_pose is None else object_pose
        known: list[Record] = []
        if self.keypoints_2d is not None:
            known.append(self._reprojection(batch, camera))
        elif self.confidence is not None or self.keypoint_sigma is not None:
            raise ValueError("keypoints_2d: missing; confidence and keypoint_sigma are about keypoints (B, 21, 2).")
        if self.depth_points is not None:
            known.append(self._depth(batch, camera))
        rest = torch.stack([term.places for term in known]).any(0) if known else torch.zeros(batch, dtype=torch.bool)
        prior = self._prior(safe, camera, model, rest)
        return known if prior is None else [prior, *known]

    def _prior(self, pose: HandPose, camera: Tensor, model: HandModel, rest: Tensor) -> PosePrior | None:
        """How the hands may be off; ``rest (B,)`` are those of which other things are known."""
        names = self._names(len(pose))
        if not names:
            return PosePrior.from_covariance(pose, self._covariance(len(pose)))
        factor = torch.zeros(len(pose), 51, 51)
        for name in dict.fromkeys(names):
            rows = torch.tensor([n == name for n in names])
            said = _error(name)
            for these, meant in ((rows, said), (rows & rest, said or _ROUGHLY_RIGHT)):
                if meant is not None and these.any():
                    factor[these] = prior_of(pose[these], meant, model, camera[these]).factor
        return PosePrior(pose, factor) if (factor != 0).any() else None

    def _names(self, batch: int) -> list[Any]:
        """The input error of each hand, by name or as `InputError`; empty when it is a covariance."""
        error = self.input_error
        if error is None or isinstance(error, str | InputError):
            return [error] * batch
        listed = error.tolist() if isinstance(error, np.ndarray) else error
        if not isinstance(listed, list | tuple) or not all(isinstance(e, str | InputError | None) for e in listed):
            return []
        if len(listed) != batch:
            raise ValueError(f"input_error: {len(listed)} names for {batch} hands; give one, or one a hand.")
        return list(listed)

    def _covariance(self, batch: int) -> Tensor:
        covariance = as_floats("input_error", self.input_error, torch.float64)
        if covariance.shape not in ((51, 51), (batch, 51, 51)):
            raise ValueError(
                f"input_error: got shape {tuple(covariance.shape)}; pass a name such as 'camera', an InputError, or a "
                f"covariance ({batch}, 51, 51)."
            )
        if not covariance.isfinite().all() or torch.linalg.cholesky_ex(covariance)[1].any():
            raise ValueError("input_error: not positive definite; pass a covariance in metres and radians.")
        return covariance.expand(batch, 51, 51)

    def _reprojection(self, batch: int, object_pose: Tensor) -> Reprojection:
        if self.camera is None:
            raise ValueError(
                "camera: missing; keypoints_2d are seen by a camera: give its intrinsics (3, 3) in pixels as camera."
            )
        camera = as_floats("camera", self.camera)
        if camera.shape not in ((3, 3), (batch, 3, 3)):
            raise ValueError(f"camera: got shape {tuple(camera.shape)}; expected intrinsics (3, 3) or ({batch}, 3, 3).")
        camera = camera.expand(batch, 3, 3)
        points = as_floats("keypoints_2d", self.keypoints_2d)
        points = points[None] if points.ndim == 2 else points
        if points.shape != (batch, 21, 2):
            raise ValueError(
                f"keypoints_2d: got shape {tuple(points.shape)}; expected ({batch}, 21, 2) pixels, OpenPose order."
            )
        sigma = as_floats("keypoint_sigma", KEYPOINT_SIGMA if self.keypoint_sigma is None else self.keypoint_sigma)
        trust = as_floats("confidence", 1.0 if self.confidence is None else self.confidence)
        for name, value in (("keypoint_sigma", sigma), ("confidence", trust)):
            if value.shape not in ((), (21,), (batch, 1), (batch, 21)):
                raise ValueError(f"{name}: got shape {tuple(value.shape)}; expected ({batch}, 21), one a keypoint.")
        seen = camera.isfinite().flatten(1).all(1) & (camera[:, 0, 0] > 1)
        spread = (sigma / trust.clamp(0, 1).sqrt()).expand(batch, 21)
        there = points.isfinite().all(2) & (trust.expand(batch, 21) > 0) & (spread > 0) & seen[:, None]
        if not seen.any():
            raise ValueError("camera: not intrinsics in pixels; expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]].")
        safe = torch.where(seen[:, None, None], camera, torch.eye(3))
        return Reprojection(points.nan_to_num(), spread.masked_fill(~there, torch.inf), safe, object_pose)

    def _depth(self, batch: int, object_pose: Tensor) -> DepthPoints:
        points = as_floats("depth_points", self.depth_points)
        points = points[None] if points.ndim == 2 else points
        if points.ndim != 3 or len(points) != batch or points.shape[2] != 3:
            raise ValueError(f"depth_points: got shape {tuple(points.shape)}; expected ({batch}, n, 3) metres.")
        rotation, shift = object_pose[:, :3, :3], object_pose[:, :3, 3]
        local = (points - shift[:, None]) @ rotation
        return DepthPoints(local, -(rotation.transpose(1, 2) @ shift[..., None])[..., 0])


def _error(value: Any) -> InputError | None:
    """The error, by its name or as it is; one that is not said is unknown."""
    return value if isinstance(value, InputError) else input_error(str(value or "unknown"))


def _into(pose: Tensor, points: Tensor) -> Tensor:
    """``points (B, n, 3)`` moved by ``pose (B, 4, 4)``."""
    return points @ pose[:, :3, :3].transpose(1, 2) + pose[:, None, :3, 3]
