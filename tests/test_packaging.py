"""What is shipped, what it may import, and which kinds of unsafe calls it may not make."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hand_models", "contact", "refine", "pose_graph", "regrasp")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
_MODULE_OF = {"pillow": "PIL", "libigl": "igl", "pyyaml": "yaml", "docstring-parser": "docstring_parser"}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def distribution(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower()


def unfolded(extra: str) -> set[str]:
    """Distributions of an extra, with those of the extras that it names."""
    found: set[str] = set()
    for requirement in project()["project"]["optional-dependencies"][extra]:
        own = re.match(r"regrasp\[(.+)\]", requirement)
        names = [unfolded(name) for name in own[1].split(",")] if own else [{distribution(requirement)}]
        found |= set().union(*names)
    return found


def imports(path: Path, *, top_level_only: bool) -> Iterator[tuple[str, int]]:
    """Top package and line of every absolute import of ``path``; those under TYPE_CHECKING do not count."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }  # fmt: skip
    later = {
        id(inner) for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(node)
    }  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in typing_only or (top_level_only and id(node) in later):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0], node.lineno


def test_only_core_dependencies_are_imported_at_the_top():
    core = {distribution(requirement) for requirement in project()["project"]["dependencies"]}
    allowed = {_MODULE_OF.get(name, name) for name in core} | set(PACKAGES) | set(sys.stdlib_module_names)
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in MODULES
        for name, line in imports(path, top_level_only=True)
        if name not in allowed
    ]
    assert wrong == []


def test_nothing_unsafe_is_called():
    """No unpickling, evaluation or shell; the one exception is the restricted unpickler for MANO files."""
    forbidden = {"pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec", "os.system", "os.popen"}
    wrong = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            unsafe = (
                called in forbidden
                or (called.endswith("torch.load") and options.get("weights_only") != "True")
                or (called in ("np.load", "numpy.load") and options.get("allow_pickle") == "True")
                or options.get("shell") == "True"
            )
            if unsafe:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {called}")
    assert wrong == []


def test_every_asset_is_package_data():
    """What lies in an assets or weights folder goes into the wheel."""
    shipped = project()["tool"]["setuptools"]["package-data"]
    for package in PACKAGES:
        for folder in ("assets", "weights"):
            for path in (ROOT / package / folder).rglob("*"):
                relative = path.relative_to(ROOT / package).as_posix()
                if path.is_file() and path.suffix not in (".py", ".pyc"):
                    assert any(fnmatch(relative, pattern) for pattern in shipped.get(package, [])), (
                        f"{path} is left out"
                    )


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_there_for_type_checkers(package):
    """PEP 561: without the marker, in the wheel too, a checker takes everything of an installed package for Any."""
    assert (ROOT / package / "py.typed").read_bytes() == b""
    assert "py.typed" in project()["tool"]["setuptools"]["package-data"][package]


def test_package_folders_are_found():
    """Every folder with modules is a package, so that setuptools finds it and tools resolve it."""
    for path in MODULES:
        assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"


@pytest.mark.parametrize("name", ["regrasp", "refine"])
def test_importing_the_package_costs_nothing(name):
    """Names are looked up on first use, and are one thing under both names."""
    code = (
        f"import sys, {name} as package, refine\n"
        "assert not {'torch', 'numpy', 'trimesh'} & set(sys.modules)\n"
        "assert set(dir(package)) >= {'refine_grasp', 'ObjectMesh'}\n"
        f"from {name} import RefineConfig\n"
        "assert RefineConfig is refine.RefineConfig\n"
        "try:\n    package.refine_gasp\nexcept AttributeError as error:\n    assert 'refine_grasp' in str(error)\n"
        "else:\n    raise AssertionError('a name that is not there was found')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("folder", ["benchmarks", "examples", "tools", "tests"])
def test_scripts_hide_no_package(folder):
    """Python looks for modules beside a script first: one named as a package would be imported in its place."""
    core = {distribution(requirement) for requirement in project()["project"]["dependencies"]}
    taken = {_MODULE_OF.get(name, name) for name in core} | set(PACKAGES) | set(sys.stdlib_module_names)
    scripts = list((ROOT / folder).glob("*.py"))
    assert {path.stem for path in scripts} & taken == set()
    assert [path.name for path in scripts if "sys.path" in path.read_text() and folder != "tests"] == []


def test_metadata():
    data = project()["project"]
    assert data["name"] == "regrasp"
    assert data["scripts"] == {"regrasp": "refine.commands.cli:main"}
    assert data["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    extras = data["optional-dependencies"]
    assert set(extras) >= {"render", "viz", "open3d", "ray", "sim", "image", "plots", "docs", "dev", "dev-all"}
    assert unfolded("dev") >= {"matplotlib", "mujoco", "ray", "viser", "pyarrow", "pytest"}
    assert unfolded("dev-all") >= unfolded("dev") | unfolded("docs") | {"open3d-cpu", "transformers"}
    assert len((ROOT / "setup.py").read_text().strip().splitlines()) <= 3


def test_constraints_pin_what_the_tests_run_with():
    """Every dependency that `make` installs is pinned, torch without a condition."""
    pinned = {
        distribution(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"
    }
    wanted = set(map(distribution, project()["project"]["dependencies"]))
    wanted |= unfolded("render") | unfolded("dev-all")
    assert wanted - pinned == {"open3d"}  # of other systems, which have no open3d-cpu
    assert re.search(r"^torch==[\d.]+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "constraints.txt", "Makefile", ".ci/run", ".pre-commit-config.yaml"]
)
def test_packaging_names_no_host(name):
    """Packages come from wherever the user's pip is set up to look."""
    assert "://" not in (ROOT / name).read_text()


def test_ci_script_is_executable():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
