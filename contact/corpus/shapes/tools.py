"""Tools and utensils: from screwdrivers to scissors, from spatulas to spoons. Dimensions in millimetres.

All of them lie on the table, their long side along x, but for pistol grips, which stand.
"""

from __future__ import annotations

import numpy as np
from manifold3d import CrossSection, Manifold

from contact.corpus.shapes.solids import (
    along_x,
    bend,
    capsule,
    cylinder,
    draws,
    loft,
    loft_upright,
    monotone,
    plate_of,
    polygon,
    revolve,
    rounded,
    rounded_box,
    smooth_path,
    superellipse,
    sweep,
    uniform,
    union,
)


def screwdriver(rng: np.random.Generator) -> Manifold:
    """Screwdrivers, awls, files with a handle: 95 to 290 long, handle Ø 18 to 36, shaft Ø 4 to 9."""
    return shafted_driver(*draws(rng, (60, 115), (18, 36), (45, 170), (4, 9)), rng.random() < 0.5)


def shafted_driver(grip: float, diameter: float, shaft: float, thickness: float, flat: bool) -> Manifold:
    """Driver along x: a fluted grip of that length and diameter, a round shaft, a flat or a pointed tip."""
    t = np.linspace(0, 1, 40)
    width = monotone([0, 0.02, 0.1, 0.45, 0.72, 0.84, 0.93, 1], [0.5, 0.75, 0.95, 1, 0.92, 0.66, 0.8, 0.62], t)
    angle = np.arange(48) * (2 * np.pi / 48)
    rings = []
    for s, w in zip(t, width, strict=True):
        flute = 1 - 0.06 * np.sin(np.pi * np.clip(s / 0.75, 0, 1)) * (1 + np.cos(6 * angle)) / 2
        radius = diameter / 2 * w * flute
        rings.append(np.stack([np.full(48, s * grip), radius * np.cos(angle), radius * np.sin(angle)], axis=1))
    half = thickness / 2
    tip = min(14.0, 0.2 * shaft)
    rod = revolve([(half, 0), (half, shaft - tip), (half if flat else 0.35 * half, shaft)], segments=20)

    def flatten(v: np.ndarray) -> np.ndarray:
        """Squeeze x and widen y progressively over the tip."""
        s = np.clip((v[:, 2] - (shaft - tip)) / (shaft - (shaft - tip)), 0, 1)
        return v * np.column_stack([1 + (0.35 - 1) * s, 1 + (1.35 - 1) * s, np.ones(len(v))])

    rod = bend(rod, flatten, 2.0) if flat else rod
    return loft(np.stack(rings)) + along_x(rod).translate((grip - 1, 0.0, 0.0))


def hammer(rng: np.random.Generator) -> Manifold:
    """Hammers and mallets: handle 170 to 285 long and 20 to 34 thick, head 70 to 125 long; some clawed."""
    length, grip, head, face = draws(rng, (170, 285), (20, 34), (70, 125), (20, 36))
    # Of wood, oval, a little swollen where it is held.
    t = np.linspace(0, 1, 40)
    swell = grip / 2 * monotone([0, 0.02, 0.07, 0.25, 0.5, 0.8, 1], [0.6, 0.88, 1, 0.97, 0.74, 0.7, 0.72], t)
    handle = sweep(np.stack([t * length, 0 * t, 0 * t], axis=1), superellipse(1.0, 0.78, 2.3, 32), swell)
    if rng.random() < 0.3:  # a mallet, its head round, of rubber or wood
        face, head = draws(rng, (42, 62), (75, 110))
        top = cylinder(face / 2, head, 3).rotate((-90.0, 0.0, 0.0)).translate((0.0, -head / 2, 0.0))
    else:
        top = _hammer_head(head, face, rng.random() < 0.6)
    return handle + top.translate((length, 0.0, 0.0))


def _hammer_head(head: float, face: float, claw: bool) -> Manifold:
    """Steel head across y: a round face on one side, a claw or a wedge on the other."""
    poll = revolve(np.array([(1 / 2, 0), (1 / 2, 0.22), (0.36, 0.3), (0.36, 0.5)]) * (face, head), 1.5, 40)
    poll = poll.rotate((-90.0, 0.0, 0.0)).translate((0.0, -0.5 * head, 0.0))
    middle = rounded_box((0.95 * face, 0.26 * head, 0.95 * face), 3)
    path = smooth_path(np.array([(0, 0, 0), (0, 0.25, 0), (-0.03, 0.42, 0), (-0.14, 0.6, 0)]) * head, 24)
    # (across in the plane of the hammer, out of it)
    scale = np.stack([np.linspace(0.36, 0.11, 24) * face, np.linspace(0.4, 0.5 if claw else 0.34, 24) * face], axis=1)
    wedge = sweep(path, superellipse(1, 1, 4, 32), scale)
    if claw:
        notch = polygon([(-0.16 * face, 0.75 * head), (0.16 * face, 0.75 * head), (0, 0.3 * head)]).extrude(2 * head)
        wedge -= notch.translate((0.0, 0.0, -head)).rotate((0.0, 90.0, 0.0))
    return union([poll, middle, wedge])


