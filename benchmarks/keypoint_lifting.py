"""From keypoints to a grasp: lifting networks compared, and what refinement adds to what they give.

    python benchmarks/keypoint_lifting.py               all held-out grasps, the ablation, DexYCB's human grasps
    python benchmarks/keypoint_lifting.py --quick       fewer grasps, no DexYCB, at most 45 s
    python benchmarks/keypoint_lifting.py --corpus runs/corpus --weights runs/pose_graph

Held-out objects, which no network was trained on, are seen by random cameras at 30 to 90 cm (focal length near 1,396
pixels) through a detector with 2 to 10 pixels of noise, missing keypoints and mix-ups (`pose_graph.cameras`). Each
network lifts the same keypoints. What JHOPE's module gives is then compared, in the object's frame,

- as it is ("graph"): hand by inverse kinematics from the 21 points, object by Kabsch from the 8;
- as `from_graph` starts from it ("start"), which also looks at the keypoints again;
- refined ("refined"): `refine_start` on that.

The grasps lie beside this file (`pose_graph_held_out.npz`, written by `regrasp pose-graph train`), or come from
--corpus. The last line of standard output is one JSON object; lengths in millimetres, drops as shares of the value
before.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from contact.corpus.held_out import read_held_out, write_held_out
from contact.objects import ObjectMesh
from contact.objects.box import box_corners
from hand_models import HandModel, HandPose, fit_joints, load_hand_model
from pose_graph.affinity import kabsch
from pose_graph.cameras import CameraConfig, GraspSet, sample
from pose_graph.graph import JOINTS
from pose_graph.lifting import lift
from pose_graph.train import evaluate
from pose_graph.weights import FOLDER, load_network
from refine.api import refine_start
from refine.config import RefineConfig
from refine.evidence.graph_points import from_graph
from refine.files.prediction_poses import into_object_frame
from refine.measure.contact import contact_ratio, penetration_depth
from refine.measure.joints import auc, mpcpe, mpjpe, pck

SEED = 0
HELD_OUT = Path(__file__).with_name("pose_graph_held_out.npz")
NETWORKS = ("context", "context_plain", "unet", "mlp")
RESOLUTION = 64
STAGES = ("graph", "start", "refined")


@dataclass(frozen=True)
class Grasps:
    """True grasps: joints ``(N, 21, 3)`` in the frame of the object ``which (N,)``."""

    objects: tuple[ObjectMesh, ...]
    which: Tensor
    joints: Tensor

    def points(self) -> GraspSet:
        """As the networks are given them."""
        corners = torch.stack([torch.from_numpy(box_corners(o.vertices)).float() for o in self.objects])
        box = (corners[:, 7] - corners[:, 0])[self.which]
        surface, normals = (torch.stack([getattr(o, n)[:512] for o in self.objects]) for n in ("points", "normals"))
        return GraspSet(torch.cat([self.joints, corners[self.which]], 1), self.which, box, surface, normals)


def held_out_grasps(file: Path, model: HandModel, objects: int | None, every: int) -> Grasps:
    """Of the file's grasps those of the first ``objects`` objects, one in ``every``."""
    held = read_held_out(file)
    count = len(held.meshes) if objects is None else min(objects, len(held.meshes))
    meshes = tuple(ObjectMesh.from_any(mesh, resolution=RESOLUTION) for mesh in held.meshes[:count])
    rows = np.flatnonzero(held.which < count)[::every]
    return Grasps(meshes, torch.from_numpy(held.which[rows]).long(), model.joints(held.pose[rows]))


