"""What a run takes from the machine that it is on: the type of mixed precision, and processes for the data."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path

import torch

MOST_WORKERS = 8
SHARED_MEMORY = Path("/dev/shm")  # here a worker leaves its batches for the main process
BYTES_PER_WORKER = 500_000_000  # two batches, the largest of the bundles: whole scans of four channels


def amp_dtype() -> torch.dtype:
    """The type of mixed precision on CUDA: bfloat16 where the GPU computes in it, float16 elsewhere.

    bfloat16 has the range of float32, so that nothing overflows. GPUs before compute capability 8.0 only imitate it.
    """
    computes = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if computes else torch.float16


def num_workers(device: torch.device | str) -> int:
    """How many processes load and augment the data while the network runs on a device.

    On CUDA: one for each core that this process may use, without one for the process itself, 8 at most, and as many
    as the shared memory can serve. Processes that torchrun starts on one machine share its cores and its memory.

    On the CPU: 0, because the network needs the cores. Also 0 where processes do not start by a fork (Windows, and
    Python 3.14): each would receive its own copy of the data.

    Args:
        device: where the network runs.

    Returns:
        0 to 8.
    """
    if torch.device(device).type != "cuda" or multiprocessing.get_all_start_methods()[0] != "fork":
        return 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(0, min(MOST_WORKERS, _cores() // processes - 1, _free_shared_memory() // processes // BYTES_PER_WORKER))


def _cores() -> int:
    """The cores that this process may use: fewer than the machine's in a SLURM job or a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_shared_memory() -> int:
    """Bytes: 64 MB in a container by default, else half of the memory."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
