"""What is asked for, whichever way it came in, and how it is answered: right hands at an object, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose
from hand_models.model import Hand
from hand_models.solver.states import Term

from .config import RefineConfig
from .evidence.graph_rows import start_of_rows
from .evidence.inputs import as_hand_pose, as_joints, as_object, as_object_pose, out_of_reach
from .evidence.keypoints import Reprojection
from .evidence.pose_prior import PosePrior
from .evidence.sight import depth_of_object
from .evidence.stated import Stated
from .evidence.suspicions import Grasps, other_readings, suspicions
from .files.prediction_poses import hand_poses, into_camera_frame, into_object_frame, joints_fitted, object_poses
from .files.predictions import Predictions, point_forms
from .measure.contact import contact_ratio, penetration_depth
from .measure.crossing import crossing_depth
from .measure.picture import reprojection_error
from .measure.volumes import intersection_volume
from .result import RefineResult, statuses
from .solve.refine_hands import Refined
from .solve.uncertainty import UncertaintyScale


class Evidence(Term, Protocol):
    """A term about ``B`` hands in their object's frame; one that extends `Record` lacks `mirrored` at most."""

    def to(self, device: Any, /) -> Any: ...
    def mirrored(self) -> Any:
        """The same in a mirror that flips x, where left hands are refined as right ones."""
        ...


