"""Sequences: states of neighbouring frames solved for together, in time linear in the number of frames.

Terms about single frames serve as they are (`PerFrame`); terms about time reach two frames far at most, such as
`Acceleration`. The Hessian is then a band of blocks. Frames taken in pairs make it block-tridiagonal, and block
Cholesky (Golub & Van Loan, Matrix Computations, ch. 4.5) goes through it once there and once back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..record import Common, Record
from ..rotations import left_jacobian, log_so3
from .normal_equations import NormalEquations, damping_of
from .states import HandState, RigidState, Term

_CHUNK = 128  # frames linearised at a time: bounds memory and stays near the processor


@dataclass(frozen=True, eq=False)
class SequenceState(Record):
    """``B`` sequences of ``T`` frames each."""

    frames: HandState | RigidState
    """``B · T`` rows, sequence by sequence"""
    length: int
    """T"""

    @property
    def dim(self) -> int:
        return self.length * self.frames.dim

    def __len__(self) -> int:
        return len(self.frames) // self.length

    def __getitem__(self, index: Any) -> SequenceState:
        return replace(self, frames=self.frames[frames_of(index, len(self), self.length)])

    def where(self, mask: Tensor, other: SequenceState) -> SequenceState:
        return replace(self, frames=self.frames.where(mask.repeat_interleave(self.length), other.frames))

    def retract(self, step: Tensor) -> SequenceState:
        return replace(self, frames=self.frames.retract(step.reshape(len(self.frames), -1)))

    def assemble(self, parts: Iterable[SequenceEquations]) -> SequenceEquations:
        return SequenceEquations.total(list(parts))


def frames_of(index: Any, count: int, length: int) -> Tensor:
    """Frames of the sequences ``index`` of ``count``."""
    frames = torch.arange(count * length).view(count, length)
    return frames[index.cpu() if isinstance(index, Tensor) else index].flatten()


@dataclass(frozen=True)
class SequenceEquations(Record):
    """Half the sum of squared residuals of ``B`` sequences, to second order; blocks of ``D`` unknowns a frame."""

    cost: Tensor
    """(B,)"""
    gradient: Tensor
    """(B, T, D)"""
    own: Tensor
    """(B, T, D, D) of each frame with itself"""
    next: Tensor | None = None
    """(B, T - 1, D, D) of each frame with the next; None for none"""
    after: Tensor | None = None
    """(B, T - 2, D, D) with the one after that; None for none"""

    @staticmethod
    def total(parts: Sequence[SequenceEquations]) -> SequenceEquations:
        """Of all residuals together; raises ``ValueError`` when there are none."""
        if not parts:
            raise ValueError("terms: none given; a problem needs at least one.")

        def add(name: str) -> Any:
            there = [value for part in parts if (value := getattr(part, name)) is not None]
            return sum(there[1:], there[0]) if there else None

        return SequenceEquations(*(add(name) for name in ("cost", "gradient", "own", "next", "after")))

    def step(self, damping: Tensor) -> Tensor:
        """Damped Newton step ``(B, T · D)``, as `NormalEquations.step`."""
        diagonal = torch.diagonal(self.own, dim1=2, dim2=3)
        boost = damping_of(diagonal.flatten(1), damping).view_as(diagonal)
        step = -_solve(self.own + torch.diag_embed(boost), self.next, self.after, self.gradient).flatten(1)
        return torch.where(step.isfinite().all(1, keepdim=True), step, torch.zeros_like(step))

    def promised(self, step: Tensor) -> Tensor:
        """Decrease ``(B,)`` of the cost that the model expects of ``step (B, T · D)``."""
        s = step.view_as(self.gradient)
        curved = (self.own @ s[..., None])[..., 0]
        for reach, block in ((1, self.next), (2, self.after)):
            if block is not None:  # above and below the diagonal
                curved[:, :-reach] += (block @ s[:, reach:, :, None])[..., 0]
                curved[:, reach:] += (block.transpose(2, 3) @ s[:, :-reach, :, None])[..., 0]
        return -((self.gradient + 0.5 * curved) * s).sum((1, 2))

    def variances(self) -> Tensor:
        """Covariance ``(B, T, D, D)`` of each frame's unknowns, the others free: diagonal blocks of the inverse.

        By the recursion of selected inversion (Takahashi et al. 1973), from the last pair of frames to the first.
        """
        diagonal = torch.diagonal(self.own, dim1=2, dim2=3)
        firm = self.own + torch.diag_embed(1e-6 * diagonal + 1e-9)
        main, side, _ = _pairs(firm, self.next, self.after, self.gradient)
        factors, sides, _ = _factored(main, side, None)
        found: list[Tensor] = []
        for k in reversed(range(len(factors))):
            inner = torch.eye(main.shape[2]).to(main).expand_as(factors[k])
            if found:
                inner = inner + sides[k] @ found[-1] @ sides[k].transpose(1, 2)
            half = torch.linalg.solve_triangular(factors[k].transpose(1, 2), inner, upper=True)
            found.append(torch.linalg.solve_triangular(factors[k].transpose(1, 2), half.transpose(1, 2), upper=True))
        dim = self.gradient.shape[2]
        both = torch.stack(found[::-1], 1)  # (B, pairs, 2 D, 2 D)
        blocks = torch.stack([both[..., :dim, :dim], both[..., dim:, dim:]], 2).flatten(1, 2)
        return blocks[:, : self.gradient.shape[1]]


def _pairs(own: Tensor, following: Tensor | None, after: Tensor | None, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The banded system by pairs of frames: diagonal and upper blocks, and the right side ``(B, pairs, 2 D, 1)``."""
    batch, length, dim = right.shape
    odd = length % 2
    zeros = own.new_zeros(batch, max(length - 1, 0), dim, dim)
    following = zeros if following is None else following
    after = zeros[:, 1:] if after is None else after
    # One frame more where they are odd in number, which nothing depends on.
    own = torch.cat([own, torch.eye(dim).to(own).expand(batch, 1, dim, dim)], 1) if odd else own
    right = pad(right, (0, 0, 0, odd))
    following, after = pad(following, (0, 0, 0, 0, 0, odd)), pad(after, (0, 0, 0, 0, 0, odd))
    count = (length + odd) // 2
    main = own.new_zeros(batch, count, 2 * dim, 2 * dim)  # the lower triangle is all that is read
    main[..., :dim, :dim], main[..., dim:, dim:] = own[:, ::2], own[:, 1::2]
    main[..., dim:, :dim] = following[:, ::2].transpose(2, 3)
    side = own.new_zeros(batch, count - 1, 2 * dim, 2 * dim)
    side[..., :dim, :dim], side[..., dim:, dim:] = after[:, ::2], after[:, 1::2]
    side[..., dim:, :dim] = following[:, 1::2]
    return main, side, right.reshape(batch, count, 2 * dim, 1)


