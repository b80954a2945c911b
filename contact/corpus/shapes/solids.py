"""Building blocks of the procedural objects: revolving, lofting, sweeping, rounding, meshing.

Everything here works in millimetres on `manifold3d` solids, whose booleans are exact and always
watertight; `finish` turns a solid into a centred `trimesh.Trimesh` in metres.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import trimesh
from manifold3d import CrossSection, FillRule, Manifold, Mesh64, OpType
from scipy.interpolate import CubicSpline, PchipInterpolator

MIN_FACES, MAX_FACES = 500, 6000
_MILLIMETRE = 1e-3


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A Python float drawn uniformly from [low, high]."""
    return float(rng.uniform(low, high))


def draws(rng: np.random.Generator, *ranges: tuple[float, float]) -> tuple[float, ...]:
    """One number of each range (low, high), see `uniform`."""
    return tuple(uniform(rng, *limits) for limits in ranges)


# ---------------------------------------------------------------- plane sections


def polygon(points: Sequence[Sequence[float]] | np.ndarray) -> CrossSection:
    """Filled polygon from its corners (k, 2), in either orientation."""
    return CrossSection([np.asarray(points, dtype=np.float64)], FillRule.NonZero)


def rounded(section: CrossSection, convex: float, concave: float | None = None) -> CrossSection:
    """Round a section's corners: convex ones with radius `convex`, concave ones with `concave`.

    A morphological opening followed by a closing; parts thinner than 2 * convex would vanish.
    """
    concave = convex if concave is None else concave
    if convex > 0:
        section = section.offset(-convex, circular_segments=20).offset(convex, circular_segments=20)
    if concave > 0:
        section = section.offset(concave, circular_segments=20).offset(-concave, circular_segments=20)
    # Offsetting a curve leaves an arc at each of its points; what is below 20 microns goes.
    return section.simplify(0.02)


def superellipse(a: float, b: float, exponent: float = 2.0, segments: int = 48) -> np.ndarray:
    """Points (segments, 2) of |x/a|^e + |y/b|^e = 1: 2 is an ellipse, 5 a rounded rectangle."""
    angle = np.arange(segments) * (2 * np.pi / segments)
    cos, sin = np.cos(angle), np.sin(angle)
    radius = (np.abs(cos) ** exponent + np.abs(sin) ** exponent) ** (-1 / exponent)
    return np.stack([a * radius * cos, b * radius * sin], axis=1)


def smooth_path(points: Sequence[Sequence[float]], samples: int) -> np.ndarray:
    """Cubic spline (samples, d) through points (k, d), parametrised by chord length."""
    knots = np.asarray(points, dtype=np.float64)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))])
    return CubicSpline(length, knots)(np.linspace(0.0, length[-1], samples))


def monotone(knots: Sequence[float], values: Sequence[float], at: np.ndarray) -> np.ndarray:
    """Overshoot-free interpolation (PCHIP) of values at increasing knots."""
    return PchipInterpolator(knots, values)(at)


# ---------------------------------------------------------------- solids


def cylinder(radius: float, height: float, fillet: float, segments: int = 56) -> Manifold:
    """Cylinder standing on z = 0, its rims rounded by `fillet`."""
    return revolve([(radius, 0), (radius, height)], fillet, segments)


def revolve(side: Sequence[Sequence[float]] | np.ndarray, fillet: float = 0.0, segments: int = 56) -> Manifold:
    """Solid of revolution about z within (radius, height) points from bottom to top, corners rounded by `fillet`.

    The section is mirrored before rounding, so that the axis itself stays unrounded.
    """
    return rounded(_both_sides(side), fillet).revolve(segments)


def revolve_shell(
    side: Sequence[Sequence[float]] | np.ndarray, wall: float, floor: float, fillet: float, segments: int = 48
) -> tuple[Manifold, Manifold]:
    """An open vessel, and the cavity to be cut again from whatever is joined to it later.

    :param side: (radius, height) points of the outside from the edge of the base up to the rim.
    :param wall: thickness of the wall, measured along its normal; the rim is rounded with 0.42 of it.
    :param floor: height at which the cavity begins.
    :param fillet: radius of the corners of the outside.
    """
    rim, top = side[-1]
    body = rounded(_both_sides(side), fillet)
    extended = rounded(_both_sides([*side, (rim, top + 40)]), fillet)
    above = CrossSection.square((4 * rim + 400, 2 * top)).translate((-2 * rim - 200, floor))
    cavity = rounded(extended.offset(-wall) ^ above, fillet)
    shell = rounded(body - cavity, 0.42 * wall, 0.0)
    # Inside and outside together have many rings: what is below 0.06 may go.
    return shell.simplify(0.06).revolve(segments), cavity.simplify(0.06).revolve(segments)


