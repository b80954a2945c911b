"""A signed-distance grid that answers value and gradient for whole batches of points at once.

One :class:`SignedDistanceGrid` holds one object or a stack of differently sized objects in one flat
tensor, so that a batch may mix objects. Looking up a point costs one gather of its eight cell corners.
`contact.objects.grid_build.build_grid` makes grids from meshes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, product
from typing import Any

import torch
from torch import Tensor

from hand_models.record import Record, shared


@dataclass(frozen=True, eq=False)
class SignedDistanceGrid(Record):
    """Signed distances at the nodes of one regular grid per object, positive outside the object.

    Node ``(i, j, k)`` of object ``g`` lies at ``origin[g] + spacing[g] * (i, j, k)`` and its value is
    ``values[offset[g] + (i * ny + j) * nz + k]`` with ``(nx, ny, nz) = shape[g]``.
    """

    values: Tensor = shared()
    """(N_total,) float32 metres, all objects one after the other."""
    shape: Tensor
    """(G, 3) int64, nodes along each axis, at least two."""
    origin: Tensor
    """(G, 3) float32 metres, position of node (0, 0, 0) in the object's frame."""
    spacing: Tensor
    """(G,) float32 metres between neighbouring nodes."""
    offset: Tensor
    """(G,) int64, where each object's values begin."""

    @cached_property
    def _corner_offset(self) -> Tensor:
        """(8, G) int64 steps from a cell's first node to its corners, the x corner in the highest bit."""
        ny, nz = self.shape[:, 1], self.shape[:, 2]
        corners = product((0, 1), repeat=3)
        return torch.stack([x * ny * nz + y * nz + z for x, y, z in corners])

    def query(self, points: Tensor, which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Distance and its gradient at points, without building an autograd graph of the lookup.

        Inside the grid's box: the trilinear value and exactly that function's gradient (its norm is near,
        not equal to, one). Outside: the value at the nearest point of the box plus the distance to it,
        an upper bound of the true distance, and the gradient of that sum.

        Args:
            points: (B, P, 3) metres in the frame of each row's object.
            which: (B,) int64 object of each row; may be left out when there is one object.

        Returns:
            distance (B, P) metres, positive outside, and gradient (B, P, 3), both in the points' dtype.
            The distance is differentiable with respect to ``points``; the gradient is returned detached.
            A point that is NaN gives NaN and leaves the others alone.

        Raises:
            ValueError: shapes that do not fit, or ``which`` missing for a stack.
        """
        if points.ndim != 3 or points.shape[-1] != 3:
            raise ValueError(f"points must have shape (B, P, 3), got {tuple(points.shape)}: add the missing axis")
        if which is None:
            if len(self) != 1:
                raise ValueError(
                    f"which is required: this grid holds {len(self)} objects; pass the (B,) object of each row"
                )
            which = self.offset.new_zeros(1)
        elif which.shape != points.shape[:1]:
            raise ValueError(f"which must have shape ({points.shape[0]},) to match points, got {tuple(which.shape)}")
        if points.requires_grad and torch.is_grad_enabled():
            return _Query.apply(points, self, which)  # type: ignore[return-value]
        return self._lookup(points.detach(), which)

    def _lookup(self, points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        dtype = points.dtype
        spacing = self.spacing[which].to(dtype)[:, None]  # (B, 1), as all per-row quantities below
        origin = self.origin[which].to(dtype).T[:, :, None]  # (3, B, 1)
        nodes = self.shape[which].T[:, :, None]
        # One axis after the other in separate contiguous (B, P) planes: strided access is what costs here.
        unit = (points.permute(2, 0, 1) - origin) / spacing
        inside = torch.minimum(unit.clamp_min(0), (nodes - 1).to(dtype))
        # Clamped as integers too: converting NaN to an integer gives an arbitrary index.
        cell = torch.minimum(inside.to(torch.int64).clamp_(min=0), nodes - 2)
        fraction = inside - cell
        base = torch.addcmul(cell[1], cell[0], nodes[1]).mul_(nodes[2]).add_(cell[2])
        base += self.offset[which][:, None]
        corner = base + self._corner_offset[:, which][:, :, None]  # (8, B, P)
        value = self.values.index_select(0, corner.reshape(-1)).to(dtype).view(corner.shape)

        fx, fy, fz = fraction
        slope_x = value[4:] - value[:4]
        value = torch.addcmul(value[:4], slope_x, fx)
        slope_x = torch.addcmul(slope_x[:2], slope_x[2:] - slope_x[:2], fy)
        slope_x = torch.addcmul(slope_x[0], slope_x[1] - slope_x[0], fz)
        slope_y = value[2:] - value[:2]
        value = torch.addcmul(value[:2], slope_y, fy)
        slope_y = torch.addcmul(slope_y[0], slope_y[1] - slope_y[0], fz)
        slope_z = value[1] - value[0]
        distance = torch.addcmul(value[0], slope_z, fz)
        gradient = torch.stack([slope_x, slope_y, slope_z]).div_(spacing)

        beyond = (unit - inside).mul_(spacing)  # non-zero only outside the box
        to_box = torch.linalg.vector_norm(beyond, dim=0)
        distance += to_box
        away = beyond / to_box.clamp_min(torch.finfo(dtype).tiny)
        gradient = torch.where(beyond == 0, gradient, away)
        return distance, gradient.permute(1, 2, 0).contiguous()

    @classmethod
    def cat(cls, parts: Sequence[SignedDistanceGrid]) -> SignedDistanceGrid:
        """Put grids one after the other; object ``g`` of the result is the g-th of all their objects."""
        starts = accumulate((grid.values.numel() for grid in parts), initial=0)
        moved = [replace(grid, offset=grid.offset + start) for grid, start in zip(parts, starts, strict=False)]
        return replace(super().cat(moved), values=torch.cat([grid.values for grid in parts]))

    def mirrored(self) -> SignedDistanceGrid:
        """The grid of the objects mirrored in x (x → −x), as left-hand problems need."""
        values = self.values.clone()
        for shape, start in zip(self.shape.tolist(), self.offset.tolist(), strict=True):
            block = slice(start, start + shape[0] * shape[1] * shape[2])
            values[block] = self.values[block].view(shape).flip(0).reshape(-1)
        origin = self.origin.clone()
        origin[:, 0] = -(self.origin[:, 0] + self.spacing * (self.shape[:, 0] - 1))
        return replace(self, values=values, origin=origin)


class _Query(torch.autograd.Function):
    """Lookup whose backward pass reuses the analytic gradient of the forward pass."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, grid: SignedDistanceGrid, which: Tensor) -> tuple[Tensor, Tensor]:
        distance, gradient = grid._lookup(points, which)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(gradient)
        return distance, gradient

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_distance: Tensor, _d_gradient: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return d_distance[..., None] * gradient, None, None
