"""How the packages hang together: one-way layers, no circles between files, rooms of a size to be read."""

from __future__ import annotations

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hand_models", "contact", "pose_graph", "refine")
LONGEST_MODULE = 400
LINES_TOGETHER = 32_500


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; none if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}


def test_no_two_files_import_each_other():
    """Imports inside functions and imports for types count too."""
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph(*PACKAGES, cache_dir=None, exclude_type_checking_imports=False)
    assert circle({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}) == []


def test_layers_are_one_way():
    """The contracts of pyproject.toml; in a process of its own, as the linter takes over logging."""
    pytest.importorskip("importlinter")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_refine_is_surveyable():
    """At most thirteen things on the first look; the empty marker for type checkers is none."""
    entries = {path.name for path in (ROOT / "refine").iterdir()} - {"__pycache__", "py.typed"}
    assert len(entries) <= 13, sorted(entries)


def test_no_module_is_too_long_to_read():
    assert {str(path.relative_to(ROOT)): length(path) for path in modules() if length(path) > LONGEST_MODULE} == {}


def test_the_packages_together_stay_small():
    assert sum(map(length, modules())) <= LINES_TOGETHER
