"""`regrasp convert`: prediction files from one format to another."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from ..files.formats import Format


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
    object_id: str | None = None
    """Name of the object, where the input does not say."""
    object_pose: Path | None = None
    """Object to camera: a file (.npy, .json, text) with one 4×4 matrix, or one for each row."""
    side: Literal["right", "left"] | None = None
    """Side of the hands, where the input does not say."""
    betas: Path | None = None
    """File of ten shape coefficients, where the input does not say."""
    mano_dir: Path | None = None
    """Folder with MANO_RIGHT.pkl; needed for principal components, mean poses, and to write vertices."""
    focal: float | None = None
    """True focal length in pixels (hamer, mediapipe)."""
    image_size: tuple[int, int] | None = None
    """Width and height in pixels (mediapipe)."""
    frames: Path | None = None
    """HO-3D's evaluation.txt: names of the frames of a pred.json."""
    order: str | None = None
    """Order of the 21 joints (keypoints)."""
    unit: Literal["m", "cm", "mm"] | None = None
    """Unit of the coordinates (keypoints)."""
    axes: Literal["opencv", "opengl"] | None = None
    """Camera axes (keypoints)."""
    kind: Literal["hpe", "bop"] | None = None
    """Which result file of DexYCB to write."""
    objects: Path | None = None
    """Folder of meshes, or side-car (graph)."""
    template: Path | None = None
    """The subject's hand as a .ply (grab)."""
    flat_hand_mean: bool | None = None
    """Whether angles are absolute, MANO's mean pose already added (pose48)."""
    pivot: Literal["wrist", "root"] | None = None
    """What translations say: where the wrist is, or how far the hand moves (pose48)."""
    view: int | None = None
    """Camera to use instead of the world (arctic)."""
    right_hand_space: bool | None = None
    """Whether left hands are given as right hands of the flipped image (hamer, with axis-angle vectors)."""
    mirrored: bool | None = None
    """Whether handedness assumes a mirrored image (mediapipe)."""


_NOT_OPTIONS = ("input", "output", "source", "target")


def convert(options: ConvertOptions) -> int:
    """Run the command; returns 0, or 1 when some of the rows written cannot be used as they are.

    Raises:
        ValueError, FileNotFoundError: the input or an option is wrong; nothing was written.
    """
    from ..files.formats import get_format, read_with, sniff, write_with
    from ..files.predictions import row_problems

    source = get_format(options.source if options.source is not None else sniff(options.input))
    target = get_format(options.target)
    given = {
        name: value for name, value in vars(options).items() if name not in _NOT_OPTIONS and value is not None
    }
    reads, writes = _taken(source.read, given), _taken(target.write, given)
    for name in given:
        if name not in reads and name not in writes:
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"{flag}: neither {source.name} takes it when read nor {target.name} when written."
            )
    if options.output.resolve() == options.input.resolve():
        raise ValueError(f"{options.output}: is the input; write somewhere else.")
    predictions = read_with(source, options.input, **reads)
    written = write_with(target, options.output, predictions, **writes)
    problems = row_problems(predictions)
    print(f"{len(predictions)} rows: {source.name} → {target.name}: {written}")
    if problems and target.name == "grasp":
        first = next(iter(problems.values()))
        print(
            f"{len(problems)} of them cannot be refined as they are. {first}{_hint(source, first)}",
            file=sys.stderr,
        )
        return 1
    return 0


def _taken(function: Callable[..., Any] | None, given: dict[str, Any]) -> dict[str, Any]:
    """The options that ``function`` takes."""
    if function is None:
        return {}
    return {name: value for name, value in given.items() if name in inspect.signature(function).parameters}


def _hint(source: Format, problem: str) -> str:
    """What to add where the format knows nothing of the object."""
    parameters = inspect.signature(source.read).parameters
    for name in ("object_id", "object_pose"):
        if f"'{name}'" in problem and name in parameters:
            return f" Give --{name.replace('_', '-')}."
    return ""
