"""`refine_sequence`: a motion of noisy hands and an object in, a motion that is smooth and in contact out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose, load_hand_model
from hand_models.record import Index, as_index

from ..config import RefineConfig
from ..evidence.inputs import is_pair
from ..evidence.motion_inputs import as_object_error
from ..evidence.stated import Stated
from ..files.prediction_poses import into_camera_frame, into_object_frame
from ..files.result_arrays import (
    SavedArrays,
    from_arrays,
    hand_model_arrays,
    hand_model_from_arrays,
    object_arrays,
    object_from_arrays,
    write_arrays,
)
from ..files.status import HOLDS, Status, statuses
from ..measure.contact import contact_ratio
from ..solve.motion import MotionSolved
from ..view.grasp import distances, skin_fields
from ..view.pictures import GraspView
from ..view.summary import Measure, Summary, data_frame
from ..view.texture import ContactTexture, contact_texture
from ..view.viewable import ViewableMotion
from .request import MotionRequest, MotionScene

_FILE = "sequence.npz"
_TENSORS = ("vertices_after", "joints_before", "joints_after", "holding", "contact", "contact_var",
            "hand_contact", "hand_contact_var", "part")  # fmt: skip
_ARRAYS = ("uncertainty", "object_poses", "faces")
_OF_FRAMES = (*_TENSORS[:-1], *_ARRAYS[:-1])


@dataclass(frozen=True, repr=False)
class SequenceResult(ViewableMotion):
    """A refined motion of ``T`` frames of one hand, in the frame that it came in."""

    pose: HandPose
    """``T`` hands"""
    initial_pose: HandPose
    """the input, NaN where it was"""
    vertices_after: Tensor
    """(T, V, 3) metres"""
    joints_before: Tensor
    """(T, 21, 3) metres, OpenPose order; NaN in frames that were missing"""
    joints_after: Tensor
    """(T, 21, 3)"""
    holding: Tensor
    """(T,) probability that the hand holds the object"""
    contact: Tensor
    """(T, n) float16, expected contact value of each of the ``points`` of the part that is held, 0 to 1"""
    contact_var: Tensor
    """(T, n) float16"""
    hand_contact: Tensor
    """(T, P) float16, as ``contact``, of the hand model's ``contact_points``"""
    hand_contact_var: Tensor
    """(T, P) float16"""
    status: list[Status]
    """(T,) as of single hands; apart, where the hand does not hold, though it was smoothed; filled, in the place of a
    frame that was missing or garbage"""
    uncertainty: np.ndarray
    """(T, 21) metres: standard deviation of each joint along an axis, from the posterior of the solved motion"""
    objects: tuple[ObjectMesh, ...]
    """the parts of the object, each in its own frame"""
    object_poses: np.ndarray
    """(T, P, 4, 4) each part to the frame of the hands"""
    part: Tensor
    """() which part the hand holds, if any"""
    faces: np.ndarray
    """(F, 3) triangles of the hand, closed at the wrist, outward"""
    hand_model: HandModel
    fps: float

    def __len__(self) -> int:
        return len(self.status)

    @property
    def object(self) -> ObjectMesh:
        """The part that is held."""
        return self.objects[int(self.part)]

    @property
    def vertices_inside(self) -> Tensor:
        """(T, V, 3) metres, in the frame of the part that is held."""
        pose = torch.from_numpy(self.object_poses[:, int(self.part)])
        return (self.vertices_after - pose[:, None, :3, 3]) @ pose[:, :3, :3]

    def view(self, index: int = 0, *, title: str | None = None, truth: HandPose | None = None) -> GraspView:
        """What is shown of frame ``index``, with the part that is held, in the frame of the input.

        Args:
            title: its name; object and number when not given.
            truth: the true hands, one for each frame, in the frame of the input.

        Raises:
            IndexError: there is no such frame.
            ValueError: ``truth`` has not as many hands as there are frames.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index: got {index}; a frame from 0 to {len(self) - 1}.")
        if truth is not None and len(truth) != len(self):
            raise ValueError(f"truth: {len(truth)} hands for {len(self)} frames; give one for each.")
        mesh, at = self.object, torch.from_numpy(self.object_poses[[index], int(self.part)])

        known = {"after": self.pose[index], "before": self.initial_pose[index]}
        if not known["before"].finite().all():
            known["before"] = known["after"]
        if truth is not None:
            known["truth"] = truth[index]
        model, moves = self.hand_model, bool((at != torch.eye(4)).any())
        inside = {name: model(into_object_frame(pose, at, model)).vertices[0] for name, pose in known.items()}
        return GraspView(
            title or f"{mesh.name} · frame {index}".removeprefix(" · "),
            mesh.vertices.numpy(),
            mesh.faces.numpy(),
            self.faces,
            object_points=mesh.points.numpy(),
            object_normals=mesh.normals.numpy(),
            object_contact=self.contact[index].float().numpy(),
            object_contact_sd=self.contact_var[index].float().sqrt().numpy(),
            object_pose=at[0].numpy(),
            status=self.status[index].value,
            explanation=self.status[index].explanation,
            up=(0.0, -1.0, 0.0) if moves else (0.0, 0.0, 1.0),  # of a camera's axes, y points down
            **{name: model(pose).vertices[0].numpy() for name, pose in known.items()},
            **skin_fields(
                model, self.vertices_after[index].numpy(), self.hand_contact[index].float(),
                self.hand_contact_var[index].float(), self.joints_after[index].numpy(), self.uncertainty[index],
            ),
            **distances(mesh, self.faces, inside),
        )  # fmt: skip

    def contact_uv(self, size: int = 256, *, uv: np.ndarray | None = None) -> ContactTexture:
        """Predicted contact of every frame on the hand's own map, with its variance; see `contact_texture`."""
        return contact_texture(self.hand_model, self, size, uv)

    def __getitem__(self, index: Index) -> SequenceResult:
        """Some of the frames, an integer gives a motion of one. Raises ``IndexError`` where there is no such frame."""
        rows = np.arange(len(self))[as_index(index)].copy()  # a backward slice is a view that torch does not take
        frames = {name: getattr(self, name)[rows] for name in (*_OF_FRAMES, "pose", "initial_pose")}
        return replace(self, status=[self.status[row] for row in rows.tolist()], **frames)

    def _moved(self) -> np.ndarray:
        """(T,) millimetres between the joints before and after, mean; NaN in frames that were missing."""
        return 1e3 * (self.joints_after - self.joints_before).norm(dim=2).mean(1).numpy()

    def _summary(self) -> Summary:
        measures = [
            Measure("moved", self._moved(), unit="mm"),
            Measure("holding", self.holding.numpy()),
            Measure("uncertainty", 1e3 * self.uncertainty.mean(1), unit="mm"),
        ]
        status = [s.value for s in self.status]
        who = f"{self.pose.side} hand frame"
        return Summary(who, self.object.name, self.hand_model.name, status, measures, [[] for _ in status])

    def to_dataframe(self) -> Any:
        """A pandas table of a row a frame: time in seconds, status, holding, millimetres moved, and the standard
        deviation of the joints in millimetres (mean and largest). Raises ``ImportError`` without pandas."""
        return data_frame({
            "object": self.object.name, "side": self.pose.side, "time": np.arange(len(self)) / self.fps,
            "status": [status.value for status in self.status], "holding": self.holding.numpy(),
            "moved_mm": self._moved(), "uncertainty_mm": 1e3 * self.uncertainty.mean(1),
            "largest_uncertainty_mm": 1e3 * self.uncertainty.max(1),
        })  # fmt: skip

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write ``sequence.npz`` and ``part_<k>.npz`` (no pickle) into ``folder``, made when absent; returns it."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for k, mesh in enumerate(self.objects):
            write_arrays(target / f"part_{k}.npz", object_arrays(mesh))
        arrays = {
            **self.pose.as_arrays(),
            **{f"initial_{name}": value for name, value in self.initial_pose.as_arrays().items()},
            **{name: getattr(self, name).numpy() for name in _TENSORS},
            **{name: getattr(self, name) for name in _ARRAYS},
            **hand_model_arrays(self.hand_model),
            "side": np.array(self.pose.side),
            "status": np.array([s.value for s in self.status], np.str_),
            "fps": np.array(self.fps),
        }
        write_arrays(target / _FILE, arrays)
        return target

    @classmethod
    def load(cls, folder: str | PathLike[str], *, hand_model: HandModel | None = None) -> SequenceResult:
        """What `save` wrote, equal to the bit.

        Args:
            hand_model: the one that the hands were refined with; None to load it by its name.

        Raises:
            FileNotFoundError: nothing was saved there.
            ValueError: a file is damaged, or ``hand_model`` is another than it was made with.
        """
        target = Path(folder)
        if not (target / _FILE).is_file():
            raise FileNotFoundError(f"folder: no motion was saved in {str(target)!r}; check the path.")
        arrays = SavedArrays(target / _FILE)
        parts = arrays["object_poses"].shape[1]
        return cls(
            pose=from_arrays(HandPose, arrays),
            initial_pose=from_arrays(HandPose, arrays, "initial_", side=str(arrays["side"])),
            status=[Status(text) for text in arrays["status"].tolist()],
            objects=tuple(object_from_arrays(SavedArrays(target / f"part_{k}.npz")) for k in range(parts)),
            hand_model=hand_model_from_arrays(arrays, hand_model),
            fps=float(arrays["fps"]),
            **{name: torch.from_numpy(arrays[name]) for name in _TENSORS},
            **{name: arrays[name] for name in _ARRAYS},
        )


