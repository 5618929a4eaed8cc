"""The loss of networks that, while they train, give more than logits."""

from __future__ import annotations

import torch
from torch import nn


class WithAuxiliary(nn.Module):
    """Another loss, plus what a network's second output in training costs; without one, the other loss alone.

    A second output with the logits' shape goes through the same loss (deep supervision, Lee et al. 2015); a single
    number is a penalty that the network has weighted already (an autoencoder's, Myronenko 2018).

    Args:
        loss: of logits (B, C, ...) and labels (B, 1, ...).
        weight: of auxiliary logits, 0 or more.

    Shapes: logits, or (logits, auxiliary logits), or (logits, penalty); labels; to the loss's own.

    Raises:
        ValueError: a weight below 0; a second output of another shape.
    """

    def __init__(self, loss: nn.Module, weight: float = 0.5) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"weight must be 0 or more, got {weight!r}.")
        self.loss = loss
        self.weight = weight

    def forward(self, output: torch.Tensor | tuple[torch.Tensor, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        if isinstance(output, torch.Tensor):
            return self.loss(output, labels)
        logits, second = output
        if second.ndim == 0:
            return self.loss(logits, labels) + second
        if second.shape != logits.shape:
            raise ValueError(
                f"A second output must be one number or of the logits' shape {tuple(logits.shape)}, "
                f"got {tuple(second.shape)}."
            )
        return self.loss(logits, labels) + self.weight * self.loss(second, labels)
