"""Inverse kinematics: hand poses from 21 joints, or from a surface of the model's own topology.

Both are batched damped Gauss-Newton on the pose manifold with the model's analytic Jacobian
(`least_squares.minimize`), started from a closed form: Kabsch for the palm, then bone by bone the smallest
rotation that points it the right way ("swing" of Li et al., HybrIK, CVPR 2021; Kabsch 1976). Joint positions
leave the twist of the last phalanges open; a weak anatomical prior settles it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .anatomy import Anatomy, default_anatomy
from .least_squares import NormalEquations, Termination, minimize
from .model import HandModel
from .pose import TANGENT_DIM, HandPose, check_side
from .rotations import exp_so3, log_so3

_PALM = (0, 1, 5, 9, 13, 17)  # OpenPose: wrist and the first joint of every finger
_FINGER_STARTS = (5, 9, 17, 13, 1)  # OpenPose index of the first joint, fingers in MANO order
_MIRROR = (-1.0, 1.0, 1.0)
_CHUNK = 256  # hands solved at a time: bounds memory, costs no speed


@dataclass(frozen=True)
class FitConfig:
    """Weights of the inverse kinematics. Residuals are in units of their standard deviation."""

    point_sigma: float = 0.001
    """Expected error of the given points, metres."""
    pose_prior: float = 0.1
    """Weight of the anatomical grasping prior (1 = as informative as its standard deviations say)."""
    shape_prior: float = 1.0
    """Weight of betas ~ N(0, 1), when betas are fitted."""
    limit_sigma: float = 0.03
    """Standard deviation of excesses over the range of motion, radians; 0 switches limits off."""
    iterations: int = 40
    """Most Gauss-Newton evaluations."""


@dataclass(frozen=True)
class FitResult:
    """Fitted hands, one row for each given one."""

    pose: HandPose
    """Rows that could not be fitted are NaN."""
    error: Tensor
    """(B,) mean distance, metres, from the points that were given to the fitted ones; NaN if unusable."""
    max_error: Tensor
    """(B,) largest such distance, metres."""
    usable: Tensor
    """(B,) bool: enough finite points to place a hand."""
    converged: Tensor
    """(B,) bool: the optimiser stopped by itself."""
    iterations: Tensor
    """(B,) optimiser evaluations used."""


def fit_joints(
    joints: Any, model: HandModel, *, side: str = "right", betas: Any = None, weights: Any = None,
    config: FitConfig | None = None,
) -> HandPose:  # fmt: skip
    """Hand poses whose joints come closest to the given ones: `solve_joints(...).pose`."""
    return solve_joints(joints, model, side=side, betas=betas, weights=weights, config=config).pose


def solve_joints(
    joints: Any, model: HandModel, *, side: str = "right", betas: Any = None, weights: Any = None,
    config: FitConfig | None = None, anatomy: Anatomy | None = None,
) -> FitResult:  # fmt: skip
    """Batched inverse kinematics from joints.

    Args:
        joints: ``(B, 21, 3)`` or ``(21, 3)`` metres, OpenPose order. Joints that are not finite count as
            missing; a hand with fewer than four joints, or with all of them on a line, is unusable.
        model: the hand to fit.
        side: side of the hands.
        betas: ``(B, 10)`` or ``(10,)`` to hold the shape fixed; None to fit it under N(0, 1).
        weights: ``(B, 21)`` or ``(21,)`` confidence of each joint, 0 = missing, 1 = normal.
        config: weights and iterations; None for the defaults.
        anatomy: axes, limits and prior; None for those of MANO's mean hand.

    Raises:
        ValueError: naming the argument: wrong shape, unknown side, negative weights, joints not in metres.
    """
    config = config or FitConfig()
    target = _points("joints", joints, 21, model)
    used = _confidence(weights, target) * target.isfinite().all(-1)
    target = torch.where(used[..., None] > 0, target, torch.zeros_like(target))
    span = _spread(target, used)
    usable = ((used > 0).sum(1) >= 4) & (span[:, 1] > 2e-3)
    if usable.any():
        _check_metres("joints", span[usable, 0])
    mirror = _mirror_for(side, model)
    fixed = _fixed_betas(betas, len(target), model)
    anatomy = (anatomy or default_anatomy()).to(target)
    if not usable.all():
        warnings.warn(
            f"joints: {int((~usable).sum())} of {len(usable)} hands have fewer than four usable joints or all of "
            "them on a line; their poses are NaN.",
            stacklevel=3,
        )

    def evaluate(pose: HandPose) -> Tensor:
        return model.joints(pose)

    def start(points: Tensor, w: Tensor, shape: Tensor) -> HandPose:
        return _initial_from_joints(points, w, shape, model, anatomy)

    def jacobian(pose: HandPose, with_betas: bool) -> tuple[Tensor, Tensor]:
        nothing = torch.zeros(0, dtype=torch.long, device=target.device)
        j = model.jacobian(pose, nothing, with_betas=with_betas).joints
        return j.points, j.dense()

    return _solve(target * mirror, used, usable, fixed, side, model, anatomy, config, start, jacobian, evaluate)


def fit_vertices(
    vertices: Any, model: HandModel, *, side: str = "right", betas: Any = None, weights: Any = None,
    config: FitConfig | None = None,
) -> HandPose:  # fmt: skip
    """Hand poses whose surface comes closest to the given one: `solve_vertices(...).pose`."""
    return solve_vertices(vertices, model, side=side, betas=betas, weights=weights, config=config).pose


def solve_vertices(
    vertices: Any, model: HandModel, *, side: str = "right", betas: Any = None, weights: Any = None,
    config: FitConfig | None = None, max_points: int = 320,
) -> FitResult:  # fmt: skip
    """Pose and shape from surfaces with the model's own vertices, in its order.

    Every part of the hand is laid on its target by Kabsch, then all unknowns are refined together.

    Args:
        vertices: ``(B, V, 3)`` or ``(V, 3)`` metres; rows that are not finite count as missing.
        model: the hand whose topology the vertices have.
        side, betas, weights, config: as in `solve_joints`, weights ``(B, V)``. By default the range of
            motion is not enforced and the prior is faint: a surface says what the pose is.
        max_points: vertices used by the refinement, spread evenly; errors are over all vertices.

    Raises:
        ValueError: naming the argument; another number of vertices is another topology.
    """
    config = config or FitConfig(pose_prior=0.01, shape_prior=0.1, limit_sigma=0.0)
    count = len(model.template)
    target = _points("vertices", vertices, count, model)
    used = _confidence(weights, target) * target.isfinite().all(-1)
    target = torch.where(used[..., None] > 0, target, torch.zeros_like(target))
    span = _spread(target, used)
    usable = ((used > 0).sum(1) >= count // 2) & (span[:, 1] > 2e-3)
    if usable.any():
        _check_metres("vertices", span[usable, 0])
    mirror = _mirror_for(side, model)
    fixed = _fixed_betas(betas, len(target), model)
    if not usable.all():
        warnings.warn(
            f"vertices: {int((~usable).sum())} of {len(usable)} hands have fewer than half of their vertices; "
            "their poses are NaN.",
            stacklevel=3,
        )
    ids = _spread_over_parts(model, max_points)

    def start(points: Tensor, w: Tensor, shape: Tensor) -> HandPose:
        return _initial_from_vertices(points, w, shape, model)

    def jacobian(pose: HandPose, with_betas: bool) -> tuple[Tensor, Tensor]:
        j = model.jacobian(pose, ids, with_betas=with_betas).vertices
        return j.points, j.dense()

    def evaluate(pose: HandPose) -> Tensor:
        return model(pose).vertices

    anatomy = default_anatomy().to(target)
    return _solve(
        target * mirror, used, usable, fixed, side, model, anatomy, config, start, jacobian, evaluate, ids
    )  # fmt: skip


# The common solver ----------------------------------------------------------------------------------


@torch.no_grad()
def _solve(
    target: Tensor, used: Tensor, usable: Tensor, fixed: Tensor | None, side: str, model: HandModel,
    anatomy: Anatomy, config: FitConfig, start: Callable[[Tensor, Tensor, Tensor], HandPose],
    jacobian: Callable[[HandPose, bool], tuple[Tensor, Tensor]], evaluate: Callable[[HandPose], Tensor],
    ids: Tensor | None = None,
) -> FitResult:  # fmt: skip
    """Fit points given on the model's side, chunk by chunk, and fill the rows that are unusable with NaN."""
    batch = len(target)
    nan = HandPose.zeros(batch, side=model.side).to(target)
    nan = nan._map(lambda t: torch.full_like(t, torch.nan))
    fields = {name: getattr(nan, name) for name in ("global_orient", "hand_pose", "betas", "transl")}
    error, worst = target.new_full((batch,), torch.nan), target.new_full((batch,), torch.nan)
    converged, steps = torch.zeros_like(usable), torch.zeros(batch, dtype=torch.long, device=target.device)
    for rows in usable.nonzero()[:, 0].split(_CHUNK):
        w = used[rows]
        # Solved around the centroid, so that a hand far from the origin loses no float32 digits.
        centre = (target[rows] * w[..., None]).sum(1) / w.sum(1, keepdim=True)
        points = target[rows] - centre[:, None]
        shape = points.new_zeros(len(rows), 10) if fixed is None else fixed[rows]
        first = start(points, w, shape)
        subset, weight = (points, w) if ids is None else (points[:, ids], w[:, ids])
        linearize = _linearizer(subset, weight, fixed is None, anatomy, model.side, config, jacobian)
        solution = minimize(linearize, first, Termination(iterations=config.iterations))
        distance = (evaluate(solution.pose) - points).norm(dim=-1)
        given = w > 0
        error[rows] = (distance * given).sum(1) / given.sum(1)
        worst[rows] = distance.masked_fill(~given, 0).amax(1)
        converged[rows], steps[rows] = solution.converged, solution.iterations
        found = replace(solution.pose, transl=solution.pose.transl + centre)
        for name, values in fields.items():
            values[rows] = getattr(found, name)
    pose = HandPose(model.side, **fields)
    return FitResult(pose if side == model.side else pose.mirrored(), error, worst, usable, converged, steps)


