"""A motion as one problem: right hands over time at what they hold, solved for together.

Three solves, each from where the last one ended: the input smoothed as its error in time allows; the same with hands
that hold kept still in the object's frame; and with the contact that the network sees, and nothing sunk in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from contact.field import ContactField
from contact.input_error import CAMERA, TRACKING, InputError
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from contact.terms import SkinOnSurface, SpheresOutside
from hand_models import HandModel, HandPose
from hand_models.pose import TANGENT_DIM
from hand_models.record import Record, shared
from hand_models.solver.least_squares import Termination, minimize
from hand_models.solver.motion import KNUCKLES, CorrelatedInput, InFrame, MovesWith
from hand_models.solver.point_forces import PointForces
from hand_models.solver.sequence import Acceleration, PerFrame, SequenceState
from hand_models.solver.states import HandState, Term
from hand_models.solver.terms import Displaced, JointLimits

from ..config import RefineConfig
from ..evidence.error_in_time import CORRELATION, ErrorInTime, level_and_change, white_shares
from ..evidence.motion_inputs import HASTE
from .fields import load_weights, predict_field, weights_path
from .holding import MOST, holding, log_odds, nearness
from .optimize import field_terms, joint_variance, soft_tissue

_IN_HAND = (0.0013, 0.015)
"""Metres and radians a frame: place and turn of a hand in the frame of what it holds; fitted to motions made from
grasps on held-out objects, with what trackers err by"""
_LASTS = level_and_change(0.0)[0]
"""What a frame counts for of what lasts as long as a drift does: what is wrong with one frame is so with the next."""
_SHARE = CAMERA.share
"""How much of an observation of its own each joint is that the network sees: they are off together, finger by finger"""
_FREE_DEPTH = 0.004
"""metres of penetration that tell nothing: grasps of the corpus have as much in the mean (docs/corpus.md)"""
_DEPTH_STD = 0.0015 / _LASTS**0.5
"""metres beyond them that count as one: a hand that is too deep in one frame is so in the next"""
_EVERY = 3  # frames that one look of the network serves
_NETWORK_BATCH = 16
_SETTLED = Termination(iterations=12)


@dataclass(frozen=True)
class MotionInput:
    """``T`` frames of one right hand at an object, in the object's frame."""

    pose: HandPose
    known: Tensor
    """(T,) bool: frames that were given; the others of ``pose`` are guesses"""
    error: InputError | Tensor
    """how the hand may be off, or its covariance ``(51, 51)`` in the frame that hands were given in"""
    rotation: Tensor
    """(T, 3, 3) object to the frame that hands were given in, in which their error lasts, and they move smoothly"""
    shift: Tensor
    """(T, 3) metres, of the object in that frame"""
    view: Tensor
    """(T, 3) unit vectors along the line of sight; of use where the error is along it"""
    rate: float = 1.0
    """frames a second, over 30"""
    evidence: tuple[Term, ...] = ()
    """terms about single frames"""
    holding: Tensor | None = None
    """(T,) 1 in frames in which the hand is known to hold, 0 where it is known not to, NaN elsewhere"""
    others: tuple[Around, ...] = ()
    """what else the hand must not enter"""

    def rows(self, rows: slice) -> MotionInput:
        """Some of the frames."""
        frames = {name: getattr(self, name)[rows] for name in ("pose", "known", "rotation", "shift", "view")}
        return replace(
            self,
            **frames,
            evidence=tuple(term[rows] for term in self.evidence),
            holding=None if self.holding is None else self.holding[rows],
            others=tuple(other[rows] for other in self.others),
        )


@dataclass(frozen=True)
class MotionSolved:
    """What became of a `MotionInput`."""

    pose: HandPose
    holding: Tensor
    """(T,) probability"""
    variance: Tensor
    """(T, 21) square metres per axis, of the joints"""
    look: Tensor
    """(T,) which row of `field` is nearest to each frame; the network looks at every third that may hold"""
    field: ContactField | None
    """(K) what it saw; None where it looked at nothing"""
    iterations: int


