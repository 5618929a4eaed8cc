"""What a network costs, without running it: torch's meta device knows shapes only."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def without_values(network: nn.Module) -> nn.Module:
    """A copy for evaluation on torch's meta device: it takes and gives tensors that have a shape and no values."""
    return copy.deepcopy(network).to("meta").eval()


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
