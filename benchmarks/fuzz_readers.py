"""Ten thousand damaged and odd files over all readers: the slow test of tests/test_fuzz.py, with its counts.

    python benchmarks/fuzz_readers.py                 10,000 files
    python benchmarks/fuzz_readers.py --quick         300 files
    python benchmarks/fuzz_readers.py --seed 7        others

Three quarters are files of every format with bytes, numbers or values damaged; a quarter has one damaged record among
several. Each must be read or refused by one of our errors, within five seconds, and have as many rows as it had records
or be refused. The last line of standard output is one JSON object: ``files``, ``unforeseen`` (other errors), ``lost``
(files with fewer rows than records), ``slowest_s`` (processor time).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = {"read", "lost", "ValueError", "UnsafePickleError", "FileNotFoundError", "MissingManoError"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="300 files")
    options = parser.parse_args()
    files = 300 if options.quick else options.files
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        told = {"FUZZ_FILES": str(files), "FUZZ_SEED": str(options.seed), "FUZZ_REPORT": str(report)}
        command = [sys.executable, "-m", "pytest", "-q", "-m", "slow", "-p", "no:cacheprovider", "tests/test_fuzz.py"]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | told, stdout=sys.stderr)
        if not report.is_file():
            return done.returncode or 1
        counts = json.loads(report.read_text())
    kinds = counts.pop("kinds")
    for kind, count in sorted(kinds.items(), key=lambda pair: -pair[1]):
        print(f"{count:6d}  {kind}")
    unforeseen = sum(count for kind, count in kinds.items() if kind not in OURS)
    print(json.dumps(counts | {"unforeseen": unforeseen}))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
