"""Ours against ContactOpt's procedure, in one run: same machine, same hand, same grasps, same contact targets.

    python benchmarks/bench_refine.py            the whole comparison; 17 minutes on two cores
    python benchmarks/bench_refine.py --quick    the same code on fewer grasps, at most 45 s

Ours is `refine_right_hands`; the other is `refine.solve.contactopt.contactopt`, 250 steps of AMSGrad from 8 starts,
all starts of several grasps in one batch of the size that is fastest here. Both aim at the contact maps that our
network predicts. Every step of the descent does the same work, so its time per grasp is the median step's times 250.
With --quick its quality is that of one start, the input itself, and not of eight.

Beside them stand two ablations: "equal trust" weighs all that the network says by its mean precision, and the
oracle is given the true contact field and no joints, so that what it leaves is the optimiser's own.

Errors are to the measured joints. The noise is that of the named protocols, seed 0. Grasps: see real_grasps.py.
Printed are a Markdown table and, last, one JSON object; --out FILE also writes the table to a file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from real_grasps import reference_grasps, validation_folder
from torch import Tensor

from contact.field import ContactField, field_from_pose
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from contact.perturb import perturb
from hand_models import HandModel, HandPose, load_hand_model
from refine import RefineConfig, refine_grasp
from refine.config import CostConfig
from refine.files.object_files import find_objects, load_object
from refine.measure.contact import contact_ratio
from refine.measure.evaluate import fraction_improved
from refine.measure.joints import mpjpe
from refine.measure.volumes import intersection_volume
from refine.solve.contactopt import contactopt
from refine.solve.fields import weights_path
from refine.solve.optimize import optimise
from refine.solve.refine_hands import Refined, refine_right_hands
from refine.solve.uncertainty import coverage, load_scale

SEED = 0
STEPS, STARTS = 250, 8
OURS = "ours"
THEIRS = "ContactOpt's procedure"


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    grasps: int
    """of each protocol, evenly spaced over all"""
    baseline_grasps: int
    """of those, how many the procedure is run on to the end"""
    baseline_starts: int
    batches: tuple[int, ...]
    """grasps per call of ours"""
    baseline_batches: tuple[int, ...]
    """grasps per call of the procedure; the step's time is taken from a few steps"""
    chunks: tuple[int, ...]
    """grasps side by side in the procedure, the fastest of which counts"""
    ablations: tuple[str, ...]
    """protocols for which ours is also run with the true contact, and without variable trust"""


PROTOCOLS = ("contactopt", "image", "none")
WHOLE = Plan(289, 32, STARTS, (1, 16, 64, 256, 4096), (1, 16, 64, 256), (1, 4, 8, 32), PROTOCOLS)
QUICK = Plan(56, 3, 1, (64,), (64,), (8,), ())


@dataclass(frozen=True)
class Grasps:
    """Real grasps and the hands fitted to them."""

    model: HandModel
    clean: HandPose
    joints: Tensor
    """(N, 21, 3) as measured, metres, object frame"""
    meshes: list[ObjectMesh]
    which: Tensor

    def take(self, rows: Tensor) -> Grasps:
        """Some of them."""
        return replace(self, clean=self.clean[rows], joints=self.joints[rows], which=self.which[rows])

    def objects(self) -> list[ObjectMesh]:
        """One per grasp."""
        return [self.meshes[i] for i in self.which.tolist()]


@dataclass(frozen=True)
class Quality:
    """Means over grasps."""

    error: np.ndarray
    """(N,) metres, mean joint error"""
    volume: np.ndarray
    """(N,) cubic metres"""
    contact: np.ndarray
    """(N,)"""

    @staticmethod
    def of(grasps: Grasps, pose: HandPose) -> Quality:
        hand, objects = grasps.model(pose), grasps.objects()
        volume = intersection_volume(hand.vertices, grasps.model.faces_for(pose.side), objects)
        return Quality(mpjpe(hand.joints, grasps.joints), volume, contact_ratio(hand.vertices, objects))

    def head(self, count: int) -> Quality:
        """Of the first ``count`` grasps."""
        return Quality(self.error[:count], self.volume[:count], self.contact[:count])


def load_grasps(folder: Path, count: int) -> Grasps:
    """``count`` grasps, evenly spaced, in an order that mixes the objects, so that prefixes are spread as well."""
    model = load_hand_model("open")
    reference = reference_grasps(folder, model)
    spaced = np.linspace(0, len(reference) - 1, min(count, len(reference))).round().astype(int)
    rows = reference.take(np.random.default_rng(SEED).permutation(spaced))
    names = sorted(set(rows.object_id.tolist()))
    entries = find_objects(folder / "ycb")
    meshes = [load_object(entries[name]) for name in names]
    which = torch.tensor([names.index(name) for name in rows.object_id.tolist()])
    fields = ("global_orient", "hand_pose", "betas", "transl")
    clean = HandPose.from_arrays({name: getattr(rows, name) for name in fields})
    return Grasps(model, clean, torch.from_numpy(rows.keypoints_3d).float(), meshes, which)


