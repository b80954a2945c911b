"""The grasp corpus: procedural objects, synthetic grasps and their ground-truth contact, in one folder.

One file an object, so that a run that was stopped goes on where it was. Every object has its own seed: the corpus
does not depend on how many workers made it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hand_models import HandModel, HandPose, load_open_hand
from hand_models.atomic import write_atomically
from hand_models.record import Record, shared

from ..field import ContactField, field_from_pose
from ..objects.hierarchy import PointHierarchy, build_hierarchy
from ..objects.mesh import ObjectMesh
from ..objects.object_set import ObjectPoints
from .grasp_types import Preshape, preshapes
from .holding import find_contacts, holds
from .placement import SynthesisConfig, place
from .synthesis import close_hands

log = logging.getLogger(__name__)
HELD_OUT = 10
"""Each so-manieth object of a family is held out from training."""
_COMMON = ("box", "can", "bottle", "block", "squeeze_bottle", "box", "bowl", "can", "pitcher", "box", "cup")
"""Families that come up twice or more: what most things in a kitchen are shaped like."""
_LARGE_FROM, _LARGE_EVERY = 90_000, 9
"""Number of the first thing that is larger than a hand, and how many others there are for each of these: numbered
apart, so that a corpus can be added to."""
_UPS = ((0, 0, 1), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, -1))
_UP_SHARES = (0.6, 0.09, 0.09, 0.09, 0.09, 0.04)
"""How objects stand, by the direction away from the table: upright, lying on a side, upside down."""


@dataclass(frozen=True)
class CorpusConfig:
    """What `build_corpus` makes."""

    out: Path = Path("runs/corpus")
    """folder, made when absent"""
    objects: int = 720
    """procedural objects, the families in turn, common ones more often; and beside them, for every nine of these, one
    that is larger than a hand, held by a wall or an edge"""
    grasps_per_object: int = 64
    """at most"""
    seed: int = 0
    workers: int = 2
    resolution: int = 64
    """cells of the distance grid along the longest side"""
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    motions: int = 0
    """also make so many motions from the grasps of every object, see `contact.corpus.motions`"""


def _numbers(objects: int) -> list[int]:
    """Numbers of all objects of a corpus."""
    return [*range(objects), *range(_LARGE_FROM, _LARGE_FROM + objects // _LARGE_EVERY)]


def object_path(folder: Path, index: int) -> Path:
    """File of object ``index``."""
    return folder / f"object_{index:05d}.npz"


def synthesise(
    model: HandModel, obj: ObjectMesh, shapes: tuple[Preshape, ...], rng: np.random.Generator,
    config: SynthesisConfig,
) -> tuple[Tensor, HandPose, Tensor]:  # fmt: skip
    """Stand an object on a table and grasp it: hands are placed, closed, and kept if they hold.

    Returns the direction ``(3,)`` away from the table, object frame; ``N`` right hands, perhaps none; and their types
    ``(N,)``, indices into ``shapes``.
    """
    up = torch.tensor(_UPS[rng.choice(len(_UPS), p=_UP_SHARES)], dtype=torch.float32)
    placement = place(model, obj, shapes, up, rng, config)
    if placement is None:
        return up, HandPose.zeros(0), torch.zeros(0, dtype=torch.long)
    pose = close_hands(model, obj, placement, shapes, up, config)
    good = holds(find_contacts(model, obj, pose), placement.squeeze, config).nonzero()[:, 0]
    return up, pose[good], placement.kind[good]


def build_object(config: CorpusConfig, index: int) -> int:
    """Make object ``index`` with its grasps and write its file. Returns the number of grasps.

    The work of one process: it uses one thread from then on.
    """
    from .shapes import FAMILIES, LARGE_FAMILIES, sample_shape  # here: trimesh and manifold3d take half a second

    torch.set_num_threads(1)
    rng = np.random.default_rng([config.seed, index])
    families = LARGE_FAMILIES if index >= _LARGE_FROM else FAMILIES + _COMMON
    family = families[index % len(families)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mesh = sample_shape(family, rng)
        obj = ObjectMesh.from_any(mesh, name=f"{family}_{index}", resolution=config.resolution, cache=False)
    model = load_open_hand()
    up, pose, kind = synthesise(model, obj, preshapes(model), rng, config.synthesis)
    kept, kinds = pose[: config.grasps_per_object], kind[: config.grasps_per_object].numpy()
    arrays = {
        "family": np.array(family), "vertices": obj.vertices.numpy(), "faces": obj.faces.numpy().astype(np.int32),
        "points": obj.points.numpy(), "normals": obj.normals.numpy(), "thickness": obj.thickness.numpy(),
        "up": up.numpy(), "kind": kinds,
    }  # fmt: skip
    if len(kept):
        truth = field_from_pose(model, kept, obj)
        columns = {
            "contact": (truth.contact * 255).round().byte(), "hand_contact": (truth.hand_contact * 255).round().byte(),
            "part": truth.part.argmax(-1).byte(), "near": truth.near > 0.5,
            "gap": truth.gap.half(), "canonical": truth.canonical.half(),
        }  # fmt: skip
        arrays |= kept.as_arrays() | {name: column.numpy() for name, column in columns.items()}
    write_atomically(object_path(config.out, index), lambda file: np.savez_compressed(file, **arrays))
    return len(kept)


def build_corpus(config: CorpusConfig = CorpusConfig(), progress: bool = True) -> Path:
    """Make the objects that are missing from ``config.out``; return the folder.

    Raises:
        ValueError: the folder holds a corpus made with another recipe.
        ChildProcessError: a worker died.
    """
    from tqdm import tqdm

    config.out.mkdir(parents=True, exist_ok=True)
    recipe = {k: v for k, v in asdict(config).items() if k not in ("out", "workers", "objects", "motions")}
    manifest = config.out / "recipe.json"
    text = json.dumps(recipe, indent=1, sort_keys=True, default=str)
    if manifest.exists() and manifest.read_text() != text:
        raise ValueError(f"out: {config.out} holds a corpus made with another recipe; choose another folder.")
    write_atomically(manifest, lambda file: file.write(text.encode()))
    missing = [i for i in _numbers(config.objects) if not object_path(config.out, i).exists()]
    total = 0
    with ProcessPoolExecutor(config.workers, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(build_object, config, index): index for index in missing}
        bar = tqdm(as_completed(jobs), total=len(jobs), unit="object", disable=None if progress else True)
        try:
            for job in bar:
                error = job.exception()
                if isinstance(error, BrokenProcessPool):
                    raise ChildProcessError(
                        "workers: one died, perhaps for want of memory; start again with fewer, what is made stays."
                    )
                if error is not None:  # one object that cannot be made must not lose the others
                    log.warning("object %d: %s", jobs[job], error)
                else:
                    total += job.result()
                bar.set_postfix(grasps=total)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)  # else leaving waits for every object in the queue
            raise
    return config.out


def count_grasps(folder: Path) -> list[int]:
    """Grasps of every object that is made, in the order of their numbers; empty where nothing is."""
    return [len(read_arrays(path, "kind")["kind"]) for path in sorted(folder.glob("object_*.npz"))]


def corpus_hash(folder: Path) -> str:
    """SHA-256 over the object files' names and bytes, in order: names the corpus in a weight card."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("object_*.npz")):
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class Corpus(Record):
    """``N`` grasps of many objects in memory."""

    numbers: tuple[int, ...]
    """of the objects' files, for `load_object`"""
    families: tuple[str, ...]
    objects: ObjectPoints = shared()
    which: Tensor
    """(N,) object of each grasp"""
    pose: HandPose
    contact: Tensor
    """(N, n) uint8, 255 is full contact"""
    hand_contact: Tensor
    """(N, P) uint8"""
    part: Tensor
    """(N, n) uint8 bone"""
    near: Tensor
    """(N, n) bool"""
    gap: Tensor
    """(N, n) float16 metres"""
    canonical: Tensor
    """(N, n, 3) float16 metres"""
    kind: Tensor
    """(N,) index of the grasp type"""

    def truth(self, index: Tensor) -> ContactField:
        """Ground-truth fields of the grasps ``index``."""
        part = torch.nn.functional.one_hot(self.part[index].long(), 16).float()
        contact, hand = self.contact[index].float() / 255, self.hand_contact[index].float() / 255
        none, nothing = torch.zeros_like(contact), torch.zeros_like(hand)
        return ContactField(
            contact, none, part, self.canonical[index].float(), none, self.gap[index].float(), none,
            self.near[index].float(), hand, nothing,
        )  # fmt: skip

    def split(self) -> tuple[Tensor, Tensor]:
        """Grasps for training and grasps on objects `held_out` from it."""
        mask = torch.tensor(held_out(self.families))[self.which]
        return (~mask).nonzero()[:, 0], mask.nonzero()[:, 0]


