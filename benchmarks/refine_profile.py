"""Where the milliseconds of a refinement go, and how far they are from what the machine can do.

    python benchmarks/refine_profile.py            64 grasps on held-out objects, alone and with eight samples
    python benchmarks/refine_profile.py --quick    16 of them

Each part of `refine_right_hands` is timed where it is called. A second run counts, operation by operation, the
products of matrices and the bytes of every tensor read or written, as if no cache kept any. The machine's rates
are measured in the same process, with all threads. Printed are Markdown tables and, last, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from contact.corpus.held_out import read_held_out
from contact.objects import ObjectMesh
from contact.objects.grid import SignedDistanceGrid
from contact.perturb import perturb
from contact.terms import FingersApart
from hand_models import HandModel, HandPose, load_hand_model
from hand_models.solver import states
from hand_models.solver.normal_equations import NormalEquations
from hand_models.solver.terms import AnglePrior, JointLimits
from refine import RefineConfig
from refine.solve import optimize, refine_hands, samples
from refine.solve.fields import EncodedGrasps
from refine.solve.refine_hands import refine_right_hands

HELD_OUT = Path(__file__).with_name("pose_graph_held_out.npz")
SEED = 0

PARTS: tuple[tuple[str, Any, str], ...] = (
    ("features and first half of the network", EncodedGrasps, "of"),
    ("mean prediction", EncodedGrasps, "mean"),
    ("drawn predictions", EncodedGrasps, "draws"),
    ("terms of the field", optimize, "field_terms"),
    ("align", optimize, "align"),
    ("resolve contact", optimize, "resolve_contact"),
    ("posterior", refine_hands, "solved_variance"),
    *(("score solutions", module, "plausibility") for module in (refine_hands, samples)),
    ("score the input, decide how far to go", refine_hands, "decide"),
)
"""Label, and where it is looked up."""
INSIDE: tuple[tuple[str, Any, str], ...] = (
    ("skinning and its derivative", HandModel, "jacobian"),
    ("distance lookups", SignedDistanceGrid, "query"),
    ("normal equations of points", states, "assemble"),
    ("self-penetration", FingersApart, "linearize"),
    *(("joint angles and their limits", term, "linearize") for term in (AnglePrior, JointLimits)),
    ("factorisation and step", NormalEquations, "step"),
)


def labels(parts: Sequence[tuple[str, Any, str]]) -> list[str]:
    """Of parts, each once."""
    return list(dict.fromkeys(label for label, _, _ in parts))


@dataclass
class Stopwatch:
    """Seconds by label; what is called within a label that is running counts under both."""

    seconds: dict[str, float] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)

    @contextmanager
    def watching(self, parts: Sequence[tuple[str, Any, str]], within: str | None = None) -> Iterator[None]:
        """Time the functions ``parts``, all calls or those within one label."""
        with ExitStack() as stack:
            for label, owner, name in parts:
                raw = owner.__dict__[name]
                call = raw.__func__ if isinstance(raw, staticmethod) else raw
                timed = self._timed(call, label, within)
                stack.enter_context(patch.object(owner, name, staticmethod(timed) if call is not raw else timed))
            yield

    def _timed(self, call: Callable[..., Any], label: str, within: str | None) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            if within is not None and within not in self.running:
                return call(*arguments, **options)
            self.running.append(label)
            started = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.seconds[label] = self.seconds.get(label, 0.0) + time.perf_counter() - started
                self.running.pop()

        return timed


class Traffic(TorchDispatchMode):
    """Counts operations and the bytes they read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.calls = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and func is not torch.ops.aten._unsafe_view.default:
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
            self.bytes += sum(t.nbytes for t in tensors)
            self.calls += 1
        return out


def machine() -> tuple[float, float]:
    """Operations (multiplying matrices) and bytes (copying) a second that PyTorch reaches here."""
    a, b = torch.randn(2, 1024, 1024).unbind()
    source, target = torch.randn(2, 1 << 24).unbind()

    def best(call: Callable[[], object], repeats: int = 8) -> float:
        taken = []
        for _ in range(repeats):
            started = time.perf_counter()
            call()
            taken.append(time.perf_counter() - started)
        return min(taken)

    return 2 * 1024**3 / best(lambda: a @ b), 2 * source.nbytes / best(lambda: target.copy_(source))


