"""How much refinement helps real human grasps: 289 of DexYCB on 15 YCB objects, made noisy and refined.

    python benchmarks/real_grasps.py            all grasps under every protocol
    python benchmarks/real_grasps.py --quick    every seventh grasp, some of the protocols, at most 45 s
    python benchmarks/real_grasps.py --keep runs/real    keep the files: <protocol>.npz, refined/, reference.npz

Hands are fitted to the measured joints once; these are the reference and what the noise is put on. Each
protocol's noisy hands are written as a grasp/1 file and go through the command `regrasp refine`; errors are
then read off its result file. The last line of standard output is one JSON object: lengths in millimetres,
volumes in cubic centimetres, pixels, times in seconds, as the keys say.

Under contactopt, image and none nothing is said of the hands, which are in their object's frame, but that they hold
it; of those that are called `judged` not even that, and of those called `stated` also how they are off. `deep` are the
clean hands 6 mm further in, along the mean normal of the surface that they touch. The others are hands of an image
estimator, before a camera at a random place (`camera_scenes.py`): their files give `object_pose`,
`cam_K` and `input_error`, and

    camera                 nothing more
    camera-keypoints       the joints on the picture, 3 px off on either axis
    camera-depth-points    some 300 points on the skin that the camera sees, 3 mm off on each axis

all three with the same noise; `--method contactopt` has no use for the last two and leaves them out. `along` and
`across` are errors along the line of sight and across it, `reprojection` is to where the camera sees the true
joints. Beside them stand two anchors that are not refinement (`camera_anchors.py`): `camera_ray`, the hand slid
along its line of sight to where its fingertips touch best, and `camera_keypoints_fit`, the hand fitted to its
keypoints without the object.

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
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from camera_anchors import fit_to_keypoints, slide_to_touch
from camera_scenes import INTRINSICS, Cameras
from torch.nn.functional import normalize

from contact.perturb import perturb
from hand_models import HandModel, HandPose, fit_joints, load_hand_model
from refine.commands.cli import BAD_INPUT, main
from refine.files.object_files import find_objects, load_object
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.prediction_poses import into_camera_frame, into_object_frame, object_poses
from refine.files.predictions import Predictions
from refine.files.status import Status
from refine.measure.evaluate import fraction_improved, measure_rows
from refine.measure.metrics import METRICS
from refine.solve.uncertainty import coverage

SEED = 0
TOUCHING = 0.002  # metres
VIEW_SEED, KEYPOINT_SEED, DEPTH_SEED = 1, 2, 3
CAMERA_PROTOCOLS = ("camera", "camera-keypoints", "camera-depth-points")


@dataclass(frozen=True)
class Beside:
    """Hands in their object's frame: their noise, and what the file says of them."""

    noise: str
    error: str = "unknown"
    holding: float = 1.0
    deeper: float = 0.0
    """metres"""


BESIDE = {
    "contactopt": Beside("contactopt"),
    "image": Beside("image"),
    "none": Beside("none"),
    "image-judged": Beside("image", holding=np.nan),
    "none-judged": Beside("none", holding=np.nan),
    "deep": Beside("none", deeper=0.006),
    "contactopt-stated": Beside("contactopt", "contactopt"),
    "image-stated": Beside("image", "image"),
    "toch-b1-stated": Beside("toch-b1", "toch-b1"),
    "none-stated": Beside("none", "exact"),
}
PROTOCOLS = (*BESIDE, *CAMERA_PROTOCOLS)
QUICK_PROTOCOLS = ("contactopt", "none", *CAMERA_PROTOCOLS)
QUICK_EVERY = 7


@dataclass(frozen=True)
class Run:
    """One protocol's hands before and after, and what the command said about them."""

    noisy: Predictions
    refined: Predictions
    seconds: float | None = None
    """None of an anchor, which is not refinement"""


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


def as_pose(rows: Predictions) -> HandPose:
    """The right hands of rows with a pose, in the frame of their file."""
    return HandPose.from_arrays({n: getattr(rows, n) for n in ("global_orient", "hand_pose", "betas", "transl")})


def local(rows: Predictions, model: HandModel) -> HandPose:
    """Hands of rows in their object's frame."""
    return into_object_frame(as_pose(rows), object_poses(rows, slice(None)), model)


