"""Blocks of the dense networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


class DenseBlock(nn.Module):
    """Layers that each see all earlier features, after Huang et al. 2017, "Densely Connected ... Networks" (CVPR).

    A layer is batch norm, ReLU, 3x3x3 convolution, dropout; with a bottleneck, batch norm, ReLU and a 1x1x1
    convolution come first. (B, in_channels, ...) becomes (B, in_channels + sum(features), ...).

    Args:
        in_channels: channels of the input, which is kept in the output.
        features: new channels of each layer.
        dropout: probability, in each layer.
        bottleneck: channels of the 1x1x1 convolutions; 0 for none.
        of_image: the input is the image itself. The first layer has no ReLU, which would drop values below the mean.
    """

    def __init__(
        self, in_channels: int, features: Sequence[int], dropout: float, bottleneck: int = 0, of_image: bool = False
    ) -> None:
        super().__init__()
        layers = []
        channels = in_channels
        for number, width in enumerate(features):
            steps: list[nn.Module] = [nn.BatchNorm3d(channels)]
            if number or not of_image:
                steps.append(nn.ReLU(inplace=True))
            if bottleneck:
                steps += [nn.Conv3d(channels, bottleneck, 1, bias=False), nn.BatchNorm3d(bottleneck)]
                steps.append(nn.ReLU(inplace=True))
            steps.append(nn.Conv3d(bottleneck or channels, width, 3, padding=1, bias=False))
            layers.append(nn.Sequential(*steps, nn.Dropout(dropout)))
            channels += width
        self.layers = nn.ModuleList(layers)
        self.out_channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, ...) to (B, in_channels + sum(features), ...)."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


def pointwise(channels: Sequence[int], dropout: float = 0.0, bias: bool = False) -> nn.Sequential:
    """1x1x1 convolutions from channels[0] to channels[-1], each followed by a ReLU and dropout."""
    steps: list[nn.Module] = []
    for in_channels, out_channels in pairwise(channels):
        steps += [nn.Conv3d(in_channels, out_channels, 1, bias=bias), nn.ReLU(inplace=True), nn.Dropout(dropout)]
    return nn.Sequential(*steps)
