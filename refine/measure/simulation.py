"""Does the object stay in the hand? Simulation displacement with MuJoCo and CoACD, the `[sim]` extra."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from scipy.spatial import ConvexHull

from contact.objects import ObjectMesh
from contact.objects.solid import closed_solid

from .arguments import Array, Objects, as_numpy, each_grasp, mesh_arrays

GRAVITY = (0.0, 0.0, -9.81)
Clouds: TypeAlias = "list[np.ndarray]"


def simulation_displacement(
    vertices: Array,
    faces: Array,
    obj: Objects,
    *,
    parts: Array | None = None,
    gravity: Sequence[float] = GRAVITY,
    duration: float = 0.5,
    mass: float = 0.2,
    friction: float = 1.0,
    pieces: int = 16,
) -> np.ndarray:
    """How far the object's centre of mass moves under gravity while the hand is held still.

    The simulation displacement of Hasson et al. (ObMan, CVPR 2019; idea of Tzionas et al., IJCV 2016), in
    MuJoCo instead of Bullet. Both shapes are covered by convex pieces: the object by CoACD, the hand by the
    hulls of its parts. Contacts are MuJoCo's soft ones, with elliptic friction cones. Half a second of free
    fall is 1.23 m; the deeper a hand overlaps the object, the less the value tells.

    Args:
        vertices: (B, V, 3) metres, in the object's frame.
        faces: (F, 3) closed hand faces.
        obj: the object, or one per grasp. Covering one takes seconds and is done once a call.
        parts: (V,) part of each hand vertex (``HandModel.part_of_vertex``); without it the hand is cut
            into convex pieces like the object, which takes longer.
        gravity: (3,) m/s² in the object's frame; ``duration`` in seconds, the object's ``mass`` in kilograms.
        friction: coefficient of sliding friction between skin and object.
        pieces: most convex pieces per shape.

    Returns:
        (B,) metres; NaN for hands with NaN and for objects that are not closed.

    Raises:
        ImportError: MuJoCo or CoACD is not installed.
        ValueError: vertices, faces or obj as for ``intersection_volume``, or parts not (V,).
    """
    mujoco, _ = _packages()
    label = None if parts is None else as_numpy(parts, np.int64)
    cover = cache(lambda thing: convex_pieces(*mesh_arrays(thing), pieces))

    def fall(hand: np.ndarray, triangles: np.ndarray, thing: ObjectMesh) -> float:
        if label is not None and label.shape != (len(hand),):
            raise ValueError(f"parts must be (V,) = ({len(hand)},), got {label.shape}")
        if not (theirs := cover(thing)):
            return np.nan
        if label is None:
            ours = convex_pieces(hand, triangles, pieces)
        else:  # a part reaches one ring of faces into its neighbours, so that no gap opens
            touching = [triangles[(label[triangles] == part).any(axis=1)] for part in np.unique(label)]
            ours = [hand[np.unique(own)] for own in touching]
        return _fall(mujoco, _scene(mujoco, ours, theirs, gravity, mass, friction), duration)

    return each_grasp(fall, vertices, faces, obj)


def convex_pieces(vertices: np.ndarray, faces: np.ndarray, most: int, concavity: float = 0.05) -> Clouds:
    """Corners (k, 3) of ``most`` or fewer convex pieces that cover a closed mesh (V, 3), (F, 3); none if it is not.

    By CoACD (Wei et al., SIGGRAPH 2022). A piece whose ``concavity``, relative to the size of the mesh, is less is
    not cut further. Raises ``ImportError`` when CoACD is not installed.
    """
    _, coacd = _packages()
    if closed_solid(vertices, faces) is None:
        return []
    coacd.set_log_level("error")
    # A closed mesh needs no repair beforehand; a shorter search than the default's costs hardly any closeness.
    found = coacd.run_coacd(
        coacd.Mesh(vertices, faces), threshold=concavity, max_convex_hull=most, preprocess_mode="off",
        resolution=1000, mcts_nodes=10, mcts_iterations=30, seed=0,
    )  # fmt: skip
    return [np.asarray(corners) for corners, _ in found]


def _packages() -> tuple[Any, Any]:
    try:
        import coacd
        import mujoco
    except ImportError as error:
        raise ImportError(
            f"simulation_displacement needs the package {error.name}, which is not installed: "
            "pip install 'regrasp[sim]'"
        ) from error
    return mujoco, coacd


def _scene(mujoco: Any, hand: Clouds, thing: Clouds, gravity: Sequence[float], mass: float, friction: float) -> Any:
    """MuJoCo model: the hand's pieces fixed to the world, the object's in one free body."""
    spec = mujoco.MjSpec()
    spec.option.gravity = list(gravity)
    spec.option.timestep = 0.002
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    body = spec.worldbody.add_body(name="object")
    body.add_freejoint()
    density = mass / sum(ConvexHull(points).volume for points in thing)
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
