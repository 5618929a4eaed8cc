"""What a run takes from its machine. The machines are described by hand: no GPU is needed here."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from custom.running import hardware


@pytest.mark.parametrize(
    ("gpu", "capability", "dtype"),
    [
        (False, None, torch.float16),
        (True, (7, 0), torch.float16),  # V100: torch only imitates bfloat16
        (True, (7, 5), torch.float16),  # T4
        (True, (8, 0), torch.bfloat16),  # A100
        (True, (9, 0), torch.bfloat16),  # H100
    ],
)
def test_mixed_precision_has_the_type_that_the_gpu_computes_in(
    gpu: bool, capability: tuple[int, int] | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    if capability is not None:
        properties = type("Properties", (), {"major": capability[0], "minor": capability[1]})
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert hardware.amp_dtype() == dtype


GB = 10**9


@pytest.mark.parametrize(
    ("device", "cores", "shared", "processes", "workers"),
    [
        ("cpu", 16, 32 * GB, None, 0),
        (torch.device("cpu"), 16, 32 * GB, None, 0),
        ("cuda", 16, 32 * GB, None, 8),
        (torch.device("cuda:1"), 6, 32 * GB, None, 5),
        ("cuda", 1, 32 * GB, None, 0),
        ("cuda", 16, 64_000_000, None, 0),  # a container's default
        ("cuda", 16, 2 * GB, None, 4),
        ("cuda", 16, 32 * GB, "4", 3),  # torchrun: 4 cores each
        ("cuda", 64, 8 * GB, "4", 4),  # and 2 GB each
        ("cuda", 2, 32 * GB, "4", 0),
    ],
)
def test_workers(
    device: torch.device | str,
    cores: int,
    shared: int,
    processes: str | None,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["fork", "spawn"])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(hardware, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=shared if path == tmp_path else 0))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert hardware.num_workers(device) == workers


def test_no_workers_where_they_do_not_share_the_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hardware, "BYTES_PER_WORKER", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["fork", "spawn"])
    monkeypatch.setattr(hardware, "SHARED_MEMORY", tmp_path)
    assert hardware.num_workers("cuda") == 1
    monkeypatch.setattr(hardware, "SHARED_MEMORY", tmp_path / "not there")
    assert hardware.num_workers("cuda") == 0
    monkeypatch.setattr(hardware, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["forkserver", "fork"])
    assert hardware.num_workers("cuda") == 0