class Scenes:
    """Noisy hands of every protocol as rows, whose noise is the same whichever rows are kept."""

    def __init__(self, reference: Predictions, keep: np.ndarray, objects: Path, model: HandModel) -> None:
        self.reference, self.keep, self.model = reference, keep, model
        self.clean = as_pose(reference)
        self.cameras = Cameras.facing(model.joints(self.clean).mean(1), VIEW_SEED)
        found = find_objects(objects)
        self.meshes = {name: load_object(found[name]) for name in np.unique(reference.object_id[keep]).tolist()}

    def rows(self, protocol: str) -> Predictions:
        """What the command is given."""
        if protocol in BESIDE:
            return self._beside_object(BESIDE[protocol])
        noisy = perturb(self.clean, "camera", seed=SEED, model=self.model, view=self.cameras.view)
        rows = self.before_camera(noisy[torch.from_numpy(self.keep)])
        if protocol == "camera-keypoints":
            seen = self.cameras.keypoints(self.model.joints(self.clean), KEYPOINT_SEED)
            return replace(rows, keypoints_2d=seen[self.keep])
        if protocol == "camera-depth-points":
            held = [self.meshes[name] for name in rows.object_id.tolist()]
            points = self.cameras.depth_points(self.keep, self.clean, self.model, held, DEPTH_SEED)
            return replace(rows, depth_points=points)
        return rows

    def _beside_object(self, case: Beside) -> Predictions:
        noisy = perturb(self.clean, case.noise, seed=SEED)[torch.from_numpy(self.keep)]
        if case.deeper:
            noisy = replace(noisy, transl=noisy.transl - case.deeper * self._outward(noisy))
        said = {"input_error": np.array(case.error), "holding": np.array(case.holding)}
        kept = {name: getattr(self.reference, name)[self.keep] for name in ("object_id", "frame_id")}
        return as_rows(noisy, kept.pop("object_id"), self.model, **kept, **said)

    def _outward(self, pose: HandPose) -> torch.Tensor:
        """(B, 3) mean normal of the object where the hand's skin touches it, or where that is nearest."""
        skin, outward = self.model(pose).vertices, torch.zeros(len(pose), 3)
        for row, name in enumerate(self.reference.object_id[self.keep].tolist()):
            distance, normal = (v[0] for v in self.meshes[name].grid.query(skin[row : row + 1]))
            touching = distance < max(TOUCHING, float(distance.min()) + 1e-4)
            outward[row] = normalize(normal[touching].mean(0), dim=0)
        return outward

    def before_camera(self, pose: HandPose) -> Predictions:
        """The kept hands, given in their object's frame, as rows in the camera's."""
        placed = self.cameras.object_pose[torch.from_numpy(self.keep)]
        seen, object_id = into_camera_frame(pose, placed, self.model), self.reference.object_id[self.keep]
        return as_rows(
            seen, object_id, self.model, object_pose=placed.numpy(), cam_K=INTRINSICS, input_error=np.array("camera"),
            frame_id=self.reference.frame_id[self.keep], holding=np.array(1.0),
        )  # fmt: skip

    def anchors(self, runs: Mapping[str, Run]) -> dict[str, Run]:
        """What the hands of runs come to without refinement."""
        found = {}
        if "camera" in runs:
            noisy = runs["camera"].noisy
            pose, placed = local(noisy, self.model), object_poses(noisy, slice(None))
            for name, mesh in self.meshes.items():
                rows = torch.from_numpy(np.flatnonzero(noisy.object_id == name))
                pose = pose.fill(rows, slide_to_touch(pose[rows], placed[rows], mesh, self.model))
            found["camera-ray"] = Run(noisy, self.before_camera(pose))
        if "camera-keypoints" in runs:
            noisy = runs["camera-keypoints"].noisy
            placed = object_poses(noisy, slice(None))
            pose = fit_to_keypoints(local(noisy, self.model), placed, noisy.cam_K, noisy.keypoints_2d, self.model)
            found["camera-keypoints-fit"] = Run(noisy, self.before_camera(pose))
        return found


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Rows of all parts, with the columns of a pose and of a camera only."""
    names = ["object_id", "side", "hand_model", "global_orient", "hand_pose", "betas", "transl"]
    names += [name for name in ("object_pose", "cam_K") if getattr(parts[0], name) is not None]
    return Predictions(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


_MEASURES = {
    "mpjpe_mm": "mpjpe_{}_mm",
    "mpjpe_keypoints_mm": "measured_mpjpe_{}_mm",
    "mpjpe_root_relative_mm": "mpjpe_root_relative_{}_mm",
    "mpjpe_procrustes_mm": "mpjpe_procrustes_{}_mm",
    "penetration_mm": "penetration_{}_mm",
    "volume_cm3": "volume_{}_cm3",
    "contact_ratio": "contact_ratio_{}",
    "along_view_mm": "along_{}_mm",
    "across_view_mm": "across_{}_mm",
    "reprojection_truth_px": "reprojection_px_{}",
}
"""What `measure_rows` calls a measure, and the figure it becomes, before and after; the last three where there is a
camera."""
_MEDIANS = ("mpjpe_mm", "mpjpe_keypoints_mm")
_REFERENCE = ("penetration_mm", "volume_cm3", "contact_ratio")


def errors(
    hands: Sequence[Predictions], reference: Predictions, objects: Path, model: HandModel, names: Sequence[str]
) -> list[dict[str, np.ndarray]]:
    """Measures of those ``names`` of every file of hands, row by row; all before a camera, or all not."""
    truth = reference.take(np.tile(np.arange(len(reference)), len(hands)))
    wanted = [metric for metric in METRICS if metric.column in names]
    rows = measure_rows(joined(hands), truth, find_objects(objects), model, wanted)
    parts = {name: values.reshape(len(hands), -1) for name, values in rows.items()}
    return [{name: values[k] for name, values in parts.items()} for k in range(len(hands))]


def measure(runs: Mapping[str, Run], reference: Predictions, objects: Path, model: HandModel) -> dict[str, float]:
    """Figures of every protocol and anchor, ``<protocol>_<figure>``, and of the reference, ``reference_<figure>``."""
    figures: dict[str, float] = {"grasps": len(reference), "seed": SEED}
    (own,) = errors([reference], reference, objects, model, _REFERENCE)
    figures |= {f"reference_{name}": float(own[name].mean()) for name in _REFERENCE}
    for there in (False, True):
        part = {name: run for name, run in runs.items() if (run.noisy.object_pose is not None) == there}
        # Protocols with the same noise share their hands before.
        hands = {_key(p): p for run in part.values() for p in (run.noisy, run.refined)}
        found = errors(list(hands.values()), reference, objects, model, list(_MEASURES)) if hands else []
        values = dict(zip(hands, found, strict=True))
        for name, run in part.items():
            key = name.replace("-", "_")
            figures |= figures_of(key, run, values[_key(run.noisy)], values[_key(run.refined)])
            figures |= {f"{key}_{figure}": value for figure, value in motion(run, reference, model).items()}
    if "none" in runs:  # its input is the reference itself, so the error afterwards is the change
        figures["none_mpjpe_change_mm"] = figures["none_mpjpe_after_mm"]
    if "camera-keypoints-fit" in runs:
        figures["camera_keypoints_fit_reprojection_px"] = figures["camera_keypoints_fit_reprojection_px_after"]
    return figures


def motion(run: Run, reference: Predictions, model: HandModel) -> dict[str, float]:
    """How far the joints went, mm, and what share of their errors, axis by axis, lies within what the file states."""
    given, found, true = (model.joints(local(rows, model)) for rows in (run.noisy, run.refined, reference))
    figures = {"moved_mm": 1e3 * float((found - given).norm(dim=-1).mean())}
    if run.refined.uncertainty is not None:
        figures["coverage_68"] = coverage(torch.from_numpy(run.refined.uncertainty), found - true)
    return figures


def _key(hands: Predictions) -> bytes:
    return b"".join(getattr(hands, name).tobytes() for name in ("global_orient", "hand_pose", "transl"))


def figures_of(
    name: str, run: Run, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Figures of one run, from its rows' measures."""
    figures: dict[str, float] = {}
    for measure, figure in _MEASURES.items():
        for when, values in (("before", before), ("after", after)):
            if measure in values:
                figures[f"{name}_{figure.format(when)}"] = float(values[measure].mean())
            if measure in _MEDIANS:
                figures[f"{name}_{figure.format(f'{when}_median')}"] = float(np.median(values[measure]))
    error, then = before["mpjpe_mm"], after["mpjpe_mm"]
    figures[f"{name}_fraction_improved"] = fraction_improved(error, then)
    figures[f"{name}_fraction_worse_5mm"] = float((then > error + 5).mean())
    if run.seconds is not None:
        statuses = Counter(run.refined.column("status").tolist())
        figures |= {f"{name}_{status.value}": statuses[status.value] for status in Status}
        figures[f"{name}_seconds_per_grasp"] = run.seconds / len(error)
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
    ("joint error along the view, mm", "along_{}_mm", 1),
    ("  across it, mm", "across_{}_mm", 1),
    ("  on the picture, px", "reprojection_px_{}", 1),
)