def refine(grasps: Grasps, noisy: HandPose, *, trust: bool = True) -> Refined:
    """Ours on all hands, which are known to hold their objects, as the procedure supposes."""
    config, holding = RefineConfig(costs=CostConfig(trust=trust)), torch.ones(len(noisy))
    return refine_right_hands(noisy, grasps.meshes, grasps.which, grasps.model, config, SEED, holding=holding)


def descend(
    grasps: Grasps, noisy: HandPose, field: ContactField, steps: int, starts: int, chunk: int
) -> tuple[HandPose, float]:
    """The procedure, and its seconds per grasp, scaled to 250 steps from 8 starts."""
    marks = [time.perf_counter()]

    def tick(done: int, total: int, loss: Tensor) -> None:
        marks.append(time.perf_counter())

    found = contactopt(
        grasps.model, noisy, grasps.objects(), field,
        iterations=steps, restarts=starts, seed=SEED, chunk=chunk, progress=tick,
    )  # fmt: skip
    step = float(np.median(np.diff(marks)))
    calls = -(-len(noisy) // chunk)
    return found, step * calls * STEPS * (STARTS / starts) / len(noisy)


def peak_gb() -> float:
    """Largest memory this process has held since `forget_peak`, or since it started."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def forget_peak() -> None:
    """Start measuring the peak anew, where the system lets us."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def time_ours(grasps: Grasps, noisy: HandPose, batch: int, repeats: int) -> float:
    """Median seconds per grasp; grasps are repeated where there are too few."""
    rows = torch.arange(batch) % len(noisy)
    some, hands = grasps.take(rows), noisy[rows]
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        refine(some, hands)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken)) / batch


def time_one(grasps: Grasps, noisy: HandPose, repeats: int) -> float:
    """Median seconds of `refine_grasp` for one hand, mesh and weights in memory."""
    taken = []
    for row in range(repeats + 1):
        mesh = grasps.objects()[row % len(noisy)]
        started = time.perf_counter()
        refine_grasp(noisy[row % len(noisy)], mesh, hand_model=grasps.model, seed=SEED, holding=True)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken[1:]))


def oracle(grasps: Grasps, noisy: HandPose) -> HandPose:
    """Our optimiser with the true contact and correspondence, and nothing said of where the joints are."""
    truth = field_from_pose(grasps.model, grasps.clean, grasps.objects())
    near, joints = torch.full_like(truth.gap, 0.003**2), grasps.model.joints(noisy)
    nowhere = torch.ones_like(joints[..., 0])  # a metre
    truth = replace(truth, canonical_var=near, gap_var=near, joints=joints, joints_var=nowhere)
    objects = ObjectSet.of(grasps.meshes)
    parts = [
        optimise(grasps.model, objects, grasps.which[r], noisy[r], truth[r], RefineConfig()).state.pose
        for r in torch.arange(len(noisy)).split(64)
    ]
    return HandPose.cat(parts)


def measure_quality(grasps: Grasps, plan: Plan, figures: dict[str, float]) -> dict[str, dict[str, Quality]]:
    """Every protocol and method; adds figures that need more than means."""
    found: dict[str, dict[str, Quality]] = {}
    scale = load_scale(weights_path(RefineConfig()))
    few = torch.arange(min(plan.baseline_grasps, len(grasps.which)))
    for protocol in PROTOCOLS:
        noisy = perturb(grasps.clean, protocol, seed=SEED)
        refined = refine(grasps, noisy)
        rows = {"input": Quality.of(grasps, noisy), OURS: Quality.of(grasps, refined.pose)}
        error = grasps.model.joints(refined.pose) - grasps.joints
        std = scale.std(refined.variance, refined.share, refined.stated)
        figures[f"{protocol}_coverage_68"] = coverage(std, error)
        figures[f"{protocol}_kept"] = float((refined.share == 0).float().mean())
        if protocol == "contactopt":
            pose, _ = descend(grasps.take(few), noisy[few], refined.field[few], STEPS, plan.baseline_starts, 8)
            rows[THEIRS] = Quality.of(grasps.take(few), pose)
        if protocol in plan.ablations:
            rows["oracle: true contact"] = Quality.of(grasps, oracle(grasps, noisy))
            even = refine(grasps, noisy, trust=False)
            rows[f"{OURS}, equal trust"] = Quality.of(grasps, even.pose)
        found[protocol] = rows
    return found


def measure_times(grasps: Grasps, plan: Plan) -> tuple[dict[str, dict[int, float]], float, float]:
    """Seconds per grasp by method and batch, seconds of one call for one grasp, peak memory in GB."""
    noisy = perturb(grasps.clean, "contactopt", seed=SEED)
    refine(grasps.take(torch.arange(2)), noisy[:2])  # reads the weights
    times: dict[str, dict[int, float]] = {OURS: {}, THEIRS: {}}
    forget_peak()
    times[OURS][64] = time_ours(grasps, noisy, 64, 1)
    memory = peak_gb()
    for batch in plan.batches:
        if batch not in times[OURS]:
            times[OURS][batch] = time_ours(grasps, noisy, batch, 3 if batch <= 16 else 1)
    field = refine(grasps, noisy).field
    for batch in plan.baseline_batches:
        rows = torch.arange(batch) % len(noisy)
        chunks = sorted({min(batch, chunk) for chunk in plan.chunks})
        times[THEIRS][batch] = min(
            descend(grasps.take(rows[:chunk]), noisy[rows[:chunk]], field[rows[:chunk]], 3, STARTS, chunk)[1]
            for chunk in chunks
        )
    return times, time_one(grasps, noisy, 5), memory


