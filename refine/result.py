"""What a refinement found out, and its ways to disk and browser: of hands, of two hands, of a start from points."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from contact.field import ContactField
from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose
from hand_models.atomic import write_atomically

from .files.predictions import SEPARATOR
from .files.status import Status
from .view.appearance import spread
from .view.page import write_page
from .view.pictures import GraspView

_SHOWN = {
    "penetration_mm": "penetration depth (mm)",
    "contact_ratio": "contact ratio",
    "volume_cm3": "intersection volume (cm³)",
    "reprojection_px": "reprojection error (px)",
    "score": "plausibility score",
}
"""Measures that a page shows before and after, and their names there."""


@dataclass(frozen=True)
class RefineResult:
    """``B`` refined grasps on one object.

    Poses are in the frame the input came in (the camera's, when ``object_pose`` was given); vertices and joints
    are always in the object's frame, where they fit ``object``.
    """

    pose: HandPose
    """refined hands, in the frame of the input"""
    initial_pose: HandPose
    """the input"""
    vertices_before: Tensor
    """(B, V, 3) metres, object frame, as all points here"""
    vertices_after: Tensor
    """(B, V, 3)"""
    joints_before: Tensor
    """(B, 21, 3) OpenPose order"""
    joints_after: Tensor
    """(B, 21, 3)"""
    contact: ContactField
    """predicted contact with its uncertainty"""
    metrics: dict[str, np.ndarray]
    """(B,) each: penetration_mm, volume_cm3, contact_ratio and, where keypoints were given, reprojection_px (mean
    distance of the joints from them on the picture); with ``_before`` and ``_after``"""
    status: list[Status]
    reason: list[str]
    """(B,) why a row failed, and what to mend; empty elsewhere"""
    score_before: np.ndarray
    """(B,) log plausibility of the input, up to a constant"""
    score_after: np.ndarray
    """(B,) of the returned hand"""
    uncertainty: np.ndarray
    """(B, 21) metres: standard deviation of each returned joint about its true place, root mean square of three
    axes; calibrated, so that 68 % of errors along an axis lie within it. For a ``refined`` row from the posterior
    of the solved problem and the spread of its hypotheses; for a ``kept`` or ``nudged`` row it is how far off the
    prediction believes the hand to be: its distance from where the network sees the joint, and how sure that is"""
    steps: np.ndarray
    """(B,) optimiser evaluations"""
    object: ObjectMesh
    """the object, in its own frame"""
    object_pose: np.ndarray | None
    """(B, 4, 4) object to camera, when the input came in the camera's frame"""
    faces: np.ndarray
    """(F, 3) triangles of the hand, closed at the wrist, outward"""
    hand_model: HandModel
    warnings: list[list[str]] = field(default_factory=list)
    """(B,) what is suspicious of each row, see `refine.evidence.suspicions`; no text where nothing is"""

    def __post_init__(self) -> None:
        if not self.warnings:
            object.__setattr__(self, "warnings", [[] for _ in self.status])

    def __len__(self) -> int:
        return len(self.status)

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write ``result.npz`` (arrays, no pickle) and ``summary.json`` into ``folder``; returns it.

        The folder is made when absent; earlier files of these names are replaced. In the summary, what was not
        measured is null.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        arrays = {
            **self.pose.as_arrays(),
            **{f"initial_{k}": v for k, v in self.initial_pose.as_arrays().items()},
            "side": np.array(self.pose.side),
            "vertices_before": self.vertices_before.numpy(), "vertices_after": self.vertices_after.numpy(),
            "joints_before": self.joints_before.numpy(), "joints_after": self.joints_after.numpy(),
            "faces": self.faces, "contact": self.contact.contact.numpy(),
            "contact_var": self.contact.contact_var.numpy(), "hand_contact": self.contact.hand_contact.numpy(),
            "hand_contact_var": self.contact.hand_contact_var.numpy(), "object_points": self.object.points.numpy(),
            "status": np.array([s.value for s in self.status]), "score_before": self.score_before,
            "score_after": self.score_after, "uncertainty": self.uncertainty, "steps": self.steps, **self.metrics,
            "warnings": np.array([SEPARATOR.join(texts) for texts in self.warnings], np.str_),
        }  # fmt: skip
        if self.object_pose is not None:
            arrays["object_pose"] = self.object_pose
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomically(target / "result.npz", lambda stream: stream.write(buffer.getvalue()))
        summary = {
            "object": self.object.name,
            "hand_model": self.hand_model.name,
            "status": [s.value for s in self.status],
            "warnings": self.warnings,
            "metrics": {
                k: [round(float(x), 5) if np.isfinite(x) else None for x in v] for k, v in self.metrics.items()
            },
        }
        text = json.dumps(summary, indent=1, allow_nan=False).encode()
        write_atomically(target / "summary.json", lambda stream: stream.write(text))
        return target

    def to_html(self, path: str | PathLike[str], index: int = 0) -> Path:
        """One self-contained page of grasp ``index``: before and after, contact maps, metrics.

        Raises:
            IndexError: there is no such grasp.
            ValueError: the grasp failed, so that there is nothing to show.
        """
        if 0 <= index < len(self) and self.status[index] is Status.FAILED:
            raise ValueError(f"index: grasp {index} failed and has no page: {self.reason[index]}")
        return write_page(self.view(index), path)

    def view(self, index: int = 0, *, title: str | None = None) -> GraspView:
        """What is shown of grasp ``index`` on its page and in pictures.

        Raises:
            IndexError: there is no such grasp.
        """
        if not 0 <= index < len(self.status):
            raise IndexError(f"index {index} is out of range: the result holds {len(self.status)} grasps")
        model, after = self.hand_model, self.vertices_after[index].numpy()
        template = model.template.numpy()
        values = {**self.metrics, "score_before": self.score_before, "score_after": self.score_after}
        return GraspView(
            title=title or f"{self.object.name} · grasp {index}".removeprefix(" · "),
            object_vertices=self.object.vertices.numpy(),
            object_faces=self.object.faces.numpy(),
            hand_faces=self.faces,
            before=self.vertices_before[index].numpy(),
            after=after,
            object_points=self.object.points.numpy(),
            object_normals=self.object.normals.numpy(),
            object_contact=self.contact.contact[index].numpy(),
            hand_contact=spread(template[model.contact_points], self.contact.hand_contact[index], template),
            uncertainty=spread(self.joints_after[index], self.uncertainty[index], after, radius=0.02),
            parts=model.part_of_vertex.numpy(),
            open_faces=len(model.faces),
            metrics={
                label: (float(values[f"{name}_before"][index]), float(values[f"{name}_after"][index]))
                for name, label in _SHOWN.items()
                if f"{name}_after" in values
            },
            status=self.status[index].value,
            warnings=self.warnings[index],
        )


@dataclass(frozen=True)
class TwoHandResult:
    """Result of `refine_grasp` for two hands; ``first, second = result`` unpacks it in the order they were given."""

    hands: tuple[RefineResult, RefineResult]
    """as they were given"""
    overlap_mm_before: np.ndarray
    """(B,) how deep the skin of either hand is inside the other: 0 where they are apart, NaN where one
    of them failed"""
    overlap_mm_after: np.ndarray
    """(B,)"""

    def __iter__(self) -> Iterator[RefineResult]:
        return iter(self.hands)

    @property
    def right(self) -> RefineResult:
        """The right hand's result."""
        return next(hand for hand in self.hands if hand.pose.side == "right")

    @property
    def left(self) -> RefineResult:
        """The left hand's result."""
        return next(hand for hand in self.hands if hand.pose.side == "left")


@dataclass(frozen=True)
class RefinedStart:
    """Result of `refine_start`."""

    result: RefineResult
    """as from `refine_grasp`; its poses belong with the object where the start had it"""
    hand_pose: HandPose
    """camera frame"""
    object_pose: Tensor
    """(B, 4, 4) object to camera: where the start had it, or moved with the hand"""


def statuses(usable: Tensor, moved: Tensor, accepted: Tensor) -> list[Status]:
    """Status of each row ``(B,)``: whether it could be refined, whether it moved, whether to a surely better hand."""

    def of(usable: bool, moved: bool, accepted: bool) -> Status:
        if not usable:
            return Status.FAILED
        return (Status.REFINED if accepted else Status.NUDGED) if moved else Status.KEPT

    return [of(*row) for row in torch.stack([usable, moved, accepted], 1).tolist()]
