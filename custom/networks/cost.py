"""Parameters and GFLOPs of a network, counted from shapes (torch's meta device) without computing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Result = TypeVar("Result")


def without_values(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode on torch's meta device: its tensors have a shape and no values."""
    return copy.deepcopy(network).to("meta").eval()


def dry_run(network: nn.Module, inputs: torch.Tensor, use: Callable[[nn.Module, torch.Tensor], Result]) -> Result:
    """Calls `use` with a copy of a network and inputs: with shapes only, or with values if that fails.

    Args:
        network: it does not change, nor do its running statistics.
        inputs: (B, C, ...), on the network's device.
        use: a function of a copy in evaluation mode and the inputs.

    Returns:
        What `use` returns.
    """
    with torch.no_grad():
        try:
            return use(without_values(network), inputs.to("meta"))
        except RuntimeError:  # some networks need values
            return use(copy.deepcopy(network).eval(), inputs)


def count_parameters(network: nn.Module) -> int:
    """The number of trainable parameters, without running statistics."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def gflops(network: nn.Module, shape: Sequence[int]) -> float:
    """GFLOPs of one pass of a tensor of shape (B, C, ...), as torch.utils.flop_counter counts them.

    A multiplication and addition count as two; only convolutions, linear layers and attention count.
    """

    def count(twin: nn.Module, window: torch.Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            twin(window)
        return int(counter.get_total_flops())

    window = torch.zeros(*shape, device=next(network.parameters()).device)
    return round(dry_run(network, window, count) / 1e9, 3)