def refine_sequence(
    hand_poses: Any,
    object_mesh: Any,
    object_poses: Any = None,
    *,
    fps: float = 30.0,
    side: str | None = None,
    camera: Any = None,
    keypoints_2d: Any = None,
    confidence: Any = None,
    keypoint_sigma: Any = None,
    depth_points: Any = None,
    input_error: Any = None,
    object_error: Any = None,
    holding: Any = None,
    scale: float | None = None,
    config: RefineConfig | None = None,
    hand_model: HandModel | None = None,
) -> SequenceResult | tuple[SequenceResult, SequenceResult]:
    """Make a motion of roughly right hands right: smooth, in contact when it is in contact.

    All frames are solved for at once. The error of the input may be new in every frame, or last (an estimator
    drifts); which of the two is judged from the motion. Hands that hold move with what they hold; hands that do not
    are not drawn to it.

    Args:
        hand_poses: as ``hand_pose`` of `refine_grasp`, ``T`` rows in time; a list of a right and a left hand for two,
            of as many frames. Rows of NaN are missing, and are filled in, as is garbage: single frames whose hand is
            somewhere else than before and after.
        object_mesh: a mesh as in `refine_grasp`, or a list of ``P`` parts of an articulated object.
        object_poses: ``(T, 4, 4)``, or ``(T, P, 4, 4)`` for parts: object to the frame of the hands. None when both
            share a frame.
        fps: frames a second.
        input_error: how the hands may be off, by name, as `InputError` or as a covariance ``(51, 51)`` in the frame
            of the hands, as in `refine_grasp`. None or "unknown": what the motion shows to be noise is taken for
            that; of drifts, which look like motions, nothing is known and nothing is mended.
        object_error: standard deviations of the object's poses, metres and radians, such as ``(0.005, 0.05)``, new in
            every frame: their jitter is smoothed before the hands are solved for. None: they are taken as they are.
        holding: whether the hand holds the object: True or False, or one of these, or None, for each frame. None, the
            default: judged, from what the network sees of single frames, rest, and what came before and after.
        camera, keypoints_2d, confidence, keypoint_sigma, depth_points, side, scale, config, hand_model: as in
            `refine_grasp`, a row for each frame; for two hands lists of two.

    Returns:
        A `SequenceResult`; for two hands one of each, in the order they were given.

    Raises:
        ValueError: an argument is of the wrong kind, shape, unit or frame; no frame can be used.
        FileNotFoundError: a mesh path or the weights do not exist.
    """
    if config is not None and not isinstance(config, RefineConfig):
        raise ValueError(f"config: got {type(config).__name__}; pass a RefineConfig.")
    if not isinstance(fps, int | float) or not 1 <= fps <= 1000:
        raise ValueError(f"fps: got {fps!r}; give the frames a second, such as 30.")
    config, model = config or RefineConfig(), hand_model or load_hand_model("open")
    stated = Stated(input_error, camera, keypoints_2d, confidence, keypoint_sigma, depth_points, holding)
    scene = MotionScene(object_mesh, stated, as_object_error(object_error), fps, side, scale, model)

    def one(hands: Any, known: Stated) -> SequenceResult:
        asked = MotionRequest.make(hands, object_poses, replace(scene, stated=known))
        return result_of(asked, asked.solve(config))

    if not is_pair(hand_poses):
        return one(hand_poses, stated)
    first, second = (one(hand, stated.of_hand(k)) for k, hand in enumerate(hand_poses))
    if len(first) != len(second):
        raise ValueError(
            f"hand_poses: {len(first)} frames of a {first.pose.side} and {len(second)} of a {second.pose.side} hand; "
            "give as many of either, NaN where one is missing."
        )
    return first, second


