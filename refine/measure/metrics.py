"""What `regrasp eval` measures: one table of metrics, and what they look at.

A new metric is a function of arrays with one value per grasp, beside its kind in `joints`, `contact`,
`picture`, `crossing`, `volumes` or `motion`, and a row of `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Literal

import numpy as np

from contact.objects import ObjectMesh

from .contact import contact_ratio, penetration_depth
from .crossing import bones_crossing, crossing_depth
from .joints import auc, error_in_std, joint_errors, mpcpe, mpjpe, mpjpe_procrustes, mpjpe_root_relative, mpvpe, pck
from .picture import error_across_view, error_along_view, reprojection_to_joints, reprojection_to_keypoints
from .volumes import intersection_volume

_PER_SI = {"": 1.0, "mm": 1e3, "cm3": 1e6, "px": 1.0}


@dataclass(frozen=True)
class Hands:
    """``B`` hands of one side with their object, metres; None is what the rows do not have.

    Points without ``local_`` are in the frame that errors are taken in: the camera's where both files give
    `object_pose`, else the object's.
    """

    joints: np.ndarray
    """(B, 21, 3)"""
    local_joints: np.ndarray
    """(B, 21, 3) object's frame, each hand's own"""
    local_skin: np.ndarray
    """(B, V, 3) object's frame, each hand's own"""
    skin: np.ndarray | None
    """(B, V, 3) where the rows have a pose"""
    keypoints: np.ndarray | None
    """(B, 21, 3) `keypoints_3d`, where they stand beside a pose"""
    corners: np.ndarray | None
    """(B, 8, 3) of the object's box, where both files give `object_pose`"""


@dataclass(frozen=True)
class Comparison:
    """Predicted hands on one object beside the true ones."""

    object: ObjectMesh
    faces: np.ndarray
    """(F, 3) closed hand, outward"""
    predicted: Hands
    true: Hands
    joint_std: np.ndarray | None
    """(B, 21) column `uncertainty`"""
    eye: np.ndarray | None = None
    """(B, 3) where the camera is, in the frame of the errors; where a file gives `object_pose`"""
    projection: np.ndarray | None = None
    """(B, 3, 4) from that frame onto the picture, pixels; where a file gives `cam_K` too"""
    keypoints_2d: np.ndarray | None = None
    """(B, 21, 2) pixels, of the predictions; NaN where one is missing"""


@dataclass(frozen=True)
class Metric:
    """A row of the table."""

    name: str
    unit: Literal["", "mm", "cm3", "px"]
    function: Callable[..., np.ndarray]
    """one value per grasp (B,), or per joint (B, 21); SI units"""
    needs: tuple[str, ...]
    """what of a `Comparison` ``function`` takes, in its order; where one is None nothing is measured"""
    median: bool = False
    """print the median over rows too"""
    root_mean_square: bool = False
    """over rows, instead of the mean"""
    better: Literal["less", "more", ""] = "less"
    """of one grasp; empty where neither is"""

    @property
    def column(self) -> str:
        """Name with unit, as printed."""
        return f"{self.name}_{self.unit}" if self.unit else self.name

    def __call__(self, rows: Comparison) -> np.ndarray | None:
        """Values ``(B,)`` or ``(B, 21)`` in the unit; None where the rows lack something."""
        given = [attrgetter(name)(rows) for name in self.needs]
        if any(value is None for value in given):
            return None
        return _PER_SI[self.unit] * self.function(*given)


_JOINTS = ("predicted.joints", "true.joints")
METRICS = (
    Metric("mpjpe", "mm", mpjpe, _JOINTS, median=True),
    Metric("mpjpe_root_relative", "mm", mpjpe_root_relative, _JOINTS, median=True),
    Metric("mpjpe_procrustes", "mm", mpjpe_procrustes, _JOINTS, median=True),
    Metric("mpjpe_keypoints", "mm", mpjpe, ("predicted.joints", "true.keypoints"), median=True),
    Metric("auc_50mm", "", auc, _JOINTS, better="more"),
    Metric("pck_20mm", "", partial(pck, threshold=0.02), _JOINTS, better="more"),
    Metric("pck_50mm", "", partial(pck, threshold=0.05), _JOINTS, better="more"),
    Metric("mpvpe", "mm", mpvpe, ("predicted.skin", "true.skin")),
    Metric("mpcpe", "mm", mpcpe, ("predicted.corners", "true.corners")),
    Metric("along_view", "mm", error_along_view, (*_JOINTS, "eye")),
    Metric("across_view", "mm", error_across_view, (*_JOINTS, "eye")),
    Metric("reprojection", "px", reprojection_to_keypoints, ("predicted.joints", "keypoints_2d", "projection")),
    Metric("reprojection_truth", "px", reprojection_to_joints, (*_JOINTS, "projection")),
    Metric("joint_error_in_std", "", error_in_std,
           ("predicted.local_joints", "true.local_joints", "joint_std"), root_mean_square=True, better=""),
    Metric("penetration", "mm", penetration_depth, ("predicted.local_skin", "object")),
    Metric("crossing", "mm", crossing_depth, ("predicted.local_joints", "predicted.local_skin", "object")),
    Metric("bones_crossing", "", bones_crossing, ("predicted.local_joints", "object")),
    Metric("volume", "cm3", intersection_volume, ("predicted.local_skin", "faces", "object")),
    Metric("contact_ratio", "", contact_ratio, ("predicted.local_skin", "object"), better=""),
    Metric("reference_penetration", "mm", penetration_depth, ("true.local_skin", "object"), better=""),
    Metric("reference_crossing", "mm", crossing_depth, ("true.local_joints", "true.local_skin", "object"), better=""),
    Metric("reference_volume", "cm3", intersection_volume, ("true.local_skin", "faces", "object"), better=""),
    Metric("reference_contact_ratio", "", contact_ratio, ("true.local_skin", "object"), better=""),
)  # fmt: skip
JOINT_ERROR = Metric("joint_error", "mm", joint_errors, _JOINTS)
"""of each joint; METRICS have one value per grasp"""
