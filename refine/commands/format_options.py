"""What formats can be told, as options of a command: taken from the signatures of their readers and writers, and of
what is said of rows whatever their format (`files.formats.known`)."""

from __future__ import annotations

import inspect
import typing
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import docstring_parser
import tyro

from ..files.formats import all_formats
from ..files.formats.format import options_of
from ..files.formats.known import with_known


def format_options(*own: type, writing: bool = False) -> type:
    """A dataclass with each option that some format takes, or all do; None where it is not given.

    Args:
        own: the command's options, whose names are left out.
        writing: options of writers too.
    """
    without = {option.name for kind in own for option in fields(kind)}
    found: dict[str, tuple[Any, str, list[str]]] = {}
    for form in all_formats().values():
        for function in (form.read, form.write if writing else None):
            for name, kind in options_of(function).items():
                _, _, takers = found.setdefault(name, (kind, _meaning(function, name), []))
                if form.name not in takers:
                    takers.append(form.name)
    for name, kind in options_of(with_known).items():
        found[name] = (found.get(name, (kind,))[0], _meaning(with_known, name), ["all formats"])
    options = []
    for name, (kind, meaning, takers) in found.items():
        if name not in without:
            shown = tyro.conf.arg(help=f"{meaning} ({', '.join(takers)})")
            options.append((name, Annotated[_on_command_line(kind) | None, shown], None))
    return make_dataclass("FormatOptions", options, frozen=True)


def given(options: Any) -> dict[str, Any]:
    """Those of ``options``, a `format_options` or None, that were given."""
    return {} if options is None else {name: v for name, v in vars(options).items() if v is not None}


def _on_command_line(kind: Any) -> Any:
    """Arrays, and what may as well be a path, come as files."""
    return Path if kind is Any or Path in typing.get_args(kind) else kind


def _meaning(function: Any, name: str) -> str:
    """What the docstring of ``function`` says of its parameter ``name``."""
    documented = docstring_parser.parse(inspect.getdoc(function) or "", docstring_parser.DocstringStyle.GOOGLE)
    text = next((p.description or "" for p in documented.params if p.arg_name == name), "")
    text = " ".join(text.replace("`", "").split()).removesuffix(".")
    return text[:1].upper() + text[1:]
