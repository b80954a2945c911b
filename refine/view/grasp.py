"""A grasp as it is known (object, hand model, predicted contact) to what is shown of it, with distances measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import igl
import numpy as np
import torch
from torch import Tensor

from contact.field import ContactField
from contact.objects import ObjectMesh
from hand_models import HandModel

from .appearance import spread
from .pictures import GraspView


def grasp_view(
    mesh: ObjectMesh,
    model: HandModel,
    faces: np.ndarray,
    field: ContactField,
    hands: Mapping[str, Tensor],
    joints: Tensor,
    joint_sd: np.ndarray,
    **shown: Any,
) -> GraspView:
    """What is shown of one hand on one object. Metres, the object's frame.

    Args:
        faces: ``(F, 3)`` of the hand, closed at the wrist.
        field: predicted contact, a batch of this grasp alone: ``field[k]``.
        hands: ``(V, 3)`` "before", "after" and, where it is known, "truth".
        joints: ``(21, 3)`` after.
        joint_sd: ``(21,)`` metres.
        **shown: the words and numbers of `GraspView`.
    """
    template = model.template.numpy()
    touched = template[model.contact_points]
    after = hands["after"].numpy()

    def over_skin(values: Tensor) -> np.ndarray:
        return spread(touched, values, template)

    return GraspView(
        object_vertices=mesh.vertices.numpy(),
        object_faces=mesh.faces.numpy(),
        hand_faces=faces,
        before=hands["before"].numpy(),
        after=after,
        truth=hands["truth"].numpy() if "truth" in hands else None,
        object_points=mesh.points.numpy(),
        object_normals=mesh.normals.numpy(),
        object_contact=field.contact[0].numpy(),
        object_contact_sd=field.contact_var[0].sqrt().numpy(),
        hand_contact=over_skin(field.hand_contact[0]),
        hand_contact_sd=over_skin(field.hand_contact_var[0].sqrt()),
        uncertainty=spread(joints, joint_sd, after, radius=0.02),
        joints=joints.numpy(),
        joint_sd=joint_sd,
        parts=model.part_of_vertex.numpy(),
        open_faces=len(model.faces),
        **distances(mesh, faces, hands),
        **shown,
    )


def distances(mesh: ObjectMesh, faces: np.ndarray, hands: Mapping[str, Tensor]) -> dict[str, dict[str, np.ndarray]]:
    """`GraspView.skin_distance` and `object_distance` of some hands (V, 3), closed by ``faces (F, 3)``."""
    stacked = torch.stack(list(hands.values()))
    skin = mesh.grid.query(stacked)[0].numpy()
    points, triangles = mesh.points.double().numpy(), np.ascontiguousarray(faces, dtype=np.int64)
    # Winding numbers tell inside from outside where fingers touch or a hand meets itself.
    kind = igl.SIGNED_DISTANCE_TYPE_FAST_WINDING_NUMBER
    to_skin = [igl.signed_distance(points, hand.double().numpy(), triangles, kind)[0] for hand in stacked]
    return {
        "skin_distance": dict(zip(hands, skin, strict=True)),
        "object_distance": dict(zip(hands, to_skin, strict=True)),
    }
