"""A run in several processes, one for each GPU, started by torchrun."""

from __future__ import annotations

import os

import torch
from torch import distributed


def local_device() -> torch.device:
    """This process's GPU, or the CPU where there is none."""
    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")


def start() -> None:
    """Joins the group that torchrun announces: NCCL on CUDA, gloo on the CPU."""
    if torch.cuda.is_available():
        torch.cuda.set_device(local_device())
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def stop() -> None:
    distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", 0)) == 0
