"""Utensils, lying on the table: spatulas, pens, blades, plates, cutlery. Dimensions in millimetres."""

from __future__ import annotations

import numpy as np
from manifold3d import CrossSection, Manifold

from contact.corpus.shapes.solids import (
    along_x,
    bend,
    monotone,
    plate_of,
    polygon,
    revolve,
    rounded,
    rounded_box,
    superellipse,
    sweep,
    uniform,
    union,
)


def spatula(rng: np.random.Generator) -> Manifold:
    """Spatulas, turners, brushes, rackets, ping-pong bats: 180 to 330 long, blade 45 to 140 wide, 2 to 9 thick."""
    blade, width = uniform(rng, 70, 125), uniform(rng, 45, 100)
    thick, handle, grip = uniform(rng, 2.2, 6.0), uniform(rng, 100, 190), uniform(rng, 14, 27)
    if rng.random() < 0.3:
        blade, width, thick, handle = (
            uniform(rng, 130, 160),
            uniform(rng, 115, 140),
            uniform(rng, 5, 9),
            uniform(rng, 90, 115),
        )
    tilt = uniform(rng, 0.0, 18.0)
    outline = CrossSection([superellipse(blade / 2, width / 2, uniform(rng, 2.2, 7.0), 64)]).translate((blade / 2, 0.0))
    slots = int(rng.integers(2)) * 3 if thick < 5 and width > 55 else 0
    for slot in range(slots):
        hole = CrossSection.square((0.5 * blade, 0.07 * width), True).translate(
            (0.55 * blade, (slot - 1) * 0.22 * width)
        )
        outline -= rounded(hole, 0.03 * width, 0.0)
    flat = plate_of(outline, thick, 0.3 * thick).rotate((0.0, -tilt, 0.0)).translate((handle - 6, 0.0, 0.0))
    t = np.linspace(0, 1, 36)
    bar = monotone([0, 0.02, 0.08, 0.5, 0.65, 1], [0.55, 0.85, 1, 0.9, 0.45, 0.36], t) * grip / 2
    path = np.stack([t * (handle + 8), 0 * t, 0 * t], axis=1)
    height = np.maximum(0.75 * bar, thick / 2 + 0.4)
    return flat + sweep(path, superellipse(1, 1, 2.6, 28), np.stack([bar, height], axis=1))


def pen(rng: np.random.Generator) -> Manifold:
    """Pens, markers, pencils, candles, lipsticks, lying: 70 to 190 long, Ø 8 to 27; capped, hexagonal or plain."""
    length, radius = uniform(rng, 110, 190), uniform(rng, 4, 7)
    kind = rng.choice(["marker", "pencil", "stick"])
    if kind == "pencil":
        hexagon = CrossSection([superellipse(radius, radius, 2.0, 6)]).extrude(length - 18)
        point = Manifold.cylinder(18.0, radius * 0.9, 0.8, 6).translate((0.0, 0.0, length - 18.5))
        return along_x(hexagon + point)
    if kind == "stick":
        length, radius = uniform(rng, 70, 150), uniform(rng, 7, 13)
        return along_x(revolve([(0, 0), (radius, 0), (radius, length), (0, length)], 0.8, 40))
    radius = uniform(rng, 5, 11)
    return along_x(capped_marker(length, radius, uniform(rng, 0.28, 0.42)))


def capped_marker(length: float, radius: float, cap: float) -> Manifold:
    """Marker along z: a barrel, a wider cap over the fraction `cap` of its length, a clip."""
    split = (1 - cap) * length
    profile = [
        (0, 0),
        (0.75 * radius, 0),
        (0.75 * radius, 4),
        (0.9 * radius, 6),
        (0.9 * radius, split),
        (radius, split),
    ]
    profile += [(radius, length - 5), (0.75 * radius, length), (0, length)]
    clip = rounded_box((2.5, 4, 0.7 * cap * length), 1).translate((radius + 1.5, 0.0, split + 0.55 * cap * length))
    root = rounded_box((5, 4, 4), 1).translate((radius, 0.0, split + 0.87 * cap * length))
    return union([revolve(profile, 0.6, 36), clip, root])


def blade(rng: np.random.Generator) -> Manifold:
    """Thin straight things, lying: knives (150 to 310), rulers (150 to 310 x 25 to 42 x 2 to 4), cards (86 x 54)."""
    kind = rng.choice(["knife", "ruler", "card"])
    if kind == "ruler":
        outline = CrossSection.square((uniform(rng, 150, 310), uniform(rng, 25, 42)), True)
        return plate_of(rounded(outline, uniform(rng, 1, 5), 0.0), uniform(rng, 2.0, 4.0), 0.4)
    if kind == "card":
        outline = CrossSection.square((uniform(rng, 80, 150), uniform(rng, 50, 72)), True)
        return plate_of(rounded(outline, uniform(rng, 3, 8), 0.0), uniform(rng, 2.0, 9.0), 0.7)
    length = uniform(rng, 80, 190)
    return knife(length, uniform(rng, 18, 46), uniform(rng, 1.8, 3.0), uniform(rng, 85, 120), uniform(rng, 18, 30))


