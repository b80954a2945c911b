"""`regrasp doctor`: what is installed, which hand models and weights are found, what to do about the rest."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path

CORE = {
    "torch": "torch", "numpy": "numpy", "scipy": "scipy", "trimesh": "trimesh", "pillow": "PIL", "libigl": "igl",
    "fast-simplification": "fast_simplification", "manifold3d": "manifold3d", "safetensors": "safetensors",
    "tyro": "tyro", "tqdm": "tqdm", "platformdirs": "platformdirs", "filelock": "filelock", "pyyaml": "yaml",
    "docstring-parser": "docstring_parser",
}  # fmt: skip
"""Distribution name to module, of every package that must be there."""
OPTIONAL = {
    "embreex": "pictures: pip install 'regrasp[render]'",
    "viser": "live viewer: pip install 'regrasp[viz]'",
    "usd-core": "USD stages: pip install 'regrasp[usd]'",
    "matplotlib": "plots of evaluations: pip install 'regrasp[plots]'",
    "open3d": "faster distance grids: pip install 'regrasp[open3d]'",
    "pyarrow": "Parquet files: pip install 'regrasp[ray]'",
    "ray": "several machines: pip install 'regrasp[ray]'",
    "mujoco": "simulated grasps: pip install 'regrasp[sim]'",
    "coacd": "simulated grasps: pip install 'regrasp[sim]'",
    "pytorch3d": "its Meshes are accepted as objects",
    "smplx": "reference in tests: pip install 'regrasp[dev]'",
}
"""Distribution name to what it is for."""
_OTHER_NAMES = {"open3d": "open3d-cpu", "pytorch3d": "easypytorch3d"}
"""Of distributions that hold the same package."""


@dataclass(frozen=True)
class DoctorOptions:
    """Options of `regrasp doctor`."""

    mano_dir: Path | None = None
    """Where MANO is looked for; default: $MANO_DIR, then the user data folder."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    group: str
    name: str
    state: str
    """"ok", "missing" (something needed is not there) or "absent" (something optional is not)"""
    detail: str


def doctor(options: DoctorOptions) -> int:
    """Print the report; returns 0 when `regrasp refine` can run, 1 when something it needs is missing."""
    findings = examine(options.mano_dir)
    for group, found in groupby(findings, attrgetter("group")):
        print(f"{group}:")
        for finding in found:
            print(f"  {finding.state:<8}{finding.name:<14}{finding.detail}".rstrip().replace("\n", "\n    "))
    missing = [finding.name for finding in findings if finding.state == "missing"]
    print(f"\nnot ready: {', '.join(missing)} missing." if missing else "\nready.")
    return 1 if missing else 0


def examine(mano_dir: Path | None = None) -> list[Finding]:
    """Look at everything and change nothing; never raises for what it finds."""
    return [
        Finding("system", "regrasp", "ok", _version("regrasp") or "run from its source folder"),
        Finding("system", "python", "ok", f"{platform.python_version()} ({sys.executable})"),
        Finding("system", "platform", "ok", f"{platform.platform()}, {os.cpu_count() or 1} cores"),
        _attempt("system", "accelerator", False, _accelerator),
        *(_attempt("needed packages", name, True, partial(_needed, name, module)) for name, module in CORE.items()),
        *(_attempt("optional packages", name, False, partial(_optional, name, use)) for name, use in OPTIONAL.items()),
        _attempt("hand models", "open hand", True, _open_hand),
        _attempt("hand models", "MANO", False, partial(_mano, mano_dir)),
        _attempt("weights", "ContactNet", True, partial(_weights, "contact")),
        _attempt("weights", "graph network", False, partial(_weights, "pose_graph")),
        _attempt("cache", "grids", False, _cache),
    ]


def _attempt(group: str, name: str, needed: bool, look: Callable[[], str]) -> Finding:
    """What ``look`` says it found; an error is the finding that it is not there."""
    try:
        return Finding(group, name, "ok", look())
    except Exception as error:  # whatever is wrong with it, the report goes on
        return Finding(group, name, "missing" if needed else "absent", str(error))


def _accelerator() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none, the CPU is used"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _needed(name: str, module: str) -> str:
    version = _version(name)
    if version is None:
        raise ImportError(f"pip install {name}")
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken install raises anything, e.g. OSError for a system library
        raise ImportError(f"{version} is installed but does not import: {error}") from error
    return version


def _optional(name: str, use: str) -> str:
    version = _version(name) or _version(_OTHER_NAMES.get(name, name))
    if version is None:
        raise ImportError(use)
    return version  # not imported, which may take seconds


def _open_hand() -> str:
    from hand_models import load_hand_model

    return f"{len(load_hand_model('open').template)} vertices, shipped with regrasp"


def _mano(mano_dir: Path | None) -> str:
    from hand_models.mano import find_mano

    return str(find_mano(mano_dir))


def _weights(package: str) -> str:
    folder = Path(str(importlib.resources.files(package))) / "weights"
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no .safetensors in {package}/weights")
    return "\n".join(f"{path} ({path.stat().st_size / 1e6:.1f} MB)" for path in files)


def _cache() -> str:
    from contact.objects.grid_build import CACHE_LIMIT_BYTES, cache_folder

    folder = cache_folder()
    if folder is None:
        return "switched off by REGRASP_CACHE"
    files = list(folder.glob("*")) if folder.is_dir() else []
    size = sum(f.stat().st_size for f in files)
    return (
        f"{folder}: {len(files)} files, {size / 1e6:.1f} MB of {CACHE_LIMIT_BYTES / 1e6:.0f} MB at most "
        "(REGRASP_CACHE moves it)"
    )
