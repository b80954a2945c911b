"""What users hand in, turned into what the solver takes, with errors that say how to mend it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from contact.objects import ObjectMesh
from contact.objects.hierarchy import LEVELS
from hand_models import HandModel, HandPose, fit_joints
from hand_models.arguments import as_floats
from hand_models.pose import SIDES, check_side

from ..files.object_files import object_for
from ..files.prediction_poses import in_terms_of

_REACH = 1.5  # metres
_FORMS = (
    "a HandPose, a dict with global_orient and hand_pose, vectors of 51 (global_orient 3, hand_pose 45, transl 3) "
    "or 61 (… betas 10 before transl), or joints (21, 3)"
)


def as_hand_pose(value: Any, model: HandModel, side: str | None = None) -> HandPose:
    """Any accepted form of hands as a `HandPose`, float32 on the CPU.

    Args:
        value: `HandPose`; mapping of arrays, optionally with ``side`` and with ``hand_model``, the name of the model
            that its betas belong to (see `in_terms_of`; other forms have ``model``'s); ``(51,)`` or ``(B, 51)``
            ``[global_orient, hand_pose, transl]``; ``(61,)`` or ``(B, 61)`` ``[global_orient, hand_pose, betas,
            transl]``; joints ``(21, 3)`` or ``(B, 21, 3)``, metres, OpenPose order; or a list of `HandPose` and
            mappings of one side, which become one batch. Lists of numbers are arrays.
        model: hand that is fitted to joints, and in whose terms all are given.
        side: side of the hands, for forms that do not say it; None for right ones.

    Returns:
        The hands. Those given as joints with NaN or infinity are NaN.

    Raises:
        ValueError: another form or shape, joints that are not in metres, no hand at all; a list of hands of both
            sides, or of two that do not say theirs.
    """
    check_side(side or "right")
    pose = _listed(value, model, side) if _is_list_of_hands(value) else _any_form(value, model, side or "right")
    if len(pose) == 0:
        raise ValueError("hand_pose: holds no hands; give at least one.")
    return pose


def _any_form(value: Any, model: HandModel, side: str) -> HandPose:
    if isinstance(value, HandPose):
        return value.detach().to("cpu", torch.float32)
    if isinstance(value, Mapping):
        fields = {name: array for name, array in value.items() if name != "hand_model"}
        given = HandPose.from_arrays(fields, side=None if "side" in value else side).detach().to("cpu")
        return in_terms_of(model, given, value.get("hand_model", model.name))
    if isinstance(value, str | bytes) or value is None:
        raise ValueError(f"hand_pose: got {type(value).__name__}; pass {_FORMS}.")
    try:
        array = as_floats("hand_pose", value).cpu()
    except ValueError:
        raise ValueError(f"hand_pose: got {type(value).__name__}, not an array of numbers; pass {_FORMS}.") from None
    if array.shape[-2:] == (21, 3) and array.ndim <= 3:
        return _fitted(array.reshape(-1, 21, 3), model, side)
    if array.shape[-1:] in ((51,), (61,)) and array.ndim <= 2:
        rows = array.reshape(-1, array.shape[-1])
        fields = {"global_orient": rows[:, :3], "hand_pose": rows[:, 3:48], "transl": rows[:, -3:]}
        if rows.shape[1] == 61:
            fields["betas"] = rows[:, 48:58]
        return HandPose.from_arrays(fields, side=side)
    raise ValueError(f"hand_pose: got shape {tuple(array.shape)}; pass {_FORMS}.")


def as_joints(value: Any) -> Tensor | None:
    """The joints ``(B, 21, 3)`` that `as_hand_pose` fits hands to; None for hands in other forms."""
    if isinstance(value, HandPose | Mapping) or _is_list_of_hands(value):
        return None
    array = as_floats("hand_pose", value).cpu()
    return array.reshape(-1, 21, 3) if array.shape[-2:] == (21, 3) else None


def _fitted(joints: Tensor, model: HandModel, side: str) -> HandPose:
    """Hands fitted to ``(B, 21, 3)`` joints; NaN where these are not finite."""
    usable = joints.isfinite().flatten(1).all(1).nonzero()[:, 0]
    pose = HandPose.zeros(len(joints), side=side).map(lambda t: torch.full_like(t, torch.nan))
    if len(usable) == 0:
        return pose
    try:
        return pose.fill(usable, fit_joints(joints[usable], model, side=side).to("cpu", torch.float32))
    except ValueError as error:
        raise ValueError(f"hand_pose: {error}") from None


def is_pair(hand_pose: Any) -> bool:
    """Whether this is a list of a right and a left hand, which say so."""
    return _is_list_of_hands(hand_pose) and len(hand_pose) == 2 and set(_sides(hand_pose)) == set(SIDES)


def _is_list_of_hands(value: Any) -> bool:
    """Whether this is a list of hands, and not one array of numbers."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(h, HandPose | Mapping) for h in value)


def _sides(hands: Sequence[Any]) -> list[str | None]:
    """What the hands of a list say of their sides."""
    return [hand.side if isinstance(hand, HandPose) else hand.get("side") for hand in hands]


def _listed(hands: Sequence[Any], model: HandModel, side: str | None) -> HandPose:
    """A list of hands of one side as one batch."""
    sides = _sides(hands)
    if len(hands) == 2 and None in sides and side is None:
        raise ValueError(
            "hand_pose: two hands that do not both say their side; give each its 'side' ('right', 'left'), or pass "
            "side='right' for two right hands."
        )
    poses = [_any_form(hand, model, side or "right") for hand in hands]
    if len({pose.side for pose in poses}) > 1:
        raise ValueError(
            f"hand_pose: a list of {len(hands)} hands of both sides; pass one right and one left hand (batches of as "
            "many of either), or the hands of either side by themselves."
        )
    return HandPose.cat(poses)


def as_object(object_mesh: Any, side: str, scale: float | None = None) -> ObjectMesh:
    """The object for hands of ``side``, see `object_for`; ``ValueError`` when it was made with other points."""
    obj = object_for(object_mesh, side, scale=scale)
    if len(obj.points) != LEVELS[0]:
        raise ValueError(
            f"object_mesh: an ObjectMesh of {len(obj.points)} points; make it with n_points={LEVELS[0]}, the default."
        )
    return obj


def as_object_pose(value: Any, batch: int) -> Tensor:
    """A 4×4 object-to-camera pose, or one per hand, as ``(B, 4, 4)``.

    Raises:
        ValueError: wrong shape, not finite, or not a rigid motion.
    """
    try:
        pose = as_floats("object_pose", value).cpu()
    except ValueError:
        raise ValueError("object_pose: not numbers; pass a 4×4 object-to-camera matrix.") from None
    if pose.shape[-2:] != (4, 4) or pose.ndim > 3 or (pose.ndim == 3 and len(pose) not in (1, batch)):
        raise ValueError(f"object_pose: got shape {tuple(pose.shape)}; expected (4, 4) or ({batch}, 4, 4).")
    pose = pose.reshape(-1, 4, 4).expand(batch, 4, 4).clone()
    if not pose.isfinite().all():
        raise ValueError("object_pose: holds NaN or infinity; drop those frames or repair their object pose.")
    rotation = pose[:, :3, :3]
    gram = rotation @ rotation.transpose(1, 2)
    if (gram - torch.eye(3)).abs().amax() > 1e-2 or (torch.linalg.det(rotation) < 0).any():
        raise ValueError(
            "object_pose: its 3×3 part is not a rotation; pass a rigid object-to-camera pose (scale the mesh instead)."
        )
    if (pose[:, 3] - torch.tensor([0.0, 0.0, 0.0, 1.0])).abs().amax() > 1e-4:
        raise ValueError(
            "object_pose: its last row is not 0 0 0 1; pass the matrix that multiplies column vectors (transpose it?)."
        )
    return pose


def out_of_reach(pose: HandPose, model: HandModel, obj: ObjectMesh) -> dict[int, str]:
    """Hands, object frame, more than 1.5 m from the object's surface, and what is probably wrong: row → reason.

    That far away a unit or a frame was mistaken. Hands that are not finite are passed over.
    """
    wrist = model.root(pose) + pose.transl
    distance = (wrist - obj.points.mean(0)).norm(dim=-1) - obj.diameter / 2
    far = (distance.isfinite() & (distance > _REACH)).nonzero()[:, 0].tolist()
    return {
        row: f"the hand is {float(distance[row]):.1f} m away from the object; are transl in metres, and hand and "
        "object in one frame (else give object_pose)?"
        for row in far
    }
