"""A dense network at full resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from custom.networks.dense import DenseBlock, pointwise

FEATURES = (25, 25, 25, 50, 50, 50, 75, 75, 75)


class SinglePathDenseNet(nn.Module):
    """One dense path for all modalities: a baseline of Dolz et al. 2019, "HyperDense-Net" (IEEE TMI), padded.

    Differences from MedicalZooPytorch: no ReLU on the image itself, which would drop values below the mean; ReLUs
    between the 1x1x1 convolutions, which are one linear map without; any number of modalities. Without pooling it needs
    much memory and has a context of 19 voxels.

    Args:
        in_channels: modalities.
        out_channels: classes.
        features: new channels of each layer of the dense block.
        dropout: probability, in the dense layers; 0.5 after the 1x1x1 convolutions.

    Shapes: (B, in_channels, H, W, D) of any size to logits (B, out_channels, H, W, D).
    """

    def __init__(
        self, in_channels: int, out_channels: int, features: Sequence[int] = FEATURES, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.block = DenseBlock(in_channels, features, dropout, of_image=True)
        self.shrink = pointwise([self.block.out_channels, 400, 200, 150], dropout=0.5)
        self.head = nn.Conv3d(150, out_channels, 1, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W, D) to logits (B, out_channels, H, W, D)."""
        logits: torch.Tensor = self.head(self.shrink(self.block(image)))
        return logits
