"""`refine_grasp`: noisy hands and an object in, refined hands out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch

from hand_models import HandModel, HandPose, load_hand_model

from .config import RefineConfig
from .evidence.inputs import as_hand_pose
from .evidence.pose_prior import PosePrior
from .request import Request, as_object
from .result import RefineResult
from .solve.fields import predict_field as predict_field
from .solve.fields import weights_path
from .solve.refine_hands import refine_right_hands
from .solve.two_hands import TwoHandResult, is_pair, refine_two_hands
from .solve.uncertainty import load_scale


@overload
def refine_grasp(
    hand_pose: Sequence[HandPose],
    object_mesh: Any,
    *,
    object_pose: Any = None,
    side: str = "right",
    config: RefineConfig | None = None,
    hand_model: HandModel | None = None,
    seed: int = 0,
    prior: PosePrior | None = None,
) -> TwoHandResult: ...


@overload
def refine_grasp(
    hand_pose: Any,
    object_mesh: Any,
    *,
    object_pose: Any = None,
    side: str = "right",
    config: RefineConfig | None = None,
    hand_model: HandModel | None = None,
    seed: int = 0,
    prior: PosePrior | None = None,
) -> RefineResult: ...


def refine_grasp(
    hand_pose: Any,
    object_mesh: Any,
    *,
    object_pose: Any = None,
    side: str = "right",
    config: RefineConfig | None = None,
    hand_model: HandModel | None = None,
    seed: int = 0,
    prior: PosePrior | None = None,
) -> RefineResult | TwoHandResult:
    """Make a roughly right grasp physically right.

    A network predicts from the noisy hand and the object where they touch, which part of the hand touches
    where, and how sure it is; a Gauss–Newton solver moves the hand there without letting it sink in. A hand
    that is already more plausible than what the solver finds is returned unchanged, status ``kept``.

    Args:
        hand_pose: one hand or a batch of ``B``: a `HandPose`; a dict with ``global_orient (3)``,
            ``hand_pose (45)`` and optionally ``betas (10)``, ``transl (3)``; a vector of 51
            (``global_orient, hand_pose, transl``) or 61 (``global_orient, hand_pose, betas, transl``); or
            ``(21, 3)`` joints, metres, OpenPose order. Angles are axis-angle, absolute (``flat_hand_mean``).
            Or a list of a right and a left hand (`HandPose` or dicts, ``B`` each) on the same object: they are
            refined together and do not enter one another.
        object_mesh: a path, a ``trimesh.Trimesh``, ``(vertices, faces)`` or an `ObjectMesh`, metres.
        object_pose: 4×4 object to camera, or ``(B, 4, 4)``, when the hands are in the camera's frame;
            None when hand and object share a frame.
        side: "right" or "left", for forms of ``hand_pose`` that do not say it.
        config: see `RefineConfig`.
        hand_model: None for the open hand; `hand_models.load_hand_model("mano")` for MANO.
        seed: of everything random; equal inputs and seeds give equal results.
        prior: how sure each number of the ``B`` hands is, in the object's frame, where more is known of that than
            "roughly right"; see `refine.evidence.initialize`. For single hands.

    Returns:
        `RefineResult`; hands with NaN or infinity come back as they are, status ``failed``. For two hands a
        `TwoHandResult` of one `RefineResult` each: ``right, left = refine_grasp([right, left], mesh)``.

    Raises:
        ValueError: an argument is of the wrong kind, shape, unit or frame; all hands are NaN.
        FileNotFoundError: a mesh path or the weights do not exist.
    """
    config, model = _options(config, hand_model)
    if is_pair(hand_pose):
        obj = as_object(object_mesh)
        if prior is not None:
            raise ValueError("prior: is for single hands; refine the two one by one, or leave it out.")
        return refine_two_hands(hand_pose, obj, object_pose, model, config, seed)
    given = as_hand_pose(hand_pose, model, side)
    request = Request.make(given, as_object(object_mesh, given.side), object_pose, side, model)
    hands = request.right_hands()
    if prior is not None:
        if len(prior.factor) != len(request.pose) or prior.mean.side != request.pose.side:
            raise ValueError(
                f"prior: of {len(prior.factor)} {prior.mean.side} hands; expected one for each of the "
                f"{len(request.pose)} {request.pose.side} hands."
            )
        prior = (prior.mirrored() if request.mirrored else prior)[request.finite]
    which = torch.zeros(len(hands), dtype=torch.long)
    evidence = [] if prior is None else [prior]
    refined = refine_right_hands(
        hands, [request.scene()], which, request.right_model(), config, seed, evidence
    )
    return request.answer(refined, load_scale(weights_path(config)), config)


def _options(config: RefineConfig | None, hand_model: HandModel | None) -> tuple[RefineConfig, HandModel]:
    """Defaults where None is given; ``ValueError`` for anything but the two classes."""
    if config is not None and not isinstance(config, RefineConfig):
        raise ValueError(
            f"config: got {type(config).__name__}; pass a RefineConfig, e.g. RefineConfig(gate=False)."
        )
    if hand_model is not None and not isinstance(hand_model, HandModel):
        raise ValueError(
            f"hand_model: got {type(hand_model).__name__}; pass a HandModel, e.g. load_hand_model('mano')."
        )
    return config or RefineConfig(), hand_model or load_hand_model("open")
