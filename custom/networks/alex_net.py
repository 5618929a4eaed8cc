"""AlexNet, reduced for images of 128 pixels."""

from __future__ import annotations

import torch
from torch import nn


class AlexNet(nn.Module):
    """After Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks".

    Reduced as in M. Tallone's brain tumour project: a first kernel of 9 instead of 11, four narrow dense layers, no
    local response normalisation, and by default no dropout; 4,589,316 parameters for three channels and four classes.
    Features are averaged to 2x2 fields, so that other image sizes than 128x128 (which gives 2x2 anyway) work too.

    Args:
        in_channels: channels of the image.
        out_channels: classes.
        dropout: probability, after each dense layer except the last.

    Shapes: (B, in_channels, H, W), H and W 69 or more, to logits (B, out_channels).
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(in_channels, 96, 9, stride=4),
            nn.MaxPool2d(2),
            *_convolution(96, 256, 5),
            nn.MaxPool2d(2),
            *_convolution(256, 384, 3, padding=1),
            *_convolution(384, 384, 3, padding=1),
            *_convolution(384, 256, 3, padding=1),
            nn.MaxPool2d(2),
        )
        self.pool = nn.AdaptiveAvgPool2d(2)
        dense: list[nn.Module] = [nn.Flatten()]
        for in_features, out_features in ((256 * 2 * 2, 512), (512, 512), (512, 128)):
            dense += [nn.Linear(in_features, out_features), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        self.dense = nn.Sequential(*dense, nn.Linear(128, out_channels))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) to logits (B, out_channels)."""
        logits: torch.Tensor = self.dense(self.pool(self.features(image)))
        return logits


def _convolution(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, kernel, stride, padding), nn.ReLU(inplace=True)]
