"""A dense network whose modalities are joined early."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from custom.networks.dense import DenseBlock, pointwise

FEATURES = (25, 25, 50, 50, 50, 75, 75, 75)
STEM = 25


class DualSingleDenseNet(nn.Module):
    """Early fusion: a baseline of Dolz et al. 2019, "HyperDense-Net" (IEEE TMI), padded.

    Each modality has a dense layer of its own; one path follows for all. MedicalZooPytorch's version runs both
    modalities through the first layer, so that the second layer never learns. Other differences are those of
    SinglePathDenseNet.

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
        self.stems = nn.ModuleList([DenseBlock(1, [STEM], dropout, of_image=True) for _ in range(in_channels)])
        self.block = DenseBlock(in_channels * (1 + STEM), features, dropout)
        self.shrink = pointwise([self.block.out_channels, 400, 200, 150], dropout=0.5)
        self.head = nn.Conv3d(150, out_channels, 1, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W, D) to logits (B, out_channels, H, W, D)."""
        features: list[torch.Tensor] = []
        for number, stem in enumerate(self.stems):
            features.append(stem(image[:, number : number + 1]))
        logits: torch.Tensor = self.head(self.shrink(self.block(torch.cat(features, dim=1))))
        return logits