def pistol_grip(rng: np.random.Generator) -> Manifold:
    """Power drills, glue guns, hair dryers and trigger sprays: 110 to 250 tall, grip 28 to 46 thick."""
    return spray_bottle(rng) if rng.random() < 0.4 else drill(rng)


def drill(rng: np.random.Generator) -> Manifold:
    """Drill-like body: a barrel along x, a chuck, a raked grip with a trigger, a battery foot or none."""
    barrel, length, width, thick, height = draws(rng, (42, 66), (115, 180), (38, 50), (30, 40), (95, 125))
    side = np.array([(0.42, 0), (0.5, 0.12), (0.5, 0.68), (0.33, 0.8), (0.3, 1)])
    body = along_x(revolve(side * (barrel, length), 4))
    top, rake = 0.28 * length, uniform(rng, 4, 26)
    t = np.linspace(0, 1, 18)
    path = np.stack([top - rake * t, 0 * t, -height * t], axis=1)
    swell = monotone([0, 0.35, 0.7, 1], [1.05, 0.92, 1.0, 1.0], t)
    grip = sweep(path, superellipse(thick / 2, width / 2, 2.6, 32), swell, up=(1, 0, 0))
    trigger = rounded_box((0.45 * width, 0.4 * thick, 26), 4).translate((top + 0.5 * width, 0.0, -0.35 * barrel - 18))
    parts = [body, grip, trigger]
    if rng.random() < 0.65:
        foot = rounded_box(draws(rng, (75, 110), (48, 66), (24, 45)), 5)
        parts.append(foot.translate((top - rake + 8, 0.0, -height - 6)))
    return union(parts)


def spray_bottle(rng: np.random.Generator) -> Manifold:
    """Trigger spray: a superelliptic bottle, a neck, a head with a nozzle and a curved trigger."""
    width, height, slender, corner, neck = draws(rng, (62, 95), (120, 180), (0.6, 1.0), (2.0, 4.5), (13, 16))
    depth = width * slender
    t = np.array([0, 0.01, 0.04, *np.linspace(0.12, 0.94, 15), 1.0])
    knots = [0, 0.04, 0.55, 0.8, 0.9, 1]
    wide = monotone(knots, [0.47 * width, width / 2, 0.47 * width, 1.5 * neck, neck, neck], t)
    deep = monotone(knots, [0.47 * depth, depth / 2, 0.47 * depth, 1.3 * neck, neck, neck], t)
    bend_to_round = monotone([0, 0.5, 0.9, 1], [corner, corner, 2, 2], t)
    collar = revolve([(neck + 3, 0), (neck + 2, 20)], 1).translate((0.0, 0.0, height - 6))
    back = rounded_box((34, 26, 20), 5).translate((-2.0, 0.0, height + 22))
    front = rounded_box((22, 17, 14), 4).translate((38.0, 0.0, height + 30))
    head = Manifold.batch_hull([back, front])
    path = smooth_path([(20, 0, height + 24), (33, 0, height + 8), (30, 0, height - 12), (38, 0, height - 30)], 24)
    trigger = sweep(path, superellipse(6, 3.5, 2.5, 20), up=(0, 1, 0))
    nozzle = capsule((46, 0, height + 30), (53, 0, height + 30), 6, 5)
    body = loft_upright(t * height, wide, deep, bend_to_round, 48)
    return union([body, collar, head, trigger, nozzle])


def scissors(rng: np.random.Generator) -> Manifold:
    """Scissors and pliers, lying: 120 to 225 long, 5 to 16 thick, finger loops Ø 32 to 60 or two bowed arms."""
    if rng.random() < 0.5:
        return _pliers(*draws(rng, (130, 205), (10, 16), (3.0, 13.0)))
    return _shears(*draws(rng, (60, 110), (6.5, 10.0), (18, 27), (1.1, 1.6)))