def _linearizer(
    points: Tensor, weights: Tensor, with_betas: bool, anatomy: Anatomy, side: str, config: FitConfig,
    jacobian: Callable[[HandPose, bool], tuple[Tensor, Tensor]],
) -> Callable[[HandPose, Tensor], NormalEquations]:  # fmt: skip
    """Points, shape prior, pose prior and limits as normal equations for `minimize`."""
    dim = TANGENT_DIM + 10 * with_betas
    scale = weights.sqrt() / config.point_sigma
    # (45, 45): column k is the derivative of anatomical angle k by the axis-angle vectors.
    turn = torch.block_diag(*anatomy.basis.transpose(1, 2))
    if side == "left":  # angles of a left hand are those of its mirror image
        turn = turn * turn.new_tensor([1.0, -1.0, -1.0]).repeat(15)[:, None]
    mean, std = anatomy.mean.flatten(), anatomy.std.flatten()
    lower, upper = anatomy.lower.flatten(), anatomy.upper.flatten()

    def linearize(pose: HandPose, index: Tensor) -> NormalEquations:
        at, rows = jacobian(pose, with_betas)
        s = scale[index]
        residual = ((at - points[index]) * s[..., None]).transpose(1, 2).flatten(1)
        rows = (rows * s[:, None, None]).flatten(2)
        equations = NormalEquations.zeros(len(at), dim, at).add(residual, rows)
        angles = pose.hand_pose.flatten(1) @ turn
        equations = _add_angles(equations, config.pose_prior * (angles - mean) / std, turn * config.pose_prior / std)
        if config.limit_sigma > 0:
            excess = angles - torch.minimum(torch.maximum(angles, lower), upper)
            slope = (excess != 0) / config.limit_sigma
            equations = _add_angles(equations, excess / config.limit_sigma, turn * slope[:, None])
        if with_betas:
            slope = torch.full_like(pose.betas, config.shape_prior)
            equations = equations.add_diagonal(slope * pose.betas, slope, TANGENT_DIM)
        return equations

    return linearize


