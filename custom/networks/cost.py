"""What a network costs, without computing it: torch's meta device knows shapes only."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Found = TypeVar("Found")


def without_values(network: nn.Module) -> nn.Module:
    """A copy for evaluation on torch's meta device: it takes and gives tensors that have a shape and no values."""
    return copy.deepcopy(network).to("meta").eval()


def dry_run(network: nn.Module, inputs: torch.Tensor, use: Callable[[nn.Module, torch.Tensor], Found]) -> Found:
    """What `use` finds out with a copy of a network and inputs: of shapes only, or of values where it can't do without.

    Args:
        network: left alone, statistics too.
        inputs: (B, C, ...), on the network's device.
        use: is called with a copy for evaluation, and the inputs; a second time, with values, if the first one fails.
    """
    with torch.no_grad():
        try:
            return use(without_values(network), inputs.to("meta"))
        except RuntimeError:  # some networks look at values
            return use(copy.deepcopy(network).eval(), inputs)


def count_parameters(network: nn.Module) -> int:
    """Trainable ones; running statistics aren't counted."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def gflops(network: nn.Module, shape: Sequence[int]) -> float:
    """Of one pass of a tensor (B, C, ...), in 10^9, as torch.utils.flop_counter counts.

    Two for each multiplication and addition; convolutions, linear layers and attention only.
    """

    def count(twin: nn.Module, given: torch.Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            twin(given)
        return counter.get_total_flops()

    window = torch.zeros(*shape, device=next(network.parameters()).device)
    return round(dry_run(network, window, count) / 1e9, 3)
