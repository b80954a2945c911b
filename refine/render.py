"""Pictures without a display: rays cast by embreex, shaded with NumPy.

`render` turns meshes into an RGB array on any machine with a processor: no window, no OpenGL. Needs the
`[render]` extra (embreex), which is imported only when a picture is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from refine.appearance import OBJECT, corner_normals

_FAR = np.float32(1e30)
_SKIN_SCATTER = np.array([1.0, 0.45, 0.35])  # red travels furthest under skin: it crosses the shadow's edge


@dataclass(frozen=True)
class Item:
    """One mesh of a picture.

    vertices (V, 3) metres; faces (F, 3); colour an sRGB triple in [0, 1] or one per vertex (V, 3);
    opacity below 1 makes a ghost that casts no shadow; gloss in [0, 1] is the strength of the highlight;
    softness in [0, 1] lets light wrap round the form as it does in skin; focus is how much the automatic
    camera wants to see of it; normals (F, 3, 3) per corner replace the computed ones.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colour: tuple[float, float, float] | np.ndarray = OBJECT
    opacity: float = 1.0
    gloss: float = 0.25
    softness: float = 0.0
    focus: float = 1.0
    normals: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: pose (4, 4) camera to world, OpenCV axes (x right, y down, z forward); fov the
    full vertical field of view in radians."""

    pose: np.ndarray
    fov: float = 0.6

    def rays(self, size: tuple[int, int], samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Origin (3,) and unit directions (height * samples, width * samples, 3) through sample centres."""
        width, height = size[0] * samples, size[1] * samples
        x = (np.arange(width) + 0.5 - width / 2) / (height / 2) * np.tan(self.fov / 2)
        y = (np.arange(height) + 0.5 - height / 2) / (height / 2) * np.tan(self.fov / 2)
        local = np.stack([*np.meshgrid(x, y), np.ones((height, width))], axis=-1)
        return self.pose[:3, 3], _unit(local @ self.pose[:3, :3].T)


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
    occlusion_reach: float = 0.45  # of the scene's radius: how far ambient occlusion looks
    background: tuple[float, float, float] = (0.955, 0.96, 0.965)


def look_at(
    eye: Sequence[float], target: Sequence[float], up: Sequence[float] = (0.0, 0.0, 1.0), fov: float = 0.6
) -> Camera:
    """Camera at `eye` that sees `target` in its centre with `up` upwards in the picture (metres)."""
    eye = np.asarray(eye, dtype=np.float64)
    forward = np.asarray(target, dtype=np.float64) - eye
    if np.linalg.norm(forward) < 1e-12:
        raise ValueError("look_at: eye and target are one point; move the eye away")
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(up, dtype=np.float64))
    if np.linalg.norm(right) < 1e-6:  # looking along `up`: any other direction will do
        right = np.cross(forward, np.eye(3)[np.argmin(np.abs(forward))])
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return Camera(pose, fov)


def frame(
    vertices: np.ndarray, direction: Sequence[float], *, up: Sequence[float] = (0.0, 0.0, 1.0),
    size: tuple[int, int] = (640, 480), fov: float = 0.6, margin: float = 0.08,
) -> Camera:  # fmt: skip
    """The closest camera, looking from `direction`, that has all `vertices` (N, 3) in the picture.

    `margin` is the free share at each side.
    """
    points = np.asarray(vertices, dtype=np.float64)
    pose = look_at(direction, np.zeros(3), up, fov).pose.copy()
    local = points @ pose[:3, :3]
    slope = np.tan(fov / 2) * (1 - 2 * margin) * np.array([size[0] / size[1], 1.0])
    low = (-local[:, :2] - slope * local[:, 2:]).max(0)
    high = (local[:, :2] - slope * local[:, 2:]).max(0)
    centre = np.array([*(high - low) / 2, (-(low + high) / (2 * slope)).min()])
    pose[:3, 3] = pose[:3, :3] @ centre
    return Camera(pose, fov)


