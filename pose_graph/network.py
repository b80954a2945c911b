"""Networks that lift 29 keypoints: JHOPE's context-aware graphs, HOPE-Net's Graph U-Net, and a plain MLP.

All take node features ``(B, 29, F)`` (`pose_graph.lifting.View.features`, with image features beside them if
there are any) and give the same numbers for each node, so that they are trained and used alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from .graph import CORNERS, JOINTS, NODES, LearnedAdjacency, adjacency, cuboid_edges, grasp_adjacency, hand_edges

NODE_FEATURES = 8
"""Numbers a node has without image features: x, y, confidence, log of the apparent size, the box (3) and whether
it is known."""
UNIT = 0.05
"""Metres in which networks speak of positions."""


@dataclass(frozen=True)
class LiftConfig:
    """Which network, and how large."""

    kind: Literal["context", "unet", "mlp"] = "context"
    """JHOPE's context-aware module, HOPE-Net's adaptive Graph U-Net, or a plain multilayer perceptron"""
    width: int = 64
    """channels of the context-aware module's graph convolutions (128 in JHOPE)"""
    unet_channels: tuple[int, ...] = (32, 64, 96, 128, 192)
    """of the U-Net at 29, 15, 7, 4 and 2 nodes"""
    mlp_width: int = 384
    """of the perceptron's two hidden layers"""
    dropout: float = 0.1
    """after each pair of convolutions of the interaction graph (0.3 in JHOPE, whose data are fewer)"""
    readout: int = 256
    """hidden units of the graph networks' last layer, which reads all nodes at once; 0: each node for itself"""
    image_features: int = 0
    """numbers per node from an image encoder"""

    def __post_init__(self) -> None:
        if self.kind not in ("context", "unet", "mlp"):
            raise ValueError(f"kind: got {self.kind!r}; choose 'context', 'unet' or 'mlp'.")
        if len(self.unet_channels) != 5:
            raise ValueError(f"unet_channels: got {len(self.unet_channels)}; give five, one for each level.")
        object.__setattr__(self, "unet_channels", tuple(self.unet_channels))


@dataclass(frozen=True)
class LiftOutput:
    """What a network says about each node; lengths in `UNIT`."""

    keypoints: Tensor
    """(B, 29, 2) corrected positions in the units of the input's first two features"""
    offsets: Tensor
    """(B, 29, 3) from the point where the input sees the node at the common depth"""
    log_sigma: Tensor
    """(B, 29) log standard deviation per axis of the point among the others"""
    log_depth: Tensor
    """(B,) log of the common depth over its first guess"""


class GraphConv(nn.Module):
    """``X W0 + A (M ∘ X W) + b`` with a normalised adjacency A that is handed in.

    Kipf & Welling (ICLR 2017) with a weight of its own for the node itself, and with the modulation M, one vector
    for each node, of Zou & Tang (Modulated Graph Convolutional Network, ICCV 2021): without it a thumb's tip
    and a box's corner would have to speak to their neighbours in the same words.
    """

    def __init__(self, inputs: int, outputs: int, nodes: int) -> None:
        super().__init__()
        self.own = nn.Linear(inputs, outputs)
        self.others = nn.Linear(inputs, outputs, bias=False)
        self.modulation = nn.Parameter(1 + 0.5 * torch.randn(nodes, outputs))

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """``(B, N, inputs)`` and ``(N, N)`` to ``(B, N, outputs)``."""
        return self.own(x) + graph @ (self.others(x) * self.modulation)


