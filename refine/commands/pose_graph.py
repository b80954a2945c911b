"""`regrasp pose-graph`: train the networks that lift keypoints, make `.npy` splits, draw learned adjacencies."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from contact.corpus import corpus_hash
from contact.corpus.held_out import write_held_out
from hand_models import load_hand_model
from pose_graph.graph import draw_adjacency, learned_adjacencies
from pose_graph.network import LiftConfig
from pose_graph.train import KINDS, LiftTraining, train
from pose_graph.weights import load_network

from ..evidence.graph_data import corpus_points, read_split, write_splits
from ..files.formats import read_any
from ..files.input_files import find_inputs
from ..files.object_files import find_objects


@dataclass(frozen=True)
class TrainOptions:
    """Train lifting networks, all on the same data and budget."""

    out: Path
    """Folder for <kind>.safetensors with their cards; checkpoints beside them let a stopped run go on."""
    corpus: Path | None = None
    """Grasps made by `regrasp corpus`, which random cameras look at."""
    splits: Path | None = None
    """Or a folder of .npy splits, from `regrasp pose-graph splits`."""
    kinds: tuple[str, ...] = tuple(KINDS)
    """What to train: context (JHOPE's module, with the affinity loss), context_plain (without), unet (HOPE-Net's
    Graph U-Net), mlp (no graph)."""
    held_out_file: bool = True
    """With a corpus: also write held_out.npz, some grasps on held-out objects, which benchmarks/pose_graph.py reads."""
    training: LiftTraining = field(default_factory=LiftTraining)


@dataclass(frozen=True)
class SplitsOptions:
    """Make .npy splits of 29 points from annotated grasps, as HOPE-Net's make_data does from FHAB."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Annotations: files, folders or quoted globs of any known format that knows joints, object pose and camera."""
    objects: Path
    """Folder of meshes named <object_id>.ply (.obj, ...), or a side-car objects.json."""
    out: Path
    """Folder for points3d-train.npy and the others."""
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Format of the files, e.g. fhab; looked at and recognised when not given."""
    test: tuple[str, ...] = ("Subject_2", "Subject_5", "Subject_6")
    """Folders whose sequences are for testing; FHAB's subjects by default."""
    val_every: int = 10
    """Of the other sequences, each so-manieth is for validation."""


@dataclass(frozen=True)
class DrawOptions:
    """Draw the adjacencies that a network has learned."""

    out: Path
    """Folder for one .png each."""
    weights: str = "context"
    """A shipped network, or the path of a .safetensors file."""


PoseGraphOptions = (
    Annotated[TrainOptions, tyro.conf.subcommand("train")]
    | Annotated[SplitsOptions, tyro.conf.subcommand("splits")]
    | Annotated[DrawOptions, tyro.conf.subcommand("draw")]
)


def pose_graph(options: TrainOptions | SplitsOptions | DrawOptions) -> int:
    """Run the command; returns 0.

    Raises:
        ValueError, FileNotFoundError: an option or its file is wrong.
    """
    run: dict[type, Callable[[Any], None]] = {TrainOptions: _train, SplitsOptions: _splits, DrawOptions: _draw}
    run[type(options)](options)
    return 0


def _train(options: TrainOptions) -> None:
    unknown = [kind for kind in options.kinds if kind not in KINDS]
    if unknown or not options.kinds:
        raise ValueError(f"--kinds: {' '.join(unknown) or 'none'}; choose from {', '.join(KINDS)}.")
    if (options.corpus is None) == (options.splits is None):
        raise ValueError("--corpus: give either a corpus or --splits, the data to train on.")
    card: dict[str, Any] = {}
    if options.corpus is not None:
        model = load_hand_model("open")
        grasps, held_out = corpus_points(options.corpus, model)
        card = {"corpus_sha256": corpus_hash(options.corpus), "hand_model": model.name}
        if options.held_out_file:
            print(f"held-out grasps: {write_held_out(options.corpus, options.out / 'held_out.npz')}")
    else:
        assert options.splits is not None
        grasps, held_out = read_split(options.splits, "train"), read_split(options.splits, "test")
        card = {"splits": options.splits.name}
    card |= {"grasps": len(grasps), "grasps_held_out": len(held_out)}
    for kind in options.kinds:
        network, with_affinity = KINDS[kind]
        training = options.training if with_affinity else replace(options.training, affinity=0.0)
        command = f"regrasp pose-graph train --kinds {kind}"
        path = train(
            grasps, LiftConfig(kind=network), training, options.out, kind, held_out=held_out if len(held_out) else None,
            card=card | {"command": command},
        )  # fmt: skip
        scores = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["held_out"]
        print(f"{path}: " + ", ".join(f"{name} {value:.2f}" for name, value in scores.items()))


def _splits(options: SplitsOptions) -> None:
    parts = [read_any(item.path, source=item.form) for item in find_inputs(options.files, options.source)]
    counts = write_splits(
        parts, find_objects(options.objects), options.out, test=options.test, val_every=options.val_every
    )
    print(", ".join(f"{count} {split}" for split, count in counts.items()) + f": {options.out}")


def _draw(options: DrawOptions) -> None:
    drawn = learned_adjacencies(load_network(options.weights))
    if not drawn:
        raise ValueError(f"--weights {options.weights}: this network has no graph.")
    for name, matrix in drawn.items():
        print(draw_adjacency(matrix, options.out / f"{name}.png"))
