"""A grasp as it is known (object, hand model, predicted contact) to what is shown of it, with distances measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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

_OF_THE_HAND = ("before", "after", "truth", "hand_contact", "hand_contact_sd", "uncertainty", "joints", "joint_sd",
                "skin_distance")  # fmt: skip
"""Fields of a view that two hands have one beside the other."""


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
    after = hands["after"].numpy()
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
        **skin_fields(model, after, field.hand_contact[0], field.hand_contact_var[0], joints.numpy(), joint_sd),
        **distances(mesh, faces, hands),
        **shown,
    )


def both_hands(views: Mapping[str, GraspView]) -> GraspView:
    """Views of two hands on one object, by the hand's side, as one: their triangles together, the contact of the two
    that is likelier, the distance that is smaller. What only one of them knows is left out."""
    first, second = views.values()

    def together(name: str, combine: Any) -> Any:
        one, other = getattr(first, name), getattr(second, name)
        if isinstance(one, Mapping):
            return {hand: combine(one[hand], other[hand]) for hand in one if hand in other}
        return None if one is None or other is None else combine(one, other)

    def beside(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.concatenate([one, other])

    def likelier(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.where(first.object_contact >= second.object_contact, one, other)  # type: ignore[operator]

    # Skin before caps, as the triangles of one hand are.
    cut = [np.split(v.hand_faces + shift, [v.open_faces or len(v.hand_faces)])
           for v, shift in ((first, 0), (second, len(first.after)))]  # fmt: skip
    return replace(
        first,
        hand_faces=np.concatenate([part for which in zip(*cut, strict=True) for part in which]),
        open_faces=sum(len(skin) for skin, _ in cut),
        parts=together("parts", lambda one, other: beside(one, other + one.max() + 1)),
        **{name: together(name, beside) for name in _OF_THE_HAND},
        **{name: together(name, likelier) for name in ("object_contact", "object_contact_sd")},
        object_distance=together("object_distance", np.minimum),
        status=" and ".join(dict.fromkeys(view.status for view in views.values())),
        explanation=" ".join(dict.fromkeys(f"{side} hand: {v.explanation}" for side, v in views.items())),
        warnings=[f"{side} hand: {text}" for side, view in views.items() for text in view.warnings],
        metrics={f"{label}, {side}": pair for side, view in views.items() for label, pair in view.metrics.items()},
    )


def skin_fields(
    model: HandModel, after: np.ndarray, contact: Tensor, variance: Tensor, joints: np.ndarray, joint_sd: np.ndarray
) -> dict[str, Any]:
    """What a view knows of one hand's skin ``after (V, 3)``: contact predicted at the model's points ``(P,)`` with its
    variance, and joints ``(21, 3)`` with their standard deviations ``(21,)``."""
    template = model.template.numpy()
    touched = template[model.contact_points]
    return {
        "hand_contact": spread(touched, contact, template),
        "hand_contact_sd": spread(touched, variance.sqrt(), template),
        "uncertainty": spread(joints, joint_sd, after, radius=0.02),
        "joints": joints,
        "joint_sd": joint_sd,
        "parts": model.part_of_vertex.numpy(),
        "open_faces": len(model.faces),
    }


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