def held_out(families: Sequence[str]) -> list[bool]:
    """Which of the objects with grasps, in the order of their numbers, no network is trained on."""
    return [families[: k + 1].count(family) % HELD_OUT == 0 for k, family in enumerate(families)]


def object_files(folder: Path) -> list[tuple[Path, bool]]:
    """Files of the objects that have grasps, in the order of their numbers, and whether each is `held_out`.

    Raises:
        FileNotFoundError: there is none; make it with ``regrasp corpus``.
    """
    families = {}
    for path in sorted(Path(folder).glob("object_*.npz")):
        found = read_arrays(path, "family", "global_orient")
        if "global_orient" in found:
            families[path] = str(found["family"])
    if not families:
        raise FileNotFoundError(f"corpus: no grasps in {folder}; make them with `regrasp corpus --out {folder}`.")
    return list(zip(families, held_out([*families.values()]), strict=True))


def held_out_files(folder: Path) -> list[Path]:
    """Those of `object_files` that are held out. Raises ``ValueError`` where the corpus is too small for that."""
    paths = [path for path, out in object_files(folder) if out]
    if not paths:
        raise ValueError(f"corpus: {folder} is too small to hold objects out; make {HELD_OUT} of a family.")
    return paths


def load_held_out(folder: Path) -> Corpus:
    """The held-out objects alone, in a tenth of the time of `load_corpus`; raises as `held_out_files` does."""
    return _read(held_out_files(folder))


