"""`regrasp convert`: prediction files from one format to another."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from hand_models import load_hand_model

from ..evidence.graph_rows import with_starts
from ..files.formats import Format, get_format, read_with, sniff, write_with
from ..files.formats.format import options_of
from ..files.formats.graph import named_meshes
from ..files.formats.known import KNOWN
from ..files.object_files import find_objects
from ..files.predictions import Predictions, point_forms, row_problems
from .format_options import format_options, given

_OF_FORMATS = tyro.conf.arg(constructor_factory=lambda: format_options(ConvertOptions, writing=True))


@dataclass(frozen=True)
class ConvertOptions:
    """Options of `regrasp convert`. Those that neither format takes are refused."""

    input: Annotated[Path, tyro.conf.Positional]
    """File, or folder where the format is one."""
    output: Annotated[Path, tyro.conf.Positional]
    """File to write; for grasp its suffix says which form: .npz, .json or .parquet."""
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Format of the input: hamer, ho3d, dexycb, … (docs/formats.md); found by looking when left out."""
    target: Annotated[str, tyro.conf.arg(name="to")] = "grasp"
    """Format of the output."""
    objects: Path | None = None
    """Folder of meshes, or side-car, to place hand and object by where the input holds 29 points (graph)."""
    format: Annotated[Any, _OF_FORMATS] = None


def convert(options: ConvertOptions) -> int:
    """Run the command; returns 0, or 1 when some of the rows written cannot be used as they are.

    Raises:
        ValueError, FileNotFoundError: the input or an option is wrong; nothing was written.
    """
    source = get_format(options.source if options.source is not None else sniff(options.input))
    target = get_format(options.target)
    options_given = given(options.format)
    reads, writes = (
        {name: value for name, value in options_given.items() if name in names}
        for names in ({*options_of(source.read), *KNOWN}, options_of(target.write))
    )
    if useless := options_given.keys() - reads.keys() - writes.keys():
        flag = "--" + min(useless).replace("_", "-")
        raise ValueError(f"{flag}: neither {source.name} takes it when read nor {target.name} when written.")
    if options.output.resolve() == options.input.resolve():
        raise ValueError(f"{options.output}: is the input; write somewhere else.")
    predictions = _placed(read_with(source, options.input, **reads), options, source, target)
    written = write_with(target, options.output, predictions, **writes)
    problems = row_problems(predictions)
    print(f"{len(predictions)} rows: {source.name} → {target.name}: {written}")
    if problems and target.name == "grasp":
        first = next(iter(problems.values()))
        print(f"{len(problems)} of them cannot be refined as they are. {first}{_hint(source, first)}", file=sys.stderr)
        return 1
    return 0


def _placed(predictions: Predictions, options: ConvertOptions, source: Format, target: Format) -> Predictions:
    """Rows of points with poses of hand and object, where meshes are given or the target needs poses."""
    if (point_forms(predictions) == "").all():
        if options.objects is not None:
            raise ValueError(f"--objects: no row of {options.input} has points to be placed; leave it out.")
        return predictions
    meshes = options.objects or (named_meshes(options.input) if source.name == "graph" else None)
    if meshes is None and target.name == "grasp":
        return predictions
    if meshes is None:
        raise ValueError(
            f"--objects: {target.name} holds poses, and to find those of points takes the objects' meshes; "
            "give their folder."
        )
    return with_starts(predictions, find_objects(meshes), load_hand_model("open"))


def _hint(source: Format, problem: str) -> str:
    """What to add where the format knows nothing of the object."""
    for name in ("object_id", "object_pose"):
        if f"'{name}'" in problem and name in {*options_of(source.read), *KNOWN}:
            return f" Give --{name.replace('_', '-')}."
    return ""
