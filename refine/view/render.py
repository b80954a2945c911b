"""Pictures without a display: rays cast by embreex, shaded with NumPy.

`render` turns meshes into an RGB array on any machine with a processor: no window, no OpenGL. Needs the
`[render]` extra (embreex), which is imported only when a picture is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from .appearance import linear, to_srgb
from .camera import Camera, unit
from .scene import OCCLUSION_REACH, Hits, Item, Scene, auto_camera, even_sphere, r2

_FAR = np.float32(1e30)
_SKIN_SCATTER = np.array([1.0, 0.45, 0.35])  # red travels furthest under skin: it crosses the shadow's edge


@dataclass(frozen=True)
class Lights:
    """Radiances of the lamps, and their directions on the camera's axes (right, up, towards the viewer)."""

    key: float = 0.74
    key_direction: tuple[float, float, float] = (-0.50, 0.72, 0.62)
    key_radius: float = 0.22  # of the lamp, seen from the scene: the softness of shadows
    fill: float = 0.16
    fill_direction: tuple[float, float, float] = (0.85, 0.05, 0.45)
    sky: float = 0.46
    earth: float = 0.22
    highlight: float = 0.22
    occlusion_reach: float = OCCLUSION_REACH  # in radii of the scene
    background: tuple[float, float, float] = (0.955, 0.96, 0.965)


def render(
    items: Sequence[Item],
    camera: Camera | None = None,
    size: tuple[int, int] = (640, 480),
    samples: int = 2,
    *,
    lights: Lights | None = None,
    up: Sequence[float] = (0.0, 0.0, 1.0),
    ground: bool = True,
    background: np.ndarray | None = None,
) -> np.ndarray:
    """Picture of `items`: (height, width, 3) uint8 sRGB.

    camera None chooses a view (`auto_camera`); size is (width, height) in pixels; samples is the
    supersampling per axis; `up` is the world's upward direction; `ground` adds a soft shadow on a plane
    under the scene; `background` (height, width, 3) uint8 is what is seen past it. The same
    arguments give the same bytes.
    Raises ValueError for no items or malformed meshes, ImportError when embreex is missing.
    """
    lights = lights or Lights()
    if samples < 1 or min(size) < 1:
        raise ValueError(f"render: size {size} and samples {samples} must be at least 1")
    camera = camera or auto_camera(items, up=up, size=size)
    scene = Scene(items)
    up_axis = np.asarray(up, dtype=np.float32) / np.float32(np.linalg.norm(up))
    axes = camera.pose[:3, :3] * np.array([1.0, -1.0, -1.0])  # right, up, towards the viewer
    eye, directions = camera.rays(size, samples)
    shape = directions.shape[:2]
    directions = directions.reshape(-1, 3)
    behind = linear(np.array(lights.background) if background is None else background / 255.0).astype(np.float32)
    canvas = np.broadcast_to(behind, (size[1], size[0], 3)).repeat(samples, 0).repeat(samples, 1).reshape(-1, 3)
    if ground:
        backdrop = _ground_shadow(scene, camera, size, up_axis, axes, lights)
        canvas = canvas * backdrop.repeat(samples, 0).repeat(samples, 1).reshape(-1, 1)
    hit = scene.trace(eye, directions)
    light = _smooth(_occlusion(scene, hit, axes, lights, shape[1]), hit, shape)
    canvas[hit.ray] = _shade(scene, hit, directions[hit.ray], light, axes, up_axis, lights)
    pixels = canvas.reshape(size[1], samples, size[0], samples, 3).mean((1, 3))
    return np.round(to_srgb(pixels) * 255).astype(np.uint8)


def _occlusion(scene: Scene, hit: Hits, axes: np.ndarray, lights: Lights, width: int, rays: int = 3) -> np.ndarray:
    """(N, 2): share of the sky that is open, and of the key lamp that is seen, at each hit.

    A tile of 8 x 8 samples shares one low-discrepancy set (R2), so the mean over any 8 x 8 window of a
    smooth surface is that set's own: `_smooth` takes it, and no noise is left.
    """
    key = unit(axes @ np.array(lights.key_direction)).astype(np.float32)
    row, column = np.divmod(hit.ray, width)
    place = _dither(row % 8, column % 8)
    light = np.zeros((len(hit.ray), 2), np.float32)
    for k in range(rays):
        sky = even_sphere(r2(np.arange(64) * rays + k))[place]  # about the tip of the normal: cosine-weighted
        light[:, 0] += ~scene.blocked(hit.lifted, unit(hit.normal + 0.999 * sky), lights.occlusion_reach)
    lamp = unit(key + np.float32(lights.key_radius) * even_sphere(r2(np.arange(64))))
    light[:, 1] = ~scene.blocked(hit.lifted, lamp[place], 4.0)
    return light / np.float32([rays, 1])