def auto_camera(
    items: Sequence[Item], *, up: Sequence[float] = (0.0, 0.0, 1.0), size: tuple[int, int] = (640, 480),
    fov: float = 0.6, extra: np.ndarray | None = None,
) -> Camera:  # fmt: skip
    """Of 36 views from all round, the one that shows most of each item, weighted by its `focus`.

    Ghosts are framed but not looked for; `extra` (N, 3) are more points to keep in the picture.
    """
    solid = [item for item in items if item.opacity >= 1.0 and item.focus > 0] or list(items)
    points = np.concatenate([np.asarray(item.vertices) for item in items])
    if extra is not None:
        points = np.concatenate([points, np.asarray(extra).reshape(-1, 3)])
    basis = look_at(np.zeros(3), (1.0, 0.0, 0.0) if abs(up[0]) < 0.9 else (0.0, 1.0, 0.0), up).pose[:3, :3]
    small = (72, 54)
    scene = _Scene(solid, normals=False)
    shares, cameras = [], []
    for elevation in np.radians([12.0, 32.0, 55.0]):
        for azimuth in np.arange(12) * (2 * np.pi / 12):
            local = (np.cos(azimuth) * np.cos(elevation), -np.sin(elevation), np.sin(azimuth) * np.cos(elevation))
            camera = frame(points, basis @ np.array(local), up=up, size=size, fov=fov)
            item, _ = _visible(scene, camera, small)
            shares.append([(item == i).sum() for i in range(len(solid))])
            cameras.append(camera)
    share = np.array(shares, dtype=np.float64)
    share = np.sqrt(share / np.maximum(share.max(0), 1))  # the root: seeing a little of each beats all of one
    return cameras[int(np.argmax(share @ np.array([item.focus for item in solid])))]