class Readout(nn.Module):
    """Numbers for each node, from all nodes at once, or with ``hidden`` 0 from each node for itself."""

    def __init__(self, nodes: int, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.shape = (nodes, outputs)
        self.together = hidden > 0
        self.layers: nn.Module = nn.Linear(inputs, outputs)
        if self.together:
            self.layers = nn.Sequential(
                nn.Linear(nodes * inputs, hidden), nn.ReLU(), nn.Linear(hidden, nodes * outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, inputs)`` to ``(B, N, outputs)``."""
        return self.layers(x.flatten(1)).reshape(-1, *self.shape) if self.together else self.layers(x)


class KeypointGraph(nn.Module):
    """Three graph convolutions (128, 16, 2) over all nodes that correct the 2D keypoints; first in both peers."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.graph = LearnedAdjacency(grasp_adjacency())
        widths = (inputs, 128, 16, 2)
        self.layers = nn.ModuleList(GraphConv(a, b, NODES) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 29, F)`` to the correction ``(B, 29, 2)``."""
        graph = self.graph()
        for layer in self.layers[:-1]:
            x = layer(x, graph).relu()
        return self.layers[-1](x, graph)


class PartGraph(nn.Module):
    """JHOPE's hand or object graph: three graph convolutions, then 3D by regression."""

    def __init__(self, inputs: int, config: LiftConfig, initial: Tensor) -> None:
        super().__init__()
        nodes, width = len(initial), config.width
        self.graph = LearnedAdjacency(initial)
        self.layers = nn.ModuleList(GraphConv(a, width, nodes) for a in (inputs, width, width))
        self.regress = Readout(nodes, width, 3, config.readout // 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, N, F)`` to hidden ``(B, N, width)`` and offsets ``(B, N, 3)``."""
        graph = self.graph()
        for layer in self.layers:
            x = layer(x, graph).relu()
        return x, self.regress(x)


class ContextLift(nn.Module):
    """JHOPE's context-aware module: hand graph, object graph, then an interaction graph that corrects both.

    Each pair of the interaction graph's six convolutions is added to its input, which trains faster.
    """

    def __init__(self, inputs: int, config: LiftConfig) -> None:
        super().__init__()
        width = config.width
        self.hand = PartGraph(inputs, config, adjacency(hand_edges(), JOINTS))
        self.object = PartGraph(inputs, config, adjacency(cuboid_edges(), CORNERS))
        self.graph = LearnedAdjacency(torch.eye(NODES))
        first = inputs + width + 3
        widths = ((first, width), *(((width, width),) * 5))
        self.layers = nn.ModuleList(GraphConv(a, b, NODES) for a, b in widths)
        self.dropout = nn.Dropout(config.dropout)
        self.regress = Readout(NODES, width, 5, config.readout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 29, F)`` to ``(B, 29, 5)``."""
        hand, hand_points = self.hand(x[:, :JOINTS])
        box, box_points = self.object(x[:, JOINTS:])
        points = torch.cat([hand_points, box_points], 1)
        h = torch.cat([x, torch.cat([hand, box], 1), points], 2)
        graph = self.graph()
        for k in range(0, len(self.layers), 2):
            inner = self.layers[k + 1](self.layers[k](h, graph).relu(), graph).relu()
            h = self.dropout(inner if k == 0 else h + inner)
        out = self.regress(h)
        return torch.cat([out[..., :3] + points, out[..., 3:]], 2)


class GraphUNet(nn.Module):
    """HOPE-Net's adaptive Graph U-Net: pooling over nodes is learned, 29, 15, 7, 4, 2, 1 and back with skips."""

    SIZES = (NODES, 15, 7, 4, 2, 1)

    def __init__(self, inputs: int, config: LiftConfig) -> None:
        super().__init__()
        sizes, channels = self.SIZES, config.unet_channels
        starts = [grasp_adjacency(), *(torch.eye(n) for n in sizes[1:-1])]
        self.graphs = nn.ModuleList(LearnedAdjacency(a) for a in starts)
        pairs = pairwise((inputs, *channels))
        self.down = nn.ModuleList(GraphConv(a, b, n) for (a, b), n in zip(pairs, sizes[:-1], strict=True))
        self.pool = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.middle = nn.Sequential(
            nn.Linear(channels[-1], channels[-1] // 2), nn.ReLU(), nn.Linear(channels[-1] // 2, channels[-1])
        )
        self.unpool = nn.ModuleList(nn.Linear(b, a) for a, b in pairwise(sizes))
        below = (*channels[1:], channels[-1])
        self.up = nn.ModuleList(GraphConv(a + b, b, n) for a, b, n in zip(below, channels, sizes[:-1], strict=True))
        self.regress = Readout(NODES, channels[0], 5, config.readout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 29, F)`` to ``(B, 29, 5)``."""
        graphs = [graph() for graph in self.graphs]
        skips = []
        for conv, pool, graph in zip(self.down, self.pool, graphs, strict=True):
            x = conv(x, graph).relu()
            skips.append(x)
            x = pool(x.transpose(1, 2)).transpose(1, 2)
        x = self.middle(x).relu()
        for level in reversed(range(len(skips))):
            x = self.unpool[level](x.transpose(1, 2)).transpose(1, 2)
            x = self.up[level](torch.cat([x, skips[level]], 2), graphs[level]).relu()
        return self.regress(x)


class PlainLift(nn.Module):
    """The reference without a graph: all nodes in one vector, two hidden layers."""

    def __init__(self, inputs: int, config: LiftConfig) -> None:
        super().__init__()
        width = config.mlp_width
        self.layers = nn.Sequential(
            nn.Linear(NODES * inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, NODES * 5),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 29, F)`` to ``(B, 29, 5)``."""
        return self.layers(x.flatten(1)).reshape(-1, NODES, 5)


class LiftNet(nn.Module):
    """One of the three, with the correction of the keypoints before the graph networks."""

    def __init__(self, config: LiftConfig = LiftConfig()) -> None:
        super().__init__()
        self.config = config
        inputs = NODE_FEATURES + config.image_features
        if config.kind == "mlp":
            self.keypoints = None
            self.body: nn.Module = PlainLift(inputs, config)
            return
        self.keypoints = KeypointGraph(inputs)
        self.body = (ContextLift if config.kind == "context" else GraphUNet)(inputs + 2, config)

    def forward(self, features: Tensor) -> LiftOutput:
        """Lift ``(B, 29, 8 + image_features)``.

        Raises:
            ValueError: another shape.
        """
        width = NODE_FEATURES + self.config.image_features
        if features.ndim != 3 or features.shape[1:] != (NODES, width):
            raise ValueError(f"features: got shape {tuple(features.shape)}; expected (B, {NODES}, {width}).")
        seen, x = features[..., :2], features
        if self.keypoints is not None:
            seen = seen + self.keypoints(x)
            x = torch.cat([x, seen], 2)
        out = self.body(x)
        return LiftOutput(seen, out[..., :3], out[..., 3].clamp(-6, 3), out[..., 4].mean(1).clamp(-2, 2))