def knife(length: float, width: float, spine: float, handle: float, grip: float) -> Manifold:
    """Knife along x, edge towards -y: blade of that length, width and spine, oval handle behind it."""
    t = np.linspace(0, 1, 24)
    belly = -width * np.sqrt(np.clip(1 - t**3, 0, 1)) + 0.0
    back = -0.1 * width * t**2
    outline = np.concatenate([np.stack([t * length, belly], axis=1), np.stack([t * length, back], axis=1)[::-1][1:]])
    flat = polygon(outline).extrude(spine).translate((0.0, 0.0, -spine / 2))
    # Thins towards the edge, but stays thick enough to be seen by a distance grid.
    flat = bend(
        flat,
        lambda v: v * np.column_stack([np.ones((len(v), 2)), 1 + 0.6 * np.clip(v[:, 1], -width, 0) / width]),
    )
    s = np.linspace(0, 1, 30)
    size = monotone([0, 0.03, 0.12, 0.5, 0.85, 0.97, 1], [0.5, 0.8, 1, 0.88, 1, 0.95, 0.8], s)
    path = np.stack([s * (handle + 6) - handle, 0 * s - 0.4 * grip, 0 * s], axis=1)
    return flat + sweep(path, superellipse(grip / 2, 0.32 * grip, 2.6, 32), size)


def plate(rng: np.random.Generator) -> Manifold:
    """Plates, saucers, lids and discs, lying: Ø 90 to 270, 3 to 30 high, 2.5 to 6 thick."""
    radius, wall = uniform(rng, 45, 135), uniform(rng, 2.5, 6.0)
    if rng.random() < 0.25:
        return revolve([(0, 0), (radius, 0), (radius, wall), (0, wall)], 0.3 * wall, 80)
    height, well = radius * uniform(rng, 0.1, 0.22), uniform(rng, 0.55, 0.72)
    t = np.linspace(0, 1, 14)
    rim = height * (3 * t**2 - 2 * t**3)
    across = radius * (well + (1 - well) * t)
    below = [(0, 0), *zip(across, rim, strict=True)]
    above = [*zip(across[::-1], rim[::-1] + wall, strict=True), (0, wall)]
    return revolve([*below, *above], 0.4 * wall, 80)


def cutlery(rng: np.random.Generator) -> Manifold:
    """Spoons, ladles and forks, lying: 125 to 290 long, bowl or tines 22 to 75 wide, handle 2 to 9 thick."""
    length, width = uniform(rng, 125, 290), uniform(rng, 24, 46)
    thick = uniform(rng, 2.2, 4.5)
    handle = _cutlery_handle(0.68 * length, width * uniform(rng, 0.35, 0.5), thick)
    if rng.random() < 0.6:
        if rng.random() < 0.3:
            width = uniform(rng, 50, 75)
        return handle + _spoon_bowl(0.32 * length, width, uniform(rng, 0.2, 0.36) * width).translate(
            (0.66 * length, 0.0, 0.0)
        )
    return handle + _fork_head(0.34 * length, 0.85 * width, thick).translate((0.66 * length, 0.0, 0.0))


def _cutlery_handle(length: float, width: float, thick: float) -> Manifold:
    """Handle along x from the origin: broad at its end, narrow and arched towards the head."""
    t = np.linspace(0, 1, 40)
    half = width / 2 * monotone([0, 0.02, 0.1, 0.6, 0.9, 1], [0.5, 0.8, 1, 0.55, 0.45, 0.5], t)
    path = np.stack([t * length, 0 * t, 0.05 * length * np.sin(np.pi * t**1.5)], axis=1)
    scale = np.stack([np.maximum(half, 1.2), np.full(40, thick / 2)], axis=1)
    return sweep(path, superellipse(1, 1, 3, 24), scale)


def _spoon_bowl(length: float, width: float, depth: float) -> Manifold:
    """Half an ellipsoidal shell, 1.8 thick, opening upwards, from the origin along x."""
    wall = 1.8
    outer = Manifold.sphere(1.0, 56).scale((length / 2, width / 2, depth))
    inner = Manifold.sphere(1.0, 56).scale((length / 2 - wall, width / 2 - wall, depth - wall))
    return (outer - inner).trim_by_plane((0.0, 0.0, -1.0), -0.2).translate((length / 2, 0.0, 0.5))


def _fork_head(length: float, width: float, thick: float) -> Manifold:
    """Four tines with a curved palm."""
    outline = CrossSection([superellipse(0.62 * length, width / 2, 2.6, 48)]).translate((0.55 * length, 0.0))
    outline ^= CrossSection.square((length, 2 * width)).translate((0.0, -width))
    for tine in (-1, 0, 1):
        gap = CrossSection.square((length, 0.12 * width)).translate((0.48 * length, (0.25 * tine - 0.06) * width))
        outline -= gap
    flat = plate_of(rounded(outline, 0.04 * width, 0.03 * width), thick, 0.3)
    return bend(
        flat,
        lambda v: v + np.column_stack([np.zeros((len(v), 2)), -0.12 * length * np.sin(np.pi * v[:, 0] / length)]),
    )
