"""A loss for labels that are sums of the classes that a network tells apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class MergedClasses(nn.Module):
    """Another loss, on classes of which each is a sum of a network's own.

    The logit of a sum of exclusive classes is the logarithm of the sum of their exponentials. So a network that knows
    sixteen structures learns from tissue labels, and goes on telling structures apart.

    Args:
        loss: of logits (B, K, ...) and labels (B, 1, ...) with K labels.
        groups: for each label, the network's outputs that count to it; None where they are the labels already.

    Shapes: logits (B, C, ...), labels (B, 1, ...); to the loss's own.
    """

    def __init__(self, loss: nn.Module, groups: Sequence[Sequence[int]] | None) -> None:
        super().__init__()
        self.loss = loss
        self.groups = groups

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.groups is not None:
            logits = torch.stack([logits[:, list(group)].logsumexp(dim=1) for group in self.groups], dim=1)
        return self.loss(logits, labels)