def _shears(blade: float, thick: float, loop: float, stretch: float) -> Manifold:
    """Nearly closed scissors along x, pivot at the origin; `loop` is the half width of a finger loop."""
    edge = np.array([(-8, -9), (0, -7), (blade, -0.5), (blade, 1.5), (0, 7), (-8, 5)])
    arm = np.array([(-10, -7), (4, -8), (4, 4), (-32, loop + 4), (-42, loop - 6)])
    halves = []
    for side in (-1.0, 1.0):
        centre = (-30.0 - loop * stretch, side * (loop + 2))
        outer = CrossSection([superellipse(loop * stretch, loop, 2.2, 48)]).translate(centre)
        hole = CrossSection([superellipse(loop * stretch - 6.5, loop - 6.5, 2.2, 48)]).translate(centre)
        handle = plate_of(rounded(outer + polygon(arm * (1, side)), 2, 4) - hole, thick, 0.3 * thick)
        cutting = plate_of(rounded(polygon(edge * (1, side)), 0.8, 0), 0.5 * thick, 0.4)
        halves.append(handle + cutting.translate((0.0, 0.0, 0.2 * side * thick)))
    return union([*halves, revolve([(5, -0.55 * thick), (5, 0.55 * thick)], 0.5, 24)])


def _pliers(length: float, thick: float, spread: float) -> Manifold:
    """Pliers along x, pivot at the origin, arms bowed and `spread` millimetres apart at least."""
    jaw = 0.3 * length
    gap = 6.5 + spread
    nose = np.array([(-4, -4), (-2, 11), (0.5 * jaw, 9.5), (jaw, 4), (jaw, -0.6), (0, -4)])
    far, middle, near = (0.7 * length, 0.45 * length, 0.2 * length)
    arm = np.array([(2, -2, 0), (-12, 5, 0), (-near, gap + 9, 0), (-middle, gap + 10, 0), (-far, gap, 0)])
    size = monotone([0, 0.12, 0.3, 0.9, 0.97, 1], [0.85, 0.85, 1, 1, 0.85, 0.5], np.linspace(0, 1, 30))
    parts = [cylinder(0.062 * length, thick, 1.5, 32).translate((0.0, 0.0, -thick / 2))]
    for side in (-1.0, 1.0):
        parts.append(plate_of(rounded(polygon(nose * (1, side)), 1.5, 0), 0.9 * thick, 1.5))
        parts.append(sweep(smooth_path(arm * (1, side, 1), 30), superellipse(5.2, thick / 2, 2.4, 24), size))
    return union(parts)


def spatula(rng: np.random.Generator) -> Manifold:
    """Spatulas, turners, brushes, rackets, ping-pong bats: 180 to 330 long, blade 45 to 140 wide, 2 to 9 thick."""
    blade, width, thick, handle, grip = draws(rng, (70, 125), (45, 100), (2.2, 6.0), (100, 190), (14, 27))
    if rng.random() < 0.3:
        blade, width, thick, handle = draws(rng, (130, 160), (115, 140), (5, 9), (90, 115))
    tilt = uniform(rng, 0.0, 18.0)
    outline = CrossSection([superellipse(blade / 2, width / 2, uniform(rng, 2.2, 7.0), 64)]).translate((blade / 2, 0.0))
    slots = int(rng.integers(2)) * 3 if thick < 5 and width > 55 else 0
    for slot in range(slots):
        hole = CrossSection.square((0.5 * blade, 0.07 * width), True)
        outline -= rounded(hole.translate((0.55 * blade, (slot - 1) * 0.22 * width)), 0.03 * width, 0.0)
    flat = plate_of(outline, thick, 0.3 * thick).rotate((0.0, -tilt, 0.0)).translate((handle - 6, 0.0, 0.0))
    t = np.linspace(0, 1, 36)
    bar = monotone([0, 0.02, 0.08, 0.5, 0.65, 1], [0.55, 0.85, 1, 0.9, 0.45, 0.36], t) * grip / 2
    path = np.stack([t * (handle + 8), 0 * t, 0 * t], axis=1)
    height = np.maximum(0.75 * bar, thick / 2 + 0.4)
    return flat + sweep(path, superellipse(1, 1, 2.6, 28), np.stack([bar, height], axis=1))


def pen(rng: np.random.Generator) -> Manifold:
    """Pens, markers, pencils, candles, lipsticks, lying: 70 to 190 long, Ø 8 to 27; capped, hexagonal or plain."""
    length, radius = draws(rng, (110, 190), (4, 7))
    kind = rng.choice(["marker", "pencil", "stick"])
    if kind == "pencil":
        hexagon = CrossSection([superellipse(radius, radius, 2.0, 6)]).extrude(length - 18)
        point = Manifold.cylinder(18.0, radius * 0.9, 0.8, 6).translate((0.0, 0.0, length - 18.5))
        return along_x(hexagon + point)
    if kind == "stick":
        length, radius = draws(rng, (70, 150), (7, 13))
        return along_x(cylinder(radius, length, 0.8, 40))
    return along_x(_capped_marker(length, *draws(rng, (5, 11), (0.28, 0.42))))


