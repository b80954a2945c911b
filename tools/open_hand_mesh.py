"""Mesh work of the open hand's build: capping, decimation, weight diffusion, sampling (build-time only)."""

from __future__ import annotations

import heapq

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix


def neighbours(faces: np.ndarray, n: int) -> csr_matrix:
    """Symmetric 0/1 vertex adjacency (n,n) of triangles (F,3)."""
    i = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    a = coo_matrix((np.ones(len(i)), (i[:, 0], i[:, 1])), shape=(n, n)).tocsr()
    a = a + a.T
    a.data[:] = 1.0
    return a


def diffuse(weights: np.ndarray, faces: np.ndarray, steps: int, where: np.ndarray, rate: float = 0.5) -> np.ndarray:
    """Smooth skin weights (V,16) over the mesh: ``steps`` explicit steps, scaled per vertex by ``where`` (V,)."""
    a = neighbours(faces, len(weights))
    degree = np.asarray(a.sum(1)).ravel()
    step = (rate * where)[:, None]
    for _ in range(steps):
        weights = (1 - step) * weights + step * (a @ weights) / degree[:, None]
    return weights / weights.sum(1, keepdims=True)


def claim_thumb_ball(weights: np.ndarray, vertices: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Move wrist weight to the thumb's first bone (column 13) where the skin is nearer to it than to the palm's bones.

    weights (V,16), vertices (V,3), joints (16,3) metres.  The share rises along the bone and with nearness.
    """
    own, along = _segment_distance(vertices, joints[13], joints[14])
    palm = np.min([_segment_distance(vertices, joints[0], joints[k])[0] for k in (1, 4, 7, 10)], axis=0)
    share = _smoothstep(-0.1, 0.6, along) * _smoothstep(0.35, 0.65, palm / (own + palm))
    out = weights.copy()
    out[:, 13] += share * weights[:, 0]
    out[:, 0] -= share * weights[:, 0]
    return out


def _segment_distance(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (V,) to the segment ab and the unclamped position (V,) along it, 0 at a and 1 at b."""
    along = (points - a) @ (b - a) / ((b - a) @ (b - a))
    nearest = a + np.clip(along, 0, 1)[:, None] * (b - a)
    return np.linalg.norm(points - nearest, axis=1), along


def _smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def boundary_loop(faces: np.ndarray) -> np.ndarray:
    """Vertex ids of the one open loop, in the direction in which the adjoining triangles run along it.

    Raises ValueError if the mesh does not have exactly one simple loop.
    """
    directed = {(int(a), int(b)) for f in faces for a, b in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0]))}
    following = {a: b for a, b in directed if (b, a) not in directed}
    start = min(following)
    loop = [start]
    while (nxt := following[loop[-1]]) != start:
        loop.append(nxt)
    if len(loop) != len(following):
        raise ValueError(f"faces: expected one open loop, found {len(following)} open edges in several")
    return np.array(loop)


def cap(faces: np.ndarray) -> np.ndarray:
    """Close the one open loop with a zigzag of triangles and no new vertex; returns only the new triangles."""
    loop = list(boundary_loop(faces)[::-1])  # the cap runs along each edge the other way round
    out, i, k = [], 0, len(loop) - 1
    while k - i >= 2:
        out.append((loop[i], loop[i + 1], loop[k]))
        i += 1
        if k - i >= 2:
            out.append((loop[i], loop[k - 1], loop[k]))
            k -= 1
    return np.array(out)


