"""What a refinement found out, and its ways to disk and browser: of hands, of two hands, of a start from points."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contact.field import ContactField
from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose
from hand_models.atomic import write_atomically
from hand_models.pose import check_side
from hand_models.record import Index

from .files.prediction_poses import into_object_frame
from .files.predictions import SEPARATOR
from .files.result_arrays import (
    SavedArrays,
    from_arrays,
    hand_model_arrays,
    hand_model_from_arrays,
    object_arrays,
    object_from_arrays,
    to_arrays,
    write_arrays,
)
from .files.status import Status, Statuses
from .solve.samples import Samples
from .view.grasp import grasp_view
from .view.pictures import GraspView
from .view.summary import Measure, Summary, data_frame
from .view.texture import ContactTexture, contact_texture
from .view.viewable import Viewable, ViewablePair

_SHOWN = {
    "penetration_mm": "penetration depth (mm)",
    "crossing_mm": "passed through the surface (mm)",
    "contact_ratio": "contact ratio",
    "volume_cm3": "intersection volume (cm³)",
    "reprojection_px": "reprojection error (px)",
    "score": "plausibility score",
}
"""Measures that a page shows before and after, and their names there."""

_TENSORS = ("vertices_before", "vertices_after", "joints_before", "joints_after")
_ARRAYS = ("holding", "score_before", "score_after", "uncertainty", "steps")
"""Fields of a row for each grasp, and names of their arrays in files."""
_SAMPLES = "samples_"
"""What names of arrays of samples begin with."""
_FILE = "result.npz"
_PAIR_FILE = "pair.npz"


@dataclass(frozen=True)
class RefineResult(Viewable):
    """``B`` refined grasps on one object.

    Poses are in the frame the input came in (the camera's, when ``object_pose`` was given); vertices and joints
    are always in the object's frame, where they fit ``object``. ``len(result)``, ``result[0]``, ``result[2:5]`` and
    iteration go by grasps.
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
    """(B,) each: penetration_mm, crossing_mm, volume_cm3, contact_ratio and, where keypoints were given,
    reprojection_px (mean distance of the joints from them on the picture); with ``_before`` and ``_after``"""
    status: list[Status]
    reason: list[str]
    """(B,) why a row failed, and what to mend; empty elsewhere"""
    holding: np.ndarray
    """(B,) probability that the hand holds the object, 1 or 0 where that was given"""
    score_before: np.ndarray
    """(B,) log plausibility of the input, up to a constant"""
    score_after: np.ndarray
    """(B,) of the returned hand"""
    uncertainty: np.ndarray
    """(B, 21) metres: standard deviation of each returned joint about its true place, root mean square of three
    axes; calibrated, so that 68 % of errors along an axis lie within it. For a ``refined`` row from the posterior
    of the solved problem; for a ``kept`` row it is how far off the prediction believes the hand to be: its distance
    from where the network sees the joint, and how sure that is; for an ``apart`` row what the input was said to be
    off by, where it was said"""
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
    samples: Samples | None = None
    """plausible hands, most probable first, where they were asked for; their poses in the frame of the input, NaN for
    rows that failed or are known not to hold the object"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "warnings", self.warnings or [[] for _ in self.status])
        object.__setattr__(self, "status", Statuses(self.status))

    def __len__(self) -> int:
        return len(self.status)

    def __getitem__(self, index: Index) -> RefineResult:
        """Some of the grasps, as `HandPose` does it: an integer gives a result of one.

        Raises:
            IndexError: there is no such grasp.
        """
        wanted: Any = index
        if isinstance(index, int) or getattr(index, "shape", None) == ():
            if not -len(self) <= int(wanted) < len(self):
                raise _no_such(index, len(self))
            wanted = [int(wanted)]
        if not isinstance(wanted, slice):
            wanted = np.asarray(wanted) if len(wanted) else np.zeros(0, np.int64)
        rows = np.arange(len(self))[wanted].copy()  # a backward slice is a view that torch does not take
        listed = rows.tolist()
        values: dict[str, Any] = {
            name: getattr(self, name)[rows]
            for name in (*_TENSORS, *_ARRAYS, "pose", "initial_pose", "contact")
        }  # fmt: skip
        values |= {name: [getattr(self, name)[row] for row in listed] for name in ("status", "reason", "warnings")}
        values["metrics"] = {name: column[rows] for name, column in self.metrics.items()}
        values["samples"] = None if self.samples is None else self.samples[rows]
        values["object_pose"] = None if self.object_pose is None else self.object_pose[rows]
        return replace(self, **values)

    def __iter__(self) -> Iterator[RefineResult]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self._summary().text()}"

    def _repr_html_(self) -> str:
        return self._summary().table()

    def _summary(self) -> Summary:
        """How many hands ended how, and three numbers of each: penetration, contact and uncertainty."""
        measures = [
            Measure(name, self.metrics[f"{key}_after"], self.metrics[f"{key}_before"], unit)
            for key, name, unit in (("penetration_mm", "penetration", "mm"), ("contact_ratio", "contact ratio", ""))
            if f"{key}_after" in self.metrics
        ]
        # Of the hand that is returned alone: nobody says how sure the input was.
        measures.append(Measure("uncertainty", 1e3 * self.uncertainty.mean(1), unit="mm"))
        return Summary(
            hands=f"{self.pose.side} hand",
            object_name=self.object.name,
            hand_model=self.hand_model.name,
            status=[status.value for status in self.status],
            measures=measures,
            warnings=self.warnings,
            reason=self.reason,
        )

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write ``result.npz`` (arrays, no pickle) and ``summary.json`` into ``folder``; returns it.

        The folder is made when absent; earlier files of these names are replaced. In the summary, what was not
        measured is null. `load` reads it back.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        arrays = {
            **self.pose.as_arrays(),
            **{f"initial_{k}": v for k, v in self.initial_pose.as_arrays().items()},
            "side": np.array(self.pose.side),
            **{name: getattr(self, name).numpy() for name in _TENSORS},
            **{name: getattr(self, name) for name in _ARRAYS},
            **to_arrays(self.contact), **object_arrays(self.object), **hand_model_arrays(self.hand_model),
            "faces": self.faces, "status": np.array([s.value for s in self.status], np.str_),
            "reason": np.array(self.reason, np.str_),
            "warnings": np.array([SEPARATOR.join(texts) for texts in self.warnings], np.str_),
            "metrics": np.array(list(self.metrics), np.str_), **self.metrics,
        }  # fmt: skip
        if self.object_pose is not None:
            arrays["object_pose"] = self.object_pose
        if self.samples is not None:
            arrays |= to_arrays(self.samples, _SAMPLES) | to_arrays(self.samples.pose, _SAMPLES)
        write_arrays(target / _FILE, arrays)
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

    @classmethod
    def load(cls, path: str | PathLike[str], *, hand_model: HandModel | None = None) -> RefineResult:
        """What `save` wrote, equal to the bit.

        Args:
            path: the folder, or the ``result.npz`` in it.
            hand_model: the one that the hands were refined with; None to load it by its name. It is not in the file,
                since MANO may not be passed on.

        Raises:
            FileNotFoundError: nothing was saved there.
            ValueError: the file is damaged or no result, or ``hand_model`` is another than it was made with.
            MissingManoError: the hands are MANO's, and MANO is not found here.
        """
        path = Path(path)
        file = path / _FILE if path.is_dir() else path
        if not file.is_file():
            mend = "it holds two hands: use TwoHandResult.load" if (path / _PAIR_FILE).is_file() else "check the path"
            raise FileNotFoundError(f"path: no result was saved in {str(path)!r}; {mend}.")
        arrays = SavedArrays(file)
        columns: dict[str, Any] = {name: torch.from_numpy(arrays[name]) for name in _TENSORS}
        columns |= {name: arrays[name] for name in _ARRAYS}
        if f"{_SAMPLES}probability" in arrays:
            columns["samples"] = from_arrays(Samples, arrays, _SAMPLES, pose=from_arrays(HandPose, arrays, _SAMPLES))
        return cls(
            pose=from_arrays(HandPose, arrays),
            initial_pose=from_arrays(HandPose, arrays, "initial_", side=str(arrays["side"])),
            contact=from_arrays(ContactField, arrays),
            metrics={name: arrays[name] for name in arrays["metrics"].tolist()},
            status=[Status(text) for text in arrays["status"].tolist()],
            reason=arrays["reason"].tolist(),
            warnings=[text.split(SEPARATOR) if text else [] for text in arrays["warnings"].tolist()],
            object=object_from_arrays(arrays),
            object_pose=arrays.get("object_pose"),
            faces=arrays["faces"],
            hand_model=hand_model_from_arrays(arrays, hand_model),
            **columns,
        )

    def to_dataframe(self) -> Any:
        """A pandas table of a row a grasp: side, object, status, reason, warnings, measures, scores, and the standard
        deviation of the joints in millimetres (mean and largest). Raises ``ImportError`` without pandas."""
        return data_frame({
            "object": self.object.name,
            "side": self.pose.side,
            "status": [status.value for status in self.status],
            "reason": self.reason,
            "warnings": [SEPARATOR.join(texts) for texts in self.warnings],
            **self.metrics,
            **{name: getattr(self, name) for name in ("score_before", "score_after", "steps")},
            "uncertainty_mm": 1e3 * self.uncertainty.mean(1),
            "largest_uncertainty_mm": 1e3 * self.uncertainty.max(1),
        })  # fmt: skip

    def contact_uv(self, size: int = 256, *, uv: np.ndarray | None = None) -> ContactTexture:
        """Predicted contact of every grasp on the hand's own map, with its variance; see `contact_texture`."""
        return contact_texture(self.hand_model, self.contact, size, uv)

    def view(self, index: int = 0, *, title: str | None = None, truth: HandPose | None = None) -> GraspView:
        """What is shown of grasp ``index`` on its page, in pictures and films, in the object's frame.

        Args:
            title: its name; object and number when not given.
            truth: the true hands, one for each grasp, in the frame of the input.

        Raises:
            IndexError: there is no such grasp.
            ValueError: the grasp failed, or ``truth`` has not as many hands as there are grasps.
        """
        if not 0 <= index < len(self.status):
            raise _no_such(index, len(self))
        if self.status[index] is Status.FAILED:
            raise ValueError(f"index: grasp {index} failed and cannot be shown: {self.reason[index]}")
        hands = {"before": self.vertices_before[index], "after": self.vertices_after[index]}
        if truth is not None:
            if len(truth) != len(self):
                raise ValueError(f"truth: {len(truth)} hands for {len(self)} grasps; give one for each.")
            frame = None if self.object_pose is None else torch.from_numpy(self.object_pose)
            hands["truth"] = self.hand_model(into_object_frame(truth, frame, self.hand_model)).vertices[index]
        values = {**self.metrics, "score_before": self.score_before, "score_after": self.score_after}
        return grasp_view(
            self.object,
            self.hand_model,
            self.faces,
            self.contact[index],
            hands,
            self.joints_after[index],
            self.uncertainty[index],
            title=title or f"{self.object.name} · grasp {index}".removeprefix(" · "),
            metrics={
                label: (float(values[f"{name}_before"][index]), float(values[f"{name}_after"][index]))
                for name, label in _SHOWN.items()
                if f"{name}_after" in values
            },
            status=self.status[index].value,
            explanation=self.status[index].explanation,
            warnings=self.warnings[index],
        )


@dataclass(frozen=True)
class TwoHandResult(ViewablePair):
    """Result of `refine_grasp` for two hands; ``first, second = result`` unpacks it in the order they were given.

    It is a pair: ``len(result)`` is 2 and ``result[0]`` the first hand's result; ``result[0][k]`` is its grasp ``k``.
    """

    hands: tuple[RefineResult, RefineResult]
    """as they were given"""
    overlap_mm_before: np.ndarray
    """(B,) how deep the skin of either hand is inside the other: 0 where they are apart, NaN where one
    of them failed"""
    overlap_mm_after: np.ndarray
    """(B,)"""

    def __iter__(self) -> Iterator[RefineResult]:
        return iter(self.hands)

    def __len__(self) -> int:
        return len(self.hands)

    def __getitem__(self, index: int) -> RefineResult:
        return self.hands[index]

    def __repr__(self) -> str:
        first, second = (hand._summary().text() for hand in self.hands)
        return f"{type(self).__name__}: {self._overlap()}\n{first}\n{second}"

    def _repr_html_(self) -> str:
        tables = "".join(hand._summary().table() for hand in self.hands)
        return f"<div><p>{type(self).__name__}: {self._overlap()}</p>{tables}</div>"

    def _overlap(self) -> str:
        measure = Measure("overlap", self.overlap_mm_after, self.overlap_mm_before, "mm")
        return f"two hands, mean {measure.name} {measure.of()}"

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write either hand into ``folder/right`` and ``folder/left`` as `RefineResult.save`, and ``pair.npz``."""
        target = Path(folder)
        for hand in self.hands:
            hand.save(target / hand.pose.side)
        sides = np.array([hand.pose.side for hand in self.hands])
        overlap = {"overlap_mm_before": self.overlap_mm_before, "overlap_mm_after": self.overlap_mm_after}
        write_arrays(target / _PAIR_FILE, {"sides": sides, **overlap})
        return target

    @classmethod
    def load(cls, path: str | PathLike[str], *, hand_model: HandModel | None = None) -> TwoHandResult:
        """What `save` wrote into the folder ``path``, equal to the bit; arguments and errors as `RefineResult.load`."""
        folder = Path(path)
        file = folder / _PAIR_FILE
        if not file.is_file():
            mend = "it holds one hand: use RefineResult.load" if (folder / _FILE).is_file() else "check the path"
            raise FileNotFoundError(f"path: no pair of hands was saved in {str(folder)!r}; {mend}.")
        arrays = SavedArrays(file)
        first, second = (
            RefineResult.load(folder / check_side(s), hand_model=hand_model) for s in arrays["sides"].tolist()
        )
        return cls((first, second), arrays["overlap_mm_before"], arrays["overlap_mm_after"])

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
    hand_pose: HandPose = field(repr=False)
    """camera frame"""
    object_pose: Tensor = field(repr=False)
    """(B, 4, 4) object to camera: where the start had it, or moved with the hand"""


def _no_such(index: Any, count: int) -> IndexError:
    return IndexError(f"index {index} is out of range: the result holds {count} grasps")