def report(figures: Mapping[str, float], names: Sequence[str]) -> str:
    """The figures as tables for people, of protocols without a camera and with one."""
    truth = [figures[f"reference_{name}"] for name in _REFERENCE]
    lines = [
        f"{figures['grasps']} grasps, noise seed {SEED}",
        "the reference hands: depth {:.1f} mm, volume {:.1f} cm³, contact ratio {:.2f}".format(*truth),
    ]
    for camera in (False, True):
        lines += ["", *_table(figures, [name for name in names if name.startswith("camera") == camera])]
    return "\n".join(lines)


def _table(figures: Mapping[str, float], names: Sequence[str]) -> list[str]:
    lines = [f"{'':40}" + "".join(f"{name:>22}" for name in names)]

    def line(label: str, key: str, show: Callable[..., str]) -> None:
        wanted = [[f"{name.replace('-', '_')}_{key.format(w)}" for w in ("before", "after")] for name in names]
        if any(pair[0] in figures for pair in wanted):
            cells = (show(*(figures[k] for k in pair)) if pair[0] in figures else "" for pair in wanted)
            lines.append(f"{label:40}" + "".join(f"{cell:>22}" for cell in cells))

    for label, key, digits in _LINES:
        line(label, key, lambda before, after, digits=digits: f"{before:.{digits}f} → {after:.{digits}f}")
    line("joints moved by, mm", "moved_mm", lambda moved, _: f"{moved:.1f}")
    line("errors within one standard deviation", "coverage_68", lambda share, _: f"{100 * share:.0f} %")
    line("grasps whose joint error fell", "fraction_improved", lambda share, _: f"{100 * share:.0f} %")
    line("grasps whose joint error rose by 5 mm", "fraction_worse_5mm", lambda share, _: f"{100 * share:.1f} %")
    for status in Status:
        line(status.value, status.value, lambda count, _: f"{count}")
    line("seconds per grasp, meshes included", "seconds_per_grasp", lambda seconds, _: f"{seconds:.3f}")
    return lines


