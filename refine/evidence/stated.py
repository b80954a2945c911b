"""What a caller states of his hands besides their pose, checked and turned into evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
_OF_A_HAND = ("input_error", "keypoints_2d", "confidence", "keypoint_sigma", "depth_points", "holding")
"""What lists of two may say of each of two hands."""


@dataclass(frozen=True)
class Stated:
    """Arguments of `refine_grasp` of these names; None where nothing is known."""

    input_error: Any = None
    camera: Any = None
    keypoints_2d: Any = None
    confidence: Any = None
    keypoint_sigma: Any = None
    depth_points: Any = None
    holding: Any = None

    @staticmethod
    def of_rows(predictions: Predictions, pose: HandPose, model: HandModel, points: Tensor) -> Stated:
        """What the columns of a file say of its hands ``pose``, as they are in the file, and an object's ``points``.

        Keypoints say nothing in rows without a camera to see them, or, where there is no `object_pose`, in those whose
        frame is no camera's: hand and object are not before it.
        """
        p = predictions
        known = Stated(input_error=p.input_error, depth_points=p.depth_points, holding=p.holding)
        if p.keypoints_2d is None or p.cam_K is None:
            return known
        seen = np.isfinite(p.cam_K).all((1, 2))
        if p.object_pose is None:
            seen &= _nearest(pose, None, model, points).numpy() >= NEAREST
        if not seen.any():
            return known
        return replace(
            known,
            camera=p.cam_K,
            keypoints_2d=np.where(seen[:, None, None], p.keypoints_2d[:, :21], np.nan),
            confidence=None if p.keypoint_confidence is None else p.keypoint_confidence[:, :21],
            keypoint_sigma=None if p.keypoint_sigma is None else p.keypoint_sigma.reshape(len(p), -1),
        )

    def of_hand(self, which: int) -> Stated:
        """Of one of two hands: a list of two says something of each, the camera is the same for both."""
        of_both = {}
        for name in _OF_A_HAND:
            value = getattr(self, name)
            if isinstance(value, list | tuple) and len(value) == 2:
                of_both[name] = value[which]
            elif name in ("keypoints_2d", "depth_points") and value is not None:
                raise ValueError(
                    f"{name}: is of one hand; give a list of two, in the order of the hands; None where none are known."
                )
        mine = replace(self, **of_both)
        if self.keypoints_2d is not None and mine.keypoints_2d is None:  # how sure they are is of the other hand's
            return replace(mine, confidence=None, keypoint_sigma=None)
        return mine

    def unseen(self, rows: Sequence[int]) -> Stated:
        """Without the keypoints of ``rows``."""
        if self.keypoints_2d is None:
            return self
        points = np.array(self.keypoints_2d, np.float32)
        points[list(rows)] = np.nan
        return replace(self, keypoints_2d=points)

    def known_holding(self, batch: int) -> Tensor:
        """``(B,)`` 1 for hands that hold the object, 0 for those that do not, NaN where that is not known.

        Raises:
            ValueError: it is not True, False or None, nor one of them for each hand.
        """
        try:
            value = np.array(self.holding, np.float32)  # None is NaN
        except (TypeError, ValueError):
            value = np.full((), 2.0)
        if value.shape not in ((), (batch,)) or not (np.isnan(value) | (value == 0) | (value == 1)).all():
            raise ValueError(
                f"holding: got {self.holding!r:.80}; pass True, False or None, or a list of {batch} of them, "
                "one a hand."
            )
        return torch.from_numpy(np.broadcast_to(value, (batch,)).copy())

    def errors(self, batch: int) -> list[InputError | None]:
        """How each of ``batch`` hands may be off, where that is said by name or as `InputError`; None else."""
        return [_error(name) for name in self._names(batch) or [None] * batch]

    def problems(self, pose: HandPose, object_pose: Tensor | None, model: HandModel, points: Tensor) -> dict[int, str]:
        """Hands, object frame, that no camera can have seen: row → reason.

        Args:
            points: ``(n, 3)`` on the object.
            object_pose: ``(B, 4, 4)`` object to camera; None when the frame that hands and object share is its.
        """
        seen = torch.tensor([error is not None and error.along is not None for error in self.errors(len(pose))])
        for known in (_batched("keypoints_2d", self.keypoints_2d), _batched("depth_points", self.depth_points)):
            if known is not None and known.ndim == 3 and len(known) == len(pose):
                seen = seen | known.isfinite().flatten(1).any(1)
        if not seen.any():
            return {}
        nearest = _nearest(pose, object_pose, model, points)
        told = "give object_pose, the object's pose before the camera" if object_pose is None else "check object_pose"
        return {
            row: f"hand and object are not before the camera (the nearest point is {1000 * float(nearest[row]):.0f} "
            f"mm in front); {told}."
            for row in (seen & (nearest < NEAREST)).nonzero()[:, 0].tolist()
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
        if (keypoints := _batched("keypoints_2d", self.keypoints_2d)) is not None:
            known.append(self._reprojection(keypoints, camera))
        elif self.confidence is not None or self.keypoint_sigma is not None:
            raise ValueError("keypoints_2d: missing; confidence and keypoint_sigma are about keypoints (B, 21, 2).")
        if (measured := _batched("depth_points", self.depth_points)) is not None:
            known.append(_depth(measured, camera))
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
            rows, error = torch.tensor([n == name for n in names]), _error(name)
            if error is None:
                rows, error = rows & rest, _ROUGHLY_RIGHT
            if rows.any():
                factor[rows] = prior_of(pose[rows], error, model, camera[rows]).factor
        return PosePrior(pose, factor) if (factor != 0).any() else None

    def _names(self, batch: int) -> list[Any]:
        """The input error of each hand, by name or as `InputError`; empty when it is a covariance."""
        error = self.input_error
        if error is None or isinstance(error, str | InputError):
            return [error] * batch
        if isinstance(error, np.ndarray) and error.dtype.kind in "OU":
            error = error.tolist()
        if not isinstance(error, list | tuple) or not all(isinstance(e, str | InputError | None) for e in error):
            return []
        if len(error) != batch:
            raise ValueError(f"input_error: {len(error)} names for {batch} hands; give one, or one a hand.")
        return list(error)

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

    def _reprojection(self, points: Tensor, object_pose: Tensor) -> Reprojection:
        """Of ``points``, whatever shape they have, and ``object_pose (B, 4, 4)``."""
        batch = len(object_pose)
        if points.shape != (batch, 21, 2):
            raise ValueError(
                f"keypoints_2d: got shape {tuple(points.shape)}; expected ({batch}, 21, 2) pixels, OpenPose order."
            )
        camera = self._camera(batch)
        sigma = self._of_keypoints("keypoint_sigma", KEYPOINT_SIGMA, batch)
        sigma = torch.where(sigma.isnan(), KEYPOINT_SIGMA, sigma)  # of rows of a file that do not say it
        trust = self._of_keypoints("confidence", 1.0, batch).clamp(0, 1)
        there = points.isfinite().all(2) & (trust > 0)
        seen = camera.isfinite().flatten(1).all(1) & (camera[:, 0, 0] > 1)
        if blind := (there.any(1) & ~seen).nonzero()[:, 0].tolist():
            raise ValueError(
                f"camera: of hand {blind[0]} not intrinsics in pixels; expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], "
                "or keypoints_2d of NaN where there is no camera."
            )
        if (there & (sigma <= 0)).any():
            raise ValueError("keypoint_sigma: not positive; give pixels per axis, such as 3.")
        spread = (sigma / trust.sqrt()).masked_fill(~there, torch.inf)
        safe = torch.where(seen[:, None, None], camera, torch.eye(3))
        return Reprojection(points.nan_to_num(), spread, safe, object_pose)

    def _camera(self, batch: int) -> Tensor:
        """Intrinsics ``(B, 3, 3)``; those of some hands may be NaN."""
        if self.camera is None:
            raise ValueError(
                "camera: missing; keypoints_2d are seen by a camera: give its intrinsics (3, 3) in pixels as camera."
            )
        camera = as_floats("camera", self.camera)
        if camera.shape not in ((3, 3), (batch, 3, 3)):
            raise ValueError(f"camera: got shape {tuple(camera.shape)}; expected intrinsics (3, 3) or ({batch}, 3, 3).")
        return camera.expand(batch, 3, 3)

    def _of_keypoints(self, name: str, absent: float, batch: int) -> Tensor:
        """What is said of each keypoint ``(B, 21)``."""
        value = getattr(self, name)
        value = as_floats(name, absent if value is None else value)
        if value.shape not in ((), (21,), (batch, 1), (batch, 21)):
            raise ValueError(f"{name}: got shape {tuple(value.shape)}; expected ({batch}, 21), one a keypoint.")
        return value.expand(batch, 21)


def _depth(points: Tensor, object_pose: Tensor) -> DepthPoints:
    """Of ``points``, whatever shape they have, in the camera's frame and ``object_pose (B, 4, 4)``."""
    if points.ndim != 3 or len(points) != len(object_pose) or points.shape[2] != 3:
        raise ValueError(f"depth_points: got shape {tuple(points.shape)}; expected ({len(object_pose)}, n, 3) metres.")
    rotation, shift = object_pose[:, :3, :3], object_pose[:, :3, 3]
    local = (points - shift[:, None]) @ rotation
    return DepthPoints(local, -(rotation.transpose(1, 2) @ shift[..., None])[..., 0])


def _error(value: Any) -> InputError | None:
    """The error, by its name or as it is; one that is not said is unknown."""
    return value if isinstance(value, InputError) else input_error(str(value or "unknown"))


def _batched(name: str, value: Any) -> Tensor | None:
    """Points ``(B, n, d)``, those of one hand as a batch of one; not checked for its shape."""
    if value is None:
        return None
    points = as_floats(name, value)
    return points[None] if points.ndim == 2 else points


def _nearest(pose: HandPose, object_pose: Tensor | None, model: HandModel, points: Tensor) -> Tensor:
    """(B,) depth of what is nearest to the camera, of hands in their object's frame and ``points`` on it."""
    joints = model.joints(pose)
    scene = torch.cat([joints, points.to(joints).expand(len(joints), -1, -1)], 1)
    if object_pose is not None:
        scene = scene @ object_pose[:, :3, :3].transpose(1, 2) + object_pose[:, None, :3, 3]
    return scene[..., 2].amin(1)
