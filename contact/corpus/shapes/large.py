"""Things larger than a hand, held by a wall, a rim or an edge: crates, panels, hinged covers. Millimetres."""

from __future__ import annotations

import numpy as np
from manifold3d import CrossSection, Manifold

from contact.corpus.shapes.solids import draws, loft_upright, plate_of, rounded_box, superellipse, uniform


def crate(rng: np.random.Generator) -> Manifold:
    """Open boxes: drawers, storage bins, baskets, trays: 140 to 320 long, 28 to 170 high, walls 2 to 9.

    Walls may lean outwards; of one in three, the front is cut down, as of bins that are stacked.
    """
    length, width, wall = draws(rng, (140, 320), (0.45, 0.9), (2.0, 9.0))
    width, height = length * width, uniform(rng, 28, 170) if rng.random() < 0.8 else uniform(rng, 28, 50)
    base, corner = uniform(rng, 0.75, 1.0), uniform(rng, 4.0, 12.0)

    def body(grow: float, low: float) -> Manifold:
        t = np.linspace(0, 1, 5)
        half = np.stack([length / 2 * (base + (1 - base) * t), width / 2 * (base + (1 - base) * t)]) + grow
        return loft_upright(low + t * (height - low), *half, np.full(5, corner), 64)

    solid = body(0.0, 0.0) - body(-wall, wall).translate((0.0, 0.0, 0.01 * height))
    if rng.random() < 1 / 3:
        drop = uniform(rng, 0.3, 0.6) * height
        front = rounded_box((0.3 * length, 2 * width, 2 * drop), 0.3 * drop)
        solid = solid - front.translate((length / 2, 0.0, height))
    return solid


def panel(rng: np.random.Generator) -> Manifold:
    """Books, boards, tablets, framed pictures, lying: 160 to 330 long, 5 to 40 thick."""
    length, width, thick = draws(rng, (160, 330), (0.55, 0.95), (5, 40) if rng.random() < 0.5 else (5, 16))
    outline = CrossSection([superellipse(length / 2, length * width / 2, uniform(rng, 6, 24), 72)])
    return plate_of(outline, thick, uniform(rng, 0.1, 0.4) * thick)


def cover(rng: np.random.Generator) -> Manifold:
    """Two panels on a hinge, 50 to 130 degrees open: laptops, cases, ring binders: 190 to 320 wide, 6 to 26 thick."""
    wide, deep = uniform(rng, 190, 320), uniform(rng, 130, 220)
    thick, lid, edge = draws(rng, (9, 26), (6, 14), (1.5, 3.0))
    base = rounded_box((wide, deep, thick), edge, segments=8).translate((0.0, deep / 2, thick / 2))
    top = rounded_box((wide, deep * uniform(rng, 0.9, 1.0), lid), edge, segments=8)
    top = top.translate((0.0, deep / 2, lid / 2)).rotate((uniform(rng, 50, 130), 0.0, 0.0))
    return base + top.translate((0.0, lid, 0.5 * thick))
