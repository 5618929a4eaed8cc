"""The kernel, input and output sizes of a network's convolutions, seen on a copy that is thrown away."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import nn

from custom.networks.cost import dry_run


class Convolution(NamedTuple):
    """Spatial sizes of one convolution in one pass."""

    kernel: tuple[int, ...]
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]


def convolutions(network: nn.Module, inputs: torch.Tensor) -> list[Convolution]:
    """Every convolution of a pass of `inputs` (B, C, ...), in order; the network and its statistics do not change."""

    def record(twin: nn.Module, window: torch.Tensor) -> list[Convolution]:
        layers: list[Convolution] = []

        def keep_sizes(layer: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            kernel = cast(tuple[int, ...], layer.kernel_size)
            layers.append(Convolution(kernel, tuple(args[0].shape[2:]), tuple(output.shape[2:])))

        for layer in twin.modules():
            if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
                layer.register_forward_hook(keep_sizes)
        twin(window)
        return layers

    return dry_run(getattr(network, "module", network), inputs, record)  # inside DistributedDataParallel
