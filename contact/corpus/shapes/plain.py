"""Compact objects: cans, boxes, blocks, fruit, bananas, rings, superquadrics. Dimensions in millimetres."""

from __future__ import annotations

import numpy as np
from manifold3d import CrossSection, Manifold

from contact.corpus.shapes.solids import (
    capsule,
    cylinder,
    draws,
    monotone,
    plate_of,
    revolve,
    rounded,
    rounded_box,
    star,
    superellipse,
    sweep,
    uniform,
    union,
)

# (diameter, height) ranges of round tins and tubes.
_CANS = {
    "fish tin": ((78, 90), (32, 45)),
    "soup tin": ((64, 76), (96, 118)),
    "drink can": ((53, 67), (88, 168)),
    "large tin": ((95, 108), (110, 170)),
    "crisp tube": ((70, 78), (160, 250)),
    "spice jar": ((38, 52), (80, 110)),
    "pill tube": ((24, 34), (60, 110)),
}

# (length, width, height) ranges of cartons and cases.
_BOXES = {
    "matchbox": ((50, 58), (32, 38), (12, 18)),
    "card deck": ((86, 94), (60, 66), (17, 24)),
    "soap": ((80, 98), (52, 62), (26, 36)),
    "tea box": ((120, 150), (62, 80), (72, 95)),
    "pudding box": ((78, 92), (28, 40), (82, 112)),
    "milk carton": ((66, 96), (58, 72), (160, 240)),
    "biscuit box": ((60, 74), (150, 170), (190, 220)),
    "cereal box": ((48, 70), (170, 200), (250, 300)),
    "book": ((120, 170), (180, 230), (15, 40)),
}

# (length, width, height, edge radius) ranges of solid blocks.
_BLOCKS = {
    "wood block": ((70, 100), (70, 100), (90, 210), (1, 3)),
    "toy cube": ((28, 55), (28, 55), (28, 55), (1, 4)),
    "foam brick": ((70, 110), (45, 80), (45, 65), (2, 6)),
    "sponge": ((90, 120), (60, 80), (25, 42), (4, 10)),
    "eraser": ((38, 60), (18, 26), (10, 15), (1.5, 4)),
    "brick": ((190, 220), (90, 105), (50, 68), (1, 4)),
    "butter": ((90, 130), (48, 66), (34, 60), (2, 5)),
}


def _pick(table: dict, rng: np.random.Generator) -> tuple[float, ...]:
    """One entry of a table of ranges, each range drawn from."""
    return draws(rng, *list(table.values())[int(rng.integers(len(table)))])


def can(rng: np.random.Generator) -> Manifold:
    """Round tins and tubes: pill tube (Ø 24) to coffee tin (Ø 108), 32 to 250 tall; some with beads and sunk lids."""
    diameter, height = _pick(_CANS, rng)
    radius, rim, fillet = diameter / 2, uniform(rng, 0.8, 1.8) * rng.integers(2), uniform(rng, 0.6, 1.6)
    if rim == 0:
        return cylinder(radius, height, fillet)
    bead, lid = 3.5, 1.5 * rim
    below = [(radius - 4.5, lid), (radius - 3.5, 0), (radius, 0), (radius, bead), (radius - rim, bead + rim)]
    above = [(r, height - z) for r, z in reversed(below)]
    return revolve([*below, *above], 0.6)


def box(rng: np.random.Generator) -> Manifold:
    """Cartons from a matchbox (50 x 32 x 12) to a cereal box (70 x 200 x 300), edges rounded by 0.5 to 2."""
    return rounded_box(_pick(_BOXES, rng), uniform(rng, 0.5, 2.0), segments=8)


def block(rng: np.random.Generator) -> Manifold:
    """Solid blocks: toy cubes of 28, erasers, sponges, foam, timber, a brick of 220 x 105 x 68."""
    length, width, height, edge = _pick(_BLOCKS, rng)
    return rounded_box((length, width, height), edge, segments=16)