@dataclass(frozen=True)
class Scenes:
    """Noisy hands and their objects."""

    model: HandModel
    pose: HandPose
    meshes: list[ObjectMesh]
    which: torch.Tensor

    @staticmethod
    def of(count: int) -> Scenes:
        """``count`` held-out grasps under `contactopt` noise."""
        held, model = read_held_out(HELD_OUT), load_hand_model("open")
        rows = torch.arange(len(held.which))[:count]
        meshes = [ObjectMesh.from_any(mesh) for mesh in held.meshes]
        noisy = perturb(held.pose, "contactopt", seed=SEED)
        return Scenes(model, noisy[rows], meshes, torch.from_numpy(held.which)[rows])

    def refine(self, count: int) -> None:
        """Refine all, which are known to hold their objects, with ``count`` samples each."""
        known = {"holding": torch.ones(len(self.pose)), "samples": count or None}
        refine_right_hands(self.pose, self.meshes, self.which, self.model, RefineConfig(), SEED, **known)


@dataclass(frozen=True)
class Profile:
    """One refinement of all scenes, per grasp."""

    parts: dict[str, float]
    """seconds by part; "in all" is the whole"""
    operations: float
    """multiplications and additions of matrix products"""
    bytes: float
    calls: float
    """tensor operations, of the whole batch"""


def profile(scenes: Scenes, count: int, repeats: int) -> Profile:
    """Time and count one refinement; the fastest of ``repeats``."""
    scenes.refine(count)
    size, best = len(scenes.pose), None
    for _ in range(repeats):
        watch = Stopwatch()
        started = time.perf_counter()
        with watch.watching(PARTS), watch.watching(INSIDE, "resolve contact"):
            scenes.refine(count)
        watch.seconds["in all"] = time.perf_counter() - started
        if best is None or watch.seconds["in all"] < best["in all"]:
            best = watch.seconds
    assert best is not None
    with FlopCounterMode(display=False) as flops, Traffic() as traffic:
        scenes.refine(count)
    per_grasp = {name: seconds / size for name, seconds in best.items()}
    return Profile(per_grasp, flops.get_total_flops() / size, traffic.bytes / size, traffic.calls)


def table(profiles: dict[int, Profile], rates: tuple[float, float], size: int) -> str:
    """Markdown."""
    heads = " | ".join(f"K = {k}, ms" for k in profiles)
    rule = "|---" * (len(profiles) + 1) + "|"
    lines = [f"{size} grasps, {torch.get_num_threads()} threads, per grasp.", "", f"| part | {heads} |", rule]

    def row(label: str, cells: Sequence[str]) -> str:
        return f"| {label} | " + " | ".join(cells) + " |"

    def milliseconds(label: str) -> list[str]:
        return [f"{1e3 * p.parts[label]:.2f}" if label in p.parts else "" for p in profiles.values()]

    lines += [row(label, milliseconds(label)) for label in ("in all", *labels(PARTS))]
    heads = " | ".join(f"K = {k}" for k in profiles)
    lines += ["", f"| within resolve contact | {heads} |", rule]
    for label in labels(INSIDE):
        shares = [p.parts.get(label, 0.0) / p.parts["resolve contact"] for p in profiles.values()]
        lines.append(row(label, [f"{100 * s:.0f} %" for s in shares]))
    floors, streams = rates
    lines += ["", f"| against the machine | {heads} |", rule]
    counts = profiles.values()
    lines += [
        row("operations of matrix products, million", [f"{p.operations / 1e6:.0f}" for p in counts]),
        row(f"at {floors / 1e9:.0f} GFLOP/s, ms", [f"{1e3 * p.operations / floors:.2f}" for p in counts]),
        row("bytes read and written, MB", [f"{p.bytes / 1e6:.0f}" for p in counts]),
        row(f"at {streams / 1e9:.0f} GB/s, ms", [f"{1e3 * p.bytes / streams:.2f}" for p in counts]),
        row("tensor operations for all grasps together", [f"{p.calls:.0f}" for p in counts]),
        row("time taken, ms", milliseconds("in all")),
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="16 grasps, each timed once")
    options = parser.parse_args(arguments)
    scenes = Scenes.of(16 if options.quick else 64)
    rates = machine()
    profiles = {k: profile(scenes, k, 1 if options.quick else 3) for k in (0, 8)}
    print(table(profiles, rates, len(scenes.pose)))
    figures = {"gflops": rates[0] / 1e9, "gb_s": rates[1] / 1e9}
    for k, p in profiles.items():
        figures |= {f"ms_k{k}": 1e3 * p.parts["in all"], f"contact_ms_k{k}": 1e3 * p.parts["resolve contact"]}
        figures |= {f"mflop_k{k}": p.operations / 1e6, f"mb_k{k}": p.bytes / 1e6}
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
