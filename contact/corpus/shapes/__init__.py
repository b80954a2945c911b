"""Procedural everyday objects: the meshes that the shipped network learns to see grasps on.

Twenty-odd families of household things, each a short function of a random generator that draws
real dimensions (stated in its docstring, in millimetres) and builds a solid. Nothing is scanned
or measured off a data set, so corpora made of them carry no licence but this project's.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
import trimesh
from manifold3d import Manifold

from contact.corpus.shapes import large, plain, tools, vessels
from contact.corpus.shapes.solids import finish, rounded_box

_FAMILIES: tuple[Callable[[np.random.Generator], Manifold], ...] = (
    plain.can, plain.box, plain.block, plain.ball, plain.fruit, plain.banana, plain.ring, plain.superquadric,
    plain.gadget, vessels.bottle, vessels.squeeze_bottle, vessels.mug, vessels.cup, vessels.bowl, vessels.pitcher,
    vessels.jug, vessels.goblet, vessels.turned, tools.screwdriver, tools.hammer, tools.spatula, tools.pistol_grip,
    tools.scissors, tools.pen, tools.blade, tools.plate, tools.cutlery,
)  # fmt: skip
_LARGE = (large.crate, large.panel, large.cover)
_BUILDERS = MappingProxyType({build.__name__: build for build in (*_FAMILIES, *_LARGE)})

FAMILIES: tuple[str, ...] = tuple(build.__name__ for build in _FAMILIES)
"""Names of the families of things that a hand goes round, in a fixed order."""
LARGE_FAMILIES: tuple[str, ...] = tuple(build.__name__ for build in _LARGE)
"""Of those that are larger than a hand."""


def sample_shape(family: str, rng: np.random.Generator) -> trimesh.Trimesh:
    """Draw one object of a family.

    :param family: one of `FAMILIES` or `LARGE_FAMILIES`.
    :param rng: NumPy generator; equal states give equal meshes.
    :returns: one watertight body of 500 to 6,000 faces, in metres, its centre of mass at the origin,
        z up as the object stands or lies on a table.
    :raises ValueError: for an unknown family.
    """
    if family not in _BUILDERS:
        raise ValueError(f"family: unknown {family!r}; choose one of {', '.join(_BUILDERS)}")
    return finish(_BUILDERS[family](rng))


def demo_shapes() -> dict[str, trimesh.Trimesh]:
    """Six fixed everyday objects for demonstrations: name -> mesh, as `sample_shape` returns them."""
    solids = {
        "mug": vessels.handled_mug(82, 96, 4.0, 0.94, 0.02, reach=34, width=13, thickness=8, square=0.55),
        "bottle": vessels.round_bottle(66, 205, 27, 0.58, 0.82, waist=0.08),
        "box": rounded_box((62, 92, 150), 1.5, segments=8),
        "apple": plain.apple(38, 0.92, 0.28),
        "screwdriver": tools.shafted_driver(96, 31, 105, 6.5, flat=True),
        "bowl": vessels.footed_bowl(148, 62, 3.8, 0.48, 2.2),
    }
    return {name: finish(solid, faces=3200) for name, solid in solids.items()}


__all__ = ["FAMILIES", "LARGE_FAMILIES", "demo_shapes", "sample_shape"]
