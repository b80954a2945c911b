"""What was asked for and how it is answered: from any form of input to right hands at an object, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contact.objects import ObjectMesh, read_source
from contact.objects.hierarchy import LEVELS
from hand_models import HandModel, HandPose

from .config import RefineConfig
from .evidence.inputs import as_hand_pose, as_object_pose, check_reach
from .files.prediction_poses import into_camera_frame, into_object_frame
from .measure.metrics import contact_ratio, intersection_volume, penetration_depth
from .result import RefineResult, statuses
from .solve.refine_hands import Refined
from .solve.uncertainty import UncertaintyScale


@dataclass(frozen=True)
class Request:
    """``B`` hands of one side on one object."""

    given: HandPose
    """as they came"""
    pose: HandPose
    """in the object's frame"""
    object: ObjectMesh
    camera: Tensor | None
    """(B, 4, 4) object to camera, when the hands came in the camera's frame"""
    finite: Tensor
    """(B,) bool"""
    model: HandModel

    @staticmethod
    def make(
        hand_pose: Any,
        obj: ObjectMesh,
        object_pose: Any,
        side: str,
        model: HandModel,
        name: str = "hand_pose",
    ) -> Request:
        """Read the arguments of `refine_grasp`.

        Raises:
            ValueError: an argument is of the wrong kind, shape, unit or frame; all hands are NaN.
        """
        given = as_hand_pose(hand_pose, model, side)
        camera = None
        if object_pose is not None:
            rotation, translation = as_object_pose(object_pose, len(given))
            camera = torch.eye(4).repeat(len(given), 1, 1)
            camera[:, :3, :3], camera[:, :3, 3] = rotation, translation
        finite = given.finite()
        if not finite.any():
            raise ValueError(f"{name}: every hand holds NaN or infinity; check the estimator's output.")
        pose = into_object_frame(given, camera, model)
        check_reach(pose, model, obj.points.mean(0), float(obj.diameter))
        return Request(given, pose, obj, camera, finite, model)

    @property
    def mirrored(self) -> bool:
        """Everything inside is a right hand: a left one is refined in the mirror."""
        return self.pose.side == "left"

    def right_model(self) -> HandModel:
        """The right hand's model."""
        return self.model if self.model.side == "right" else self.model.mirrored()

    def right_hands(self) -> HandPose:
        """The finite hands as right hands."""
        return (self.pose.mirrored() if self.mirrored else self.pose)[self.finite]

    def scene(self) -> ObjectMesh:
        """The object as right hands hold it."""
        return self.object.mirrored() if self.mirrored else self.object

    def answer(self, refined: Refined, scale: UncertaintyScale, config: RefineConfig) -> RefineResult:
        """The result, from what became of `right_hands`."""
        rows, count = self.finite.nonzero()[:, 0], len(self.pose)
        outcome = refined.pose.mirrored() if self.mirrored else refined.pose
        field = refined.field.mirrored() if self.mirrored else refined.field
        pose = self.pose.fill(rows, outcome)
        share = torch.zeros(count).index_copy(0, rows, refined.share)
        moved = share > 0
        accepted = torch.zeros(count, dtype=torch.bool).index_copy(0, rows, refined.accepted)
        before = self.model(self.pose)
        after = self.model(pose) if moved.any() else before
        back = into_camera_frame(pose, self.camera, self.model)

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
            metrics=self._measure(before.vertices, after.vertices, moved, config),
            status=statuses(self.finite, moved, accepted),
            score_before=everywhere(refined.score_before).numpy(),
            score_after=everywhere(refined.score_after).numpy(),
            uncertainty=everywhere(scale.std(refined.variance, refined.accepted)).numpy(),
            steps=everywhere(refined.steps.float()).nan_to_num(0).numpy().astype(np.int64),
            object=self.object,
            object_pose=None if self.camera is None else self.camera.numpy(),
            faces=self.model.faces_for(self.pose.side).numpy(),
            hand_model=self.model,
        )

    def _measure(
        self, before: Tensor, after: Tensor, moved: Tensor, config: RefineConfig
    ) -> dict[str, np.ndarray]:
        """Penetration depth, intersection volume and contact of the hands before and after."""
        faces = self.model.faces_for(self.pose.side)
        result: dict[str, np.ndarray] = {}
        for when, vertices, changed in (("before", before, self.finite), ("after", after, moved)):
            if not changed.any():
                result |= {name.replace("before", "after"): value.copy() for name, value in result.items()}
                continue
            hands, rows = vertices[changed], changed.numpy()
            values = {
                "penetration_mm": 1000 * penetration_depth(hands, self.object),
                "contact_ratio": contact_ratio(hands, self.object),
            }
            if config.volumes:
                values["volume_cm3"] = 1e6 * intersection_volume(hands, faces, self.object)
            for name, value in values.items():
                # A hand that was kept measures what it did.
                known = result.get(f"{name}_before")
                full = np.full(len(rows), np.nan, np.float32) if known is None else known.copy()
                full[rows] = np.asarray(value)
                result[f"{name}_{when}"] = full
        return result


def as_object(object_mesh: Any, side: str = "right") -> ObjectMesh:
    """The object in the form the network needs; ``ValueError`` when it was made with other points.

    For left hands its points are drawn in the mirror, where these are refined: a scene and its mirror image
    then give the same problem.
    """
    obj = None
    if side == "left" and not isinstance(object_mesh, ObjectMesh):
        vertices, faces, name = read_source(object_mesh)
        if vertices.ndim == faces.ndim == 2 and vertices.shape[1] == 3:
            mirror = (vertices * np.array([-1.0, 1.0, 1.0]), faces[:, ::-1])
            obj = ObjectMesh.from_any(mirror, name=name).mirrored()
    obj = ObjectMesh.from_any(object_mesh) if obj is None else obj
    if len(obj.points) != LEVELS[0]:
        raise ValueError(
            f"object_mesh: an ObjectMesh of {len(obj.points)} points; make it with n_points={LEVELS[0]}, the default."
        )
    return obj
