"""From the 29 points that graph estimators end with, to hands and object poses that refinement starts from.

`from_graph` takes points in space, or keypoints and a camera; `refine.api.refine_start` refines what it gives, and can
move the object with the hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from contact.objects import ObjectMesh
from contact.objects.box import box_corners
from hand_models import HandModel, HandPose, load_hand_model
from hand_models.arguments import as_floats
from hand_models.fit import FitConfig, solve_joints
from hand_models.pose import TANGENT_DIM, check_side
from hand_models.rotations import skew
from hand_models.solver.states import HandState
from pose_graph.graph import CORNERS, JOINTS, NODES
from pose_graph.lifting import Lifted, check_camera, lift, mirror_nodes, to_rays
from pose_graph.network import LiftNet

from ..files.prediction_poses import into_object_frame
from .corners import corner_pose
from .inputs import as_object
from .point_fit import PointEvidence, fit_hand, fit_rigid
from .pose_prior import PosePrior

POINT_SIGMA = 0.01
"""Metres per axis: the error of points about which nothing is said."""
PIXEL_SIGMA = 5.0
"""The same of keypoints, in pixels of a camera like FHAB's (focal length `FOCAL`)."""
FOCAL = 1395.75
_DEPTH_BESIDE = 0.035  # deviation of the hand's depth beside the object's, as a share of it: what lifting leaves
_LEAST = 2.0  # pixels; detectors are not better than this


@dataclass(frozen=True)
class GraphStart:
    """``B`` hands and poses of one object, camera frame."""

    hand_pose: HandPose
    object_pose: Tensor
    """(B, 4, 4) object to camera"""
    object: ObjectMesh
    points: Tensor
    """(B, 29, 3) metres, camera frame: the points as given, or as lifted"""
    corner_order: Tensor
    """(B, 8) which corner of the object's box each given corner is taken for"""
    prior: PosePrior
    """the hands in the object's frame, and how sure they are: hand and object together"""
    evidence: PointEvidence
    """what hand and object were fitted to; corners are named as the object's"""
    hand_model: HandModel

    def __len__(self) -> int:
        return len(self.hand_pose)

    @property
    def joint_sigma(self) -> Tensor:
        """(B, 21) metres, standard deviation per axis of each joint relative to the object."""
        side = self.prior.mean.side
        model = self.hand_model if self.hand_model.side == side else self.hand_model.mirrored()
        rows = HandState.of(self.prior.mean, model).joints.dense()  # (B, 51, 3, 21)
        spread = torch.linalg.solve_triangular(self.prior.factor, rows.flatten(2), upper=False)
        return (spread**2).sum(1).reshape(len(self), 3, JOINTS).mean(1).sqrt()