def vertex_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """A third of the area of the triangles around each vertex (V,), square metres."""
    cross = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    return np.bincount(faces.ravel(), np.repeat(np.linalg.norm(cross, axis=1) / 6, 3), minlength=len(vertices))


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals (V,3)."""
    cross = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    n = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(n, faces[:, k], cross)
    return n / np.linalg.norm(n, axis=1, keepdims=True)


def refine(
    vertices: np.ndarray, faces: np.ndarray, spacing: np.ndarray, fixed: np.ndarray
) -> tuple[csr_matrix, np.ndarray, np.ndarray]:
    """Bisect edges longer than the wanted ``spacing`` (V,) of their ends, longest first.

    Edges that touch a ``fixed`` vertex stay whole.  Returns the interpolation matrix (V',V) that carries per-vertex
    quantities over, the new positions (V',3), rounded as PN triangles are (Vlachos et al. 2001), and the new faces.
    """
    points, want, keep = list(vertices), list(spacing), list(fixed)
    normals = list(vertex_normals(vertices, faces))
    rows: list[dict[int, float]] = [{i: 1.0} for i in range(len(vertices))]
    triangles = [tuple(map(int, f)) for f in faces]
    while True:
        of_edge: dict[tuple[int, int], list[int]] = {}
        for i, f in enumerate(triangles):
            for a, b in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0])):
                of_edge.setdefault((min(a, b), max(a, b)), []).append(i)
        excess = {
            (a, b): np.linalg.norm(points[a] - points[b]) / min(want[a], want[b])
            for a, b in of_edge
            if not (keep[a] or keep[b])
        }
        long = sorted((e for e, x in excess.items() if x > 1), key=lambda e: (-excess[e], e))
        if not long:
            break
        used: set[int] = set()
        for a, b in long:
            if used.intersection(of_edge[a, b]):
                continue
            used.update(of_edge[a, b])
            edge, na, nb = points[b] - points[a], normals[a], normals[b]
            points.append((points[a] + points[b]) / 2 - ((edge @ na) * na - (edge @ nb) * nb) / 8)
            normals.append((na + nb) / np.linalg.norm(na + nb))
            want.append((want[a] + want[b]) / 2)
            keep.append(False)
            rows.append({k: (rows[a].get(k, 0) + rows[b].get(k, 0)) / 2 for k in rows[a].keys() | rows[b].keys()})
            middle = len(points) - 1
            for i in of_edge[a, b]:
                f = triangles[i]
                triangles[i] = tuple(middle if x == a else x for x in f)
                triangles.append(tuple(middle if x == b else x for x in f))
    entries = [(i, k, x) for i, row in enumerate(rows) for k, x in sorted(row.items())]
    i, k, x = zip(*entries, strict=True)
    matrix = coo_matrix((x, (i, k)), shape=(len(rows), len(vertices))).tocsr()
    return matrix, np.array(points), np.array(triangles)


def decimate(poses: np.ndarray, faces: np.ndarray, n_keep: int, fixed: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Half-edge collapse by quadric error (Garland & Heckbert 1997), summed over several poses of one mesh.

    Vertices are only removed, never moved, so every per-vertex quantity carries over by indexing.

    poses (K,V,3) metres; faces (F,3) closed mesh; fixed (V,) bool vertices that stay; extra (V,) square metres: added
    to the cost of removing a vertex (to keep detail where it is wanted).  Returns the faces (F',3) in the old ids.
    """
    n = poses.shape[1]
    quadrics = np.zeros((len(poses), n, 4, 4))
    for q, v in zip(quadrics, poses, strict=True):
        normal = np.cross(v[faces[:, 1]] - v[faces[:, 0]], v[faces[:, 2]] - v[faces[:, 0]])
        area = np.linalg.norm(normal, axis=1, keepdims=True)
        plane = np.concatenate([normal / area, -np.sum(normal / area * v[faces[:, 0]], axis=1, keepdims=True)], 1)
        per_face = area[:, :, None] * plane[:, :, None] * plane[:, None, :]
        for k in range(3):
            np.add.at(q, faces[:, k], per_face)
    homogeneous = np.concatenate([poses, np.ones((*poses.shape[:2], 1))], axis=2)
    triangles: dict[int, tuple[int, int, int]] = {i: tuple(map(int, f)) for i, f in enumerate(faces)}
    of_vertex: list[set[int]] = [set() for _ in range(n)]
    for i, f in triangles.items():
        for a in f:
            of_vertex[a].add(i)

    def ring(a: int) -> set[int]:
        return {b for i in of_vertex[a] for b in triangles[i]} - {a}

    def cost(a: int, b: int) -> float:  # of moving a onto b
        h = homogeneous[:, b]
        error = np.einsum("ki,kij,kj->", h, quadrics[:, a] + quadrics[:, b], h)
        length = ((poses[:, a] - poses[:, b]) ** 2).sum() / len(poses)
        return float(error + extra[a] * length)

    def allowed(a: int, b: int) -> bool:
        common = ring(a) & ring(b)
        if len(common) != 2 or fixed[a]:
            return False
        for i in of_vertex[a]:
            f = triangles[i]
            if b in f:
                continue
            moved = tuple(b if x == a else x for x in f)
            for v in poses:
                old, new = _normal(v, f), _normal(v, moved)
                size = np.linalg.norm(new)
                longest = max(np.linalg.norm(v[moved[k]] - v[moved[k - 1]]) for k in range(3))
                if old @ new < 0.3 * np.linalg.norm(old) * size or size < 0.15 * longest**2:
                    return False
        return True

    version = np.zeros(n, int)
    heap: list[tuple[float, int, int, int, int]] = []

    def push(a: int, b: int) -> None:
        if not fixed[a]:
            heapq.heappush(heap, (cost(a, b), a, b, int(version[a]), int(version[b])))

    for a in range(n):
        for b in ring(a):
            push(a, b)
    alive = n
    while alive > n_keep and heap:
        _, a, b, va, vb = heapq.heappop(heap)
        if va != version[a] or vb != version[b] or not of_vertex[a] or not of_vertex[b] or not allowed(a, b):
            continue
        for i in list(of_vertex[a]):
            f = triangles[i]
            if b in f:
                for x in f:
                    of_vertex[x].discard(i)
                del triangles[i]
            else:
                triangles[i] = tuple(b if x == a else x for x in f)
                of_vertex[b].add(i)
        of_vertex[a].clear()
        quadrics[:, b] += quadrics[:, a]
        alive -= 1
        for c in ring(b) | {b}:
            version[c] += 1
        touched = ring(b) | {b}
        for c in touched:
            for d in ring(c):
                push(c, d)
                if d not in touched:
                    push(d, c)
    return np.array(list(triangles.values()))


def _normal(v: np.ndarray, f: tuple[int, int, int]) -> np.ndarray:
    p, q, r = v[f[0]], v[f[1]], v[f[2]]
    e, g = q - p, r - p
    return np.array([e[1] * g[2] - e[2] * g[1], e[2] * g[0] - e[0] * g[2], e[0] * g[1] - e[1] * g[0]])


def spread(points: np.ndarray, density: np.ndarray, n: int, allowed: np.ndarray) -> np.ndarray:
    """Farthest-point choice of ``n`` of the points (V,3) with spacing ~ density^-1/2; returns sorted ids."""
    scale = np.sqrt(density)
    start = int(np.flatnonzero(allowed)[np.argmax(density[allowed])])
    chosen, distance = [start], np.full(len(points), np.inf)
    distance[~allowed] = -1.0
    for _ in range(n - 1):
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1) * scale)
        distance[chosen[-1]] = -1.0
        chosen.append(int(distance.argmax()))
    return np.sort(np.array(chosen))
