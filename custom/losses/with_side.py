"""A loss of classes and of the side of the body, which is a network's last output."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits


class WithSide(nn.Module):
    """Another loss on all outputs but the last, plus the binary cross-entropy of the last one.

    Sides are learned separately from classes. So mirrored scans need no other labels, and the left and the right half
    of a structure share their features.

    Args:
        loss: of logits (B, C, ...) and labels (B, 1, ...).
        weight: of the side.

    Shapes: logits (B, C + 1, x, y, z), the last one positive on the left; labels (B, 2, x, y, z): the class, and the
    side (0 none, not counted; 1 left; 2 right).
    """

    def __init__(self, loss: nn.Module, weight: float = 0.2) -> None:
        super().__init__()
        self.loss = loss
        self.weight = weight

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of logits (B, C + 1, x, y, z) and labels (B, 2, x, y, z)."""
        logits = logits.float()
        side = labels[:, 1]
        counts = (side > 0).float()
        left = (side == 1).float()
        each = binary_cross_entropy_with_logits(logits[:, -1], left, reduction="none")
        of_side = (each * counts).sum() / counts.sum().clamp_min(1)
        of_classes: torch.Tensor = self.loss(logits[:, :-1], labels[:, :1])
        return of_classes + self.weight * of_side