def key_figures(
    found: Mapping[str, Mapping[str, Quality]], times: Mapping[str, Mapping[int, float]]
) -> dict[str, float]:
    """Ratios of ours to the procedure on the same grasps, and the means of ours."""
    ours, theirs = found["contactopt"][OURS], found["contactopt"][THEIRS]
    same = ours.head(len(theirs.error))
    rise = 1e3 * (found["none"][OURS].error - found["none"]["input"].error)
    figures = {
        "speedup": times[THEIRS][64] / times[OURS][64],
        "mpjpe_ratio": same.error.mean() / theirs.error.mean(),
        "volume_ratio": same.volume.mean() / max(theirs.volume.mean(), 1e-9),
        "contact_ratio_ratio": same.contact.mean() / max(theirs.contact.mean(), 1e-9),
        "none_mpjpe_rise_mm": rise.mean(),
        "none_worse_by_5mm": (rise > 5).mean(),
    }
    if (most := max(times[OURS])) > 64:
        figures[f"time_ratio_{most}_to_64"] = times[OURS][most] / times[OURS][64]
    for protocol in ("contactopt", "image"):
        rows = found[protocol]
        figures[f"{protocol}_mpjpe_after_mm"] = 1e3 * rows[OURS].error.mean()
        figures[f"{protocol}_fraction_improved"] = fraction_improved(rows["input"].error, rows[OURS].error)
    return {name: float(value) for name, value in figures.items()}


def table(
    plan: Plan,
    found: Mapping[str, Mapping[str, Quality]],
    times: Mapping[str, Mapping[int, float]],
    figures: Mapping[str, float],
) -> str:
    """The comparison in Markdown."""
    starts = "8 starts" if plan.baseline_starts == STARTS else "ONE start (quick run)"
    lines = [
        f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}, noise seed {SEED}. "
        f"{THEIRS}: {STEPS} steps, quality from {starts}; times are the median of 3 steps × {STEPS}, 8 starts.",
        "",
        "| noise | method | grasps | joint error, mm | improved | volume, cm³ | contact ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    few = plan.baseline_grasps
    for protocol, rows in found.items():
        cells = [(name, quality, rows["input"]) for name, quality in rows.items()]
        if THEIRS in rows:
            cells += [(f"{n}, same grasps", rows[n].head(few), rows["input"].head(few)) for n in ("input", OURS)]
        for name, q, before in cells:
            improved = fraction_improved(before.error[: len(q.error)], q.error)
            share = "" if name.startswith("input") else f"{100 * improved:.0f} %"
            lines.append(
                f"| {protocol} | {name} | {len(q.error)} | {1e3 * q.error.mean():.1f} | {share} "
                f"| {1e6 * q.volume.mean():.2f} | {q.contact.mean():.3f} |"
            )
    batches = sorted({batch for row in times.values() for batch in row})
    lines += [
        "",
        "| seconds per grasp | " + " | ".join(f"B={b}" for b in batches) + " |",
        "|---" * (len(batches) + 1) + "|",
    ]
    for name, row in times.items():
        lines.append(f"| {name} | " + " | ".join(f"{row[b]:.4f}" if b in row else "" for b in batches) + " |")
    lines += [
        "",
        f"One grasp, `refine_grasp` with mesh and weights in memory: {figures['single_grasp_s']:.3f} s. "
        f"Peak memory of the process at B=64: {figures['peak_memory_gb']:.2f} GB. "
        f"B=64: {figures['speedup']:.0f} times faster than {THEIRS}.",
    ]
    return "\n".join(lines)


def benchmark(quick: bool) -> tuple[dict[str, float], str] | None:
    """Figures and table; None when the grasps are not there."""
    folder = validation_folder()
    if folder is None:
        return None
    plan = QUICK if quick else WHOLE
    grasps = load_grasps(folder, plan.grasps)
    times, single, memory = measure_times(grasps, plan)
    figures: dict[str, float] = {"single_grasp_s": single, "peak_memory_gb": memory}
    found = measure_quality(grasps, plan, figures)
    figures = key_figures(found, times) | figures
    return figures, table(plan, found, times, figures)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer grasps, one start of the procedure")
    parser.add_argument("--out", type=Path, help="Markdown file to write the table to")
    options = parser.parse_args(arguments)
    outcome = benchmark(options.quick)
    if outcome is None:
        message = "no validation grasps: set REGRASP_REAL_DATA to their folder (see real_grasps.py)"
        print(message, file=sys.stderr)
        print(json.dumps({"skipped": message}))
        return 0
    figures, text = outcome
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(json.dumps({name: round(value, 5) for name, value in figures.items()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
