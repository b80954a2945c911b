"""In which unit a mesh that metres cannot explain was probably made, told from the size of a hand."""

from __future__ import annotations

import math

LARGEST = 2.0
"""Metres: a bounding-box diagonal beyond this is taken for another unit."""
SMALLEST = 0.005
"""Metres: the same at the other end."""
HAND = 0.19
"""Metres from the wrist to the tip of the middle finger of an adult; what is held is of that order."""
HELD = (0.02, 1.0)
"""Metres: diagonals that a second guess is worth naming for."""
UNITS = {"millimetres": 0.001, "centimetres": 0.01, "inches": 0.0254, "decimetres": 0.1}
"""Metres in one."""
RARE = "decimetres"
"""Named after all others."""


class ObjectSizeError(ValueError):
    """An object too large or small for its unit to be metres."""

    def __init__(self, message: str, scale: float) -> None:
        super().__init__(message)
        self.scale = scale
        """factor from the source's unit to metres that is advised"""

    def __reduce__(self) -> tuple[type[ObjectSizeError], tuple[str, float]]:
        return type(self), (str(self), self.scale)  # so that worker processes can hand it on


def check_size(diagonal: float, scale: float | None = None) -> None:
    """Refuse a bounding box that metres cannot explain, and advise on its unit.

    Args:
        diagonal: of the bounding box after ``scale``, metres if that is right.
        scale: the factor that was applied; None: 1.

    Raises:
        ObjectSizeError: naming the unit that brings the object nearest to a hand's size, and its factor.
    """
    if SMALLEST <= diagonal <= LARGEST:
        return
    raw = diagonal / (scale or 1.0)
    guesses = probable_units(raw, given=scale is not None)
    size = (
        f"{diagonal:.4g} m across, too large" if diagonal > LARGEST else f"{diagonal * 1000:.3g} mm across, too small"
    )
    said = "" if scale is None else f" with scale={scale:.6g}"
    start = f"object_mesh: its bounding box is {size} to grasp{said}"
    if not guesses:
        factor = float(f"{HAND / raw:.1g}")
        raise ObjectSizeError(
            f"{start}, and no common unit mends that: pass scale= the factor from its unit to metres"
            f" (scale={factor:g} makes it {_metres(raw * factor)} across, the size of a hand)",
            factor,
        )
    (unit, factor), *others = guesses
    also = "".join(f", or scale={f:g} if {u} ({_metres(raw * f)})" for u, f in others if HELD[0] <= raw * f <= HELD[1])
    raise ObjectSizeError(
        f"{start}; probably {unit}: pass scale={factor:g}, which makes it {_metres(raw * factor)}{also}", factor
    )


def probable_units(raw: float, given: bool = False) -> list[tuple[str, float]]:
    """Units in which a diagonal of ``raw`` is an object to be grasped, and their factors to metres, likeliest first.

    Where nothing was ``given``, a diagonal that is too small even in metres was divided once too often.
    """
    units = UNITS | ({"metres": 1.0} if given else {})
    if not given and raw < SMALLEST:
        units = {
            f"{name} turned into metres twice": round(1 / factor, 2) for name, factor in UNITS.items() if name != RARE
        }
    fitting = [(name, factor) for name, factor in units.items() if SMALLEST <= raw * factor <= LARGEST]
    return sorted(fitting, key=lambda unit: (unit[0] == RARE, abs(math.log(raw * unit[1] / HAND))))


def _metres(size: float) -> str:
    return f"{size:.2g} m"
