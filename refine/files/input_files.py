"""Which files `regrasp refine` is to read: files, folders and globs, each with the name its results get."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .formats import all_formats, get_format
from .row_source import form_of

_OURS = (".refined", ".summary")
"""Ends of the names of our own results, before the suffix; a folder that holds them is not refined again."""
_MAGIC = frozenset("*?[")


@dataclass(frozen=True)
class InputFile:
    """One file of predictions."""

    path: Path
    form: str
    """name of its format, see `refine.files.formats`"""
    name: str
    """what its results are called, relative to the output folder, without suffix"""

    @property
    def suffix(self) -> str:
        """Of the results: the input's own form where that is `grasp/1`, else .npz."""
        return self.path.suffix.lower() if self.form == "grasp" else ".npz"


def find_inputs(sources: Sequence[str | Path], source: str | None = None) -> list[InputFile]:
    """The files that ``sources`` name.

    A folder stands for the files below it that are of a known format, unless it is itself of one (as FHAB's
    are); their results keep its structure. A glob (``**`` for any depth) stands for the files it matches.

    Args:
        sources: files, folders or globs.
        source: name of the format of all of them; None to look at each.

    Raises:
        FileNotFoundError: there is no such file, or nothing in a folder or glob.
        ValueError: a file that was named is of no known format, or two results would have the same name.
    """
    found: list[InputFile] = []
    for given in sources:
        path = Path(given)
        if not path.exists() and _MAGIC & set(str(given)):
            found += _below(_root(path), _glob(path), source)
        elif path.is_dir() and not _is_input(path, source):
            files = (p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
            found += _below(path, sorted(files), source)
        else:
            found.append(InputFile(path, form_of(path, source), path.stem))
    by_name: dict[str, InputFile] = {}
    for item in found:
        other = by_name.setdefault(item.name, item)
        if other.path.resolve() != item.path.resolve():
            raise ValueError(
                f"{other.path} and {item.path}: their results would both be called {item.name!r}; "
                "rename one or give them different --out."
            )
    return list(by_name.values())


def _below(root: Path, files: list[Path], source: str | None) -> list[InputFile]:
    """Of ``files``, those that can be read, named by where they lie below ``root``."""
    if source is not None:  # what else lies there is left alone, if any of it looks like the format
        files = [path for path in files if get_format(source).sniff(path)] or files
    inputs = []
    passed_over = []
    for path in files:
        if path.stem.endswith(_OURS):
            continue
        try:
            form = form_of(path, source)
        except ValueError:
            passed_over.append(path)
            continue
        inputs.append(InputFile(path, form, path.relative_to(root).with_suffix("").as_posix()))
    if not inputs:
        raise FileNotFoundError(f"{root}: holds no prediction files of a known format; say which with --from.")
    if passed_over:
        more = f" and {len(passed_over) - 1} more" if len(passed_over) > 1 else ""
        warnings.warn(f"{passed_over[0]}{more}: passed over, of no known format", stacklevel=2)
    return inputs


def _is_input(folder: Path, source: str | None) -> bool:
    """Whether a folder is one input rather than a folder of inputs."""
    forms = all_formats().values() if source is None else [get_format(source)]
    return any(form.sniff(folder) for form in forms)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part.endswith(".shards") for part in path.parts)


def _glob(pattern: Path) -> list[Path]:
    found = sorted(Path(p) for p in glob.glob(str(pattern), recursive=True))
    files = [p for p in found if p.is_file()]
    if not files:
        raise FileNotFoundError(f"{pattern}: matches no file.")
    return files


def _root(pattern: Path) -> Path:
    """The folder before the first part of ``pattern`` that holds a wildcard."""
    parts = []
    for part in pattern.parts[:-1]:
        if _MAGIC & set(part):
            break
        parts.append(part)
    return Path(*parts)
