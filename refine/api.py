"""`refine_grasp`: noisy hands and an object in, refined hands out. `refine_start`: the same from graph keypoints."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, cast, overload

import torch

from hand_models import HandModel, HandPose, load_hand_model

from .config import RefineConfig
from .evidence.graph_points import GraphStart, lay_on_points
from .evidence.inputs import is_pair
from .evidence.pose_prior import PosePrior
from .evidence.stated import Stated
from .files.prediction_poses import into_camera_frame, into_object_frame
from .request import Evidence, Request
from .result import RefinedStart, RefineResult, TwoHandResult
from .solve.fields import weights_path
from .solve.refine_hands import refine_right_hands
from .solve.samples import check_samples
from .solve.two_hands import OneHand, refine_two_hands
from .solve.uncertainty import load_scale

_Options = ParamSpec("_Options")


class _RefineGrasp(Protocol[_Options]):
    """What `refine_grasp` is to type checkers: the kind of its result follows from its first argument."""

    @overload  # Any is whatever is left over
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, hand_pose: Sequence[HandPose], *args: _Options.args, **options: _Options.kwargs
    ) -> TwoHandResult: ...

    @overload
    def __call__(self, hand_pose: Any, *args: _Options.args, **options: _Options.kwargs) -> RefineResult: ...


def _typed(function: Callable[Concatenate[Any, _Options], RefineResult | TwoHandResult]) -> _RefineGrasp[_Options]:
    return cast("_RefineGrasp[_Options]", function)


@_typed
def refine_grasp(
    hand_pose: Any,
    object_mesh: Any,
    *,
    object_pose: Any = None,
    scale: float | None = None,
    side: str | None = None,
    config: RefineConfig | None = None,
    hand_model: HandModel | None = None,
    seed: int = 0,
    input_error: Any = None,
    camera: Any = None,
    keypoints_2d: Any = None,
    confidence: Any = None,
    keypoint_sigma: Any = None,
    depth_points: Any = None,
    holding: Any = None,
    samples: int | None = None,
    prior: PosePrior | None = None,
    terms: Sequence[Evidence] = (),
) -> RefineResult | TwoHandResult:
    """Make a roughly right grasp physically right.

    A network predicts from the noisy hand and the object where they touch, which part of the hand touches
    where, and how sure it is; a Gauss–Newton solver moves the hand there without letting it sink in. How far the hand
    goes depends on how probable it is that it holds the object at all, and that the result is nearer the truth.

    Args:
        hand_pose: one hand or a batch of ``B``: a `HandPose`; a dict with ``global_orient (3)``,
            ``hand_pose (45)`` and optionally ``betas (10)``, ``transl (3)``, ``side``, and ``hand_model``, the
            name of the model that the betas belong to: those of another than is used here are left out, with a
            warning; a vector of 51 (``global_orient, hand_pose, transl``) or 61 (``global_orient, hand_pose,
            betas, transl``); or ``(21, 3)`` joints, metres, OpenPose order. Angles are axis-angle, absolute
            (``flat_hand_mean``). A list of hands of one
            side is a batch. Or a list of a right and a left hand (`HandPose` or dicts, ``B`` each) on the
            same object: they are refined together and do not enter one another; ``input_error``, ``keypoints_2d``,
            ``confidence``, ``keypoint_sigma``, ``depth_points`` and ``holding`` are then lists of two as well.
        object_mesh: a path, a ``trimesh.Trimesh``, ``(vertices, faces)`` or an `ObjectMesh`, metres unless ``scale``
            says otherwise.
        object_pose: 4×4 object to camera, or ``(B, 4, 4)``, when the hands are in the camera's frame;
            None when hand and object share a frame.
        scale: factor that brings the mesh to metres: 0.001 for millimetres, 0.01 for centimetres, 0.0254 for
            inches. Poses are in metres all the same.
        side: "right" or "left", for forms of ``hand_pose`` that do not say it; right when it is not given.
        config: see `RefineConfig`.
        hand_model: None for the open hand; `hand_models.load_hand_model("mano")` for MANO.
        seed: of everything random; equal inputs and seeds give equal results.
        input_error: how the hands may be off: a name ("camera": an image estimator's hands, off along the line of
            sight; "image", "contactopt": off in all directions by 2 and 5 cm; "tracker"; "exact"; "unknown"), an
            `InputError`, or a covariance ``(51, 51)`` or ``(B, 51, 51)`` of `HandPose.retract`'s numbers, metres and
            radians, in the object's frame; a list of names for one each. None: the network judges from what it sees.
        camera: intrinsics ``(3, 3)`` or ``(B, 3, 3)``, pixels, of the camera that `object_pose` is before; without
            `object_pose` the frame that hands and object share is its (OpenCV axes).
        keypoints_2d: ``(21, 2)`` or ``(B, 21, 2)`` pixels, OpenPose order, NaN where missing; needs ``camera``.
        confidence: of the keypoints, 0 to 1, ``(21,)`` or ``(B, 21)``: one of 0.25 is twice as far off.
        keypoint_sigma: pixels per axis that sure keypoints are off by, ``(21,)``, ``(B, 21)`` or a number; 3 by
            default.
        depth_points: ``(n, 3)`` or ``(B, n, 3)`` metres, measured by a depth camera on the skin that it sees, in the
            frame of the hand pose, NaN-padded.
        holding: whether the hands hold the object: True, as grasp benchmarks have it; False, and they are only brought
            out of it; or one of these, or None, for each hand. None, the default: judged from what is seen, and a hand
            that does not hold stays as it came, status ``apart``.
        samples: how many plausible hands to draw for each beside the one that is returned, which does not depend on
            it; each costs a solve. For single hands.
        prior: how sure each number of the ``B`` hands is, in the object's frame, where more is known of that than
            "roughly right"; see `refine.evidence.graph_points`. For single hands.
        terms: costs of your own that take part in the solve, in the object's frame (examples/06_your_own_term.py).
            For single hands.

    Returns:
        `RefineResult`; hands with NaN or infinity, or metres away from the object, come back as they are, status
        ``failed``, with the reason. For two hands a `TwoHandResult` of one `RefineResult` each:
        ``right, left = refine_grasp([right, left], mesh)``.

    Raises:
        ValueError: an argument is of the wrong kind, shape, unit or frame; no hand can be refined.
        FileNotFoundError: a mesh path or the weights do not exist.
    """
    config, model = _options(config, hand_model)
    check_samples(samples, config)
    stated = Stated(input_error, camera, keypoints_2d, confidence, keypoint_sigma, depth_points, holding)
    if is_pair(hand_pose):
        for name, value in (("prior", prior), ("terms", terms or None), ("samples", samples)):
            if value is not None:
                raise ValueError(f"{name}: is for single hands; refine the two one by one, or leave it out.")
        return _refine_pair(hand_pose, object_mesh, object_pose, scale, stated, model, config, seed)
    request = Request.make(
        hand_pose,
        object_mesh,
        object_pose,
        model=model,
        side=side,
        prior=prior,
        terms=terms,
        stated=stated,
        scale=scale,
    )
    _warn_of_problems(request)
    result = refine_request(request, config, seed, samples)
    _warn_of_suspicions([result])
    return result


def refine_request(request: Request, config: RefineConfig, seed: int = 0, samples: int | None = None) -> RefineResult:
    """`refine_grasp` for what has been read already. Raises ``FileNotFoundError`` when the weights do not exist."""
    hands = request.right_hands()
    refined = refine_right_hands(
        hands,
        [request.scene()],
        torch.zeros(len(hands), dtype=torch.long),
        request.right_model(),
        config,
        seed,
        request.right_evidence(),
        request.holding[request.usable],
        samples,
    )
    return request.answer(refined, load_scale(weights_path(config)), config)


def refine_start(
    start: GraphStart, *, optimise_object: bool = False, config: RefineConfig | None = None, seed: int = 0
) -> RefinedStart:
    """Refine what `from_graph` gives, weighing how sure it is.

    Args:
        optimise_object: the object moves too. What contact tells is how hand and object lie together;
            with this, the refined grasp is laid as one rigid body on all 29 points (six unknowns), so that the
            correction is shared between hand and object as their errors say. Otherwise the hand takes it all.
        config: of `refine_grasp`.
        seed: of everything random.
    """
    model = start.hand_model
    result = refine_grasp(
        start.hand_pose, start.object, object_pose=start.object_pose, config=config, hand_model=model, seed=seed,
        prior=start.prior,
    )  # fmt: skip
    if not optimise_object:
        return RefinedStart(result, result.pose, start.object_pose)
    joints, uncertainty = (torch.as_tensor(v).float() for v in (result.joints_after, result.uncertainty))
    pose = lay_on_points(start, joints, uncertainty)
    inside = into_object_frame(result.pose, start.object_pose, model)
    return RefinedStart(result, into_camera_frame(inside, pose, model), pose)


def _refine_pair(
    pair: Any,
    object_mesh: Any,
    object_pose: Any,
    scale: float | None,
    stated: Stated,
    model: HandModel,
    config: RefineConfig,
    seed: int,
) -> TwoHandResult:
    """`refine_grasp` for ``[right, left]`` or ``[left, right]``.

    Raises:
        ValueError: as `refine_grasp`; also for different numbers of them, or a method that knows single hands only.
    """
    if config.method != "regrasp":
        raise ValueError(
            f"config: method {config.method!r} knows single hands only; refine them one by one, or use 'regrasp'."
        )
    requests = [
        Request.make(hand, object_mesh, object_pose, model=model, stated=stated.of_hand(which), scale=scale)
        for which, hand in enumerate(pair)
    ]
    first, second = (request.pose for request in requests)
    if len(first) != len(second):
        raise ValueError(
            f"hand_pose: {len(first)} {first.side} and {len(second)} {second.side} hands; "
            "give as many of either, row by row of the same moment."
        )
    for request in requests:
        _warn_of_problems(request, stacklevel=4)
    hands = [OneHand(r.right_hands(), r.scene(), r.usable, r.right_evidence(), r.holding[r.usable]) for r in requests]
    found, before, after = refine_two_hands(hands, requests[0].right_model(), config, seed)
    uncertainty = load_scale(weights_path(config))
    one, other = (r.answer(f, uncertainty, config) for r, f in zip(requests, found, strict=True))
    _warn_of_suspicions([one, other], stacklevel=4)
    return TwoHandResult((one, other), 1e3 * before.numpy(), 1e3 * after.numpy())


def _warn_of_problems(request: Request, stacklevel: int = 3) -> None:
    """Say that there are rows which will come back as they are."""
    for row, reason in list(request.problems.items())[:1]:
        warnings.warn(
            f"hand_pose: {len(request.problems)} of {len(request.pose)} hands are not refined; row {row}: {reason}",
            stacklevel=stacklevel,
        )


def _warn_of_suspicions(results: Sequence[RefineResult], stacklevel: int = 3) -> None:
    """Say once that there are rows whose input looks wrong, and how that of the first does."""
    found = [(r.pose.side, row, texts) for r in results for row, texts in enumerate(r.warnings) if texts]
    for side, row, texts in found[:1]:
        which = f"row {row}" if len(results) == 1 else f"{side} hand, row {row}"
        more = f" (and {len(texts) - 1} more in result.warnings)" if len(texts) > 1 else ""
        warnings.warn(
            f"hand_pose: {len(found)} of {sum(map(len, results))} hands look wrong; {which}: {texts[0]}{more}",
            stacklevel=stacklevel,
        )


def _options(config: RefineConfig | None, hand_model: HandModel | None) -> tuple[RefineConfig, HandModel]:
    """Defaults where None is given; ``ValueError`` for anything but the two classes."""
    if config is not None and not isinstance(config, RefineConfig):
        raise ValueError(f"config: got {type(config).__name__}; pass a RefineConfig, e.g. RefineConfig(gate=False).")
    if hand_model is not None and not isinstance(hand_model, HandModel):
        raise ValueError(
            f"hand_model: got {type(hand_model).__name__}; pass a HandModel, e.g. load_hand_model('mano')."
        )
    return config or RefineConfig(), hand_model or load_hand_model("open")