def rounded_box(size: Sequence[float], radius: float, segments: int = 12) -> Manifold:
    """Axis-aligned box centred at the origin with spherically rounded edges."""
    radius = min(radius, 0.49 * min(size))
    corner = Manifold.sphere(radius, segments)
    half = np.asarray(size, dtype=np.float64) / 2 - radius
    return Manifold.batch_hull([corner.translate(half * sign) for sign in product((-1, 1), repeat=3)])


def capsule(start: Sequence[float], end: Sequence[float], radius: float, end_radius: float | None = None) -> Manifold:
    """Convex hull of two spheres: a capsule, tapered if the radii differ."""
    first = Manifold.sphere(radius, 20).translate(np.asarray(start, dtype=np.float64))
    second = Manifold.sphere(radius if end_radius is None else end_radius, 20)
    return Manifold.batch_hull([first, second.translate(np.asarray(end, dtype=np.float64))])


def loft(sections: np.ndarray) -> Manifold:
    """Solid through closed rings (k, s, 3) of corresponding points, ends closed by a fan.

    Rings run counter-clockwise seen against the direction of travel; the other way round is mended.
    """
    rings, points = sections.shape[:2]
    vertices = np.concatenate([sections.reshape(-1, 3), sections[[0, -1]].mean(axis=1)])
    here = np.arange(rings * points).reshape(rings, points)
    after = np.roll(here, -1, axis=1)
    first, last = np.full((2, points), [[rings * points], [rings * points + 1]])
    faces = [(after[0], here[0], first)]
    for low, low_after, high, high_after in zip(here[:-1], after[:-1], here[1:], after[1:], strict=True):
        faces += [(low, low_after, high_after), (low, high_after, high)]
    faces += [(here[-1], after[-1], last)]
    return _from_triangles(vertices, np.concatenate([np.stack(corners, axis=1) for corners in faces]))


def loft_upright(
    heights: np.ndarray, half_widths: np.ndarray, half_depths: np.ndarray, exponents: np.ndarray, segments: int
) -> Manifold:
    """Solid through superelliptic sections, see `superellipse`, at the given heights."""
    outline = zip(half_widths, half_depths, exponents, strict=True)
    return loft(at_heights([superellipse(*shape, segments) for shape in outline], heights))


def at_heights(rings: Sequence[np.ndarray], heights: np.ndarray) -> np.ndarray:
    """Plane rings (k, s, 2), each lifted to its height (k,): (k, s, 3) as `loft` takes them."""
    return np.stack([np.column_stack([r, np.full(len(r), z)]) for r, z in zip(rings, heights, strict=True)])


def sweep(
    path: np.ndarray, section: np.ndarray, scale: np.ndarray | float = 1.0, up: Sequence[float] = (0, 0, 1)
) -> Manifold:
    """Sweep a section (s, 2) along path (k, 3), scaled per path point by (k,) or (k, 2).

    The section's first axis follows up x tangent and its second stays as near `up` as it can, so a
    flat section does not twist; `up` must not be parallel to the path.
    """
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    across = np.cross(np.asarray(up, dtype=np.float64), tangent)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    upward = np.cross(tangent, across)
    scale = np.asarray(scale, dtype=np.float64)
    scale = np.broadcast_to(scale if scale.ndim == 2 else scale.reshape(-1, 1), (len(path), 2))
    flat = section[None] * scale[:, None]
    return loft(path[:, None] + flat[..., :1] * across[:, None] + flat[..., 1:] * upward[:, None])


def star(radius: Callable[[np.ndarray], np.ndarray], segments: int = 72, axes: np.ndarray | float = 1.0) -> Manifold:
    """Star-shaped solid: `radius` maps unit directions (n, 3) to distances (n,) from the origin.

    Directions are taken on the ellipsoid with half axes `axes`, so that long shapes are not starved of triangles.
    """

    def pull(vertices: np.ndarray) -> np.ndarray:
        direction = np.array(vertices) * axes
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        return direction * radius(direction)[:, None]

    return Manifold.sphere(1.0, segments).warp_batch(pull)


def plate_of(section: CrossSection, thickness: float, edge: float) -> Manifold:
    """Extrude a section along z, centred on z = 0, its rims chamfered by `edge`."""
    edge = min(edge, 0.45 * thickness)
    if edge <= 0:
        return section.extrude(thickness).translate((0.0, 0.0, -thickness / 2))
    core = section.extrude(thickness - 2 * edge).translate((0.0, 0.0, edge - thickness / 2))
    # A stack of two insets per side stands in for a rounded rim: nearly flush, and no sharp corner.
    inset = section.offset(-edge / 2).extrude(thickness - 0.6 * edge).translate((0.0, 0.0, 0.3 * edge - thickness / 2))
    innermost = section.offset(-edge).extrude(thickness).translate((0.0, 0.0, -thickness / 2))
    return union([core, inset, innermost])


