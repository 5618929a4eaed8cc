"""The sizes that a network's convolutions meet, seen on a copy that is thrown away."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import nn

from custom.networks.cost import dry_run


class Convolution(NamedTuple):
    """Spatial sizes of one convolution in one pass."""

    kernel: tuple[int, ...]
    entering: tuple[int, ...]
    leaving: tuple[int, ...]


def convolutions(network: nn.Module, inputs: torch.Tensor) -> list[Convolution]:
    """Every convolution of a pass of `inputs` (B, C, ...), in order; the network and its statistics are left alone."""
    met: list[Convolution] = []

    def look(layer: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        kernel = cast(tuple[int, ...], layer.kernel_size)
        met.append(Convolution(kernel, tuple(args[0].shape[2:]), tuple(output.shape[2:])))

    dry_run(getattr(network, "module", network), inputs, look)  # DistributedDataParallel keeps it in .module
    return met
