"""Motions made noisy and refined: a real one (TACO, a left hand) and held-out ones of the corpus.

    python benchmarks/sequence.py            all protocols on the real motion, six held-out motions
    python benchmarks/sequence.py --quick    five protocols on half of it, one held-out motion

Noise is put on the hands in the camera's frame, independent in every frame (iid) or as a drift (walk: AR(1) of
coefficient 0.95); the protocol's error is stated, of `none` that the hands are exact. Beside the result stands the best
of two filters of the joints, each with the setting that suits the true motion best, which nobody knows: Savitzky–Golay
(order 2) and One-Euro (Casiez et al., CHI 2012); with `--frames` also `refine_grasp`, frame by frame.

The last line of standard output is one JSON object: lengths in millimetres, errors as means of the 21 joints.
`contact_f1` is of frames in which skin is within 3 mm, under image noise; `accel_ratio` the acceleration error under
image iid over the filter's, `accel_ratio_walk` under walk over the input's; `dropped_ratio` the error with a fifth of
the frames missing over that without; `stream_mm` how far what a stream gives out, 15 frames behind, is from what is
solved for as a whole; `linear_ratio` the time a frame of the longest motion over that of the shortest.

The real motion is not part of this repository: `sequences/taco_20231104_017.npz` and `.ply` in $REGRASP_REAL_DATA,
else in ../shared/real beside the repository. It is looked at, never tuned on.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.signal import savgol_filter
from torch import Tensor

from contact.corpus.held_out import read_held_out
from contact.corpus.motions import MotionConfig, make_motion
from contact.objects import ObjectMesh
from contact.perturb import PROTOCOLS, WALK, perturb
from hand_models import HandModel, HandPose, load_open_hand
from refine import SequenceResult, SequenceStream, refine_grasp, refine_sequence
from refine.files.object_files import object_for

NAME = "taco_20231104_017"
QUICK = ("none", "image", "camera", "toch-r5")
KINDS = {"iid": 0.0, "walk": WALK}
WINDOWS = (5, 9, 13, 21)
CUTOFFS = (0.5, 1.0, 2.0, 4.0)  # Hz
TOUCHES = 0.003  # metres


@dataclass(frozen=True)
class Scene:
    """A true motion, in the camera's frame."""

    pose: HandPose
    mesh: ObjectMesh
    object_poses: Tensor
    touching: np.ndarray
    """(T,) bool"""
    model: HandModel

    def __getitem__(self, rows: slice) -> Scene:
        return Scene(self.pose[rows], self.mesh, self.object_poses[rows], self.touching[rows], self.model)

    def joints(self, pose: HandPose) -> np.ndarray:
        return self.model.joints(pose).numpy()

    def noisy(self, protocol: str, correlation: float, seed: int = 0) -> HandPose:
        view = torch.nn.functional.normalize(self.model.joints(self.pose).mean(1), dim=1)
        return perturb(self.pose, protocol, seed=seed, correlation=correlation, view=view, model=self.model)

    def refine(self, pose: HandPose, protocol: str) -> SequenceResult:
        error = "exact" if protocol == "none" else PROTOCOLS[protocol]
        result = refine_sequence(pose, self.mesh, self.object_poses, input_error=error)
        assert isinstance(result, SequenceResult)
        return result


def real_scene(model: HandModel) -> Scene | None:
    """The real motion, or None where it is not."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "real"
    folder = Path(os.environ.get("REGRASP_REAL_DATA") or beside) / "sequences"
    if not (folder / f"{NAME}.npz").is_file():
        return None
    with np.load(folder / f"{NAME}.npz", allow_pickle=False) as data:
        fields = {name: data[name] for name in ("global_orient", "hand_pose", "transl")}
        inside = HandPose.from_arrays(fields, side=str(data["side"]))
        poses, skin = torch.from_numpy(data["object_pose"]).float(), data["closest_skin"]
    mesh = object_for(folder / f"{NAME}.ply", inside.side)
    pose = inside.transformed(poses[:, :3, :3], poses[:, :3, 3], model.root(inside))
    return Scene(pose, mesh, poses, skin < TOUCHES, model)


def held_out_scenes(model: HandModel, count: int) -> list[Scene]:
    """Motions made from grasps on held-out objects."""
    held_out = read_held_out(Path(__file__).with_name("pose_graph_held_out.npz"))
    scenes = []
    for k, (vertices, faces) in enumerate(held_out.meshes[:count]):
        mesh = ObjectMesh.from_any((vertices, faces), name=held_out.families[k])
        grasp = held_out.pose[int(np.flatnonzero(held_out.which == k)[0])]
        up = torch.tensor([0.0, 0.0, 1.0])
        motion = make_motion(model, grasp, mesh.points.mean(0), up, np.random.default_rng(k), MotionConfig())
        poses = motion.object_pose
        pose = motion.pose.transformed(poses[:, :3, :3], poses[:, :3, 3], model.root(motion.pose))
        scenes.append(Scene(pose, mesh, poses, motion.holding.numpy(), model))
    return scenes


def millimetres(first: np.ndarray, second: np.ndarray) -> float:
    return float(1e3 * np.linalg.norm(first - second, axis=-1).mean())


def acceleration(joints: np.ndarray, truth: np.ndarray) -> float:
    return millimetres(np.diff(joints, n=2, axis=0), np.diff(truth, n=2, axis=0))


def one_euro(points: np.ndarray, cutoff: float, fps: float = 30.0, slope: float = 5.0) -> np.ndarray:
    """Low-pass whose cutoff, Hz, grows with speed (per m/s, ``slope``)."""

    def share(frequency: np.ndarray | float) -> np.ndarray | float:
        return 1 / (1 + fps / (2 * np.pi * frequency))

    found, speed = [points[0]], np.zeros_like(points[0])
    for before, now in pairwise(points):
        speed = speed + share(1.0) * ((now - before) * fps - speed)
        found.append(found[-1] + share(cutoff + slope * np.abs(speed)) * (now - found[-1]))
    return np.stack(found)


def best_filter(joints: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The filtered joints that come nearest to the truth."""
    tried = [savgol_filter(joints, w, 2, axis=0) for w in WINDOWS] + [one_euro(joints, c) for c in CUTOFFS]
    return min(tried, key=lambda found: millimetres(found, truth))


