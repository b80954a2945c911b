"""Pages from their templates: text with marks like ``@@TITLE@@``, and data that a script in it reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

_STATUS_COLOURS = (
    ".refined{background:#d6f0df;color:#14532d}.filled{background:#fef3c7;color:#78350f}"
    ".kept,.apart{background:#e0e7ff;color:#312e81}.failed{background:#fde2e1;color:#7f1d1d}"
)
"""One style for each `Status`, in every page that names them."""


def filled(name: str, parts: Mapping[str, str]) -> str:
    """The template ``name`` beside this file with what stands for its marks; ``STATUS_COLOURS`` is known."""
    parts = {"STATUS_COLOURS": _STATUS_COLOURS, **parts}
    head, *pieces = resource(name).split("@@")  # once, so that nothing inserted is searched for marks
    return head + "".join(parts[p] if i % 2 == 0 else p for i, p in enumerate(pieces))


def resource(name: str) -> str:
    """Text of the file ``name`` beside this one."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def script_data(data: Any, *, allow_nan: bool = True) -> str:
    """JSON that may stand in a script element: nothing in it can end that."""
    return json.dumps(data, separators=(",", ":"), allow_nan=allow_nan).replace("<", "\\u003c")
