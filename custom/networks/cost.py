"""What a network costs, without computing it: torch's meta device knows shapes only."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def without_values(network: nn.Module) -> nn.Module:
    """A copy for evaluation on torch's meta device: it takes and gives tensors that have a shape and no values."""
    return copy.deepcopy(network).to("meta").eval()


def dry_run(network: nn.Module, inputs: torch.Tensor, hook: Callable[..., None] | None = None) -> torch.Tensor:
    """What a copy of a network gives for `inputs` in evaluation: shapes only, or values where it can't do without.

    Args:
        network: left alone, statistics too.
        inputs: (B, C, ...), on the network's device.
        hook: a forward hook for each convolution.
    """

    def run(twin: nn.Module, given: torch.Tensor) -> torch.Tensor:
        for layer in twin.modules():
            if hook and isinstance(layer, (nn.Conv2d, nn.Conv3d)):
                layer.register_forward_hook(hook)
        with torch.no_grad():
            return twin(given)

    try:
        return run(without_values(network), inputs.to("meta"))
    except RuntimeError:  # some networks look at values
        return run(copy.deepcopy(network).eval(), inputs)


def count_parameters(network: nn.Module) -> int:
    """Trainable ones; running statistics aren't counted."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def gflops(network: nn.Module, shape: Sequence[int]) -> float:
    """Of one pass of a tensor (B, C, ...), in 10^9, as torch.utils.flop_counter counts.

    Two for each multiplication and addition; convolutions, linear layers and attention only.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        without_values(network)(torch.empty(*shape, device="meta"))
    return round(counter.get_total_flops() / 1e9, 3)
