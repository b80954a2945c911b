"""`HandModel`: linear blend skinning of a hand, forward and with its analytic Jacobian.

One class serves the open hand and MANO. Skinning follows SMPL (Loper et al., SIGGRAPH Asia 2015) and MANO
(Romero et al., SIGGRAPH Asia 2017).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .anatomy import Anatomy, build_anatomy
from .point_jacobian import PointJacobian
from .pose import HandPose, check_side
from .record import move
from .rotations import exp_so3, left_jacobian, skew

NUM_BONES = 16
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
"""Parent of each of MANO's joints: wrist, then index, middle, pinky, ring, thumb, three each."""
_FINGERS = (13, 1, 4, 10, 7)  # first joint of thumb, index, middle, ring, pinky


@dataclass(frozen=True)
class Hand:
    """Posed surface and joints of a batch of hands, metres."""

    vertices: Tensor
    """(B, V, 3)"""
    joints: Tensor
    """(B, 21, 3) OpenPose order: wrist, then thumb, index, middle, ring, pinky, four each ending in the tip."""


@dataclass(frozen=True)
class HandJacobian:
    """Vertices and joints of a batch of hands with their derivatives."""

    vertices: PointJacobian
    joints: PointJacobian


@dataclass(frozen=True, eq=False)
class HandModel:
    """A skinned hand: template, shape space, skeleton and the points other modules refer to."""

    name: str
    side: str
    """Side of the template; poses of the other side are handled by mirroring."""
    template: Tensor
    """(V, 3) metres"""
    shapedirs: Tensor
    """(V, 3, 10)"""
    posedirs: Tensor | None
    """(V, 3, 135) pose-dependent corrections over the entries of the 15 joint rotations, or None."""
    joint_regressor: Tensor
    """(16, V)"""
    weights: Tensor
    """(V, 16)"""
    faces: Tensor
    """(F, 3) as published, open at the wrist"""
    closed_faces: Tensor
    """(F', 3) watertight, outward normals"""
    tip_regressor: Tensor
    """(5, V) thumb, index, middle, ring, pinky; applied to posed vertices"""
    contact_points: Tensor
    """(P,) vertex ids spread over the skin, at most 800, in farthest-point order: prefixes are spread too"""
    parents: tuple[int, ...] = PARENTS

    def to(self, *args: object, **kwargs: object) -> HandModel:
        """Move or cast as ``torch.Tensor.to``; integer fields keep their type."""
        return move(self, *args, **kwargs)

    def mirrored(self) -> HandModel:
        """The same hand as a model of the other side, exactly mirrored in x."""
        flip = self.template.new_tensor([-1.0, 1.0, 1.0])
        # A mirrored rotation is S R S: entry (i, j) changes sign where exactly one of the two is x.
        entries = torch.outer(flip, flip).flatten().repeat(15)
        posedirs = None if self.posedirs is None else self.posedirs * flip[:, None] * entries
        return replace(
            self, side="left" if self.side == "right" else "right", template=self.template * flip,
            shapedirs=self.shapedirs * flip[:, None], posedirs=posedirs, faces=self.faces.flip(1),
            closed_faces=self.closed_faces.flip(1),
        )  # fmt: skip

    # Constants derived from the data, computed once ------------------------------------------------

    @cached_property
    def anatomy(self) -> Anatomy:
        """Axes, limits and priors of the joints, from those at rest with betas of zero."""
        joints = self.joints(HandPose.zeros(1, side=self.side).to(self.template))[0]
        if self.side == "left":
            joints = joints * joints.new_tensor([-1.0, 1.0, 1.0])
        return build_anatomy(joints).to(self.template)

    @cached_property
    def part_of_vertex(self) -> Tensor:
        """(V,) dominant bone of each vertex, 0 (palm) to 15."""
        return self.weights.argmax(1)

    @cached_property
    def rest_canonical(self) -> Tensor:
        """(V, 3) vertices of the mean right hand at rest: the coordinates correspondences are given in."""
        flip = self.template.new_tensor([1.0 if self.side == "right" else -1.0, 1.0, 1.0])
        return self.template * flip

    @cached_property
    def _descendants(self) -> Tensor:
        """(16, 16): row a marks bone a and the bones that turn with it."""
        d = torch.eye(NUM_BONES, dtype=self.template.dtype, device=self.template.device)
        for bone in range(NUM_BONES - 1, 0, -1):
            d[self.parents[bone]] += d[bone]
        return d

    @cached_property
    def _tip_support(self) -> tuple[Tensor, Tensor]:
        """Vertices the tips are regressed from, and the regressor over them alone."""
        ids = (self.tip_regressor != 0).any(0).nonzero()[:, 0]
        return ids, self.tip_regressor[:, ids]

    @cached_property
    def _joint_shape(self) -> tuple[Tensor, Tensor]:
        """Rest joints of the mean hand ``(16, 3)`` and their shape directions ``(16, 3, 10)``."""
        return self.joint_regressor @ self.template, torch.einsum("jv,vcs->jcs", self.joint_regressor, self.shapedirs)

    # Forward ----------------------------------------------------------------------------------------

    def rest_joints(self, betas: Tensor) -> Tensor:
        """(B, 16, 3) joints of the unposed hand, MANO order."""
        mean, directions = self._joint_shape
        return mean + torch.einsum("jcs,bs->bjc", directions, betas)

    def rest_vertices(self, betas: Tensor, vertex_ids: Tensor | None = None) -> Tensor:
        """(B, V, 3) vertices of the unposed hand."""
        template, directions = self.template, self.shapedirs
        if vertex_ids is not None:
            template, directions = template[vertex_ids], directions[vertex_ids]
        return template + torch.einsum("vcs,bs->bvc", directions, betas)

    def root(self, pose: HandPose) -> Tensor:
        """(B, 3) root joint ``J0(betas)`` on the side of ``pose``, before ``transl`` is added."""
        j0 = self.rest_joints(pose.betas)[:, 0]
        return j0 if pose.side == self.side else j0 * j0.new_tensor([-1.0, 1.0, 1.0])

    def faces_for(self, side: str, *, closed: bool = True) -> Tensor:
        """Triangles with outward normals for a hand of ``side`` (mirroring turns them inside out).

        Args:
            side: "right" or "left"; anything else is a ``ValueError``.
            closed: with the cap on the wrist, ``(F', 3)``, or as published without it, ``(F, 3)``.
        """
        check_side(side)
        faces = self.closed_faces if closed else self.faces
        return faces if side == self.side else faces.flip(1)

    def _chain(self, pose: HandPose) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rest joints (B,16,3), local (B,16,3,3) and world (B,16,3,3) rotations, posed joints (B,16,3)."""
        rest = self.rest_joints(pose.betas)
        local = exp_so3(torch.cat([pose.global_orient[:, None], pose.hand_pose], 1))
        world, joints = [local[:, 0]], [rest[:, 0] + pose.transl]
        for bone in range(1, NUM_BONES):
            parent = self.parents[bone]
            offset = (rest[:, bone] - rest[:, parent])[..., None]
            joints.append(joints[parent] + (world[parent] @ offset)[..., 0])
            world.append(world[parent] @ local[:, bone])
        return rest, local, torch.stack(world, 1), torch.stack(joints, 1)

    def _unposed(self, pose: HandPose, local: Tensor, ids: Tensor | None) -> Tensor:
        """(B, P, 3) rest vertices with pose correctives."""
        vertices = self.rest_vertices(pose.betas, ids)
        if self.posedirs is not None:
            directions = self.posedirs if ids is None else self.posedirs[ids]
            feature = (local[:, 1:] - torch.eye(3, dtype=local.dtype, device=local.device)).flatten(1)
            vertices = vertices + torch.einsum("vcp,bp->bvc", directions, feature)
        return vertices

    def _skin(self, pose: HandPose, ids: Tensor | None) -> tuple[Tensor, Tensor]:
        """Posed vertices ``ids`` (B, P, 3) and posed joints (B, 16, 3)."""
        rest, local, world, joints = self._chain(pose)
        shift = joints - (world @ rest[..., None])[..., 0]
        weights = self.weights if ids is None else self.weights[ids]
        blended = torch.einsum("pk,bkx->bpx", weights, torch.cat([world.flatten(2), shift], -1))
        turned = blended[..., :9].unflatten(-1, (3, 3)) @ self._unposed(pose, local, ids)[..., None]
        return turned[..., 0] + blended[..., 9:], joints

    def _order_joints(self, joints: Tensor, tips: Tensor) -> Tensor:
        """(B, 16, 3) MANO joints and (B, 5, 3) tips to (B, 21, 3) OpenPose order."""
        return torch.cat([joints, tips], 1)[:, self._openpose]

    @cached_property
    def _openpose(self) -> Tensor:
        """Index into [16 joints, 5 tips] that gives OpenPose order."""
        order = [0]
        for finger, first in enumerate(_FINGERS):
            order += [first, first + 1, first + 2, NUM_BONES + finger]
        return torch.tensor(order, device=self.template.device)

    def __call__(self, pose: HandPose) -> Hand:
        """Vertices and joints of ``pose``, metres, on the side of the pose."""
        if pose.side != self.side:
            hand, flip = self(pose.mirrored()), self.template.new_tensor([-1.0, 1.0, 1.0])
            return Hand(hand.vertices * flip, hand.joints * flip)
        vertices, joints = self._skin(pose, None)
        return Hand(vertices, self._order_joints(joints, self.tip_regressor @ vertices))

    def joints(self, pose: HandPose) -> Tensor:
        """(B, 21, 3) joints alone, several times cheaper than the whole surface."""
        if pose.side != self.side:
            return self.joints(pose.mirrored()) * self.template.new_tensor([-1.0, 1.0, 1.0])
        ids, regressor = self._tip_support
        vertices, joints = self._skin(pose, ids)
        return self._order_joints(joints, regressor @ vertices)

    # Derivative -------------------------------------------------------------------------------------

    def jacobian(self, pose: HandPose, vertex_ids: Tensor | None = None, *, with_betas: bool = False) -> HandJacobian:
        """Vertices ``vertex_ids`` (all when None) and joints with derivatives along `HandPose.retract`.

        Args:
            pose: ``B`` hands of the model's side.
            vertex_ids: ``(P,)`` int64.
            with_betas: with the derivative by the ten betas: ``D`` is 61, not 51.

        Raises:
            ValueError: when ``pose.side`` is not the model's side (mirror the pose, the derivative of the
                other side follows by mirroring).
        """
        if pose.side != self.side:
            raise ValueError(f"pose: a {pose.side} hand, but the model is a {self.side} one; pass pose.mirrored().")
        support, regressor = self._tip_support
        asked = torch.arange(len(self.template), device=support.device) if vertex_ids is None else vertex_ids
        ids, count = torch.cat([asked, support]), len(asked)
        rest, local, world, joints = self._chain(pose)
        unposed = self._unposed(pose, local, ids)
        weights = self.weights[ids].T[:, None]  # (16, 1, P)

        # Where each bone alone would carry each point, times its weight; then summed over the bones that
        # turn with bone a, relative to joint a: the lever arm of a.
        shift = joints - (world @ rest[..., None])[..., 0]
        carried = (world @ unposed.transpose(1, 2)[:, None] + shift[..., None]) * weights  # (B, 16, 3, P)
        points = carried.sum(1).transpose(1, 2)
        total = torch.einsum("ak,kip->aip", self._descendants, weights)
        arms = torch.einsum("ak,bkcp->bacp", self._descendants, carried) - total * joints[..., None]

        # A change d of joint a's axis-angle turns its bones by parent_rotation @ left_jacobian @ d.
        parents = list(self.parents[1:])
        frames = torch.cat(
            [
                torch.eye(3, dtype=world.dtype, device=world.device).expand(len(world), 1, 3, 3),
                world[:, parents] @ left_jacobian(pose.hand_pose),
            ],
            1,
        )
        # Joint k moves with its strict ancestors; its arm about joint a is the vector between them.
        above = (self._descendants - torch.eye(NUM_BONES, dtype=rest.dtype, device=rest.device))[:, None]
        joint_arms = (joints.transpose(1, 2)[:, None] - joints[..., None]) * above

        correctives = None if self.posedirs is None else self._corrective_jacobian(pose, local, world, ids)
        shape = self._shape_jacobian(world, ids, weights) if with_betas else None

        def join(of_joints: Tensor | None, of_points: Tensor | None) -> Tensor | None:
            if of_points is None:
                return None
            if of_joints is None:
                of_joints = of_points.new_zeros(*of_points.shape[:-1], NUM_BONES)
            return torch.cat([of_joints, of_points[..., count:] @ regressor.T], -1)[..., self._openpose]

        def head(t: Tensor | None) -> Tensor | None:
            return None if t is None else t[..., :count]

        shape_points, shape_joints = shape if shape is not None else (None, None)
        ordered = self._order_joints(joints, regressor @ points[:, count:])
        return HandJacobian(
            PointJacobian(points[:, :count], head(arms), frames, head(correctives), head(shape_points)),
            PointJacobian(ordered, join(joint_arms, arms), frames, join(None, correctives),
                          join(shape_joints, shape_points)),
        )  # fmt: skip

    def _shape_jacobian(self, world: Tensor, ids: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Derivative by betas of points (B, 10, 3, P) and of the 16 joints (B, 10, 3, 16)."""
        directions = self._joint_shape[1]  # (16, 3, 10)
        moved = [directions[0].expand(len(world), 3, 10)]
        for bone in range(1, NUM_BONES):
            parent = self.parents[bone]
            moved.append(moved[parent] + world[:, parent] @ (directions[bone] - directions[parent]))
        joints = torch.stack(moved, 1)  # (B, 16, 3, 10)
        shift = joints - world @ directions
        blended = torch.einsum("kip,bkx->bpx", weights, world.flatten(2)).unflatten(-1, (3, 3))
        points = blended @ self.shapedirs[ids] + torch.einsum("kip,bkcs->bpcs", weights, shift)
        return points.permute(0, 3, 2, 1), joints.permute(0, 3, 2, 1)

    def _corrective_jacobian(self, pose: HandPose, local: Tensor, world: Tensor, ids: Tensor) -> Tensor:
        """Derivative (B, 45, 3, P) of points through ``posedirs``."""
        turn = skew(left_jacobian(pose.hand_pose).transpose(-1, -2))  # (B, 15, 3 columns, 3, 3)
        d_local = (turn @ local[:, 1:, None]).flatten(3)  # (B, 15, 3, 9)
        directions = self.posedirs[ids].unflatten(-1, (15, 9))
        offsets = torch.einsum("pcjk,bjdk->bjdpc", directions, d_local)
        blended = torch.einsum("pk,bkx->bpx", self.weights[ids], world.flatten(2)).unflatten(-1, (3, 3))
        return torch.einsum("bpxc,bjdpc->bjdxp", blended, offsets).flatten(1, 2)


def skin_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals of the vertices ``(..., V, 3)``, means of the adjoining faces' weighted by area."""
    a, b, c = (vertices[..., faces[:, k], :] for k in range(3))
    area = torch.linalg.cross(b - a, c - a, dim=-1)
    normals = torch.zeros_like(vertices)
    for k in range(3):
        normals.index_add_(-2, faces[:, k], area)
    return torch.nn.functional.normalize(normals, dim=-1)