def human_grasps(every: int) -> Grasps | None:
    """DexYCB's validation grasps, measured joints; None when the folder is not there."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "real"
    folder = Path(os.environ.get("REGRASP_REAL_DATA") or beside)
    if not (folder / "dexycb_val.npz").is_file():
        return None
    with np.load(folder / "dexycb_val.npz", allow_pickle=False) as data:
        object_id, joints = data["object_id"][::every], data["joints"][::every]
    names, which = np.unique(object_id, return_inverse=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanned objects are open here and there
        meshes = tuple(ObjectMesh.from_any(folder / "ycb" / f"{name}.ply", resolution=RESOLUTION) for name in names)
    return Grasps(meshes, torch.from_numpy(which).long(), torch.from_numpy(joints).float())


def lifting(grasps: Grasps, folder: Path, names: Sequence[str], views: int) -> dict[str, float]:
    """Errors of every network on the same views, ``<network>_<figure>``."""
    figures: dict[str, float] = {}
    data, camera = grasps.points(), CameraConfig()
    for name in names:
        network = load_network(folder / f"{name}.safetensors")
        scores = evaluate(network, data, camera, seed=SEED, views=views)
        figures |= {f"{name}_{key}": value for key, value in scores.items()}
        seen = sample(data, torch.arange(len(data)), camera, torch.Generator().manual_seed(SEED))
        found = lift(network, seen.keypoints, seen.cam_K, confidence=seen.confidence, box=data.box).points
        figures[f"{name}_pck_50mm"] = float(pck(found[:, :JOINTS], seen.points[:, :JOINTS], 0.05).mean())
        figures[f"{name}_auc_50mm"] = float(auc(found[:, :JOINTS], seen.points[:, :JOINTS]).mean())
    return figures


@dataclass(frozen=True)
class Scene:
    """Grasps on one object, as they are and as they were seen."""

    obj: ObjectMesh
    model: HandModel
    truth: np.ndarray
    """(n, 21, 3) joints, object frame"""
    points: np.ndarray
    """(n, 29, 3) camera frame"""

    @property
    def box(self) -> Tensor:
        """(8, 3) corners, object frame."""
        return torch.from_numpy(box_corners(self.obj.vertices)).float()

    def measure(self, pose: HandPose, object_pose: Tensor, joints: Tensor | None = None) -> dict[str, np.ndarray]:
        """Of hands and objects in the camera's frame, ``(n,)`` each; ``joints`` (object frame) where not the hand's."""
        hand = self.model(into_object_frame(pose, object_pose, self.model))
        corners = self.box @ object_pose[:, :3, :3].transpose(1, 2) + object_pose[:, None, :3, 3]
        return {
            "mpjpe_mm": 1000 * mpjpe(hand.joints if joints is None else joints, self.truth),
            "mpcpe_mm": 1000 * mpcpe(corners, self.points[:, JOINTS:]),
            "penetration_mm": 1000 * penetration_depth(hand.vertices, self.obj),
            "contact_ratio": contact_ratio(hand.vertices, self.obj),
        }


def as_lifted(points: Tensor, scene: Scene) -> dict[str, np.ndarray]:
    """What a network's points ``(n, 29, 3)`` say by themselves: inverse kinematics and Kabsch."""
    rotation, translation = kabsch(scene.box.expand(len(points), 8, 3), points[:, JOINTS:])
    object_pose = torch.eye(4).repeat(len(points), 1, 1)
    object_pose[:, :3, :3], object_pose[:, :3, 3] = rotation, translation
    joints = (points[:, :JOINTS] - translation[:, None]) @ rotation
    return scene.measure(fit_joints(points[:, :JOINTS], scene.model), object_pose, joints)


def refinement(grasps: Grasps, model: HandModel, weights: Path, config: RefineConfig) -> dict[str, float]:
    """Errors of hands relative to their objects, and contact, at every stage, ``<stage>_<figure>``."""
    network = load_network(weights)
    data = grasps.points()
    seen = sample(data, torch.arange(len(data)), CameraConfig(), torch.Generator().manual_seed(SEED))
    measured: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in (*STAGES, "object_moved")}
    kept = 0
    for k, obj in enumerate(grasps.objects):
        rows = (grasps.which == k).nonzero()[:, 0]
        if not len(rows):
            continue
        scene = Scene(obj, model, grasps.joints[rows].numpy(), seen.points[rows].numpy())
        keypoints, cam_K, confidence = seen.keypoints[rows], seen.cam_K[rows], seen.confidence[rows]
        raw = lift(network, keypoints, cam_K, confidence=confidence, box=data.box[rows]).points
        start = from_graph(keypoints, obj, cam_K=cam_K, confidence=confidence, hand_model=model, network=network)
        refined = refine_start(start, optimise_object=True, config=config, seed=SEED)
        found = {
            "graph": as_lifted(raw, scene),
            "start": scene.measure(start.hand_pose, start.object_pose),
            "refined": scene.measure(refined.result.pose, start.object_pose),
            "object_moved": scene.measure(refined.hand_pose, refined.object_pose),
        }
        for stage, values in found.items():
            for name, value in values.items():
                measured[stage].setdefault(name, []).append(value)
        kept += sum(status.value == "kept" for status in refined.result.status)
    figures: dict[str, float] = {"grasps": len(data), "kept": kept}
    for stage, values in measured.items():
        figures |= {f"{stage}_{name}": float(np.concatenate(value).mean()) for name, value in values.items()}
        figures[f"{stage}_mpjpe_median_mm"] = float(np.median(np.concatenate(values["mpjpe_mm"])))
    figures["refined_mpjpe_drop"] = 1 - figures["refined_mpjpe_mm"] / figures["graph_mpjpe_mm"]
    figures["penetration_drop"] = 1 - figures["refined_penetration_mm"] / max(figures["graph_penetration_mm"], 1e-9)
    figures["contact_ratio"] = figures["refined_contact_ratio"]
    return figures


