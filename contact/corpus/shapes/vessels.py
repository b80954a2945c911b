"""Vessels: bottles, mugs, cups, bowls, pitchers, goblets, turned shapes. Dimensions in millimetres."""

from __future__ import annotations

import numpy as np
from manifold3d import Manifold

from contact.corpus.shapes.solids import (
    at_heights,
    capsule,
    draws,
    loft,
    loft_upright,
    monotone,
    revolve,
    revolve_shell,
    smooth_path,
    superellipse,
    sweep,
    uniform,
)


def bottle(rng: np.random.Generator) -> Manifold:
    """Round bottles: nail varnish (Ø 28 x 70) to wine and litre bottles (Ø 90 x 310), capped, some waisted."""
    ranges = {"small": ((28, 46), (70, 120)), "medium": ((52, 74), (150, 235)), "large": ((72, 90), (230, 310))}
    diameter, height = draws(rng, *ranges[str(rng.choice(list(ranges)))])
    waist = uniform(rng, 0.0, 0.16) * rng.integers(2)
    neck = uniform(rng, 0.32, 0.55) * diameter
    return round_bottle(diameter, height, neck, *draws(rng, (0.5, 0.68), (0.72, 0.86)), waist)


def round_bottle(
    diameter: float, height: float, neck: float, shoulder: float, collar: float, waist: float = 0.0
) -> Manifold:
    """Capped bottle on z = 0. `neck` is a diameter; shoulder and collar are heights as fractions of the total."""
    body, throat = diameter / 2, neck / 2
    z = np.linspace(0, shoulder, 24)
    trunk = body * (1 - waist * np.sin(np.pi * z / shoulder) ** 4)
    slope = np.linspace(shoulder, collar, 16)[1:]
    blend = 0.5 + 0.5 * np.cos(np.pi * (slope - shoulder) / (collar - shoulder))
    z, radius = np.concatenate([z, slope]), np.concatenate([trunk, throat + (body - throat) * blend])
    cap_from = height * (collar + 0.25 * (1 - collar))
    cap = 1.12 * throat + 0.8
    body_and_neck = [*zip(radius, z * height, strict=True), (throat, cap_from)]
    return revolve([*body_and_neck, (cap, cap_from), (cap, height)], min(1.5, 0.05 * diameter))


def squeeze_bottle(rng: np.random.Generator) -> Manifold:
    """Flattened bottles (mustard, shampoo, bleach): 45 to 125 wide, 26 to 75 deep, 110 to 290 tall.

    The wide ones may have a grip hole under the shoulder, as bleach and detergent bottles do.
    """
    height = uniform(rng, 110, 290)
    width = height * uniform(rng, 0.36, 0.45)
    depth = min(75.0, width * uniform(rng, 0.48, 0.72))
    if height < 210 or rng.random() < 0.4:
        return flat_bottle(width, depth, height, *draws(rng, (2.4, 5.0), (0.6, 1.0)))
    taper, corner, radius = draws(rng, (0.85, 1.0), (2.4, 5.0), (10, 13))
    solid = flat_bottle(width, depth, height, corner, taper)
    # A slot for the fingers leaves a bar of 17 at the side.
    pin = Manifold.cylinder(2 * depth, radius, circular_segments=28, center=True).rotate((90.0, 0.0, 0.0))
    ends = [(_flat_side(z, taper, 0.2) * width / 2 - 17 - radius, 0.0, z * height) for z in (0.36, 0.6)]
    return solid - Manifold.batch_hull([pin.translate(end) for end in ends])


def _flat_side(t: np.ndarray | float, taper: float, neck: float) -> np.ndarray:
    """Half width of a flat bottle, relative to its base, at the heights t relative to its own."""
    values = [0.94, 1, 0.5 + 0.5 * taper, 0.85 * taper, 1.1 * neck, neck]
    return monotone([0, 0.03, 0.5, 0.72, 0.84, 0.88], values, np.asarray(t))


def flat_bottle(width: float, depth: float, height: float, corner: float, taper: float) -> Manifold:
    """Bottle with a superelliptic section of exponent `corner` that narrows to a round capped neck.

    :param taper: width at the shoulder relative to the width of the base.
    """
    neck = min(0.3 * width, 0.42 * depth)
    t = np.array([0, 0.006, 0.016, 0.03, *np.linspace(0.09, 0.66, 10), *np.linspace(0.7, 0.88, 8)])
    side = _flat_side(t, taper, neck / width)
    faces = [0.92, 1, 1, 0.88, neck / depth * 1.15, neck / depth]
    face = monotone([0, 0.03, 0.5, 0.72, 0.84, 0.88], faces, t)
    exponent = monotone([0, 0.6, 0.86, 0.88], [corner, corner, 2, 2], t)
    cap = revolve([(neck / 2 + 3, 0), (neck / 2 + 2, 0.13 * height)], 1.2)
    body = loft_upright(t * height, side * width / 2, face * depth / 2, exponent, 56)
    return body + cap.translate((0.0, 0.0, 0.87 * height))


