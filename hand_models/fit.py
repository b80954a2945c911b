"""Inverse kinematics: hand poses from 21 joints, or from a surface of the model's own topology.

Both are batched damped Gauss-Newton on the pose manifold with the model's analytic Jacobian
(`least_squares.minimize`), started from a closed form (`fit_start`). The cost is a negative log posterior:
points with Gaussian errors, betas ~ N(0, 1), the anatomical grasping prior, and stiff walls at the limits of
the range of motion. Where points leave something open, such as the twist of the last phalanges or a joint
that is missing, the prior decides; where points are good, it is outweighed.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .anatomy import Anatomy
from .arguments import as_floats
from .fit_start import start_from_joints, start_from_vertices
from .model import HandModel
from .pose import HandPose, check_side
from .solver.least_squares import Solution, Termination, minimize
from .solver.states import HandState, Term
from .solver.terms import AnglePrior, JointLimits, PointTargets, ShapePrior
from .surface import spread_points

_CHUNK = 256  # hands solved at a time: bounds memory, costs no speed
_FINEST = 0.0005  # smallest error assumed of given points, metres
_DOF = 36  # numbers that joints determine: 6 of motion, 20 of the digits, most betas
_UNIT = 0.05
"""Length unit of the solver, metres: about a hand's RMS extent, so that translations and rotations have
Hessians of one size and the solver's floor on the damping does not smother the weak unknowns."""


@dataclass(frozen=True)
class FitConfig:
    """Weights of the inverse kinematics. Residuals are in units of their standard deviation."""

    point_sigma: float | None = None
    """Expected error of the given points per axis, metres. None: estimated for each hand from how far a first
    fit at `_FINEST` stays from its points, so that exact joints are met exactly and noisy ones smoothed."""
    pose_prior: float = 1.0
    """Weight of the anatomical grasping prior (1 = as informative as its standard deviations say)."""
    shape_prior: float = 1.0
    """Weight of betas ~ N(0, 1), when betas are fitted."""
    limit_sigma: float = 0.02
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
        anatomy: axes, limits and prior; None for those of the model.

    Raises:
        ValueError: naming the argument: wrong shape, unknown side, negative weights, joints not in metres.
    """
    target, used, fixed = _given("joints", joints, 21, weights, side, betas, model)
    usable = _usable("joints", target, used, 4, "fewer than four usable joints, or all of them on a line")
    anatomy = (model.anatomy if anatomy is None else anatomy).to(target)
    return _solve(target, used, usable, fixed, side, model, anatomy, config or FitConfig())


def fit_vertices(
    vertices: Any, model: HandModel, *, side: str = "right", betas: Any = None, weights: Any = None,
    config: FitConfig | None = None,
) -> HandPose:  # fmt: skip
    """Hand poses whose surface comes closest to the given one: `solve_vertices(...).pose`."""
    return solve_vertices(vertices, model, side=side, betas=betas, weights=weights, config=config).pose


def solve_vertices(
    vertices: Any, model: HandModel, *, side: str = "right", betas: Any = None, weights: Any = None,
    config: FitConfig | None = None, max_points: int = 160,
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
    config = config or FitConfig(point_sigma=0.001, pose_prior=0.01, shape_prior=0.1, limit_sigma=0.0)
    count = len(model.template)
    target, used, fixed = _given("vertices", vertices, count, weights, side, betas, model)
    usable = _usable("vertices", target, used, count // 2, "fewer than half of their vertices")
    ids = torch.from_numpy(np.sort(spread_points(model.template.cpu().numpy(), max_points))).to(target.device)
    return _solve(target, used, usable, fixed, side, model, model.anatomy, config, ids)


# The common solver ----------------------------------------------------------------------------------


@torch.no_grad()
def _solve(
    target: Tensor, used: Tensor, usable: Tensor, fixed: Tensor | None, side: str, model: HandModel,
    anatomy: Anatomy, config: FitConfig, ids: Tensor | None = None,
) -> FitResult:  # fmt: skip
    """Fit points of right hands, chunk by chunk; rows that are unusable stay NaN.

    ``ids`` None: the points are the 21 joints; else they are all vertices, and ``ids`` are refined against.
    """
    batch = len(target)
    found = HandPose.zeros(batch).to(target).map(lambda t: torch.full_like(t, torch.nan))
    error, worst = target.new_full((batch,), torch.nan), target.new_full((batch,), torch.nan)
    converged, steps = torch.zeros_like(usable), torch.zeros(batch, dtype=torch.long, device=target.device)
    right = model if model.side == "right" else model.mirrored()
    lengths = ("template", "shapedirs", *([] if model.posedirs is None else ["posedirs"]))
    scaled = replace(right, **{name: getattr(right, name) / _UNIT for name in lengths})
    for rows in usable.nonzero()[:, 0].split(_CHUNK):
        w = used[rows]
        # Around the centroid, so that a hand far from the origin loses no float32 digits.
        centre = (target[rows] * w[..., None]).sum(1) / w.sum(1, keepdim=True)
        points = (target[rows] - centre[:, None]) / _UNIT
        shape = points.new_zeros(len(rows), 10) if fixed is None else fixed[rows]
        sigma = points.new_full((len(rows),), config.point_sigma or _FINEST)
        solution = _minimize(points, w, sigma, shape, fixed is None, scaled, anatomy, config, ids)
        distance = _distance(solution.state.pose, points, scaled, ids)
        pose, done, used_steps = solution.state.pose, solution.converged, solution.iterations
        if config.point_sigma is None:
            # A fit of `_DOF` unknowns swallows the noise of as many numbers.
            left = torch.maximum(3 * (w > 0).sum(1) - _DOF, 0.75 * (w > 0).sum(1))
            sigma = ((w * distance**2).sum(1) / left).sqrt().clamp_min(_FINEST)
            (again,) = (sigma > 1.5 * _FINEST).nonzero(as_tuple=True)
            if len(again):
                better = _minimize(points[again], w[again], sigma[again], shape[again], fixed is None, scaled,
                                   anatomy, config, ids)  # fmt: skip
                pose = pose.fill(again, better.state.pose)
                done[again] = better.converged
                used_steps[again] += better.iterations
                distance = _distance(pose, points, scaled, ids)
        given = w > 0
        error[rows] = (distance * given).sum(1) / given.sum(1)
        worst[rows] = distance.masked_fill(~given, 0).amax(1)
        converged[rows], steps[rows] = done, used_steps
        found = found.fill(rows, replace(pose, transl=pose.transl * _UNIT + centre))
    pose = found if side == "right" else found.mirrored()
    return FitResult(pose, error, worst, usable, converged, steps)


def _minimize(
    points: Tensor, weights: Tensor, sigma: Tensor, shape: Tensor, with_betas: bool, model: HandModel,
    anatomy: Anatomy, config: FitConfig, ids: Tensor | None,
) -> Solution[HandState]:  # fmt: skip
    """One Gauss-Newton fit from the closed-form start, lengths in `_UNIT`, ``sigma (B,)`` in metres."""
    if ids is None:
        first = start_from_joints(points, weights, shape, model, anatomy)
    else:
        first = start_from_vertices(points, weights, shape, model)
        points, weights = points[:, ids], weights[:, ids]
    std = (sigma / _UNIT)[:, None].expand_as(weights)
    named = "joints" if ids is None else "skin"
    terms: list[Term] = [PointTargets(points, weights, std, points=named, robust=None)]
    if config.pose_prior > 0:
        terms.append(AnglePrior.grasping(anatomy, len(points), 1 / config.pose_prior))
    if config.limit_sigma > 0:
        terms.append(JointLimits(anatomy, config.limit_sigma))
    if with_betas:
        terms.append(ShapePrior(config.shape_prior))
    return minimize(HandState.of(first, model, ids, with_betas), terms, Termination(iterations=config.iterations))


def _distance(pose: HandPose, points: Tensor, model: HandModel, ids: Tensor | None) -> Tensor:
    """(B, N) metres from all given points, lengths in `_UNIT`, to the fitted ones."""
    reached = model.joints(pose) if ids is None else model(pose).vertices
    return (reached - points).norm(dim=-1) * _UNIT


# Checking arguments ---------------------------------------------------------------------------------


def _given(
    name: str, value: Any, count: int, weights: Any, side: str, betas: Any, model: HandModel
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Points of right hands ``(B, count, 3)``, zero where missing, their weights and the betas that are fixed."""
    target = _points(name, value, count, model)
    used = _confidence(weights, target) * target.isfinite().all(-1)
    target = torch.where(used[..., None] > 0, target, torch.zeros_like(target))
    flip = target.new_tensor([1.0 if check_side(side) == "right" else -1.0, 1.0, 1.0])
    return target * flip, used, _fixed_betas(betas, len(target), model)


