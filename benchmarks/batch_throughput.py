"""Whether speed and memory stay the same as files grow, and what a second Ray worker brings.

    python benchmarks/batch_throughput.py            100,000 rows against 1,000; Ray with two workers against one
    python benchmarks/batch_throughput.py --quick    600 rows against 150, at most 45 s

It is the engine that is measured, so rows are made cheap: a small network with random weights, one optimiser
step in each of the two solves, small meshes, no intersection volumes; one thread per process. Each run is a
process of its own, timed from the reading of the input to the last result on disk and without its start; the
small file is run before and after the large one. Ray's runs are timed when its workers have started.

The last line of standard output is one JSON object: `time_per_row_ratio` (large file to small one; wanted at
most 1.2), `peak_memory_mb` (of the large run; wanted below 2,000), `ray_speedup` (two workers to one; wanted at
least 1.7; null without Ray), and what they are made of in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

ROWS, SMALL, RAY_ROWS, RAY_SHARD = 100_000, 1_000, 4_000, 128
QUICK_ROWS, QUICK_SMALL, QUICK_RAY_ROWS, QUICK_RAY_SHARD = 600, 150, 300, 25
REPEATS = 3
OBJECTS = ("ball", "block")


def write_inputs(folder: Path, sizes: dict[str, int]) -> None:
    """Meshes, random weights, and files of so many rows: open hands strewn about the objects' surfaces."""
    import torch

    from contact.network import ContactNet, NetworkConfig
    from contact.weights import save_weights
    from refine.files.prediction_files import write_predictions
    from refine.files.predictions import Predictions

    (folder / "meshes").mkdir(parents=True, exist_ok=True)
    trimesh.creation.icosphere(subdivisions=2, radius=0.035).export(folder / "meshes" / "ball.ply")
    trimesh.creation.box((0.05, 0.06, 0.07)).export(folder / "meshes" / "block.ply")
    torch.manual_seed(0)
    network = ContactNet(NetworkConfig(fine=16, middle=16, token=16, layers=1, heads=2))
    save_weights(network, {"purpose": "benchmark of the batch engine"}, folder / "random.safetensors")
    rng = np.random.default_rng(0)
    for name, rows in sizes.items():
        columns: dict[str, Any] = {
            "object_id": np.resize(np.repeat(OBJECTS, 50), rows),  # as in recordings: runs of one object
            "side": "right",
            "hand_model": "open",
            "global_orient": rng.normal(0, 0.1, (rows, 3)),
            "hand_pose": rng.normal(0, 0.1, (rows, 15, 3)),
            "betas": np.zeros((rows, 10)),
            "transl": np.array([-0.02, 0.075, 0.0]) + rng.normal(0, 0.01, (rows, 3)),
        }
        write_predictions(folder / f"{name}.npz", Predictions.from_columns(columns))


def config_for(folder: Path, **options: Any) -> Any:
    """Two optimiser steps a row, and nothing that is not needed."""
    from hand_models.solver.least_squares import Termination
    from refine.batch.config import BatchConfig
    from refine.config import RefineConfig

    step = Termination(iterations=1)
    weights = folder / "random.safetensors"
    refine = RefineConfig(align=step, contact=step, volumes=False, weights=weights)
    return BatchConfig(objects=folder / "meshes", refine=refine, batch_size=64, **options)


def refine_file(folder: Path, name: str, out: Path, config: Any, **execution: Any) -> float:
    """Seconds that one file takes in this process."""
    from refine.batch import Execution, refine_files
    from refine.files.input_files import find_inputs

    started = time.perf_counter()
    (outcome,) = refine_files(
        find_inputs([folder / f"{name}.npz"]), out, config, Execution(overwrite=True, **execution)
    )
    assert outcome.summary is not None
    if outcome.summary["status"].get("failed"):
        raise RuntimeError(f"rows failed: {next(iter(outcome.summary['failures'].values()))}")
    return time.perf_counter() - started


def measured_alone(folder: Path, name: str) -> dict[str, float]:
    """Seconds and peak memory of one file in a fresh process."""
    command = [sys.executable, __file__, "--child", str(folder), name]
    done = subprocess.run(command, env=environment(folder), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def environment(folder: Path) -> dict[str, str]:
    """One thread, this checkout, and a grid cache of our own."""
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": os.pathsep.join(paths),
        "REGRASP_CACHE": str(folder / "cache"),
    }


def child(folder: Path, name: str) -> None:
    """Refine one file and print what it took, in a process of its own."""
    import resource

    import refine.api  # noqa: F401 - its import is the start of a process, not work on rows

    seconds = refine_file(folder, name, folder / "out", config_for(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(json.dumps({"seconds": seconds, "peak_memory_mb": peak}))


def ray_seconds(folder: Path, workers: int, shard_rows: int) -> float:
    """Seconds for the Ray file on so many workers that have done some rows before."""
    import ray

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        config = config_for(folder, shard_rows=shard_rows)
        refine_file(folder, "warm", folder / "ray", config, engine="ray")
        return refine_file(folder, "ray", folder / "ray", config, engine="ray")
    finally:
        ray.shutdown()


def ray_speedup(folder: Path, shard_rows: int) -> dict[str, float | None]:
    """Two workers against one."""
    try:
        import ray  # noqa: F401
    except ImportError:
        return {"ray_speedup": None, "ray_seconds_1": None, "ray_seconds_2": None}
    one, two = (ray_seconds(folder, workers, shard_rows) for workers in (1, 2))
    return {"ray_speedup": one / two, "ray_seconds_1": one, "ray_seconds_2": two}


def main(quick: bool) -> dict[str, Any]:
    """Run everything; the figures."""
    rows, small = (QUICK_ROWS, QUICK_SMALL) if quick else (ROWS, SMALL)
    ray_rows, ray_shard = (QUICK_RAY_ROWS, QUICK_RAY_SHARD) if quick else (RAY_ROWS, RAY_SHARD)
    repeats = 1 if quick else REPEATS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.update(environment(folder))
        sizes = {"small": small, "large": rows, "ray": ray_rows, "warm": 4 * ray_shard}
        write_inputs(folder, sizes)
        refine_file(folder, "warm", folder / "warm", config_for(folder))  # builds the distance grids
        before = [measured_alone(folder, "small") for _ in range(repeats)]
        large = measured_alone(folder, "large")
        after = [measured_alone(folder, "small") for _ in range(repeats)]
        seconds = statistics.median(run["seconds"] for run in before + after)
        result = {
            "rows": rows,
            "rows_small": small,
            "seconds": large["seconds"],
            "seconds_small": seconds,
            "ms_per_row": 1e3 * large["seconds"] / rows,
            "ms_per_row_small": 1e3 * seconds / small,
            "time_per_row_ratio": (large["seconds"] / rows) / (seconds / small),
            "peak_memory_mb": large["peak_memory_mb"],
            **ray_speedup(folder, ray_shard),
        }
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rows, same code")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "NAME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(Path(arguments.child[0]), arguments.child[1])
    else:
        figures = main(arguments.quick)
        for key, value in figures.items():
            print(f"{key:<20} {value}")
        print(json.dumps(figures))
