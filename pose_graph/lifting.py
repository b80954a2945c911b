"""From pixels to what the networks take, and from what they give to points in the camera's frame.

Keypoints are looked at by a virtual camera that is turned to their middle and rolled until the hand points up,
and scaled to unit spread, so that where and which way up a grasp is seen, and the focal length, change nothing
that the network has to know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .graph import CORNERS, JOINTS, NODE_NAMES, NODES
from .network import UNIT, LiftNet, LiftOutput

USUAL_RADIUS = 0.085
"""Metres, root mean square, that a hand and its object measure across the line of sight: the first guess of depth."""
_USUAL_SPREAD = 0.15
_BOX_UNIT = 0.1
_FARTHEST = 4.0


@dataclass(frozen=True)
class View:
    """``B`` sets of keypoints as the virtual camera sees them."""

    seen: Tensor
    """(B, 29, 2) in the plane at unit depth; zero where missing"""
    spread: Tensor
    """(B,) root mean square distance of the keypoints from the middle, in the same plane"""
    rotation: Tensor
    """(B, 3, 3) camera to virtual camera"""
    confidence: Tensor
    """(B, 29) in [0, 1]"""

    def features(self, box: Tensor | None = None) -> Tensor:
        """Node features ``(B, 29, 8)`` (`network.NODE_FEATURES`).

        Args:
            box: ``(B, 3)`` metres, edges of the object's box in its own frame; None, or rows of NaN, if unknown.
        """
        edges = self.seen.new_full((len(self.seen), 3), torch.nan) if box is None else box.to(self.seen)
        known = edges.isfinite().all(1, keepdim=True)
        edges = (edges / _BOX_UNIT).masked_fill(~known, 0)
        shared = torch.cat([(self.spread / _USUAL_SPREAD).log()[:, None], edges, known.to(edges)], 1)
        scaled = (self.seen / self.spread[:, None, None]).clamp(-_FARTHEST, _FARTHEST)
        return torch.cat([scaled, self.confidence[..., None], shared[:, None].expand(-1, NODES, -1)], 2)


@dataclass(frozen=True)
class Lifted:
    """Points in space."""

    points: Tensor
    """(B, 29, 3) metres, camera frame: 21 joints in OpenPose order, 8 corners as in `graph`"""
    sigma: Tensor
    """(B, 29) metres, standard deviation per axis of each point among the others"""
    confidence: Tensor
    """(B, 29) of the keypoints they were lifted from"""


def view_of(keypoints: Tensor, cam_K: Tensor, confidence: Tensor | None = None) -> View:
    """See keypoints through the virtual camera.

    Args:
        keypoints: ``(B, 29, 2)`` pixels; not finite where missing.
        cam_K: ``(3, 3)`` or ``(B, 3, 3)``, pixels.
        confidence: ``(B, 29)`` in [0, 1], 0 for missing; None for 1 where finite.
    """
    weight = keypoints.isfinite().all(-1).to(keypoints)
    if confidence is not None:
        weight = weight * confidence.to(keypoints).nan_to_num().clamp(0, 1)
    usable = weight > 0
    rays = to_rays(keypoints.masked_fill(~usable[..., None], 0), cam_K)
    total = weight.sum(1).clamp_min(1e-6)
    middle = (rays * weight[..., None]).sum(1) / total[:, None]
    rotation = _turn_to(middle)
    turned = rays @ rotation.transpose(1, 2)
    seen = turned[..., :2] / turned[..., 2:].clamp_min(0.05)
    roll = _upright(seen, weight)
    rotation, seen = _rolled(roll) @ rotation, seen @ _rolled(roll)[:, :2, :2].transpose(1, 2)
    seen = seen.masked_fill(~usable[..., None], 0)
    spread = ((seen**2).sum(-1) * weight).sum(1).div(total).sqrt().clamp_min(1e-3)
    return View(seen, spread, rotation, weight)


def place(output: LiftOutput, view: View) -> Tensor:
    """Points ``(B, 29, 3)`` metres in the virtual camera's frame, from what a network says of a view."""
    depth = (USUAL_RADIUS / view.spread * output.log_depth.exp())[:, None, None]
    seen = torch.cat([view.seen, torch.ones_like(view.seen[..., :1])], 2)
    return seen * depth + UNIT * output.offsets


