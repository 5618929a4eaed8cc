"""Squared error of a number in any unit."""

from __future__ import annotations

import torch


class StandardizedMSELoss(torch.nn.MSELoss):
    """Mean squared error of an output in deviations from a mean, against a target in its own unit.

    So a network learns ages and grip strengths at one learning rate.

    Args:
        scale: the target's mean and deviation in the training split.

    Shapes: (B, 1) and (B, 1).
    """

    def __init__(self, scale: tuple[float, float]) -> None:
        super().__init__()
        self.mean, self.std = scale

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return super().forward(input, (target.to(input.dtype) - self.mean) / self.std)
