"""Set abstraction of PointNet++ (Qi et al., NeurIPS 2017) at little cost on a CPU, exact in values and gradients.

A set abstraction runs a small network over every edge from a centroid to a neighbour and keeps, per channel,
the largest outcome: nearly all of what PointNet++ costs. Three things make it cheap. The first layer is linear
in the neighbour's features and in the relative position, so it is applied once per point, not per edge. A batch
normalisation is an affine map of each channel, so it joins the weights of the next layer once its statistics
are known. And edges go through each layer in blocks that fit a processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_BLOCK = 4096
"""Edges that go through a layer together."""
_EPS, _MOMENTUM = 1e-5, 0.1


def norm_mlp(*widths: int) -> nn.Sequential:
    """Linear, ReLU and batch normalisation, in this order, for each step from one width to the next."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.BatchNorm1d(after, _EPS, _MOMENTUM)]
    return nn.Sequential(*layers)


def over_rows(mlp: nn.Module, x: Tensor) -> Tensor:
    """``mlp`` of every row of ``x (..., c)``."""
    return mlp(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


class PooledEdges(nn.Module):
    """``max over neighbours j of mlp([f_j, x_j - x_i])``, the mlp as in `norm_mlp`."""

    def __init__(self, *widths: int) -> None:
        """``widths``: the first counts features and position, 3 more than the features alone."""
        super().__init__()
        self.mlp = norm_mlp(*widths)

    def forward(self, features: Tensor, xyz: Tensor, centroid: Tensor, index: Tensor) -> Tensor:
        """Pool over the neighbours of ``m`` centroids.

        Args:
            features: ``(B, n, c)``.
            xyz: ``(B, n, 3)``.
            centroid: ``(B, m, 3)``.
            index: ``(B, m, K)`` neighbours, indices into the ``n``.

        Returns:
            ``(B, m, last width)``.
        """
        batch, count, _ = features.shape
        linears, norms = self.mlp[0::3], self.mlp[2::3]
        first = linears[0]
        of_point = first(torch.cat([features, xyz], -1)).flatten(0, 1)
        of_centroid = (centroid @ first.weight[:, -3:].T).flatten(0, 1)
        offset = torch.arange(batch, device=index.device)[:, None, None] * count
        statistics = None if self.training else [(n.running_mean, n.running_var) for n in norms]
        parameters = [norms[0].weight, norms[0].bias]
        for linear, norm in zip(linears[1:], norms[1:], strict=True):
            parameters += [linear.weight, linear.bias, norm.weight, norm.bias]
        pooled, *found = _EdgeMax.apply(of_point, of_centroid, (index + offset).flatten(0, 1), statistics, *parameters)
        if self.training:
            edges = index.numel()
            with torch.no_grad():
                for norm, mean, var in zip(norms, found[0::2], found[1::2], strict=True):
                    norm.running_mean.lerp_(mean, _MOMENTUM)
                    norm.running_var.lerp_(var * (edges / max(edges - 1, 1)), _MOMENTUM)
                    norm.num_batches_tracked += 1
        return pooled.unflatten(0, index.shape[:2])


class _EdgeMax(torch.autograd.Function):
    """`PooledEdges` after its first linear map; returns also each layer's mean and variance."""

    @staticmethod
    def forward(
        ctx: Any, of_point: Tensor, of_centroid: Tensor, index: Tensor,
        statistics: Sequence[tuple[Tensor, Tensor]] | None, *parameters: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        weights, biases, gains, shifts = _by_layer(parameters)
        rows, width = index.shape
        edges, step = rows * width, max(_BLOCK // width, 1)
        hidden = [of_point.new_empty(edges, len(g)) for g in gains]
        best = of_point.new_empty(rows, len(gains[-1]))
        means, variances, folded = [], [], []
        for layer, h in enumerate(hidden):
            total, square = h.new_zeros(2, h.shape[1])
            scratch = h.new_empty(step * width, h.shape[1])
            if layer:
                scale = gains[layer - 1] * (variances[-1] + _EPS).rsqrt()
                offset = shifts[layer - 1] - means[-1] * scale
                folded.append(weights[layer] * scale)
                bias = biases[layer] + weights[layer] @ offset
            for start in range(0, rows, step):
                at = slice(start, min(start + step, rows))
                edge = slice(at.start * width, at.stop * width)
                block = h[edge]
                if layer:
                    torch.addmm(bias, hidden[layer - 1][edge], folded[-1].T, out=block)
                else:
                    torch.index_select(of_point, 0, index[at].flatten(), out=block)
                    block.unflatten(0, (-1, width)).sub_(of_centroid[at, None])
                block.relu_()
                if statistics is None:
                    total += block.sum(0)
                    square += torch.mul(block, block, out=scratch[: len(block)]).sum(0)
                if layer == len(hidden) - 1:
                    per_centroid = block.unflatten(0, (-1, width))
                    best[at] = per_centroid.amax(1)
                    if (gains[-1] < 0).any():
                        best[at] = torch.where(gains[-1] < 0, per_centroid.amin(1), best[at])
            if statistics is None:
                means.append(total / edges)
                variances.append((square / edges - means[-1] ** 2).clamp_min(0))
            else:
                means.append(statistics[layer][0])
                variances.append(statistics[layer][1])
        ctx.hidden, ctx.index, ctx.folded, ctx.points = hidden, index, folded, len(of_point)
        ctx.best, ctx.means, ctx.variances, ctx.parameters = best, means, variances, parameters
        ctx.fixed = statistics is not None
        pooled = (best - means[-1]) * ((variances[-1] + _EPS).rsqrt() * gains[-1]) + shifts[-1]
        found = [t for pair in zip(means, variances, strict=True) for t in pair]
        ctx.mark_non_differentiable(*found)
        return pooled, *found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        weights, _biases, gains, shifts = _by_layer(ctx.parameters)
        hidden, index = ctx.hidden, ctx.index
        rows, width = index.shape
        step = max(_BLOCK // width, 1)
        blocks = [slice(s, min(s + step, rows)) for s in range(0, rows, step)]
        grads: dict[str, list[Tensor | None]] = {k: [None] * len(gains) for k in ("w", "b", "g", "s")}

        inverse = (ctx.variances[-1] + _EPS).rsqrt()
        centred = ((ctx.best - ctx.means[-1]) * upstream).sum(0)
        d_scale, d_offset = centred + ctx.means[-1] * upstream.sum(0), upstream.sum(0)
        of_winner = upstream * (gains[-1] * inverse)
        last = len(hidden) - 1
        for layer in range(last, -1, -1):
            # h -> h * scale + offset, with scale = gain * inverse and offset = shift - mean * scale.
            inverse = (ctx.variances[layer] + _EPS).rsqrt()
            scale, mean = gains[layer] * inverse, ctx.means[layer]
            d_scale = d_scale - mean * d_offset
            grads["g"][layer], grads["s"][layer] = d_scale * inverse, d_offset
            d_variance = -0.5 * inverse**3 * gains[layer] * d_scale
            edges = 1 if ctx.fixed else rows * width
            slope = 2 * d_variance / edges
            constant = (-scale * d_offset - 2 * mean * d_variance) / edges
            if ctx.fixed:
                slope, constant = torch.zeros_like(slope), torch.zeros_like(constant)
            if layer:
                d_weight, d_bias = torch.zeros_like(weights[layer]), torch.zeros_like(gains[layer])
            else:
                d_point = upstream.new_zeros(ctx.points, len(gains[0]))
                d_centroid = upstream.new_empty(rows, len(gains[0]))
            for at in blocks:
                edge = slice(at.start * width, at.stop * width)
                h = hidden[layer][edge]
                if layer == last:
                    won = h.unflatten(0, (-1, width)).clone().eq_(ctx.best[at, None])
                    won.mul_((of_winner[at] / won.sum(1))[:, None])  # a tie shares its gradient
                    d = won.flatten(0, 1).add_(constant).addcmul_(h, slope)
                else:
                    d = torch.addmm(constant, hidden[layer + 1][edge], ctx.folded[layer])
                    d.addcmul_(h, slope)
                torch.ops.aten.threshold_backward.grad_input(d, h, 0, grad_input=d)
                if layer:
                    d_bias += d.sum(0)
                    d_weight.addmm_(d.T, hidden[layer - 1][edge])
                    h.copy_(d)  # the layer's gradient takes the place of its values, which are done with
                else:
                    torch.sum(d.unflatten(0, (-1, width)), 1, out=d_centroid[at])
                    d_point.index_add_(0, index[at].flatten(), d)
            if layer:
                # What the folded weights and bias owe to this layer's weights and the norm before.
                before = gains[layer - 1] * (ctx.variances[layer - 1] + _EPS).rsqrt()
                offset = shifts[layer - 1] - ctx.means[layer - 1] * before
                grads["w"][layer] = d_weight * before + torch.outer(d_bias, offset)
                grads["b"][layer] = d_bias
                d_scale, d_offset = (d_weight * weights[layer]).sum(0), d_bias @ weights[layer]
        ctx.hidden = None
        ordered = [grads["g"][0], grads["s"][0]]
        for layer in range(1, len(gains)):
            ordered += [grads[k][layer] for k in ("w", "b", "g", "s")]
        return d_point, -d_centroid, None, None, *ordered


def _by_layer(parameters: Sequence[Tensor]) -> tuple[list[Any], list[Any], list[Tensor], list[Tensor]]:
    """Weights, biases (neither for the first layer), gains and shifts."""
    rest = parameters[2:]
    weights, biases = [None, *rest[0::4]], [None, *rest[1::4]]
    return weights, biases, [parameters[0], *rest[2::4]], [parameters[1], *rest[3::4]]


def farthest_points(xyz: Tensor, count: int) -> Tensor:
    """(B, count) indices of farthest-point samples of ``xyz (B, n, 3)``, beginning with the first point."""
    chosen = torch.zeros(len(xyz), count, dtype=torch.long, device=xyz.device)
    planes = xyz.transpose(1, 2).contiguous()
    distance = torch.full(xyz.shape[:2], torch.inf, device=xyz.device)
    for k in range(count - 1):
        here = planes.gather(2, chosen[:, None, k, None].expand(-1, 3, 1))
        distance = torch.minimum(distance, (planes - here).square_().sum(1))
        chosen[:, k + 1] = distance.argmax(1)
    return chosen


def ball(xyz: Tensor, centroid: Tensor, radius: float, count: int, key: Tensor) -> Tensor:
    """(B, m, count) indices of points of ``xyz (B, n, 3)`` within ``radius`` of ``centroid (B, m, 3)``.

    Args:
        key: ``(m, n)`` in (0, 1]; of more than ``count`` neighbours those with the largest key are taken. Fewer
            are repeated, beginning with the largest key.
    """
    within = torch.cdist(centroid, xyz) <= radius
    value, index = (within * key).topk(min(count, xyz.shape[1]), dim=-1)
    return torch.where(value > 0, index, index[..., :1])


def nearest(coarse: Tensor, fine: Tensor, count: int = 3) -> tuple[Tensor, Tensor]:
    """Indices of the closest of ``coarse (B, m, 3)`` to each of ``fine (B, n, 3)``, and weights, ``(B, n, count)``.

    Weights fall with the square of the distance and sum to one.
    """
    distance, index = torch.cdist(fine, coarse).topk(count, dim=-1, largest=False)
    weight = 1 / distance.square().clamp_min(1e-16)
    return index, weight / weight.sum(-1, keepdim=True)


def interpolate(values: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """``values (B, m, c)`` at ``index (B, n, k)``, averaged by ``weight (B, n, k)``: ``(B, n, c)``."""
    batch, count, width = values.shape
    rows = index + torch.arange(batch, device=index.device)[:, None, None] * count
    taken = values.reshape(-1, width).index_select(0, rows.flatten()).unflatten(0, rows.shape)
    return (taken * weight[..., None]).sum(2)


class Propagate(nn.Module):
    """Feature propagation of PointNet++: a norm-mlp of what is interpolated and what was known before.

    The first layer is applied before interpolating, which is the same, as the weights sum to one.
    """

    def __init__(self, coarse: int, fine: int, *widths: int) -> None:
        super().__init__()
        self.coarse, self.fine = nn.Linear(coarse, widths[0]), nn.Linear(fine, widths[0], bias=False)
        self.after = nn.Sequential(nn.ReLU(), nn.BatchNorm1d(widths[0]), *norm_mlp(*widths))

    def forward(
        self, coarse: Tensor, fine: Tensor, index: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        """``fine (B, n, c)`` with ``coarse (B, m, c')`` at ``index, weight (B, n, k)``; without, ``m`` is 1 or n."""
        spread = self.coarse(coarse)
        if index is not None:
            spread = interpolate(spread, index, weight)
        return over_rows(self.after, spread + self.fine(fine))