def _handle(
    radius: float, low: float, high: float, reach: float, width: float, thickness: float, square: float
) -> Manifold:
    """Handle in the x-z plane of a vessel of that radius, from height high down to low, `reach` outwards.

    :param square: 0 bows the handle like an ear, 1 makes it a D with straight sides.
    """
    lift = 0.12 * (high - low) * (1 - square)
    out, middle = radius + reach - thickness / 2, (low + high) / 2
    corner = out - (0.28 - 0.2 * square) * reach
    knots = [
        (radius - 1.5, high),
        (radius + 0.35 * reach, high + lift),
        (corner, high - 0.08 * (high - low)),
        (out, middle),
        (corner, low + 0.08 * (high - low)),
        (radius + 0.35 * reach, low - 0.5 * lift),
        (radius - 1.5, low),
    ]
    path = smooth_path([(x, 0, z) for x, z in knots], 32)
    return sweep(path, superellipse(thickness / 2, width / 2, 2.5, 20), up=(0, 1, 0))


def mug(rng: np.random.Generator) -> Manifold:
    """Mugs and tea cups with a handle: Ø 62 to 98, 58 to 120 tall, walls 2.5 to 5, handle reaching 24 to 42."""
    diameter, height, wall, taper, barrel = draws(rng, (62, 98), (58, 120), (2.5, 5.0), (0.78, 1.0), (-0.05, 0.06))
    reach, *handle = draws(rng, (24, 42), (9, 17), (6, 10), (0.0, 1.0))
    return handled_mug(diameter, height, wall, taper, barrel, reach, *handle)


def handled_mug(
    diameter: float, height: float, wall: float, taper: float, barrel: float,
    reach: float, width: float, thickness: float, square: float,
) -> Manifold:  # fmt: skip
    """Mug on z = 0: `taper` is the base relative to the rim, `barrel` the bulge, the rest as `_handle` takes it."""
    z = np.linspace(0, 1, 10)
    radius = diameter / 2 * (taper + (1 - taper) * np.sqrt(z) + barrel * np.sin(np.pi * z))
    shell, cavity = revolve_shell(np.stack([radius, z * height], axis=1), wall, wall + 2, fillet=4.0)
    low, high = 0.2 * height, 0.83 * height
    inward = float(np.interp(0.2, z, radius))
    ear = _handle(inward, low, high, reach + diameter / 2 - inward, width, thickness, square)
    return (shell + ear) - cavity


def cup(rng: np.random.Generator) -> Manifold:
    """Tumblers, paper cups, yoghurt pots, without a handle: Ø 55 to 95, 60 to 165 tall, walls 1.8 to 4."""
    diameter, height, wall = draws(rng, (55, 95), (60, 165), (1.8, 4.0))
    base = diameter / 2 * uniform(rng, 0.68, 1.0)
    return revolve_shell([(base, 0), (diameter / 2, height)], wall, 2 * wall, fillet=2.0)[0]


def bowl(rng: np.random.Generator) -> Manifold:
    """Bowls from a ramekin (Ø 85 x 38) to a salad bowl (Ø 220 x 95), walls 2.5 to 5."""
    diameter, height, *rest = draws(rng, (85, 220), (0.32, 0.5), (2.5, 5.0), (0.4, 0.62), (1.6, 3.0))
    return footed_bowl(diameter, diameter * height, *rest)


def footed_bowl(diameter: float, height: float, wall: float, foot: float, curve: float) -> Manifold:
    """Bowl on z = 0 with a flat foot (`foot` relative to the rim); `curve` 2 is elliptic, more is steeper."""
    angle = np.linspace(0, np.pi / 2, 18)
    radius = diameter / 2 * (foot + (1 - foot) * np.sin(angle) ** (2 / curve))
    z = height * (1 - np.cos(angle) ** (2 / curve))
    return revolve_shell(np.stack([radius, z], axis=1), wall, wall + 1, fillet=1.0, segments=64)[0]


