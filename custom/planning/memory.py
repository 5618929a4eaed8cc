"""How much memory a machine has, and how much a training step takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from custom.networks.cost import without_values

SHARE = {"cuda": 0.8, "cpu": 0.4}  # of the memory, for one training step; the rest is for the data and for others
_CGROUP = Path("/sys/fs/cgroup/memory.max")  # the limit of a container or a SLURM job


@dataclass(frozen=True)
class Machine:
    """Where the network will run.

    Args:
        kind: "cuda" or "cpu".
        memory: of the GPU or of the machine, in bytes.
    """

    kind: str
    memory: int

    @property
    def budget(self) -> int:
        """Bytes for one training step."""
        return int(self.memory * SHARE[self.kind])


def this_machine() -> Machine:
    """The first GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return Machine("cuda", int(torch.cuda.get_device_properties(0).total_memory))
    return Machine("cpu", memory_of_cpu())


def memory_of_cpu() -> int:
    """Bytes of the machine, or of its container or SLURM job."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 * 2**30
    limit = _CGROUP.read_text(encoding="utf-8").strip() if _CGROUP.is_file() else ""
    return min(memory, int(limit)) if limit.isdigit() else memory


def step_bytes(network: nn.Module, shape: Sequence[int]) -> int:
    """The memory of one training step in float32: what the network keeps for the backward pass, and its weights.

    Nothing is computed: the network runs on torch's meta device, and the tensors that autograd keeps are counted. The
    weights count four times: themselves, their gradients, and two moments of Adam.

    Args:
        network: any network that runs on the meta device.
        shape: of the input, (B, C, x, y, z).
    """
    twin = without_values(network).train()
    own = {id(parameter) for parameter in twin.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if id(tensor) not in own and not (tensor.is_leaf and tensor.requires_grad):
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = twin(torch.zeros(tuple(shape), device="meta"))
    outputs = output if isinstance(output, (list, tuple)) else [output]
    weights = sum(parameter.numel() * 4 for parameter in twin.parameters())
    activations = sum(int(storage.nbytes()) for storage in kept.values())
    return activations + 4 * weights + sum(8 * int(tensor.numel()) for tensor in outputs)