def _usable(name: str, target: Tensor, used: Tensor, fewest: int, reason: str) -> Tensor:
    """``(B,)`` bool: hands with at least ``fewest`` points, not on a line; a warning says ``reason`` of the others."""
    span = _spread(target, used)
    usable = ((used > 0).sum(1) >= fewest) & (span[:, 1] > 2e-3)
    if usable.any():
        _check_metres(name, span[usable, 0])
    if not usable.all():
        count = f"{int((~usable).sum())} of {len(usable)} hands"
        warnings.warn(f"{name}: {count} have {reason}; their poses are NaN.", stacklevel=4)
    return usable


def _points(name: str, value: Any, count: int, model: HandModel) -> Tensor:
    """``(B, count, 3)`` in the model's type and on its device."""
    like = model.template
    points = as_floats(name, value, torch.float64).to(like.device)
    if points.ndim == 2:
        points = points[None]
    if points.ndim != 3 or points.shape[1:] != (count, 3):
        what = "joints in OpenPose order" if name == "joints" else f"vertices of the hand {model.name!r}"
        raise ValueError(f"{name}: got shape {tuple(points.shape)}; expected (B, {count}, 3), the {what}.")
    return points.to(like.dtype)


def _confidence(weights: Any, target: Tensor) -> Tensor:
    if weights is None:
        return torch.ones_like(target[..., 0])
    w = as_floats("weights", weights, target.dtype).to(target.device)
    if w.shape not in (target.shape[:2], target.shape[1:2]):
        expected = tuple(target.shape[:2])
        raise ValueError(f"weights: got shape {tuple(w.shape)}; expected {expected}, one per point.")
    if not (w.isfinite() & (w >= 0)).all():
        raise ValueError("weights: negative or not finite; pass 0 for a missing point, 1 for a normal one.")
    return w.expand(target.shape[:2])


def _fixed_betas(betas: Any, batch: int, model: HandModel) -> Tensor | None:
    if betas is None:
        return None
    b = as_floats("betas", betas, model.template.dtype).to(model.template.device)
    if b.shape not in ((batch, 10), (1, 10), (10,)) or not b.isfinite().all():
        shape = tuple(b.shape)
        raise ValueError(f"betas: got shape {shape}; expected finite ({batch}, 10) or (10,), or None to fit them.")
    return b.expand(batch, 10)


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