def report(lifted: dict[str, float], names: Sequence[str], refined: dict[str, dict[str, float]]) -> str:
    """The figures as tables for people."""
    rows = (
        "mpjpe_mm",
        "mpcpe_mm",
        "mpjpe_wrist_mm",
        "mpjpe_object_mm",
        "inside_mm",
        "depth_mm",
        "inside_share",
        "pck_50mm",
        "auc_50mm",
        "sigma_ratio",
    )
    lines = [f"{'lifting, held-out objects':28}" + "".join(f"{n:>15}" for n in names)]
    lines += [f"  {row:26}" + "".join(f"{lifted[f'{n}_{row}']:15.2f}" for n in names) for row in rows]
    if {"context", "context_plain"} <= set(names):
        changes = (
            f"{label} {100 * (lifted[f'context_{row}'] / max(lifted[f'context_plain_{row}'], 1e-9) - 1):+.1f} %"
            for label, row in (("mean depth", "depth_mm"), ("joints inside", "inside_share"), ("MPJPE", "mpjpe_mm"))
        )
        lines.append(f"  what the affinity loss changes: {', '.join(changes)}")
    for title, figures in refined.items():
        head = f"{title}, {figures['grasps']} grasps"
        lines.append(f"{head:28}" + "".join(f"{stage:>15}" for stage in STAGES))
        for row in ("mpjpe_mm", "mpjpe_median_mm", "mpcpe_mm", "penetration_mm", "contact_ratio"):
            lines.append(f"  {row:26}" + "".join(f"{figures[f'{s}_{row}']:15.2f}" for s in STAGES))
        lines.append(
            f"  joint error falls by {100 * figures['refined_mpjpe_drop']:.0f} %, penetration by "
            f"{100 * figures['penetration_drop']:.0f} %; with the object moved too its corners are off by "
            f"{figures['object_moved_mpcpe_mm']:.1f} mm; {figures['kept']} kept"
        )
    return "\n".join(lines)


def benchmark(options: argparse.Namespace) -> dict[str, float]:
    """Everything; the figures by name."""
    model = load_hand_model("open")
    names = [n for n in NETWORKS if (options.weights / f"{n}.safetensors").is_file()]
    with tempfile.TemporaryDirectory() as temporary:
        file = HELD_OUT
        if options.corpus is not None:
            file = write_held_out(options.corpus, Path(temporary) / "held_out.npz", objects=40, grasps=16)
        grasps = held_out_grasps(file, model, 6 if options.quick else None, 2 if options.quick else 1)
    lifted = lifting(grasps, options.weights, names, 2 if options.quick else 8)
    config = RefineConfig(volumes=False, weights=options.contact_weights)
    context = options.weights / "context.safetensors"
    refined = {"held-out objects": refinement(grasps, model, context, config)}
    human = None if options.quick else human_grasps(1)
    if human is not None:
        refined["DexYCB"] = refinement(human, model, context, config)
    print(report(lifted, names, refined))
    figures = {"lift_mpjpe_mm": lifted["context_mpjpe_mm"], "lift_mpcpe_mm": lifted["context_mpcpe_mm"]}
    for name, prefix in (("mlp", "lift_{}_mlp_mm"), ("unet", "lift_{}_unet_mm"), ("context_plain", "lift_{}_plain_mm")):
        if name in names:
            figures |= {prefix.format(m): lifted[f"{name}_{m}_mm"] for m in ("mpjpe", "mpcpe")}
    if "context_plain" in names:
        figures["affinity_inside_mm"] = lifted["context_inside_mm"]
        figures["affinity_inside_plain_mm"] = lifted["context_plain_inside_mm"]
    figures |= refined["held-out objects"]
    figures |= {f"dexycb_{key}": value for key, value in refined.get("DexYCB", {}).items()}
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer grasps, no DexYCB")
    parser.add_argument("--corpus", type=Path, help="take held-out grasps from this corpus")
    parser.add_argument("--weights", type=Path, default=FOLDER, help="folder with lifting weights; the shipped ones")
    parser.add_argument("--contact-weights", type=Path, help="of refinement; the shipped ones")
    arguments = parser.parse_args()
    try:
        result = benchmark(arguments)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in result.items()}))
