"""Tools: screwdrivers, hammers, pistol grips, scissors and pliers. Dimensions in millimetres.

All of them lie on the table, their long side along x, but for pistol grips, which stand.
"""

from __future__ import annotations

import numpy as np
from manifold3d import CrossSection, Manifold

from contact.corpus.shapes.solids import (
    along_x,
    bend,
    capsule,
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
    grip = uniform(rng, 60, 115)
    return shafted_driver(grip, uniform(rng, 18, 36), uniform(rng, 45, 170), uniform(rng, 4, 9), rng.random() < 0.5)


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
    rod = revolve(
        [(0, 0), (half, 0), (half, shaft - tip), (half if flat else 0.35 * half, shaft), (0, shaft)],
        segments=20,
    )
    if flat:
        rod = bend(rod, lambda v: _flatten(v, shaft - tip, shaft, 0.35, 1.35), 2.0)
    return loft(np.stack(rings)) + along_x(rod).translate((grip - 1, 0.0, 0.0))


def _flatten(v: np.ndarray, start: float, end: float, thin: float, wide: float) -> np.ndarray:
    """Squeeze x and widen y progressively from height start to end: the blade of a screwdriver."""
    s = np.clip((v[:, 2] - start) / (end - start), 0, 1)
    v[:, 0] *= 1 + (thin - 1) * s
    v[:, 1] *= 1 + (wide - 1) * s
    return v


def hammer(rng: np.random.Generator) -> Manifold:
    """Hammers and mallets: handle 170 to 285 long and 20 to 34 thick, head 70 to 125 long; some clawed."""
    length, grip = uniform(rng, 170, 285), uniform(rng, 20, 34)
    head, face = uniform(rng, 70, 125), uniform(rng, 20, 36)
    if rng.random() < 0.3:
        face, head = uniform(rng, 42, 62), uniform(rng, 75, 110)
        return _handle_bar(length, grip) + _mallet_head(head, face).translate((length, 0.0, 0.0))
    return _handle_bar(length, grip) + _hammer_head(head, face, rng.random() < 0.6).translate((length, 0.0, 0.0))


def _handle_bar(length: float, grip: float) -> Manifold:
    """Oval wooden handle along x from the origin, a little swollen where it is held."""
    t = np.linspace(0, 1, 40)
    width = grip / 2 * monotone([0, 0.02, 0.07, 0.25, 0.5, 0.8, 1], [0.6, 0.88, 1, 0.97, 0.74, 0.7, 0.72], t)
    path = np.stack([t * length, 0 * t, 0 * t], axis=1)
    return sweep(path, superellipse(1.0, 0.78, 2.3, 32), width)


def _hammer_head(head: float, face: float, claw: bool) -> Manifold:
    """Steel head across y: a round face on one side, a claw or a wedge on the other."""
    poll = revolve(
        [
            (0, 0),
            (face / 2, 0),
            (face / 2, 0.22 * head),
            (0.36 * face, 0.3 * head),
            (0.36 * face, 0.5 * head),
            (0, 0.5 * head),
        ],
        1.5,
        40,
    )
    poll = poll.rotate((-90.0, 0.0, 0.0)).translate((0.0, -0.5 * head, 0.0))
    middle = rounded_box((0.95 * face, 0.26 * head, 0.95 * face), 3)
    points = [(0, 0, 0), (0, 0.25 * head, 0), (-0.03 * head, 0.42 * head, 0), (-0.14 * head, 0.6 * head, 0)]
    path = smooth_path(points, 24)
    # (across in the plane of the hammer, out of it)
    scale = np.stack([np.linspace(0.36, 0.11, 24) * face, np.linspace(0.4, 0.5 if claw else 0.34, 24) * face], axis=1)
    wedge = sweep(path, superellipse(1, 1, 4, 32), scale)
    if claw:
        notch = polygon([(-0.16 * face, 0.75 * head), (0.16 * face, 0.75 * head), (0, 0.3 * head)]).extrude(2 * head)
        wedge -= notch.translate((0.0, 0.0, -head)).rotate((0.0, 90.0, 0.0))
    return union([poll, middle, wedge])


def _mallet_head(head: float, face: float) -> Manifold:
    """Round rubber or wooden head across y."""
    return (
        revolve([(0, 0), (face / 2, 0), (face / 2, head), (0, head)], 3)
        .rotate((-90.0, 0.0, 0.0))
        .translate((0.0, -head / 2, 0.0))
    )


def pistol_grip(rng: np.random.Generator) -> Manifold:
    """Power drills, glue guns, hair dryers and trigger sprays: 110 to 250 tall, grip 28 to 46 thick."""
    return spray_bottle(rng) if rng.random() < 0.4 else drill(rng)


def drill(rng: np.random.Generator) -> Manifold:
    """Drill-like body: a barrel along x, a chuck, a raked grip with a trigger, a battery foot or none."""
    barrel, length = uniform(rng, 42, 66), uniform(rng, 115, 180)
    profile = [(0, 0), (0.42 * barrel, 0), (0.5 * barrel, 0.12 * length), (0.5 * barrel, 0.68 * length)]
    profile += [(0.33 * barrel, 0.8 * length), (0.3 * barrel, length), (0, length)]
    body = along_x(revolve(profile, 4))
    width, thick, height = uniform(rng, 38, 50), uniform(rng, 30, 40), uniform(rng, 95, 125)
    top, rake = 0.28 * length, uniform(rng, 4, 26)
    t = np.linspace(0, 1, 18)
    path = np.stack([top - rake * t, 0 * t, -height * t], axis=1)
    swell = monotone([0, 0.35, 0.7, 1], [1.05, 0.92, 1.0, 1.0], t)
    grip = sweep(path, superellipse(thick / 2, width / 2, 2.6, 32), swell, up=(1, 0, 0))
    trigger = rounded_box((0.45 * width, 0.4 * thick, 26), 4).translate((top + 0.5 * width, 0.0, -0.35 * barrel - 18))
    parts = [body, grip, trigger]
    if rng.random() < 0.65:
        foot = rounded_box((uniform(rng, 75, 110), uniform(rng, 48, 66), uniform(rng, 24, 45)), 5)
        parts.append(foot.translate((top - rake + 8, 0.0, -height - 6)))
    return union(parts)


def spray_bottle(rng: np.random.Generator) -> Manifold:
    """Trigger spray: a superelliptic bottle, a neck, a head with a nozzle and a curved trigger."""
    width, height = uniform(rng, 62, 95), uniform(rng, 120, 180)
    depth, corner = width * uniform(rng, 0.6, 1.0), uniform(rng, 2.0, 4.5)
    t = np.array([0, 0.01, 0.04, *np.linspace(0.12, 0.94, 15), 1.0])
    neck = uniform(rng, 13, 16)
    knots = [0, 0.04, 0.55, 0.8, 0.9, 1]
    wide = monotone(knots, [0.47 * width, width / 2, 0.47 * width, 1.5 * neck, neck, neck], t)
    deep = monotone(knots, [0.47 * depth, depth / 2, 0.47 * depth, 1.3 * neck, neck, neck], t)
    bend_to_round = monotone([0, 0.5, 0.9, 1], [corner, corner, 2, 2], t)
    collar = revolve([(0, 0), (neck + 3, 0), (neck + 2, 20), (0, 20)], 1).translate((0.0, 0.0, height - 6))
    head = Manifold.batch_hull(
        [
            rounded_box((34, 26, 20), 5).translate((-2.0, 0.0, height + 22)),
            rounded_box((22, 17, 14), 4).translate((38.0, 0.0, height + 30)),
        ]
    )
    path = smooth_path([(20, 0, height + 24), (33, 0, height + 8), (30, 0, height - 12), (38, 0, height - 30)], 24)
    trigger = sweep(path, superellipse(6, 3.5, 2.5, 20), up=(0, 1, 0))
    nozzle = capsule((46, 0, height + 30), (53, 0, height + 30), 6, 5)
    body = loft_upright(t * height, wide, deep, bend_to_round, 48)
    return union([body, collar, head, trigger, nozzle])


def scissors(rng: np.random.Generator) -> Manifold:
    """Scissors and pliers, lying: 120 to 225 long, 5 to 16 thick, finger loops Ø 32 to 60 or two bowed arms."""
    if rng.random() < 0.5:
        return _pliers(uniform(rng, 130, 205), uniform(rng, 10, 16), uniform(rng, 3.0, 13.0))
    return _shears(uniform(rng, 60, 110), uniform(rng, 6.5, 10.0), uniform(rng, 18, 27), uniform(rng, 1.1, 1.6))


def _shears(blade: float, thick: float, loop: float, stretch: float) -> Manifold:
    """Nearly closed scissors along x, pivot at the origin; `loop` is the half width of a finger loop."""
    halves = []
    for side in (-1.0, 1.0):
        edge = polygon(
            [
                (-8, -side * 9),
                (0, -side * 7),
                (blade, -side * 0.5),
                (blade, side * 1.5),
                (0, side * 7),
                (-8, side * 5),
            ]
        )
        arm = polygon(
            [
                (-10, -side * 7),
                (4, -side * 8),
                (4, side * 4),
                (-32, side * (loop + 4)),
                (-42, side * (loop - 6)),
            ]
        )
        centre = (-30.0 - loop * stretch, side * (loop + 2))
        outer = CrossSection([superellipse(loop * stretch, loop, 2.2, 48)]).translate(centre)
        hole = CrossSection([superellipse(loop * stretch - 6.5, loop - 6.5, 2.2, 48)]).translate(centre)
        handle = plate_of(rounded(outer + arm, 2, 4) - hole, thick, 0.3 * thick)
        blade_part = plate_of(rounded(edge, 0.8, 0), 0.5 * thick, 0.4).translate((0.0, 0.0, 0.2 * side * thick))
        halves.append(handle + blade_part)
    return union(
        [
            *halves,
            revolve([(0, -0.55 * thick), (5, -0.55 * thick), (5, 0.55 * thick), (0, 0.55 * thick)], 0.5, 24),
        ]
    )


def _pliers(length: float, thick: float, spread: float) -> Manifold:
    """Pliers along x, pivot at the origin, arms bowed and `spread` millimetres apart at least."""
    jaw = 0.3 * length
    parts = [
        revolve([(0, 0), (0.062 * length, 0), (0.062 * length, thick), (0, thick)], 1.5, 32).translate(
            (0.0, 0.0, -thick / 2)
        )
    ]
    for side in (-1.0, 1.0):
        nose = polygon(
            [
                (-4, -side * 4),
                (-2, side * 11),
                (0.5 * jaw, side * 9.5),
                (jaw, side * 4),
                (jaw, -side * 0.6),
                (0, -side * 4),
            ]
        )
        parts.append(plate_of(rounded(nose, 1.5, 0), 0.9 * thick, 1.5))
        gap = 6.5 + spread
        knots = [
            (2, -side * 2, 0),
            (-12, side * 5, 0),
            (-0.2 * length, side * (gap + 9), 0),
            (-0.45 * length, side * (gap + 10), 0),
            (-0.7 * length, side * gap, 0),
        ]
        t = np.linspace(0, 1, 30)
        size = monotone([0, 0.12, 0.3, 0.9, 0.97, 1], [0.85, 0.85, 1, 1, 0.85, 0.5], t)
        parts.append(sweep(smooth_path(knots, 30), superellipse(5.2, thick / 2, 2.4, 24), size))
    return union(parts)
