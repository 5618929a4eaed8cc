"""MONAI's HighResNet, with logits at its end."""

from __future__ import annotations

from typing import Any

from monai.networks.nets import HighResNet as MonaiHighResNet
from torch import nn


class HighResNet(MonaiHighResNet):
    """Li et al. 2017, "On the Compactness, Efficiency, and Representation of 3D Convolutional Networks" (IPMI).

    MONAI's network ends in batch norm, ReLU and dropout, so that no output is below 0; here the last convolution is the
    last layer. Full resolution, dilated convolutions, few parameters.

    Args:
        in_channels: channels of the image.
        out_channels: classes.
        settings: other arguments of MONAI's HighResNet; spatial_dims is 3.

    Shapes: (B, in_channels, H, W, D) of any size to logits (B, out_channels, H, W, D).
    """

    def __init__(self, in_channels: int, out_channels: int, **settings: Any) -> None:
        super().__init__(spatial_dims=3, in_channels=in_channels, out_channels=out_channels, **settings)
        convolution = next(layer for layer in self.blocks[-1].modules() if isinstance(layer, nn.Conv3d))
        self.blocks[-1] = nn.Conv3d(convolution.in_channels, out_channels, 1)
