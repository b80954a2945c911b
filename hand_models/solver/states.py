"""What is solved for: hands, rigid bodies, pairs of these.

A state holds ``B`` problems and knows its number of unknowns, how to move along them (`retract`), and how to put
together what terms say of it (`assemble`); selecting, joining and choosing problems is `Record`'s. Whatever terms
ask of a state, such as where its points are and how they move, is computed once, when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ..inner_spheres import sphere_centres
from ..model import HandJacobian, HandModel, skin_normals
from ..point_jacobian import PointJacobian
from ..pose import TANGENT_DIM, HandPose
from ..record import Record, shared
from ..rotations import exp_so3
from .normal_equations import NormalEquations
from .point_forces import PointForces, assemble

Part = NormalEquations | PointForces
"""What a term says of a state: equations of all its unknowns, or forces on its points."""
S = TypeVar("S", bound="State")


class State(Protocol):
    """``B`` problems of ``dim`` unknowns each; a `Record`."""

    @property
    def dim(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self: S, index: Any, /) -> S: ...
    def where(self: S, mask: Tensor, other: S, /) -> S: ...
    def retract(self: S, step: Tensor, /) -> S:
        """Moved along tangent vectors ``(B, dim)``."""
        ...

    def assemble(self, parts: Iterable[Any], /) -> Any:
        """The equations of all parts together: `NormalEquations`, or others that know as much."""
        ...


class Term(Protocol):
    """A cost of ``B`` problems, half a sum of squared residuals or a robust loss of them.

    ``term[index]`` is the term of some of the problems; a frozen dataclass that extends `Record` has that for nothing.
    """

    def __getitem__(self, index: Any, /) -> Any: ...
    def linearize(self, state: Any, /) -> Sequence[Any]:
        """What it costs around ``state``: residuals in units of their standard deviation, and their derivative."""
        ...


def total(parts: Iterable[Part]) -> NormalEquations:
    """The equations of all parts together; raises ``ValueError`` when there are none."""
    parts = list(parts)
    forces = [part for part in parts if isinstance(part, PointForces)]
    rest = [part for part in parts if isinstance(part, NormalEquations)]
    return NormalEquations.total(([assemble(forces)] if forces else []) + rest)


@dataclass(frozen=True, eq=False)
class HandState(Record):
    """Hands of the model's side: translation, root rotation, joint angles and, if they are free, betas."""

    pose: HandPose
    model: HandModel = shared()
    skin_ids: Tensor = shared()
    """(P,) vertices whose places terms ask for"""
    with_betas: bool = False

    @staticmethod
    def of(pose: HandPose, model: HandModel, skin_ids: Tensor | None = None, with_betas: bool = False) -> HandState:
        """Hands of whose skin nothing is asked, unless ``skin_ids`` are given."""
        none = torch.zeros(0, dtype=torch.long, device=pose.transl.device)
        return HandState(pose, model, none if skin_ids is None else skin_ids, with_betas)

    @property
    def dim(self) -> int:
        return TANGENT_DIM + 10 * self.with_betas

    def retract(self, step: Tensor) -> HandState:
        return replace(self, pose=self.pose.retract(step))

    def assemble(self, parts: Iterable[Part]) -> NormalEquations:
        return total(parts)

    @cached_property
    def _jacobian(self) -> HandJacobian:
        return self.model.jacobian(self.pose, self.skin_ids, with_betas=self.with_betas)

    @property
    def skin(self) -> PointJacobian:
        """The vertices ``skin_ids``."""
        return self._jacobian.vertices

    @property
    def joints(self) -> PointJacobian:
        """The 21 joints, OpenPose order."""
        return self._jacobian.joints

    landmarks = joints

    @property
    def motion(self) -> tuple[Tensor, Tensor, Tensor]:
        """What moves in time: place ``(B, 3)``, rotation ``(B, 3, 3)`` and joint angles ``(B, 45)``."""
        return self.pose.transl, exp_so3(self.pose.global_orient), self.pose.hand_pose.flatten(1)

    @cached_property
    def skin_normals(self) -> Tensor:
        """(B, P, 3) outward unit normals of the vertices ``skin_ids``."""
        return skin_normals(self.model(self.pose).vertices, self.model.closed_faces)[:, self.skin_ids]

    @cached_property
    def spheres(self) -> PointJacobian:
        """Centres of the spheres inside, `hand_models.inner_spheres`."""
        return sphere_centres(self.joints)


@dataclass(frozen=True, eq=False)
class RigidState(Record):
    """Rigid bodies: the translation of their origin, and a rotation about it in the world's axes."""

    local: Tensor
    """(B, N, 3) points that terms ask for, in the body's frame, metres"""
    rotation: Tensor
    """(B, 3, 3) body to world"""
    translation: Tensor
    """(B, 3)"""

    @property
    def dim(self) -> int:
        return 6

    def retract(self, step: Tensor) -> RigidState:
        turned = exp_so3(step[:, 3:]) @ self.rotation
        return replace(self, rotation=turned, translation=self.translation + step[:, :3])

    def assemble(self, parts: Iterable[Part]) -> NormalEquations:
        return total(parts)

    @property
    def motion(self) -> tuple[Tensor, Tensor, Tensor]:
        """What moves in time: place ``(B, 3)`` and rotation ``(B, 3, 3)``; a body has no angles ``(B, 0)``."""
        return self.translation, self.rotation, self.translation[:, :0]

    @cached_property
    def landmarks(self) -> PointJacobian:
        """The points in the world."""
        arms = self.local @ self.rotation.transpose(1, 2)
        axes = torch.eye(3).to(arms).expand(len(arms), 1, 3, 3)
        return PointJacobian(arms + self.translation[:, None], arms.transpose(1, 2)[:, None], axes)


@dataclass(frozen=True, eq=False)
class PairState(Record):
    """Two states solved for together, such as a hand and its object or two hands."""

    first: HandState | RigidState
    second: HandState | RigidState

    @property
    def dim(self) -> int:
        return self.first.dim + self.second.dim

    def retract(self, step: Tensor) -> PairState:
        at = self.first.dim
        return PairState(self.first.retract(step[:, :at]), self.second.retract(step[:, at:]))

    def assemble(self, parts: Iterable[Part]) -> NormalEquations:
        return total(parts)


@dataclass(frozen=True, eq=False)
class Of(Record):
    """A term about one half of a `PairState`."""

    half: str
    """"first" or "second" """
    term: Any

    def __getitem__(self, index: Any) -> Of:
        return Of(self.half, self.term[index])

    def linearize(self, state: PairState) -> list[NormalEquations]:
        mine = getattr(state, self.half)
        start = 0 if self.half == "first" else state.first.dim
        parts = self.term.linearize(mine)
        return [mine.assemble(parts).embedded(state.dim, start)] if parts else []
