"""What meshes as people have them cost: closed, open, scanned, thin, flat, of many parts.

    python benchmarks/meshes.py            a scan of 1.3 million triangles, thirty-two grasps a mesh
    python benchmarks/meshes.py --quick    a scan of 0.3 million, eight grasps

Meshes are made here. Each is loaded, without the cache, and a hand measured and refined on it at random places;
memory is the most the process has held while the scan was loaded, in a process of its own. Printed are a table and,
last, one JSON object: `open_over_closed` (processor time of a grasp on the worst of the open meshes over that on the
closed one), `load_1m3_s` (the scan, from a .ply; with --quick of the smaller one), `load_1m3_cpu_s` (the same in
processor time), `peak_gb`, and `distance_error_mm` (the most that the scan's distances within half a millimetre of its
surface differ from those of all its triangles).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import trimesh

from contact.corpus.shapes import demo_shapes
from contact.objects import ObjectMesh
from contact.objects.cleaning import clean_mesh
from contact.objects.grid_build import build_grid
from hand_models import HandPose, load_open_hand
from refine import RefineConfig, refine_grasp

SEED = 0
NOISE = 1e-4
"""Metres, standard deviation of a scanned vertex along each axis."""


def without(mesh: trimesh.Trimesh, share: float) -> tuple[np.ndarray, np.ndarray]:
    """A mesh that lacks a share of its faces, one at least."""
    count = len(mesh.faces)
    gone = np.random.default_rng(SEED).choice(count, max(1, int(share * count)), replace=False)
    return np.asarray(mesh.vertices), np.delete(np.asarray(mesh.faces), gone, axis=0)


def scan(level: int) -> trimesh.Trimesh:
    """A dented ball of 10 cm, 20 · 4^level triangles, with a scanner's noise."""
    ball = trimesh.creation.icosphere(subdivisions=level)
    vertices = 0.05 * ball.vertices * (1 + 0.1 * np.sin(4 * ball.vertices[:, :1]))
    vertices = vertices + np.random.default_rng(SEED).normal(0, NOISE, vertices.shape)
    return trimesh.Trimesh(vertices, ball.faces, process=False)


def meshes() -> dict[str, trimesh.Trimesh | tuple[np.ndarray, np.ndarray]]:
    """Small meshes by what they are."""
    mug = demo_shapes()["mug"]
    square = np.array([[-0.05, -0.05, 0], [0.05, -0.05, 0], [0.05, 0.05, 0], [-0.05, 0.05, 0]])
    parts = [trimesh.creation.icosphere(subdivisions=2, radius=0.02) for _ in range(12)]
    for k, part in enumerate(parts):
        part.apply_translation([0.025 * (k % 4), 0.025 * (k // 4), 0])
    return {
        "closed": mug,
        "one triangle missing": without(mug, 0.0),
        "5 % missing": without(mug, 0.05),
        "thin": trimesh.creation.cylinder(0.06, 0.003),
        "flat": (square, np.array([[0, 1, 2], [0, 2, 3]])),
        "many parts": trimesh.util.concatenate(parts),
    }


def seconds_a_grasp(objects: list[ObjectMesh], count: int) -> list[float]:
    """Processor time of refining a hand, by itself and with all that is measured of it, on each of the objects: the
    median of ``count`` hands, the objects taken in turn."""
    model, rng = load_open_hand(), np.random.default_rng(SEED)
    taken = np.zeros((count, len(objects)))
    for row in range(-1, count):  # what is made once for an object is made before the first
        turn, near = (torch.from_numpy(rng.normal(size=(1, 3))).float() for _ in range(2))
        for column, obj in enumerate(objects):
            place = obj.points[row % len(obj.points)] + 0.02 * near
            pose = replace(HandPose.zeros(1), global_orient=turn)
            pose = replace(pose, transl=place - model(pose).joints[:, 9])
            started = time.process_time()
            refine_grasp(pose, obj, config=RefineConfig(volumes=True))
            taken[row, column] = time.process_time() - started if row >= 0 else 0
    return np.median(taken, axis=0).tolist()


def load_child(path: str) -> None:
    """Load a mesh in this process and say how long it took and what was held."""
    ObjectMesh.from_any(trimesh.creation.box((0.1, 0.1, 0.1)), cache=False)  # imports
    started, busy = time.perf_counter(), time.process_time()
    ObjectMesh.from_any(path, cache=False)
    taken = {"seconds": time.perf_counter() - started, "busy": time.process_time() - busy}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps(taken | {"gb": peak / 1e9}))


def distance_error(mesh: trimesh.Trimesh, points: int = 20_000) -> float:
    """Metres, the most within half a millimetre of the surface, against a grid of all triangles."""
    vertices, faces, closed = clean_mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    whole = build_grid(vertices, faces, closed=closed, cache=False)
    obj = ObjectMesh.from_any(mesh, cache=False)
    rng = np.random.default_rng(SEED)
    corners = vertices[faces[rng.choice(len(faces), points)]]
    near = np.einsum("nk,nkd->nd", rng.dirichlet((1, 1, 1), points), corners)
    near += rng.uniform(-5e-4, 5e-4, near.shape) / np.sqrt(3)
    query = torch.from_numpy(near).float()[None]
    return float((obj.grid.query(query)[0] - whole.query(query)[0]).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load_child(options.load)
        return
    warnings.simplefilter("ignore", UserWarning)  # that a mesh is open is what is tried
    grasps = 8 if options.quick else 32
    print("| mesh | triangles | load, s | a grasp, s |\n|---|---|---|---|")
    objects, loads = {}, {}
    for name, mesh in meshes().items():
        started = time.perf_counter()
        objects[name] = ObjectMesh.from_any(mesh, cache=False)
        loads[name] = time.perf_counter() - started
    seconds = dict(zip(objects, seconds_a_grasp(list(objects.values()), grasps), strict=True))
    for name, obj in objects.items():
        print(f"| {name} | {len(obj.faces)} | {loads[name]:.2f} | {seconds[name]:.3f} |")
    scanned = scan(7 if options.quick else 8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.ply"
        scanned.export(path)
        command = [sys.executable, __file__, "--load", str(path)]
        loaded = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    print(f"| noisy scan | {len(scanned.faces)} | {loaded['seconds']:.2f} | |", flush=True)
    worst = max(seconds["one triangle missing"], seconds["5 % missing"])
    figures = {
        "open_over_closed": round(worst / seconds["closed"], 2),
        "load_1m3_s": round(loaded["seconds"], 2),
        "load_1m3_cpu_s": round(loaded["busy"], 2),
        "peak_gb": round(loaded["gb"], 2),
        "distance_error_mm": round(1000 * distance_error(scanned), 4),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