def f1(found: np.ndarray, true: np.ndarray) -> float:
    return float(2 * (found & true).sum() / max(1, found.sum() + true.sum()))


def measure(scene: Scene, name: str, protocols: tuple[str, ...], frame_by_frame: bool) -> dict[str, float]:
    """Every protocol and kind of noise on one motion."""
    truth, figures, overlaps = scene.joints(scene.pose), {}, []
    for protocol in protocols:
        for kind, correlation in KINDS.items():
            if protocol == "none" and kind == "walk":
                continue
            noisy = scene.noisy(protocol, correlation)
            joints = scene.joints(noisy)
            result = scene.refine(noisy, protocol)
            after = result.joints_after.numpy()
            if protocol == "none":
                figures[f"{name}_none_change_mm"] = millimetres(after, joints)
                free = np.linalg.norm(after - joints, axis=-1).mean(1)[~scene.touching]
                figures[f"{name}_none_free_most_mm"] = float(1e3 * free.max(initial=0.0))
                continue
            smooth = best_filter(joints, truth)
            key = f"{name}_{protocol}_{kind}"
            figures |= {
                f"{key}_before_mm": millimetres(joints, truth),
                f"{key}_after_mm": millimetres(after, truth),
                f"{key}_filter_mm": millimetres(smooth, truth),
            }
            if frame_by_frame:
                single = refine_grasp(
                    noisy, scene.mesh, object_pose=scene.object_poses, input_error=PROTOCOLS[protocol]
                )
                figures[f"{key}_frames_mm"] = millimetres(scene.joints(single.pose), truth)
            if protocol == "image":
                overlaps.append(f1(result.holding.numpy() > 0.5, scene.touching))
                other = smooth if kind == "iid" else joints
                ratio = acceleration(after, truth) / acceleration(other, truth)
                figures[f"{name}_accel_ratio" + ("_walk" if kind == "walk" else "")] = ratio
            print(
                f"{key:28s}"
                + "".join(f" {k.split('_')[-2]} {v:5.1f}" for k, v in figures.items() if k.startswith(f"{key}_"))
            )
    return figures | {f"{name}_contact_f1": min(overlaps, default=float("nan"))}


def dropped(scene: Scene) -> float:
    """Error with a fifth of the frames missing, over that without, under image iid."""
    truth, noisy = scene.joints(scene.pose), scene.noisy("image", 0.0)
    gone = torch.from_numpy(np.random.default_rng(0).random(len(noisy)) < 0.2)
    holed = noisy.map(lambda t: t.masked_fill(gone.view(-1, *[1] * (t.ndim - 1)), torch.nan))
    whole, part = (millimetres(scene.refine(p, "image").joints_after.numpy(), truth) for p in (noisy, holed))
    return part / whole


def streamed(scene: Scene) -> float:
    """How far a stream with 15 frames of look-ahead is from the motion solved for as a whole, under image iid."""
    noisy = scene.noisy("image", 0.0)
    stream = SequenceStream(scene.mesh, input_error="image", look_ahead=15)
    parts = [stream.push(noisy[k], scene.object_poses[k]) for k in range(len(noisy))]
    joints = [part.joints_after.numpy() for part in (*parts, stream.finish()) if part is not None]
    return millimetres(np.concatenate(joints), scene.refine(noisy, "image").joints_after.numpy())


def seconds_a_frame(scene: Scene, length: int) -> float:
    """Of a motion of ``length`` frames: the scene's, there and back again."""
    count = len(scene.pose)
    there = np.abs((np.arange(length) + count - 1) % (2 * count - 2) - (count - 1))
    longer = scene[torch.from_numpy(there)]  # type: ignore[index]
    noisy = longer.noisy("image", 0.0)
    start = time.perf_counter()
    longer.refine(noisy, "image")
    return (time.perf_counter() - start) / length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few protocols, short motions")
    parser.add_argument("--frames", action="store_true", help="also refine_grasp, frame by frame")
    options = parser.parse_args()
    model, figures = load_open_hand(), {}
    protocols = QUICK if options.quick else tuple(p for p in PROTOCOLS if p not in ("contactopt", "camera-keypoints"))
    real = real_scene(model)
    if real is not None:
        real = real[:70] if options.quick else real
        figures |= measure(real, "taco", protocols, options.frames)
    made = held_out_scenes(model, 1 if options.quick else 6)
    for k, scene in enumerate(made):
        figures |= measure(scene, f"corpus{k}", ("image",) if options.quick else protocols, options.frames)
    main_scene, name = (real, "taco") if real is not None else (made[0], "corpus0")
    for key in ("accel_ratio", "accel_ratio_walk", "contact_f1"):
        figures[key] = figures[f"{name}_{key}"]
    figures["stream_mm"] = streamed(main_scene)
    if not options.quick:
        figures["dropped_ratio"] = dropped(main_scene)
    lengths = (30, 60) if options.quick else (30, 300, 3000)
    spent = [seconds_a_frame(main_scene, n) for n in lengths]
    figures |= {"frames_per_second": 1 / spent[-1], "linear_ratio": spent[-1] / spent[0]}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
