"""What a file format is: a reader, perhaps a writer, and how its files are recognised."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..predictions import Predictions

Side = Literal["right", "left"]
Numbers = str | Path | Any
"""Numbers, or the path of a file of them (`files.given_numbers`): from the command line always a path."""


@dataclass(frozen=True)
class Format:
    """One file format. What each part owes: the docstring of `refine.files.formats`."""

    name: str
    """What ``--from`` and ``--to`` call it; a built-in one's is its module's."""
    read: Callable[..., Predictions]
    """``(path, **options) -> Predictions``"""
    write: Callable[..., Path] | None
    """``(path, predictions, **options) -> path``; None where nobody reads the format back."""
    sniff: Callable[[Path], bool]
    """Whether a file or folder looks like this format; cheap, never raises."""
    description: str
    """One line for people."""


def options_of(function: Callable[..., Any] | None) -> dict[str, Any]:
    """Names and types, without None, of the options of a reader or writer: its keyword-only parameters."""
    if function is None:
        return {}
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return {name: _without_none(hints.get(name, Any)) for name in names}


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    return typing.Union[tuple(k for k in typing.get_args(kind) if k is not type(None))]  # noqa: UP007


def accepted(form: Format, function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are given, those that are not None.

    Raises:
        ValueError: ``function`` takes no option of that name, or not that value where it takes some words only.
    """
    given = {name: value for name, value in options.items() if value is not None}
    known = options_of(function)
    for name, value in given.items():
        if name not in known:
            what = f"its options are {', '.join(known)}" if known else "it has no options"
            raise ValueError(f"option {name!r} does not apply to format {form.name!r}; {what}.")
        words = typing.get_args(known[name]) if typing.get_origin(known[name]) is Literal else ()
        if words and value not in words:
            raise ValueError(f"{name}: got {value!r}; use {' or '.join(map(repr, words))}.")
    return given
