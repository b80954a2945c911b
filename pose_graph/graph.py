"""The graph of 29 nodes, 21 hand joints and 8 corners of the object's box, and adjacencies that are learned.

Hand joints are in OpenPose order. Corner ``4 x + 2 y + z`` is the one at the high end of the axes whose bit is
set (z fastest), in the object's frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hand_models.atomic import write_atomically
from hand_models.skeleton import JOINT_NAMES, bones

JOINTS = 21
CORNERS = 8
NODES = JOINTS + CORNERS
NODE_NAMES = (*JOINT_NAMES, *(f"corner_{k:03b}" for k in range(CORNERS)))
"""Names of the nodes; a corner's digits are x, y, z, 0 for the low end of the axis."""


def hand_edges() -> tuple[tuple[int, int], ...]:
    """The 20 bones as pairs of nodes."""
    return bones("openpose")


def cuboid_edges(first: int = 0) -> tuple[tuple[int, int], ...]:
    """The 12 edges of a box as pairs of corners, numbered from ``first``."""
    pairs = ((a, a | bit) for a in range(CORNERS) for bit in (1, 2, 4) if not a & bit)
    return tuple((first + a, first + b) for a, b in pairs)


def adjacency(edges: Sequence[tuple[int, int]], nodes: int) -> Tensor:
    """``(nodes, nodes)`` symmetric 0/1 matrix of ``edges`` with self-loops.

    Raises:
        ValueError: an edge names a node that is not there.
    """
    matrix = torch.eye(nodes)
    for a, b in edges:
        if not (0 <= a < nodes and 0 <= b < nodes):
            raise ValueError(f"edges: ({a}, {b}) is not between 0 and {nodes - 1}; number the nodes from 0.")
        matrix[a, b] = matrix[b, a] = 1.0
    return matrix


def grasp_adjacency() -> Tensor:
    """``(29, 29)``: skeleton and cuboid, which do not touch; self-loops."""
    return adjacency((*hand_edges(), *cuboid_edges(JOINTS)), NODES)


def normalised(matrix: Tensor) -> Tensor:
    """Symmetric normalisation ``D^-1/2 A D^-1/2`` of ``(N, N)``, D the row sums of ``|A|``.

    Kipf & Welling, ICLR 2017, eq. 2; with absolute values, so that learned entries may be negative.
    """
    scale = matrix.abs().sum(1).clamp_min(1e-6).rsqrt()
    return scale[:, None] * matrix * scale[None]


class LearnedAdjacency(nn.Module):
    """An adjacency whose entries are parameters, started from ``initial (N, N)``; returns it normalised."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(initial.clone())

    def forward(self) -> Tensor:
        """``(N, N)`` as graph convolutions use it."""
        return normalised(self.matrix)


def learned_adjacencies(network: nn.Module) -> dict[str, Tensor]:
    """Every adjacency of a network, normalised, by the name of its module."""
    modules = {name: module for name, module in network.named_modules() if isinstance(module, LearnedAdjacency)}
    return {name: module().detach().cpu() for name, module in modules.items()}


def draw_adjacency(matrix: Tensor, path: str | Path, *, names: Sequence[str] = (), cell: int = 18) -> Path:
    """Write an adjacency as a picture: red positive, blue negative, full colour at the largest magnitude.

    Args:
        matrix: ``(N, N)``, row = node that receives.
        path: picture file; its folder is made when absent.
        names: labels of the rows; `NODE_NAMES` for 29 nodes when not given.
        cell: pixels of an entry's side.

    Raises:
        ValueError: the matrix is not square, or the labels are not as many.
    """
    from PIL import Image, ImageDraw

    values = matrix.detach().cpu().double().numpy()
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise ValueError(f"matrix: got shape {values.shape}; expected (N, N).")
    count = len(values)
    known = {NODES: NODE_NAMES, JOINTS: NODE_NAMES[:JOINTS], CORNERS: NODE_NAMES[JOINTS:]}
    labels = tuple(names) or known.get(count, tuple(map(str, range(count))))
    if len(labels) != count:
        raise ValueError(f"names: {len(labels)} for {count} nodes; give one for each.")
    share = values / max(np.abs(values).max(), 1e-12)
    strength = np.abs(share)[..., None]
    colour = np.where(share[..., None] >= 0, [200.0, 30.0, 40.0], [30.0, 70.0, 190.0])
    pixels = (255 * (1 - strength) + colour * strength).round().astype(np.uint8)
    pixels = pixels.repeat(cell, 0).repeat(cell, 1)
    margin = 8 + 7 * max(map(len, labels))
    picture = Image.new("RGB", (count * cell + margin, count * cell), "white")
    picture.paste(Image.fromarray(pixels), (margin, 0))
    pen = ImageDraw.Draw(picture)
    for k, label in enumerate(labels):
        pen.text((4, k * cell + (cell - 11) // 2), label, fill="black")
    kind = Image.registered_extensions().get(Path(path).suffix.lower(), "PNG")
    return write_atomically(path, lambda file: picture.save(file, format=kind))
