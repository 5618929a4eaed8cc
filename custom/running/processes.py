"""A run in several processes, one for each GPU, started by torchrun."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

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
    """Leaves the group."""
    distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", 0)) == 0


def on_first(handlers: Sequence[Any]) -> list[Any] | None:
    """The handlers on the first process, None on the others: for handlers that only print or write."""
    return list(handlers) if is_first() else None
