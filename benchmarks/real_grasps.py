"""How much refinement helps real human grasps: 289 of DexYCB on 15 YCB objects, made noisy and refined.

    python benchmarks/real_grasps.py            all grasps under contactopt, image and none
    python benchmarks/real_grasps.py --quick    every sixth grasp under contactopt and none, at most 45 s

Hands are fitted to the measured joints once; these are the reference and what the noise is put on. Each
protocol's noisy hands are written as a grasp/1 file and go through the command `regrasp refine`; errors are
then read off its result file. The last line of standard output is one JSON object: lengths in millimetres,
volumes in cubic centimetres, times in seconds, as the keys say.

The grasps are not part of this repository. They are looked for in $REGRASP_REAL_DATA, else in
../shared/real beside the repository: `dexycb_val.npz` with `object_id (N)` and `joints (N, 21, 3)` metres,
OpenPose order, object frame; and `ycb/<object_id>.ply`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contact.perturb import perturb
from hand_models import HandModel, HandPose, fit_joints, load_hand_model
from refine.commands.cli import BAD_INPUT, main
from refine.files.object_files import find_objects
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.predictions import Predictions
from refine.files.status import Status
from refine.measure.evaluate import fraction_improved, measure_rows

SEED = 0
PROTOCOLS = ("contactopt", "image", "none")
QUICK_PROTOCOLS = ("contactopt", "none")
QUICK_EVERY = 6


@dataclass(frozen=True)
class Run:
    """One protocol's hands before and after, and what the command said about them."""

    noisy: Predictions
    refined: Predictions
    seconds: float


def validation_folder() -> Path | None:
    """The folder with the grasps, or None."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "real"
    folder = Path(os.environ.get("REGRASP_REAL_DATA") or beside)
    return folder if (folder / "dexycb_val.npz").is_file() and (folder / "ycb").is_dir() else None


def reference_grasps(folder: Path, model: HandModel) -> Predictions:
    """Hands fitted to the measured joints, as rows in the object frame; the joints beside them."""
    with np.load(folder / "dexycb_val.npz", allow_pickle=False) as data:
        object_id, joints = data["object_id"], data["joints"]
    return as_rows(fit_joints(joints, model), object_id, model, keypoints_3d=joints)


def as_rows(pose: HandPose, object_id: np.ndarray, model: HandModel, **columns: np.ndarray) -> Predictions:
    """Right hands in their object's frame as rows of grasp/1."""
    return Predictions(object_id, np.full(len(pose), pose.side), model.name, **pose.as_arrays(), **columns)