@dataclass(frozen=True)
class Request:
    """``B`` hands of one side on one object. `make` reads the arguments of `refine_grasp`, `of_rows` those of files."""

    given: HandPose
    """as they came"""
    pose: HandPose
    """in the object's frame"""
    object: ObjectMesh
    camera: Tensor | None
    """(B, 4, 4) object to camera, when the hands came in the camera's frame"""
    evidence: tuple[Evidence, ...]
    """what else is known of the hands, as terms, object frame"""
    problems: Mapping[int, str]
    """rows that cannot be refined, and why; they come back as they are"""
    model: HandModel
    given_joints: Tensor | None = None
    """(B, 21, 3) joints that ``given`` was fitted to, in its frame; NaN for hands that came as poses"""

    @staticmethod
    def make(
        hand_pose: Any,
        object_mesh: Any,
        object_pose: Any = None,
        *,
        model: HandModel,
        side: str | None = None,
        prior: PosePrior | None = None,
        terms: Sequence[Evidence] = (),
        stated: Stated | None = None,
        given_joints: Tensor | None = None,
        scale: float | None = None,
    ) -> Request:
        """Read hands, object and poses in any form that `refine_grasp` takes.

        Raises:
            ValueError: an argument is of the wrong kind, shape, unit or frame; no hand can be refined.
        """
        given, stated = as_hand_pose(hand_pose, model, side), stated or Stated()
        obj = as_object(object_mesh, given.side, scale)
        camera = None if object_pose is None else as_object_pose(object_pose, len(given))
        if prior is not None and (len(prior.factor) != len(given) or prior.mean.side != given.side):
            raise ValueError(
                f"prior: of {len(prior.factor)} {prior.mean.side} hands; expected one for each of the "
                f"{len(given)} {given.side} hands."
            )
        for term in terms:
            if isinstance(term, Sized) and len(term) != len(given):
                raise ValueError(
                    f"terms: {type(term).__name__} is about {len(term)} hands, but {len(given)} were given."
                )
        broken = (~given.finite()).nonzero()[:, 0].tolist()
        if len(broken) == len(given):
            raise ValueError("hand_pose: every hand holds NaN or infinity; check the estimator's output.")
        pose = into_object_frame(given, camera, model)
        away = out_of_reach(pose, model, obj)
        if away and camera is not None:
            rows = list(away)
            mends = other_readings(given[rows], camera[rows], obj, model)
            away |= {rows[k]: text for k, text in mends.items()}
        far = stated.problems(pose, camera, model, obj.points) | away
        if len(broken) + len(far) == len(given):
            raise ValueError(f"hand_pose: {next(iter(far.values()))}")
        problems = dict.fromkeys(broken, "the hand holds NaN or infinity; check the estimator's output.") | far
        known = stated.evidence(pose, camera, right_of(model))
        evidence = (*([] if prior is None else [prior]), *known, *terms)
        joints = as_joints(hand_pose) if given_joints is None else given_joints
        return Request(given, pose, obj, camera, evidence, problems, model, joints)

    @staticmethod
    def of_rows(predictions: Predictions, object_mesh: ObjectMesh, model: HandModel) -> Request:
        """Read rows of a prediction file on one object, all of one of its `groups`. Errors as `make`."""
        if point_forms(predictions)[0]:
            start = start_of_rows(predictions, object_mesh, model)
            return Request.make(start.hand_pose, object_mesh, start.object_pose, model=model, prior=start.prior)
        rows = slice(None)
        given, camera = hand_poses(predictions, rows, model), object_poses(predictions, rows)
        stated = Stated.of_rows(predictions, given, model, object_mesh.points)
        if camera is not None and not predictions.metric_depth.all():
            placed = ~torch.from_numpy(predictions.metric_depth)
            given, stated = depth_of_object(given, camera, object_mesh, model, stated, placed)
        joints = joints_fitted(predictions)
        return Request.make(given, object_mesh, camera, model=model, stated=stated, given_joints=joints)

    @property
    def usable(self) -> Tensor:
        """(B,) bool: rows without problems."""
        rows = torch.ones(len(self.pose), dtype=torch.bool)
        rows[list(self.problems)] = False
        return rows

    @property
    def mirrored(self) -> bool:
        """Everything inside is a right hand: a left one is refined in the mirror."""
        return self.pose.side == "left"

    def right_model(self) -> HandModel:
        """The right hand's model."""
        return right_of(self.model)

    def right_hands(self) -> HandPose:
        """The usable hands as right hands."""
        return (self.pose.mirrored() if self.mirrored else self.pose)[self.usable]

    def right_evidence(self) -> list[Evidence]:
        """What else is known of `right_hands`. Raises ``ValueError`` for terms that know no left hands."""
        evidence = list(self.evidence)
        if self.mirrored:
            for term in evidence:
                if not hasattr(term, "mirrored"):
                    name = type(term).__name__
                    raise ValueError(
                        f"terms: left hands are refined in a mirror that flips x; give {name} a method mirrored()."
                    )
            evidence = [term.mirrored() for term in evidence]
        return [term[self.usable] for term in evidence]

    def scene(self) -> ObjectMesh:
        """The object as right hands hold it."""
        return self.object.mirrored() if self.mirrored else self.object

    def answer(self, refined: Refined, scale: UncertaintyScale, config: RefineConfig) -> RefineResult:
        """The result, from what became of `right_hands`."""
        usable, count = self.usable, len(self.pose)
        rows = usable.nonzero()[:, 0]
        outcome = refined.pose.mirrored() if self.mirrored else refined.pose
        field = refined.field.mirrored() if self.mirrored else refined.field
        pose = self.pose.fill(rows, outcome)
        share = torch.zeros(count).index_copy(0, rows, refined.share)
        moved = share > 0
        accepted = torch.zeros(count, dtype=torch.bool).index_copy(0, rows, refined.accepted)
        before = self.model(self.pose)
        after = self.model(pose) if moved.any() else before
        back = into_camera_frame(pose, self.camera, self.model)

        metrics = self._measure(before, after, moved, config)

        def everywhere(values: Tensor) -> Tensor:
            return values.new_full((count, *values.shape[1:]), torch.nan).index_copy(0, rows, values)

        return RefineResult(
            # A pose that was kept is returned as it came, not as two changes of frame left it.
            pose=self.given.fill(moved.nonzero()[:, 0], back[moved]),
            initial_pose=self.given,
            vertices_before=before.vertices,
            vertices_after=after.vertices,
            joints_before=before.joints,
            joints_after=after.joints,
            contact=field.map(everywhere),
            metrics=metrics,
            status=statuses(usable, moved, accepted),
            reason=[self.problems.get(row, "") for row in range(count)],
            score_before=everywhere(refined.score_before).numpy(),
            score_after=everywhere(refined.score_after).numpy(),
            uncertainty=everywhere(scale.std(refined.variance, refined.accepted)).numpy(),
            steps=everywhere(refined.steps.float()).nan_to_num(0).numpy().astype(np.int64),
            object=self.object,
            object_pose=None if self.camera is None else self.camera.numpy(),
            faces=self.model.faces_for(self.pose.side).numpy(),
            hand_model=self.model,
            warnings=suspicions(
                Grasps(
                    self.given,
                    self.given_joints,
                    self.camera,
                    self.object,
                    self.model,
                    before.vertices,
                    after.vertices,
                    before.joints,
                    after.joints,
                    *(torch.from_numpy(metrics[f"contact_ratio_{when}"] > 0) for when in ("before", "after")),
                ),
                usable,
            ),
        )

    def _measure(self, before: Hand, after: Hand, moved: Tensor, config: RefineConfig) -> dict[str, np.ndarray]:
        """Penetration, crossing, shared volume, contact and, given keypoints, reprojection error before and after."""
        faces = self.model.faces_for(self.pose.side)
        picture = next((term for term in self.evidence if isinstance(term, Reprojection)), None)
        result: dict[str, np.ndarray] = {}
        for when, hand, changed in (("before", before, self.usable), ("after", after, moved)):
            if not changed.any():
                result |= {name.replace("before", "after"): value.copy() for name, value in result.items()}
                continue
            hands, rows = hand.vertices[changed], changed.numpy()
            values = {
                "penetration_mm": 1000 * penetration_depth(hands, self.object),
                "crossing_mm": 1000 * crossing_depth(hand.joints[changed], hands, self.object),
                "contact_ratio": contact_ratio(hands, self.object),
            }
            if config.volumes:
                values["volume_cm3"] = 1e6 * intersection_volume(hands, faces, self.object)
            if picture is not None:
                seen = picture[changed]
                values["reprojection_px"] = reprojection_error(seen.project(hand.joints[changed]), seen.known)
            for name, value in values.items():
                # A hand that was kept measures what it did.
                known = result.get(f"{name}_before")
                full = np.full(len(rows), np.nan, np.float32) if known is None else known.copy()
                full[rows] = np.asarray(value)
                result[f"{name}_{when}"] = full
        return result


def right_of(model: HandModel) -> HandModel:
    """The model of right hands."""
    return model if model.side == "right" else model.mirrored()
