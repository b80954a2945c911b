"""The package `refine` under the name of its distribution: ``from regrasp import refine_grasp``.

Names are looked up on first use, as in `refine`: importing this package costs nothing until it works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from refine import __all__ as __all__
from refine import __dir__ as __dir__
from refine import __getattr__ as __getattr__

if TYPE_CHECKING:
    from refine import *  # noqa: F403
