"""Several networks of one architecture as one."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ensemble(nn.Module):
    """The mean of the logits of several networks: the geometric mean of their probabilities, up to a factor.

    Args:
        member: a network; `count` copies of it are made, which load weights of their own.
        count: number of networks, 1 or more.

    Shapes: those of the member.
    """

    def __init__(self, member: nn.Module, count: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(copy.deepcopy(member) for _ in range(count))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The mean logits (B, classes, ...) of an image (B, C, ...)."""
        logits: list[torch.Tensor] = []
        for member in self.members:
            logits.append(member(image))  # noqa: PERF401  # TorchScript knows no comprehension over modules
        return torch.stack(logits).mean(dim=0)


def ensemble_state(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The weights of an Ensemble from those of its members."""
    return {f"members.{number}.{name}": tensor for number, state in enumerate(states) for name, tensor in state.items()}