def from_graph(
    points: Any, object_mesh: Any, *, cam_K: Any = None, confidence: Any = None, sigma: Any = None, side: str = "right",
    corner_order: str | None = None, hand_model: HandModel | None = None, network: LiftNet | None = None,
) -> GraphStart:  # fmt: skip
    """Hands and object poses from graph keypoints.

    The object's pose is the box that lies best on the eight corners (`corners`), the hand the most probable
    one given its 21 joints, an anatomical prior and a prior on its shape. Keypoints in a picture are lifted by
    `pose_graph` first, and then both fits agree with the picture across the line of sight (`point_fit`).

    Args:
        points: ``(B, 29, 3)`` or ``(29, 3)`` metres, camera frame (x right, y down, z forward); or ``(B, 29, 2)``
            or ``(29, 2)`` pixels. 21 joints in OpenPose order, then the corners of the object's axis-aligned box,
            z fastest. NaN where missing.
        object_mesh: as in `refine_grasp`; one object for all.
        cam_K: ``(3, 3)`` or ``(B, 3, 3)`` pixels; needed for keypoints.
        confidence: ``(B, 29)`` in [0, 1], 0 for missing. 1/2 is what keypoints with 10 pixels of noise deserve at
            a focal length of 1,396 (`pose_graph.cameras.confidence_of`), and points with 14 mm.
        sigma: ``(B, 29)`` metres, standard deviation per axis of points; instead of ``confidence``.
        side: of the hands.
        corner_order: "search" tries all 48 orders of the corners and asks the hand which is right; "given"
            believes the order. None: "search" for points, "given" for keypoints, which the network has named.
        hand_model: None for the open hand.
        network: that lifts keypoints; None for the shipped one.

    Raises:
        ValueError: naming the argument: wrong shape, millimetres, a row without enough joints or corners.
    """
    check_side(side)
    model = hand_model or load_hand_model("open")
    obj = as_object(object_mesh, side)
    given = _points(points)
    batch, flat = len(given), given.shape[2] == 2
    trust = _weights("confidence", confidence, batch)
    stated = _weights("sigma", sigma, batch)
    if flat and cam_K is None:
        raise ValueError("cam_K: missing; keypoints (B, 29, 2) need the camera's (3, 3) intrinsics, in pixels.")
    if corner_order is None:
        corner_order = "given" if flat else "search"
    if corner_order not in ("given", "search"):
        raise ValueError(f"corner_order: got {corner_order!r}; choose 'search' or 'given'.")
    box = _box(obj)
    if flat:
        from pose_graph.weights import load_network

        camera = check_camera(as_floats("cam_K", cam_K), batch)
        lifted = lift(
            network or load_network(), given, camera, confidence=trust, box=box[7] - box[0], side=side
        )  # fmt: skip
        evidence = _seen(lifted, given, camera)
    else:
        missing = ~given.isfinite().all(-1)
        spread = stated if sigma is not None else POINT_SIGMA / trust.clamp(1e-9, 1).sqrt()
        missing |= ~(spread > 0) | ~spread.isfinite() | (trust <= 0)
        evidence = PointEvidence(given, spread.masked_fill(missing, torch.inf))
    _check(evidence)
    return _start(evidence, obj, box, side, corner_order == "search", model)


def _start(
    evidence: PointEvidence, obj: ObjectMesh, box: Tensor, side: str, search: bool, model: HandModel
) -> GraphStart:
    """Fit hand and object; everything inside is a right hand, a left one is fitted in the mirror."""
    mirrored = side == "left"
    right = model if model.side == "right" else model.mirrored()
    flip = torch.tensor([-1.0, 1.0, 1.0])
    order = mirror_nodes(side)
    scene, corners = (obj.mirrored(), (box * flip)[order[JOINTS:] - JOINTS]) if mirrored else (obj, box)
    seen = evidence
    if mirrored:
        seen = _reordered(evidence, order)
        seen = replace(seen, points=seen.points * flip, rays=None if seen.rays is None else seen.rays * flip[:2])
    of_hand = seen.of(slice(JOINTS))
    # To ask where the hand is, missing joints may be at the mean of the others.
    middle = of_hand.points.where(of_hand.sigma.isfinite()[..., None], of_hand.points.new_tensor(torch.nan)).nanmean(1)
    joints = torch.where(of_hand.sigma.isfinite()[..., None], of_hand.points, middle[:, None])
    laid = corner_pose(
        seen.points[:, JOINTS:], corners, sigma=seen.sigma[:, JOINTS:], joints=joints, grid=scene.grid, search=search
    )
    renamed = corners[laid.order]
    of_object = seen.of(slice(JOINTS, NODES))
    placed = fit_rigid(of_object, renamed, laid.rotation, laid.translation)
    rigid = placed.state
    if of_hand.rays is not None:
        laid_corners = renamed @ rigid.rotation.transpose(1, 2) + rigid.translation[:, None]
        of_hand = _as_deep_as(of_hand, of_object, laid_corners)
    weights = torch.nan_to_num((POINT_SIGMA / of_hand.sigma) ** 2, posinf=0.0)
    joints = torch.where(weights[..., None] > 0, of_hand.points, torch.full_like(of_hand.points, torch.nan))
    first = solve_joints(joints, right, weights=weights, config=FitConfig(point_sigma=POINT_SIGMA)).pose
    solution = fit_hand(of_hand, first, right)
    pose = _matrix(rigid.rotation, rigid.translation)
    hand = solution.state.pose
    inside = into_object_frame(hand, pose, right)
    covariance = _relative(solution.equations.hessian, placed.equations.hessian, hand, pose, right)
    prior = PosePrior.from_covariance(inside, covariance)
    laid_order = laid.order
    if mirrored:
        turn = torch.diag(torch.cat([flip, torch.ones(1)]))
        hand, pose, prior = hand.mirrored(), turn @ pose @ turn, prior.mirrored()
        # Back to the corners' own numbers, on both sides of the name.
        back = order[JOINTS:] - JOINTS
        laid_order = back[laid.order][:, back]
    names = torch.cat([torch.arange(JOINTS).expand(len(hand), -1), JOINTS + laid_order.argsort(1)], 1)
    return GraphStart(hand, pose, obj, evidence.points, laid_order, prior, _reordered(evidence, names), model)