@torch.no_grad()
def lift(
    network: LiftNet, keypoints: Any, cam_K: Any, *, confidence: Any = None, box: Any = None, side: str = "right",
    image_features: Tensor | None = None,
) -> Lifted:  # fmt: skip
    """Lift keypoints to points in the camera's frame.

    Args:
        network: trained, see `pose_graph.weights.load_network`.
        keypoints: ``(B, 29, 2)`` or ``(29, 2)`` pixels: 21 joints in OpenPose order, then the 8 corners of the
            object's box, z fastest; NaN where missing. Corners may all be missing.
        cam_K: ``(3, 3)`` or ``(B, 3, 3)`` pixels.
        confidence: ``(B, 29)`` in [0, 1]; 0 for missing; None for 1.
        box: ``(3,)`` or ``(B, 3)`` metres, edges of the object's box; None if unknown.
        side: of the hands. Networks know right hands; left ones are lifted in the mirror.
        image_features: ``(B, 29, F)`` for networks that take them.

    Raises:
        ValueError: shapes that do not fit, an unknown side, or a row with fewer than six keypoints.
    """
    like = next(network.parameters())
    points = _tensor("keypoints", keypoints, like)
    points = points[None] if points.ndim == 2 else points
    if points.ndim != 3 or points.shape[1:] != (NODES, 2):
        raise ValueError(
            f"keypoints: got shape {tuple(points.shape)}; expected (B, 29, 2): 21 joints, then 8 box corners "
            "(NaN where they are missing)."
        )
    batch = len(points)
    camera = check_camera(_tensor("cam_K", cam_K, like), batch)
    weight = points.isfinite().all(-1).to(points)
    if confidence is not None:
        given = _tensor("confidence", confidence, like)
        if given.numel() != batch * NODES:
            raise ValueError(f"confidence: got shape {tuple(given.shape)}; expected ({batch}, {NODES}).")
        weight = weight * given.reshape(batch, NODES)
    few = (weight > 0).sum(1) < 6
    if few.any():
        raise ValueError(f"keypoints: row {int(few.int().argmax())} has fewer than six; drop the row.")
    edges = None if box is None else _tensor("box", box, like)
    if edges is not None and edges.shape not in ((3,), (batch, 3)):
        raise ValueError(f"box: got shape {tuple(edges.shape)}; expected (3,) or ({batch}, 3) metres.")
    if side not in ("right", "left"):
        raise ValueError(f"side: got {side!r}; pass 'right' or 'left'.")
    order = mirror_nodes(side, points.device)
    points, weight = points[:, order], weight[:, order]
    if side == "left":
        points = (points - camera[:, None, :2, 2]) * points.new_tensor([-1.0, 1.0]) + camera[:, None, :2, 2]
    view = view_of(points, camera, weight)
    features = view.features(None if edges is None else edges.expand(batch, 3))
    if image_features is not None:
        features = torch.cat([features, image_features.to(features)], 2)
    output = network(features)
    lifted = place(output, view) @ view.rotation
    if side == "left":
        lifted = lifted * lifted.new_tensor([-1.0, 1.0, 1.0])
    return Lifted(lifted[:, order], UNIT * output.log_sigma.exp()[:, order], weight[:, order])


def project(points: Tensor, cam_K: Tensor) -> Tensor:
    """Pixels ``(B, N, 2)`` of points ``(B, N, 3)`` in the camera's frame (x right, y down, z forward)."""
    image = points @ cam_K.transpose(-1, -2)
    return image[..., :2] / image[..., 2:].clamp_min(1e-6)


def to_rays(keypoints: Tensor, cam_K: Tensor) -> Tensor:
    """Directions ``(B, N, 3)`` with z = 1 through pixels ``(B, N, 2)``."""
    image = torch.cat([keypoints, torch.ones_like(keypoints[..., :1])], -1)
    rays = image @ torch.linalg.inv(cam_K).transpose(-1, -2)
    return rays / rays[..., 2:]


def check_camera(cam_K: Tensor, batch: int) -> Tensor:
    """``(B, 3, 3)`` intrinsics. Raises ``ValueError`` unless they are ``(3, 3)`` or ``(B, 3, 3)`` and in pixels."""
    if cam_K.shape not in ((3, 3), (batch, 3, 3)):
        raise ValueError(f"cam_K: got shape {tuple(cam_K.shape)}; expected (3, 3) or ({batch}, 3, 3).")
    camera = cam_K.expand(batch, 3, 3)
    good = (camera[:, 0, 0] > 0) & (camera[:, 1, 1] > 0) & ((camera[:, 2, 2] - 1).abs() < 1e-6)
    if not good.all():
        raise ValueError("cam_K: expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels; is it transposed, or NaN?")
    return camera


def mirror_nodes(side: str, device: torch.device | str = "cpu") -> Tensor:
    """``(29,)`` which node of a left hand's grasp each node of its mirror image is: corners change ends in x."""
    order = torch.arange(NODES, device=device)
    if side == "left":
        first = NODES - CORNERS
        order[first:] = first + (torch.arange(CORNERS, device=device) ^ 4)
    return order


def _turn_to(direction: Tensor) -> Tensor:
    """The smallest rotations ``(B, 3, 3)`` that turn directions ``(B, 3)`` with z > 0 to the z axis."""
    forward = torch.nn.functional.normalize(direction, dim=-1)
    x, y, z = forward.unbind(-1)
    k = 1 / (1 + z)
    rows = [1 - x * x * k, -x * y * k, -x, -x * y * k, 1 - y * y * k, -y, x, y, z]
    return torch.stack(rows, -1).reshape(-1, 3, 3)


def _upright(seen: Tensor, weight: Tensor) -> Tensor:
    """Direction ``(B, 2)`` of the hand in the picture: from the wrist and knuckles to the other joints."""
    hand, w = seen[:, :JOINTS], weight[:, :JOINTS]
    near = hand.new_tensor([name == "wrist" or name.endswith("1") for name in NODE_NAMES[:JOINTS]])

    def middle(share: Tensor) -> Tensor:
        return (hand * share[..., None]).sum(1) / share.sum(1, keepdim=True).clamp_min(1e-6)

    return middle(w * (1 - near)) - middle(w * near)


def _rolled(direction: Tensor) -> Tensor:
    """Rotations ``(B, 3, 3)`` about z that turn directions ``(B, 2)`` to -y, which is up in a picture."""
    x, y = torch.nn.functional.normalize(direction + 1e-9, dim=-1).unbind(-1)
    o, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([-y, x, o, -x, -y, o, o, o, one], -1).reshape(-1, 3, 3)


def _tensor(name: str, value: Any, like: Tensor) -> Tensor:
    try:
        return torch.as_tensor(value).to(device=like.device, dtype=like.dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: not an array of numbers ({error}).") from None
