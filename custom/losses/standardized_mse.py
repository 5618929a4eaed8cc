"""Mean squared error of a target in any unit."""

from __future__ import annotations

import torch


class StandardizedMSELoss(torch.nn.MSELoss):
    """Mean squared error between an output in z-scores and a target in its own unit.

    So ages (years) and grip strengths (pounds) need the same learning rate.

    Args:
        scale: mean and standard deviation of the target in the training split.

    Shapes: output (B, 1) and target (B, 1) to a number.
    """

    def __init__(self, scale: tuple[float, float]) -> None:
        super().__init__()
        self.mean, self.std = scale

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of an output (B, 1) in z-scores and a target (B, 1) in its own unit."""
        return super().forward(input, (target.to(input.dtype) - self.mean) / self.std)
