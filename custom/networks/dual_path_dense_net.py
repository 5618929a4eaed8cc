"""A dense path for each modality, joined late."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from custom.networks.dense import DenseBlock, pointwise

FEATURES = (25, 25, 50, 50, 50, 75, 75, 75)


class DualPathDenseNet(nn.Module):
    """Late fusion: a baseline of Dolz et al. 2019, "HyperDense-Net" (IEEE TMI), padded.

    Each modality has a path like SinglePathDenseNet's, of eight layers and without dropout; their 150 channels are
    joined. MedicalZooPytorch's version cannot run with two modalities (its widths do not fit) and has an unused head in
    each path. Other differences are those of SinglePathDenseNet.

    Args:
        in_channels: modalities, one path each.
        out_channels: classes.
        features: new channels of each layer of the dense blocks.

    Shapes: (B, in_channels, H, W, D) of any size to logits (B, out_channels, H, W, D).
    """

    def __init__(self, in_channels: int, out_channels: int, features: Sequence[int] = FEATURES) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            [
                nn.Sequential(
                    DenseBlock(1, features, dropout=0.0, of_image=True), pointwise([1 + sum(features), 400, 200, 150])
                )
                for _ in range(in_channels)
            ]
        )
        self.head = nn.Conv3d(150 * in_channels, out_channels, 1, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W, D) to logits (B, out_channels, H, W, D)."""
        features: list[torch.Tensor] = []
        for number, path in enumerate(self.paths):
            features.append(path(image[:, number : number + 1]))
        logits: torch.Tensor = self.head(torch.cat(features, dim=1))
        return logits