def _factored(main: Tensor, side: Tensor, right: Tensor | None) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Block Cholesky: of each pair its factor C, C⁻¹ times the block beside it, and C⁻¹ times what is left of right."""
    factors, sides, found = [], [], []
    count = main.shape[1]
    for k in range(count):
        block = main[:, k]
        columns = [] if right is None else [right[:, k]]
        if k:
            block = torch.baddbmm(block, sides[-1].transpose(1, 2), sides[-1], alpha=-1)
            if right is not None:
                columns = [torch.baddbmm(right[:, k], sides[-1].transpose(1, 2), found[-1], alpha=-1)]
        factor, _ = torch.linalg.cholesky_ex(block)
        factors.append(factor)
        if k + 1 < count:
            columns.insert(0, side[:, k])
        if not columns:
            break
        both = torch.linalg.solve_triangular(factor, torch.cat(columns, 2), upper=False)
        sides.append(both[..., : side.shape[2]])
        if right is not None:
            found.append(both[..., -1:])
    return factors, sides, found


def _solve(own: Tensor, following: Tensor | None, after: Tensor | None, right: Tensor) -> Tensor:
    """``(B, T, D)`` solving the banded system for ``right (B, T, D)``, by Cholesky of pairs of frames."""
    batch, length, dim = right.shape
    main, side, right = _pairs(own, following, after, right)
    count = main.shape[1]
    factors, sides, found = _factored(main, side, right)
    for k in reversed(range(count)):
        value = found[k] if k + 1 == count else torch.baddbmm(found[k], sides[k], found[k + 1], alpha=-1)
        found[k] = torch.linalg.solve_triangular(factors[k].transpose(1, 2), value, upper=True)
    return torch.stack(found, 1).reshape(batch, 2 * count, dim)[:, :length]


@dataclass(frozen=True, eq=False)
class PerFrame:
    """Terms about single frames, in ``count`` sequences of ``length`` frames."""

    terms: tuple[Term, ...]
    """each of ``count · length`` problems, sequence by sequence"""
    count: int
    length: int

    def __getitem__(self, index: Any) -> PerFrame:
        rows = frames_of(index, self.count, self.length)
        return PerFrame(tuple(term[rows] for term in self.terms), len(rows) // self.length, self.length)

    def linearize(self, state: SequenceState) -> list[SequenceEquations]:
        parts = []
        for start in range(0, len(state.frames), _CHUNK):
            rows = slice(start, start + _CHUNK)
            some = state.frames[rows]
            parts.append(some.assemble([part for term in self.terms for part in term[rows].linearize(some)]))
        all_frames: NormalEquations = NormalEquations.cat(parts)
        by_frame = all_frames.map(lambda t: t.unflatten(0, (self.count, self.length)))
        return [SequenceEquations(by_frame.cost.sum(1), by_frame.gradient, by_frame.hessian)]


@dataclass(frozen=True, eq=False)
class Acceleration(Common):
    """Motion without haste: second differences of a hand's or a body's place, turn and joint angles are near zero.

    Of the turn it is the change of the rotation vector from one frame to the next, in the world's axes.
    """

    transl: float
    """standard deviation, metres a frame²"""
    turn: float
    """radians a frame²"""
    bend: float = 1.0
    """of joint angles, radians a frame²"""

    def linearize(self, state: SequenceState) -> list[SequenceEquations]:
        transl, rotation, bend = (t.unflatten(0, (len(state), state.length)) for t in state.frames.motion)
        batch, length, dim = len(state), state.length, state.frames.dim
        gradient, own = transl.new_zeros(batch, length, dim), transl.new_zeros(batch, length, dim, dim)
        blocks = [own, own[:, 1:].clone(), own[:, 2:].clone()]
        if length < 3:
            return [SequenceEquations(transl.new_zeros(batch), gradient, own)]
        # Rotations: log(R₂ R₁ᵀ) - log(R₁ R₀ᵀ), turned by exp(w) on the left of each (Solà et al. 2018, eqs. 143-146).
        moved = log_so3(rotation[:, 1:] @ rotation[:, :-1].transpose(2, 3))
        inverse = torch.linalg.inv(left_jacobian(moved)) / self.turn
        back, ahead = inverse[:, :-1], inverse[:, 1:]
        rows = (back.transpose(2, 3), -back - ahead.transpose(2, 3), ahead)
        turned = moved.diff(dim=1) / self.turn
        # The others are linear, each unknown by itself.
        scale = torch.cat([torch.full_like(transl[0, 0], 1 / self.transl), torch.full_like(bend[0, 0], 1 / self.bend)])
        others = [*range(3), *range(6, 6 + bend.shape[2])]
        straight = torch.cat([transl, bend], 2).diff(n=2, dim=1) * scale
        for i, (weight, row) in enumerate(zip((1, -2, 1), rows, strict=True)):
            at = slice(i, length - 2 + i)
            gradient[:, at, 3:6] += (row.transpose(2, 3) @ turned[..., None])[..., 0]
            gradient[:, at, others] += weight * scale * straight
            for j in range(i, 3):
                block = blocks[j - i][:, at]
                block[..., 3:6, 3:6] += row.transpose(2, 3) @ rows[j]
                block[..., others, others] += weight * (1, -2, 1)[j] * scale**2
        cost = 0.5 * (turned.square().sum((1, 2)) + straight.square().sum((1, 2)))
        return [SequenceEquations(cost, gradient, *blocks)]
