"""A loss for networks that return more than logits in training."""

from __future__ import annotations

import torch
from torch import nn


class WithAuxiliary(nn.Module):
    """Another loss, plus a term for a network's second output in training if it has one.

    A second output with the shape of the logits goes through the same loss (deep supervision, Lee et al. 2015). A
    single number is a penalty that the network has weighted already (of an autoencoder, Myronenko 2018).

    Args:
        loss: of logits (B, C, ...) and labels (B, 1, ...).
        weight: of auxiliary logits, 0 or more.

    Shapes: logits, or (logits, auxiliary logits), or (logits, penalty), and labels, to the other loss's shape.

    Raises:
        ValueError: a negative weight; a second output of another shape.
    """

    def __init__(self, loss: nn.Module, weight: float = 0.5) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"weight must be 0 or more, got {weight!r}.")
        self.loss = loss
        self.weight = weight

    def forward(self, output: torch.Tensor | tuple[torch.Tensor, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """The loss of logits (B, C, ...) or a pair, and labels (B, 1, ...)."""
        logits, second = (output, None) if isinstance(output, torch.Tensor) else output
        loss: torch.Tensor = self.loss(logits, labels)
        if second is None:
            return loss
        if second.ndim == 0:
            return loss + second
        if second.shape != logits.shape:
            raise ValueError(
                f"A second output must be one number or of the logits' shape {tuple(logits.shape)}, "
                f"got {tuple(second.shape)}."
            )
        auxiliary: torch.Tensor = self.loss(second, labels)
        return loss + self.weight * auxiliary