def refine(noisy: Predictions, objects: Path, folder: Path, name: str, method: str) -> Run:
    """`regrasp refine` on a file of ``noisy``, in this process; what it prints goes to standard error."""
    file = write_predictions(folder / f"{name}.npz", noisy)
    out = folder / "refined"
    arguments = ["refine", str(file), "--objects", str(objects), "--out", str(out), "--method", method]
    with redirect_stdout(sys.stderr):
        status = main([*arguments, "--seed", str(SEED)])
    if status >= BAD_INPUT:  # 1 says that some rows failed, which are counted below
        raise SystemExit(status)
    summary = json.loads((out / f"{name}.summary.json").read_text())
    return Run(noisy, read_predictions(out / f"{name}.refined.npz"), summary["seconds"])


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Rows of all parts, with the columns of a pose only."""
    names = ("object_id", "side", "hand_model", "global_orient", "hand_pose", "betas", "transl")
    return Predictions(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


_MEASURES = {
    "mpjpe_mm": "mpjpe_{}_mm",
    "mpjpe_keypoints_mm": "measured_mpjpe_{}_mm",
    "mpjpe_root_relative_mm": "mpjpe_root_relative_{}_mm",
    "mpjpe_procrustes_mm": "mpjpe_procrustes_{}_mm",
    "penetration_mm": "penetration_{}_mm",
    "volume_cm3": "volume_{}_cm3",
    "contact_ratio": "contact_ratio_{}",
}
"""What `measure_rows` calls a measure, and the figure it becomes, before and after."""
_MEDIANS = ("mpjpe_mm", "mpjpe_keypoints_mm")


def measure(runs: Mapping[str, Run], reference: Predictions, objects: Path, model: HandModel) -> dict[str, float]:
    """Figures of every protocol, ``<protocol>_<figure>``, and of the reference, ``reference_<figure>``."""
    hands = [p for run in runs.values() for p in (run.noisy, run.refined)]
    truth = reference.take(np.tile(np.arange(len(reference)), len(hands)))
    rows = measure_rows(joined(hands), truth, find_objects(objects), model)
    rows = {name: values.reshape(len(runs), 2, len(reference)) for name, values in rows.items()}
    figures: dict[str, float] = {"grasps": len(reference), "seed": SEED}
    for name in ("penetration_mm", "volume_cm3", "contact_ratio"):
        figures[f"reference_{name}"] = float(rows[f"reference_{name}"][0, 0].mean())
    for k, (protocol, run) in enumerate(runs.items()):
        for name, figure in _MEASURES.items():
            for when, values in zip(("before", "after"), rows[name][k], strict=True):
                figures[f"{protocol}_{figure.format(when)}"] = float(values.mean())
                if name in _MEDIANS:
                    figures[f"{protocol}_{figure.format(f'{when}_median')}"] = float(np.median(values))
        before, after = rows["mpjpe_mm"][k]
        figures[f"{protocol}_fraction_improved"] = fraction_improved(before, after)
        figures[f"{protocol}_fraction_worse_5mm"] = float((after > before + 5).mean())
        statuses = Counter(run.refined.column("status").tolist())
        figures |= {f"{protocol}_{status.value}": statuses[status.value] for status in Status}
        figures[f"{protocol}_seconds_per_grasp"] = run.seconds / len(reference)
    if "none" in runs:  # its input is the reference itself, so the error afterwards is the change
        figures["none_mpjpe_change_mm"] = figures["none_mpjpe_after_mm"]
    return figures


_LINES = (
    ("joint error, mm: mean", "mpjpe_{}_mm", 1),
    ("joint error, mm: median", "mpjpe_{}_median_mm", 1),
    ("  to the measured joints: mean", "measured_mpjpe_{}_mm", 1),
    ("  to the measured joints: median", "measured_mpjpe_{}_median_mm", 1),
    ("  wrists together: mean", "mpjpe_root_relative_{}_mm", 1),
    ("  after similarity: mean", "mpjpe_procrustes_{}_mm", 1),
    ("penetration depth, mm", "penetration_{}_mm", 1),
    ("intersection volume, cm³", "volume_{}_cm3", 1),
    ("contact ratio", "contact_ratio_{}", 2),
)


def report(figures: Mapping[str, float], protocols: Sequence[str]) -> str:
    """The figures as a table for people."""
    truth = [figures[f"reference_{name}"] for name in ("penetration_mm", "volume_cm3", "contact_ratio")]
    lines = [
        f"{figures['grasps']} grasps, noise seed {SEED}",
        "the reference hands: depth {:.1f} mm, volume {:.1f} cm³, contact ratio {:.2f}".format(*truth),
        f"{'':34}" + "".join(f"{p:>20}" for p in protocols),
    ]
    for label, key, digits in _LINES:
        cells = [[figures[f"{p}_{key.format(w)}"] for w in ("before", "after")] for p in protocols]
        lines.append(f"{label:34}" + "".join(f"{f'{b:.{digits}f} → {a:.{digits}f}':>20}" for b, a in cells))
    improved = [f"{100 * figures[f'{p}_fraction_improved']:.0f} %" for p in protocols]
    lines.append(f"{'grasps whose joint error fell':34}" + "".join(f"{cell:>20}" for cell in improved))
    worse = [f"{100 * figures[f'{p}_fraction_worse_5mm']:.1f} %" for p in protocols]
    lines.append(f"{'grasps whose joint error rose by 5 mm':34}" + "".join(f"{cell:>20}" for cell in worse))
    for status in Status:
        counts = [figures[f"{p}_{status.value}"] for p in protocols]
        lines.append(f"{status.value:34}" + "".join(f"{count:>20}" for count in counts))
    seconds = [f"{figures[f'{p}_seconds_per_grasp']:.3f}" for p in protocols]
    lines.append(f"{'seconds per grasp, meshes included':34}" + "".join(f"{cell:>20}" for cell in seconds))
    return "\n".join(lines)


def benchmark(quick: bool, method: str) -> dict[str, float] | None:
    """Everything; None when the grasps are not there."""
    folder = validation_folder()
    if folder is None:
        return None
    protocols, every = (QUICK_PROTOCOLS, QUICK_EVERY) if quick else (PROTOCOLS, 1)
    model = load_hand_model("open")
    reference = reference_grasps(folder, model)
    clean = HandPose.from_arrays({n: getattr(reference, n) for n in ("global_orient", "hand_pose", "betas", "transl")})
    keep = np.arange(0, len(reference), every)
    runs = {}
    with tempfile.TemporaryDirectory() as temporary:
        for protocol in protocols:
            # Noise is drawn for all grasps, so that a row's noise is the same in the quick run and the whole one.
            noisy = as_rows(perturb(clean, protocol, seed=SEED), reference.object_id, model).take(keep)
            runs[protocol] = refine(noisy, folder / "ycb", Path(temporary), protocol, method)
        figures = measure(runs, reference.take(keep), folder / "ycb", model)
    print(report(figures, protocols))
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every sixth grasp, two protocols")
    parser.add_argument("--method", choices=("regrasp", "contactopt"), default="regrasp", help="of refinement")
    options = parser.parse_args()
    result = benchmark(options.quick, options.method)
    if result is None:
        message = "no validation grasps: set REGRASP_REAL_DATA to a folder with dexycb_val.npz and ycb/ (see --help)"
        print(message, file=sys.stderr)
        result = {"skipped": message}
    print(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in result.items()}))