def visible(items: Sequence[Item], camera: Camera, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """What each pixel's centre sees: index of the item (height, width), -1 for none, and the distance
    along the ray in metres, infinite for none."""
    return _visible(_Scene(items, normals=False), camera, size)


def render(
    items: Sequence[Item],
    camera: Camera | None = None,
    size: tuple[int, int] = (640, 480),
    samples: int = 2,
    *,
    lights: Lights | None = None,
    up: Sequence[float] = (0.0, 0.0, 1.0),
    ground: bool = True,
    seed: int = 0,
) -> np.ndarray:
    """Picture of `items`: (height, width, 3) uint8 sRGB.

    camera None chooses a view (`auto_camera`); size is (width, height) in pixels; samples is the
    supersampling per axis; `up` is the world's upward direction; `ground` adds a soft shadow on a plane
    under the scene. The same arguments and seed give the same bytes.
    Raises ValueError for no items or malformed meshes, ImportError when embreex is missing.
    """
    lights = lights or Lights()
    if samples < 1 or min(size) < 1:
        raise ValueError(f"render: size {size} and samples {samples} must be at least 1")
    camera = camera or auto_camera(items, up=up, size=size)
    solid = [item for item in items if item.opacity >= 1.0]
    ghosts = [item for item in items if item.opacity < 1.0]
    scene = _Scene(solid or ghosts)
    up_axis = np.asarray(up, dtype=np.float32) / np.float32(np.linalg.norm(up))
    axes = camera.pose[:3, :3] * np.array([1.0, -1.0, -1.0])  # right, up, towards the viewer
    eye, directions = camera.rays(size, samples)
    shape = directions.shape[:2]
    directions = directions.reshape(-1, 3).astype(np.float32)
    rng = np.random.default_rng(seed)

    canvas = np.broadcast_to(_linear(np.array(lights.background)), (*shape, 3)).reshape(-1, 3).astype(np.float32)
    depth = np.full(len(canvas), _FAR)
    if solid:
        if ground:
            backdrop = _ground_shadow(scene, camera, size, up_axis, axes, lights)
            canvas = canvas * backdrop.repeat(samples, 0).repeat(samples, 1).reshape(-1, 1)
        hit = scene.trace(eye, directions)
        light = _occlusion(scene, hit, axes, lights, rng)
        light = _smooth(light, hit, shape)
        canvas[hit.ray] = _shade(scene, hit, directions[hit.ray], light, axes, up_axis, lights)
        depth[hit.ray] = hit.distance
    for ghost in ghosts:
        hit = (veil := _Scene([ghost], like=scene)).trace(eye, directions)
        hit = hit.where(hit.distance < depth[hit.ray])
        light = np.ones((len(hit.ray), 2), np.float32)
        colour = _shade(veil, hit, directions[hit.ray], light, axes, up_axis, lights)
        facing = np.abs(np.einsum("nc,nc->n", hit.normal, directions[hit.ray]))
        alpha = (ghost.opacity * (1.25 - 0.75 * facing)).clip(0, 1)[:, None]  # denser at the rim, as glass is
        canvas[hit.ray] = canvas[hit.ray] * (1 - alpha) + colour * alpha
    pixels = canvas.reshape(size[1], samples, size[0], samples, 3).mean((1, 3))
    return np.round(_srgb(pixels) * 255).astype(np.uint8)


@dataclass(frozen=True)
class _Hits:
    ray: np.ndarray  # (N,) index of the ray
    distance: np.ndarray  # (N,) in scene units
    point: np.ndarray  # (N, 3) on the surface, scene units
    lifted: np.ndarray  # (N, 3) on the smooth surface the normals describe: where shadow rays start
    normal: np.ndarray  # (N, 3) shading normal, towards the viewer
    colour: np.ndarray  # (N, 3) linear
    item: np.ndarray  # (N,)

    def where(self, keep: np.ndarray) -> _Hits:
        return _Hits(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


class _Scene:
    """Meshes merged into one embree scene, moved and scaled to the unit sphere (rays are float32)."""

    def __init__(self, items: Sequence[Item], *, normals: bool = True, like: _Scene | None = None) -> None:
        rtcore, scenes, mesh = _embree()
        if not items:
            raise ValueError("render: no meshes; give at least one Item")
        meshes = [_checked(item) for item in items]
        points = np.concatenate([v for v, _ in meshes])
        self.centre = like.centre if like else (points.min(0) + points.max(0)) / 2
        self.radius = like.radius if like else max(float(np.linalg.norm(points - self.centre, axis=1).max()), 1e-9)
        corners = np.concatenate([v[f] for v, f in meshes])
        self.corners = ((corners - self.centre) / self.radius).astype(np.float32)
        self.item = np.concatenate([np.full(len(f), i) for i, (_, f) in enumerate(meshes)])
        self.gloss = np.array([item.gloss for item in items], dtype=np.float32)
        self.softness = np.array([item.softness for item in items], dtype=np.float32)
        if normals:
            given = zip(items, meshes, strict=True)
            self.normals = np.concatenate(
                [corner_normals(*m) if item.normals is None else item.normals for item, m in given]
            ).astype(np.float32)
            self.colours = np.concatenate(
                [_linear(_vertex_colours(item, len(v)))[f] for item, (v, f) in zip(items, meshes, strict=True)]
            ).astype(np.float32)
        self._embree = scenes.EmbreeScene(rtcore.EmbreeDevice())
        mesh.TriangleMesh(self._embree, self.corners)

    def to_scene(self, points: np.ndarray) -> np.ndarray:
        return ((points - self.centre) / self.radius).astype(np.float32)

    def cast(self, eye: np.ndarray, directions: np.ndarray) -> dict[str, np.ndarray]:
        origins = np.tile(self.to_scene(eye), (len(directions), 1))
        return self._embree.run(origins, directions, query="INTERSECT", output=True)

    def blocked(self, origins: np.ndarray, directions: np.ndarray, reach: float) -> np.ndarray:
        """(N,) bool: whether anything lies within `reach` (scene units) along each ray."""
        reaches = np.full(len(origins), reach, np.float32)
        return self._embree.run(origins, directions, reaches, query="OCCLUDED") >= 0

    def trace(self, eye: np.ndarray, directions: np.ndarray) -> _Hits:
        found = self.cast(eye, directions)
        ray = np.flatnonzero(found["primID"] >= 0)
        face, u, v = found["primID"][ray], found["u"][ray], found["v"][ray]
        bary = np.stack([1 - u - v, u, v], axis=1)
        corners, corner_normal = self.corners[face], self.normals[face]
        point = np.einsum("nkc,nk->nc", corners, bary)
        # start shadow rays on the curved surface the triangle stands for, else facets shade themselves
        # (J. Hanika, "Hacking the shadow terminator", Ray Tracing Gems II, 2021)
        below = np.minimum(np.einsum("nkc,nkc->nk", point[:, None] - corners, corner_normal), 0.0)
        lifted = point - np.einsum("nk,nkc->nc", below * bary, corner_normal)
        normal = _unit(np.einsum("nkc,nk->nc", corner_normal, bary))
        flat = found["Ng"][ray]
        outward = np.einsum("nc,nc->n", flat, corner_normal[:, 0]) >= 0
        seen_from_behind = (np.einsum("nc,nc->n", flat, directions[ray]) > 0) == outward
        normal[seen_from_behind] *= -1
        lifted[seen_from_behind] = point[seen_from_behind]
        colour = np.einsum("nkc,nk->nc", self.colours[face], bary)
        return _Hits(ray, found["tfar"][ray], point, lifted + normal * 2e-3, normal, colour, self.item[face])


def _visible(scene: _Scene, camera: Camera, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    eye, directions = camera.rays(size)
    found = scene.cast(eye, directions.reshape(-1, 3).astype(np.float32))
    hit = found["primID"] >= 0
    item = np.where(hit, scene.item[np.where(hit, found["primID"], 0)], -1)
    distance = np.where(hit, found["tfar"] * scene.radius, np.inf)
    return item.reshape(size[1], size[0]), distance.reshape(size[1], size[0])


def _occlusion(
    scene: _Scene, hit: _Hits, axes: np.ndarray, lights: Lights, rng: np.random.Generator, rays: int = 3, lamp_rays: int = 1
) -> np.ndarray:
    """(N, 2): share of the sky that is open, and of the key lamp that is seen, at each hit."""
    jitter = rng.random((len(hit.ray), 2), dtype=np.float32)
    key = _unit(axes @ np.array(lights.key_direction)).astype(np.float32)
    light = np.zeros((len(hit.ray), 2), np.float32)
    for k in range(rays):
        # R2 low-discrepancy sequence, shifted at random from sample to sample; cosine-weighted about the normal
        u = (jitter + np.float32([0.7548777, 0.5698403]) * np.float32(k + 1)) % 1
        ball = _sphere(u)
        light[:, 0] += ~scene.blocked(hit.lifted, _unit(hit.normal + 0.999 * ball), lights.occlusion_reach)
        if k < lamp_rays:
            lamp = _unit(key + np.float32(lights.key_radius) * ball)
            light[:, 1] += ~scene.blocked(hit.lifted, lamp, 4.0)
    return light / np.float32([rays, lamp_rays])


def _smooth(light: np.ndarray, hit: _Hits, shape: tuple[int, int], radius: int = 4) -> np.ndarray:
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
        for step in range(1, radius + 1):
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
            total[behind] += values[ahead] * share
            total[ahead] += values[behind] * share
            weight[behind[1:]] += share
            weight[ahead[1:]] += share
        values = total / weight
    return values[:, row, column].T


def _shade(
    scene: _Scene, hit: _Hits, view: np.ndarray, light: np.ndarray, axes: np.ndarray, up: np.ndarray, lights: Lights
) -> np.ndarray:  # fmt: skip
    """Linear colour (N, 3) of the hits: sky and earth, a wrapped key lamp, a fill lamp and a highlight."""
    key = _unit(axes @ np.array(lights.key_direction)).astype(np.float32)
    fill = _unit(axes @ np.array(lights.fill_direction)).astype(np.float32)
    open_sky, lit = light[:, :1], light[:, 1:2]
    height = (hit.normal @ up)[:, None]
    ambient = (lights.earth + (lights.sky - lights.earth) * (0.5 + 0.5 * height)) * open_sky
    wrap = scene.softness[hit.item][:, None] * _SKIN_SCATTER.astype(np.float32)
    ambient = ambient + wrap * 0.12 * (1 - open_sky) * open_sky  # light that leaks through flesh into creases
    diffuse = np.clip(((hit.normal @ key)[:, None] + wrap) / (1 + wrap), 0, 1)
    diffuse = lights.key * diffuse * (lit + wrap * 0.25 * (1 - lit))
    soft = lights.fill * np.clip(hit.normal @ fill, 0, 1)[:, None] * (0.4 + 0.6 * open_sky)
    half = _unit(key - view)
    shine = np.clip(np.einsum("nc,nc->n", hit.normal, half), 0, 1) ** 28 * lights.highlight
    rim = (1 - np.clip(-np.einsum("nc,nc->n", hit.normal, view), 0, 1)) ** 4 * 0.18
    glint = (scene.gloss[hit.item] * (shine * lit[:, 0] + rim * open_sky[:, 0]))[:, None]
    return (hit.colour * (ambient + diffuse + soft) + glint).astype(np.float32)


def _ground_shadow(
    scene: _Scene, camera: Camera, size: tuple[int, int], up: np.ndarray, axes: np.ndarray, lights: Lights
) -> np.ndarray:
    """(height, width) factor in (0, 1] that darkens the background under the scene.

    The shadow is worked out on a coarse grid on the plane under the lowest point and then looked up.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    side = _unit(np.cross(up, axes[:, 0] if abs(axes[:, 0] @ up) < 0.9 else axes[:, 2])).astype(np.float32)
    plane = np.stack([side, np.cross(up, side)])
    level, cells, extent, rays = float((scene.corners @ up).min()) - 0.01, 72, 3.0, 24
    line = np.linspace(-extent, extent, cells, dtype=np.float32)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    origin = grid @ plane + up * np.float32(level)
    key = _unit(_unit(axes @ np.array(lights.key_direction)) + 1.2 * up).astype(np.float32)  # a higher sun
    shade = np.zeros(len(grid), np.float32)
    for k in range(rays):
        u = np.float32([0.7548777, 0.5698403]) * np.float32(k + 1) % 1
        ball = _sphere(u[None])
        sky = np.broadcast_to(_unit(up + 0.999 * ball), origin.shape).astype(np.float32)
        lamp = np.broadcast_to(_unit(key + 0.35 * ball), origin.shape).astype(np.float32)
        shade += 0.55 * scene.blocked(origin, sky, _FAR) + 0.35 * scene.blocked(origin, lamp, _FAR)
    shade = gaussian_filter(shade.reshape(cells, cells) / rays, 1.0)
    eye, directions = camera.rays(size)
    start = scene.to_scene(eye)
    slope = directions @ up
    distance = np.where(np.abs(slope) > 1e-6, (level - start @ up) / np.where(slope == 0, 1, slope), -1)
    point = start + directions * np.clip(distance, 0, 1e3)[..., None]
    at = ((point @ plane.T) + extent) / (2 * extent) * (cells - 1)
    dark = map_coordinates(shade, at.reshape(-1, 2).T, order=1, mode="constant").reshape(size[1], size[0])
    return (1 - dark * (distance > 0)).astype(np.float32)


def _checked(item: Item) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = np.asarray(item.vertices, dtype=np.float64), np.asarray(item.faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise ValueError(f"Item.vertices must be (V, 3) and finite, not {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3 or not len(faces) or faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(f"Item.faces must be (F, 3) indices below {len(vertices)}, not {faces.shape}")
    return vertices, faces.astype(np.int64)


def _vertex_colours(item: Item, count: int) -> np.ndarray:
    colour = np.asarray(item.colour, dtype=np.float64)
    if colour.shape not in ((3,), (count, 3)):
        raise ValueError(f"Item.colour must be (3,) or ({count}, 3) sRGB in [0, 1], not {colour.shape}")
    return np.broadcast_to(colour, (count, 3))


def _sphere(u: np.ndarray) -> np.ndarray:
    """Points (N, 2) of the unit square to directions spread evenly over the sphere (N, 3)."""
    z, turn = 1 - 2 * u[:, 0], 2 * np.pi * u[:, 1]
    r = np.sqrt(np.clip(1 - z * z, 0, None))
    return np.stack([r * np.cos(turn), r * np.sin(turn), z], axis=1).astype(np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.sqrt(np.einsum("...c,...c->...", vectors, vectors)), 1e-9)[..., None]


def _linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _srgb(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _embree():  # noqa: ANN202 - modules
    try:
        from embreex import mesh_construction, rtcore, rtcore_scene
    except ImportError as error:
        raise ImportError(
            "drawing pictures needs the embreex package, which is not installed: pip install 'regrasp[render]'"
        ) from error
    return rtcore, rtcore_scene, mesh_construction