def benchmark(quick: bool, method: str, kept: Path | None = None) -> dict[str, float] | None:
    """Everything; None when the grasps are not there. Files of grasps are left in the folder ``kept``."""
    folder = validation_folder()
    if folder is None:
        return None
    protocols, every = (QUICK_PROTOCOLS, QUICK_EVERY) if quick else (PROTOCOLS, 1)
    if method == "contactopt":  # which has no use for what is known beside the pose
        protocols = [name for name in protocols if name not in CAMERA_PROTOCOLS[1:]]
    model, objects = load_hand_model("open"), folder / "ycb"
    reference = reference_grasps(folder, model)
    keep = np.arange(0, len(reference), every)
    scenes = Scenes(reference, keep, objects, model)
    with tempfile.TemporaryDirectory() as temporary:
        files = kept or Path(temporary)
        runs = {name: refine(scenes.rows(name), objects, files, name, method) for name in protocols}
        write_predictions(files / "reference.npz", reference.take(keep))
    runs |= scenes.anchors(runs)
    figures = measure(runs, reference.take(keep), objects, model)
    print(report(figures, list(runs)))
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every seventh grasp, without image")
    parser.add_argument("--method", choices=("regrasp", "contactopt"), default="regrasp", help="of refinement")
    parser.add_argument("--keep", type=Path, help="folder to keep noisy, refined and reference grasps in")
    options = parser.parse_args()
    result = benchmark(options.quick, options.method, options.keep)
    if result is None:
        message = "no validation grasps: set REGRASP_REAL_DATA to a folder with dexycb_val.npz and ycb/ (see --help)"
        print(message, file=sys.stderr)
        result = {"skipped": message}
    print(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in result.items()}))
