"""Cross-entropy of cells whose voxels have labels of their own."""

from __future__ import annotations

import torch
from torch import nn


class SubvoxelCrossEntropy(nn.Module):
    """Mean cross-entropy over the labelled voxels of all cells; voxels with label 0 do not count.

    One prediction of a cell is compared with each of its voxels: it learns the shares of their labels.

    Shapes: logits (B, C, x, y, z); labels (B, V, x, y, z), 0 to C - 1, the V voxels of each cell.
    """

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of logits (B, C, x, y, z) and labels (B, V, x, y, z); 0 if no voxel has a label."""
        counts = (labels > 0).float()
        log_likelihood = logits.float().log_softmax(dim=1).gather(1, labels.long())
        return -(log_likelihood * counts).sum() / counts.sum().clamp_min(1)