def ball(rng: np.random.Generator) -> Manifold:
    """Balls and eggs: table tennis (Ø 38) to a small melon (Ø 124); half are ellipsoids, axes 0.75 to 1.25 of that."""
    radius = uniform(rng, 19, 62) if rng.random() < 0.4 else uniform(rng, 19, 42)
    axes = radius * np.array([1.0, 1.0, 1.0])
    if rng.random() < 0.5:
        axes *= [uniform(rng, 0.85, 1.25), 1.0, uniform(rng, 0.75, 1.2)]
    egg = uniform(rng, 0.0, 0.2) * rng.integers(2)
    return Manifold.sphere(1.0, 64).warp_batch(lambda v: v * (1 - egg * v[:, 2:]) ** [[1, 1, 0]] * axes)


def fruit(rng: np.random.Generator) -> Manifold:
    """Apples, oranges, lemons, pears, peppers: 50 to 105 across, dimpled, pointed or lobed."""
    kind = rng.choice(["apple", "orange", "lemon", "pear", "pepper"])
    radius = uniform(rng, 32, 43)
    if kind == "apple":
        return apple(radius, *draws(rng, (0.85, 1.0), (0.2, 0.35)))
    if kind == "orange":
        return apple(*draws(rng, (28, 50), (0.9, 1.0)), 0.03)
    if kind == "lemon":
        return lemon(*draws(rng, (25, 33), (1.25, 1.5), (0.06, 0.14)))
    if kind == "pear":
        return pear(radius, *draws(rng, (2.2, 2.7), (0.52, 0.68)))
    return pepper(radius, uniform(rng, 0.95, 1.35), int(rng.integers(3, 5)), uniform(rng, 0.05, 0.1))


def apple(radius: float, height: float, dimple: float) -> Manifold:
    """Ball of the given radius, flattened to `height`, with a hollow at the stem and a smaller one below."""

    def distance(direction: np.ndarray) -> np.ndarray:
        up = direction[:, 2]
        polar = np.arccos(np.clip(np.abs(up), 0, 1))
        hollow = np.where(up > 0, dimple, 0.5 * dimple) * np.exp(-((polar / 0.42) ** 2))
        taper = 1 + 0.07 * up
        return radius * taper * (1 - hollow) / np.sqrt(1 - up**2 + (up / height) ** 2)

    return star(distance)


def lemon(radius: float, length: float, tip: float) -> Manifold:
    """Ellipsoid lying along x with small pointed ends."""

    def distance(direction: np.ndarray) -> np.ndarray:
        along = direction[:, 0]
        polar = np.arccos(np.clip(np.abs(along), 0, 1))
        return radius * (1 + tip * np.exp(-((polar / 0.22) ** 2))) / np.sqrt(1 - along**2 + (along / length) ** 2)

    return star(distance)


def pear(radius: float, height: float, neck: float) -> Manifold:
    """Pear standing on z: `height` in radii, `neck` the width of its upper part in radii."""
    z = np.linspace(0, 1, 40)
    width = monotone([0, 0.02, 0.12, 0.36, 0.7, 0.9, 0.98, 1], [0, 0.35, 0.75, 1, neck, 0.8 * neck, 0.4 * neck, 0], z)
    return revolve(np.stack([radius * width, radius * height * z], axis=1), 1.0)


def pepper(radius: float, height: float, lobes: int, depth: float) -> Manifold:
    """Lobed, slightly tapering fruit (sweet pepper, small pumpkin) with a hollow on top."""
    body = apple(radius, height, 0.18)

    def lobe(v: np.ndarray) -> np.ndarray:
        wave = 1 + depth * np.cos(lobes * np.arctan2(v[:, 1], v[:, 0])) + 0.15 * v[:, 2] / radius
        return v * np.column_stack([wave, wave, np.ones(len(v))])

    return body.warp_batch(lobe)