def lay_on_points(start: GraphStart, joints: Tensor, uncertainty: Tensor) -> Tensor:
    """Object poses ``(B, 4, 4)`` that lay refined grasps, as rigid bodies, on all 29 points they started from.

    Args:
        joints: ``(B, 21, 3)`` of the refined hands, metres, object frame.
        uncertainty: ``(B, 21)`` metres, standard deviation of each along an axis.
    """
    body = torch.cat([joints, _box(start.object).expand(len(start), -1, -1)], 1)
    evidence = _loosened(start.evidence, uncertainty)
    rigid = fit_rigid(evidence, body, start.object_pose[:, :3, :3], start.object_pose[:, :3, 3]).state
    return _matrix(rigid.rotation, rigid.translation)


def _box(obj: ObjectMesh) -> Tensor:
    """``(8, 3)`` corners of the object's box, metres, its frame."""
    return torch.from_numpy(box_corners(obj.vertices)).float()


def _matrix(rotation: Tensor, translation: Tensor) -> Tensor:
    """``(B, 4, 4)`` of ``(B, 3, 3)`` and ``(B, 3)``."""
    pose = torch.eye(4).repeat(len(rotation), 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = rotation, translation
    return pose


# Covariance -----------------------------------------------------------------------------------------


def _relative(hand: Tensor, rigid: Tensor, pose: HandPose, camera: Tensor, model: HandModel) -> Tensor:
    """Covariance ``(B, 51, 51)`` of the hand in the object's frame, from the precisions of both in the camera's."""
    spread = torch.linalg.inv(hand.double() + 1e-3 * torch.eye(hand.shape[1]))[:, :TANGENT_DIM, :TANGENT_DIM]
    faint = torch.diag(rigid.new_tensor([1.0] * 3 + [0.1] * 3).double())  # all objects are within metres
    place = torch.linalg.inv(rigid.double() + faint)
    turn = camera[:, :3, :3].transpose(1, 2).double()
    arm = (model.root(pose) + pose.transl - camera[:, :3, 3]).double()
    # An object that is shifted and turned moves the hand the other way: its root by both, its direction by the turn.
    effect = torch.eye(6, dtype=torch.float64).repeat(len(arm), 1, 1)
    effect[:, :3, 3:] = -skew(arm)
    both = spread.clone()
    both[:, :6, :6] += effect @ place @ effect.transpose(1, 2)
    change = torch.eye(TANGENT_DIM, dtype=torch.float64).repeat(len(arm), 1, 1)
    change[:, :3, :3] = change[:, 3:6, 3:6] = turn
    both = change @ both @ change.transpose(1, 2)
    floor = torch.diag(both.new_tensor([1e-4] * 3 + [1e-3] * 48) ** 2)  # nothing is known better than this
    return both + floor


# Evidence -------------------------------------------------------------------------------------------


def _seen(lifted: Lifted, keypoints: Tensor, camera: Tensor) -> PointEvidence:
    """Lifted points, and the keypoints they come from; where one is missing, the direction of its lifted point."""
    depth = lifted.points[..., 2].clamp_min(0.05)
    there = (lifted.confidence > 0) & keypoints.isfinite().all(-1)
    rays = to_rays(torch.nan_to_num(keypoints), camera)[..., :2]
    rays = torch.where(there[..., None], rays, lifted.points[..., :2] / depth[..., None])
    sigma = torch.where(there, _pixel_sigma(lifted.confidence) / FOCAL, lifted.sigma / depth)
    return PointEvidence(lifted.points, lifted.sigma, rays, sigma)


def _as_deep_as(of_hand: PointEvidence, of_object: PointEvidence, laid: Tensor) -> PointEvidence:
    """The hand's evidence moved along the line of sight as far as the object's turned out to be misplaced.

    Lifting errs mostly in the depth of hand and object together. The object's size is known, so where its corners
    were laid, ``laid (B, 8, 3)``, tells that error.
    """
    known = of_object.sigma.isfinite()
    depths = torch.stack([laid[..., 2], of_object.points[..., 2]])
    there, lifted = torch.where(known, depths, torch.zeros_like(depths)).sum(2).clamp_min(0.05)
    ratio = (there / lifted).clamp(0.5, 2.0)
    return replace(of_hand, points=of_hand.points * ratio[:, None, None], depth_sigma=_DEPTH_BESIDE)


def _reordered(evidence: PointEvidence, order: Tensor) -> PointEvidence:
    """With the points ``order (29,)``, or ``(B, 29)`` of each grasp, in this order."""
    index = order.expand(len(evidence.points), -1)
    return evidence.map(lambda t: t.take_along_dim(index if t.ndim == 2 else index[..., None], 1))


def _loosened(evidence: PointEvidence, uncertainty: Tensor) -> PointEvidence:
    """Evidence on a hand whose joints are themselves only known to ``uncertainty (B, 21)`` metres per axis."""
    extra = torch.cat([torch.nan_to_num(uncertainty), torch.zeros(len(uncertainty), CORNERS)], 1)
    depth = torch.nan_to_num(evidence.points[..., 2], nan=1.0).clamp_min(0.05)
    rays_sigma = evidence.rays_sigma
    if rays_sigma is not None:
        rays_sigma = (rays_sigma**2 + (extra / depth) ** 2).sqrt()
    return replace(evidence, sigma=(evidence.sigma**2 + extra**2).sqrt(), rays_sigma=rays_sigma)


def _pixel_sigma(confidence: Tensor) -> Tensor:
    """Pixels of noise that a detector's confidence stands for; a detector that is quite sure says nothing."""
    said = 10 * (1 / confidence.clamp_min(1e-3) - 1).clamp_min(0).sqrt()
    sigma = torch.where(confidence > 0.99, torch.full_like(said, PIXEL_SIGMA), said.clamp_min(_LEAST))
    return sigma.masked_fill(confidence <= 0, torch.inf)


# Checking arguments ---------------------------------------------------------------------------------


def _points(value: Any) -> Tensor:
    points = as_floats("points", value)
    points = points[None] if points.ndim == 2 else points
    if points.ndim != 3 or points.shape[1] != NODES or points.shape[2] not in (2, 3) or len(points) == 0:
        raise ValueError(
            f"points: got shape {tuple(points.shape)}; expected (B, 29, 3) metres or (B, 29, 2) pixels: 21 joints, "
            "then the 8 corners of the object's box."
        )
    return points


def _weights(name: str, value: Any, batch: int) -> Tensor:
    if value is None:
        return torch.ones(batch, NODES)
    weights = as_floats(name, value)
    weights = weights[None] if weights.ndim == 1 else weights
    if weights.shape != (batch, NODES):
        raise ValueError(f"{name}: got shape {tuple(weights.shape)}; expected ({batch}, {NODES}).")
    if (weights < 0).any():
        raise ValueError(f"{name}: holds negative numbers; 0 stands for missing.")
    return torch.nan_to_num(weights, nan=0.0)


def _check(evidence: PointEvidence) -> None:
    """Raise ``ValueError`` for rows that cannot be fitted, and for points that cannot be metres."""
    known = evidence.sigma.isfinite()
    joints, corners = known[:, :JOINTS].sum(1), known[:, JOINTS:].sum(1)
    if (joints < 6).any():
        raise ValueError(f"points: row {int((joints < 6).int().argmax())} has fewer than 6 joints; drop the row.")
    if (corners < 4).any():
        raise ValueError(
            f"points: row {int((corners < 4).int().argmax())} has fewer than 4 of the {CORNERS} corners; drop the row, "
            "or refine with an object pose from elsewhere."
        )
    points = torch.where(known[..., None], evidence.points, torch.zeros_like(evidence.points))
    if points.abs().max() > 20:
        raise ValueError("points: lie more than 20 m from the camera; metres are expected, divide millimetres by 1000.")
