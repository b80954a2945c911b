"""What is done to every row of a batch, and the hash that says whether earlier results still hold."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import Tensor

from contact import weights as shipped
from contact.objects import ObjectMesh
from hand_models import HandModel, load_hand_model

from ..api import refine_request
from ..config import RefineConfig
from ..files.predictions import Predictions
from ..motion.sequence import SequenceResult
from ..request import Request
from ..result import RefineResult
from ..solve.samples import check_samples
from .motions import refine_motion

_BLOCK = 1 << 20
LARGEST_SHARD, _OF_MOTIONS = 512, 4096
_PLACES = ("objects", "mano_dir", "device", "weights", "save_mesh")
"""Options of `BatchConfig` and `RefineConfig` that say where things lie or are done, not what becomes of a row."""


@dataclass(frozen=True)
class BatchConfig:
    """How rows are refined. Two runs with equal fields, weights and hand model give equal results."""

    objects: Path
    """a mesh, folder of meshes or side-car, see `refine.files.object_files.find_objects`"""
    scale: float | None = None
    """factor to metres of meshes of which no side-car says one"""
    refine: RefineConfig = field(default_factory=RefineConfig)
    hand_model: str = "open"
    """open or mano"""
    mano_dir: Path | None = None
    batch_size: int = 16
    """most rows refined together"""
    shard_rows: int | None = None
    """rows of a shard: the most that is lost when a worker dies; None: see `rows_a_shard`"""
    limit: int | None = None
    """only so many rows of each file"""
    save_mesh: bool = False
    """also write every refined hand as a mesh"""
    report: int | None = None
    """also record every grasp to be looked at, and draw so many of them"""
    images: str | None = None
    """folder of the pictures that hands were seen in, for the report"""
    samples: int | None = None
    """also draw so many plausible hands for each row"""
    sequences: bool = True
    """rows of one `sequence_id`, object and side are refined as a motion"""
    fps: float = 30.0
    """frames a second of motions"""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "shard_rows", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')}: got {value}; give 1 or more.")
        check_samples(self.samples, self.refine, "--samples")

    def rows_a_shard(self, rows: int, motions: bool, workers: int) -> int:
        """Rows of each shard of a file: where nothing else is said, whole batches, four shards a worker, 512 at most;
        of a file with motions, which a shard's end would cut, 4096.

        The last worker at work then leaves the others idle for about a quarter of their time at most.
        """
        if self.shard_rows is not None or (motions and self.motion_refiner() is not None):
            return self.shard_rows or _OF_MOTIONS
        batches = math.ceil(rows / (4 * workers * self.batch_size))
        return max(self.batch_size, min(batches * self.batch_size, LARGEST_SHARD))

    def load_model(self) -> HandModel:
        """The hand model. Raises ``FileNotFoundError`` when MANO is not found."""
        return load_hand_model(self.hand_model, mano_dir=self.mano_dir)

    def refiner(self) -> Callable[[Request], RefineResult]:
        """`refine_request` with the options bound."""
        return lambda request: refine_request(request, self.refine, self.seed, self.samples)

    def motion_refiner(self) -> Callable[[Predictions, ObjectMesh, HandModel], SequenceResult] | None:
        """`refine_motion` with the options bound; None where motions are not refined as such."""
        if not self.sequences or self.refine.method != "regrasp":
            return None
        return partial(refine_motion, config=self.refine, fps=self.fps)


def describe(config: BatchConfig, model: HandModel) -> dict[str, Any]:
    """Everything results depend on besides rows and meshes, ready for JSON; its hash is `digest`.

    Where meshes and weights lie, and where the work is done, is left out: only what they hold counts.

    Raises:
        FileNotFoundError: the network's weights are missing.
    """
    batch = {f.name: getattr(config, f.name) for f in fields(BatchConfig) if f.name not in _PLACES}
    weights = Path(config.refine.weights) if config.refine.weights else shipped.DEFAULT
    needed = (weights, shipped.card_path(weights))
    for path in needed:
        if not path.is_file():
            raise FileNotFoundError(f"weights: {path} is not there; train with `regrasp train` or reinstall regrasp.")
    return batch | {
        "version": _version(),
        "refine": {name: value for name, value in asdict(config.refine).items() if name not in _PLACES},
        "weights_sha256": digest([file_sha256(path) for path in needed]),
        "hand_model": model.name,
        "hand_model_sha256": _model_sha256(model),
    }


def digest(document: Any) -> str:
    """SHA-256 of anything JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of the files below a folder."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return digest([[p.relative_to(path).as_posix(), file_sha256(p)] for p in files])
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def _version() -> str:
    try:
        return version("regrasp")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def _model_sha256(model: HandModel) -> str:
    found = hashlib.sha256(f"{model.name} {model.side} {model.parents}".encode())
    for entry in fields(model):
        value = getattr(model, entry.name)
        if isinstance(value, Tensor):
            found.update(f"{entry.name} {tuple(value.shape)} {value.dtype}".encode())
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