def _smooth(light: np.ndarray, hit: Hits, shape: tuple[int, int], window: int = 8) -> np.ndarray:
    """Average `light` (N, 2) over neighbouring samples of the same surface (separable cross-bilateral).

    Works on whole image planes: one plane per number is several times faster than gathering rows.
    """
    if not len(hit.ray):
        return light
    row, column = np.divmod(hit.ray, shape[1])
    row, column = row - row.min(), column - column.min()
    planes = np.zeros((9, int(row.max()) + 1, int(column.max()) + 1), np.float32)
    planes[:, row, column] = np.concatenate(
        [light, hit.normal, hit.point, hit.item[:, None] + 1], axis=1, dtype=np.float32
    ).T
    values, guide = planes[:2], planes[2:]
    for axis in (1, 2):
        total, weight = values.copy(), np.ones_like(values[0])
        for step in range(1, window // 2 + 1):
            ahead = tuple(slice(step, None) if a == axis else slice(None) for a in range(3))
            behind = tuple(slice(None, -step) if a == axis else slice(None) for a in range(3))
            n, m = guide[behind], guide[ahead]
            if not n.size:
                break
            same = np.clip(n[0] * m[0] + n[1] * m[1] + n[2] * m[2], 0, 1)
            off = n[0] * (m[3] - n[3]) + n[1] * (m[4] - n[4]) + n[2] * (m[5] - n[5])
            share = same * same
            share *= share
            share *= (np.abs(off) < 0.01) & (n[6] == m[6])
            if 2 * step == window:
                share *= 0.5  # both ends are the same place in the tile
            total[behind] += values[ahead] * share
            total[ahead] += values[behind] * share
            weight[behind[1:]] += share
            weight[ahead[1:]] += share
        values = total / weight
    return values[:, row, column].T


def _shade(
    scene: Scene, hit: Hits, view: np.ndarray, light: np.ndarray, axes: np.ndarray, up: np.ndarray, lights: Lights
) -> np.ndarray:
    """Linear colour (N, 3) of the hits: sky and earth, a wrapped key lamp, a fill lamp and a highlight."""
    key = unit(axes @ np.array(lights.key_direction)).astype(np.float32)
    fill = unit(axes @ np.array(lights.fill_direction)).astype(np.float32)
    open_sky, lit = light[:, :1], light[:, 1:2]
    height = (hit.normal @ up)[:, None]
    ambient = (lights.earth + (lights.sky - lights.earth) * (0.5 + 0.5 * height)) * open_sky
    gloss, softness = np.array([(i.gloss, i.softness) for i in scene.items], np.float32)[hit.item].T
    wrap = softness[:, None] * _SKIN_SCATTER.astype(np.float32)
    ambient = ambient + wrap * 0.12 * (1 - open_sky) * open_sky  # light that leaks through skin into creases
    diffuse = np.clip(((hit.normal @ key)[:, None] + wrap) / (1 + wrap), 0, 1)
    diffuse = lights.key * diffuse * (lit + wrap * 0.25 * (1 - lit))
    soft = lights.fill * np.clip(hit.normal @ fill, 0, 1)[:, None] * (0.4 + 0.6 * open_sky)
    half = unit(key - view)
    shine = np.clip(np.einsum("nc,nc->n", hit.normal, half), 0, 1) ** 28 * lights.highlight
    rim = (1 - np.clip(-np.einsum("nc,nc->n", hit.normal, view), 0, 1)) ** 4 * 0.18
    glint = (gloss * (shine * lit[:, 0] + rim * open_sky[:, 0]))[:, None]
    return (hit.colour * (ambient + diffuse + soft) + glint).astype(np.float32)


def _ground_shadow(
    scene: Scene, camera: Camera, size: tuple[int, int], up: np.ndarray, axes: np.ndarray, lights: Lights
) -> np.ndarray:
    """(height, width) factor in (0, 1] that darkens the background under the scene.

    The shadow is worked out on a coarse grid on the plane under the lowest point and then looked up.
    """
    side = unit(np.cross(up, axes[:, 0] if abs(axes[:, 0] @ up) < 0.9 else axes[:, 2])).astype(np.float32)
    plane = np.stack([side, np.cross(up, side)])
    level, cells, extent, rays = float((scene.corners @ up).min()) - 0.01, 72, 3.0, 24
    line = np.linspace(-extent, extent, cells, dtype=np.float32)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    origin = grid @ plane + up * np.float32(level)
    key = unit(unit(axes @ np.array(lights.key_direction)) + 1.2 * up).astype(np.float32)  # a higher sun
    shade = np.zeros(len(grid), np.float32)
    for k in range(rays):
        ball = even_sphere(r2(np.array([k])))
        sky = np.broadcast_to(unit(up + 0.999 * ball), origin.shape).astype(np.float32)
        lamp = np.broadcast_to(unit(key + 0.35 * ball), origin.shape).astype(np.float32)
        shade += 0.55 * scene.blocked(origin, sky, _FAR) + 0.35 * scene.blocked(origin, lamp, _FAR)
    fade = np.clip(1.5 - 1.5 * np.linalg.norm(grid, axis=1) / extent, 0, 1)
    shade = gaussian_filter((shade * fade).reshape(cells, cells) / rays, 1.0)
    eye, directions = camera.rays(size)
    start = scene.to_scene(eye)
    slope = directions @ up
    distance = np.where(np.abs(slope) > 1e-6, (level - start @ up) / np.where(slope == 0, 1, slope), -1)
    point = start + directions * np.clip(distance, 0, 1e3)[..., None]
    at = ((point @ plane.T) + extent) / (2 * extent) * (cells - 1)
    dark = map_coordinates(shade, at.reshape(-1, 2).T, order=1, mode="constant").reshape(size[1], size[0])
    return (1 - dark * (distance > 0)).astype(np.float32)


def _dither(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Bayer's order 0..63 of the places of an 8 x 8 tile: neighbours in space are far apart in the order."""
    order = np.zeros_like(row)
    for bit in range(3):
        r, c = row >> bit & 1, column >> bit & 1
        order |= ((r ^ c) << 1 | r) << (4 - 2 * bit)
    return order