def along_x(solid: Manifold) -> Manifold:
    """Lay a solid built along z down, so that it runs along x."""
    return solid.rotate((0.0, 90.0, 0.0))


def union(solids: Sequence[Manifold]) -> Manifold:
    """Boolean union of any number of solids."""
    return Manifold.batch_boolean(list(solids), OpType.Add)


def bend(solid: Manifold, warp: Callable[[np.ndarray], np.ndarray], detail: float = 4.0) -> Manifold:
    """Refine a solid to edges of `detail` millimetres and move its vertices by warp((n, 3)) -> (n, 3)."""
    vertices, faces = subdivide(*_to_triangles(solid), detail)
    return _from_triangles(warp(vertices), faces)


# ---------------------------------------------------------------- meshing


def finish(solid: Manifold, faces: int = 3600) -> trimesh.Trimesh:
    """Mesh a solid given in millimetres: one watertight piece, evenly refined, centred, in metres.

    :param faces: number of triangles aimed at; the result has between 500 and 6,000.
    :raises RuntimeError: when the solid is empty or cannot be meshed within those bounds.
    """
    if solid.is_empty() or solid.volume() <= 0:
        raise RuntimeError(f"shape construction gave an empty solid ({solid.status()})")
    vertices, triangles = _refined(_simplified(solid, int(0.92 * MAX_FACES)), faces)
    result = trimesh.Trimesh(vertices * _MILLIMETRE, triangles, process=False)
    result.apply_translation(-result.center_mass)
    return result


def _simplified(solid: Manifold, faces: int) -> Manifold:
    """Drop slivers, then detail of up to half a per cent of the size until at most `faces` are left.

    Only the largest piece is kept: cuts and simplification may leave crumbs.
    """
    size = max(np.ptp(np.reshape(solid.bounding_box(), (2, 3)), axis=0))
    tolerance = 1e-4 * size
    coarse = solid.simplify(tolerance)
    while coarse.num_tri() > faces and tolerance < 0.005 * size:
        tolerance *= 1.3
        coarse = solid.simplify(tolerance)
    return max(coarse.decompose(), key=lambda piece: piece.volume())