def load_corpus(folder: Path) -> Corpus:
    """Every object of the folder ``out`` of `build_corpus` that has grasps; raises as `object_files` does."""
    return _read([path for path, _ in object_files(folder)])


def read_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Arrays of an object's file: those called ``names`` that are there, or all."""
    with np.load(path, allow_pickle=False) as data:
        return {name: data[name] for name in data.files if not names or name in names}


def _read(paths: Sequence[Path]) -> Corpus:
    items = [read_arrays(path) for path in paths]

    def tensors(name: str) -> list[Tensor]:
        return [torch.from_numpy(item[name]) for item in items]

    def join(name: str) -> Tensor:
        return torch.cat(tensors(name))

    pose = HandPose("right", *map(join, ("global_orient", "hand_pose", "betas", "transl")))
    counts = torch.tensor([len(item["contact"]) for item in items])
    points, normals, thickness = (torch.stack(tensors(name)) for name in ("points", "normals", "thickness"))
    hierarchy = PointHierarchy.cat([build_hierarchy(p) for p in points])
    return Corpus(
        numbers=tuple(int(path.stem.removeprefix("object_")) for path in paths),
        families=tuple(str(item["family"]) for item in items),
        objects=ObjectPoints(points, normals, thickness, hierarchy),
        which=torch.repeat_interleave(torch.arange(len(items)), counts),
        pose=pose,
        **{name: join(name) for name in ("contact", "hand_contact", "part", "near", "gap", "canonical", "kind")},
    )


def load_object(folder: Path, number: int, resolution: int = CorpusConfig.resolution) -> ObjectMesh:
    """Object ``number`` of a corpus, with its distance grid."""
    data = read_arrays(object_path(folder, number), "family", "vertices", "faces")
    name = f"{data['family']}_{number}"
    return ObjectMesh.from_any((data["vertices"], data["faces"]), name=name, resolution=resolution, cache=False)