def result_of(asked: MotionRequest, solved: MotionSolved) -> SequenceResult:
    """What was solved for, back in the frame that it came in."""
    request, given, gone, part, objects = asked.request, asked.given, asked.gone, asked.part, asked.objects
    model, length = request.model, len(given)
    inside = solved.pose.mirrored() if request.mirrored else solved.pose
    pose = into_camera_frame(inside, request.camera, model)
    hand, joints_before = model(pose), model.joints(given)
    moved = (hand.joints - joints_before).norm(dim=2).mean(1)
    touches = torch.from_numpy(contact_ratio(model(inside).vertices, objects[part]) > 0)
    status = statuses(~gone, solved.holding >= HOLDS, moved, touches)
    fields = {}
    for name, count in (("contact", len(objects[part].points)), ("hand_contact", len(model.contact_points))):
        mean = variance = torch.zeros(length, count)
        if solved.field is not None:
            mean = solved.holding[:, None] * getattr(solved.field, name)[solved.look]
            variance = getattr(solved.field, f"{name}_var")[solved.look]
        fields |= {name: mean.half(), f"{name}_var": variance.half()}
    return SequenceResult(
        pose=pose,
        initial_pose=given,
        vertices_after=hand.vertices,
        joints_before=joints_before,
        joints_after=hand.joints,
        holding=solved.holding,
        **fields,
        status=[Status.FILLED if missing else s for missing, s in zip(gone.tolist(), status, strict=True)],
        uncertainty=solved.variance.sqrt().numpy(),
        objects=objects,
        object_poses=asked.placed.numpy(),
        part=torch.tensor(part),
        faces=model.faces_for(pose.side).numpy(),
        hand_model=model,
        fps=30 * asked.motion.rate,
    )