def _refined(solid: Manifold, faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a solid, longest edges split until there are `faces` triangles or a few more."""
    vertices, triangles = _to_triangles(solid)
    length = 16 * float(np.sqrt(solid.surface_area() / faces * 4 / np.sqrt(3)))
    while len(triangles) < faces:
        finer = subdivide(vertices, triangles, length)
        if len(finer[1]) > MAX_FACES:
            break
        (vertices, triangles), length = finer, 0.85 * length
    if not MIN_FACES <= len(triangles) <= MAX_FACES:
        raise RuntimeError(f"shape has {len(triangles)} faces, not {MIN_FACES} to {MAX_FACES}")
    return vertices, triangles


def subdivide(vertices: np.ndarray, faces: np.ndarray, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Halve edges until none is longer than `length`. The surface and its closedness are kept.

    A triangle splits into two, three or four, as one, two or all of its edges are too long; in
    between, diagonals inside flat regions are flipped, so that slivers do not breed.
    """
    faces = flip_flat_edges(vertices, faces)
    while True:
        edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        unique, inverse = np.unique(edges, axis=0, return_inverse=True)
        long = np.linalg.norm(vertices[unique[:, 0]] - vertices[unique[:, 1]], axis=1) > length
        if not long.any():
            return vertices, faces
        middle = np.full(len(unique), -1)
        middle[long] = len(vertices) + np.arange(int(long.sum()))
        vertices = np.concatenate([vertices, vertices[unique[long]].mean(axis=1)])
        faces = flip_flat_edges(vertices, _split(vertices, faces, middle[inverse.reshape(-1, 3)]))


def flip_flat_edges(vertices: np.ndarray, faces: np.ndarray, passes: int = 8) -> np.ndarray:
    """Flip edges between coplanar faces until they are Delaunay; faces (F, 3) in, faces (F, 3) out.

    Each pass flips a set of edges of which no two share a face, the worst first.
    """
    for _ in range(passes):
        half = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
        opposite = faces[:, [2, 0, 1]].reshape(-1)
        key = half.min(axis=1) * len(vertices) + half.max(axis=1)
        pair = np.argsort(key, kind="stable").reshape(-1, 2)
        first, second = pair[_coplanar(vertices, faces, pair // 3)].T
        a, b = half[first].T
        c, d = opposite[first], opposite[second]
        angle = _angle(vertices, c, a, b) + _angle(vertices, d, a, b)
        diagonal = np.minimum(c, d) * len(vertices) + np.maximum(c, d)
        wanted = np.flatnonzero(angle > np.pi + 1e-6)
        wanted = wanted[np.argsort(-angle[wanted], kind="stable")]
        wanted = wanted[~np.isin(diagonal[wanted], key)]
        # An edge is taken when it is the first to claim both of its faces and its new diagonal.
        claimed = np.stack([first[wanted] // 3, second[wanted] // 3], axis=1)
        claim = np.full(len(faces), len(wanted))
        np.minimum.at(claim, claimed.reshape(-1), np.repeat(np.arange(len(wanted)), 2))
        taken = wanted[(claim[claimed] == np.arange(len(wanted))[:, None]).all(axis=1)]
        taken = taken[np.unique(diagonal[taken], return_index=True)[1]]
        if len(taken) == 0:
            break
        faces = faces.copy()
        faces[first[taken] // 3] = np.stack([c[taken], a[taken], d[taken]], axis=1)
        faces[second[taken] // 3] = np.stack([d[taken], b[taken], c[taken]], axis=1)
    return faces


def _coplanar(vertices: np.ndarray, faces: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Whether the two faces of each pair (E, 2) have the same normal; never for faces without area."""
    a, b, c = vertices[faces].swapaxes(0, 1)
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    return np.einsum("ei,ei->e", normal[pair[:, 0]], normal[pair[:, 1]]) > 1 - 1e-6


def _angle(vertices: np.ndarray, apex: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Angle at `apex` in each triangle, radians."""
    u, v = vertices[left] - vertices[apex], vertices[right] - vertices[apex]
    return np.arctan2(np.linalg.norm(np.cross(u, v), axis=1), np.einsum("ei,ei->e", u, v))


def _split(vertices: np.ndarray, faces: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Replace each face by its parts; middle (F, 3) is the vertex halving edge (k, k + 1), or -1."""
    count = (middle >= 0).sum(axis=1)
    # Turn each face so that a lone split edge, or a lone whole edge, comes first.
    odd_one = np.where((count == 1)[:, None], middle >= 0, middle < 0)
    turn = (np.argmax(odd_one, axis=1)[:, None] + np.arange(3)) % 3
    a, b, c = np.take_along_axis(faces, turn, axis=1).T
    ab, bc, ca = np.take_along_axis(middle, turn, axis=1).T
    one, two, three = count == 1, count == 2, count == 3
    parts = [faces[count == 0]]
    parts += [np.stack(t, axis=1)[one] for t in ((a, ab, c), (ab, b, c))]
    parts += [np.stack(t, axis=1)[three] for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    # Two split edges leave the quadrilateral a, b, bc, ca, cut along its shorter diagonal.
    flat = np.linalg.norm(vertices[a] - vertices[bc], axis=1) <= np.linalg.norm(vertices[b] - vertices[ca], axis=1)
    parts += [np.stack((ca, bc, c), axis=1)[two]]
    parts += [np.stack(t, axis=1)[two & flat] for t in ((a, b, bc), (a, bc, ca))]
    parts += [np.stack(t, axis=1)[two & ~flat] for t in ((a, b, ca), (b, bc, ca))]
    return np.concatenate(parts)


def _both_sides(side: Sequence[Sequence[float]] | np.ndarray) -> CrossSection:
    """The section between (radius, height) points, their mirror images, and level lines at both ends."""
    half = polygon([(0, side[0][1]), *side, (0, side[-1][1])])
    return half + half.mirror((1.0, 0.0))


def _to_triangles(solid: Manifold) -> tuple[np.ndarray, np.ndarray]:
    mesh = solid.to_mesh64()
    return np.array(mesh.vert_properties)[:, :3], np.array(mesh.tri_verts, dtype=np.int64)


def _from_triangles(vertices: np.ndarray, faces: np.ndarray) -> Manifold:
    """Manifold from a closed triangle mesh, turned outwards if it is inside out."""
    corners = vertices[faces]
    if np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) < 0:
        faces = faces[:, ::-1]
    solid = Manifold(Mesh64(np.ascontiguousarray(vertices), np.ascontiguousarray(faces, dtype=np.uint64)))
    if solid.is_empty():
        raise RuntimeError(f"lofted surface is not a solid ({solid.status()})")
    return solid