def pitcher(rng: np.random.Generator) -> Manifold:
    """Pitchers, jugs and measuring cups: Ø 80 to 135, 95 to 245 tall, spout, handle reaching 36 to 58."""
    diameter = uniform(rng, 80, 135)
    height = min(245.0, diameter * uniform(rng, 1.1, 2.0))
    base = uniform(rng, 0.8, 1.15)
    wall, spout = uniform(rng, 2.8, 4.5), uniform(rng, 8, 20)
    z = np.linspace(0, 1, 14)
    belly = uniform(rng, 0.0, 0.14)
    radius = diameter / 2 * (base + (1 - base) * z + belly * np.sin(np.pi * z**0.7))
    shell, cavity = revolve_shell(np.stack([radius, z * height], axis=1), wall, wall + 2, fillet=4.0)

    def pour(v: np.ndarray) -> np.ndarray:
        """Push the rim outwards around -x into a spout."""
        v = np.array(v)
        rise = np.clip((v[:, 2] / height - 0.72) / 0.28, 0, 1) ** 2
        away = np.abs(np.arctan2(v[:, 1], -v[:, 0]))
        far = np.clip(np.linalg.norm(v[:, :2], axis=1) / radius[-1], 0, 1)
        v[:, 0] -= spout * rise * far * np.exp(-((away / 0.38) ** 2))
        return v

    shell, cavity = (solid.warp_batch(pour) for solid in (shell, cavity))
    low, high = uniform(rng, 0.14, 0.3) * height, uniform(rng, 0.84, 0.93) * height
    inward = float(min(np.interp(low / height, z, radius), np.interp(high / height, z, radius)))
    reach = uniform(rng, 36, 58) + float(radius.max()) - inward
    ear = _handle(inward, low, high, reach, *draws(rng, (13, 22), (9, 14), (0.2, 1.0)))
    return (shell + ear) - cavity


def goblet(rng: np.random.Generator) -> Manifold:
    """Wine glasses, goblets, egg cups: Ø 55 to 95, 80 to 225 tall, stem Ø 7 to 13."""
    diameter, height, wall, stem, start = draws(rng, (55, 95), (80, 225), (1.8, 3.0), (3.5, 6.5), (0.3, 0.52))
    foot, rim = diameter / 2 * uniform(rng, 0.8, 0.95), uniform(rng, 0.75, 1.0)
    widest = uniform(rng, 0.4, 0.75)
    t = np.linspace(0, 1, 20)
    half = diameter / 2
    calix = monotone([0, 0.05, 0.2, widest, 1], [stem, 0.35 * half, 0.75 * half, half, rim * half], t)
    z = height * (start + (1 - start) * t)
    side = [(foot, 0), (foot, 2.5), (2.2 * stem, 6.5), (stem, 14), *zip(calix, z, strict=True)]
    return revolve_shell(side, wall, z[0] + 3 * wall, fillet=0.9)[0]


def turned(rng: np.random.Generator) -> Manifold:
    """Turned and blown solids: vases, light bulbs, chessmen, pestles, candlesticks: Ø 26 to 95, 60 to 230 tall."""
    height = uniform(rng, 60, 230)
    radius = float(np.clip(height * uniform(rng, 0.16, 0.4), 13, 47))
    knots = np.linspace(0, 1, int(rng.integers(5, 8)))
    width = rng.uniform(0.35, 1.0, len(knots))
    width[0], width[int(rng.integers(len(knots)))] = uniform(rng, 0.6, 1.0), 1.0
    z = np.linspace(0, 1, 30)
    profile = np.maximum(radius * monotone(knots, width, z), 6.0)
    return revolve(np.stack([profile, z * height], axis=1), min(4.0, 0.18 * radius))


def jug(rng: np.random.Generator) -> Manifold:
    """Cans and jerrycans with a handle on top, kettles, watering cans: 90 to 170 wide, 120 to 230 tall."""
    width, height = uniform(rng, 90, 170), uniform(rng, 85, 150)
    depth = width * uniform(rng, 0.55, 1.0)
    t = np.array([0, 0.01, 0.04, *np.linspace(0.1, 0.9, 12), 0.94, 0.97, 0.985, 1.0])
    grow = monotone([0, 0.04, 0.5, 0.9, 1], [0.93, 1, 1, uniform(rng, 0.75, 1.0), 0.6], t)
    section = superellipse(width / 2, depth / 2, uniform(rng, 2.0, 5.0), 56)
    body = loft(at_heights([section * g for g in grow], t * height))
    rise, thick = uniform(rng, 38, 60), uniform(rng, 13, 22)
    span = 0.24 * width
    end, shoulder = (span, 0, height - 6), (0.95 * span, 0, height + 0.7 * rise)
    ends = [[(side * x, y, z) for x, y, z in (end, shoulder)] for side in (-1, 1)]
    knots = [*ends[0], (0, 0, height + rise), *ends[1][::-1]]
    grip = sweep(smooth_path(knots, 40), superellipse(thick / 2, thick / 2, 2.2, 24), up=(0, 1, 0))
    spout = capsule((0.3 * width, 0, 0.72 * height), (0.5 * width + 22, 0, height + 8), 13, 8)
    return body + grip + spout