@dataclass(frozen=True, eq=False)
class Around(Record):
    """Skin does not enter another body than the one in whose frame the hand is, such as another part of the object."""

    rotation: Tensor
    """(T, 3, 3) the hand's frame to the body's"""
    shift: Tensor
    """(T, 3)"""
    objects: ObjectSet = shared()
    allowance: float = _FREE_DEPTH
    std: float = _DEPTH_STD

    def linearize(self, state: HandState) -> list[PointForces]:
        points = state.skin.points @ self.rotation.transpose(1, 2) + self.shift[:, None]
        distance, gradient = self.objects.grid.query(points, torch.zeros(len(points), dtype=torch.long))
        depth = (-distance - self.allowance).clamp_min(0)
        slope = (depth > 0).to(depth) * (-1 / self.std)
        return [PointForces.along(state.skin, gradient @ self.rotation, (depth / self.std, slope))]


@torch.no_grad()
def solve_motion(motion: MotionInput, mesh: ObjectMesh, model: HandModel, config: RefineConfig) -> MotionSolved:
    """Refine a motion. Raises ``FileNotFoundError`` when the weights do not exist."""
    length, objects = len(motion.pose), ObjectSet.of([mesh])
    skin = model.contact_points[: config.skin_points]
    given, shares, std = input_over_time(motion, model)
    terms: list[Term] = [given, _acceleration(shares, motion, model)]
    if motion.evidence:
        terms.append(PerFrame(motion.evidence, 1, length))
    used = 0

    def solve(pose: HandPose, more: Sequence[Term]) -> HandPose:
        nonlocal used
        state = SequenceState(HandState.of(pose, model, skin), length)
        found = minimize(state, [*terms, *more], _SETTLED)
        used += int(found.iterations[0])
        return found.state.frames.pose

    def covariance(pose: HandPose, more: Sequence[Term]) -> Tensor:
        """(T, 51, 51) of each hand, the others free."""
        state = SequenceState(HandState.of(pose, model, skin), length)
        parts = [part for term in (*terms, *more) for part in term.linearize(state)]
        return state.assemble(parts).variances()[0]

    smooth = solve(motion.pose, [])
    odds, middle = _near(smooth, std, shares, objects, model)
    held = _holding(odds, middle, std, shares, motion)
    still = _in_hand(held, motion)
    pose = solve(smooth, [replace(still, robust=100.0)])  # convex first: from far away all steps look like outliers
    pose = solve(pose, [still])
    odds, middle = _near(pose, std, shares, objects, model)
    may_hold = ((odds > -MOST) | (held > 0.05)).nonzero()[:, 0]
    seen = may_hold[(len(may_hold) - 1) % _EVERY // 2 :: _EVERY].contiguous()  # as many before as after
    field = _look(objects, model, pose[seen], covariance(pose, [still])[seen], config) if len(seen) else None
    if field is not None:
        assert field.holding is not None
        odds = odds + log_odds(field.holding[_look_of(seen, length)])
    held = _holding(odds, middle, std, shares, motion)
    of_frames = [*_contact(pose, held, seen, field, objects, model, config), *motion.others]
    last = [_in_hand(held, motion), PerFrame(tuple(of_frames), 1, length)]
    pose = solve(pose, last)
    variance = _joint_variance(HandState.of(pose, model, skin), covariance(pose, last))
    return MotionSolved(pose, held, variance, _look_of(seen, length), field, used)


def input_over_time(motion: MotionInput, model: HandModel) -> tuple[CorrelatedInput, ErrorInTime, float]:
    """The input as a term, how its error lies in time, and metres that a hand's middle is off by along any axis."""
    pose, length, error = motion.pose, len(motion.pose), motion.error
    rotation = motion.rotation.to(pose.transl)
    turned = torch.zeros(length, TANGENT_DIM, TANGENT_DIM)
    turned[:, :3, :3] = turned[:, 3:6, 3:6] = rotation  # from the object's frame to that of the hands
    turned[:, 6:, 6:] = torch.eye(45)
    across = torch.zeros(length, 3, 3)
    if isinstance(error, InputError):
        # What the picture shows is about the joints themselves: its derivative by a pose that is off by much is wrong.
        precision = turned @ replace(error, picture=torch.inf).precision(pose, model, motion.view) @ turned.mT
        whole = error.precision(pose, model, motion.view)
        if error.along is not None:
            projection = torch.eye(3) - motion.view[:, :, None] * motion.view[:, None]
            across = projection @ rotation.mT * (error.share**0.5 / error.picture)
    else:
        precision = torch.linalg.inv(error.double()).expand(length, -1, -1)
        whole = turned.mT.double() @ precision @ turned.double()
    factor = torch.linalg.cholesky(precision.double()).to(pose.transl)
    variance = torch.linalg.inv(whole.double()).diagonal(dim1=1, dim2=2).mean(0)
    of_groups = tuple(float(variance[group].mean()) for group in (slice(0, 3), slice(3, 6), slice(6, TANGENT_DIM)))
    in_hands_frame = pose.transformed(rotation, torch.zeros(3), model.root(pose))
    shares = white_shares(in_hands_frame[motion.known], of_groups)  # type: ignore[arg-type]
    weights = [level_and_change(s, CORRELATION ** (1 / motion.rate)) for s in (shares.place, shares.turn, shares.bend)]
    level, change = (
        torch.tensor([w[k] for w, n in zip(weights, (3, 3, 45), strict=True) for _ in range(n)]).expand(length, -1)
        for k in (0, 1)
    )
    factor = turned.mT @ factor * motion.known[:, None, None]
    term = CorrelatedInput(
        length, pose, factor, level, change, model.joints(pose), across * motion.known[:, None, None]
    )
    return term, shares, max(of_groups[0], 1e-8) ** 0.5


def _acceleration(shares: ErrorInTime, motion: MotionInput, model: HandModel) -> InFrame:
    """Smooth, as far as the error is new in every frame: of a drift, smoothing tells nothing."""
    parts = zip(HASTE, (shares.place, shares.turn, shares.bend), strict=True)
    smooth = Acceleration(*(std / motion.rate**2 / max(share, 1e-4) ** 0.5 for std, share in parts))
    root, rotation, picture = model.root(motion.pose), motion.rotation, None
    shift = (rotation @ root[..., None])[..., 0] + motion.shift
    if isinstance(motion.error, InputError) and motion.error.along is not None:
        depth = (rotation @ motion.pose.transl[..., None])[:, 2, 0] + shift[:, 2]
        picture = float(depth.median())
    return InFrame(len(root), rotation, shift, smooth, picture)


def _in_hand(held: Tensor, motion: MotionInput) -> MovesWith:
    """A hand that holds stays in the object's frame: between two frames in both of which it does. Its fingers need
    not keep still.

    Where the picture shows where the hand is across the view, its steps count along the view alone. Across it they
    would say one thing only: the nearer a hand is to where it seems to turn about, the less it seems to move, and
    small errors of the object's turns pass for a depth.
    """
    place, turn = (std * motion.rate**-0.5 for std in _IN_HAND)
    counts = torch.eye(3).repeat(len(held), 1, 1)
    if isinstance(motion.error, InputError) and motion.error.along is not None:
        between = normalize(motion.view + torch.cat([motion.view[1:], motion.view[-1:]]), dim=1)
        counts = between[:, :, None] * between[:, None]
    return MovesWith(len(held), torch.cat([held[:-1] * held[1:], held[-1:]]), counts, place, turn)


def _near(
    pose: HandPose, std: float, shares: ErrorInTime, objects: ObjectSet, model: HandModel
) -> tuple[Tensor, Tensor]:
    """Log odds ``(T,)`` that the hand holds, by how near it is, and the middle of its knuckles ``(T, 3)``."""
    which = torch.zeros(len(pose), dtype=torch.long)
    closest, middle = [], []
    for rows in torch.arange(len(pose)).split(64):
        hand = model(pose[rows])
        skin = hand.vertices[:, model.contact_points]
        closest.append(objects.grid.query(skin, which[rows])[0].amin(1))
        middle.append(hand.joints[:, KNUCKLES].mean(1))
    left = torch.full((len(pose),), max(_lasting(std, shares), 0.3 * std, 0.002))
    return nearness(torch.cat(closest), left), torch.cat(middle)


def _holding(odds: Tensor, middle: Tensor, std: float, shares: ErrorInTime, motion: MotionInput) -> Tensor:
    """(T,) probability that the hand holds, see `refine.solve.holding`."""
    drift = _lasting(std, shares) * (2 * (1 - CORRELATION) / motion.rate) ** 0.5
    return holding(odds, middle, drift, motion.rate, motion.holding)


def _lasting(std: float, shares: ErrorInTime) -> float:
    """Metres per axis of a hand's error that smoothing leaves, for it lasts."""
    return (1 - shares.place) ** 0.5 * std


def _look(
    objects: ObjectSet, model: HandModel, pose: HandPose, covariance: Tensor, config: RefineConfig
) -> ContactField:
    """What the network sees of ``pose``, told how that may be off."""
    network = load_weights(weights_path(config))
    parts = torch.arange(len(pose)).split(_NETWORK_BATCH)
    which = torch.zeros(len(pose), dtype=torch.long)
    return ContactField.cat(
        [predict_field(network, model, objects, which[rows], pose[rows], covariance[rows]) for rows in parts]
    )


def _look_of(seen: Tensor, length: int) -> Tensor:
    """(T,) which of the looks at the frames ``seen (K,)`` is the nearest to each frame."""
    return torch.searchsorted(0.5 * (seen[1:] + seen[:-1]), torch.arange(length, dtype=torch.float32))


def _contact(
    pose: HandPose, held: Tensor, seen: Tensor, field: ContactField | None, objects: ObjectSet, model: HandModel,
    config: RefineConfig,
) -> list[Term]:  # fmt: skip
    """Terms of single frames: what the network sees of hands that hold, no penetration, joints within their range.

    What it sees of one frame it sees of the next, and joints that are past their range are so for long: a frame counts
    for as little as one of a drift.
    """
    length, costs = len(pose), config.costs
    skin, which = model.contact_points[: config.skin_points], torch.zeros(len(pose), dtype=torch.long)
    yields = _FREE_DEPTH + torch.cat(
        [
            soft_tissue(objects, which[rows], model(pose[rows]).vertices[:, skin], costs)
            for rows in torch.arange(length).split(64)
        ]
    )
    bones = torch.full_like(yields[:, :1], _FREE_DEPTH + costs.soft_tissue)
    terms: list[Term] = []
    touch = torch.zeros_like(yields)
    if field is not None:
        look = _look_of(seen, length)
        sure = (2 * held - 1).clamp_min(0)  # a hand that may not hold is not drawn to the object
        weight = sure * _LASTS * _SHARE
        targets = field_terms(model, objects, which[seen], pose[seen], field, config)[look]
        joints = replace(targets.joints, weight=targets.joints.weight * weight)
        alike = replace(targets.correspondences, weight=targets.correspondences.weight * weight[:, None])
        together = joints.covariance.mean(1) / weight[:, None, None].clamp_min(1e-6)
        terms.append(Displaced((alike, joints), together))
        touch = targets.touch * weight[:, None]
    return [
        *terms,
        # A hand and its object, as tracked, lie a little off one another: that is not for the fingers to make up for.
        Displaced(
            (
                SkinOnSurface(which, touch, yields, objects.grid, costs.contact_std, _DEPTH_STD),
                SpheresOutside(which, bones, objects.grid, _DEPTH_STD),
            ),
            (TRACKING.translation**2 / _LASTS * torch.eye(3)).expand(length, 3, 3),
        ),
        JointLimits(model.anatomy, costs.limits_std / _LASTS**0.5),
    ]


def _joint_variance(frames: HandState, covariance: Tensor) -> Tensor:
    """(T, 21) square metres per axis of the joints, from the unknowns' covariance ``(T, 51, 51)``."""
    return torch.cat(
        [
            joint_variance(frames[rows], torch.linalg.inv(covariance[rows]))
            for rows in torch.arange(len(frames)).split(256)
        ]
    )
