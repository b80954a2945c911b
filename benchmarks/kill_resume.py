"""Whether anything is lost when a run is killed again and again: kill -9, resume, compare with an undisturbed run.

    python benchmarks/kill_resume.py            2,000 rows, killed at ten random moments
    python benchmarks/kill_resume.py --quick    200 rows, killed three times, at most 45 s

The moments are drawn uniformly over the work of the undisturbed run, and each run carries on from what the
killed one left. Rows are made cheap as in `batch_throughput.py`. The last line of standard output is one JSON
object: `rows_lost` (rows of the undisturbed results that are missing or differ), `rows_doubled`, `files_equal`
(whether the result files are the same to the byte), `kills`, and `kills_while` by what the run was at.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from batch_throughput import config_for, environment, refine_file, write_inputs

ROWS, KILLS = 2_000, 10
QUICK_ROWS, QUICK_KILLS = 200, 3
SHARD_ROWS = 32
NAME = "rows"


def child(folder: Path, out: Path) -> None:
    """One run of the command's engine, carrying on where there is something to carry on."""
    from refine.batch import Execution, refine_files
    from refine.files.input_files import find_inputs

    config = config_for(folder, shard_rows=SHARD_ROWS)
    import refine.api  # noqa: F401 - its import is the start of a process, not work on rows

    print("ready", flush=True)
    list(refine_files(find_inputs([folder / f"{NAME}.npz"]), out, config, Execution()))


def start(folder: Path, out: Path) -> subprocess.Popen[str]:
    """A run that has just begun its work."""
    command = [sys.executable, __file__, "--child", str(folder), str(out)]
    process = subprocess.Popen(command, env=environment(folder), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", "the run did not start"
    return process


def undisturbed(folder: Path, out: Path) -> float:
    """Seconds of work of a whole run."""
    process = start(folder, out)
    began = time.perf_counter()
    if process.wait():
        raise RuntimeError("the undisturbed run failed")
    return time.perf_counter() - began


def stage(out: Path) -> str:
    """What a run that was killed had been at, by what it left."""
    folders = list(out.glob("*.shards/*"))
    if not folders or not (folders[0] / "manifest.json").is_file():
        return "cutting up"
    if len(list(folders[0].glob("*.rows.npz"))) > len(list(folders[0].glob("[0-9]*[0-9].json"))):
        return "refining"
    return "putting together"


def disturbed(folder: Path, out: Path, moments: np.ndarray) -> Counter[str]:
    """Run up to each moment (seconds of work, rising), kill, carry on; in the end let it finish."""
    stages: Counter[str] = Counter()
    for delay in np.diff(moments, prepend=0.0):
        process = start(folder, out)
        time.sleep(float(delay))
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            stages[stage(out)] += 1
    if start(folder, out).wait():
        raise RuntimeError("the last run failed")
    return stages


def compare(wanted: Path, got: Path) -> dict[str, Any]:
    """Rows lost, doubled or changed, by frame."""
    from refine.files.prediction_files import read_predictions

    first, second = (read_predictions(path / f"{NAME}.refined.npz") for path in (wanted, got))
    place = {frame: row for row, frame in enumerate(second.frame_id.tolist())}
    lost = 0
    for row, frame in enumerate(first.frame_id.tolist()):
        other = place.get(frame)
        same = other is not None and all(
            np.array_equal(value[row], second.column(name)[other], equal_nan=value.dtype.kind == "f")
            for name, value in first.columns().items()
        )
        lost += not same
    return {
        "rows_lost": lost,
        "rows_doubled": len(second) - len(place),
        "files_equal": (wanted / f"{NAME}.refined.npz").read_bytes() == (got / f"{NAME}.refined.npz").read_bytes(),
        "left_over": sorted(p.name for p in got.iterdir() if "refined" not in p.name and "summary" not in p.name),
    }


def main(quick: bool) -> dict[str, Any]:
    """Run everything; the figures."""
    rows, kills = (QUICK_ROWS, QUICK_KILLS) if quick else (ROWS, KILLS)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, {NAME: rows, "warm": 2})
        refine_file(folder, "warm", folder / "warm", config_for(folder))
        seconds = undisturbed(folder, folder / "undisturbed")
        moments = np.sort(np.random.default_rng(time.time_ns()).uniform(0, seconds, kills))
        stages = disturbed(folder, folder / "killed", moments)
        found = compare(folder / "undisturbed", folder / "killed")
    return {
        "rows": rows,
        "kills": sum(stages.values()),
        "kills_while": dict(stages),
        **found,
        "seconds_undisturbed": round(seconds, 2),
        "seconds": round(time.perf_counter() - began, 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rows and kills, same code")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*map(Path, arguments.child))
    else:
        figures = main(arguments.quick)
        for key, value in figures.items():
            print(f"{key:<20} {value}")
        print(json.dumps(figures))