def banana(rng: np.random.Generator) -> Manifold:
    """Bananas, cucumbers, carrots, sausages, lying: 120 to 230 long, 24 to 46 thick, bent up to 90 degrees."""
    length, thickness = uniform(rng, 120, 230), uniform(rng, 24, 40)
    angle = uniform(rng, 0.7, 1.6) if rng.random() < 0.6 else uniform(rng, 0.02, 0.2)
    ends = (uniform(rng, 0.35, 0.75), uniform(rng, 0.35, 0.9))
    t = np.linspace(-0.5, 0.5, 40)
    path = np.stack([length / angle * np.sin(angle * t), length / angle * (1 - np.cos(angle * t)), 0 * t], axis=1)
    # The last 3 % of either end close to a blunt tip.
    width = monotone([-0.5, -0.47, -0.36, 0, 0.36, 0.47, 0.5], [0.2, ends[0], 0.9, 1, 0.9, ends[1], 0.2], t)
    ridged = superellipse(thickness / 2, thickness / 2, uniform(rng, 1.85, 2.5), 32)
    return sweep(path, ridged, width)


def ring(rng: np.random.Generator) -> Manifold:
    """Rings lying flat: bracelet (Ø 60), tape roll (Ø 115), quoit (Ø 160), doughnut (tube 38)."""
    kind = rng.choice(["torus", "roll", "doughnut"])
    tube, radius = draws(rng, (12, 19), (25, 36)) if kind == "doughnut" else draws(rng, (3.5, 11), (28, 72))
    if kind != "roll":
        return CrossSection.circle(tube, 28).translate((radius, 0.0)).revolve(64)
    inner, outer, height = draws(rng, (13, 38), (6, 22), (15, 52))
    wall = CrossSection.square((outer, height)).translate((inner, 0.0))
    return rounded(wall, uniform(rng, 0.5, 2.0), 0.0).revolve(64)


def superquadric(rng: np.random.Generator) -> Manifold:
    """Superellipsoids between octahedron, ball, cylinder and box, half axes 12 to 75: toys, stones, gadgets."""
    axes = np.array(draws(rng, (16, 45), (12, 40), (12, 75)))
    vertical, horizontal = draws(rng, (0.25, 1.5), (0.25, 1.5))

    def distance(direction: np.ndarray) -> np.ndarray:
        x, y, z = np.abs(direction / axes).T
        flat = (x ** (2 / horizontal) + y ** (2 / horizontal)) ** (horizontal / vertical)
        return (flat + z ** (2 / vertical)) ** (-vertical / 2)

    return star(distance, 80, axes)


def gadget(rng: np.random.Generator) -> Manifold:
    """Remotes, telephones, computer mice, game pads, lying: 75 to 210 long, 8 to 50 thick."""
    kind = rng.choice(["slab", "mouse", "pad"])
    if kind == "slab":
        length, width = uniform(rng, 110, 210), uniform(rng, 36, 78)
        outline = CrossSection([superellipse(length / 2, width / 2, uniform(rng, 4, 9), 72)])
        return plate_of(outline, uniform(rng, 8, 28), uniform(rng, 1.5, 4))
    if kind == "mouse":
        return mouse(*draws(rng, (75, 125), (0.5, 0.66), (0.27, 0.4)))
    return game_pad(*draws(rng, (130, 165), (16, 22)))


def mouse(length: float, width: float, height: float) -> Manifold:
    """Computer mouse: a flattened superellipsoid cut flat below; width and height relative to its length."""
    axes = np.array([0.5, 0.5 * width, height]) * length

    def distance(direction: np.ndarray) -> np.ndarray:
        return (np.abs(direction / axes) ** 2.5).sum(axis=1) ** (-1 / 2.5)

    return star(distance).trim_by_plane((0.0, 0.0, 1.0), 0.0)


def game_pad(width: float, grip: float) -> Manifold:
    """Game controller: a flat body between two drooping horns of radius `grip`."""
    body = rounded_box((0.72 * width, 0.38 * width, 1.5 * grip), 0.6 * grip, 24)
    ends = [((s * 0.34 * width, 0.05 * width, 0), (s * 0.42 * width, -0.36 * width, -0.6 * grip)) for s in (-1, 1)]
    return union([body, *(capsule(*horn, 1.05 * grip, 0.75 * grip) for horn in ends)])
