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

    def meet(twin: nn.Module, given: torch.Tensor) -> list[Convolution]:
        met: list[Convolution] = []

        def look(layer: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            kernel = cast(tuple[int, ...], layer.kernel_size)
            met.append(Convolution(kernel, tuple(args[0].shape[2:]), tuple(output.shape[2:])))

        for layer in twin.modules():
            if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
                layer.register_forward_hook(look)
        twin(given)
        return met

    return dry_run(getattr(network, "module", network), inputs, meet)  # DistributedDataParallel keeps it in .module