def _capped_marker(length: float, radius: float, cap: float) -> Manifold:
    """Marker along z: a barrel, a wider cap over the fraction `cap` of its length, a clip."""
    split = (1 - cap) * length
    barrel = np.array([(0.75, 0), (0.75, 4), (0.9, 6), (0.9, split), (1, split), (1, length - 5), (0.75, length)])
    clip = rounded_box((2.5, 4, 0.7 * cap * length), 1).translate((radius + 1.5, 0.0, split + 0.55 * cap * length))
    root = rounded_box((5, 4, 4), 1).translate((radius, 0.0, split + 0.87 * cap * length))
    return union([revolve(barrel * (radius, 1), 0.6, 36), clip, root])


def blade(rng: np.random.Generator) -> Manifold:
    """Thin straight things, lying: knives (150 to 310), rulers (150 to 310 x 25 to 42 x 2 to 4), cards (86 x 54)."""
    kind = rng.choice(["knife", "ruler", "card"])
    if kind == "ruler":
        outline = CrossSection.square(draws(rng, (150, 310), (25, 42)), True)
        return plate_of(rounded(outline, uniform(rng, 1, 5), 0.0), uniform(rng, 2.0, 4.0), 0.4)
    if kind == "card":
        outline = CrossSection.square(draws(rng, (80, 150), (50, 72)), True)
        return plate_of(rounded(outline, uniform(rng, 3, 8), 0.0), uniform(rng, 2.0, 9.0), 0.7)
    return _knife(*draws(rng, (80, 190), (18, 46), (1.8, 3.0), (85, 120), (18, 30)))


def _knife(length: float, width: float, spine: float, handle: float, grip: float) -> Manifold:
    """Knife along x, edge towards -y: blade of that length, width and spine, oval handle behind it."""
    t = np.linspace(0, 1, 24)
    belly = np.stack([t * length, -width * np.sqrt(np.clip(1 - t**3, 0, 1)) + 0.0], axis=1)
    back = np.stack([t * length, -0.1 * width * t**2], axis=1)
    flat = polygon([*belly, *back[-2::-1]]).extrude(spine).translate((0.0, 0.0, -spine / 2))

    def thin(v: np.ndarray) -> np.ndarray:
        """Towards the edge, but it stays thick enough to be seen by a distance grid."""
        return v * np.column_stack([np.ones((len(v), 2)), 1 + 0.6 * np.clip(v[:, 1], -width, 0) / width])

    s = np.linspace(0, 1, 30)
    size = monotone([0, 0.03, 0.12, 0.5, 0.85, 0.97, 1], [0.5, 0.8, 1, 0.88, 1, 0.95, 0.8], s)
    path = np.stack([s * (handle + 6) - handle, 0 * s - 0.4 * grip, 0 * s], axis=1)
    return bend(flat, thin) + sweep(path, superellipse(grip / 2, 0.32 * grip, 2.6, 32), size)


def plate(rng: np.random.Generator) -> Manifold:
    """Plates, saucers, lids and discs, lying: Ø 90 to 270, 3 to 30 high, 2.5 to 6 thick."""
    radius, wall = uniform(rng, 45, 135), uniform(rng, 2.5, 6.0)
    if rng.random() < 0.25:
        return cylinder(radius, wall, 0.3 * wall, 80)
    height, well = radius * uniform(rng, 0.1, 0.22), uniform(rng, 0.55, 0.72)
    t = np.linspace(0, 1, 14)
    rim = height * (3 * t**2 - 2 * t**3)
    across = radius * (well + (1 - well) * t)
    below, above = np.stack([across, rim], axis=1), np.stack([across, rim + wall], axis=1)
    return revolve([*below, *above[::-1]], 0.4 * wall, 80)


def cutlery(rng: np.random.Generator) -> Manifold:
    """Spoons, ladles and forks, lying: 125 to 290 long, bowl or tines 22 to 75 wide, handle 2 to 9 thick."""
    length, width, thick, narrow = draws(rng, (125, 290), (24, 46), (2.2, 4.5), (0.35, 0.5))
    handle = _cutlery_handle(0.68 * length, width * narrow, thick)
    if rng.random() < 0.6:
        width = uniform(rng, 50, 75) if rng.random() < 0.3 else width
        head = _spoon_bowl(0.32 * length, width, uniform(rng, 0.2, 0.36) * width)
    else:
        head = _fork_head(0.34 * length, 0.85 * width, thick)
    return handle + head.translate((0.66 * length, 0.0, 0.0))


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
        gap = CrossSection.square((length, 0.12 * width))
        outline -= gap.translate((0.48 * length, (0.25 * tine - 0.06) * width))

    def arch(v: np.ndarray) -> np.ndarray:
        return v + np.column_stack([np.zeros((len(v), 2)), -0.12 * length * np.sin(np.pi * v[:, 0] / length)])

    return bend(plate_of(rounded(outline, 0.04 * width, 0.03 * width), thick, 0.3), arch)
