"""Does the object stay in the hand? Simulation displacement with MuJoCo, an optional package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from manifold3d import Manifold
from torch import Tensor

from contact.objects import ObjectMesh

from .volumes import closed_solid, iterate_grasps, mesh_arrays

GRAVITY = (0.0, 0.0, -9.81)
_SCALE = 1000.0  # booleans are done in millimetres, well above manifold3d's absolute tolerances


def simulation_displacement(
    vertices: np.ndarray | Tensor,
    faces: np.ndarray | Tensor,
    obj: ObjectMesh | Sequence[ObjectMesh],
    *,
    parts: np.ndarray | Tensor | None = None,
    gravity: Sequence[float] = GRAVITY,
    duration: float = 0.5,
    mass: float = 0.2,
    friction: float = 1.0,
    pieces: int = 16,
) -> np.ndarray:
    """How far the object's centre of mass moves under gravity while the hand is held still.

    The simulation displacement of Hasson et al. (ObMan, CVPR 2019; idea of Tzionas et al., IJCV 2016), in
    MuJoCo instead of Bullet. Both shapes are covered by convex pieces: the object by recursive cuts, the
    hand by the hulls of its parts. Contacts are MuJoCo's soft ones, with elliptic friction cones. Half a
    second of free fall is 1.23 m; the deeper a hand overlaps the object, the less the value tells.

    Args:
        vertices: (B, V, 3) metres, in the object's frame.
        faces: (F, 3) closed hand faces.
        obj: the object, or one per grasp.
        parts: (V,) part of each hand vertex (``HandModel.part_of_vertex``); without it the hand is cut
            into convex pieces like the object, which takes longer.
        gravity: (3,) m/s² in the object's frame.
        duration: seconds simulated.
        mass: of the object, kilograms.
        friction: coefficient of sliding friction between skin and object.
        pieces: most convex pieces per shape.

    Returns:
        (B,) metres; NaN for hands with NaN and for objects that are not closed.

    Raises:
        ImportError: MuJoCo is not installed (``pip install mujoco``).
        ValueError: vertices, faces or obj as for ``intersection_volume``, or parts not (V,).
    """
    try:
        import mujoco
    except ImportError as error:
        raise ImportError("simulation_displacement needs MuJoCo: pip install mujoco") from error

    label = None if parts is None else np.asarray(parts.cpu() if isinstance(parts, Tensor) else parts)
    covers: dict[int, list[np.ndarray]] = {}
    result = []
    for hand, triangles, thing in iterate_grasps(vertices, faces, obj):
        if label is not None and label.shape != (len(hand),):
            raise ValueError(f"parts must be (V,) = ({len(hand)},), got {label.shape}")
        if id(thing) not in covers:
            covers[id(thing)] = convex_pieces(*mesh_arrays(thing), pieces)
        theirs = covers[id(thing)]
        if not np.isfinite(hand).all() or not theirs:
            result.append(np.nan)
            continue
        ours = convex_pieces(hand, triangles, pieces) if label is None else _hulls(hand, triangles, label)
        model = _scene(mujoco, ours, theirs, gravity, mass, friction)
        result.append(_fall(mujoco, model, duration))
    return np.array(result, dtype=np.float64)


def convex_pieces(
    vertices: np.ndarray, faces: np.ndarray, most: int, tolerance: float = 0.02
) -> list[np.ndarray]:
    """Cover a closed mesh by convex pieces: cut the least convex one until all fit or there are ``most``.

    Args:
        vertices: (V, 3) metres.
        faces: (F, 3).
        most: largest number of pieces.
        tolerance: volume that a piece's hull may add, relative to the volume of the whole.

    Returns:
        corner points (k, 3) metres of each piece; none if the mesh is not closed.
    """
    solid = closed_solid(vertices * _SCALE, faces)
    if solid is None:
        return []
    total = solid.volume()
    done: list[Manifold] = []
    todo = [(_excess(part), part) for part in solid.decompose() if part.volume() > 0]
    while todo and len(done) + len(todo) < most:
        todo.sort(key=lambda item: item[0])
        excess, part = todo.pop()
        halves = _best_cut(part) if excess > tolerance * total else []
        if len(halves) < 2:
            done.append(part)
        else:
            todo += [(_excess(half), half) for half in halves]
    hulls = [part.hull() for part in [*done, *(part for _, part in todo)]]
    return [_corners(hull) for hull in hulls if hull.volume() > 1e-6 * total]


def _excess(part: Manifold) -> float:
    return part.hull().volume() - part.volume()


def _best_cut(part: Manifold) -> list[Manifold]:
    """The two sides of the axis-parallel cut (of nine) that leaves the smallest hulls."""
    low, high = np.reshape(part.bounding_box(), (2, 3))
    best: list[Manifold] = []
    least = np.inf
    for axis in range(3):
        for share in (0.25, 0.5, 0.75):
            place = low[axis] + share * (high[axis] - low[axis])
            sides = part.split_by_plane(tuple(np.eye(3)[axis]), float(place))
            halves = [p for side in sides for p in side.decompose() if p.volume() > 0]
            size = sum(half.hull().volume() for half in halves)
            if len(halves) > 1 and size < least:
                best, least = halves, size
    return best


def _corners(solid: Manifold) -> np.ndarray:
    return np.array(solid.to_mesh64().vert_properties)[:, :3] / _SCALE


def _hulls(vertices: np.ndarray, faces: np.ndarray, label: np.ndarray) -> list[np.ndarray]:
    """Hull corners of each part, which reaches one ring of faces into its neighbours so that no gap opens."""
    clouds = []
    for part in np.unique(label):
        own = faces[(label[faces] == part).any(axis=1)]
        hull = Manifold.hull_points(vertices[np.unique(own)] * _SCALE)
        if hull.volume() > 0:
            clouds.append(_corners(hull))
    return clouds


def _scene(
    mujoco: Any,
    hand: list[np.ndarray],
    thing: list[np.ndarray],
    gravity: Sequence[float],
    mass: float,
    friction: float,
) -> Any:
    """MuJoCo model: the hand's pieces fixed to the world, the object's in one free body."""
    spec = mujoco.MjSpec()
    spec.option.gravity = list(gravity)
    spec.option.timestep = 0.002
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    body = spec.worldbody.add_body(name="object")
    body.add_freejoint()
    density = mass / sum(Manifold.hull_points(points).volume() for points in thing)
    # Pieces collide with the other body's only; the hand's weight is of no account, it does not move.
    for owner, clouds, bits in ((spec.worldbody, hand, (1, 2)), (body, thing, (2, 1))):
        for points in clouds:
            name = f"mesh{len(spec.meshes)}"
            spec.add_mesh(name=name, uservert=points.astype(np.float32).reshape(-1))
            owner.add_geom(
                type=mujoco.mjtGeom.mjGEOM_MESH,
                meshname=name,
                contype=bits[0],
                conaffinity=bits[1],
                density=density,
                friction=[friction, 0.005, 0.0001],
                condim=4,
            )
    return spec.compile()


def _fall(mujoco: Any, model: Any, duration: float) -> float:
    """Distance in metres by which the free body's centre of mass moves within the duration."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    start = data.xipos[1].copy()
    for _ in range(round(duration / model.opt.timestep)):
        mujoco.mj_step(model, data)
    mujoco.mj_forward(model, data)
    return float(np.linalg.norm(data.xipos[1] - start))
