"""Processor time, memory and disk of each command on small data, one after another: the table of docs/hospital-it.md.

python scripts/benchmarks/commands.py [FOLDER]

"Processor seconds" are those of all its threads; they depend little on what else the machine does. "Memory" is the
greatest resident memory of any one process of the command. "Written" is what the command left on disk.
Trainings run for one epoch: a real one takes hours, and the same memory.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

COMMANDS = (
    "sample mni152 head",
    "segment head --output_dir labels",
    "segment head --output_dir all --outputs tissues,structures,mask,brain,probabilities",
    "sample iseg infants",
    "verify iseg infants",
    "train iseg --dataset_dir infants --output_dir run --max_epochs 1 --roi_size [64,64,64]",
    "evaluate iseg --dataset_dir infants --output_dir run --roi_size [64,64,64]",
    "infer iseg --dataset_dir infants --output_dir run --split test --roi_size [64,64,64]",
    "export iseg --output_dir run --roi_size [64,64,64]",
    "pack iseg --output_dir run --roi_size [64,64,64]",
    "report iseg --dataset_dir infants --output_dir run --roi_size [64,64,64]",
)


def size_mb(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def measured(command: str, folder: Path) -> str:
    """Runs one command in a folder; returns its row of the table."""
    before = size_mb(folder)
    words = [sys.executable, "-m", "custom.cli", *shlex.split(command), "--quiet"]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)  # memory of the process and of the children that it waited for
    seconds = usage.ru_utime + usage.ru_stime
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"brainmri {command} failed.")
    return f"| `brainmri {command}` | {seconds:.0f} | {usage.ru_maxrss / 1e6:.2f} | {size_mb(folder) - before:.1f} |"


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        print("| command | processor seconds | memory, GB | written, MB |\n|---|---|---|---|")
        for command in COMMANDS:
            print(measured(command, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
