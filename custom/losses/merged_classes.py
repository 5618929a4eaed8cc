"""A loss for labels that are unions of a network's classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class MergedClasses(nn.Module):
    """Another loss, on labels that each unite several classes of a network.

    The logit of a union of exclusive classes is the logarithm of the sum of their exponentials. So a network with
    sixteen structures learns from tissue labels, and still separates the structures.

    Args:
        loss: of logits (B, K, ...) and labels (B, 1, ...) with K labels.
        groups: for each label, the numbers of the network's classes that belong to it; None if classes are labels.

    Shapes: logits (B, C, ...) and labels (B, 1, ...) to the shape that the other loss returns.
    """

    def __init__(self, loss: nn.Module, groups: Sequence[Sequence[int]] | None) -> None:
        super().__init__()
        self.loss = loss
        self.groups = groups

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of logits (B, C, ...) and labels (B, 1, ...)."""
        if self.groups is not None:
            logits = torch.stack([logits[:, list(group)].logsumexp(dim=1) for group in self.groups], dim=1)
        loss: torch.Tensor = self.loss(logits, labels)
        return loss