def _add_angles(equations: NormalEquations, residual: Tensor, turn: Tensor) -> NormalEquations:
    """Add residuals ``(B, 45)`` of the joint angles with derivative ``turn (45, 45)`` or ``(B, 45, 45)``."""
    rows = residual.new_zeros(len(residual), equations.gradient.shape[1], 45)
    rows[:, 6:TANGENT_DIM] = turn
    return equations.add(residual, rows)


# Closed-form starts ---------------------------------------------------------------------------------


def kabsch(source: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation ``(B, 3, 3)`` and translation ``(B, 3)`` with ``target ≈ R source + t``, least squares.

    Args:
        source, target: ``(B, N, 3)``.
        weights: ``(B, N)`` non-negative. Kabsch, Acta Cryst. A32, 1976, with the proper-rotation fix.
    """
    w = (weights / weights.sum(-1, keepdim=True).clamp_min(1e-12))[..., None]
    a, b = (w * source).sum(-2, keepdim=True), (w * target).sum(-2, keepdim=True)
    u, _, vt = torch.linalg.svd((w * (source - a)).transpose(-1, -2) @ (target - b))
    flip = torch.ones_like(a[..., 0, :])
    flip[..., 2] = torch.linalg.det(u @ vt).sign()
    rotation = vt.transpose(-1, -2) @ (flip[..., None] * u.transpose(-1, -2))
    return rotation, (b - a @ rotation.transpose(-1, -2))[..., 0, :]


def _initial_from_joints(
    points: Tensor, weights: Tensor, betas: Tensor, model: HandModel, anatomy: Anatomy
) -> HandPose:
    """Palm by Kabsch, fingers by pointing each bone along its target with the smallest rotation."""
    batch = len(points)
    flat = replace(HandPose.zeros(batch, side=model.side).to(points), betas=betas)
    rest = model.joints(flat)
    anchor = weights.new_full((21,), 1e-3)  # the fingers decide only where the palm is missing
    anchor[list(_PALM)] = 1.0
    prior = anatomy.from_anatomical(anatomy.mean, side=model.side).expand(batch, 15, 3)
    rotation, shift = kabsch(model.joints(replace(flat, hand_pose=prior)), points, weights * anchor)
    local = prior.clone()
    for finger, start in enumerate(_FINGER_STARTS):
        world = rotation
        for k in range(3):
            known = (weights[:, start + k] > 0) & (weights[:, start + k + 1] > 0)
            bone = rest[:, start + k + 1] - rest[:, start + k]
            wanted = points[:, start + k + 1] - points[:, start + k]
            swing = _swing(bone, (world.transpose(1, 2) @ wanted[..., None])[..., 0])
            joint = 3 * finger + k
            local[:, joint] = torch.where(known[:, None], swing, prior[:, joint])
            world = world @ exp_so3(local[:, joint])
    local = anatomy.clamp(local, side=model.side)
    return _placed(flat, rotation, shift, local, model)


def _initial_from_vertices(points: Tensor, weights: Tensor, betas: Tensor, model: HandModel) -> HandPose:
    """Every part laid on its target by Kabsch; joint rotations are those between neighbouring parts."""
    flat = replace(HandPose.zeros(len(points), side=model.side).to(points), betas=betas)
    rest = model.rest_vertices(betas)
    world, shift = [], torch.zeros_like(points[:, 0])
    for bone in range(len(model.parents)):
        # Squared weights: vertices that follow the bone alone count most.
        follow = model.weights[:, bone] ** 2
        rotation, move = kabsch(rest, points, weights * follow)
        world.append(rotation)
        shift = move if bone == 0 else shift
    local = [log_so3(world[p].transpose(1, 2) @ world[k]) for k, p in enumerate(model.parents) if p >= 0]
    return _placed(flat, world[0], shift, torch.stack(local, 1), model)


def _placed(flat: HandPose, rotation: Tensor, shift: Tensor, hand_pose: Tensor, model: HandModel) -> HandPose:
    """The pose whose palm is moved by ``x -> rotation x + shift`` from rest."""
    return replace(flat, hand_pose=hand_pose).transformed(rotation, shift, model.root(flat))


def _swing(start: Tensor, end: Tensor) -> Tensor:
    """Smallest rotation ``(B, 3)``, axis-angle, that turns direction ``start`` to ``end``."""
    axis = torch.linalg.cross(start, end)
    sine = axis.norm(dim=-1, keepdim=True)
    angle = torch.atan2(sine, (start * end).sum(-1, keepdim=True))
    return axis / sine.clamp_min(1e-12) * angle


# Checking arguments ---------------------------------------------------------------------------------


def _points(name: str, value: Any, count: int, model: HandModel) -> Tensor:
    """``(B, count, 3)`` in the model's type and on its device."""
    like = model.template
    try:
        points = torch.as_tensor(value if isinstance(value, Tensor) else np.asarray(value))
        points = points.detach().to(device=like.device, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: not an array of numbers ({error}).") from None
    if points.ndim == 2:
        points = points[None]
    if points.ndim != 3 or points.shape[1:] != (count, 3):
        mend = "21 joints in OpenPose order" if name == "joints" else f"the {count} vertices of hand {model.name!r}"
        raise ValueError(f"{name}: got shape {tuple(points.shape)}; expected (B, {count}, 3), {mend}.")
    return points.to(like.dtype)


def _confidence(weights: Any, target: Tensor) -> Tensor:
    if weights is None:
        return torch.ones_like(target[..., 0])
    w = torch.as_tensor(weights if isinstance(weights, Tensor) else np.asarray(weights)).to(target)
    if w.shape not in (target.shape[:2], target.shape[1:2]):
        raise ValueError(f"weights: got shape {tuple(w.shape)}; expected {tuple(target.shape[:2])}, one per point.")
    if not (w.isfinite() & (w >= 0)).all():
        raise ValueError("weights: negative or not finite; pass 0 for a missing point and 1 for a normal one.")
    return w.expand(target.shape[:2])


def _fixed_betas(betas: Any, batch: int, model: HandModel) -> Tensor | None:
    if betas is None:
        return None
    b = torch.as_tensor(betas if isinstance(betas, Tensor) else np.asarray(betas)).to(model.template)
    if b.shape not in ((batch, 10), (1, 10), (10,)) or not b.isfinite().all():
        raise ValueError(f"betas: got shape {tuple(b.shape)}; expected finite ({batch}, 10) or (10,), or None to fit.")
    return b.expand(batch, 10)


def _mirror_for(side: str, model: HandModel) -> Tensor:
    same = check_side(side) == model.side
    return model.template.new_tensor((1.0, 1.0, 1.0) if same else _MIRROR)


def _spread(points: Tensor, used: Tensor) -> Tensor:
    """(B, 3) root mean square extent, metres, along the principal axes of the given points."""
    w = (used > 0).to(points)[..., None]
    n = w.sum(1, keepdim=True).clamp_min(1)
    centred = (points - (points * w).sum(1, keepdim=True) / n) * w
    return torch.linalg.svdvals(centred) / n[:, 0].sqrt()


def _check_metres(name: str, extent: Tensor) -> None:
    """Hands have an RMS extent of 2-6 cm; a wrong unit is off by at least ten."""
    middle = float(extent.median())
    if middle > 0.3 or middle < 0.004:
        raise ValueError(
            f"{name}: the hands have an RMS extent of {middle:.3g} m, a human hand about 0.05; "
            "pass metres (millimetres: divide by 1000)."
        )


def _spread_over_parts(model: HandModel, count: int) -> Tensor:
    """At most ``count`` vertex ids, farthest-point order, so that every finger has its share."""
    vertices = model.template
    if len(vertices) <= count:
        return torch.arange(len(vertices), device=vertices.device)
    chosen = [0]
    distance = (vertices - vertices[0]).norm(dim=1)
    for _ in range(count - 1):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (vertices - vertices[chosen[-1]]).norm(dim=1))
    return torch.tensor(sorted(chosen), device=vertices.device)
